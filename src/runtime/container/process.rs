//! A container's init as the state file names it: a pid alone could by now be somebody else's.

use crate::error::CallContext;
use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

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
            Some((start_time, _)) => Ok(Process { pid, start_time, init_file }),
            None => {
                Err(Error::new(Code::System, format!("init (pid {pid}) ended before its state was written")))
            }
        }
    }

    /// It exists and is no zombie.
    pub fn is_alive(&self) -> bool {
        stat(self.pid)
            .is_some_and(|(start_time, state)| start_time == self.start_time && !matches!(state, 'Z' | 'X'))
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

/// Start time and state letter of a process.
fn stat(pid: i32) -> Option<(u64, char)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold anything, parentheses too.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // state is field 3 of proc_pid_stat(5), starttime field 22.
    Some((fields.nth(18)?.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_pid() {
        let own = Process::of(std::process::id() as i32, (0, 0)).unwrap();
        assert!(own.is_alive());
        assert!(own.pidfd().is_ok());
        let earlier = Process { start_time: own.start_time - 1, ..own };
        assert!(!earlier.is_alive());
        assert_eq!(earlier.pidfd().unwrap_err().to_string(), "container not running");
    }
}
