//! create and run: from a bundle to an init that waits, or to a payload that runs. What was made is unmade in reverse
//! when anything fails.

use super::decide::{Decision, decide};
use super::delete::Left;
use super::proc_file::{adjust_oom_score, is_denied};
use super::process::{Process, ended};
use super::start_socket;
use super::state::{Container, State, StateRoot};
use super::undo::Undo;
use super::{hooks, maps};
use crate::cgroup::{Cgroup, CgroupPath, DeviceProgram, Hierarchy, Notices, Policy, Whose, resources};
use crate::compile;
use crate::error::CallContext;
use crate::host::Host;
use crate::launch::{Event, Init, launch};
use crate::notify_socket::{self, NotifySocket};
use crate::plan::Plan;
use crate::prepare::{Means, prepare, wanted};
use crate::spec::id::ContainerId;
use crate::spec::{self, Spec};
use crate::sys::birth::Newborn;
use crate::sys::hold::Hold;
use crate::sys::trees::Wanted;
use crate::systemd;
use crate::{Code, Error, Result, home, netdev, pid_file, sys, terminal, timings};
use oci_spec::runtime::LinuxIntelRdt;
use rcrun_plan::Barrier;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the command line says of a create or run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// In the place of the bundle's config.json.
    pub config: Option<PathBuf>,
    /// What the caller has just written into `bundle`, a path without links, as its config.json: neither is looked at again.
    pub written: Option<Arc<Vec<u8>>>,
    /// Where init's pid is written.
    pub pid_file: Option<PathBuf>,
    /// Receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// Receives init's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many fds from 3 on (after LISTEN_FDS) the payload gets.
    pub preserve_fds: u32,
    /// LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES of the environment.
    pub listen: [Option<String>; 3],
    /// NOTIFY_SOCKET of the environment.
    pub notify_socket: Option<String>,
    /// Its cgroup is a scope of systemd's.
    pub systemd: bool,
    /// It has no cgroup of its own: it stays in the caller's.
    pub no_cgroup: bool,
    /// The caller keeps the terminal's master (run in the foreground); else a terminal needs `console_socket`.
    pub keep_terminal: bool,
    /// Becomes stdin, stdout and stderr; else they are the caller's own.
    pub stdio: Option<[Arc<OwnedFd>; 3]>,
    /// The root, a tree that is mounted nowhere. The folder that /root/path names is then what it is put on.
    pub root: Option<Arc<OwnedFd>>,
    /// `--rootless`: whether what only root of the machine may do with cgroups is left out; None finds out.
    pub rootless: Option<bool>,
    /// Whose it is, where this process is root in a user namespace of rcrun's own alone; else who this process is.
    pub owner: Option<u32>,
}

/// A container that was made, and runs or waits for `start`.
#[derive(Debug)]
pub struct Run {
    /// Its init.
    pub init: Newborn,
    /// Its terminal, with `keep_terminal`.
    pub terminal: Option<OwnedFd>,
    /// The socket on which it says that it is ready.
    pub notify: Option<NotifySocket>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What `delete_ended` removes when it has ended.
    pub left: Left,
    /// With systemd: to be listened to until it has ended. Its cgroup is removed then.
    pub notices: Option<Notices>,
}

/// Makes container `id`; its process starts with `start`.
pub fn create(root: &StateRoot, id: &ContainerId, options: &Options) -> Result<Run> {
    bring_up(root, id, options, true)
}

/// Makes container `id` and starts its process.
pub fn run(root: &StateRoot, id: &ContainerId, options: &Options) -> Result<Run> {
    bring_up(root, id, options, false)
}

fn bring_up(root: &StateRoot, id: &ContainerId, options: &Options, await_start: bool) -> Result<Run> {
    let (bundle, text) = match (&options.config, &options.written) {
        (None, Some(written)) if written.len() as u64 <= spec::MAX_SIZE => {
            (options.bundle.clone(), written.clone())
        }
        (config, _) => {
            let call = || format!("bundle {}", options.bundle.display());
            let bundle = sys::path::real(&options.bundle).call(call())?;
            let text = match config {
                Some(config) => spec::read(config)?,
                None => spec::read(&bundle.join("config.json"))?,
            };
            (bundle, Arc::new(text))
        }
    };
    let spec = spec::parse(&text)?;
    timings::mark("read and check config.json");
    let host = Host::read()?;
    timings::mark("look at the machine");
    if !await_start && spec.process().is_none() {
        return Err(Error::config("/process", "is missing: there is nothing to start"));
    }
    let Decision {
        limits,
        policy,
        mut place,
        rootless,
        notify,
        passed: _open,
        variables,
        rootfs,
        left_behind,
        plan,
        warnings,
        resctrl,
    } = decide(&spec, host, &bundle, id, options, await_start)?;
    timings::mark("compile the plan, the limits, the seccomp filter");

    // From here on there is something to undo.
    let container = root.make(id)?;
    let made = State::new(&spec, id, (&bundle, rootfs), &place);
    let mut state = State {
        owner: options.owner.unwrap_or(made.owner),
        resctrl: resctrl.as_ref().map(|(groups, ..)| groups.clone()),
        no_pivot: options.no_pivot,
        left_behind: left_behind.clone(),
        keyring: !options.no_new_keyring,
        variables: variables.clone(),
        notify: notify.is_some(),
        ..made
    };
    let mut hold = None;
    let mut saved = false;
    if place.unit.is_some() {
        let expected = state.cgroup.clone();
        // What a create that is killed now leaves ends with it.
        match container.save(&state).and_then(|()| place.start_unit(&mut state)) {
            Ok(held) => {
                saved = state.cgroup == expected;
                hold = held;
            }
            Err(error) => {
                return Err(match container.remove() {
                    Ok(()) => error,
                    Err(e) => error.attach(&e),
                });
            }
        }
    }
    if place.unit.is_some() {
        timings::mark("have systemd make the cgroup");
    }
    let mut undo = Undo { container: &container, state: &state, spec: &spec, cgroup: None, launched: false };
    let site = Site {
        container: &container,
        state: &state,
        spec: &spec,
        plan: &plan,
        options,
        await_start,
        rootless,
        saved,
        config: &text,
        resctrl: resctrl.as_ref().map(|(_, root, rdt)| (root.as_path(), *rdt)),
    };
    let (init, terminal, notify, notices) =
        match site.build(&place.cgroup, hold, &limits.writes, &policy, notify, &mut undo) {
            Ok(built) => built,
            Err(error) => return Err(undo.all(error)),
        };
    let cgroup = undo.cgroup.take();
    let left = Left::of(container, cgroup, &state)?;
    Ok(Run { init, terminal, notify, warnings, left, notices })
}

/// All that one start works on.
struct Site<'a> {
    container: &'a Container,
    state: &'a State,
    spec: &'a Spec,
    plan: &'a Plan,
    options: &'a Options,
    await_start: bool,
    rootless: bool,
    /// `state` is on disk as it is.
    saved: bool,
    config: &'a [u8],
    resctrl: Option<(&'a Path, &'a LinuxIntelRdt)>,
}

type Built = (Newborn, Option<OwnedFd>, Option<NotifySocket>, Option<Notices>);

impl Site<'_> {
    fn build(
        &self,
        cgroup_path: &Option<(Hierarchy, CgroupPath)>,
        hold: Option<Hold>,
        limits: &[resources::Write],
        policy: &Policy,
        notify: Option<&str>,
        undo: &mut Undo<'_>,
    ) -> Result<Built> {
        if !self.saved {
            self.container.save(self.state)?;
        }
        timings::mark("make the state folder");
        if let Some((groups, (root, rdt))) = self.state.resctrl.as_ref().zip(self.resctrl) {
            groups.make(root, rdt)?;
        }
        let mut means = Means::default();
        // Beside the process that holds a scope, init must have room.
        let split = hold.as_ref().map(|_| limits.iter().cloned().partition(systemd::counts_hold));
        let (late, limits): (&[_], &[_]) = match &split {
            Some::<(Vec<_>, Vec<_>)>((late, now)) => (late, now),
            None => (&[], limits),
        };
        if let Some((hierarchy, path)) = cgroup_path {
            let cgroup = undo.cgroup.insert(match hold {
                None => Cgroup::create(hierarchy, path, limits).map_err(of_cgroup)?,
                Some(_) => Cgroup::adopt(hierarchy, path, limits)?,
            });
            cgroup.mark(self.state.mark())?;
            cgroup.apply(limits)?;
            means.cgroup = Some(hierarchy.path().join(path.relative()));
            timings::mark("make the cgroup and set its limits");
        }
        means.root = self.options.root.as_deref().map(AsFd::as_fd);
        let cgroup = undo.cgroup.as_ref();
        if self.await_start {
            means.listen = Some(start_socket::listen(self.container.folder())?);
        }
        let mut notify_socket = None;
        if let Some(host) = notify {
            means.notify = Some(notify_socket::make_directory(self.container.folder())?);
            // With create, `start` listens: systemd waits for that command.
            if !self.await_start {
                notify_socket = Some(NotifySocket::bind(self.container.folder(), host)?);
            }
        }
        let fds = prepare(self.plan, &mut means)?;
        let trees = match self.plan.clones_inside {
            true => wanted(self.plan, &fds, &means)?,
            false => Vec::new(),
        };
        let stdio = self.options.stdio.as_ref().map(|fds| fds.each_ref().map(|fd| fd.as_fd()));
        let stamps = timings::stamps(self.plan)?;
        timings::mark("open what the plan names");
        let mut init =
            launch(self.plan, fds, cgroup.map(AsFd::as_fd), stdio, stamps.as_ref().map(AsFd::as_fd))
                .map_err(|error| for_lack_of_memory(cgroup, error))?;
        undo.launched = true;
        // Before anything can end: systemd removes an empty scope.
        let scope = cgroup.filter(|_| hold.is_some());
        let notices = scope.map(Notices::open).transpose()?.flatten();
        drop(hold);
        match self.limit(cgroup, late).and_then(|()| self.attend(&mut init, cgroup, policy, &trees)) {
            Ok(terminal) => {
                timings::init_is_done(self.plan);
                Ok((init.into_newborn(), terminal, notify_socket, notices))
            }
            Err(error) => {
                timings::init_is_done(self.plan);
                let error = ended(&init, error);
                let error = for_lack_of_memory(cgroup, error);
                // conmon tells a failure by its absence.
                let removed =
                    self.options.pid_file.as_deref().map(|path| pid_file::remove(path, init.pid() as u32));
                Err(match removed {
                    Some(Err(left)) => error.attach(&left),
                    _ => error,
                })
            }
        }
    }

    /// Sets limits that had to wait until init was born.
    fn limit(&self, cgroup: Option<&Cgroup>, late: &[resources::Write]) -> Result<()> {
        cgroup.map_or(Ok(()), |cgroup| cgroup.apply(late))?;
        self.state.unit.as_ref().map_or(Ok(()), |unit| unit.set(&systemd::limits(late)))
    }

    /// From init's birth until it waits for `start`, or its payload runs.
    fn attend(
        &self,
        init: &mut Init<'_>,
        cgroup: Option<&Cgroup>,
        policy: &Policy,
        trees: &[Option<Wanted>],
    ) -> Result<Option<OwnedFd>> {
        self.container.save_config(self.config)?;
        if self.plan.clones_inside {
            init.clone_inside(trees)?;
        }
        // Root's it is already; where rcrun is an ordinary user, it is the user's, who can give nothing away. Only now: root
        // that has joined a user namespace may be born in no cgroup but root's.
        let owner = compile::cgroup_owner(self.spec).filter(|uid| *uid != 0);
        if let Some((cgroup, uid)) = cgroup.zip(owner) {
            match cgroup.delegate(uid) {
                Err(error) if self.rootless && is_denied(&error) => {}
                other => other?,
            }
        }
        // While init works: loading takes 0.2 ms, and nothing of the container runs before it is attached.
        if let Some(cgroup) = cgroup {
            match timings::meanwhile("load the device program", || restrict_devices(cgroup, policy)) {
                // An ordinary user has no device programs, and in a user namespace nobody can make a device node.
                Err(error) if self.rootless && is_denied(&error) => {}
                other => other?,
            }
        }
        self.burden(init)?;
        // Written while init works, and put in its place when it is ready.
        timings::meanwhile("write the state", || self.stage(init))?;
        let mut early = self.early_answer();
        let mut questions = self.plan.questions();
        let mut kept = None;
        loop {
            // Nothing is left that init's report could change: its answer goes ahead of it, and init, when it is ready,
            // finds it there instead of waiting for this process to wake up, twice.
            if questions == 0
                && let Some(home) = early.take()
            {
                self.commit(init)?;
                init.go_on(home.as_deref())?;
                self.until_it_runs(init)?;
                return Ok(kept);
            }
            questions = questions.saturating_sub(1);
            if !self.attend_once(init, &mut kept)? {
                break;
            }
        }
        self.commit(init)?;
        if !self.await_start {
            timings::meanwhile("startContainer hooks", || {
                hooks::start_container(self.spec, self.state, (init.pid(), init.pidfd()))
            })?;
        }
        let home = self.plan.home_of.map(|uid| home::of(init.pid(), uid));
        init.go_on(home.as_deref())?;
        if !self.await_start {
            self.until_it_runs(init)?;
            timings::meanwhile("poststart hooks", || hooks::poststart(self.spec, self.state, init.pid()))?;
        }
        Ok(kept)
    }

    fn until_it_runs(&self, init: &mut Init<'_>) -> Result<()> {
        loop {
            match init.next_event()? {
                Event::Running => return Ok(()),
                Event::Listener(listener) => {
                    let state = self.state.for_hooks("creating", init.pid());
                    hooks::tell_agent(self.spec, &state, init.pid(), listener.as_fd())?;
                    init.go_on(None)?;
                }
                _ => {}
            }
        }
    }

    /// The answer to Ready (HOME, where it is wanted), if it does not depend on the report: a run without hooks, and
    /// nobody who is told of the container before it is set up.
    fn early_answer(&self) -> Option<Option<String>> {
        let told = self.options.pid_file.is_some() || self.options.pidfd_socket.is_some();
        if self.await_start || told || self.spec.hooks().is_some() {
            return None;
        }
        let mounted: Vec<_> =
            self.spec.mounts().iter().flatten().map(|m| compile::in_root(m.destination()).0.0).collect();
        let mounted: Vec<&str> = mounted.iter().map(String::as_str).collect();
        match self.plan.home_of {
            Some(uid) => {
                let root = match &self.options.root {
                    Some(root) => home::Root::Tree(root.as_fd()),
                    None => home::Root::Folder(&self.state.rootfs),
                };
                home::before_mounts(root, uid, &mounted).map(Some)
            }
            None => Some(None),
        }
    }

    /// Answers one report; false when init is ready.
    fn attend_once(&self, init: &mut Init<'_>, kept: &mut Option<OwnedFd>) -> Result<bool> {
        match init.next_event()? {
            Event::Barrier(barrier) => {
                match barrier {
                    Barrier::Maps => {
                        timings::meanwhile("write the id maps", || {
                            self.plan.maps.as_ref().map_or(Ok(()), |maps| maps::write(init.pid(), maps))
                        })?;
                    }
                    Barrier::NetDevices => timings::meanwhile("move network devices", || {
                        netdev::move_all(init.pid(), &self.plan.net_devices)
                    })?,
                    Barrier::RuntimeHooks => timings::meanwhile("prestart and createRuntime hooks", || {
                        hooks::create_runtime(self.spec, self.state, init.pid())
                    })?,
                    Barrier::ContainerHooks => timings::meanwhile("createContainer hooks", || {
                        hooks::create_container(self.spec, self.state, (init.pid(), init.pidfd()))
                    })?,
                }
                init.go_on(None)?;
            }
            Event::Terminal(master, number) => {
                match &self.options.console_socket {
                    Some(socket) => {
                        terminal::send_console(socket, master.as_fd(), &format!("/dev/pts/{number}"))?;
                    }
                    None => {
                        // This process's own terminal makes the carriage returns. Who takes the terminal from a socket,
                        // or gives the stdio, wants what a terminal says.
                        if self.options.stdio.is_none() {
                            terminal::clear_onlcr(master.as_fd())?;
                            terminal::copy_own_size(master.as_fd())?;
                        }
                        *kept = Some(master);
                    }
                }
            }
            Event::Trees => {}
            Event::Forked => {
                // It may have forked before it was given these.
                self.burden(init)?;
                self.stage(init)?;
            }
            Event::Ready => return Ok(false),
            Event::Listener(_) | Event::Running | Event::Mounted(..) => {
                return Err(Error::new(Code::System, "init executed before it was told to"));
            }
        }
        Ok(true)
    }

    /// What only this process can give to init.
    fn burden(&self, init: &Init<'_>) -> Result<()> {
        if let Some(groups) = &self.state.resctrl {
            groups.join(init.pid())?;
        }
        if let Some(adjustment) = self.spec.process().as_ref().and_then(|p| p.oom_score_adj()) {
            adjust_oom_score(init.pid(), adjustment, self.rootless)
                .map_err(|e| e.at("/process/oomScoreAdj"))?;
        }
        Ok(())
    }

    fn stage(&self, init: &Init<'_>) -> Result<()> {
        let process = Some(Process::of(init.pid(), init.file)?);
        self.container.stage(&State { process, ..self.state.clone() })
    }

    fn commit(&self, init: &mut Init<'_>) -> Result<()> {
        init.no_more_trees();
        self.container.commit()?;
        if let Some(socket) = &self.options.pidfd_socket {
            terminal::send_pidfd(socket, init.pidfd(), terminal::PidfdOf::Init)?;
        }
        match &self.options.pid_file {
            Some(path) => pid_file::write(path, init.pid() as u32),
            None => Ok(()),
        }
    }
}

/// Says so where a memory limit has ended init, in runc's words, or has not let it begin: for want of memory execve may
/// also say that its arguments are too long.
fn for_lack_of_memory(cgroup: Option<&Cgroup>, error: Error) -> Error {
    // What one that was there before has counted is not ours.
    let Some(cgroup) = cgroup.filter(|cgroup| cgroup.created() > 0) else { return error };
    let kills = cgroup.oom_kills().unwrap_or_default().unwrap_or(0);
    let full = matches!(error.errno(), Some(libc::ENOMEM | libc::E2BIG | libc::EFAULT))
        && cgroup.memory_max_hits().unwrap_or_default().unwrap_or(0) > 0;
    match (kills, full) {
        (1.., _) => error.context("container init was OOM-killed (memory limit too low?)"),
        (0, true) => error.context("container init got no memory (memory limit too low?)"),
        (0, false) => error,
    }
}

pub(super) fn restrict_devices(cgroup: &Cgroup, policy: &Policy) -> Result<()> {
    match (DeviceProgram::load(policy)?, cgroup.created()) {
        (None, _) => Ok(()),
        (Some(program), 0) => cgroup.replace_devices(Some(&program), Whose::Anybodys),
        (Some(program), _) => cgroup.attach_devices(&program),
    }
}

/// The field that a cgroup's own failure is about; that of a limit has its own.
fn of_cgroup(error: Error) -> Error {
    const FIELD: &str = "/linux/cgroupsPath";
    if error.pointer().is_some() { error } else { error.context(FIELD).at(FIELD) }
}
