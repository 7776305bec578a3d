//! The process that `start` leaves behind: the task API on its socket, until containerd says that it is over. Uses: children,
//! events, group, log, pod, sandbox, server, service.

use crate::events::Events;
use crate::group::Place;
use crate::pod::Pod;
use crate::start::READY;
use crate::watch::Next;
use crate::{children, log, sandbox, server, service};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rcrun_runtime::cgroup::Hierarchy;
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result, sys};
use rustix::event::epoll::EventFlags;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shim is told at its start.
pub struct Serving {
    /// containerd's namespace of its containers.
    pub namespace: String,
    /// Where containerd takes events.
    pub ttrpc: String,
    /// The bundle of the first container: its log is the shim's.
    pub bundle: PathBuf,
    /// Where containerd connects.
    pub socket: OwnedFd,
    /// The file of that.
    pub place: Place,
    /// The cgroup to go to.
    pub cgroup: String,
    /// Is at its end when `start` has ended: before that it has said here that containerd has its answer.
    pub answered: OwnedFd,
}

/// Serves, and ends this process. `ready` is told when all is set up, or gets the reason why it is not.
pub fn serve(serving: Serving, ready: OwnedFd) -> ! {
    let place = serving.place.clone();
    let status = match run(serving, ready) {
        Ok(()) => 0,
        Err(error) => {
            log::error(&error);
            1
        }
    };
    if let Err(error) = place.leave() {
        log::error(error);
    }
    sys::exit::now(status)
}

fn run(serving: Serving, ready: OwnedFd) -> Result<()> {
    log::open(&serving.bundle);
    std::panic::set_hook(Box::new(|panic| log::error(panic)));
    // Nobody reads it if containerd has given up.
    let mut ready = std::fs::File::from(ready);
    let place = serving.place.clone();
    let (pod, stopped) = match set_up(serving) {
        Ok(set_up) => set_up,
        Err(error) => {
            let _ = ready.write_all(error.to_string().as_bytes());
            return Err(error);
        }
    };
    let _ = ready.write_all(&[READY]);
    drop(ready);
    while !stopped.load(Ordering::Relaxed) {
        pod.watches().turn()?;
    }
    // First: the rest may take as long as containerd is away, and nobody is to find who does nothing more.
    if let Err(error) = place.leave() {
        log::error(error);
    }
    // Who asks once more is not to wait for that.
    pod.watches().clear();
    pod.events().finish();
    Ok(())
}

fn set_up(serving: Serving) -> Result<(Arc<Pod>, Arc<AtomicBool>)> {
    detach()?;
    if !serving.cgroup.is_empty() {
        enter_cgroup(&serving.cgroup)?;
    }
    sys::dispositions::default_sigchld().call("signal SIGCHLD")?;
    // Before there is another thread, which would get them.
    let mut signals = SigSet::empty();
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().call("sigprocmask")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags).call("signalfd")?;

    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).call("eventfd")?);
    let stopped = Arc::new(AtomicBool::new(false));
    let events = Events::new(&serving.namespace, &serving.ttrpc).call("thread for events")?;
    let pod = Arc::new(Pod::new(&serving.namespace, events, serving.place, Arc::clone(&stop))?);

    let flag = Arc::clone(&stopped);
    let end = Box::new(move || {
        flag.store(true, Ordering::Relaxed);
        Next::Nothing
    });
    pod.watches().add(stop, EventFlags::IN, end)?;
    let (of, flag) = (Arc::clone(&pod), Arc::clone(&stopped));
    let watched = signals.as_fd().try_clone_to_owned().call("dup of a signalfd")?;
    let signalled = Box::new(move || {
        while let Ok(Some(signal)) = signals.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGCHLD => adopt(&of),
                _ => flag.store(true, Ordering::Relaxed),
            }
        }
        Next::Same
    });
    pod.watches().add(Arc::new(watched), EventFlags::IN, signalled)?;

    let quiet = pod.quiet();
    let timer = Arc::clone(&quiet);
    let rest = Box::new(move || {
        let _ = rustix::io::read(&timer, &mut [0; 8]);
        if let Err(error) = sys::memory::let_go_of_program() {
            log::warn(format_args!("memory that is not needed could not be given back: {error}"));
        }
        Next::Same
    });
    pod.watches().add(quiet, EventFlags::IN, rest)?;

    // containerd takes a `start` that was killed for one that has left nobody behind, and asks nobody to end.
    let (of, answered) = (Arc::clone(&pod), Arc::new(serving.answered));
    let said = Arc::clone(&answered);
    let heard = Box::new(move || {
        match rustix::io::read(&said, &mut [0; 1]) {
            Err(rustix::io::Errno::INTR) => return Next::Same,
            Ok(0) => match of.shut_down() {
                Ok(()) => of.end_if_shut_down(),
                Err(error) => log::error(error),
            },
            _ => {}
        }
        Next::Nothing
    });
    pod.watches().add(answered, EventFlags::IN, heard)?;

    let mut methods = service::methods(&pod);
    methods.extend(sandbox::methods(&pod));
    server::serve(pod.watches(), serving.socket, methods)?;
    Ok((pod, stopped))
}

/// Away from who has started this process: its session, its stdio, its folder. What has no parent among the containers'
/// processes becomes our child, and we end a little sooner than containerd where memory is short.
fn detach() -> Result<()> {
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").call("read oom_score_adj")?;
    rustix::process::setsid().call("setsid")?;
    rustix::process::chdir("/").call("chdir /")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .call("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).call("dup2")?;
    rustix::stdio::dup2_stdout(&null).call("dup2")?;
    rustix::stdio::dup2_stderr(&null).call("dup2")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .call("prctl PR_SET_CHILD_SUBREAPER")?;
    let score = score.trim().parse::<i32>().unwrap_or(0).saturating_add(1).min(1000);
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).call("write oom_score_adj")
}

/// ShimCgroup: a cgroup that is there.
fn enter_cgroup(path: &str) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let file = hierarchy.path().join(path.trim_start_matches('/')).join("cgroup.procs");
    let refuse = Path::new(path).components().any(|part| part == std::path::Component::ParentDir);
    if refuse {
        return Err(Error::new(Code::Usage, format!("ShimCgroup {path}: leads out of the cgroups")));
    }
    std::fs::write(&file, "0").call(format!("ShimCgroup: write {}", file.display()))
}

/// Waits for children that this thread has got: orphans of containers, and what a thread that is no more has made. Not for
/// those of other threads, which are still at work with theirs.
fn adopt(pod: &Arc<Pod>) {
    while let Some((pid, exit)) = children::of_this_thread() {
        pod.adopted(pid, exit);
    }
}
