//! Processes end: who hears of it, when, and in which order.

use super::container::{Container, Known, lock};
use super::{DRAIN, Pod, QUIET};
use crate::life::{Ended, INIT, Phase, Told};
use crate::{children, log};
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::MessageField;
use rcrun_runtime::cgroup::Notice;
use rcrun_runtime::container;
use rcrun_runtime::foreground::Exit;
use rustix::io::Errno;
use rustix::process::WaitIdOptions;
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long the end of a process waits for those who read what it has said, and do not go on: some read only when they have
/// heard of the end.
const READERS: Duration = Duration::from_secs(1);

impl Pod {
    /// Tells what the OOM killer has done since the last time; false when nothing more can come.
    pub(super) fn tell_oom(&self, container: &Container) -> bool {
        let mut held = lock(&container.heard);
        let Some(heard) = held.as_mut() else { return false };
        let Ok(news) = heard.notices.take() else { return false };
        if news.contains(&Notice::OomKill) {
            let mut event = events::TaskOOM::new();
            event.container_id = container.id.to_string();
            self.events.tell(event);
        }
        let goes_on = !news.contains(&Notice::Ended);
        if !goes_on {
            heard.watches.drain(..).for_each(|watch| self.watches.remove(watch));
        }
        goes_on
    }

    /// A process has ended.
    pub(super) fn reap(self: &Arc<Self>, container: &Arc<Container>, name: &str) {
        let held = container.life().get(name).and_then(|process| process.with.pidfd.clone());
        let Some(pidfd) = held else { return };
        match children::ended(&pidfd, WaitIdOptions::NOHANG) {
            // ECHILD: `adopted` was quicker, and has told it.
            Err(_) => {}
            Ok(Some(exit)) => self.has_ended(container, name, Ok(exit)),
            // It is dead, and its tracer (strace, another process of the container) is told first: ptrace(2), "Death under
            // ptrace". The pidfd is readable already and tells no more; only who waits learns of the rest.
            Ok(None) => self.has_ended(container, name, Err(pidfd)),
        }
    }

    /// A process has ended, how is known or still to be waited for: those who read what it has said are waited for. A client
    /// that hears of the end closes its ends of the FIFOs, with what it has not read.
    fn has_ended(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        exit: std::result::Result<Exit, Arc<OwnedFd>>,
    ) {
        let held =
            container.life().get(name).map(|p| (p.with.streams.outputs(), Arc::clone(&p.with.streams.open)));
        let Some((outputs, open)) = held else { return };
        // What it said last may not have been moved yet: which of several events this thread hears of first is chance.
        outputs.into_iter().for_each(|output| self.watches.call(output));
        if let Ok(exit) = exit
            && !open.is_behind()
            && !open.has_unread()
        {
            return self.ended(container, name, exit);
        }
        let (pod, of, whose) = (Arc::clone(self), Arc::clone(container), name.to_string());
        let known = exit.as_ref().ok().copied();
        let wait = move || {
            let exit =
                exit.or_else(|pidfd| children::ended(&pidfd, WaitIdOptions::empty())?.ok_or(Errno::CHILD));
            let began = Instant::now();
            open.wait_for_readers(READERS, DRAIN);
            open.wait_for_unread(READERS, DRAIN.saturating_sub(began.elapsed()));
            if let Ok(exit) = exit {
                pod.ended(&of, &whose, exit);
            }
        };
        match (std::thread::Builder::new().name("ended".into()).spawn(wait), known) {
            (Ok(_), _) => {}
            (Err(_), Some(exit)) => self.ended(container, name, exit),
            (Err(error), None) => {
                log::warn(format_args!("{}: {name} has ended and is not told: {error}", container.id));
            }
        }
    }

    /// A child of this process has been waited for that may be one of a container.
    pub fn adopted(self: &Arc<Self>, pid: i32, exit: Exit) {
        let all: Vec<_> = self.table().values().flatten().cloned().collect();
        for container in all {
            let name = container.life().by_pid(pid).map(str::to_string);
            if let Some(name) = name {
                return self.has_ended(&container, &name, Ok(exit));
            }
        }
    }

    pub(super) fn ended(&self, container: &Container, name: &str, exit: Exit) {
        let mut life = container.life();
        let Some(process) = life.get_mut(name) else { return };
        if process.ended.is_some() {
            return;
        }
        process.ended = Some(Ended { status: exit.status() as u32, at: SystemTime::now() });
        process.with.streams.end_input(&self.watches);
        if let Some(terminal) = &mut process.with.terminal {
            terminal.peer = None;
        }
        drop(life);
        if name == INIT {
            // In a shared pid namespace others outlive it.
            if !container.own_pids
                && let Ok(opened) = container.open()
                && let Err(error) = container::kill(&opened, libc::SIGKILL, true)
            {
                log::warn(format_args!("{}: what its first process has left: {error}", container.id));
            }
        }
        // A kill is told before the end that it brought.
        self.tell_oom(container);
        if name == INIT {
            self.record(container, exit);
        }
        self.tell(container);
    }

    /// Keeps how a container has ended in its state, for `rcrun state`. Another may hold the lock on that for a while, and
    /// this thread has other things to do.
    pub(super) fn record(&self, container: &Container, exit: Exit) {
        let Some(left) = lock(&container.left).take() else { return };
        let id = container.id.clone();
        let last = lock(&container.heard).as_ref().map(|heard| heard.notices.last().clone());
        let write = move || {
            if let Err(error) = left.record(exit, last) {
                log::warn(format_args!("{id}: its end could not be written to its state: {error}"));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("record".into()).spawn(write) {
            log::warn(format_args!("{}: its end is not written to its state: {error}", container.id));
        }
    }

    /// Something has happened.
    pub(super) fn is_busy(&self) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: QUIET, tv_nsec: 0 } };
        // Without it no more is lost than some memory.
        let _ = timerfd_settime(&self.quiet, TimerfdTimerFlags::empty(), &once);
    }

    /// Tells the ends that may be told.
    pub(super) fn tell(&self, container: &Container) {
        self.is_busy();
        let mut life = container.life();
        for Told { name, pid, ended } in life.tell() {
            let mut event = events::TaskExit::new();
            event.container_id = container.id.to_string();
            event.id = if name == INIT { container.id.to_string() } else { name.clone() };
            event.pid = pid as u32;
            event.exit_status = ended.status;
            event.exited_at = MessageField::some(ended.at.into());
            self.events.tell(event);
            if let Some(process) = life.get(&name) {
                process.with.outcome.is(Known::Ended(ended));
            }
        }
    }

    /// Nobody is at a process any more.
    pub(super) fn goes_on(&self, container: &Container, name: &str, phase: Phase) {
        if let Some(process) = container.life().get_mut(name) {
            process.phase = phase;
        }
        self.tell(container);
    }
}
