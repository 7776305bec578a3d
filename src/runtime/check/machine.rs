//! What a config asks of this machine, looked at before anything is made of it: each part of it by a function of its own.
//! Uses: cgroup, compile, host, plan, prepare, spec, sys.

use super::{Found, Site};
use crate::cgroup;
use crate::plan::Source;
use crate::prepare;
use crate::spec::mount::{MountOptions, is_of_a_new_file_system};
use crate::spec::{Namespace, sysctl};
use crate::sys;
use oci_spec::runtime::{Hook, LinuxNamespaceType, PosixRlimitType};
use rcrun_plan::{Step, text::Text};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Looks at all of it.
pub(super) fn look(site: &Site<'_>, found: &mut Found) {
    for part in [
        slots,
        namespaces,
        user_namespaces,
        file_systems,
        binds,
        limits,
        time_offsets,
        sysctls,
        device_nodes,
        net_devices,
        hooks,
        rlimits,
        modules,
        seccomp,
        landlock,
        terminal,
    ] {
        part(site, found);
    }
}

/// What `create` opens: the root, sources of bind mounts, namespaces, devices.
fn slots(site: &Site<'_>, found: &mut Found) {
    for source in &site.start.plan.slots {
        let Err(error) = prepare::examine(source) else { continue };
        let (pointer, what, remedy) = match source {
            Source::Root { path, .. } => {
                ("/root/path".to_string(), path, "unpack a root file system there, or let the path name one")
            }
            Source::Bind { path, origin, .. } => (
                origin.clone(),
                path,
                "make it on the machine, or take the mount out: a source is not made for you",
            ),
            Source::Device { path, origin, .. } => (
                origin.trim_end_matches("#bind").to_string(),
                path,
                "in a user namespace the machine's own nodes are bound: name one that is there",
            ),
            Source::Namespace { path, origin, .. } => (
                format!("{origin}/path"),
                path,
                "name a file such as /proc/PID/ns/net, of the type that the entry says, of a process that runs",
            ),
            _ => continue,
        };
        if site.for_root && error.errno() == Some(libc::EACCES) {
            found.unseen(&pointer, &what.display().to_string());
            continue;
        }
        let sentence = error.sentence();
        let sentence = sentence.strip_prefix("config.json: ").unwrap_or(sentence);
        let place = pointer.trim_end_matches("/path");
        let sentence = [pointer.as_str(), place]
            .iter()
            .find_map(|start| sentence.strip_prefix(start)?.strip_prefix(": "))
            .unwrap_or(sentence);
        found.error(&pointer, sentence, remedy);
    }
}

fn namespaces(site: &Site<'_>, found: &mut Found) {
    for (i, namespace) in
        site.start.spec.linux().iter().flat_map(|l| l.namespaces().iter().flatten()).enumerate()
    {
        let file = match namespace.typ() {
            LinuxNamespaceType::Mount => "mnt",
            LinuxNamespaceType::Network => "net",
            LinuxNamespaceType::Pid => "pid",
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::Uts => "uts",
            LinuxNamespaceType::User => "user",
            LinuxNamespaceType::Cgroup => "cgroup",
            LinuxNamespaceType::Time => "time",
        };
        if !Path::new("/proc/self/ns").join(file).exists() {
            let (name, option) = (namespace.typ().to_string(), file.to_uppercase());
            found.error(
                &format!("/linux/namespaces/{i}/type"),
                &format!("this kernel has no {name} namespaces"),
                &format!("take the entry out, or boot a kernel with CONFIG_{option}_NS"),
            );
        }
    }
}

fn user_namespaces(site: &Site<'_>, found: &mut Found) {
    if site.start.spec.namespace(LinuxNamespaceType::User) != Namespace::New {
        return;
    }
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if most.trim() == "0" {
        found.error(
            "/linux/namespaces",
            "this machine makes no user namespaces: user.max_user_namespaces is 0",
            "sysctl user.max_user_namespaces=10000",
        );
    }
    let Some(how) = site.start.plan.maps.as_ref().and_then(|maps| maps.unprivileged) else { return };
    let in_path = |tool: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
    };
    for (pointer, needed, tool) in [
        ("/linux/uidMappings", how.newuidmap, "newuidmap"),
        ("/linux/gidMappings", how.newgidmap, "newgidmap"),
    ] {
        if needed && !in_path(tool) {
            found.error(
                pointer,
                &format!("these ids can be mapped by {tool} only, which is not in PATH"),
                "install it (Debian: the package uidmap), or map your own id alone",
            );
        }
    }
}

/// Types that /proc/filesystems lists, or that a module would bring.
fn file_systems(site: &Site<'_>, found: &mut Found) {
    let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = |kind: &str| listed.lines().any(|line| line.split('\t').nth(1) == Some(kind));
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let modules = fs::read_to_string(format!("/lib/modules/{release}/modules.dep")).unwrap_or_default();
    let loadable = |kind: &str| modules.lines().any(|line| line.contains(&format!("/{kind}.ko")));
    let steps = site.start.plan.steps.iter().filter_map(|planned| match &planned.step {
        Step::FsOpen { kind: Text(kind) } => Some((planned.origin.as_str(), kind.as_str())),
        _ => None,
    });
    let slots = site.start.plan.slots.iter().filter_map(|source| match source {
        Source::FileSystem { kind, origin, .. } => Some((origin.as_str(), kind.as_str())),
        _ => None,
    });
    for (origin, kind) in steps.chain(slots).filter(|(origin, _)| origin.starts_with("/mounts/")) {
        // Of `fuse.sshfs` the kernel knows the first word.
        let base = kind.split('.').next().unwrap_or(kind);
        if known(base) {
            continue;
        }
        let pointer = format!("{origin}/type");
        if loadable(base) {
            found.note(
                &pointer,
                &format!("the module {base} is not loaded yet: the first mount loads it"),
                None,
            );
            continue;
        }
        let names: Vec<&str> = listed.lines().filter_map(|line| line.split('\t').nth(1)).collect();
        let remedy = match super::nearest::nearest(kind, &names) {
            Some(meant) => format!("did you mean {meant:?}? /proc/filesystems lists those that there are"),
            None => "use one of /proc/filesystems, or load its module; for a folder of the machine use the type bind".to_string(),
        };
        found.error(&pointer, &format!("this kernel has no file system {kind:?}"), &remedy);
    }
}

/// Words that a bind mount leaves aside, as mount(2) does.
fn binds(site: &Site<'_>, found: &mut Found) {
    for (i, mount) in site.start.spec.mounts().iter().flatten().enumerate() {
        let options = MountOptions::of(mount);
        if options.bind.is_none() || options.remount {
            continue;
        }
        for (j, word) in mount.options().iter().flatten().enumerate() {
            if is_of_a_new_file_system(word) {
                found.note(
                    &format!("/mounts/{i}/options/{j}"),
                    &format!(
                        "{word:?} has no effect: it belongs to a new file system, and a bind mount makes none"
                    ),
                    Some("take it out, or mount a file system of that type"),
                );
            }
        }
    }
}

/// Limits whose controller is not there.
fn limits(site: &Site<'_>, found: &mut Found) {
    let Some((hierarchy, path)) = &site.start.cgroup else { return };
    let rootless = site.host.caller.is_rootless();
    let Some(offered) = cgroup::offered(hierarchy, path, rootless) else { return };
    for error in cgroup::without_controller(&offered, &site.start.limits) {
        found.refused(&error);
    }
}

/// A clock may not go before its start, nor so far that it could overflow (proc_timens_set_offset of kernel/time/namespace.c).
fn time_offsets(site: &Site<'_>, found: &mut Found) {
    const LATEST: i128 = i64::MAX as i128 / 2;
    let offsets = site.start.spec.linux().iter().flat_map(|l| l.time_offsets().iter().flatten());
    for (clock, offset) in offsets {
        let id = match clock.as_str() {
            "boottime" => rustix::time::ClockId::Boottime,
            _ => rustix::time::ClockId::Monotonic,
        };
        let now = rustix::time::clock_gettime(id);
        let nanoseconds = |seconds: i64, more: i64| i128::from(seconds) * 1_000_000_000 + i128::from(more);
        let more = i64::from(offset.nanosecs().unwrap_or_default());
        let then =
            nanoseconds(now.tv_sec, now.tv_nsec) + nanoseconds(offset.secs().unwrap_or_default(), more);
        if !(0..=LATEST).contains(&then) {
            let shown = now.tv_sec;
            found.error(
                &format!("/linux/timeOffsets/{clock}/secs"),
                &format!("the clock is at {shown} seconds here: with the offset it would be before its start, or overflow"),
                "take an offset that leaves it between 0 and 146 years",
            );
        }
    }
}

/// Names that the machine has no file for. What belongs to a network device may come with it.
fn sysctls(site: &Site<'_>, found: &mut Found) {
    let linux = site.start.spec.linux().as_ref();
    let mut names: Vec<&String> =
        linux.iter().flat_map(|l| l.sysctl().iter().flatten()).map(|(k, _)| k).collect();
    names.sort();
    for name in names {
        let Ok(file) = sysctl::file(name) else { continue };
        let pointer = format!("/linux/sysctl/{}", name.replace('~', "~0").replace('/', "~1"));
        let parts: Vec<&str> = file.split('/').collect();
        if let ["net", _, "conf" | "neigh", device, ..] = parts.as_slice() {
            let moved =
                linux.and_then(|l| l.net_devices().as_ref()).is_some_and(|devices| !devices.is_empty());
            let new = site.start.spec.namespace(LinuxNamespaceType::Network) == Namespace::New;
            if !["all", "default", "lo"].contains(device) {
                if new && !moved {
                    let text =
                        format!("a new network namespace has no device {device:?} yet when this is set");
                    found.error(
                        &pointer,
                        &text,
                        "use `all`, `default` or `lo`, or let /linux/netDevices bring it",
                    );
                }
                continue;
            }
        }
        if !Path::new("/proc/sys").join(&file).exists() {
            found.error(
                &pointer,
                &format!("this machine has no sysctl {name:?}"),
                "mend the name (`sysctl -a` lists them), or load the module that brings it",
            );
        }
    }
}

/// mknod(2) of a device takes CAP_MKNOD.
fn device_nodes(site: &Site<'_>, found: &mut Found) {
    const CAP_MKNOD: u32 = 27;
    let makes = site.start.plan.steps.iter().find(|planned| match planned.step {
        Step::Node { mode, .. } => mode & libc::S_IFMT != libc::S_IFIFO,
        _ => false,
    });
    let Some(planned) = makes else { return };
    if !site.for_root && site.host.bounding & 1 << CAP_MKNOD == 0 {
        let pointer = if planned.origin.is_empty() { "/linux" } else { &planned.origin };
        found.error(
            pointer,
            "device nodes cannot be made: rcrun itself lacks CAP_MKNOD",
            "run rcrun with CAP_MKNOD, or give the container a user namespace: nodes of the machine are bound then",
        );
    }
}

fn net_devices(site: &Site<'_>, found: &mut Found) {
    for device in &site.start.plan.net_devices {
        // /sys may be mounted of another network namespace.
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
        if socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(&socket, &device.name).is_err()) {
            found.error(
                &format!("/linux/netDevices/{}", device.name),
                &format!("this machine has no network device {:?}", device.name),
                "`ip link` lists those that there are: only one in rcrun's own network namespace can be moved",
            );
        }
    }
}

/// Those that run with the machine's paths; those of startContainer are looked for in the root.
fn hooks(site: &Site<'_>, found: &mut Found) {
    let Some(hooks) = site.start.spec.hooks() else { return };
    for (kind, list) in [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (i, hook) in list.iter().flatten().enumerate() {
            let pointer = format!("/hooks/{kind}/{i}/path");
            let Some((message, remedy)) = why_not_executed(hook) else { continue };
            match kind {
                // It runs when the container is gone: what is left to do is to say so.
                "poststop" => found.warning(&pointer, &message, Some(remedy)),
                _ => found.error(&pointer, &message, remedy),
            }
        }
    }
}

fn why_not_executed(hook: &Hook) -> Option<(String, &'static str)> {
    let shown = hook.path().display();
    match fs::metadata(hook.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        Err(_) => Some((
            format!("there is no file {shown} on this machine"),
            "install the hook, or take the entry out: a hook that fails ends the start",
        )),
        Ok(there) if !there.is_file() => Some((format!("{shown} is no file"), "name a program")),
        Ok(there) if there.permissions().mode() & 0o111 == 0 => {
            Some((format!("{shown} is not executable"), "chmod +x it"))
        }
        Ok(_) => None,
    }
}

/// What setrlimit(2) refuses: a hard limit above rcrun's own without CAP_SYS_RESOURCE, and more files than fs.nr_open.
fn rlimits(site: &Site<'_>, found: &mut Found) {
    let spec = &site.start.spec;
    let in_user = spec.namespace(LinuxNamespaceType::User) != Namespace::Inherit;
    let may = !in_user && (site.for_root || holds_sys_resource());
    let nr_open =
        fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse::<u64>().ok());
    for (i, limit) in spec.process().iter().flat_map(|p| p.rlimits().iter().flatten()).enumerate() {
        let pointer = format!("/process/rlimits/{i}/hard");
        let (kind, hard) = (limit.typ(), limit.hard());
        if kind == PosixRlimitType::RlimitNofile
            && let Some(most) = nr_open.filter(|most| hard > *most)
        {
            let text =
                format!("{hard} is more than a process may have open on this machine: fs.nr_open is {most}");
            found.error(&pointer, &text, "take a smaller limit, or raise the sysctl fs.nr_open");
            continue;
        }
        let Some(resource) = resource(kind) else { continue };
        if let Some(own) = getrlimit(resource).maximum.filter(|own| hard > *own && !may) {
            let why = if in_user { "in a user namespace" } else { "without CAP_SYS_RESOURCE" };
            let text = format!("{kind} cannot be raised to {hard} {why}: rcrun's own hard limit is {own}");
            found.error(
                &pointer,
                &text,
                "take at most that, or raise it for rcrun (`ulimit -H`, systemd's Limit...=)",
            );
        }
    }
}

fn holds_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    bits.is_some_and(|bits| bits & 1 << CAP_SYS_RESOURCE != 0)
}

fn resource(kind: PosixRlimitType) -> Option<Resource> {
    use PosixRlimitType as R;
    Some(match kind {
        R::RlimitCpu => Resource::Cpu,
        R::RlimitFsize => Resource::Fsize,
        R::RlimitData => Resource::Data,
        R::RlimitStack => Resource::Stack,
        R::RlimitCore => Resource::Core,
        R::RlimitRss => Resource::Rss,
        R::RlimitNproc => Resource::Nproc,
        R::RlimitNofile => Resource::Nofile,
        R::RlimitMemlock => Resource::Memlock,
        R::RlimitAs => Resource::As,
        R::RlimitLocks => Resource::Locks,
        R::RlimitSigpending => Resource::Sigpending,
        R::RlimitMsgqueue => Resource::Msgqueue,
        R::RlimitNice => Resource::Nice,
        R::RlimitRtprio => Resource::Rtprio,
        R::RlimitRttime => Resource::Rttime,
    })
}

/// AppArmor and SELinux, on or off.
fn modules(site: &Site<'_>, found: &mut Found) {
    let spec = &site.start.spec;
    let process = spec.process().as_ref();
    let given = |label: Option<&String>| label.filter(|label| !label.is_empty()).cloned();
    let profile = given(process.and_then(|p| p.apparmor_profile().as_ref()));
    let off = |module: &str| format!("{module} is off on this machine: this has no effect");
    if let Some(profile) = profile {
        let pointer = "/process/apparmorProfile";
        if !site.host.apparmor {
            found.note(pointer, &off("AppArmor"), None);
        } else if profile != "unconfined" {
            match fs::read_to_string("/sys/kernel/security/apparmor/profiles") {
                Ok(loaded) => {
                    let name = profile.split("//").next().unwrap_or(&profile);
                    if !loaded
                        .lines()
                        .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(" (")))
                    {
                        let text = format!("the profile {profile:?} is not loaded");
                        found.error(pointer, &text, "load it with apparmor_parser, or take the field out");
                    }
                }
                Err(_) => found.unseen(pointer, "the list of loaded profiles"),
            }
        }
    }
    let labels = [
        ("/process/selinuxLabel", given(process.and_then(|p| p.selinux_label().as_ref()))),
        ("/linux/mountLabel", given(spec.linux().as_ref().and_then(|l| l.mount_label().as_ref()))),
    ];
    for (pointer, label) in labels {
        if label.is_some() && !site.host.selinux {
            found.note(pointer, &off("SELinux"), None);
        }
    }
}

fn seccomp(site: &Site<'_>, found: &mut Found) {
    let there = site.start.spec.linux().as_ref().is_some_and(|l| l.seccomp().is_some());
    if there && !Path::new("/proc/sys/kernel/seccomp").exists() {
        found.error(
            "/linux/seccomp",
            "this kernel has no seccomp filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        );
    }
}

fn landlock(site: &Site<'_>, found: &mut Found) {
    let asked = site.start.plan.steps.iter().find(|p| matches!(p.step, Step::LandlockRules { .. }));
    if let Some(planned) = asked
        && sys::probe::landlock().is_err()
    {
        found.error(&planned.origin, "Landlock is off on this machine", "boot with landlock in lsm=");
    }
}

fn terminal(site: &Site<'_>, found: &mut Found) {
    if site.start.spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false)) {
        found.note(
            "/process/terminal",
            "`rcrun run` uses its own terminal; `create` and `run --detach` need --console-socket",
            None,
        );
    }
}
