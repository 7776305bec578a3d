//! System calls and file systems, each tried.

use super::{Finding, told, trial};
use crate::host::{Caller, Host};
use crate::plan::CLONE_NEWTIME;
use crate::sys::mount::{MountAttributes, set_attributes};
use crate::sys::probe;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, open_tree,
};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use std::io;
use std::os::fd::AsFd;

const KERNEL: &str = "boot Linux 5.14 or later; in a container, its seccomp filter must allow the call";

pub(super) fn examine(caller: &Caller) -> Vec<Finding> {
    let works = |tried: io::Result<()>| match tried {
        Ok(()) => Ok("works".to_string()),
        Err(error) => Err(told(&error)),
    };
    // Where mounts may be made: an ordinary user needs a user namespace for that.
    let away = libc::CLONE_NEWNS | if caller.privileged { 0 } else { libc::CLONE_NEWUSER };
    // What fails for want of that says nothing of the call.
    let alone = probe::in_child(|| probe::unshare(away));
    let aside = |try_it: fn() -> rustix::io::Result<()>| match &alone {
        Ok(()) => works(probe::in_child(|| probe::unshare(away).and_then(|()| try_it()))),
        Err(error) => Err(format!("cannot be tried, for want of namespaces of its own: {}", told(error))),
    };
    let remedy = |own: &'static str| match &alone {
        Ok(()) => own,
        Err(_) if caller.privileged => "run it where mount namespaces may be made",
        Err(_) => "see `user namespaces` below",
    };
    let time = CLONE_NEWTIME | if caller.privileged { 0 } else { libc::CLONE_NEWUSER };
    vec![
        release(),
        trial(
            "kernel",
            "openat2",
            true,
            "paths of a container never leave its root",
            "no container can be made",
            KERNEL,
        )
        .finding(works(in_root().map_err(io::Error::from))),
        trial(
            "kernel",
            "clone3",
            true,
            "the container's first process is made",
            "no container can be made",
            KERNEL,
        )
        .finding(works(probe::clone3(None))),
        trial(
            "kernel",
            "pidfd_open",
            true,
            "processes are waited for and signalled without a race",
            "no container can be made",
            KERNEL,
        )
        .finding(works(pidfd_open(getpid(), PidfdFlags::empty()).map(drop).map_err(io::Error::from))),
        trial(
            "kernel",
            "fsopen, fsmount, mount_setattr",
            true,
            "file systems are mounted by descriptor",
            "no container can be made",
            remedy(KERNEL),
        )
        .finding(aside(new_tmpfs)),
        trial(
            "kernel",
            "open_tree",
            true,
            "folders are bound by descriptor",
            "no container can be made",
            remedy(KERNEL),
        )
        .finding(aside(clone_root)),
        trial(
            "kernel",
            "memfd_create, executable",
            false,
            "rcrun-init runs from sealed memory",
            "rcrun-init runs from a file on a read-only tmpfs",
            "for a start some microseconds faster: sysctl vm.memfd_noexec=1",
        )
        .finding(works(memfd().map_err(io::Error::from))),
        trial(
            "kernel",
            "seccomp",
            false,
            "linux.seccomp is enforced",
            "a config with linux.seccomp is refused by the kernel",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        )
        .finding(works(probe::seccomp(libc::SECCOMP_RET_ERRNO))),
        trial(
            "kernel",
            "landlock",
            false,
            "layers of images are unpacked behind it",
            "layers of images are unpacked in namespaces without it",
            "boot with landlock in lsm=",
        )
        .finding(probe::landlock().map(|version| format!("version {version}")).map_err(|e| told(&e))),
        trial(
            "kernel",
            "overlayfs",
            false,
            "images are run from their layers",
            "`rcrun run IMAGE` cannot mount an image",
            remedy("load the module overlay; a user needs Linux 5.11 or later"),
        )
        .finding(aside(overlay)),
        trial(
            "kernel",
            "overlayfs lowerdir+",
            false,
            "any number of layers is mounted in one go",
            "layers are mounted from a list of 4,096 bytes",
            remedy("Linux 6.5 or later has it"),
        )
        .finding(aside(lower_plus)),
        trial(
            "kernel",
            "time namespaces",
            false,
            "linux.timeOffsets take effect",
            "a config with a time namespace is refused",
            "boot a kernel with CONFIG_TIME_NS",
        )
        .finding(works(probe::in_child(|| probe::unshare(time)))),
        modules(),
    ]
}

fn release() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let found = Host::read().map(|_| release.clone()).map_err(|_| release);
    trial("kernel", "release", true, "new enough", "rcrun refuses to run", "boot Linux 5.14 or later")
        .finding(found)
}

fn in_root() -> rustix::io::Result<()> {
    rustix::fs::openat2(CWD, "/..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
        .map(drop)
}

fn memfd() -> rustix::io::Result<()> {
    match rustix::fs::memfd_create("rcrun-doctor", MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        // Before Linux 6.3 every one is executable.
        Err(rustix::io::Errno::INVAL) => {
            rustix::fs::memfd_create("rcrun-doctor", MemfdFlags::CLOEXEC).map(drop)
        }
        other => other.map(drop),
    }
}

fn new_tmpfs() -> rustix::io::Result<()> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let readonly = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    set_attributes(mount.as_fd(), false, &readonly)
        .map_err(|e| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO))
}

fn clone_root() -> rustix::io::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, "/", flags).map(drop)
}

fn overlay() -> rustix::io::Result<()> {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map(drop)
}

fn lower_plus() -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "lowerdir+", "/")
}

fn modules() -> Finding {
    let listed = std::fs::read_to_string("/sys/kernel/security/lsm").ok().map(|text| text.trim().to_string());
    let host = Host::read().ok();
    labels(listed.filter(|text| !text.is_empty()), host.as_ref())
}

/// Of the modules `listed`, which may be unknown, those that have labels for containers.
fn labels(listed: Option<String>, host: Option<&Host>) -> Finding {
    let known: Vec<&str> =
        [("apparmor", host.is_some_and(|h| h.apparmor)), ("selinux", host.is_some_and(|h| h.selinux))]
            .into_iter()
            .filter_map(|(module, on)| on.then_some(module))
            .collect();
    let found = listed.or_else(|| (!known.is_empty()).then(|| known.join(",")));
    trial(
        "kernel",
        "security modules",
        false,
        match known.is_empty() {
            true => "none has profiles or labels for containers",
            false => "a container's profile or label is set",
        },
        "a container's profile or label does nothing",
        "",
    )
    .finding(
        found
            .ok_or_else(|| "securityfs is not mounted, and neither AppArmor nor SELinux is seen".to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_label_is_told_as_set_where_a_module_that_has_them_is_on() {
        for (apparmor, selinux) in [(false, false), (true, false), (false, true), (true, true)] {
            let host = Host { apparmor, selinux, ..Host::read().unwrap() };
            let finding = labels(Some("capability".into()), Some(&host));
            assert_eq!(finding.effect.contains("is set"), apparmor || selinux, "{finding:?}");
            assert_ne!(labels(None, Some(&host)).state == State::Without, apparmor || selinux);
        }
        assert_eq!(labels(None, None).state, State::Without);
    }
}
