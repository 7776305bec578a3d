//! fork(2), for a process that leaves a server behind and exits.
#![allow(unsafe_code)]

use std::io;

/// Which of the two processes goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was there before, and the pid of its child.
    Parent(i32),
    /// The new one.
    Child,
}

/// Makes a copy of this process, which must have one thread: of others the copy would have the locks and not the threads
/// that let go of them.
pub fn fork() -> io::Result<Side> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork of a process with several threads"));
    }
    // SAFETY: this process has this one thread, so that the child finds every lock and allocation in order.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid)),
    }
}
