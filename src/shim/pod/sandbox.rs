//! The pod itself, where containerd asks for one (sandboxer = "shim"): namespaces, and the end of all that is in them. Without
//! one a shim is a pod by its containers alone.

use super::container::{Known, Outcome, Waits, lock};
use super::{END, Pod};
use crate::life::{Ended, INIT};
use crate::log;
use crate::namespaces::Held;
use crate::pod_config::PodConfig;
use rcrun_runtime::cgroup::stats::Stats;
use rcrun_runtime::cgroup::{Cgroup, CgroupPath, Hierarchy};
use rcrun_runtime::error::Context;
use rcrun_runtime::{Code, Error, Result, systemd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime};

/// The sandbox of this shim.
pub struct Sandbox {
    id: String,
    config: PodConfig,
    /// Once it is started and until it is stopped.
    held: Option<Held>,
    started: Option<SystemTime>,
    ended: Option<SystemTime>,
    outcome: Arc<Outcome>,
}

/// How it is.
#[derive(Clone, Debug)]
pub struct SandboxSeen {
    /// What has its namespaces in /proc; 0 where it has none.
    pub pid: i32,
    /// What it was asked to be.
    pub config: PodConfig,
    /// When it was started.
    pub started: Option<SystemTime>,
    /// When it was stopped.
    pub ended: Option<SystemTime>,
}

impl Pod {
    fn sandbox(&self) -> MutexGuard<'_, Option<Sandbox>> {
        lock(&self.sandbox)
    }

    fn with_sandbox<T>(&self, id: &str, work: impl FnOnce(&mut Sandbox) -> Result<T>) -> Result<T> {
        match self.sandbox().as_mut() {
            Some(sandbox) if sandbox.id == id => work(sandbox),
            _ => Err(Error::new(Code::NotFound, format!("sandbox {id} is not this shim's"))),
        }
    }

    /// Notes what the sandbox is to be. A shim has one.
    pub fn create_sandbox(&self, id: &str, config: PodConfig) -> Result<()> {
        // Before the sandbox's lock, as in `shut_down`.
        let _table = self.table();
        if self.ending.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Status, "this shim is about to end: start another one"));
        }
        let mut sandbox = self.sandbox();
        if let Some(there) = sandbox.as_ref() {
            return Err(Error::new(Code::Exists, format!("this shim has sandbox {} already", there.id)));
        }
        let outcome = Arc::default();
        *sandbox =
            Some(Sandbox { id: id.to_string(), config, held: None, started: None, ended: None, outcome });
        Ok(())
    }

    /// Makes its namespaces.
    pub fn start_sandbox(&self, id: &str) -> Result<SandboxSeen> {
        self.with_sandbox(id, |sandbox| {
            if sandbox.started.is_some() || sandbox.ended.is_some() {
                return Err(Error::new(Code::Status, format!("sandbox {id} has been started already")));
            }
            sandbox.held = Some(Held::new(&sandbox.config).context(format!("start sandbox {id}"))?);
            sandbox.started = Some(SystemTime::now());
            Ok(sandbox.seen())
        })
    }

    /// How it is.
    pub fn sandbox_status(&self, id: &str) -> Result<SandboxSeen> {
        self.with_sandbox(id, |sandbox| Ok(sandbox.seen()))
    }

    /// Kills what still runs in it, waits for that, and lets go of its namespaces. Stopping it once more is no error.
    pub fn stop_sandbox(&self, id: &str, patience: Option<Duration>) -> Result<()> {
        self.with_sandbox(id, |sandbox| {
            // From here on no container is made in it.
            sandbox.ended.get_or_insert_with(SystemTime::now);
            Ok(())
        })?;
        let mut failed = None;
        for name in self.names() {
            if let Err(error) = self.end_container(&name, patience.unwrap_or(END)) {
                failed = Some(match failed {
                    None => error,
                    Some(first) => Error::attach(first, &error),
                });
            }
        }
        if let Some(error) = failed {
            return Err(error.context(format!("stop sandbox {id}")));
        }
        self.with_sandbox(id, |sandbox| {
            drop(sandbox.held.take());
            let at = *sandbox.ended.get_or_insert_with(SystemTime::now);
            sandbox.outcome.is(Known::Ended(Ended { status: 0, at }));
            Ok(())
        })
    }

    /// Tells him when it has ended.
    pub fn wait_sandbox(&self, id: &str, waits: Box<dyn Waits>) -> Result<()> {
        let outcome = self.with_sandbox(id, |sandbox| Ok(Arc::clone(&sandbox.outcome)))?;
        outcome.tell(waits);
        Ok(())
    }

    /// Ends all that it is, and this process. Also where there is no sandbox: containerd asks it of one whose creation has
    /// failed.
    pub fn shut_down_sandbox(&self, id: &str) -> Result<()> {
        let is_there = match self.sandbox().as_ref() {
            Some(sandbox) if sandbox.id != id => {
                return Err(Error::new(Code::NotFound, format!("sandbox {id} is not this shim's")));
            }
            sandbox => sandbox.is_some(),
        };
        if is_there {
            self.stop_sandbox(id, None)?;
            for name in self.names() {
                self.delete(&name, INIT).context(format!("shut down sandbox {id}"))?;
            }
            *self.sandbox() = None;
        }
        self.shut_down()
    }

    /// What all of it has used: the cgroup that the pod has, or else its containers together.
    pub fn sandbox_stats(&self, id: &str) -> Result<Stats> {
        let config = self.sandbox_status(id)?.config;
        if let Some(cgroup) = pods_cgroup(&config.cgroup_parent)? {
            return cgroup.stats();
        }
        let mut all = Stats::default();
        for name in self.names() {
            match self.stats(&name) {
                Ok(stats) => add(&mut all, &stats),
                // It has gone meanwhile.
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Whether a container can be made: not in a sandbox that has been stopped.
    pub(super) fn takes_containers(&self) -> Result<()> {
        match self.sandbox().as_ref() {
            Some(sandbox) if sandbox.ended.is_some() => {
                Err(Error::new(Code::Status, format!("sandbox {} has been stopped", sandbox.id)))
            }
            _ => Ok(()),
        }
    }

    /// Whether this shim serves more than its containers.
    pub(super) fn has_sandbox(&self) -> bool {
        self.sandbox().is_some()
    }

    fn names(&self) -> Vec<String> {
        let made = |(name, container): (&String, &Option<_>)| container.is_some().then(|| name.clone());
        self.table().iter().filter_map(made).collect()
    }

    fn end_container(&self, name: &str, patience: Duration) -> Result<()> {
        let Ok(container) = self.container(name) else { return Ok(()) };
        let outcome = container.outcome(INIT)?;
        match self.kill(name, INIT, libc::SIGKILL, true) {
            Err(error) if !matches!(error.code(), Code::Status | Code::NotFound) => return Err(error),
            _ => {}
        }
        match outcome.wait(patience) {
            Known::Nothing => Err(Error::new(
                Code::System,
                format!("container {name} has been killed and does not end within {} s", patience.as_secs()),
            )),
            Known::Ended(_) | Known::Never => Ok(()),
        }
    }
}

impl Sandbox {
    fn seen(&self) -> SandboxSeen {
        SandboxSeen {
            pid: self.held.as_ref().map_or(0, Held::tid),
            config: self.config.clone(),
            started: self.started,
            ended: self.ended,
        }
    }
}

/// The cgroup of that name, if there is one: a path, or a slice of systemd's.
fn pods_cgroup(parent: &str) -> Result<Option<Cgroup>> {
    let path = match parent {
        "" | "/" => return Ok(None),
        // A path is as good for systemd: then it is below the mount, too.
        path if path.contains('/') => CgroupPath::parse(&format!("/{}", path.trim_start_matches('/')))?,
        slice => {
            let name = format!("{slice}::any");
            let scope = systemd::Name::of(Some(Path::new(&name)), "", false)?.cgroup()?;
            CgroupPath::parse(&format!("/{}", scope.split().0))?
        }
    };
    let found = Cgroup::open(&Hierarchy::find()?, &path)?;
    if found.is_none() {
        log::warn(format_args!("the pod's cgroup {path} is not there: its containers are counted"));
    }
    Ok(found)
}

fn add(all: &mut Stats, one: &Stats) {
    let (to, from) = (&mut all.cpu.usage, &one.cpu.usage);
    to.total += from.total;
    to.kernel += from.kernel;
    to.user += from.user;
    all.memory.usage.usage += one.memory.usage.usage;
    all.pids.current += one.pids.current;
}
