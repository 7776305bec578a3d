//! events: statistics of a container, and what happens in it, until it ends.

use super::process::Status;
use super::state::Container;
use crate::cgroup::stats::Stats;
use crate::cgroup::{Cgroup, Notice, Notices};
use crate::error::CallContext;
use crate::{Code, Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Something to tell.
#[derive(Debug)]
pub enum Happening<'a> {
    /// What the container has used so far.
    Stats(&'a Stats),
    /// The OOM killer has killed in it.
    OomKill,
}

/// What a container has used so far.
pub fn stats(container: &Container) -> Result<Stats> {
    open(container)?.stats()
}

/// Wakes whom it is polled by when something happens in a container. None when its cgroup is gone.
pub fn notices(container: &Container) -> Result<Option<Notices>> {
    Notices::open(&open(container)?)
}

/// Tells statistics every `interval`, and each time the OOM killer has killed, until the container has ended. Returns
/// warnings.
pub fn events(
    container: &Container,
    interval: Duration,
    mut tell: impl FnMut(Happening<'_>) -> Result<()>,
) -> Result<Vec<String>> {
    let cgroup = open(container)?;
    let Some(mut notices) = Notices::open(&cgroup)? else { return Err(not_running()) };
    let mut warnings = Vec::new();
    if !notices.sees_oom_kills() {
        warnings.push(
            "the container's cgroup has no memory controller: nobody counts what the OOM killer does".into(),
        );
    }
    let timer = timer(interval)?;
    loop {
        for notice in notices.take()? {
            match notice {
                Notice::OomKill => tell(Happening::OomKill)?,
                Notice::Ended => {
                    if notices.sees_oom_kills() && notices.last().oom_kills.is_none() {
                        warnings.push(
                            "the container's cgroup was removed, by systemd or by another, before its last figures could be read: a kill by the OOM killer in its last moment is not told".into(),
                        );
                    }
                    return Ok(warnings);
                }
            }
        }
        if wait(&notices, &timer)? {
            match cgroup.stats() {
                Ok(stats) => tell(Happening::Stats(&stats))?,
                // It was removed meanwhile: the next look says so.
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits until something has happened; true when it is time for statistics.
fn wait(notices: &Notices, timer: &OwnedFd) -> Result<bool> {
    let mut fds: Vec<_> = notices.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::PRI)).collect();
    fds.push(PollFd::new(timer, PollFlags::IN));
    loop {
        match poll(&mut fds, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call("poll", errno)),
        }
    }
    let due = fds.last().is_some_and(|timer| timer.revents().contains(PollFlags::IN));
    if due {
        let mut ticks = [0; 8];
        rustix::io::read(timer, &mut ticks).call("read of the timerfd")?;
    }
    Ok(due)
}

fn timer(interval: Duration) -> Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).call("timerfd_create")?;
    let time = Timespec {
        tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: interval.subsec_nanos().into(),
    };
    let times = Itimerspec { it_interval: time, it_value: time };
    timerfd_settime(timer.as_fd(), TimerfdTimerFlags::empty(), &times).call("timerfd_settime")?;
    Ok(timer)
}

fn not_running() -> Error {
    Error::new(Code::Status, "container not running")
}

fn open(container: &Container) -> Result<Cgroup> {
    let state = container.state()?;
    match (container.status(state.as_ref()), state) {
        (Status::Running | Status::Created | Status::Paused, Some(state)) => {
            state.open_cgroup()?.ok_or_else(|| state.without_cgroup("events"))
        }
        _ => Err(not_running()),
    }
}
