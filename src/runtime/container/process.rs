//! A container's init as the state file names it: a pid alone could by now be somebody else's.

use crate::error::CallContext;
use crate::launch::Init;
use crate::{Code, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How long an end may take that the kernel has already been told: SIGKILL is sent.
pub(super) const END: Duration = Duration::from_secs(10);

/// A container's status, in the words of runtime.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its create has not ended.
    Creating,
    /// Waits for start.
    Created,
    /// Its process runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Its init has ended.
    Stopped,
}

impl Status {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A process that is told from others that had or will have its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid in rcrun's pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot: field 22 of /proc/PID/stat.
    pub start_time: u64,
    /// Device and inode of rcrun-init's file.
    pub init_file: (u64, u64),
}

impl Process {
    /// The process that has `pid` now.
    pub(super) fn of(pid: i32, init_file: (u64, u64)) -> Result<Self> {
        match stat(pid) {
            Some(Stat { start_time, .. }) => Ok(Process { pid, start_time, init_file }),
            None => {
                Err(Error::new(Code::System, format!("init (pid {pid}) ended before its state was written")))
            }
        }
    }

    /// It exists and is no zombie.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|s| s.start_time == self.start_time && !s.zombie)
    }

    /// It has ended, or is about to: its namespaces are gone already (setns(2) gives ESRCH, clone3 ENOMEM).
    pub(super) fn is_ending(&self) -> bool {
        stat(self.pid).is_none_or(|s| s.start_time != self.start_time || s.zombie || s.exiting)
    }

    /// It still is rcrun-init and not yet the payload.
    pub(super) fn is_init(&self) -> bool {
        std::fs::metadata(format!("/proc/{}/exe", self.pid))
            .is_ok_and(|m| (m.dev(), m.ino()) == self.init_file)
    }

    /// Its pidfd, checked to be this process's and not a later one's.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        let gone = || Error::new(Code::Status, "container not running");
        let pid = rustix::process::Pid::from_raw(self.pid).ok_or_else(gone)?;
        match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            Ok(pidfd) if self.is_alive() => Ok(pidfd),
            Ok(_) | Err(rustix::io::Errno::SRCH) => Err(gone()),
            Err(e) => Err(e).call(format!("pidfd_open {}", self.pid)),
        }
    }
}

/// Ends a child whose start failed with `error`. It is ours: nobody else would wait for it.
pub(super) fn ended(init: &Init<'_>, error: Error) -> Error {
    let end = || {
        match pidfd_send_signal(init.pidfd(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => return Err(e).call(format!("kill {}", init.pid())),
        }
        wait_for_end(init.pidfd())?;
        // ECHILD: whoever embeds us ignores SIGCHLD, or has waited for it.
        let _ = waitid(WaitId::PidFd(init.pidfd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        init.reap_forker();
        Ok(())
    };
    match end() {
        Ok(()) => error,
        Err(e) => error.attach(&e),
    }
}

/// Waits for the end of a process that was killed.
pub(super) fn wait_for_end(pidfd: BorrowedFd<'_>) -> Result<()> {
    let limit = Timespec { tv_sec: END.as_secs() as i64, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => {
                return Err(Error::new(
                    Code::System,
                    "init does not end after SIGKILL: it waits in the kernel",
                ));
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).call("poll of init's pidfd"),
        }
    }
}

/// What /proc/PID/stat tells.
struct Stat {
    start_time: u64,
    zombie: bool,
    exiting: bool,
}

fn stat(pid: i32) -> Option<Stat> {
    const PF_EXITING: u32 = 0x4;
    // One read: procfs makes the text anew for each, and it is shorter than this.
    let mut buffer = [0; 2048];
    let length =
        std::fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut f| f.read(&mut buffer)).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    // The command in parentheses may hold anything, parentheses too. What follows starts with field 3 of
    // proc_pid_stat(5), the state; flags are field 9, starttime is field 22.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        start_time: field(22)?.parse().ok()?,
        zombie: matches!(field(3)?, "Z" | "X"),
        exiting: field(9)?.parse::<u32>().ok()? & PF_EXITING != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_pid() {
        let own = Process::of(std::process::id() as i32, (0, 0)).unwrap();
        assert!(own.is_alive() && !own.is_ending());
        assert!(own.pidfd().is_ok());
        let earlier = Process { start_time: own.start_time - 1, ..own };
        assert!(!earlier.is_alive() && earlier.is_ending());
        assert_eq!(earlier.pidfd().unwrap_err().to_string(), "container not running");
    }
}
