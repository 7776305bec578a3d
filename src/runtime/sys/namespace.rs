//! Namespace files: what they are of.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// _IO(0xb7, 2) to _IO(0xb7, 4), ioctl_ns(2).
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// The CLONE_NEW* flag of a namespace file; ENOTTY for anything else.
pub fn kind(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument; on another kind of file it fails with ENOTTY.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// The user namespace in which a user namespace was made; EPERM where that is out of this process's sight.
pub fn parent(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: NS_GET_PARENT takes no argument.
    let parent = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_PARENT as _) };
    if parent < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made for us, close-on-exec, and nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(parent) })
}

/// The user who made a user namespace, as this process's own counts users.
pub fn owner(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes a uid_t to its argument, which is one.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(uid) }
}

/// This process is in the machine's own user namespace: its file has had this inode number in all kernels
/// (PROC_USER_INIT_INO of linux/proc_ns.h).
pub fn is_initial_user() -> bool {
    const PROC_USER_INIT_INO: u64 = 0xEFFF_FFFD;
    match rustix::fs::stat("/proc/self/ns/user") {
        Ok(stat) => stat.st_ino == PROC_USER_INIT_INO,
        // A kernel without user namespaces, or no procfs: the start says so.
        Err(_) => true,
    }
}
