//! NOTIFY_SOCKET: sd_notify(3) from inside the container, as runc does it. The container gets a socket of its
//! own, in a directory that is mounted into it; only READY=1 reaches the host's service manager, followed
//! by our own MAINPID= and BARRIER=1. What else the container says is not passed on: it could name any process.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, chmodat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::error::{CallContext, Context, Result};
use crate::unix_socket;

/// Where the socket's directory is mounted in the container: a bind, ro, nosuid, nodev, noexec.
pub const MOUNT_POINT: &str = "/run/notify";

/// The variable that the container's process gets.
pub const ENV: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

const NAME: &str = "notify.sock";

/// How long a service manager may take to close the barrier; one that knows no barrier never does.
const BARRIER: Duration = Duration::from_secs(30);

/// Makes the directory below the container's state directory that is mounted at `MOUNT_POINT`.
pub fn make_directory(state: &Path) -> Result<PathBuf> {
    let directory = directory(state);
    let what = format!("mkdir {}", directory.display());
    DirBuilder::new().mode(0o755).create(&directory).call(what)?;
    Ok(directory)
}

fn directory(state: &Path) -> PathBuf {
    state.join("notify")
}

/// What became of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Wait for `wanted` again.
    Waiting,
    /// The service manager knows; the socket is of no more use.
    Done,
}

impl Progress {
    /// Whether it was the last turn.
    pub fn is_done(self) -> bool {
        self == Progress::Done
    }
}

/// The container's socket until it says READY=1, then the barrier until the service manager has read it.
#[derive(Debug)]
pub struct NotifySocket {
    stage: Stage,
    host: OwnedFd,
}

#[derive(Debug)]
enum Stage {
    Listening(OwnedFd),
    Barrier(OwnedFd),
}

impl NotifySocket {
    /// Binds the socket in the directory that `make_directory` made, and connects to `host`, the value of
    /// our own NOTIFY_SOCKET: a path, or `@name`.
    pub fn bind(state: &Path, host: &str) -> Result<NotifySocket> {
        let host = unix_socket::datagram_to(host).context("NOTIFY_SOCKET")?;
        let directory = directory(state);
        let socket = unix_socket::datagram_at(&directory, NAME).context("NOTIFY_SOCKET")?;
        let path = directory.join(NAME);
        // Any user of the container may send.
        let all = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        chmodat(CWD, &path, all, AtFlags::empty()).call(format!("chmod {}", path.display()))?;
        Ok(NotifySocket { stage: Stage::Listening(socket), host })
    }

    /// What to wait for before the next turn.
    pub fn wanted(&self) -> Option<PollFd<'_>> {
        Some(PollFd::from_borrowed_fd(self.fd(), PollFlags::IN))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.stage {
            Stage::Listening(fd) | Stage::Barrier(fd) => fd.as_fd(),
        }
    }

    /// Reads what is there. `pid` is the container's first process, which becomes the service's main one.
    pub fn turn(&mut self, pid: Pid) -> Result<Progress> {
        match &self.stage {
            Stage::Listening(socket) => {
                if says_ready(socket)? {
                    self.stage = Stage::Barrier(self.tell(pid)?);
                }
                Ok(Progress::Waiting)
            }
            // Nobody writes to it: readable is its end.
            Stage::Barrier(_) => Ok(Progress::Done),
        }
    }

    /// Waits until the container is ready and the service manager knows, or until `container` has exited.
    pub fn wait(mut self, container: BorrowedFd<'_>, pid: Pid) -> Result<()> {
        let mut deadline = None;
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(container, PollFlags::IN),
                PollFd::from_borrowed_fd(self.fd(), PollFlags::IN),
            ];
            let left = deadline.map(|end: Instant| end.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut fds, left.as_ref()) {
                Err(Errno::INTR) => continue,
                other => other.call("poll")?,
            };
            let [exited, told] = fds.map(|fd| !fd.revents().is_empty());
            // The socket first: a container may say READY=1 and exit.
            match (told, exited) {
                (true, _) if self.turn(pid)?.is_done() => return Ok(()),
                (true, _) => {}
                (false, true) => return Ok(()),
                // The barrier's time is up.
                (false, false) => return Ok(()),
            }
            if let (Stage::Barrier(_), None) = (&self.stage, deadline) {
                deadline = Some(Instant::now() + BARRIER);
            }
        }
    }

    /// Tells the service manager; the pipe is at its end when it has read all of it.
    fn tell(&self, pid: Pid) -> Result<OwnedFd> {
        for message in ["READY=1\n".to_string(), format!("MAINPID={pid}\n")] {
            retry_on_intr(|| send(&self.host, message.as_bytes(), SendFlags::NOSIGNAL))
                .call("send to NOTIFY_SOCKET")?;
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
        unix_socket::send_with_fd(self.host.as_fd(), b"BARRIER=1", writer.as_fd()).call("sendmsg to NOTIFY_SOCKET")?;
        Ok(reader)
    }
}

/// Reads every waiting message; whether one had the line READY=1. Descriptors that come along (the
/// container's own barrier) are closed by the kernel, because no room is given for them.
fn says_ready(socket: &OwnedFd) -> Result<bool> {
    let mut message = [0; 4096];
    loop {
        match recv(socket, &mut message[..], RecvFlags::empty()) {
            Ok((_, length)) => {
                let length = length.min(message.len());
                if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    return Ok(true);
                }
            }
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).call("recv from the container's notify socket"),
        }
    }
}

/// Removes the socket's file, so that it can be bound again.
pub fn remove(state: &Path) -> Result<()> {
    let path = directory(state).join(NAME);
    fs::remove_file(&path).call(format!("unlink {}", path.display()))
}
