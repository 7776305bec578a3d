//! Makes room below a memory limit before it is set, so that nothing has to be killed for it.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Cgroup;
use super::events::Watched;
use super::file::write_control;
use crate::{Code, Error, Result};

/// In how many steps the usage is brought down: the kernel answers after each.
const STEPS: u64 = 8;

/// What memory.high was before `make_room` lowered it.
#[derive(Debug)]
#[must_use]
pub struct Room {
    high: Option<String>,
}

impl Cgroup {
    /// How much memory is in use; None without the memory controller.
    pub fn memory_in_use(&self) -> Result<Option<u64>> {
        Ok(self.read("memory.current")?.and_then(|text| text.parse().ok()))
    }

    /// Refuses a limit that the usage has reached already: memory.max would kill (memory.checkBeforeUpdate).
    pub fn check_usage(&self, limit: Option<u64>, with_swap: Option<u64>) -> Result<()> {
        let Some(usage) = self.memory_in_use()? else { return Ok(()) };
        for (what, limit) in [("memory+swap", with_swap), ("memory", limit)] {
            if let Some(limit) = limit.filter(|limit| *limit <= usage) {
                return Err(Error::new(
                    Code::System,
                    format!("rejecting {what} limit {limit} <= usage {usage} (memory.checkBeforeUpdate)"),
                ));
            }
        }
        Ok(())
    }

    /// Brings the usage down to `limit` by reclaim, for at most `timeout`, and keeps it there (memory.high) until
    /// `end_room`. After an error memory.high is what it was.
    pub fn make_room(&self, limit: u64, timeout: Duration) -> Result<Room> {
        let Some(usage) = self.memory_in_use()?.filter(|usage| *usage > limit) else {
            return Ok(Room { high: None });
        };
        // memory.reclaim (Linux 5.19) slows nobody down: what it can do it does first.
        for step in 1..=STEPS {
            let goal = usage - (usage - limit) * step / STEPS;
            let Some(now) = self.memory_in_use()? else { break };
            if now > goal && !self.reclaim(now - goal)? {
                break;
            }
        }
        let high = self.read("memory.high")?;
        let room = Room { high };
        match self.hold(limit, timeout) {
            Ok(()) => Ok(room),
            Err(error) => Err(match self.end_room(&room) {
                Ok(()) => error,
                Err(failed) => error.attach(&failed),
            }),
        }
    }

    /// Puts memory.high back.
    pub fn end_room(&self, room: &Room) -> Result<()> {
        match &room.high {
            Some(high) => self.write_memory_high(high),
            None => Ok(()),
        }
    }

    /// False when the kernel finds no more, or has no such file.
    fn reclaim(&self, bytes: u64) -> Result<bool> {
        match write_control(self, "memory.reclaim", &bytes.to_string()) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::NOENT) => Ok(false),
            Err(errno) => {
                Err(Error::call(format!("write {bytes} to memory.reclaim of cgroup {}", self.path()), errno))
            }
        }
    }

    /// The write reclaims by itself, and from then on whoever allocates above it does too, and is made to wait:
    /// memory.events counts that.
    fn hold(&self, limit: u64, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let events = Watched::open(self, "memory.events")?;
        self.write_memory_high(&limit.to_string())?;
        let mut late = false;
        loop {
            // Read before the usage: what changes after it ends the wait.
            if let Some(events) = &events {
                events.read()?;
            }
            let usage = self.memory_in_use()?.unwrap_or(0);
            if usage <= limit {
                return Ok(());
            }
            if late {
                return Err(Error::new(
                    Code::System,
                    format!(
                        "cgroup {} uses {usage} bytes, and no more of them can be reclaimed: the limit stays what it was, as {limit} would kill (--safe)",
                        self.path()
                    ),
                ));
            }
            // Out of time it looks once more: what the payload gives back by itself changes no count.
            let changed = events.as_ref().map_or(Ok(false), |events| events.changed(deadline))?;
            late = !changed || Instant::now() >= deadline;
        }
    }

    fn write_memory_high(&self, value: &str) -> Result<()> {
        write_control(self, "memory.high", value).map_err(|errno| {
            Error::call(format!("write {value} to memory.high of cgroup {}", self.path()), errno)
        })
    }
}
