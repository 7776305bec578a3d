//! The containers that this shim serves, a pod's or one, and what is done to them. The work is rcrun-runtime's; here is who
//! may do what when, and what containerd is told of it. Uses: events, life, log, options, rootfs, stdio, watch.

use crate::events::Events;
use crate::life::{Ended, INIT, Life, Phase, Told};
use crate::log;
use crate::logger::Whose;
use crate::options::Options;
use crate::rootfs::{self, Mount};
use crate::stdio::{self, Names, Owner, Streams};
use crate::watch::{Next, Watches};
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::types;
use rcrun_runtime::cgroup::{Notice, Notices, stats::Stats};
use rcrun_runtime::container::{self, ExecOptions, How, Left, Listed, StateRoot, Status};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::foreground::Exit;
use rcrun_runtime::spec::{self, id::ContainerId};
use rcrun_runtime::sys::birth::Newborn;
use rcrun_runtime::{Code, Error, Result, sys, terminal};
use rustix::event::epoll::EventFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

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
    watches: Watches,
    /// None for an id that somebody makes a container of just now.
    containers: Mutex<HashMap<String, Option<Arc<Container>>>>,
    stop: Arc<OwnedFd>,
    quiet: Arc<OwnedFd>,
}

/// A container.
pub struct Container {
    id: ContainerId,
    bundle: PathBuf,
    root: StateRoot,
    owner: Owner,
    /// It has a pid namespace that ends with its first process.
    own_pids: bool,
    left: Mutex<Option<Left>>,
    notices: Mutex<Option<Notices>>,
    life: Mutex<Life<Belongings>>,
}

/// What belongs to a process.
#[derive(Default)]
struct Belongings {
    names: Names,
    /// What an exec is to run.
    process: Vec<u8>,
    pidfd: Option<Arc<OwnedFd>>,
    terminal: Option<Terminal>,
    streams: Streams,
    /// CloseIO, which may come before the process.
    stdin_closed: bool,
    outcome: Arc<Outcome>,
}

/// What becomes of a process. Who waits for it is not bothered by its deletion.
#[derive(Default)]
struct Outcome {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
enum Known {
    #[default]
    Nothing,
    Ended(Ended),
    /// It was deleted, and never started.
    Never,
}

impl Outcome {
    fn is(&self, known: Known) {
        *lock(&self.known) = known;
        self.changed.notify_all();
    }

    /// Waits until it is known, at most `patience`.
    fn wait(&self, patience: Option<Duration>) -> Known {
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
struct Terminal {
    master: OwnedFd,
    /// A slave of our own: without it the master fails while the process has its terminal closed between two opens, as init
    /// systems do.
    peer: Option<OwnedFd>,
}

/// What a container is made from.
pub struct Wanted<'a> {
    /// Its id.
    pub id: &'a str,
    /// The bundle's folder.
    pub bundle: &'a Path,
    /// What is mounted as its root.
    pub rootfs: &'a [Mount],
    /// Its stdio.
    pub names: Names,
    /// containerd's options.
    pub options: &'a Options,
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
    /// Without containers. Who waits for `stop` ends this process.
    pub fn new(namespace: &str, events: Events, stop: Arc<OwnedFd>) -> Result<Pod> {
        Ok(Pod {
            namespace: namespace.to_string(),
            events,
            watches: Watches::new()?,
            quiet: Arc::new(
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
                    .call("timerfd_create")?,
            ),
            containers: Mutex::new(HashMap::new()),
            stop,
        })
    }

    /// Is ready when nothing has happened for a while.
    pub fn quiet(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.quiet)
    }

    /// What this process waits for.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Where events go.
    pub fn events(&self) -> &Events {
        &self.events
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Container>>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        match self.table().get(id) {
            Some(Some(container)) => Ok(Arc::clone(container)),
            _ => Err(Error::new(Code::NotFound, format!("container {id} is not one of this shim's"))),
        }
    }

    /// Makes a container; its pid.
    pub fn create(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<i32> {
        let id: ContainerId = wanted.id.parse()?;
        {
            let mut table = self.table();
            if table.contains_key(wanted.id) {
                return Err(Error::new(Code::Exists, "container with given ID already exists"));
            }
            table.insert(wanted.id.to_string(), None);
        }
        let made = self.make(&id, wanted);
        if made.is_err() {
            self.table().remove(wanted.id);
        }
        made.context(format!("create {id}"))
    }

    fn make(self: &Arc<Self>, id: &ContainerId, wanted: &Wanted<'_>) -> Result<i32> {
        let options = wanted.options;
        for unused in &options.unused {
            log::warn(format_args!("{id}: {unused}"));
        }
        let root = StateRoot::new(options.state_root(&self.namespace));
        crate::leftover::note(wanted.bundle, root.path())?;
        let owner = Owner { uid: options.io_uid, gid: options.io_gid };
        let rootfs = rootfs::of(wanted.bundle);
        rootfs::mount_all(wanted.rootfs, &rootfs)?;
        let made = self.bear(id, wanted, root, owner);
        made.map_err(|error| match wanted.rootfs.is_empty() {
            true => error,
            false => match rootfs::unmount_all(&rootfs) {
                Ok(()) => error,
                Err(other) => error.attach(&other),
            },
        })
    }

    fn bear(
        self: &Arc<Self>,
        id: &ContainerId,
        wanted: &Wanted<'_>,
        root: StateRoot,
        owner: Owner,
    ) -> Result<i32> {
        let whose = Whose { namespace: &self.namespace, id: id.as_str() };
        let (child, ends) = stdio::open(&wanted.names, owner, whose, &self.watches)?;
        let made = container::create(
            &root,
            id,
            &container::Options {
                bundle: wanted.bundle.to_path_buf(),
                no_pivot: wanted.options.no_pivot_root,
                no_new_keyring: wanted.options.no_new_keyring,
                systemd: wanted.options.systemd_cgroup,
                keep_terminal: true,
                stdio: Some(child),
                ..container::Options::default()
            },
        )?;
        for warning in &made.warnings {
            log::warn(format_args!("{id}: {warning}"));
        }
        let opened = root.open(id)?;
        let own_pids = opened.state()?.is_some_and(|state| state.own_pids);
        let container = Arc::new(Container {
            id: id.clone(),
            bundle: wanted.bundle.to_path_buf(),
            root,
            owner,
            own_pids,
            left: Mutex::new(Some(made.left)),
            notices: Mutex::new(None),
            life: Mutex::new(Life::new(Belongings { names: wanted.names.clone(), ..Belongings::default() })),
        });
        let pid = made.init.pid;
        self.table().insert(wanted.id.to_string(), Some(Arc::clone(&container)));
        let ready = self.attend(&container, INIT, made.init, made.terminal, ends);
        let ready = ready.and_then(|()| self.watch_oom(&container));
        if let Err(error) = ready {
            // Nobody would hear of its end.
            return Err(match container::delete(&container.root, id, true) {
                Ok(_) => error,
                Err(other) => error.attach(&other),
            });
        }
        let mut event = events::TaskCreate::new();
        event.container_id = wanted.id.to_string();
        event.bundle = wanted.bundle.display().to_string();
        event.rootfs = wanted.rootfs.iter().map(told_mount).collect();
        event.io = MessageField::some(events::TaskIO {
            stdin: wanted.names.stdin.clone(),
            stdout: wanted.names.stdout.clone(),
            stderr: wanted.names.stderr.clone(),
            terminal: wanted.names.terminal,
            ..events::TaskIO::default()
        });
        event.pid = pid as u32;
        self.events.tell(event);
        self.goes_on(&container, INIT, Phase::Created);
        Ok(pid)
    }

    /// A process has been born: its end is waited for, and its bytes are moved.
    fn attend(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        born: Newborn,
        master: Option<OwnedFd>,
        ends: stdio::Ends,
    ) -> Result<()> {
        let pidfd = Arc::new(born.pidfd);
        let streams = ends.join(&self.watches, master.as_ref())?;
        let terminal = master.map(|master| {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let peer = ioctl_tiocgptpeer(&master, flags).ok();
            Terminal { master, peer }
        });
        if let Some(process) = container.life().get_mut(name) {
            process.pid = born.pid;
            process.with.pidfd = Some(Arc::clone(&pidfd));
            process.with.streams = streams;
            if process.with.stdin_closed {
                process.with.streams.close_stdin();
            }
            process.with.terminal = terminal;
        }
        let (pod, of, whose) = (Arc::clone(self), Arc::clone(container), name.to_string());
        let react = Box::new(move || {
            pod.reap(&of, &whose);
            Next::Nothing
        });
        self.watches.add(pidfd, EventFlags::IN, react)?;
        Ok(())
    }

    fn watch_oom(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let opened = container.root.open(&container.id)?;
        // It may have ended already.
        let Ok(Some(notices)) = container::notices(&opened) else { return Ok(()) };
        if !notices.sees_oom_kills() {
            return Ok(());
        }
        let fds: Vec<OwnedFd> = notices
            .fds()
            .map(|fd| fd.try_clone_to_owned())
            .collect::<std::io::Result<_>>()
            .call("dup of memory.events")?;
        *lock(&container.notices) = Some(notices);
        for fd in fds {
            let (pod, of) = (Arc::clone(self), Arc::downgrade(container));
            let react = Box::new(move || match of.upgrade() {
                Some(container) if pod.tell_oom(&container) => Next::Same,
                _ => Next::Nothing,
            });
            self.watches.add(Arc::new(fd), EventFlags::PRI, react)?;
        }
        Ok(())
    }

    /// Tells what the OOM killer has done since the last time; false when nothing more can come.
    fn tell_oom(&self, container: &Container) -> bool {
        let mut held = lock(&container.notices);
        let Some(notices) = held.as_mut() else { return false };
        let Ok(news) = notices.take() else { return false };
        if news.contains(&Notice::OomKill) {
            let mut event = events::TaskOOM::new();
            event.container_id = container.id.to_string();
            self.events.tell(event);
        }
        !news.contains(&Notice::Ended)
    }

    /// A process has ended.
    fn reap(&self, container: &Container, name: &str) {
        let pidfd = container.life().get(name).and_then(|process| process.with.pidfd.clone());
        let Some(pidfd) = pidfd else { return };
        let ended = loop {
            match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Err(rustix::io::Errno::INTR) => {}
                // ECHILD: `adopted` was quicker, and has told it.
                Ok(None) | Err(_) => return,
                Ok(Some(status)) => break status,
            }
        };
        let exit = match (ended.exit_status(), ended.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
        };
        self.ended(container, name, exit);
    }

    /// A child of this process has been waited for that may be one of a container.
    pub fn adopted(&self, pid: i32, exit: Exit) {
        let all: Vec<_> = self.table().values().flatten().cloned().collect();
        for container in all {
            let name = container.life().by_pid(pid).map(str::to_string);
            if let Some(name) = name {
                return self.ended(&container, &name, exit);
            }
        }
    }

    fn ended(&self, container: &Container, name: &str, exit: Exit) {
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
                && let Ok(opened) = container.root.open(&container.id)
                && let Err(error) = container::kill(&opened, libc::SIGKILL, true)
            {
                log::warn(format_args!("{}: what its first process has left: {error}", container.id));
            }
            self.record(container, exit);
        }
        // A kill is told before the end that it brought.
        self.tell_oom(container);
        self.tell(container);
    }

    /// Keeps how a container has ended in its state, for `rcrun state`. Another may hold the lock on that for a while, and
    /// this thread has other things to do.
    fn record(&self, container: &Container, exit: Exit) {
        let Some(left) = lock(&container.left).take() else { return };
        let id = container.id.clone();
        let write = move || {
            if let Err(error) = left.record(exit) {
                log::warn(format_args!("{id}: its end could not be written to its state: {error}"));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("record".into()).spawn(write) {
            log::warn(format_args!("{}: its end is not written to its state: {error}", container.id));
        }
    }

    /// Something has happened.
    fn is_busy(&self) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: QUIET, tv_nsec: 0 } };
        // Without it no more is lost than some memory.
        let _ = timerfd_settime(&self.quiet, TimerfdTimerFlags::empty(), &once);
    }

    /// Tells the ends that may be told.
    fn tell(&self, container: &Container) {
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
    fn goes_on(&self, container: &Container, name: &str, phase: Phase) {
        if let Some(process) = container.life().get_mut(name) {
            process.phase = phase;
        }
        self.tell(container);
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

    fn start_init(&self, container: &Container) -> Result<()> {
        let opened = container.root.open(&container.id)?;
        let warnings = container::start(&opened, None).context(format!("start {}", container.id))?;
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
        let opened = container.root.open(&container.id)?;
        let started = container::exec(&opened, &options, |_| spec::parse_process(&text))
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
        let _: ContainerId = name.parse().context("the id of an exec")?;
        // What is wrong with it is told now.
        let parsed = spec::parse_process(process)?;
        let names = Names { terminal: parsed.terminal().unwrap_or(names.terminal), ..names };
        let belongings = Belongings { names, process: process.to_vec(), ..Belongings::default() };
        let mut life = container.life();
        if life.is_over() {
            return Err(Error::new(Code::Status, "cannot exec in a container that has stopped"));
        }
        if !life.add(name, Phase::Created, belongings) {
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
            (Phase::Running, false) => Status::Running,
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
            && let Ok(opened) = container.root.open(&container.id)
            && let Ok(listed) = Listed::read(&opened, container.id.clone())
            && listed.status == Status::Paused
        {
            seen.status = Status::Paused;
        }
        Ok(seen)
    }

    /// Waits for the end of a process.
    pub fn wait(&self, id: &str, name: &str) -> Result<Ended> {
        let container = self.container(id)?;
        let outcome = container.outcome(name)?;
        match outcome.wait(None) {
            Known::Ended(ended) => Ok(ended),
            Known::Never | Known::Nothing => Err(no_exec(name)),
        }
    }

    /// Sends a signal to a process, or to all of a container.
    pub fn kill(&self, id: &str, name: &str, signal: i32, all: bool) -> Result<()> {
        let container = self.container(id)?;
        if name == INIT {
            return container::kill(&container.root.open(&container.id)?, signal, all);
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
            let process = life.get_mut(name).ok_or_else(|| no_exec(name))?;
            match (process.phase, process.told) {
                (_, true) => false,
                (Phase::Created, false) => true,
                (Phase::Busy | Phase::Running, false) => {
                    return Err(Error::new(Code::Status, "cannot delete a running process"));
                }
            }
        };
        if name == INIT {
            container::delete(&container.root, &container.id, false)
                .or_else(|error| if error.code() == Code::NotFound { Ok(Vec::new()) } else { Err(error) })
                .context(format!("delete {id}"))?
                .iter()
                .for_each(|warning| log::warn(format_args!("{id}: {warning}")));
            if created {
                container.outcome(INIT)?.wait(Some(END));
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
            lock(&container.notices).take();
            self.table().remove(id);
            let mut event = events::TaskDelete::new();
            event.container_id = id.to_string();
            event.pid = process.pid as u32;
            event.exit_status = process.ended.map_or(0, |ended| ended.status);
            event.exited_at = process.ended.map(|ended| ended.at.into()).into();
            self.events.tell(event);
        }
        Ok((process.pid, process.ended))
    }

    /// All processes of a container, and which of them execs have named.
    pub fn pids(&self, id: &str) -> Result<Vec<(u32, Option<String>)>> {
        let container = self.container(id)?;
        let pids = container::processes(&container.root.open(&container.id)?)?;
        let life = container.life();
        let named = |pid: u32| {
            let exec = life.execs().find(|(_, process)| process.pid as u32 == pid && process.ended.is_none());
            exec.map(|(name, _)| name.to_string())
        };
        Ok(pids.into_iter().map(|pid| (pid, named(pid))).collect())
    }

    /// The pid of a container's first process.
    pub fn pid(&self, id: &str) -> Result<i32> {
        Ok(self.container(id)?.life().get(INIT).map_or(0, |process| process.pid))
    }

    /// Freezes a container.
    pub fn pause(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container::pause(&container.root.open(&container.id)?)?;
        let mut event = events::TaskPaused::new();
        event.container_id = id.to_string();
        self.events.tell(event);
        Ok(())
    }

    /// Lets it go on.
    pub fn resume(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container::resume(&container.root.open(&container.id)?)?;
        let mut event = events::TaskResumed::new();
        event.container_id = id.to_string();
        self.events.tell(event);
        Ok(())
    }

    /// Changes the limits of a container.
    pub fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        let wanted = spec::parse_resources(resources)?;
        let mut opened = container.root.open(&container.id)?;
        let updated = container::update(&mut opened, &wanted, How::default())?;
        updated.warnings.iter().for_each(|warning| log::warn(format_args!("{id}: {warning}")));
        Ok(())
    }

    /// What a container has used.
    pub fn stats(&self, id: &str) -> Result<Stats> {
        let container = self.container(id)?;
        container::stats(&container.root.open(&container.id)?)
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

    /// Ends this process, if it serves no container.
    pub fn shut_down(&self) {
        if self.table().is_empty() {
            // An eventfd takes it.
            let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        }
    }
}

const FINISHED: &str = "process already finished";

fn no_exec(name: &str) -> Error {
    Error::new(Code::NotFound, format!("process {name}: there is none of that name in the container"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told_mount(mount: &Mount) -> types::mount::Mount {
    types::mount::Mount {
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
        ..types::mount::Mount::default()
    }
}

impl Container {
    fn life(&self) -> MutexGuard<'_, Life<Belongings>> {
        lock(&self.life)
    }

    fn outcome(&self, name: &str) -> Result<Arc<Outcome>> {
        match self.life().get(name) {
            Some(process) => Ok(Arc::clone(&process.with.outcome)),
            None => Err(no_exec(name)),
        }
    }
}
