//! Children of this process that have ended. By rustix: nix has no name for a real-time signal, and answers EINVAL for a child
//! that it has waited for by then. Uses: nothing of this crate.

use rcrun_runtime::foreground::Exit;
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid, waitpid};
use std::os::fd::{AsFd, OwnedFd};

/// `__WNOTHREAD` of waitpid(2): children of other threads are left to those, which are still at work with them.
const OF_THIS_THREAD: WaitOptions = WaitOptions::from_bits_retain(libc::__WNOTHREAD.cast_unsigned());

/// One that has ended of those that the calling thread has made or been given.
pub fn of_this_thread() -> Option<(i32, Exit)> {
    let ended = retry_on_intr(|| wait(WaitOptions::NOHANG | OF_THIS_THREAD)).ok()??;
    Some((ended.0.as_raw_nonzero().get(), exit(ended.1.exit_status(), ended.1.terminating_signal())))
}

/// Waits for the end of a child.
pub fn end_of(pid: i32) -> Result<Exit> {
    let pid = Pid::from_raw(pid).ok_or(Errno::CHILD)?;
    let (_, status) = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?.ok_or(Errno::CHILD)?;
    Ok(exit(status.exit_status(), status.terminating_signal()))
}

/// How the child of a pidfd has ended; None if it cannot be told yet.
pub fn ended(pidfd: &OwnedFd, how: WaitIdOptions) -> Result<Option<Exit>> {
    let found = retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | how))?;
    Ok(found.map(|status| exit(status.exit_status(), status.terminating_signal())))
}

fn exit(status: Option<i32>, signal: Option<i32>) -> Exit {
    match (status, signal) {
        (Some(code), _) => Exit::Code(code),
        // It has ended: what has no status has a signal.
        (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_childs_end_is_its_status_or_whatever_signal_it_was() {
        for (script, expected) in [
            ("exit 7", Exit::Code(7)),
            ("kill -9 $$", Exit::Signal(9)),
            ("kill -34 $$", Exit::Signal(34)),
            ("kill -64 $$", Exit::Signal(64)),
        ] {
            let spawn = || Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
            let pidfd = |pid| {
                let pid = Pid::from_raw(pid).unwrap();
                rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
            };
            assert_eq!(end_of(spawn().id() as i32), Ok(expected), "{script}");
            assert_eq!(
                ended(&pidfd(spawn().id() as i32), WaitIdOptions::empty()),
                Ok(Some(expected)),
                "{script}"
            );
            // In a thread of its own: it has this child and no other.
            let found = std::thread::spawn(move || {
                assert_eq!(of_this_thread(), None);
                let child = spawn().id() as i32;
                let fd = pidfd(child);
                let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None).unwrap();
                of_this_thread().map(|(pid, exit)| (pid == child, exit))
            });
            assert_eq!(found.join().unwrap(), Some((true, expected)), "{script}");
        }
    }
}
