//! Freezing a cgroup's tree and letting it go on.

use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Cgroup;
use super::events::{EventsFile, Waited, deadline};
use super::file::{open_control, read_value, write_control};
use crate::{Code, Error, Result};

impl Cgroup {
    /// Freezes every process in the cgroup and below it, and returns when they are. A process in an uninterruptible
    /// call cannot be frozen: after `timeout` the rest is thawed again, and it is an error.
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        let Some(events) = EventsFile::open(self)? else { return Err(self.gone()) };
        self.write_freeze("1")?;
        let outcome = match events.wait(deadline(timeout), |events| events.frozen) {
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
