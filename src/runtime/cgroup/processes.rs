//! The processes in a cgroup's tree: listed, and killed.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Cgroup;
use super::file::{read_list, write_control};
use super::walk::walk;
use crate::{Error, Result};

impl Cgroup {
    /// The ids of all processes in the cgroup and below it, in ascending order. Ones that rcrun's pid namespace does
    /// not show are left out. A list of what was: processes come and go meanwhile.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let mut found = BTreeSet::new();
        let mut collect = |dir: BorrowedFd<'_>| -> Result<()> {
            for id in ids(self, dir)? {
                found.insert(id);
            }
            Ok(())
        };
        walk(self, &mut collect, &mut |_, _| Ok(()))?;
        Ok(found.into_iter().filter(|id| *id != 0).collect())
    }

    /// Moves a process here.
    pub fn take(&self, pid: i32) -> Result<()> {
        write_control(self, "cgroup.procs", &pid.to_string())
            .map_err(|errno| Error::call(format!("move process {pid} to cgroup {}", self.path()), errno))
    }

    /// Sends SIGKILL to every process in the cgroup and below it, frozen ones too, and ones just being forked
    /// (`cgroup.kill`). Returns before they are dead: `wait_empty` waits for that.
    pub fn kill_all(&self) -> Result<()> {
        match write_control(self, "cgroup.kill", "1") {
            Ok(()) => Ok(()),
            // A threaded cgroup has no processes by the kernel's terms, only threads.
            Err(Errno::OPNOTSUPP) => self.kill_threaded(),
            Err(Errno::NOENT | Errno::NODEV) if self.is_gone() => Ok(()),
            Err(errno) => {
                Err(Error::call(format!("write 1 to cgroup.kill of cgroup {}", self.path()), errno))
            }
        }
    }

    /// Sends `signal` to every process in the cgroup and below it, and to no other: the id of one that has ended may by
    /// now be that of a stranger.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        // Not all at once: RLIMIT_NOFILE is 1024 by default.
        const OPEN: usize = 256;
        for some in self.processes()?.chunks(OPEN) {
            let mut open = Vec::with_capacity(some.len());
            for id in some {
                let Some(pid) = i32::try_from(*id).ok().and_then(Pid::from_raw) else { continue };
                match pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(pidfd) => open.push((*id, pidfd)),
                    Err(Errno::SRCH) => {}
                    Err(errno) => return Err(Error::call(format!("pidfd_open {id}"), errno)),
                }
            }
            // A pidfd keeps its process. If that lives, the id is still its own, and in the list only if it is in the cgroup;
            // if not, nothing is sent.
            let still: BTreeSet<u32> = self.processes()?.into_iter().collect();
            for (id, pidfd) in open.iter().filter(|(id, _)| still.contains(id)) {
                match pidfd_send_signal(pidfd, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(Error::call(format!("pidfd_send_signal to {id}"), errno)),
                }
            }
        }
        Ok(())
    }

    /// Frozen, so that none can fork while the list is gone through; a frozen process still dies of SIGKILL.
    fn kill_threaded(&self) -> Result<()> {
        self.freeze(Duration::from_secs(10))?;
        let killed = self.signal_all(Signal::KILL);
        let thawed = write_control(self, "cgroup.freeze", "0");
        killed?;
        match thawed {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(errno) => Err(Error::call("write 0 to cgroup.freeze", errno)),
        }
    }
}

fn ids(cgroup: &Cgroup, dir: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let parse = |text: String| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>();
    match read_list(dir, "cgroup.procs") {
        Ok(text) => Ok(parse(text)),
        Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        // Of a threaded cgroup only the threads can be listed.
        Err(Errno::OPNOTSUPP) => match read_list(dir.as_fd(), "cgroup.threads") {
            Ok(text) => Ok(parse(text).into_iter().filter_map(process_of).collect()),
            Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
            Err(errno) => {
                Err(Error::call(format!("read cgroup.threads below cgroup {}", cgroup.path()), errno))
            }
        },
        Err(errno) => Err(Error::call(format!("read cgroup.procs below cgroup {}", cgroup.path()), errno)),
    }
}

/// The process that thread `id` belongs to; None when it has ended.
fn process_of(id: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
