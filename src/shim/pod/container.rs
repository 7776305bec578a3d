//! A container of the pod, and what belongs to each of its processes.

use super::checkpoint::Pending;
use crate::life::{Ended, Life};
use crate::stdio::{Names, Owner, Streams};
use crate::watch::Token;
use rcrun_runtime::cgroup::Notices;
use rcrun_runtime::container::{self, Left, StateRoot};
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::{Code, Error, Result};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A container.
pub struct Container {
    pub(super) id: ContainerId,
    pub(super) bundle: PathBuf,
    pub(super) root: StateRoot,
    pub(super) owner: Owner,
    /// CRIU, if another than the one in PATH.
    pub(super) criu: Option<PathBuf>,
    /// It has a pid namespace that ends with its first process.
    pub(super) own_pids: bool,
    pub(super) left: Mutex<Option<Left>>,
    pub(super) heard: Mutex<Option<Heard>>,
    /// It is not there yet: its start restores it.
    pub(super) pending: Mutex<Option<Pending>>,
    pub(super) life: Mutex<Life<Belongings>>,
}

/// What is heard of its cgroup.
pub(super) struct Heard {
    pub(super) notices: Notices,
    /// What waits for them. A file that has nothing more to tell does not say so: who waits for one has to be told to stop.
    pub(super) watches: Vec<Token>,
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
    so_far: Mutex<SoFar>,
    changed: Condvar,
}

#[derive(Default)]
struct SoFar {
    known: Known,
    waiting: Vec<Box<dyn Waits>>,
}

/// Who waits for an end, and has no thread meanwhile.
pub trait Waits: Send {
    /// Whether he still does.
    fn is_there(&self) -> bool;
    /// How it has ended; None: it never will, for it was never started and is deleted.
    fn hear(&self, how: Option<Ended>);
}

#[derive(Clone, Copy, Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    Ended(Ended),
    /// It was deleted, and never started.
    Never,
}

impl Known {
    fn told(self) -> Option<Ended> {
        match self {
            Known::Ended(ended) => Some(ended),
            Known::Never | Known::Nothing => None,
        }
    }
}

impl Outcome {
    pub(super) fn is(&self, known: Known) {
        let waiting = {
            let mut so_far = lock(&self.so_far);
            so_far.known = known;
            std::mem::take(&mut so_far.waiting)
        };
        self.changed.notify_all();
        waiting.iter().for_each(|waits| waits.hear(known.told()));
    }

    /// Tells him, now or when it is known.
    pub(super) fn tell(&self, waits: Box<dyn Waits>) {
        let known = {
            let mut so_far = lock(&self.so_far);
            if matches!(so_far.known, Known::Nothing) {
                // Each containerd that is started anew asks again.
                so_far.waiting.retain(|waits| waits.is_there());
                so_far.waiting.push(waits);
                return;
            }
            so_far.known
        };
        waits.hear(known.told());
    }

    /// Waits until it is known, at most `patience`.
    pub(super) fn wait(&self, patience: Duration) -> Known {
        let unknown = |so_far: &mut SoFar| matches!(so_far.known, Known::Nothing);
        let waited = self.changed.wait_timeout_while(lock(&self.so_far), patience, unknown);
        waited.unwrap_or_else(PoisonError::into_inner).0.known
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
    /// What rcrun-runtime has of it.
    pub(super) fn open(&self) -> Result<container::Container> {
        match *lock(&self.pending) {
            None => self.root.open(&self.id),
            Some(_) => Err(Error::new(
                Code::Status,
                format!("container {} is a checkpoint that its start restores: start it first", self.id),
            )),
        }
    }

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

/// There is none of that name.
pub fn no_exec(name: &str) -> Error {
    Error::new(Code::NotFound, format!("process {name}: there is none of that name in the container"))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
