//! Failures in words. init reports a number and an errno; the parent, which holds the plan, tells what was tried, for which
//! field of config.json, and what may help. Uses: plan, words.

use crate::error::errno_text;
use crate::plan::{Plan, Source};
use crate::words::{mount_before, tell};
use crate::{Code, Error};
use rcrun_plan::record::Report;
use rcrun_plan::{Slot, Step};
use std::fmt::Write;

/// The sentence for a failing step.
pub fn of_step(plan: &Plan, report: &Report) -> Error {
    let index = report.step as usize;
    let Some(planned) = plan.steps.get(index) else {
        let what = call_name(report.call).map(|c| format!(": {c}: {}", errno_text(report.errno)));
        return Error::new(
            Code::System,
            format!("init failed before its first step{}", what.unwrap_or_default()),
        )
        .with_errno(report.errno);
    };
    let error = match &planned.step {
        // Whoever runs the hook names it; args[0] is not what is executed.
        Step::FindExecutable | Step::Execute if planned.origin.starts_with("/hooks/") => {
            Error::new(Code::Hook, format!("execve: {}", errno_text(report.errno)))
        }
        Step::FindExecutable | Step::Execute => executable(plan, report, &planned.origin),
        _ => {
            let mut text = String::new();
            if !planned.origin.is_empty() {
                let _ = write!(text, "{}: ", planned.origin);
            }
            let _ = match report.call {
                // One step sets both.
                call if libc::c_long::from(call) == libc::SYS_setgroups => {
                    write!(text, "take the groups {:?}: ", plan.groups)
                }
                _ => write!(text, "{}: ", tell(plan, index)),
            };
            if let Some(call) = call_name(report.call) {
                let _ = write!(text, "{call}: ");
            }
            let _ = write!(text, "{}", errno_text(report.errno));
            if let Some(name) = errno_name(report.errno) {
                let _ = write!(text, " ({name})");
            }
            Error::new(Code::System, text)
        }
    };
    let error = error.with_errno(report.errno).hint(remedy(plan, index, report.errno));
    match planned.origin.as_str() {
        "" => error,
        _ if error.code() == Code::Execute => error.at(PROGRAM),
        origin => error.at(origin),
    }
}

/// The field that names the program, of which all arguments are executed.
const PROGRAM: &str = "/process/args/0";

/// Docker and podman look for these very words to choose between exit status 126 and 127 (engines.md).
fn executable(plan: &Plan, report: &Report, origin: &str) -> Error {
    let name = plan.args.first().map(String::as_str).unwrap_or_default();
    let at = |i: u64| plan.candidates.get(i as usize).map(String::as_str).unwrap_or(name);
    let text = match report.errno {
        libc::ENOENT | libc::ENOTDIR if !name.contains('/') => {
            let path = plan.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
            let hint = match path {
                Some(path) => format!("PATH={path}"),
                None => "process.env sets no PATH".into(),
            };
            format!("exec: \"{name}\": executable file not found in $PATH ({hint})")
        }
        libc::ENOENT | libc::ENOTDIR => {
            format!("exec: \"{name}\": stat {name}: {}", errno_text(report.errno))
        }
        // The path is a folder. Docker since 23 knows the words of Go's exec.LookPath; Docker 20.10 and podman give 126
        // only to the error that execve has for it.
        libc::EISDIR => format!("exec: \"{name}\": is a directory: permission denied"),
        errno => format!("exec {}: {}", at(report.detail), errno_text(errno)),
    };
    let error = Error::new(Code::Execute, format!("unable to start container process: {text}"));
    if origin.is_empty() { error } else { error.context(PROGRAM) }
}

/// The plan adds mounts to a container that runs.
fn added(plan: &Plan) -> bool {
    plan.steps.iter().any(|planned| matches!(planned.step, Step::TellMount))
}

fn remedy(plan: &Plan, index: usize, errno: i32) -> Option<&'static str> {
    let step = &plan.steps.get(index)?.step;
    let filtered = !plan.filter.is_empty();
    let kind = mount_before(plan, index);
    match (step, errno) {
        (Step::FsMount { .. } | Step::FsOpen { .. }, libc::EPERM) => Some(
            "the container's user namespace must own the namespace this file system shows, and the machine's own mount of it \
             must not be covered in parts",
        ),
        (Step::FsOpen { .. }, libc::ENODEV) => Some(
            "this kernel has no such file system, or its module is not loaded: /proc/filesystems lists those that are",
        ),
        (Step::Attach { plain: true, .. }, libc::ELOOP) if added(plan) => Some(
            "a link of the container's is on the way, and it might lead to the machine, which shares a mount with the \
                 container: name the path without it",
        ),
        (Step::Attach { plain: true, .. }, libc::ELOOP | libc::ENOTDIR) => Some(
            "this path of the image is a symlink or no folder: /proc and /sys must be mounted on ordinary directory",
        ),
        (Step::Attach { .. }, libc::ENOTDIR) => {
            Some("a folder is mounted on a folder and a file on a file: is the source what was meant?")
        }
        (Step::MountPoint { .. }, libc::ENOTDIR) => Some(
            "a file is on the way, or in the place, of a folder: a folder is mounted on a folder and a file on a file",
        ),
        (
            Step::MountPoint { .. } | Step::Directory { .. } | Step::File { .. } | Step::Node { .. },
            libc::EROFS,
        ) => Some("the root file system is read-only and does not have this path: make it there beforehand"),
        (Step::Node { .. }, libc::EEXIST) => {
            Some("the image has something else in this place: remove it there, or choose another path")
        }
        (Step::Node { .. }, libc::EPERM) => {
            Some("making a device takes CAP_MKNOD, which rcrun itself does not have here")
        }
        (Step::MountedAt { .. }, libc::EINVAL) => {
            Some("nothing is mounted there: `remount` changes a mount that is there, `bind` makes one")
        }
        (Step::Attributes { .. }, libc::EINVAL) => Some(
            "nothing is mounted there, if this is a remount: it changes a mount that is there, `bind` makes one",
        ),
        (Step::Sysctl { .. }, libc::ENOENT) => {
            Some("this kernel has no such sysctl, or its module is not loaded")
        }
        (Step::Sysctl { .. }, libc::EINVAL) => Some("the kernel does not take this value"),
        (Step::Directory { .. } | Step::MountPoint { .. }, libc::ELOOP) => {
            Some("the image has a symbolic link there that leads to itself")
        }
        (Step::Rlimit { .. }, libc::EPERM) => {
            Some("raising a hard limit takes CAP_SYS_RESOURCE, which rcrun itself does not have here")
        }
        (Step::Scheduler(to), errno) => scheduler_hint(to, errno),
        (Step::IoPriority { .. }, libc::EPERM) => Some(RAISING),
        (Step::MemoryPolicy { .. }, libc::EINVAL) => Some(
            "none of the nodes is there and allowed by cpuset.mems, or this kernel has no such mode or flag",
        ),
        (Step::MemoryPolicy { .. }, libc::ENOSYS) => Some("this kernel has no NUMA memory policies"),
        (Step::Label { name, .. }, libc::ENOENT) if name.0 == "apparmor/exec" => {
            Some("no profile of this name is loaded: `apparmor_parser --replace FILE` loads one")
        }
        (Step::Label { .. }, libc::EINVAL) => Some("the policy that is loaded knows no such label"),
        (Step::Label { .. }, libc::EACCES | libc::EPERM) => {
            Some("the policy does not let rcrun give this label, or the kernel does not with no_new_privs")
        }
        (Step::LandlockRules { .. }, libc::ENOSYS | libc::EOPNOTSUPP) => {
            Some("this kernel has no Landlock, or it is not among the modules that were started (lsm=)")
        }
        (Step::LandlockRules { .. }, libc::EINVAL | libc::E2BIG) => {
            Some("this kernel's Landlock does not know what the annotation restricts")
        }
        (Step::LandlockPath { .. }, libc::ENOENT | libc::ENOTDIR) => {
            Some("the path must be there in the container when it starts")
        }
        (Step::LandlockRestrict, libc::EPERM) => {
            Some("Landlock takes process.noNewPrivileges: true, or CAP_SYS_ADMIN")
        }
        (Step::FsString { key, .. }, libc::EINVAL) if matches!(key.0.as_str(), "gid" | "uid") => Some(
            "the id has no mapping in linux.gidMappings or uidMappings: without it the mount takes the default",
        ),
        (Step::FsString { .. } | Step::FsFlag { .. }, libc::EINVAL) => {
            Some("the file system does not know this option, or not this value")
        }
        (Step::FsMount { .. }, libc::EINVAL) if kind == "overlay" => Some(
            "an overlay takes lowerdir=, and to be written to upperdir= and an empty workdir= in one and the same file system; `dmesg` has the kernel's reason",
        ),
        (Step::FsMount { .. }, libc::ENOENT | libc::ENOTBLK) => {
            Some("its source is not there, or is no disk")
        }
        (Step::FsMount { .. }, libc::EINVAL) => Some(
            "a value among its options is none that it takes, such as a gid= that has no mapping in linux.gidMappings",
        ),
        (Step::Fork, libc::EAGAIN) => Some("pids.max of the container's cgroup is reached"),
        (Step::Fork, libc::ENOMEM) => Some("the container's pid namespace has ended"),
        (Step::Terminal { .. }, libc::ENOENT) => Some("process.terminal needs a devpts mount on /dev/pts"),
        (Step::Ids { .. } | Step::BecomeRoot, libc::EINVAL) => {
            Some("the id has no mapping in linux.uidMappings or gidMappings")
        }
        (Step::Ids { .. }, libc::EPERM) => Some(
            "the user namespace denies setgroups(2), and rcrun could not see that beforehand: join it by /proc/PID/ns/user",
        ),
        (Step::Filter { .. }, libc::EACCES) => {
            Some("a filter takes CAP_SYS_ADMIN or process.noNewPrivileges: true")
        }
        (Step::ChangeDirectory { .. }, libc::ENOENT) => Some("process.cwd must lie inside the container"),
        (Step::Pivot, libc::EINVAL) => Some("a root on a ramdisk cannot be pivoted: try --no-pivot"),
        (Step::Unmount { .. }, libc::EINVAL) => {
            Some("it is no mount of the container's: `/proc/self/mountinfo` inside lists them")
        }
        (Step::Unmount { .. }, libc::ENOENT | libc::ENOTDIR) => Some("there is nothing"),
        (Step::Unmount { .. }, libc::ESTALE) => {
            Some("another mount lies there now than the one that was added: the container has put it there")
        }
        (Step::Unmount { .. }, libc::ELOOP) => {
            Some("a link of the container's is on the way: name the path without it")
        }
        (Step::Execute, libc::EPERM) if filtered => {
            Some("the seccomp profile refuses execve, or a security module does")
        }
        _ => None,
    }
}

const RAISING: &str = "raising a priority takes CAP_SYS_NICE of the machine: rcrun itself does not have it here, or the container has a user namespace, where it does not count";

/// What may help where sched_setattr(2) fails.
pub fn scheduler_hint(to: &rcrun_plan::Scheduler, errno: i32) -> Option<&'static str> {
    match errno {
        libc::EPERM if to.policy == libc::SCHED_DEADLINE as u32 => Some(
            "the deadline policy takes CAP_SYS_NICE, and a process that may use all processors: no cpuset may bind it to some",
        ),
        libc::EPERM => Some(RAISING),
        libc::EBUSY => Some("less time is left on the processors than the deadline policy asks for"),
        libc::EINVAL => Some(
            "the kernel takes runtime <= deadline <= period, for each policy only its own fields and flags, and SCHED_ISO not at all",
        ),
        _ => None,
    }
}

/// What may help where the child could not even be made.
pub fn birth_hint(call: &str, errno: i32) -> Option<&'static str> {
    match (call, errno) {
        ("clone3", libc::ENOSPC) => Some("a limit of /proc/sys/user/max_*_namespaces is reached"),
        ("clone3", libc::EUSERS) => Some("user namespaces nest at most 32 deep"),
        ("clone3", libc::EPERM) => Some(
            "this machine lets this user make no user namespace (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, or a seccomp filter), or rcrun is root without CAP_SYS_ADMIN, or it runs in a chroot",
        ),
        ("clone3", libc::EACCES) => Some(
            "this user may move no process from rcrun's own cgroup into that one: call rcrun from a scope of the user's, with `systemd-run --user --scope rcrun ...`",
        ),
        ("clone3", libc::EAGAIN) => {
            Some("a limit on processes is reached: pids.max of a cgroup above, or RLIMIT_NPROC")
        }
        ("execveat", libc::E2BIG | libc::ENOMEM) => {
            Some("there is no memory for it: memory.max of its cgroup, or of one above, is too low")
        }
        ("clone3", libc::EINVAL) => Some("this kernel lacks a namespace that config.json asks for"),
        ("clone3", libc::EBUSY) => {
            Some("the cgroup has controllers enabled for its children and takes no processes")
        }
        ("clone3", libc::EOPNOTSUPP) => Some("the cgroup is in an invalid domain: its parent is threaded"),
        ("setns", libc::EINVAL) => Some(
            "the user namespace of rcrun itself, or one that rcrun's processes are in already, cannot be joined: leave the entry out",
        ),
        ("setns", libc::EPERM) => Some("joining it takes CAP_SYS_ADMIN in the user namespace that owns it"),
        ("write timens_offsets", libc::ERANGE) => Some(
            "with the offset the clock would stand before its start, or too far in the future: boottime and monotonic count from the machine's start",
        ),
        _ => None,
    }
}

/// The field that a call of the birth is about, and what of it.
pub fn birth_field(plan: &Plan, call: &str) -> Option<(String, String)> {
    let joined = |slot: &Slot| match plan.slots.get(usize::from(slot.0)) {
        Some(Source::Namespace { origin, path, .. }) if origin.starts_with('/') => {
            Some((origin.clone(), format!("join {}", path.display())))
        }
        _ => None,
    };
    match call {
        // Of several it is not told which.
        "setns" if plan.first_joins.len() == 1 => plan.first_joins.first().and_then(joined),
        "write timens_offsets" => {
            Some(("/linux/timeOffsets".into(), plan.time_offsets.as_deref()?.trim().replace('\n', ", ")))
        }
        _ => None,
    }
}

/// Name of a system call that init makes.
fn call_name(call: u16) -> Option<&'static str> {
    macro_rules! names {
        ($($number:ident $name:literal),* $(,)?) => {
            [$((libc::$number, $name)),*]
        };
    }
    let names = names![
        SYS_accept4 "accept4",
        SYS_capset "capset",
        SYS_chroot "chroot",
        SYS_clock_gettime "clock_gettime",
        SYS_clone "clone",
        SYS_close_range "close_range",
        SYS_copy_file_range "copy_file_range",
        SYS_dup3 "dup3",
        SYS_execve "execve",
        SYS_faccessat2 "faccessat2",
        SYS_fchdir "fchdir",
        SYS_fchmod "fchmod",
        SYS_fchmodat "fchmodat",
        SYS_fchown "fchown",
        SYS_fchownat "fchownat",
        SYS_fcntl "fcntl",
        SYS_fsconfig "fsconfig",
        SYS_fsmount "fsmount",
        SYS_fsopen "fsopen",
        SYS_fstat "fstat",
        SYS_fstatfs "fstatfs",
        SYS_getcwd "getcwd",
        SYS_getdents64 "getdents64",
        SYS_ioctl "ioctl",
        SYS_ioprio_set "ioprio_set",
        SYS_keyctl "keyctl",
        SYS_landlock_add_rule "landlock_add_rule",
        SYS_landlock_create_ruleset "landlock_create_ruleset",
        SYS_landlock_restrict_self "landlock_restrict_self",
        SYS_mkdirat "mkdirat",
        SYS_mknodat "mknodat",
        SYS_mmap "mmap",
        SYS_mount_setattr "mount_setattr",
        SYS_move_mount "move_mount",
        SYS_newfstatat "fstatat",
        SYS_open_tree "open_tree",
        SYS_openat "openat",
        SYS_openat2 "openat2",
        SYS_personality "personality",
        SYS_pivot_root "pivot_root",
        SYS_prctl "prctl",
        SYS_prlimit64 "prlimit",
        SYS_read "read",
        SYS_readlinkat "readlinkat",
        SYS_recvfrom "recv",
        SYS_sendmsg "sendmsg",
        SYS_sendto "send",
        SYS_sched_setattr "sched_setattr",
        SYS_seccomp "seccomp",
        SYS_set_mempolicy "set_mempolicy",
        SYS_setdomainname "setdomainname",
        SYS_setgroups "setgroups",
        SYS_sethostname "sethostname",
        SYS_setns "setns",
        SYS_setresgid "setresgid",
        SYS_setresuid "setresuid",
        SYS_setsid "setsid",
        SYS_socket "socket",
        SYS_statx "statx",
        SYS_symlinkat "symlinkat",
        SYS_umask "umask",
        SYS_umount2 "umount2",
        SYS_unlinkat "unlinkat",
        SYS_unshare "unshare",
        SYS_utimensat "utimensat",
        SYS_write "write",
    ];
    names.iter().find(|(number, _)| *number == libc::c_long::from(call)).map(|(_, name)| *name)
}

/// `EPERM` and the like, for those who look errors up.
fn errno_name(errno: i32) -> Option<&'static str> {
    macro_rules! names {
        ($($name:ident)*) => { [$((libc::$name, stringify!($name))),*] };
    }
    let names = names![E2BIG EACCES EAGAIN EBADF EBUSY ECONNREFUSED ECONNRESET EDQUOT EEXIST EFAULT EFBIG EINVAL EIO EISDIR
        ELOOP EMFILE ENAMETOOLONG ENFILE ENODEV ENOENT ENOEXEC ENOMEM ENOSPC ENOSYS ENOTBLK ENOTDIR ENOTEMPTY ENOTTY ENXIO
        EOPNOTSUPP EOVERFLOW EPERM EPIPE EROFS ESRCH ESTALE ETXTBSY EUSERS EXDEV];
    names.iter().find(|(number, _)| *number == errno).map(|(_, name)| *name)
}
