//! Namespace files: what they are of.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

// _IO(0xb7, 3), ioctl_ns(2).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The CLONE_NEW* flag of a namespace file; ENOTTY for anything else.
pub fn kind(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument; on another kind of file it fails with ENOTTY.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
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
