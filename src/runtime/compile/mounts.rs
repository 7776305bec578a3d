//! mounts: each entry becomes the few steps that make, place and finish it. Uses spec::mount for the options.

use super::{Kept, Request, attributes, idmap, in_root, labels, namespaces::Spaces, option};
use crate::host::Host;
use crate::plan::{IdMap, Plan, Source};
use crate::spec::Spec;
use crate::spec::mount::{Bind, MountOptions, PropagationKind};
use crate::{Error, Result};
use oci_spec::runtime::Mount;
use rcrun_plan::{InRoot, Slot, Step, text::Text};
use std::path::Path;

/// /dev comes whole from the machine: nothing is made in it.
pub(super) fn dev_is_bind(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|m| {
        in_root(m.destination()).0.0 == "dev"
            && (m.typ().as_deref() == Some("bind")
                || m.options().iter().flatten().any(|o| o == "bind" || o == "rbind"))
    })
}

pub(super) fn compile(
    spec: &Spec,
    host: &Host,
    request: &Request<'_>,
    spaces: &Spaces,
    kept: &Kept<'_>,
    plan: &mut Plan,
) -> Result<()> {
    for (i, entry) in spec.mounts().iter().flatten().enumerate() {
        let made = one(&format!("/mounts/{i}"), entry, (spec, host), request, spaces, plan)?;
        if let (true, Some(number)) = (made, kept.number(i)) {
            plan.push(format!("/mounts/{i}"), Step::Keep { number });
        }
    }
    if request.notify {
        let path = InRoot(Text::from("run/notify"));
        let slot = plan.slot(Source::NotifyFolder);
        let flags = libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC;
        plan.push("", Step::Directory { path: path.clone(), mode: 0o755 });
        plan.push("", Step::Tree { slot });
        plan.push("", attributes(flags, 0, 0, false));
        plan.push("", Step::Attach { path, plain: false });
    }
    Ok(())
}

/// The steps of one entry. False if it makes no mount.
pub(super) fn one(
    origin: &str,
    entry: &Mount,
    (spec, host): (&Spec, &Host),
    request: &Request<'_>,
    spaces: &Spaces,
    plan: &mut Plan,
) -> Result<bool> {
    // Since Linux 6.8 mountinfo is ordered by age.
    let late = host.kernel >= (6, 8);
    let mut options = MountOptions::of(entry);
    let path = in_root(entry.destination());
    if options.bind.is_none() && !changes(entry, &options) {
        labels::mount(fs_type(entry), &mut options, spec, host);
    }
    if changes(entry, &options) {
        change(origin, path, &options, plan)?;
        return Ok(false);
    }
    let idmap = idmap::of(origin, entry, &options, spec, host)?;
    if options.bind.is_some() {
        none_of_cruns(origin, &options)?;
        let source = request.bundle.join(entry.source().as_deref().unwrap_or(Path::new("")));
        let mut options = options;
        // Where sysfs cannot be mounted its mount is bound, as `spec --rootless` does, and the machine's cgroups, some of
        // them the user's own, come along (CVE-2023-25809).
        if host.caller.is_rootless() && source == Path::new("/sys") {
            options.rec_attr_set |= options.attr_set & libc::MOUNT_ATTR_RDONLY;
        }
        bind(origin, source.as_path(), path, &options, (late, idmap), plan);
    } else if idmap.is_some() {
        file_system_outside(origin, entry, path, &options, host, (late, idmap), plan)?;
    } else {
        match fs_type(entry) {
            // sysfs and mqueue belong to the network and the ipc namespace, and the kernel gives them only to who owns
            // that namespace: with the machine's own, its mount is bound.
            "sysfs" if !spaces.owns(libc::CLONE_NEWNET) => bind(
                origin,
                Path::new("/sys"),
                path,
                // What is mounted below it comes along, the machine's cgroups too (CVE-2023-25809).
                &MountOptions {
                    bind: Some(Bind::Recursive),
                    rec_attr_set: options.rec_attr_set | options.attr_set & libc::MOUNT_ATTR_RDONLY,
                    ..options
                },
                (late, None),
                plan,
            ),
            "mqueue" if !spaces.owns(libc::CLONE_NEWIPC) => bind(
                origin,
                Path::new("/dev/mqueue"),
                path,
                &MountOptions { bind: Some(Bind::Plain), ..options },
                (late, None),
                plan,
            ),
            "cgroup" | "cgroup2" if !request.cgroup && !spaces.makes(libc::CLONE_NEWCGROUP) => {
                no_cgroups(origin, path, &options, host, plan)?;
            }
            "cgroup" | "cgroup2" if !spaces.makes(libc::CLONE_NEWCGROUP) => {
                let slot = plan.slot(Source::Cgroup { late });
                receive(origin, slot, late, plan);
                plan.push(origin, Step::Directory { path: path.clone(), mode: 0o755 });
                plan.push(origin, Step::Tree { slot });
                place(origin, path, &options, false, plan);
            }
            kind => new_file_system(origin, kind, entry, path, &options, host, plan)?,
        }
    }
    Ok(true)
}

/// Words of crun's for a bind mount. mount(2) ignores what else is said of one, and whose files these are, or where a link
/// leads, is not to be ignored.
fn none_of_cruns(origin: &str, options: &MountOptions) -> Result<()> {
    let remedy = |key: &str, value: Option<&str>| match (key, value) {
        ("idmap" | "ridmap", Some(_)) => Some("give the mount `uidMappings` and `gidMappings`"),
        ("src-nofollow" | "dest-nofollow", None) => Some("give a path without a link"),
        _ => None,
    };
    match options.superblock.iter().find_map(|(key, value)| Some((key, remedy(key, value.as_deref())?))) {
        None => Ok(()),
        Some((key, remedy)) => Err(Error::unsupported(
            format!("{origin}/options"),
            format!("{key:?} is an option of crun's that rcrun does not have: {remedy}"),
        )),
    }
}

/// It changes a mount, and makes none.
pub(crate) fn is_change(entry: &Mount) -> bool {
    changes(entry, &MountOptions::of(entry))
}

fn changes(entry: &Mount, options: &MountOptions) -> bool {
    options.remount || options.bind.is_none() && fs_type(entry).is_empty()
}

/// `remount`, or words of propagation alone: no new mount, but a change to the one that is there by now.
fn change(origin: &str, path: InRoot<Text>, options: &MountOptions, plan: &mut Plan) -> Result<()> {
    // mount(2) would take `ro` for the superblock too, which others may have mounted, the machine among them.
    let own = |key: &str| !matches!(key, "ro" | "rw");
    if let Some((key, _)) = options.superblock.iter().find(|(key, _)| own(key)) {
        return Err(Error::unsupported(
            format!("{origin}/options"),
            format!(
                "{key:?} with remount: only what belongs to the mount can be changed, not its file system"
            ),
        ));
    }
    plan.push(origin, Step::MountedAt { path });
    set_attributes(origin, options, plan);
    set_propagation(origin, options, plan);
    Ok(())
}

pub(super) fn fs_type(entry: &Mount) -> &str {
    entry.typ().as_deref().unwrap_or_default()
}

fn bind(
    origin: &str,
    source: &Path,
    path: InRoot<Text>,
    options: &MountOptions,
    (late, idmap): (bool, Option<IdMap>),
    plan: &mut Plan,
) {
    let recursive = options.bind == Some(Bind::Recursive);
    // Private unless asked for: a detached clone of a shared mount would carry what is mounted on it to the machine.
    let propagation = match options.propagation.first().map(|p| p.kind) {
        Some(PropagationKind::Shared) => 0,
        Some(PropagationKind::Slave) => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    };
    let slot = plan.slot(Source::Bind {
        path: source.to_path_buf(),
        recursive,
        propagation,
        origin: format!("{origin}/source"),
        late,
        idmap,
    });
    receive(origin, slot, late, plan);
    plan.push(origin, Step::MountPoint { path: path.clone(), like: slot });
    plan.push(origin, Step::Tree { slot });
    place(origin, path, options, false, plan);
}

/// Asks for a late tree; for the one after the last that was asked for together with it, where no other mount was made
/// between them: an answer costs a switch to the parent and back.
fn receive(origin: &str, slot: Slot, late: bool, plan: &mut Plan) {
    const MOST: u16 = 64;
    if !late {
        return;
    }
    for planned in plan.steps.iter_mut().rev() {
        match &mut planned.step {
            Step::FsMount { .. } | Step::AttachRoot { .. } => break,
            Step::Receive { first, count } => {
                if first.0 + *count != slot.0 || *count == MOST {
                    break;
                }
                *count += 1;
                return;
            }
            _ => {}
        }
    }
    plan.push(origin, Step::Receive { first: slot, count: 1 });
}

fn new_file_system(
    origin: &str,
    kind: &str,
    entry: &Mount,
    path: InRoot<Text>,
    options: &MountOptions,
    host: &Host,
    plan: &mut Plan,
) -> Result<()> {
    let cgroup = kind == "cgroup" || kind == "cgroup2";
    let kind = if cgroup { "cgroup2" } else { kind };
    plan.push(origin, Step::FsOpen { kind: kind.into() });
    configure(origin, kind, entry, options, host, plan)?;
    plan.push(origin, Step::FsMount { attributes: new_attributes(kind, options) });
    fill(origin, kind, &path, options, plan);
    // A symlink on the way to /proc or /sys would lead the mount, and all that is written there, astray (CVE-2023-27561).
    let plain = kind == "proc" || kind == "sysfs";
    plan.push(origin, Step::Directory { path: path.clone(), mode: 0o755 });
    let options = MountOptions { attr_set: 0, attr_clear: 0, ..options.clone() };
    place(origin, path, &options, plain, plan);
    Ok(())
}

/// What the new file system is told before it is made.
fn configure(
    origin: &str,
    kind: &str,
    entry: &Mount,
    options: &MountOptions,
    host: &Host,
    plan: &mut Plan,
) -> Result<()> {
    // Without a source mountinfo shows "none".
    let source = entry.source().as_ref().and_then(|s| s.to_str()).filter(|s| !s.is_empty()).unwrap_or(kind);
    option::push(origin, "source", ("source", source), host, plan)?;
    for (key, value) in &options.superblock {
        // cgroup2's own options would change the whole hierarchy of the machine, and v1's mean nothing to it. A tmpfs is
        // made read-only at the end: what is mounted below it needs mount points in it.
        if kind == "cgroup2" || (kind == "tmpfs" && key == "ro") {
            continue;
        }
        match value {
            Some(value) => option::push(origin, "options", (key, value), host, plan)?,
            None => {
                option::named(origin, "options", key)?;
                plan.push(origin, Step::FsFlag { key: key.as_str().into() });
            }
        }
    }
    Ok(())
}

fn new_attributes(kind: &str, options: &MountOptions) -> u32 {
    let later = if kind == "tmpfs" { libc::MOUNT_ATTR_RDONLY } else { 0 };
    (options.attr_set & !later) as u32
}

/// Mode and files of the new mount, which are those of the folder that it will cover.
fn fill(origin: &str, kind: &str, path: &InRoot<Text>, options: &MountOptions, plan: &mut Plan) {
    if kind == "tmpfs" && !options.superblock.iter().any(|(key, _)| key == "mode") {
        plan.push(origin, Step::InheritMode { path: path.clone() });
    }
    if options.tmpcopyup {
        plan.push(origin, Step::CopyUp { path: path.clone() });
    }
}

/// A new file system that is made outside: its mount shows other owners, or it takes paths of the machine.
pub(super) fn file_system_outside(
    origin: &str,
    entry: &Mount,
    path: InRoot<Text>,
    options: &MountOptions,
    host: &Host,
    (late, idmap): (bool, Option<IdMap>),
    plan: &mut Plan,
) -> Result<()> {
    let kind = fs_type(entry);
    let mut configured = Plan::default();
    configure(origin, kind, entry, options, host, &mut configured)?;
    let pairs = configured.steps.into_iter().filter_map(|planned| match planned.step {
        Step::FsString { key, value } => Some((key.0, Some(value.0))),
        Step::FsFlag { key } => Some((key.0, None)),
        _ => None,
    });
    let slot = plan.slot(Source::FileSystem {
        kind: kind.to_string(),
        options: pairs.collect(),
        attributes: new_attributes(kind, options),
        idmap,
        origin: origin.to_string(),
        late,
    });
    receive(origin, slot, late, plan);
    plan.push(origin, Step::Tree { slot });
    fill(origin, kind, &path, options, plan);
    plan.push(origin, Step::Directory { path: path.clone(), mode: 0o755 });
    let options = MountOptions { attr_set: 0, attr_clear: 0, ..options.clone() };
    place(origin, path, &options, false, plan);
    Ok(())
}

/// An empty folder: without a cgroup of the container's own there is nothing but those of others to be shown
/// (CVE-2023-25809), and configs of `runc spec --rootless` ask for them.
fn no_cgroups(
    origin: &str,
    path: InRoot<Text>,
    options: &MountOptions,
    host: &Host,
    plan: &mut Plan,
) -> Result<()> {
    plan.push(origin, Step::FsOpen { kind: "tmpfs".into() });
    option::push(origin, "source", ("source", "cgroup"), host, plan)?;
    plan.push(origin, Step::FsFlag { key: "ro".into() });
    plan.push(origin, Step::FsMount { attributes: (options.attr_set | libc::MOUNT_ATTR_RDONLY) as u32 });
    plan.push(origin, Step::Directory { path: path.clone(), mode: 0o755 });
    let options = MountOptions { attr_set: 0, attr_clear: 0, ..options.clone() };
    place(origin, path, &options, false, plan);
    Ok(())
}

/// Attributes, place, propagation of the mount in the register.
fn place(origin: &str, path: InRoot<Text>, options: &MountOptions, plain: bool, plan: &mut Plan) {
    set_attributes(origin, options, plan);
    plan.push(origin, Step::Attach { path, plain });
    set_propagation(origin, options, plan);
}

fn set_attributes(origin: &str, options: &MountOptions, plan: &mut Plan) {
    if options.attr_set | options.attr_clear != 0 {
        plan.push(origin, attributes(options.attr_set, options.attr_clear, 0, false));
    }
    if options.rec_attr_set | options.rec_attr_clear != 0 {
        plan.push(origin, attributes(options.rec_attr_set, options.rec_attr_clear, 0, true));
    }
}

fn set_propagation(origin: &str, options: &MountOptions, plan: &mut Plan) {
    for propagation in &options.propagation {
        let kind = match propagation.kind {
            PropagationKind::Shared => libc::MS_SHARED,
            PropagationKind::Slave => libc::MS_SLAVE,
            PropagationKind::Private => libc::MS_PRIVATE,
            PropagationKind::Unbindable => libc::MS_UNBINDABLE,
        };
        plan.push(origin, attributes(0, 0, kind, propagation.recursive));
    }
}

/// Read-only for the tmpfs mounts that asked for it.
pub(super) fn finish(spec: &Spec, plan: &mut Plan) {
    for (i, entry) in spec.mounts().iter().flatten().enumerate() {
        let origin = format!("/mounts/{i}");
        let options = MountOptions::of(entry);
        if fs_type(entry) == "tmpfs"
            && options.bind.is_none()
            && !options.remount
            && options.attr_set & libc::MOUNT_ATTR_RDONLY != 0
        {
            plan.push(&origin, Step::MountedAt { path: in_root(entry.destination()) });
            plan.push(&origin, attributes(libc::MOUNT_ATTR_RDONLY, 0, 0, false));
        }
    }
}
