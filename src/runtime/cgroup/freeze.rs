//! Freezing a cgroup's tree and letting it go on.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Cgroup;
use super::events::{EventsFile, Waited, deadline};
use super::file::{open_control, read_value, write_control};
use super::walk::walk;
use crate::{Code, Error, Result};

impl Cgroup {
    /// Freezes processes that a tracer holds: each as soon as that lets go of it.
    pub fn freeze_traced(&self) -> Result<()> {
        self.write_freeze("1")
    }

    /// Freezes every process in the cgroup and below it, and returns when they are. A process in an uninterruptible
    /// call cannot be frozen: after `timeout` the rest is thawed again, and it is an error.
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        let Some(events) = EventsFile::open(self)? else { return Err(self.gone()) };
        self.write_freeze("1")?;
        let deadline = deadline(timeout);
        let waited = events.wait(deadline, |events| events.frozen).and_then(|waited| match waited {
            Waited::Reached => self.wait_frozen_below(deadline),
            other => Ok(other),
        });
        let outcome = match waited {
            Ok(Waited::Reached) => return Ok(()),
            Ok(Waited::Gone) => return Err(self.gone()),
            Ok(Waited::TimedOut) => Error::new(
                Code::System,
                format!(
                    "cgroup {} did not freeze within {timeout:?}: a process in it is in a system call that cannot be interrupted",
                    self.path()
                ),
            ),
            Err(error) => error,
        };
        Err(match self.write_freeze("0") {
            Ok(()) => outcome,
            Err(error) => outcome.attach(&error),
        })
    }

    /// A cgroup that has processes of its own says that it is frozen when these are (kernel/cgroup/freezer.c,
    /// cgroup_update_frozen), whatever those below it do: they are asked one by one, until none has to be waited for.
    fn wait_frozen_below(&self, deadline: Instant) -> Result<Waited> {
        loop {
            let mut outcome = Waited::Reached;
            let mut waited_for = false;
            let mut ask = |dir: BorrowedFd<'_>| -> Result<()> {
                let Some(events) = EventsFile::open_below(self, dir)? else { return Ok(()) };
                if events.read()?.is_none_or(|events| events.frozen) || outcome == Waited::TimedOut {
                    return Ok(());
                }
                waited_for = true;
                if events.wait(deadline, |events| events.frozen)? == Waited::TimedOut {
                    outcome = Waited::TimedOut;
                }
                Ok(())
            };
            walk(self, &mut ask, &mut |_, _| Ok(()))?;
            if outcome == Waited::TimedOut || !waited_for {
                return Ok(outcome);
            }
        }
    }

    /// Lets the processes go on, and returns when the kernel says so. Where a cgroup above is frozen, they do not.
    pub fn thaw(&self, timeout: Duration) -> Result<()> {
        let Some(events) = EventsFile::open(self)? else { return Err(self.gone()) };
        self.write_freeze("0")?;
        match events.wait(deadline(timeout), |events| !events.frozen)? {
            Waited::Reached => Ok(()),
            Waited::Gone => Err(self.gone()),
            Waited::TimedOut => Err(Error::new(
                Code::System,
                format!(
                    "cgroup {} did not thaw within {timeout:?}: a cgroup above it is frozen",
                    self.path()
                ),
            )),
        }
    }

    /// Whether the cgroup was told to freeze: the container's own pause, whatever cgroups above it do. False when gone.
    pub fn is_frozen(&self) -> Result<bool> {
        match read_value(self, "cgroup.freeze") {
            Ok(text) => Ok(text.trim_end() == "1"),
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            Err(errno) => Err(Error::call(format!("read cgroup.freeze of cgroup {}", self.path()), errno)),
        }
    }

    fn write_freeze(&self, value: &str) -> Result<()> {
        match write_control(self, "cgroup.freeze", value) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT | Errno::NODEV) if self.is_gone() => Err(self.gone()),
            Err(errno) => {
                Err(Error::call(format!("write {value} to cgroup.freeze of cgroup {}", self.path()), errno))
            }
        }
    }

    pub(super) fn gone(&self) -> Error {
        Error::new(Code::System, format!("cgroup {} is gone", self.path())).with_errno(libc::ENOENT)
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(open_control(self, "cgroup.events", OFlags::PATH), Err(Errno::NOENT | Errno::NODEV))
    }
}
