//! The containers that this shim serves, a pod's or one, and what is done to them. The work is rcrun-runtime's; here is who
//! may do what when, and what containerd is told of it. Uses: events, group, life, log, namespaces, options,
//! pod_config, rootfs, stdio, watch.

mod checkpoint;
mod container;
mod create;
mod ends;
mod sandbox;

pub use container::{Waits, no_exec};
pub use create::Wanted;
pub use sandbox::SandboxSeen;

use crate::events::Events;
use crate::group::Place;
use crate::life::{Ended, INIT, Phase};
use crate::log;
use crate::logger::Whose;
use crate::rootfs;
use crate::stdio::{self, Names};
use crate::watch::Watches;
use container::{Belongings, Container, Known, lock};
use containerd_shim_protos::events::task as events;
use rcrun_runtime::cgroup::stats::Stats;
use rcrun_runtime::container::{self as containers, ExecOptions, How, Listed, Status};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::spec::{self, id::ContainerId};
use rcrun_runtime::{Code, Error, Result, sys, terminal};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a deleted process's output may still come: containerd's own figure.
const DRAIN: Duration = Duration::from_secs(10);

/// After so many seconds without a start or an end the shim is taken to be at rest.
const QUIET: i64 = 1;

/// How long an end may take that the kernel has been told of.
const END: Duration = Duration::from_secs(10);

/// The pod.
pub struct Pod {
    namespace: String,
    events: Events,
    watches: Arc<Watches>,
    /// None for an id that somebody makes a container of just now.
    containers: Mutex<HashMap<String, Option<Arc<Container>>>>,
    /// One of these has come to be a container, or has not.
    decided: Condvar,
    sandbox: Mutex<Option<sandbox::Sandbox>>,
    place: Place,
    /// This process is about to end. Set with the table locked.
    ending: AtomicBool,
    stop: Arc<OwnedFd>,
    quiet: Arc<OwnedFd>,
}

/// How a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Its pid.
    pub pid: i32,
    /// Its stdio.
    pub names: Names,
    /// What it does.
    pub status: Status,
    /// How it has ended.
    pub ended: Option<Ended>,
}

impl Pod {
    /// Without containers. Who waits for `stop` ends this process, which is found at `place`.
    pub fn new(namespace: &str, events: Events, place: Place, stop: Arc<OwnedFd>) -> Result<Pod> {
        Ok(Pod {
            namespace: namespace.to_string(),
            events,
            watches: Arc::new(Watches::new()?),
            quiet: Arc::new(
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
                    .call("timerfd_create")?,
            ),
            containers: Mutex::new(HashMap::new()),
            decided: Condvar::new(),
            sandbox: Mutex::new(None),
            place,
            ending: AtomicBool::new(false),
            stop,
        })
    }

    /// Is ready when nothing has happened for a while.
    pub fn quiet(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.quiet)
    }

    /// What this process waits for.
    pub fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// Where events go.
    pub fn events(&self) -> &Events {
        &self.events
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Container>>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is being made is waited for, as in runc's shim: a containerd that was killed meanwhile and started anew takes
    /// "not found" for a task that was never made, forgets the container, and nobody ever removes the task.
    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let being_made = |table: &mut HashMap<_, Option<_>>| matches!(table.get(id), Some(None));
        let table = self.decided.wait_while(self.table(), being_made).unwrap_or_else(PoisonError::into_inner);
        match table.get(id) {
            Some(Some(container)) => Ok(Arc::clone(container)),
            _ => Err(Error::new(Code::NotFound, format!("container {id} is not one of this shim's"))),
        }
    }

    /// What was being made is there, or, without one, has failed.
    fn decide(&self, id: &str, container: Option<&Arc<Container>>) {
        let mut table = self.table();
        match container {
            Some(container) => drop(table.insert(id.to_string(), Some(Arc::clone(container)))),
            None => drop(table.remove(id)),
        }
        self.decided.notify_all();
    }

    /// Starts a container, or a process that `exec` has added; its pid.
    pub fn start(self: &Arc<Self>, id: &str, name: &str) -> Result<i32> {
        let container = self.container(id)?;
        {
            let mut life = container.life();
            let over = life.is_over();
            let process = life.get_mut(name).ok_or_else(|| no_exec(name))?;
            if process.phase != Phase::Created || process.ended.is_some() {
                let what = if name == INIT { "container" } else { "process" };
                let text = format!("cannot start a {what} that has been started already");
                return Err(Error::new(Code::Status, text));
            }
            if over {
                return Err(Error::new(
                    Code::Status,
                    "cannot start a process in a container that has stopped",
                ));
            }
            process.phase = Phase::Busy;
        }
        let started = match name {
            INIT => self.start_init(&container),
            _ => self.start_exec(&container, name),
        };
        let pid = container.life().get(name).map_or(0, |process| process.pid);
        match started {
            Ok(()) if name == INIT => {
                let mut event = events::TaskStart::new();
                event.container_id = id.to_string();
                event.pid = pid as u32;
                self.events.tell(event);
            }
            Ok(()) => {
                let mut event = events::TaskExecStarted::new();
                event.container_id = id.to_string();
                event.exec_id = name.to_string();
                event.pid = pid as u32;
                self.events.tell(event);
            }
            Err(error) => {
                // An init that could not execute has ended, and that is still to come; an exec has never been.
                self.goes_on(&container, name, Phase::Created);
                return Err(error);
            }
        }
        self.goes_on(&container, name, Phase::Running);
        Ok(pid)
    }

    fn start_init(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let pending = lock(&container.pending).clone();
        if let Some(pending) = pending {
            return self.restore(container, pending);
        }
        let opened = container.open()?;
        let warnings = containers::start(&opened, None).context(format!("start {}", container.id))?;
        warnings.iter().for_each(|warning| log::warn(format_args!("{}: {warning}", container.id)));
        Ok(())
    }

    fn start_exec(self: &Arc<Self>, container: &Arc<Container>, name: &str) -> Result<()> {
        let (names, text) = match container.life().get(name) {
            Some(process) => (process.with.names.clone(), process.with.process.clone()),
            None => return Err(no_exec(name)),
        };
        let whose = Whose { namespace: &self.namespace, id: name };
        let (child, ends) = stdio::open(&names, container.owner, whose, &self.watches)?;
        let options = ExecOptions { keep_terminal: true, stdio: Some(child), ..ExecOptions::default() };
        let opened = container.open()?;
        let started = containers::exec(&opened, &options, |_| spec::parse_process(&text))
            .context(format!("exec in {}", container.id))?;
        drop(options);
        for warning in &started.warnings {
            log::warn(format_args!("{} {name}: {warning}", container.id));
        }
        self.attend(container, name, started.process, started.terminal, ends)
    }

    /// Adds a process to a container, to be started later.
    pub fn exec(&self, id: &str, name: &str, names: Names, process: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        drop(container.open()?);
        let _: ContainerId = name.parse().context("the id of an exec")?;
        // What is wrong with it is told now.
        let parsed = spec::parse_process(process)?;
        let names = Names { terminal: parsed.terminal().unwrap_or(names.terminal), ..names };
        let belongings = Belongings { names, process: process.to_vec(), ..Belongings::default() };
        let mut life = container.life();
        if life.is_over() {
            return Err(Error::new(Code::Status, "cannot exec in a container that has stopped"));
        }
        // Events name the first process by the container: the end of this one would be taken for that of all.
        if name == id || !life.add(name, Phase::Created, belongings) {
            return Err(Error::new(Code::Exists, format!("process {name} of container {id} already exists")));
        }
        let mut event = events::TaskExecAdded::new();
        event.container_id = id.to_string();
        event.exec_id = name.to_string();
        self.events.tell(event);
        Ok(())
    }

    /// How a process is.
    pub fn state(&self, id: &str, name: &str) -> Result<Seen> {
        let container = self.container(id)?;
        let life = container.life();
        let process = life.get(name).ok_or_else(|| no_exec(name))?;
        let status = match (process.phase, process.told) {
            (_, true) => Status::Stopped,
            (Phase::Created | Phase::Busy, false) => Status::Created,
            (Phase::Running | Phase::Written, false) => Status::Running,
        };
        let mut seen = Seen {
            bundle: container.bundle.clone(),
            pid: process.pid,
            names: process.with.names.clone(),
            status,
            ended: process.ended.filter(|_| process.told),
        };
        drop(life);
        if status == Status::Running
            && let Ok(opened) = container.open()
            && let Ok(listed) = Listed::read(&opened, container.id.clone())
            && listed.status == Status::Paused
        {
            seen.status = Status::Paused;
        }
        Ok(seen)
    }

    /// Tells him when a process has ended.
    pub fn wait(&self, id: &str, name: &str, waits: Box<dyn Waits>) -> Result<()> {
        let outcome = self.container(id)?.outcome(name)?;
        outcome.tell(waits);
        Ok(())
    }

    /// Sends a signal to a process, or to all of a container.
    pub fn kill(&self, id: &str, name: &str, signal: i32, all: bool) -> Result<()> {
        let container = self.container(id)?;
        if name == INIT {
            return containers::kill(&container.open()?, signal, all);
        }
        let life = container.life();
        let process = life.get(name).ok_or_else(|| no_exec(name))?;
        let pidfd = match (&process.with.pidfd, process.ended) {
            (Some(pidfd), None) => Arc::clone(pidfd),
            (None, _) => {
                return Err(Error::new(Code::Status, "process not created: it has not been started"));
            }
            (Some(_), Some(_)) => return Err(Error::new(Code::NotFound, FINISHED)),
        };
        drop(life);
        match sys::pidfd::send_signal(pidfd.as_fd(), signal) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Err(Error::new(Code::NotFound, FINISHED)),
            other => other.call(format!("signal {signal} to process {name}")),
        }
    }

    /// Removes a process that has ended, or a container with all that is left of it; its pid, and how it has ended.
    pub fn delete(&self, id: &str, name: &str) -> Result<(i32, Option<Ended>)> {
        let container = self.container(id)?;
        let created = {
            let mut life = container.life();
            let process = life.get(name).ok_or_else(|| no_exec(name))?;
            match (process.phase, process.told) {
                (_, true) => false,
                // At once: who starts it meanwhile would start what nobody knows of.
                (Phase::Created, false) if name != INIT => {
                    if let Some(never) = life.remove(name) {
                        never.with.outcome.is(Known::Never);
                    }
                    return Ok((0, None));
                }
                (Phase::Created, false) => true,
                (Phase::Busy | Phase::Running | Phase::Written, false) => {
                    return Err(Error::new(Code::Status, "cannot delete a running process"));
                }
            }
        };
        if name == INIT {
            containers::delete(&container.root, &container.id, false)
                .or_else(|error| if error.code() == Code::NotFound { Ok(Vec::new()) } else { Err(error) })
                .context(format!("delete {id}"))?
                .iter()
                .for_each(|warning| log::warn(format_args!("{id}: {warning}")));
            if created && lock(&container.pending).is_none() {
                container.outcome(INIT)?.wait(END);
            }
        }
        let open = match container.life().get(name) {
            Some(process) => Arc::clone(&process.with.streams.open),
            None => return Err(no_exec(name)),
        };
        open.wait(DRAIN);
        if name == INIT {
            rootfs::unmount_all(&rootfs::of(&container.bundle))?;
        }
        let Some(mut process) = container.life().remove(name) else { return Err(no_exec(name)) };
        process.with.streams.end(&self.watches);
        if process.ended.is_none() {
            process.with.outcome.is(Known::Never);
        }
        if name == INIT {
            // Of execs that nobody has deleted: a containerd that was started anew does not know them.
            let rest: Vec<_> = container.life().take_all().collect();
            for mut exec in rest {
                exec.with.streams.end(&self.watches);
                if exec.ended.is_none() {
                    exec.with.outcome.is(Known::Never);
                }
            }
            let heard = lock(&container.heard).take();
            heard.into_iter().flat_map(|heard| heard.watches).for_each(|watch| self.watches.remove(watch));
            let mut event = events::TaskDelete::new();
            event.container_id = id.to_string();
            event.pid = process.pid as u32;
            event.exit_status = process.ended.map_or(0, |ended| ended.status);
            event.exited_at = process.ended.map(|ended| ended.at.into()).into();
            self.events.tell(event);
            // Last: who finds no container may end this shim, and what it has to tell.
            self.table().remove(id);
        }
        Ok((process.pid, process.ended))
    }

    /// All processes of a container, and which of them execs have named. A sandbox has none: a containerd that is started anew
    /// asks it of the sandbox.
    pub fn pids(&self, id: &str) -> Result<Vec<(u32, Option<String>)>> {
        if self.sandbox_status(id).is_ok() {
            return Ok(Vec::new());
        }
        let container = self.container(id)?;
        if lock(&container.pending).is_some() {
            return Ok(Vec::new());
        }
        let pids = containers::processes(&container.open()?)?;
        let life = container.life();
        let named = |pid: u32| {
            let exec = life.execs().find(|(_, process)| process.pid as u32 == pid && process.ended.is_none());
            exec.map(|(name, _)| name.to_string())
        };
        Ok(pids.into_iter().map(|pid| (pid, named(pid))).collect())
    }

    /// The pid of a container's first process, or what a sandbox has in its place: by this a containerd that is started anew
    /// knows that the shim is there.
    pub fn pid(&self, id: &str) -> Result<i32> {
        if let Ok(sandbox) = self.sandbox_status(id) {
            return Ok(sandbox.pid);
        }
        match self.table().get(id) {
            // A containerd that is started anew takes a shim that does not know its container for dead, and clears up.
            Some(None) => return Ok(0),
            // containerd 1.7 asks so before it makes a container in a sandbox, and gives up where it gets no answer.
            None if lock(&self.sandbox).is_some() => return Ok(0),
            _ => {}
        }
        Ok(self.container(id)?.life().get(INIT).map_or(0, |process| process.pid))
    }

    /// Freezes a container.
    pub fn pause(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        containers::pause(&container.open()?)?;
        let mut event = events::TaskPaused::new();
        event.container_id = id.to_string();
        self.events.tell(event);
        Ok(())
    }

    /// Lets it go on.
    pub fn resume(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        containers::resume(&container.open()?)?;
        let mut event = events::TaskResumed::new();
        event.container_id = id.to_string();
        self.events.tell(event);
        Ok(())
    }

    /// Changes the limits of a container.
    pub fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        let wanted = spec::parse_resources(resources)?;
        let mut opened = container.open()?;
        let updated = containers::update(&mut opened, &wanted, How::default())?;
        updated.warnings.iter().for_each(|warning| log::warn(format_args!("{id}: {warning}")));
        Ok(())
    }

    /// What a container has used.
    pub fn stats(&self, id: &str) -> Result<Stats> {
        let container = self.container(id)?;
        containers::stats(&container.open()?)
    }

    /// Gives a process's terminal a size.
    pub fn resize(&self, id: &str, name: &str, rows: u32, columns: u32) -> Result<()> {
        let container = self.container(id)?;
        let life = container.life();
        let process = life.get(name).ok_or_else(|| no_exec(name))?;
        let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        match &process.with.terminal {
            Some(terminal) => terminal::set_size(terminal.master.as_fd(), size(rows), size(columns)),
            // Engines ask whatever there is, and before there is one.
            None => Ok(()),
        }
    }

    /// Input of a process ends when whoever feeds it has closed it.
    pub fn close_stdin(&self, id: &str, name: &str) -> Result<()> {
        let container = self.container(id)?;
        let mut life = container.life();
        let process = life.get_mut(name).ok_or_else(|| no_exec(name))?;
        process.with.stdin_closed = true;
        process.with.streams.close_stdin();
        Ok(())
    }

    /// Makes ready to end this process, if it serves no container and no sandbox. Whoever starts one of this pod from now on gets another shim.
    pub fn shut_down(&self) -> Result<()> {
        let table = self.table();
        if !table.is_empty() || self.has_sandbox() {
            return Ok(());
        }
        self.place.leave()?;
        self.ending.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The second half of it, once whoever asked for it has an answer.
    pub fn end_if_shut_down(&self) {
        if self.ending.load(Ordering::Relaxed) {
            // An eventfd takes it.
            let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        }
    }
}

const FINISHED: &str = "process already finished";
