//! `cgroup.events`: whether a cgroup's tree has processes and is frozen, and waiting until it does or is.
//! The kernel wakes poll(POLLPRI) when a value changes, so nothing here sleeps and looks again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, pread};

use super::Cgroup;
use super::file::open_control;
use crate::{Error, Result};

/// What `cgroup.events` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// A live process is in the cgroup or below it. Zombies do not count.
    pub populated: bool,
    /// Every process in the cgroup and below it is frozen, by this cgroup or one above it.
    pub frozen: bool,
}

/// How waiting for a cgroup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Reached,
    /// The cgroup was removed meanwhile.
    Gone,
    TimedOut,
}

/// A control file that tells of its changes: read, and waited for.
#[derive(Debug)]
pub(super) struct Watched {
    file: OwnedFd,
    name: &'static str,
}

impl Watched {
    /// None when the cgroup, or the file, is not there.
    pub(super) fn open(cgroup: &Cgroup, name: &'static str) -> Result<Option<Watched>> {
        Watched::open_in(cgroup.as_fd(), cgroup, name)
    }

    /// Of the cgroup `dir`, which is `cgroup` or lies below it.
    fn open_in(dir: BorrowedFd<'_>, cgroup: &Cgroup, name: &'static str) -> Result<Option<Watched>> {
        match open_control(dir, name, rustix::fs::OFlags::RDONLY) {
            Ok(file) => Ok(Some(Watched { file, name })),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::call(format!("open {name} of cgroup {}", cgroup.path()), errno)),
        }
    }

    /// None when the cgroup is gone: reading a file of a removed cgroup fails with ENODEV.
    pub(super) fn read(&self) -> Result<Option<String>> {
        let mut buffer = [0_u8; 1024];
        loop {
            match pread(&self.file, &mut buffer, 0) {
                Ok(length) => return Ok(Some(String::from_utf8_lossy(&buffer[..length]).into_owned())),
                Err(Errno::INTR) => continue,
                Err(Errno::NODEV | Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(Error::call(format!("read {}", self.name), errno)),
            }
        }
    }

    /// Waits for any change since the last read; false when `deadline` came first.
    pub(super) fn changed(&self, deadline: Instant) -> Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.file, PollFlags::PRI)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::call(format!("poll {}", self.name), errno)),
            }
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An open `cgroup.events`.
#[derive(Debug)]
pub(super) struct EventsFile(Watched);

impl AsFd for EventsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl EventsFile {
    /// None when the cgroup is gone.
    pub(super) fn open(cgroup: &Cgroup) -> Result<Option<EventsFile>> {
        Ok(Watched::open(cgroup, "cgroup.events")?.map(EventsFile))
    }

    /// The same of the cgroup `dir` below `top`.
    pub(super) fn open_below(top: &Cgroup, dir: BorrowedFd<'_>) -> Result<Option<EventsFile>> {
        Ok(Watched::open_in(dir, top, "cgroup.events")?.map(EventsFile))
    }

    /// None when the cgroup is gone.
    pub(super) fn read(&self) -> Result<Option<Events>> {
        Ok(self.0.read()?.map(|text| parse(&text)))
    }

    /// Waits until `reached` holds, at most until `deadline`. Each read arms the next poll, so no change is lost.
    pub(super) fn wait(&self, deadline: Instant, reached: impl Fn(Events) -> bool) -> Result<Waited> {
        loop {
            match self.read()? {
                None => return Ok(Waited::Gone),
                Some(events) if reached(events) => return Ok(Waited::Reached),
                Some(_) => {}
            }
            if !self.changed(deadline)? {
                return Ok(Waited::TimedOut);
            }
        }
    }

    /// Waits for any change since the last read; false when `deadline` came first.
    pub(super) fn changed(&self, deadline: Instant) -> Result<bool> {
        self.0.changed(deadline)
    }
}

impl Cgroup {
    /// The state of the cgroup's tree; None when the cgroup is gone.
    pub fn events(&self) -> Result<Option<Events>> {
        match EventsFile::open(self)? {
            Some(file) => file.read(),
            None => Ok(None),
        }
    }

    /// Waits until somebody else has removed the cgroup, at most `timeout`.
    pub fn wait_removed(&self, timeout: Duration) -> Result<()> {
        match EventsFile::open(self)? {
            Some(file) => file.wait(deadline(timeout), |_| false).map(drop),
            None => Ok(()),
        }
    }

    /// Waits until no live process is left in the cgroup and below it. False when `timeout` ran out first.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool> {
        let Some(file) = EventsFile::open(self)? else { return Ok(true) };
        Ok(file.wait(deadline(timeout), |events| !events.populated)? != Waited::TimedOut)
    }
}

/// Now plus `timeout`; a timeout too large for the clock is a year.
pub(super) fn deadline(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(YEAR)
}

fn timespec(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}

fn parse(text: &str) -> Events {
    let line_is = |wanted: &str| text.lines().any(|line| line == wanted);
    Events { populated: line_is("populated 1"), frozen: line_is("frozen 1") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_line_by_line() {
        for (text, populated, frozen) in [
            ("populated 0\nfrozen 0\n", false, false),
            ("populated 1\nfrozen 0\n", true, false),
            ("frozen 1\nnew_key 1\npopulated 1\n", true, true),
            ("unpopulated 1\n", false, false),
        ] {
            assert_eq!(parse(text), Events { populated, frozen }, "{text}");
        }
    }
}
