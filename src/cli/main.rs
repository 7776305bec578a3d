//! `rcrun`, the command. Each verb has a file; this one finds the verb, and tells an error once.

mod args;
mod check;
mod checkpoint;
mod completion;
mod containers;
mod doctor;
mod events;
mod exec;
mod features;
mod help;
mod images;
mod info;
mod input;
mod log;
mod mounts;
mod output;
mod plan;
mod processes;
mod record;
mod spec;
mod start;
mod state_root;
mod system_log;
mod target;
mod timings;
mod tree;
mod update;
mod version;

use std::cell::Cell;
use std::path::PathBuf;

use args::{Cgroups, Globals, Invocation};
use log::Log;
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Result, listen_fds, sys, users};

/// What the options before the verb give to every verb.
pub struct Global {
    /// The directory that holds the state of containers.
    pub root: PathBuf,
    /// `--rootless`
    pub rootless: Option<bool>,
    /// Who makes the cgroups.
    pub cgroups: Cgroups,
    /// `--criu`
    pub criu: Option<PathBuf>,
    /// Where warnings and debug lines go.
    pub log: Log,
    /// The exit status when rcrun itself fails.
    pub failure: Cell<ExitCode>,
}

/// rcrun's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// All went well.
    pub const SUCCESS: ExitCode = ExitCode(0);
    /// rcrun itself failed.
    pub const FAILURE: ExitCode = ExitCode(1);
}

impl From<u8> for ExitCode {
    fn from(status: u8) -> Self {
        ExitCode(status)
    }
}

#[global_allocator]
static ALLOCATOR: sys::allocator::Populated = sys::allocator::Populated::new();

fn main() {
    // This program started anew, to unpack a layer behind walls.
    if std::env::args_os().skip(1).eq([images::load::UNPACKER]) {
        rcrun_image::jail::serve();
    }
    // To write the id maps of the process that started it.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == users::MAPPER)
        && let (Some(uid), Some(gid)) = (words.next(), words.next())
    {
        sys::exit::now(users::serve_mapper(&uid.to_string_lossy(), &gid.to_string_lossy()));
    }
    // These compile a config: of the others none touches more than a few pages. Which word is the verb is not known yet, and
    // that another is taken for it does no harm.
    if std::env::args_os().skip(1).any(|word| word == "run" || word == "create" || word == "exec") {
        sys::memory::populate_stack();
    }
    // All output is written when it is made: nothing is left to flush.
    sys::exit::now(with_room(rcrun).0)
}

/// What a start needs of its stack at most, with room to spare.
const STACK: usize = 1 << 20;

/// Runs `work`, on a stack of its own where the caller's limit is too low (`ulimit -s 64`): the limit is the payload's to
/// inherit, so it cannot be raised. Signals stay with the thread that works.
fn with_room(work: fn() -> ExitCode) -> ExitCode {
    use nix::sys::signal::{SigSet, SigmaskHow};
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack);
    if limit.current.is_none_or(|bytes| bytes >= STACK as u64) {
        return work();
    }
    let Ok(before) = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return work() };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        let _ = before.thread_set_mask();
        work()
    });
    match thread {
        Ok(thread) => thread.join().unwrap_or(ExitCode::FAILURE),
        Err(_) => {
            let _ = before.thread_set_mask();
            work()
        }
    }
}

fn rcrun() -> ExitCode {
    // An engine may have left SIGCHLD ignored, and fds open: neither is for hooks or the container.
    let prepared = sys::dispositions::default_sigchld()
        .call("sigaction SIGCHLD")
        .and_then(|()| listen_fds::seal_inherited());
    let (globals, invocation) = args::parse(std::env::args_os().skip(1).collect());
    let log = match Log::open(&globals) {
        Ok(log) => log,
        Err(error) => {
            Log::stderr(&globals).error(&error);
            return ExitCode::FAILURE;
        }
    };
    let rooted = invocation.and_then(|invocation| match state_root::find(&globals) {
        Ok(root) => Ok((root, invocation)),
        Err(_) if !invocation.has_state() => Ok((args::global::DEFAULT_ROOT.into(), invocation)),
        Err(error) => Err(error),
    });
    let (root, invocation) = match rooted {
        Ok(rooted) => rooted,
        Err(error) => {
            log.error(&error);
            return ExitCode::FAILURE;
        }
    };
    let Globals { rootless, cgroups, criu, .. } = globals;
    let global = Global { root, rootless, cgroups, criu, log, failure: Cell::new(failure(&invocation)) };
    match prepared.and_then(|()| dispatch(&global, invocation)) {
        Ok(status) => {
            global.log.succeeded();
            status
        }
        Err(error) => {
            rcrun_runtime::timings::mark("fail, and undo what was made");
            timings::tell(&global);
            global.log.error(&error);
            global.failure.get()
        }
    }
}

/// The exit status when rcrun itself fails. That of `exec` is not one a command is likely to have.
fn failure(invocation: &Invocation) -> ExitCode {
    match invocation {
        Invocation::Exec(_) => ExitCode::from(255),
        _ => ExitCode::FAILURE,
    }
}

fn dispatch(global: &Global, invocation: Invocation) -> Result<ExitCode> {
    global.log.debug(|| format!("the root directory is {}", global.root.display()));
    match &invocation {
        Invocation::Help(verb) => help::run(*verb),
        Invocation::Version => version::run(),
        Invocation::Run(args) => start::run(global, args),
        Invocation::Create(args) => start::create(global, args),
        Invocation::Start(args) => containers::start(global, args),
        Invocation::State(args) => containers::state(global, args),
        Invocation::Kill(args) => containers::kill(global, args),
        Invocation::Delete(args) => containers::delete(global, args),
        Invocation::Exec(args) => exec::exec(global, args),
        Invocation::List(args) => containers::list(global, args),
        Invocation::Ps(args) => containers::ps(global, args),
        Invocation::Pause(args) => containers::pause(global, args),
        Invocation::Resume(args) => containers::resume(global, args),
        Invocation::Checkpoint(args) => checkpoint::checkpoint(global, args),
        Invocation::Restore(args) => checkpoint::restore(global, args),
        Invocation::Update(args) => update::update(global, args),
        Invocation::Mounts(args) => mounts::mounts(global, args),
        Invocation::Events(args) => events::events(global, args),
        Invocation::Plan(args) => plan::plan(global, args),
        Invocation::Check(args) => check::run(global, args),
        Invocation::Spec(args) => spec::run(args),
        Invocation::Features => features::run(),
        Invocation::Doctor(format) => doctor::run(*format),
        Invocation::Info => info::run(),
        Invocation::Completion(shell) => {
            output::print(completion::script(*shell)).map(|()| ExitCode::SUCCESS)
        }
        Invocation::Image(args) => images::image(global, args),
        Invocation::OfContainer(args) => images::commit::run(global, args),
    }
}
