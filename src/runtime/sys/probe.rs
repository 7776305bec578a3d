//! Tries what the kernel may refuse, each in a child of its own or without effect: for `rcrun doctor`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Runs `try_it` in a child, whose namespaces, mounts and ids are nobody else's to lose: an errno is its exit status. Of a
/// process with one thread only: the child may allocate.
pub fn in_child(try_it: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
    // SAFETY: the caller has one thread, so that no lock is held in the child; it leaves by _exit and drops nothing.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            let status = try_it().err().map_or(0, |errno| errno.raw_os_error());
            // SAFETY: ends the child.
            unsafe { libc::_exit(status & 0xff) }
        }
        _ => {}
    }
    outcome(pid)
}

fn outcome(pid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: waits for a child of ours; EINTR is tried again.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, errno) => Err(io::Error::from_raw_os_error(errno)),
        // A seccomp filter may kill.
        (false, _) => Err(io::Error::from_raw_os_error(libc::EPERM)),
    }
}

/// Leaves its namespaces of these CLONE_NEW* kinds.
pub fn unshare(kinds: i32) -> rustix::io::Result<()> {
    // SAFETY: unshare takes flags; none of those asked for here concerns memory or files that threads share.
    match unsafe { libc::unshare(kinds) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// A child born by clone3(2), in `cgroup` where there is one (CLONE_INTO_CGROUP).
pub fn clone3(cgroup: Option<BorrowedFd<'_>>) -> io::Result<()> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // struct clone_args, version 2: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup.
    let mut args = [0_u64; 11];
    args[4] = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args[0] = CLONE_INTO_CGROUP;
        args[10] = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM it is a fork, and the child leaves at once.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child.
        0 => unsafe { libc::_exit(0) },
        pid => outcome(pid as libc::pid_t),
    }
}

/// The version of Landlock's interface.
pub fn landlock() -> io::Result<libc::c_long> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag it takes no attributes and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    if version < 0 { Err(io::Error::last_os_error()) } else { Ok(version) }
}

/// Whether seccomp filters may answer with `action` (SECCOMP_RET_*).
pub fn seccomp(action: u32) -> io::Result<()> {
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads one u32.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &action) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn last_errno() -> rustix::io::Errno {
    let error = io::Error::last_os_error();
    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
}
