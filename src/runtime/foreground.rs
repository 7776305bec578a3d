//! A container in the foreground: its signals, its console, its exit status. One poll(2) loop in a
//! single-threaded process; terminal bytes are console's, sd_notify is notify_socket's.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, wait};

use crate::cgroup::{Notice, Notices};
use crate::console::Console;
use crate::error::{CallContext, Error, Result};
use crate::notify_socket::{NotifySocket, Progress};
use crate::sys::{dispositions, pidfd};

/// Left as they are: those of a fault in rcrun itself, and those of job control, which must stop a background
/// rcrun that touches the terminal. SIGURG is noise.
const UNTOUCHED: [Signal; 10] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGURG,
];

/// The signals of this process, held back from before the container is started so that none is lost.
/// They stay blocked: what comes after the container's end must not kill rcrun before it has cleaned up.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks them in this thread, the only one there is. What the container runs must reset its mask.
    pub fn block() -> Result<Signals> {
        dispositions::default_sigchld().call("signal SIGCHLD")?;
        let mut set = SigSet::all();
        for signal in UNTOUCHED {
            set.remove(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).call("sigprocmask")?;
        let fd =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).call("signalfd")?;
        Ok(Signals { fd })
    }

    /// Readable while one is pending that asks for an end. It stays pending.
    pub fn ending(&self) -> Result<OwnedFd> {
        let set: SigSet =
            [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter().collect();
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).call("signalfd")?;
        fd.as_fd().try_clone_to_owned().call("dup of the signalfd")
    }

    /// The next one that is pending: its number and who sent it.
    fn next(&self) -> Result<Option<(i32, u32)>> {
        let info = self.fd.read_signal().call("read of the signalfd")?;
        Ok(info.map(|info| (info.ssi_signo as i32, info.ssi_pid)))
    }
}

/// How a container's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// rcrun's own exit status for it: the status, or 128 and the signal.
    pub fn status(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }

    fn of(status: WaitStatus) -> Exit {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            // Only asked of processes that have ended: wait is called without UNTRACED.
            (None, None) => Exit::Code(255),
        }
    }
}

/// What `attend` came to.
#[derive(Debug)]
pub struct Attended {
    /// The container's end.
    pub exit: Exit,
    /// What went wrong beside it: no reason to leave a container alone that runs.
    pub warnings: Vec<Error>,
}

/// Attends `container`, a child of ours with number `pid`, until it has exited: forwards signals, moves the
/// console's bytes, serves sd_notify, looks at a cgroup that may soon be gone, and waits for orphans that fell to us as a
/// subreaper.
pub fn attend(
    container: BorrowedFd<'_>,
    pid: Pid,
    signals: &Signals,
    mut console: Option<Console>,
    mut notify: Option<NotifySocket>,
    mut cgroup: Option<&mut Notices>,
) -> Result<Attended> {
    let mut warnings = Vec::new();
    loop {
        let ready = {
            let mut wanted = vec![
                PollFd::new(&signals.fd, PollFlags::IN),
                PollFd::from_borrowed_fd(container, PollFlags::IN),
            ];
            wanted.extend(console.iter().flat_map(Console::wanted));
            wanted.extend(notify.as_ref().map(NotifySocket::wanted));
            let news = cgroup.iter().flat_map(|notices| notices.fds());
            wanted.extend(news.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::PRI)));
            until_ready(&mut wanted)?
        };
        let is_ready = |fd: BorrowedFd<'_>| ready.contains(&fd.as_raw_fd());

        // First of all: systemd is about to remove it.
        if let Some(notices) = &mut cgroup
            && notices.fds().any(is_ready)
        {
            match notices.take() {
                Ok(news) if !news.contains(&Notice::Ended) => {}
                // The files of a removed cgroup are ready for ever.
                _ => cgroup = None,
            }
        }

        while let Some((signal, sender)) = signals.next()? {
            warnings.extend(take_signal(signal, sender, container, console.as_ref()).err());
        }
        if let Some(console) = &mut console {
            console.turn(is_ready);
        }
        if let Some(socket) = &mut notify
            && is_ready(socket.wanted().as_fd())
        {
            let progress = socket.turn(pid);
            if !matches!(progress, Ok(Progress::Waiting)) {
                notify = None;
            }
            warnings.extend(progress.err());
        }
        if let Some(exit) = reap(pid)? {
            if let Some(console) = console {
                finish(console, signals)?;
            }
            return Ok(Attended { exit, warnings });
        }
    }
}

fn take_signal(signal: i32, sender: u32, container: BorrowedFd<'_>, console: Option<&Console>) -> Result<()> {
    match signal {
        // What it tells is looked up in every round.
        libc::SIGCHLD => return Ok(()),
        libc::SIGWINCH => return console.map_or(Ok(()), Console::resize),
        // Of our own write to a closed pipe, which says EPIPE as well.
        libc::SIGPIPE if sender == getpid().as_raw_nonzero().get() as u32 => return Ok(()),
        libc::SIGCONT => console.map_or(Ok(()), Console::continued)?,
        _ => {}
    }
    match pidfd::send_signal(container, signal) {
        // It is gone: this round sees it.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.call(format!("pidfd_send_signal {signal} to the container")),
    }
}

/// Waits for every child that has exited; the answer is the exit of `main`, if it was among them.
fn reap(main: Pid) -> Result<Option<Exit>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == main => found = Some(Exit::of(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(found),
            Err(Errno::CHILD) if found.is_some() => return Ok(found),
            Err(error) => return Err(Error::call(format!("wait for process {main}"), error)),
        }
    }
}

/// Writes what the terminal still holds. Stdout may be a terminal that has been stopped: a signal ends the
/// wait for it.
fn finish(mut console: Console, signals: &Signals) -> Result<()> {
    console.end_raw_mode();
    let mut left = Console::left_over();
    while !console.drain(&mut left) {
        let ready = {
            let mut wanted = vec![PollFd::new(&signals.fd, PollFlags::IN)];
            wanted.extend(console.output_wanted());
            until_ready(&mut wanted)?
        };
        while let Some((signal, _)) = signals.next()? {
            if let libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT = signal {
                return Ok(());
            }
        }
        if ready.iter().any(|fd| *fd != signals.fd.as_raw_fd()) {
            console.write_output();
        }
    }
    Ok(())
}

/// Waits until one of `wanted` is ready or has an error or hang-up to tell; which.
fn until_ready(wanted: &mut [PollFd<'_>]) -> Result<Vec<RawFd>> {
    loop {
        match poll(wanted, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::call("poll", error)),
        }
    }
    let ready = wanted.iter().filter(|fd| !fd.revents().is_empty());
    Ok(ready.map(|fd| fd.as_fd().as_raw_fd()).collect())
}
