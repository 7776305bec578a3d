//! NOTIFY_SOCKET: sd_notify(3) from inside the container, as runc does it. The container gets a socket of its
//! own, in a directory that is mounted into it; only READY=1 reaches the host's service manager, followed
//! by our own MAINPID= and BARRIER=1. What else the container says is not passed on: it could name any process.

use std::fs::{self, DirBuilder};
use std::io;
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

use crate::error::{CallContext, Context, Error, Result};
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
        let path = directory.join(NAME);
        // Of a start that did not come to its end.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::call(format!("unlink {}", path.display()), error));
            }
            _ => {}
        }
        let socket = unix_socket::datagram_at(&directory, NAME).context("NOTIFY_SOCKET")?;
        // Any user of the container may send.
        let all = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        chmodat(CWD, &path, all, AtFlags::empty()).call(format!("chmod {}", path.display()))?;
        Ok(NotifySocket { stage: Stage::Listening(socket), host })
    }

    /// What to wait for before the next turn.
    pub fn wanted(&self) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)
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
                (true, _) if self.turn(pid)? == Progress::Done => return Ok(()),
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
        unix_socket::send_with_fd(self.host.as_fd(), b"BARRIER=1", writer.as_fd())
            .call("sendmsg to NOTIFY_SOCKET")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, recvmsg};
    use rustix::process::{PidfdFlags, pidfd_open};
    use std::io::IoSliceMut;
    use std::mem::MaybeUninit;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::process::{Child, Command, Stdio};

    /// A container: it lives until it is told to end.
    fn container() -> (Child, OwnedFd, Pid) {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        (child, pidfd_open(pid, PidfdFlags::empty()).unwrap(), pid)
    }

    fn end(mut child: Child) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    /// A message to the service manager; with a barrier's descriptor, if one came.
    fn receive(manager: &UnixDatagram) -> (String, Option<OwnedFd>) {
        let mut data = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(manager, &mut [IoSliceMut::new(&mut data)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .unwrap();
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut rights) = message {
                fd = rights.next();
            }
        }
        (String::from_utf8(data[..got.bytes].to_vec()).unwrap(), fd)
    }

    #[test]
    fn only_ready_reaches_the_service_manager_then_our_main_pid_and_a_barrier() {
        for abstract_name in [false, true] {
            let folder = Folder::new("notify");
            let path = folder.path().join("manager.sock");
            let (manager, host) = if abstract_name {
                let name = path.to_str().unwrap();
                let address = SocketAddr::from_abstract_name(name).unwrap();
                (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
            } else {
                (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_string())
            };
            let directory = make_directory(folder.path()).unwrap();
            let socket = NotifySocket::bind(folder.path(), &host).unwrap();
            let inside = UnixDatagram::unbound().unwrap();
            inside.connect(directory.join(NAME)).unwrap();
            for message in ["STATUS=NOT_READY=1", "MAINPID=1\nBARRIER=1", "STATUS=up\nREADY=1\nMAINPID=1"] {
                inside.send(message.as_bytes()).unwrap();
            }
            let (child, pidfd, pid) = container();
            let waiting = std::thread::spawn(move || socket.wait(pidfd.as_fd(), pid));
            assert_eq!(receive(&manager).0, "READY=1\n");
            assert_eq!(receive(&manager).0, format!("MAINPID={pid}\n"));
            let (message, barrier) = receive(&manager);
            assert_eq!(message, "BARRIER=1");
            drop(barrier.expect("the barrier's pipe"));
            waiting.join().unwrap().unwrap();
            end(child);
        }
    }

    #[test]
    fn the_containers_own_barrier_is_released() {
        let folder = Folder::new("notify");
        let _manager = UnixDatagram::bind(folder.path().join("m")).unwrap();
        make_directory(folder.path()).unwrap();
        let mut socket =
            NotifySocket::bind(folder.path(), folder.path().join("m").to_str().unwrap()).unwrap();
        let inside = UnixDatagram::unbound().unwrap();
        inside.connect(folder.path().join("notify").join(NAME)).unwrap();
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        unix_socket::send_with_fd(inside.as_fd(), b"BARRIER=1", writer.as_fd()).unwrap();
        drop(writer);
        assert_eq!(socket.turn(Pid::INIT).unwrap(), Progress::Waiting);
        assert_eq!(rustix::io::read(reader, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn waiting_ends_with_the_container() {
        let folder = Folder::new("notify");
        let manager = UnixDatagram::bind(folder.path().join("m")).unwrap();
        make_directory(folder.path()).unwrap();
        let socket = NotifySocket::bind(folder.path(), folder.path().join("m").to_str().unwrap()).unwrap();
        let (child, pidfd, pid) = container();
        let waiting = std::thread::spawn(move || socket.wait(pidfd.as_fd(), pid));
        end(child);
        waiting.join().unwrap().unwrap();
        manager.set_nonblocking(true).unwrap();
        assert_eq!(manager.recv(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn any_user_of_the_container_may_send_and_the_socket_can_be_bound_again() {
        let folder = Folder::new("notify");
        let _manager = UnixDatagram::bind(folder.path().join("m")).unwrap();
        let directory = make_directory(folder.path()).unwrap();
        for _ in 0..2 {
            let _socket =
                NotifySocket::bind(folder.path(), folder.path().join("m").to_str().unwrap()).unwrap();
            let mode = fs::metadata(directory.join(NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o777);
        }
    }

    #[test]
    fn a_service_manager_that_is_not_there_is_an_error_before_anything_starts() {
        let folder = Folder::new("notify");
        make_directory(folder.path()).unwrap();
        let error = NotifySocket::bind(folder.path(), "/nowhere/notify").unwrap_err();
        assert!(error.to_string().starts_with("NOTIFY_SOCKET: connect to /nowhere/notify: "), "{error}");
    }
}
