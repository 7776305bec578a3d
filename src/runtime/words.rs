//! Steps and what they work on in words. Uses: plan.

use crate::plan::{Plan, Planned, Source};
use rcrun_plan::{Slot, Step, text::Text};
use std::fmt::Write;

/// What step `index` does, in words.
pub fn tell(plan: &Plan, index: usize) -> String {
    let slot = |slot: &Slot| source(plan.slots.get(usize::from(slot.0)));
    let Some(planned @ Planned { step, .. }) = plan.steps.get(index) else { return String::new() };
    let path = |p: &rcrun_plan::InRoot<Text>| format!("/{}", p.0);
    match step {
        Step::Join { slot: s, kinds } => format!("join {} of {}", kinds_text(*kinds), slot(s)),
        Step::Unshare { kinds } => format!("new {}", kinds_text(*kinds)),
        Step::Wait { barrier } => match barrier {
            rcrun_plan::Barrier::Maps => "wait for the id maps".into(),
            rcrun_plan::Barrier::RuntimeHooks => "wait for prestart and createRuntime hooks".into(),
            rcrun_plan::Barrier::NetDevices => "wait for the network devices".into(),
            rcrun_plan::Barrier::ContainerHooks => "wait for createContainer hooks".into(),
        },
        Step::BecomeRoot => "become root of the user namespace".into(),
        Step::CheckMountNamespace { .. } => "check that the mounts are not the machine's".into(),
        Step::SetPropagation { propagation } => format!("make all mounts {}", propagation_text(*propagation)),
        Step::AttachRoot { slot: s, .. } => format!("attach the root {}", slot(s)),
        Step::UseRoot { slot: s } => format!("use {} as root", slot(s)),
        Step::JoinedRoot => "use the joined root".into(),
        Step::Receive { first, count } => {
            let names: Vec<String> = (first.0..first.0 + count).map(|n| slot(&Slot(n))).collect();
            format!("receive {}", names.join(", "))
        }
        Step::Directory { path: p, .. } => format!("make the folder {}", path(p)),
        Step::MountPoint { path: p, like } => format!("make the mount point {} for {}", path(p), slot(like)),
        Step::File { path: p } => format!("make the file {}", path(p)),
        Step::FsOpen { kind } => format!("new {kind}"),
        Step::FsString { key, value } => format!("option {key}={value} of {}", mount_before(plan, index)),
        Step::FsFlag { key } => format!("option {key} of {}", mount_before(plan, index)),
        Step::FsMount { .. } => match fs_source(plan, index) {
            Some(disk) if disk.starts_with('/') => {
                format!("make the {} of {disk}", mount_before(plan, index))
            }
            _ => format!("make the {}", mount_before(plan, index)),
        },
        Step::Tree { slot: s } => format!("take {}", slot(s)),
        Step::Clone { path: p, .. } => format!("clone {}", path(p)),
        Step::Root => "take the root mount".into(),
        Step::MountedAt { path: p } => format!("take the mount on {}", path(p)),
        Step::Attributes { set, clear, propagation, recursive } => {
            let mut words = attribute_words(*set, *clear);
            if *propagation != 0 {
                words.push(propagation_text(*propagation).to_string());
            }
            let all = if *recursive { " with all below" } else { "" };
            format!("make {} {}{all}", mount_before(plan, index), words.join(","))
        }
        Step::CopyUp { path: p } => format!("copy {} up into {}", path(p), mount_before(plan, index)),
        Step::InheritMode { path: p } => {
            format!("give {} the mode of {}", mount_before(plan, index), path(p))
        }
        Step::Attach { path: p, .. } => format!("mount {} on {}", mount_before(plan, index), path(p)),
        Step::Keep { .. } => format!("keep {} in hand", mount_before(plan, index)),
        Step::Mask { path: p, .. } => format!("mask {}", path(p)),
        Step::ReadOnly { path: p, .. } => format!("make {} read-only", path(p)),
        Step::Node { path: p, major, minor, mode, .. } => {
            let kind = match mode & libc::S_IFMT {
                libc::S_IFBLK => "block device",
                libc::S_IFIFO => "fifo",
                _ => "character device",
            };
            format!("make the {kind} {} ({major}:{minor})", path(p))
        }
        Step::Symlink { target, path: p, .. } => format!("link {} to {target}", path(p)),
        Step::Pivot => "pivot_root".into(),
        Step::Chroot => "chroot".into(),
        Step::Detach { path } => format!("take the machine's {path} away"),
        Step::MoveRoot => "move the root onto / and chroot".into(),
        Step::Loopback => "bring up lo".into(),
        Step::Hostname { name } => format!("set the hostname {name}"),
        Step::Domainname { name } => format!("set the domainname {name}"),
        Step::PrivateProc => "make a private procfs".into(),
        Step::Sysctl { path, value } => format!("sysctl {}={value}", path.0.replace('/', ".")),
        Step::Terminal { .. } => "make the terminal".into(),
        Step::Session { controlling: false } => "new session".into(),
        Step::Session { controlling: true } => "new session with the terminal".into(),
        Step::Fork => "fork into the pid namespace".into(),
        Step::AwaitScheduler => "wait until its scheduling is set from outside".into(),
        Step::Keyring { name } => format!("join the session keyring {name}"),
        Step::Umask { mask } => format!("umask {mask:03o}"),
        Step::Rlimit { resource, soft, hard } => format!("limit {} to {soft}:{hard}", rlimit_name(*resource)),
        Step::Personality { domain } => format!("personality {domain:#x}"),
        Step::Scheduler(to) => scheduler_text(to),
        Step::IoPriority { value, group } => {
            let whom = if *group { " of the process group" } else { "" };
            format!("I/O priority{whom}: class {}, level {}", value >> 13, value & 0x1fff)
        }
        Step::MemoryNodes { word, bits } => {
            let first = u32::from(*word) * 64;
            let nodes: Vec<String> =
                (0..64).filter(|n| bits & 1 << n != 0).map(|n| (first + n).to_string()).collect();
            format!("memory nodes {}", nodes.join(", "))
        }
        Step::MemoryPolicy { mode } => format!("memory policy {mode:#x}"),
        Step::Label { name, value, .. } => format!("label {name}: {value}"),
        Step::LandlockRules { files, ports, scopes } => {
            format!("Landlock: deny files {files:#x}, ports {ports:#x}, scopes {scopes:#x}")
        }
        Step::LandlockPath { path: p, access } => format!("Landlock: allow {access:#x} at {}", path(p)),
        Step::LandlockPort { port, access } => format!("Landlock: allow {access:#x} of TCP port {port}"),
        Step::LandlockRestrict => "Landlock: in force".into(),
        Step::OwnStdio { uid } => format!("give stdin, stdout and stderr to uid {uid}"),
        Step::NoNewPrivileges => "set no_new_privs".into(),
        Step::ChangeDirectory { path: p, .. } => format!("change to the folder {}", path(p)),
        Step::BoundingSet { keep, .. } => format!("bounding set {keep:#x}"),
        Step::Ids { uid, gid, groups: true } => format!("become uid {uid}, gid {gid}"),
        Step::Ids { uid, gid, groups: false } => {
            format!("become uid {uid}, gid {gid}, and keep the caller's other groups")
        }
        Step::Capabilities { effective, .. } => format!("capabilities {effective:#x}"),
        Step::Ambient { set } => format!("ambient capabilities {set:#x}"),
        Step::FindExecutable if planned.origin.starts_with("/hooks/") => {
            format!("find {}", plan.candidates.first().map(String::as_str).unwrap_or_default())
        }
        Step::FindExecutable => {
            format!("find {}", plan.args.first().map(String::as_str).unwrap_or("the executable"))
        }
        Step::Ready => "ready: wait for the state to be written".into(),
        Step::AwaitStart { .. } => "wait for start".into(),
        Step::Filter { .. } => format!("seccomp filter of {} instructions", plan.filter.len() / 8),
        Step::Execute if plan.args.is_empty() => "execute nothing: there is no process to start".into(),
        Step::Execute => format!("execute {}", plan.args.join(" ")),
        Step::CheckJoinedMounts { .. } => "check that the joined mounts are not the machine's".into(),
        Step::TellMount => format!("tell the id of {}", mount_before(plan, index)),
        Step::Unmount { path: p, .. } => format!("unmount {}", path(p)),
    }
}

/// A scheduling policy with what it uses.
pub(crate) fn scheduler_text(to: &rcrun_plan::Scheduler) -> String {
    let mut text = format!("schedule by policy {}", to.policy);
    let figures = [
        ("flags", i128::from(to.flags)),
        ("nice", i128::from(to.nice)),
        ("priority", i128::from(to.priority)),
        ("runtime", i128::from(to.runtime)),
        ("deadline", i128::from(to.deadline)),
        ("period", i128::from(to.period)),
    ];
    for (name, value) in figures.into_iter().filter(|(_, value)| *value != 0) {
        let _ = write!(text, ", {name} {value}");
    }
    text
}

/// The mount that is in the register at step `index`.
pub(crate) fn mount_before(plan: &Plan, index: usize) -> String {
    plan.steps[..index]
        .iter()
        .rev()
        .find_map(|p| match &p.step {
            Step::FsOpen { kind } => Some(kind.0.clone()),
            Step::Tree { slot } => Some(source(plan.slots.get(usize::from(slot.0)))),
            Step::Root => Some("the root".to_string()),
            Step::Clone { path, .. } | Step::MountedAt { path } => Some(format!("/{}", path.0)),
            _ => None,
        })
        .unwrap_or_else(|| "it".to_string())
}

/// What the file system that is being made at step `index` is made of.
fn fs_source(plan: &Plan, index: usize) -> Option<&str> {
    let before = plan.steps[..index].iter().rev().take_while(|p| !matches!(p.step, Step::FsOpen { .. }));
    before.into_iter().find_map(|p| match &p.step {
        Step::FsString { key, value } if key.0 == "source" => Some(value.0.as_str()),
        _ => None,
    })
}

/// A slot in words.
pub fn source(source: Option<&Source>) -> String {
    match source {
        Some(Source::Root { path, .. } | Source::Bind { path, .. } | Source::Device { path, .. }) => {
            path.display().to_string()
        }
        Some(Source::FileSystem { kind, .. }) => format!("new {kind}"),
        Some(Source::Namespace { path, .. }) => path.display().to_string(),
        Some(Source::Cgroup { .. }) => "the container's cgroup".into(),
        Some(Source::Procfs) => "a procfs of the machine's".into(),
        Some(Source::Init) => "the container".into(),
        Some(Source::InitRoot) => "the container's root".into(),
        Some(Source::HostMountNamespace) => "the machine's mount namespace".into(),
        Some(Source::Listen) => "the start socket".into(),
        Some(Source::NotifyFolder) => "the folder of NOTIFY_SOCKET".into(),
        None => "an unknown slot".into(),
    }
}

/// Namespaces by name.
pub(crate) fn kinds_text(kinds: u32) -> String {
    let names: Vec<&str> = crate::plan::NAMESPACES
        .iter()
        .filter(|(_, k)| kinds & *k as u32 != 0)
        .map(|(name, _)| *name)
        .collect();
    match names.len() {
        1 => format!("{} namespace", names[0]),
        _ => format!("{} namespaces", names.join(", ")),
    }
}

/// MS_SHARED and the like by name.
pub(crate) fn propagation_text(propagation: u64) -> &'static str {
    match propagation {
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE => "slave",
        libc::MS_UNBINDABLE => "unbindable",
        _ => "private",
    }
}

fn attribute_words(set: u64, clear: u64) -> Vec<String> {
    const NAMES: [(u64, &str, &str); 6] = [
        (libc::MOUNT_ATTR_RDONLY, "ro", "rw"),
        (libc::MOUNT_ATTR_NOSUID, "nosuid", "suid"),
        (libc::MOUNT_ATTR_NODEV, "nodev", "dev"),
        (libc::MOUNT_ATTR_NOEXEC, "noexec", "exec"),
        (libc::MOUNT_ATTR_NODIRATIME, "nodiratime", "diratime"),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow", "symfollow"),
    ];
    let mut words: Vec<String> =
        NAMES.iter().filter(|(bit, _, _)| set & bit != 0).map(|(_, name, _)| name.to_string()).collect();
    words.extend(
        NAMES
            .iter()
            .filter(|(bit, _, _)| clear & bit != 0 && set & bit == 0)
            .map(|(_, _, name)| name.to_string()),
    );
    if clear & libc::MOUNT_ATTR__ATIME != 0 {
        words.push(
            match set & libc::MOUNT_ATTR__ATIME {
                libc::MOUNT_ATTR_NOATIME => "noatime",
                libc::MOUNT_ATTR_STRICTATIME => "strictatime",
                _ => "relatime",
            }
            .to_string(),
        );
    }
    words
}

fn rlimit_name(resource: u32) -> String {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    NAMES.get(resource as usize).map_or_else(|| resource.to_string(), |n| format!("RLIMIT_{n}"))
}
