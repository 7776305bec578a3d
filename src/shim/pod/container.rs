//! A container of the pod, and what belongs to each of its processes.

use crate::life::{Ended, Life};
use crate::stdio::{Names, Owner, Streams};
use rcrun_runtime::cgroup::Notices;
use rcrun_runtime::container::{Left, StateRoot};
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::{Code, Error, Result};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A container.
pub struct Container {
    pub(super) id: ContainerId,
    pub(super) bundle: PathBuf,
    pub(super) root: StateRoot,
    pub(super) owner: Owner,
    /// It has a pid namespace that ends with its first process.
    pub(super) own_pids: bool,
    pub(super) left: Mutex<Option<Left>>,
    pub(super) notices: Mutex<Option<Notices>>,
    pub(super) life: Mutex<Life<Belongings>>,
}

/// What belongs to a process.
#[derive(Default)]
pub(super) struct Belongings {
    pub(super) names: Names,
    /// What an exec is to run.
    pub(super) process: Vec<u8>,
    pub(super) pidfd: Option<Arc<OwnedFd>>,
    pub(super) terminal: Option<Terminal>,
    pub(super) streams: Streams,
    /// CloseIO, which may come before the process.
    pub(super) stdin_closed: bool,
    pub(super) outcome: Arc<Outcome>,
}

/// What becomes of a process. Who waits for it is not bothered by its deletion.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) known: Mutex<Known>,
    pub(super) changed: Condvar,
}

#[derive(Clone, Copy, Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    Ended(Ended),
    /// It was deleted, and never started.
    Never,
}

impl Outcome {
    pub(super) fn is(&self, known: Known) {
        *lock(&self.known) = known;
        self.changed.notify_all();
    }

    /// Waits until it is known, at most `patience`.
    pub(super) fn wait(&self, patience: Option<Duration>) -> Known {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut known = lock(&self.known);
        while matches!(*known, Known::Nothing) {
            known = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(known).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    self.changed.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *known
    }
}

/// A process's terminal.
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    /// A slave of our own: without it the master fails while the process has its terminal closed between two opens, as init
    /// systems do.
    pub(super) peer: Option<OwnedFd>,
}

impl Container {
    pub(super) fn life(&self) -> MutexGuard<'_, Life<Belongings>> {
        lock(&self.life)
    }

    pub(super) fn outcome(&self, name: &str) -> Result<Arc<Outcome>> {
        match self.life().get(name) {
            Some(process) => Ok(Arc::clone(&process.with.outcome)),
            None => Err(no_exec(name)),
        }
    }
}

pub(super) fn no_exec(name: &str) -> Error {
    Error::new(Code::NotFound, format!("process {name}: there is none of that name in the container"))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
