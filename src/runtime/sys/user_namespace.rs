//! A user namespace that nobody runs in: mount_setattr(2) takes one for its id maps. A child makes it and waits until the
//! maps are written and the file is open.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The child that holds it. It ends when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct UserNamespace {
    pid: Pid,
    end: Option<OwnedFd>,
}

impl UserNamespace {
    /// Makes one, without maps. Nothing is allocated: a copy of a process that had threads may call this.
    ///
    /// `of_user`: an ordinary user may write the maps, for which /proc must not say that this is root's, as it says of what
    /// nobody may look into. Then processes with the same user who are root of the user namespace above may look into it, at
    /// the machine's files: there must be none yet but rcrun's own.
    pub fn new(of_user: bool) -> io::Result<UserNamespace> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let fd = theirs.as_raw_fd();
        // SAFETY: the child makes system calls by functions that take no lock and touch no memory but their arguments, and
        // ends with _exit: what other threads had locked at the fork does not matter.
        let pid = match unsafe { libc::fork() } {
            // SAFETY: integers, and words on this frame's stack, which is the child's own copy.
            0 => unsafe {
                // All other descriptors are somebody's: our own end of this very pair among them.
                libc::dup2(fd, 0);
                libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
                if of_user {
                    // Who makes one must have ids in the namespace above (user_namespaces(7)), and the user's own need not.
                    // By number: the functions would ask threads to do the same that this copy has not.
                    libc::syscall(libc::SYS_setresgid, 0, 0, 0);
                    libc::syscall(libc::SYS_setresuid, 0, 0, 0);
                }
                let failed = libc::unshare(libc::CLONE_NEWUSER) != 0;
                let errno: i32 = if failed { *libc::__errno_location() } else { 0 };
                if of_user {
                    libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
                }
                libc::write(0, (&raw const errno).cast(), size_of::<i32>());
                let mut byte = 0_u8;
                while libc::read(0, (&raw mut byte).cast(), 1) < 0 {}
                libc::_exit(0)
            },
            pid => Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)?,
        };
        drop(theirs);
        let mut said = [0; size_of::<i32>()];
        let made = UserNamespace { pid, end: Some(ours.try_clone()?) };
        File::from(ours).read_exact(&mut said)?;
        match i32::from_ne_bytes(said) {
            0 => Ok(made),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The pid of the child in this pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        self.end = None;
        // ECHILD: whoever embeds us has waited for it.
        let wait = || waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED);
        while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
    }
}
