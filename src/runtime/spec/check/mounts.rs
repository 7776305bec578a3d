//! The list of mounts. Uses: fault, linux, text, mount, path.

use oci_spec::runtime::{self as oci, LinuxNamespaceType};

use super::super::Namespace;
use super::super::fault::{Fault, Quoted};
use super::super::mount::{Bind, MountOptions};
use super::text::{Checked, bounded, count, path};
use super::{linux, namespace};
use crate::spec::path::below_root;

const MAX_MOUNTS: usize = 4096;
const MAX_OPTIONS: usize = 1024;
/// mount(2) takes a page of options; no single one can be longer.
const MAX_OPTION: usize = 4095;
/// 500 layers, the most that overlay takes, of 255 characters, the most that fsconfig(2) takes.
const MAX_LAYERS: usize = 128 << 10;

/// Files of procfs that may be covered by a file: what lxcfs emulates, and two that runc allows.
const COVERED_PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Checks each mount.
pub fn all(spec: &oci::Spec, warnings: &mut Vec<String>) -> Checked {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    count(mounts.len(), MAX_MOUNTS, format_args!("/mounts"))?;
    if !mounts.is_empty() && namespace(spec, LinuxNamespaceType::Mount) == Namespace::Inherit {
        warnings.push("/mounts: without a mount namespace nothing is mounted".to_string());
    }
    let user = namespace(spec, LinuxNamespaceType::User) != Namespace::Inherit;
    mounts.iter().enumerate().try_for_each(|(i, mount)| one(i, mount, user))
}

/// Checks where each of a list lies.
pub fn destinations(mounts: &[oci::Mount]) -> Checked {
    count(mounts.len(), MAX_MOUNTS, format_args!("/mounts"))?;
    mounts
        .iter()
        .enumerate()
        .try_for_each(|(i, mount)| path(mount.destination(), format_args!("/mounts/{i}/destination")))
}

fn one(i: usize, mount: &oci::Mount, user: bool) -> Checked {
    path(mount.destination(), format_args!("/mounts/{i}/destination"))?;
    let words = mount.options().as_deref().unwrap_or_default();
    count(words.len(), MAX_OPTIONS, format_args!("/mounts/{i}/options"))?;
    for (n, word) in words.iter().enumerate() {
        let most = if word.starts_with("lowerdir=") { MAX_LAYERS } else { MAX_OPTION };
        bounded(word, most, format_args!("/mounts/{i}/options/{n}"))?;
    }
    let kind = mount.typ().as_deref().unwrap_or_default();
    bounded(kind, 255, format_args!("/mounts/{i}/type"))?;
    let options = MountOptions::of(mount);

    id_map(i, mount, &options, user)?;

    let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
    match (options.bind, source) {
        (Some(_), None) if !options.remount => {
            return Err(Fault::new(format_args!("/mounts/{i}/source"), "a bind mount needs a source"));
        }
        (Some(_), Some(source)) => path(source, format_args!("/mounts/{i}/source"))?,
        (None, Some(source)) => {
            let text = source.to_string_lossy();
            bounded(&text, MAX_OPTION, format_args!("/mounts/{i}/source"))?;
        }
        (_, None) => {}
    }
    let new = options.bind.is_none() && !options.remount && options.propagation.is_empty();
    if new && kind.is_empty() {
        let text = "a mount needs a type, unless it is a bind mount";
        return Err(Fault::new(format_args!("/mounts/{i}/type"), text));
    }
    over_proc(i, mount, &options)
}

/// `user`: the container has a user namespace, whose maps are taken where the mount has none of its own.
fn id_map(i: usize, mount: &oci::Mount, options: &MountOptions, user: bool) -> Checked {
    let list = |list: &Option<Vec<oci::LinuxIdMapping>>| list.as_deref().unwrap_or_default().len();
    let (uids, gids) = (list(mount.uid_mappings()), list(mount.gid_mappings()));
    for (field, there, other, mappings) in [
        ("uidMappings", uids > 0, gids > 0, mount.uid_mappings()),
        ("gidMappings", gids > 0, uids > 0, mount.gid_mappings()),
    ] {
        let at = format!("/mounts/{i}/{field}");
        if there && !other {
            return Err(Fault::new(at, "uidMappings and gidMappings of a mount need each other"));
        }
        linux::mapping(&at, mappings.as_deref().unwrap_or_default())?;
    }
    let at = match &options.idmap {
        Some(word) => format!("/mounts/{i}/options/{}", word.at),
        None if uids > 0 => format!("/mounts/{i}/uidMappings"),
        None => return Ok(()),
    };
    if options.remount || options.bind.is_none() && mount.typ().as_deref().unwrap_or_default().is_empty() {
        return Err(Fault::new(at, "a mount that is there already cannot get an id map: only a new one can"));
    }
    let kind = mount.typ().as_deref().unwrap_or_default();
    if options.bind.is_none() && matches!(kind, "proc" | "sysfs" | "mqueue" | "devpts" | "cgroup" | "cgroup2")
    {
        return Err(Fault::new(at, format_args!("the kernel has no id maps for mounts of {kind}")));
    }
    if uids == 0 && !user {
        let text =
            "needs uidMappings and gidMappings of the mount, or a user namespace whose maps it can take";
        return Err(Fault::new(at, text));
    }
    Ok(())
}

/// Nothing but a procfs may cover /proc, and little inside it may be covered: what the runtime and the
/// security modules write there would go to a file of the container's (CVE-2019-16884). Where links in
/// the root lead a destination into /proc, or the source of a bind mount on it is no procfs, `prepare`
/// and init notice.
fn over_proc(i: usize, mount: &oci::Mount, options: &MountOptions) -> Checked {
    // Most destinations are decided without taking them apart.
    let text = mount.destination().to_str().unwrap_or_default();
    if !text.contains("proc") {
        return Ok(());
    }
    let destination = format!("/{}", below_root(mount.destination()));
    let Some(rest) = destination.strip_prefix("/proc") else { return Ok(()) };
    let at = format_args!("/mounts/{i}/destination");
    let refuse = |why: &str| {
        Err(Fault::new(at, format_args!("{} cannot be mounted because it is {why}", Quoted(&destination))))
    };
    if rest.is_empty() {
        let procfs = matches!(options.bind, Some(Bind::Plain | Bind::Recursive))
            || mount.typ().as_deref() == Some("proc")
            || (options.remount || !options.propagation.is_empty())
                && mount.typ().as_deref().unwrap_or_default().is_empty();
        return if procfs { Ok(()) } else { refuse("not of type proc") };
    }
    if rest.starts_with('/') && !COVERED_PROC_FILES.contains(&destination.as_str()) {
        return refuse("inside /proc");
    }
    Ok(())
}
