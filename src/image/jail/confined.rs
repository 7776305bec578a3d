//! The walls around the child, each for what the others let through:
//!
//! * Nothing of the machine has a name: its root is an empty, read-only tmpfs with the folder it unpacks into (device
//!   nodes can be made there, not opened), the blob and the layers of the store, these read-only. Without CAP_SYS_ADMIN it keeps the
//!   names, and has no privilege to abuse them with.
//! * Landlock: files are made and written in that one folder, and read there and in the layers.
//! * Capabilities: those to give files their owners, modes, attributes and devices. CAP_SYS_ADMIN stays for one thing,
//!   trusted.* attributes; all other uses of it are system calls that the filter refuses.
//! * seccomp: files, memory, threads, and one socket that was there before.
//!
//! Uses: error.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::{Code, Error, Result};

/// What the child works with.
pub(super) struct Places {
    /// The copy of the blob.
    pub(super) kept: Option<OwnedFd>,
    /// Where it unpacks to.
    pub(super) into: Option<OwnedFd>,
    /// Folders of layers.
    pub(super) lower: Option<[OwnedFd; 2]>,
}

/// What is left of root's capabilities.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);

/// Open files: a folder for each level of a path, and one of each layer below at each.
const FILES: u64 = 4096;
/// Bytes of memory: a decoder's window, what is remembered of millions of files, and stacks.
const MEMORY: u64 = 4 << 30;

/// The newest Landlock that is known here; the kernel gives what it has of it.
const LANDLOCK: ABI = ABI::V6;

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::new(Code::System, format!("the unpacker's walls: {what}: {error}"))
}

/// Closes all that was inherited but the socket on standard input, and puts that in the place of standard output and
/// error too: what a panic prints there is no message, and goes nowhere else.
pub(super) fn own_only_socket() -> Result<OwnedFd> {
    let socket = rustix::stdio::stdin().try_clone_to_owned().map_err(failed("dup"))?;
    rustix::stdio::dup2_stdout(&socket).map_err(failed("dup2"))?;
    rustix::stdio::dup2_stderr(&socket).map_err(failed("dup2"))?;
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").map_err(failed("open /proc/self/fd"))? {
        let name = entry.map_err(failed("read /proc/self/fd"))?.file_name();
        inherited.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for fd in inherited.into_iter().filter(|fd| *fd > 2 && *fd != socket.as_raw_fd()) {
        // The one that the list was read from is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(socket)
}

/// Puts the walls up around the calling thread and those that it starts. Gives the places as they are seen from inside.
pub(super) fn confine(places: Places) -> Result<Places> {
    // A caller that is killed must not leave a child that goes on writing.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(failed("prctl PR_SET_PDEATHSIG"))?;
    for (resource, most) in [(Resource::Nofile, FILES), (Resource::As, MEMORY), (Resource::Core, 0)] {
        let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX).min(most);
        rustix::process::setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
            .map_err(failed("setrlimit"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(failed("prctl PR_SET_NO_NEW_PRIVS"))?;
    let sets = rustix::thread::capabilities(None).map_err(failed("capget"))?;
    let places = match sets.effective.contains(CapabilitySet::SYS_ADMIN) {
        true => alone(&places)?,
        false => places,
    };
    landlock(&places)?;
    let kept = sets.permitted & KEPT;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(failed("capset"))?;
    let filter = filter().map_err(failed("seccomp"))?;
    seccompiler::apply_filter(&filter).map_err(failed("seccomp"))?;
    Ok(places)
}

/// A mount namespace with an empty root and the places in it.
fn alone(places: &Places) -> Result<Places> {
    const FLAGS: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);
    let of_path =
        |path: &str| rustix::mount::open_tree(CWD, path, FLAGS).map_err(failed("open_tree in /proc"));
    let of_fd = |fd: BorrowedFd<'_>| {
        rustix::mount::open_tree(fd, "", FLAGS | OpenTreeFlags::AT_EMPTY_PATH).map_err(failed("open_tree"))
    };
    // Cloned here: the fds that came are of mounts of another namespace as soon as there is a new one. Of /proc only
    // what leads from an fd to its path, and no more: /proc/self/exe is a file of the machine.
    let mut mounts = vec![
        (of_path("/proc/self/fd")?, "proc/self/fd", MountFlags::RDONLY),
        (of_path("/proc/thread-self/status")?, "proc/thread-self/status", MountFlags::RDONLY),
    ];
    if let Some(kept) = &places.kept {
        mounts.push((of_fd(kept.as_fd())?, "blob", MountFlags::RDONLY));
    }
    if let Some(into) = &places.into {
        mounts.push((of_fd(into.as_fd())?, "layer", MountFlags::empty()));
    }
    if let Some([layers, chains]) = &places.lower {
        mounts.push((of_fd(layers.as_fd())?, "lower/layers", MountFlags::RDONLY));
        mounts.push((of_fd(chains.as_fd())?, "lower/chains", MountFlags::RDONLY));
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare CLONE_NEWNS"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("mount MS_PRIVATE"))?;
    let context =
        rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen tmpfs"))?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755").map_err(failed("fsconfig"))?;
    rustix::mount::fsconfig_create(&context).map_err(failed("fsconfig"))?;
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, closed).map_err(failed("fsmount"))?;
    // move_mount(2) takes only targets that are attached themselves.
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&root, "", CWD, "/", empty).map_err(failed("move_mount"))?;
    for folder in [
        "layer",
        "lower",
        "lower/layers",
        "lower/chains",
        "proc",
        "proc/self",
        "proc/self/fd",
        "proc/thread-self",
    ] {
        rustix::fs::mkdirat(&root, folder, Mode::from_raw_mode(0o755)).map_err(failed("mkdirat"))?;
    }
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    for file in ["blob", "proc/thread-self/status"] {
        rustix::fs::openat(&root, file, create, Mode::RUSR).map_err(failed("openat"))?;
    }
    for (mount, at, _) in &mounts {
        rustix::mount::move_mount(mount, "", &root, *at, empty).map_err(failed("move_mount"))?;
    }
    rustix::process::fchdir(&root).map_err(failed("fchdir"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("umount2"))?;
    rustix::process::chdir("/").map_err(failed("chdir"))?;
    let closed = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (_, at, flags) in &mounts {
        rustix::mount::mount_remount(format!("/{at}"), closed | *flags, "")
            .map_err(failed("mount MS_REMOUNT"))?;
    }
    rustix::mount::mount_remount("/", closed | MountFlags::RDONLY, "").map_err(failed("mount MS_REMOUNT"))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |path: &str, flags| rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open"));
    let folder = |path: &str| open(path, flags | OFlags::DIRECTORY);
    Ok(Places {
        kept: places.kept.as_ref().map(|_| open("/blob", flags)).transpose()?,
        into: places.into.as_ref().map(|_| folder("/layer")).transpose()?,
        lower: match places.lower {
            Some(_) => Some([folder("/lower/layers")?, folder("/lower/chains")?]),
            None => None,
        },
    })
}

fn landlock(places: &Places) -> Result<()> {
    let status = rustix::fs::open("/proc/thread-self/status", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open /proc/thread-self/status"))?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let restricted = || {
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .add_rule(PathBeneath::new(status.as_fd(), AccessFs::ReadFile))?;
        if let Some(into) = &places.into {
            let all = AccessFs::from_all(LANDLOCK) & !(AccessFs::Execute | AccessFs::IoctlDev);
            ruleset = ruleset.add_rule(PathBeneath::new(into.as_fd(), all))?;
        }
        for lower in places.lower.iter().flatten() {
            ruleset = ruleset.add_rule(PathBeneath::new(lower.as_fd(), read))?;
        }
        ruleset.restrict_self()
    };
    // Where the kernel has no Landlock, the other walls stand.
    restricted().map(|_| ()).map_err(failed::<landlock::RulesetError>("landlock"))
}

/// Calls that take any argument.
const CALLS: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_madvise,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvmsg,
    libc::SYS_removexattr,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_setxattr,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
    // musl opens with the old one where there is one.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
];

/// Any other call is one that this kernel does not have: so C libraries try an older one, clone for clone3.
fn filter() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    use SeccompCmpArgLen::Dword;
    use SeccompCmpOp::{Eq, MaskedEq};
    let one = |argument, op, value: i64| {
        SeccompRule::new(vec![SeccompCondition::new(argument, Dword, op, value as u64)?])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, vec![])).collect();
    // Memory that was written is not run.
    let not_executable = || one(2, MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
    // Threads, and no process nor namespace.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    let mask = i64::from(namespaces | libc::CLONE_THREAD) as u64;
    rules.insert(libc::SYS_clone, vec![one(0, MaskedEq(mask), i64::from(libc::CLONE_THREAD))?]);
    let names = [libc::PR_SET_NAME, libc::PR_SET_VMA].map(|option| one(0, Eq, i64::from(option)));
    rules.insert(libc::SYS_prctl, names.into_iter().collect::<std::result::Result<_, _>>()?);
    let commands = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL]
        .map(|command| one(1, Eq, i64::from(command)));
    rules.insert(libc::SYS_fcntl, commands.into_iter().collect::<std::result::Result<_, _>>()?);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, missing, SeccompAction::Allow, architecture)?.try_into()
}
