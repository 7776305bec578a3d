//! create and run: what starts a container. In the foreground rcrun stays with it, as its terminal and its signals' way.

use crate::ExitCode;
use crate::args::{Cgroups, Create, Run, Start};
use crate::containers::parse;
use crate::images::{self, run::Ready};
use crate::target::{self, Machine, Target};
use crate::timings::tell;
use crate::{Global, output};
use rcrun_runtime::cgroup::Notices;
use rcrun_runtime::console::Console;
use rcrun_runtime::container::{self, Options, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::foreground::{Exit, Signals, attend};
use rcrun_runtime::notify_socket::NotifySocket;
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::sys::birth::Newborn;
use rcrun_runtime::{Code, Error, Result, timings, users};
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The variables of socket activation, sd_listen_fds(3).
pub fn listen_variables() -> [Option<String>; 3] {
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"].map(|name| std::env::var(name).ok())
}

fn options(global: &Global, bundle: PathBuf, start: &Start, keep_terminal: bool) -> Options {
    Options {
        bundle,
        config: start.config.clone(),
        written: None,
        pid_file: start.pid_file.clone(),
        console_socket: start.console_socket.clone(),
        pidfd_socket: start.pidfd_socket.clone(),
        no_pivot: start.no_pivot,
        no_new_keyring: start.no_new_keyring,
        preserve_fds: start.preserve_fds,
        listen: listen_variables(),
        notify_socket: std::env::var("NOTIFY_SOCKET").ok(),
        systemd: global.cgroups == Cgroups::Systemd,
        no_cgroup: global.cgroups == Cgroups::Nobody,
        keep_terminal,
        stdio: None,
        root: None,
        rootless: global.rootless,
        owner: users::entered().map(|_| users::caller()),
    }
}

/// `rcrun create`
#[inline(never)]
pub fn create(global: &Global, args: &Create) -> Result<ExitCode> {
    if args.start.timings {
        timings::begin();
    }
    let id = parse(&args.id)?;
    let options = options(global, args.bundle.clone(), &args.start, false);
    let made = container::create(&StateRoot::new(&global.root), &id, &options);
    for warning in made.context(format!("create {id}"))?.warnings {
        global.log.warn(warning);
    }
    tell(global);
    Ok(ExitCode::SUCCESS)
}

/// `rcrun run`
#[inline(never)]
pub fn run(global: &Global, args: &Run) -> Result<ExitCode> {
    let root = StateRoot::new(&global.root);
    let (target, args) = target::find(args, &Machine)?;
    if args.start.timings {
        timings::begin();
    }
    let wrong = match &target {
        _ if args.rm && args.keep => {
            Some("--rm and --keep: one deletes the container at its end, the other keeps it")
        }
        _ if args.rm && args.detach => {
            Some("--rm and --detach: nobody would be left to delete the container at its end")
        }
        Target::Image(_) if args.image.tty && args.detach && args.start.console_socket.is_none() => Some(
            "--detach and --tty: nobody would be left to hold the terminal: leave one of them out (`rcrun exec -t` gives a \
             terminal later), or name the socket of who takes it, --console-socket PATH",
        ),
        Target::Image(_)
            if args.image.tty
                && args.image.interactive
                && args.start.console_socket.is_none()
                && !std::io::stdin().is_terminal() =>
        {
            Some("--interactive and --tty: the input device is not a TTY: leave -t out for a file or a pipe")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(Error::new(Code::Usage, format!("run: {wrong}")));
    }
    // Before signals are blocked: ^C ends it, and leaves nothing.
    let mut ready = match &target {
        Target::Image(word) => {
            let ready = images::run::ready(global, args, word).context("run")?;
            timings::mark("find the image");
            Some(ready)
        }
        _ => None,
    };
    // Blocked before there is a container: a ^C that comes early must not be lost, nor kill us half-way.
    let signals = Signals::block()?;
    if !args.no_subreaper && !args.detach {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .call("prctl PR_SET_CHILD_SUBREAPER")?;
    }
    let (id, started) = match (target, &mut ready) {
        (Target::Named { bundle, id }, _) => {
            let id = parse(&id)?;
            let started = container::run(&root, &id, &options(global, bundle, &args.start, !args.detach));
            (id.clone(), started.context(format!("run {id}"))?)
        }
        (Target::Unnamed { bundle, name }, _) => run_unnamed(global, &root, &bundle, &name, args)?,
        (Target::Image(_), Some(ready)) => run_image(global, &root, ready, args)?,
        (Target::Image(_), None) => return Err(Error::new(Code::System, "run: the image was not fetched")),
    };
    tell(global);
    for warning in &started.warnings {
        global.log.warn(warning.clone());
    }
    if args.detach {
        if let Some(notify) = started.notify
            && let Some(pid) = rustix::process::Pid::from_raw(started.init.pid)
        {
            notify.wait(started.init.pidfd.as_fd(), pid).context(format!("run {id}"))?;
        }
        // As docker run has it, where it is an image; a bundle's id is told where nobody has named it.
        let named = args.bundle.is_some() || args.what == id.as_str() || args.name.is_some();
        if ready.is_some() || !named {
            output::print(format!("{id}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    global.log.succeeded();
    if let Some(ready) = &mut ready {
        // What earlier runs left and later ones need, beside what follows. What is not done now, a later one does.
        let _ = ready.store.tidy(&images::container::OUTFIT);
    }
    to_the_end(global, &root, ("run", &id), started, &signals, args.keep, || match &ready {
        Some(ready) => images::container::forget_soon(&ready.store, &ready.place, id.as_str()),
        None => Ok(()),
    })
}

/// Stays with a container of `verb`'s until it has ended, and deletes it unless it is to be kept; `deleted` then.
pub fn to_the_end(
    global: &Global,
    root: &StateRoot,
    (verb, id): (&str, &ContainerId),
    started: container::Run,
    signals: &Signals,
    keep: bool,
    deleted: impl FnOnce() -> Result<()>,
) -> Result<ExitCode> {
    let container::Run { init, terminal, notify, left, mut notices, .. } = started;
    let status = stay(global, (verb, id), (&init, terminal, notify), signals, notices.as_mut());
    let last = notices.map(|notices| notices.last().clone());
    if let Ok(exit) = status
        && left.by_oom_killer(exit, last.as_ref())
    {
        global.log.warn(format!("{verb} {id}: the OOM killer has ended it: memory.max is too low"));
    }
    if let (true, Ok(exit)) = (keep, &status) {
        left.record(*exit, last).context(format!("{verb} {id}"))?;
    }
    if !keep {
        let removed = match status {
            Ok(_) => container::delete_ended(root, id, left),
            // Also when staying failed: nothing may be left of a foreground container.
            Err(_) => container::delete(root, id, true),
        };
        let removed = removed.and_then(|warnings| deleted().map(|()| warnings));
        let removed = removed.context(format!("{verb} {id}: delete"));
        match (&status, removed) {
            (Ok(_), Err(e)) => return Err(e),
            (_, Ok(warnings)) => warnings.into_iter().for_each(|w| global.log.warn(w)),
            (Err(_), Err(_)) => {}
        }
    }
    status.map(|exit| ExitCode::from(exit.status() as u8))
}

fn run_unnamed(
    global: &Global,
    root: &StateRoot,
    bundle: &Path,
    name: &str,
    args: &Run,
) -> Result<(ContainerId, container::Run)> {
    for id in target::ids(name).take(64) {
        let id = parse(&id)?;
        match container::run(root, &id, &options(global, bundle.to_path_buf(), &args.start, !args.detach)) {
            Err(e) if e.code() == Code::Exists => {}
            other => return Ok((id.clone(), other.context(format!("run {id}"))?)),
        }
    }
    Err(Error::new(Code::Exists, format!("run {name}: all of 64 ids made from the name are in use")))
}

fn run_image(
    global: &Global,
    root: &StateRoot,
    ready: &mut Ready,
    args: &Run,
) -> Result<(ContainerId, container::Run)> {
    images::run::close_stdin(&args.image)?;
    for id in images::run::ids(ready, args) {
        let id = parse(&id)?;
        let started = images::run::start(global, ready, &id, |bundle, made| {
            let options = options(global, bundle.to_path_buf(), &args.start, !args.detach);
            timings::mark("mount the image and write its config.json");
            container::run(root, &id, &Options { root: Some(made.tree), written: Some(made.text), ..options })
        });
        match started {
            Err(e) if e.code() == Code::Exists && args.name.is_none() => {}
            other => {
                if let Err(error) = &other
                    && error.code() == Code::Execute
                {
                    // As docker run has it, and a shell.
                    let missing = matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR));
                    global.failure.set(ExitCode::from(if missing { 127 } else { 126 }));
                }
                let started = other.map_err(images::run::of_no_range);
                return Ok((id.clone(), started.context(format!("run {id}"))?));
            }
        }
    }
    Err(Error::new(Code::Exists, "run: all of 64 ids made from the image's name are in use"))
}

fn stay(
    global: &Global,
    (verb, id): (&str, &ContainerId),
    (init, terminal, notify): (&Newborn, Option<OwnedFd>, Option<NotifySocket>),
    signals: &Signals,
    cgroup: Option<&mut Notices>,
) -> Result<Exit> {
    let console = terminal.map(Console::new).transpose().context(format!("{verb} {id}"))?;
    let Some(pid) = rustix::process::Pid::from_raw(init.pid) else {
        return Err(Error::new(Code::System, "init has no pid"));
    };
    let attended = attend(init.pidfd.as_fd(), pid, signals, console, notify, cgroup);
    let attended = attended.context(format!("{verb} {id}"))?;
    attended.warnings.iter().for_each(|w| global.log.warn(w.to_string()));
    Ok(attended.exit)
}
