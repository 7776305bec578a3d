//! System calls and file systems, each tried.

use super::{Finding, told, trial};
use crate::host::Caller;
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
    let aside = |try_it: fn() -> rustix::io::Result<()>| {
        works(probe::in_child(|| probe::unshare(away).and_then(|()| try_it())))
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
            KERNEL,
        )
        .finding(aside(new_tmpfs)),
        trial(
            "kernel",
            "open_tree",
            true,
            "folders are bound by descriptor",
            "no container can be made",
            KERNEL,
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
            "load the module overlay; a user needs Linux 5.11 or later",
        )
        .finding(aside(overlay)),
        trial(
            "kernel",
            "overlayfs lowerdir+",
            false,
            "any number of layers is mounted in one go",
            "layers are mounted from a list of 4,096 bytes",
            "Linux 6.5 or later has it",
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
    let found = crate::host::Host::read().map(|_| release.clone()).map_err(|_| release);
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
    let on =
        |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(value));
    let listed = std::fs::read_to_string("/sys/kernel/security/lsm").ok().map(|text| text.trim().to_string());
    let mut known = Vec::new();
    if on("/sys/module/apparmor/parameters/enabled", "Y") {
        known.push("apparmor");
    }
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        known.push("selinux");
    }
    let found =
        listed.filter(|text| !text.is_empty()).or_else(|| (!known.is_empty()).then(|| known.join(",")));
    let labels = !known.is_empty();
    trial(
        "kernel",
        "security modules",
        false,
        if labels {
            "a container's profile or label is set"
        } else {
            "none has profiles or labels for containers"
        },
        "a config with a profile or label is refused",
        "",
    )
    .finding(
        found
            .ok_or_else(|| "securityfs is not mounted, and neither AppArmor nor SELinux is seen".to_string()),
    )
}
