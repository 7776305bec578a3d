//! A process that only is: systemd makes a scope around a process, and init is to be born in the cgroup of one that is made.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// The process. It ends when this is dropped, and when this process ends: it waits for the end of a pipe.
#[derive(Debug)]
pub struct Hold {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    end: Option<OwnedFd>,
}

impl Hold {
    /// Makes it.
    pub fn new() -> io::Result<Hold> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let fd = reader.as_raw_fd();
        // SAFETY: the child makes system calls by functions that take no lock and touch no memory but their arguments, and
        // ends with _exit: what other threads had locked at the fork does not matter.
        let pid = match unsafe { libc::fork() } {
            // SAFETY: integers, and one byte on this frame's stack, which is the child's own copy.
            0 => unsafe {
                // All other descriptors are somebody's: the writing end of this very pipe, and pipes of the caller's that
                // have to end when the caller does.
                libc::dup2(fd, 0);
                libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
                let mut byte = 0_u8;
                while libc::read(0, (&raw mut byte).cast(), 1) < 0 {}
                libc::_exit(0)
            },
            pid => Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)?,
        };
        Ok(Hold { pid, pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(), end: Some(writer) })
    }

    /// Its pid in this pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end = None;
        // systemd may have moved it into a cgroup that is frozen: there it reads nothing, but it can be killed.
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
        // ECHILD: whoever embeds us has waited for it.
        let wait = || waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED);
        while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
    }
}
