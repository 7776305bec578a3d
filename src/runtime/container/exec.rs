//! exec: a process in a running container.

use super::process::{Status, ended};
use super::state::{Container, State};
use crate::cgroup::{Cgroup, CgroupPath, Hierarchy, line_of_v2};
use crate::compile::{self, ExecRequest};
use crate::error::{CallContext, Context};
use crate::host::Host;
use crate::launch::{Event, Init, launch};
use crate::plan::Plan;
use crate::prepare::{Means, prepare};
use crate::spec::of_crun::without_effect;
use crate::spec::{self, Namespace, Process, Spec};
use crate::sys::birth::Newborn;
use crate::sys::scheduling;
use crate::{Code, Error, Result, failure, home, listen_fds, pid_file, terminal, timings};
use oci_spec::runtime::LinuxNamespaceType;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// What the command line says of an exec, beside its process.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// Where the process's pid is written; only on success (conmon tells failures by its absence).
    pub pid_file: Option<PathBuf>,
    /// Receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// Receives the process's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// How many fds from 3 on (after LISTEN_FDS) the payload gets.
    pub preserve_fds: u32,
    /// LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES of the environment.
    pub listen: [Option<String>; 3],
    /// A cgroup below the container's.
    pub cgroup: Option<String>,
    /// Also in a paused container: the process waits until it is resumed.
    pub ignore_paused: bool,
    /// The caller keeps the terminal's master.
    pub keep_terminal: bool,
    /// Becomes stdin, stdout and stderr; else they are the caller's own.
    pub stdio: Option<[Arc<OwnedFd>; 3]>,
}

/// A process that runs in a container.
#[derive(Debug)]
pub struct Exec {
    /// The process.
    pub process: Newborn,
    /// Its terminal, with `keep_terminal`.
    pub terminal: Option<OwnedFd>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Runs a process in a container. `process` is made from the container's config by the caller's function.
pub fn exec(
    container: &Container,
    options: &ExecOptions,
    process: impl FnOnce(&Spec) -> Result<Process>,
) -> Result<Exec> {
    let state = container.state()?;
    let status = container.status(state.as_ref());
    let refuse = |why: &str| Err(Error::new(Code::Status, why));
    let state = match (status, state) {
        (Status::Stopped | Status::Creating, _) | (_, None) => {
            return refuse("cannot exec in a container that is not running: container not running");
        }
        (Status::Paused, _) if !options.ignore_paused => {
            return refuse("cannot exec in a paused container (use --ignore-paused to override)");
        }
        (_, Some(state)) => state,
    };
    let Some(init) = &state.process else { return refuse("container not running") };
    let pidfd = init.pidfd()?;
    let started = start(container, &state, (init.pid, pidfd.as_fd()), options, process);
    // The container may have ended meanwhile: its pid namespace then takes no process (ENOMEM), its cgroup is gone, or
    // the process was killed with all others.
    started.map_err(|error| match init.is_ending() {
        false => error,
        true => error.context("container not running: it has ended meanwhile").with_code(Code::Status),
    })
}

fn start(
    container: &Container,
    state: &State,
    init: (i32, BorrowedFd<'_>),
    options: &ExecOptions,
    process: impl FnOnce(&Spec) -> Result<Process>,
) -> Result<Exec> {
    timings::mark("find the container");
    let spec = container.spec()?;
    let process = process(&spec)?;
    timings::mark("read and check config.json and the process");
    if process.args().as_deref().unwrap_or_default().is_empty() {
        return Err(Error::new(Code::Config, "process: /args: args must not be empty").at("/args"));
    }
    let mut host = Host::read()?;
    if spec.namespace(LinuxNamespaceType::User) != Namespace::Inherit {
        let denied = std::fs::read(format!("/proc/{}/setgroups", init.0));
        host.caller.groups = !denied.is_ok_and(|text| text.starts_with(b"deny"));
    }
    let wants_terminal = process.terminal().unwrap_or(false);
    terminal::check_console(wants_terminal, options.console_socket.is_some(), !options.keep_terminal)?;
    let [fds, pid, names] = &options.listen;
    let activation =
        listen_fds::Activation { fds: fds.as_deref(), pid: pid.as_deref(), names: names.as_deref() };
    let passed = listen_fds::collect(activation, std::process::id(), options.preserve_fds)?;
    let request = ExecRequest {
        id: &state.id,
        root: Some(&state.rootfs),
        process: &process,
        keyring: state.keyring,
        passed_fds: passed.fds.len() as u32,
        variables: &passed.env,
    };
    let plan = compile::exec(&spec, &host, &request)?;
    timings::mark("compile the plan and the seccomp filter");
    let cgroup = cgroup_for(state, options.cgroup.as_deref())?;
    let bear = |cgroup: Option<&Cgroup>| {
        let slots = prepare(&plan, &mut Means { init: Some(init), ..Means::default() })?;
        let stdio = options.stdio.as_ref().map(|fds| fds.each_ref().map(|fd| fd.as_fd()));
        let stamps = timings::stamps(&plan)?;
        timings::mark("open the cgroup and what the plan names");
        launch(&plan, slots, cgroup.map(AsFd::as_fd), stdio, stamps.as_ref().map(AsFd::as_fd))
    };
    if let Some(unit) = &state.unit {
        unit.join()?;
    }
    let processors = Processors::initial(&plan)?;
    let mut child = match bear(cgroup.as_ref()) {
        Err(error) => match options.cgroup.as_deref() {
            None => bear(Some(&lower(state, init.0, error)?))?,
            Some(below) => return Err(of_cgroup(state, below, error)),
        },
        Ok(born) => born,
    };
    drop(processors);
    match attend((&spec, state, &plan), &mut child, init.0, host.caller.is_rootless(), options) {
        Ok(terminal) => {
            timings::init_is_done(&plan);
            let mut warnings = process.warnings().to_vec();
            let gids = |process: &oci_spec::runtime::Process| process.user().additional_gids().clone();
            // Those of config.json were told when the container was made.
            let asked = gids(&process).filter(|gids| !gids.is_empty());
            if spec.keeps_groups() && asked.is_some() && asked != spec.process().as_ref().and_then(gids) {
                warnings.push(format!("process: /user/additionalGids: {}", without_effect()));
            }
            Ok(Exec { process: child.into_newborn(), terminal, warnings })
        }
        Err(error) => {
            timings::init_is_done(&plan);
            Err(ended(&child, error))
        }
    }
}

/// The CPUs that this thread had before it went to those on which a process begins.
struct Processors(Option<Vec<u64>>);

impl Processors {
    /// A child begins where its parent runs; its cgroup may take it elsewhere.
    fn initial(plan: &Plan) -> Result<Processors> {
        let Some(cpus) = &plan.initial_cpus else { return Ok(Processors(None)) };
        let at = "/execCPUAffinity/initial";
        let before = scheduling::affinity().call("sched_getaffinity")?;
        let call = format!("process: {at}: sched_setaffinity to {cpus}");
        scheduling::set_affinity(0, &bits(cpus, at)?).call(call).map_err(|error| {
            let hint = match error.errno() {
                Some(libc::EINVAL) => Some("none of these CPUs is there and allowed to rcrun itself"),
                _ => None,
            };
            error.at(at).hint(hint)
        })?;
        Ok(Processors(Some(before)))
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // They were allowed a moment ago.
            let _ = scheduling::set_affinity(0, before);
        }
    }
}

fn bits(cpus: &str, at: &str) -> Result<Vec<u64>> {
    spec::list::bits(cpus, spec::list::MOST_CPUS)
        .map_err(|why| Error::new(Code::Config, format!("process: {at}: {why}")).at(at))
}

/// The cgroup that a process is born in: the container's, or one below that.
pub(super) fn cgroup_for(state: &State, below: Option<&str>) -> Result<Option<Cgroup>> {
    let Some((mount, path)) = &state.cgroup else { return Ok(None) };
    let Some(below) = below else {
        // Never in our own instead: the container's limits and device rules would not hold.
        let gone = || Error::new(Code::System, format!("the container's cgroup {path} is gone"));
        return state.open_cgroup()?.ok_or_else(gone).map(Some);
    };
    // runc takes CONTROLLER:PATH for v1; on v2 there is one hierarchy.
    let below = below.trim_matches('/');
    if below.split('/').any(|part| part == "..") {
        return Err(Error::new(
            Code::Usage,
            // runc's words.
            format!("--cgroup: {below} is not a sub cgroup path: it must not leave the container's cgroup"),
        ));
    }
    let path = CgroupPath::parse(&format!("{path}/{below}")).context("--cgroup")?;
    let hierarchy = Hierarchy::at(mount)?;
    let found = hierarchy.map(|h| Cgroup::open(&h, &path)).transpose()?.flatten();
    found.map(Some).ok_or_else(|| {
        // runc's words, but for the remedy.
        let text = format!(
            "--cgroup: error adding pid to {path}/cgroup.procs: no such file or directory: make it first"
        );
        Error::new(Code::System, text)
    })
}

/// What kept a process from the cgroup that it was to be born in, in runc's words where that cgroup takes none.
fn of_cgroup(state: &State, below: &str, error: Error) -> Error {
    match (error.errno(), &state.cgroup) {
        (Some(libc::EBUSY), Some((_, path))) => {
            let below = below.trim_matches('/');
            let at = if below.is_empty() { path.to_string() } else { format!("{path}/{below}") };
            let text = format!(
                "--cgroup: error adding pid of init to cgroups: {at}/cgroup.procs: device or resource busy"
            );
            let remedy = "the cgroup has controllers enabled for its children and takes no processes: name one below it";
            Error::new(error.code(), text).with_errno(libc::EBUSY).hint(Some(remedy))
        }
        _ => error,
    }
}

/// Where a process can be born that `error` kept from the container's cgroup: the payload may have made cgroups below and
/// pass controllers on to them, and then no process can be in the one above any more.
pub(super) fn lower(state: &State, init: i32, error: Error) -> Result<Cgroup> {
    match error.errno() {
        Some(libc::EBUSY) => cgroup_of_init(state, init)?.ok_or(error),
        _ => Err(error),
    }
}

/// Where the container's init is now, if it has gone to a cgroup below the container's: systemd and dockerd in a container
/// do that, and runc's exec follows.
fn cgroup_of_init(state: &State, init: i32) -> Result<Option<Cgroup>> {
    let Some((mount, path)) = &state.cgroup else { return Ok(None) };
    let file = format!("/proc/{init}/cgroup");
    let text = std::fs::read_to_string(&file).call(format!("read {file}"))?;
    let now = line_of_v2(&text);
    let below = now.filter(|now| now.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/')));
    match (below, Hierarchy::at(mount)?) {
        (Some(below), Some(hierarchy)) => Cgroup::open(&hierarchy, &CgroupPath::parse(below)?),
        _ => Ok(None),
    }
}

/// `init` is the pid of the container's init, whose root has the /etc/passwd.
fn attend(
    (spec, state, plan): (&Spec, &State, &Plan),
    child: &mut Init<'_>,
    init: i32,
    rootless: bool,
    options: &ExecOptions,
) -> Result<Option<OwnedFd>> {
    let mut kept = None;
    if let Some(adjustment) = plan.oom_score_adj {
        super::proc_file::adjust_oom_score(child.pid(), adjustment, rootless)?;
    }
    if let Some(groups) = &state.resctrl {
        groups.join(child.pid())?;
    }
    if let Some(cpus) = &plan.final_cpus {
        let at = "/execCPUAffinity/final";
        let call = format!("process: {at}: sched_setaffinity to {cpus}");
        scheduling::set_affinity(child.pid(), &bits(cpus, at)?).call(call).map_err(|error| {
            let hint = match error.errno() {
                Some(libc::EINVAL) => {
                    Some("none of these CPUs is there and allowed by the container's cpuset.cpus")
                }
                _ => None,
            };
            error.at(at).hint(hint)
        })?;
    }
    let home = plan.home_of.map(|uid| home::of(init, uid));
    // Where init asks for nothing, its answer goes ahead of its report: it need not wait for this process to wake up.
    let early = plan.questions() == 0;
    if early {
        child.go_on(home.as_deref())?;
    }
    loop {
        match child.next_event()? {
            Event::Terminal(master, number) => {
                match &options.console_socket {
                    Some(socket) => {
                        terminal::send_console(socket, master.as_fd(), &format!("/dev/pts/{number}"))?;
                    }
                    None => {
                        // This process's own terminal makes the carriage returns. Who takes the terminal from a socket,
                        // or gives the stdio, wants what a terminal says.
                        if options.stdio.is_none() {
                            terminal::clear_onlcr(master.as_fd())?;
                            terminal::copy_own_size(master.as_fd())?;
                        }
                        kept = Some(master);
                    }
                }
            }
            Event::Ready if early => {}
            Event::Ready => child.go_on(home.as_deref())?,
            Event::Forked => {
                if let Some(to) = &plan.after_fork {
                    let call = "process: /scheduler: sched_setattr";
                    let set = scheduling::set_scheduler(child.pid(), to).call(call);
                    set.map_err(|error| {
                        let hint = failure::scheduler_hint(to, error.errno().unwrap_or_default());
                        error.at("/scheduler").hint(hint)
                    })?;
                    child.go_on(None)?;
                }
            }
            Event::Listener(listener) => {
                let state = state.for_hooks("running", init);
                super::hooks::tell_agent(spec, &state, child.pid(), listener.as_fd())?;
                child.go_on(None)?;
            }
            Event::Running => break,
            Event::Barrier(_) | Event::Trees | Event::Mounted(..) => {
                return Err(Error::new(Code::System, "init stopped at a barrier that exec has not"));
            }
        }
    }
    if let Some(socket) = &options.pidfd_socket {
        terminal::send_pidfd(socket, child.pidfd(), terminal::PidfdOf::Exec)?;
    }
    if let Some(path) = &options.pid_file {
        pid_file::write(path, child.pid() as u32)?;
    }
    Ok(kept)
}
