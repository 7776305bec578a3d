//! CRIU, asked by its own protocol: `criu swrk` with a socket, one request, notices on the way, one answer. Uses: error, sys.
//!
//! ```text
//!   rcrun                                  criu swrk 3
//!     | criu_req (DUMP, RESTORE, ...) ------> |
//!     | <---- criu_resp NOTIFY (script, pid)- |   as often as there is something to tell
//!     | criu_req NOTIFY (success) ----------> |
//!     | <------------- criu_resp (DUMP, ...)- |
//!     | end of file ------------------------> |   it exits
//! ```

mod log;
pub mod message;

pub use log::excerpt;

use crate::error::CallContext;
use crate::sys::spawn::{Child, Program, spawn};
use crate::{Code, Error, Result};
use message::{Kind, Options, Reply};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid};
use std::ffi::{CString, OsStr};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The oldest that is asked: it has cgroup v2's freezer, `status-ready`, --lsm-profile and --lsm-mount-context.
const OLDEST: (u64, u64) = (3, 16);

/// How whoever calls names another program.
const OPTION: &str = "--criu (CriuPath of containerd's options)";

/// The program.
#[derive(Debug)]
pub struct Criu {
    path: CString,
    stop: Option<Arc<OwnedFd>>,
}

/// What it is started with beside its socket, which is descriptor 3.
#[derive(Debug, Default)]
pub struct Given<'a> {
    /// Its standard input: the terminal of a shell job is taken from there.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Descriptors 4 and up.
    pub passed: Vec<BorrowedFd<'a>>,
    /// Out of reach of the terminal's signals.
    pub own_group: bool,
}

/// The number of the first of `Given::passed`.
pub const FIRST_PASSED: u32 = 4;

/// It, at work.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    socket: OwnedFd,
    said: OwnedFd,
    stop: Option<Arc<OwnedFd>>,
    own_group: bool,
}

/// What it tells on the way.
#[derive(Debug)]
pub struct Notice {
    /// Which: `pre-resume` and so on.
    pub name: String,
    /// The first process that it works on, where it says so.
    pub pid: Option<i32>,
    /// What came along: the master of a terminal.
    pub fd: Option<OwnedFd>,
}

impl Criu {
    /// The one that PATH finds; `path` is that variable. `named` is another name to look for there or, with a slash, the
    /// program itself.
    pub fn find(named: Option<&Path>, path: Option<&OsStr>) -> Result<Criu> {
        let file = match named {
            Some(file) if file.as_os_str().as_bytes().contains(&b'/') => {
                // Absolute, for it is executed in another folder than ours.
                let absolute = std::path::absolute(file).call(format!("{OPTION} {}", file.display()))?;
                is_program(&absolute).call(format!("{OPTION} {}", file.display()))?;
                absolute
            }
            Some(name) => in_path(name, path).ok_or_else(|| {
                let text = format!("{OPTION} {}: there is no such program in PATH", name.display());
                Error::new(Code::Host, text)
            })?,
            None => in_path(Path::new("criu"), path).ok_or_else(|| {
                Error::new(
                    Code::Host,
                    "criu is not found in PATH: install it (Debian: `apt-get install criu`); it is what writes and reads \
                     checkpoints",
                )
            })?,
        };
        let path = CString::new(file.into_os_string().into_vec())
            .map_err(|_| Error::new(Code::Usage, format!("{OPTION}: a path has no NUL")))?;
        Ok(Criu { path, stop: None })
    }

    /// It is killed when `stop` is readable before what it restores can run.
    pub fn stopped_by(self, stop: Option<Arc<OwnedFd>>) -> Criu {
        Criu { stop, ..self }
    }

    /// Fails where it is older than what rcrun relies on.
    pub fn check_version(&self) -> Result<()> {
        let reply = self.ask(Kind::Version)?;
        let (major, minor) = reply.version;
        match (major, minor) >= OLDEST {
            true => Ok(()),
            false => Err(Error::new(
                Code::Host,
                format!("criu is version {major}.{minor}: {}.{} or later is needed", OLDEST.0, OLDEST.1),
            )),
        }
    }

    /// What it and this kernel can do.
    pub fn features(&self) -> Result<Reply> {
        self.ask(Kind::Features)
    }

    fn ask(&self, kind: Kind) -> Result<Reply> {
        let mut worker = self.start(&Given { own_group: true, ..Given::default() })?;
        let answer = worker.talk(kind, None, &mut |_| Ok(()));
        let ended = worker.end();
        answer.and_then(|answer| ended.map(|()| answer))
    }

    /// Starts it.
    pub fn start(&self, given: &Given<'_>) -> Result<Worker> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .call("socketpair for criu")?;
        let said = rustix::fs::memfd_create("criu", MemfdFlags::CLOEXEC).call("memfd_create for criu")?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .call("open /dev/null")?;
        let passed: Vec<BorrowedFd<'_>> =
            std::iter::once(theirs.as_fd()).chain(given.passed.iter().copied()).collect();
        let args = [self.path.clone(), c"swrk".to_owned(), c"3".to_owned()];
        // It starts `tar` and `ip`, and looks for its own configuration in HOME.
        let env: Vec<CString> = ["PATH", "HOME"]
            .iter()
            .filter_map(|name| {
                let mut text = format!("{name}=").into_bytes();
                text.extend_from_slice(std::env::var_os(name)?.as_bytes());
                CString::new(text).ok()
            })
            .collect();
        let child = spawn(&Program {
            path: &self.path,
            args: &args,
            env: &env,
            cwd: c"/",
            stdio: [given.stdin.unwrap_or(null.as_fd()), said.as_fd(), said.as_fd()],
            passed: &passed,
            own_group: given.own_group,
        })
        .call(format!("execute {}", self.path.to_string_lossy()))?;
        Ok(Worker { child, socket: ours, said, stop: self.stop.clone(), own_group: given.own_group })
    }
}

fn in_path(name: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/usr/sbin:/usr/bin:/sbin:/bin".as_ref());
    // Not what lies in the working directory, which anybody may have filled.
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|file| is_program(file).is_ok())
}

fn is_program(file: &Path) -> std::io::Result<()> {
    let data = std::fs::metadata(file)?;
    match data.is_file() && data.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(rustix::io::Errno::ACCESS.into()),
    }
}

impl Worker {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.pid.as_raw_nonzero().get()
    }

    /// Asks it for something. A notice that `told` does not take well makes it fail, and the reason is the error.
    pub fn talk(
        &mut self,
        kind: Kind,
        options: Option<&Options>,
        told: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<Reply> {
        self.say(&message::request(kind, options))?;
        let mut refused = None;
        loop {
            let (bytes, fd) = match self.hear() {
                Ok(heard) => heard,
                Err(error) => return Err(refused.unwrap_or(error)),
            };
            // Nothing at all would be a message, too: one that says of nothing that it went well.
            let Some(reply) = Reply::of(&bytes).filter(|_| !bytes.is_empty()) else {
                return Err(refused.unwrap_or_else(|| {
                    self.broken(if bytes.is_empty() {
                        "has ended without an answer"
                    } else {
                        "says what nobody knows"
                    })
                }));
            };
            if reply.kind != Kind::Notify as u64 {
                return match (refused, reply.success) {
                    (Some(refused), _) => Err(refused),
                    (None, true) => Ok(reply),
                    (None, false) => Err(self.failed(&reply)),
                };
            }
            if reply.notice == "pre-resume" {
                self.stop = None;
            }
            let heard = told(Notice { name: reply.notice, pid: reply.pid, fd });
            let well = heard.is_ok();
            refused = refused.or(heard.err());
            if let Err(error) = self.say(&message::heard(well)) {
                return Err(refused.unwrap_or(error));
            }
        }
    }

    /// Waits for its end.
    pub fn end(self) -> Result<()> {
        let Worker { child, socket, said, .. } = self;
        drop((socket, said));
        // ECHILD: whoever embeds us has waited for it.
        let wait = || waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        match retry_on_intr(wait) {
            Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
            Err(e) => Err(e).call("wait for criu"),
        }
    }

    fn say(&self, bytes: &[u8]) -> Result<()> {
        match retry_on_intr(|| rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                Err(self.broken("has ended without an answer"))
            }
            Err(e) => Err(e).call("send to criu"),
        }
    }

    /// Waits for what it says, or for the word to stop.
    fn wait(&self) -> Result<()> {
        let Some(stop) = &self.stop else { return Ok(()) };
        let mut wanted =
            [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        retry_on_intr(|| poll(&mut wanted, None)).call("poll of criu")?;
        if wanted[1].revents().is_empty() {
            return Ok(());
        }
        // Its children are in its group until they have left it for their own.
        let killed = match self.own_group {
            true => kill_process_group(self.child.pid, Signal::KILL),
            false => pidfd_send_signal(&self.child.pidfd, Signal::KILL),
        };
        match killed {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {
                Err(Error::new(Code::System, "interrupted by a signal while criu was at work"))
            }
            Err(e) => Err(e).call("kill criu"),
        }
    }

    /// A whole message, and the descriptor that came with it. Empty at the end.
    fn hear(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        self.wait()?;
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        });
        let length = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(e) => return Err(e).call("receive from criu"),
        };
        bytes.truncate(length);
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((bytes, fd))
    }

    fn failed(&self, reply: &Reply) -> Error {
        // The reason stands in its log.
        self.with_last_words(match reply.errno {
            0 => "criu failed".to_string(),
            errno => format!("criu failed: {}", crate::error::errno_text(errno)),
        })
    }

    fn broken(&self, what: &str) -> Error {
        self.with_last_words(format!("criu {what}"))
    }

    /// What it said on its standard error: all that there is of what fails before it has a log.
    fn with_last_words(&self, text: String) -> Error {
        let mut said = vec![0; 16 << 10];
        let length = rustix::io::pread(&self.said, &mut said, 0).unwrap_or(0);
        let said = String::from_utf8_lossy(&said[..length]).into_owned();
        let last = log::errors(&said);
        let text = if last.is_empty() { text } else { format!("{text}: {last}") };
        Error::new(Code::System, text)
    }
}

/// A folder that CRIU is to work in, by a descriptor that it opens through /proc.
pub fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).call(format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;

    fn program(folder: &Path) {
        // One that says nothing, and does not end.
        scratch::program(&folder.join("criu"), "#!/bin/sh\nexec sleep 1000\n");
    }

    #[test]
    fn a_criu_that_says_nothing_is_stopped_by_a_signal() {
        let folder = scratch::Folder::new("criu");
        program(folder.path());
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, &[0]).unwrap();
        let criu =
            Criu::find(None, Some(folder.path().as_os_str())).unwrap().stopped_by(Some(Arc::new(reader)));
        let said = criu.check_version().unwrap_err().to_string();
        assert!(said.contains("interrupted by a signal"), "{said}");
    }

    #[test]
    fn a_criu_that_ends_is_told_as_such_whether_it_has_heard_what_was_asked_or_not() {
        for script in ["#!/bin/sh\nexec dd bs=4096 count=1 <&3\n", "#!/bin/sh\nexec true\n"] {
            let folder = scratch::Folder::new("criu");
            scratch::program(&folder.path().join("criu"), script);
            let criu = Criu::find(None, Some(folder.path().as_os_str())).unwrap();
            let said = criu.check_version().unwrap_err().to_string();
            assert!(said.contains("criu has ended without an answer"), "{script}: {said}");
        }
    }

    #[test]
    fn a_relative_folder_of_path_is_not_searched() {
        let folder = scratch::Folder::new("criu");
        program(folder.path());
        let here = std::env::current_dir().unwrap();
        let up = "../".repeat(here.components().count());
        let relative = Path::new(&up).join(folder.path().strip_prefix("/").unwrap());
        assert!(relative.join("criu").exists());
        assert!(Criu::find(None, Some(relative.as_os_str())).is_err());
        assert!(Criu::find(None, Some(folder.path().as_os_str())).is_ok());
    }

    #[test]
    fn another_is_looked_for_by_its_name_or_taken_by_its_path() {
        let folder = scratch::Folder::new("criu");
        program(folder.path());
        let path = Some(folder.path().as_os_str());
        let up = "../".repeat(std::env::current_dir().unwrap().components().count());
        let relative = Path::new(&up).join(folder.path().strip_prefix("/").unwrap()).join("criu");
        for (named, path) in [("criu".as_ref(), path), (relative.as_path(), None)] {
            let found = Criu::find(Some(named), path).unwrap();
            let found = Path::new(std::ffi::OsStr::from_bytes(found.path.as_bytes()));
            assert!(found.is_absolute(), "{}", found.display());
            assert_eq!(found.canonicalize().unwrap(), folder.path().join("criu").canonicalize().unwrap());
        }
        std::fs::write(folder.path().join("text"), "").unwrap();
        for (named, words) in [
            ("criu-of-another-name".into(), "criu-of-another-name: there is no such program in PATH"),
            ("text".into(), "text: there is no such program in PATH"),
            (folder.path().join("none"), "none: no such file or directory"),
            (folder.path().join("text"), "text: permission denied"),
        ] {
            let said = Criu::find(Some(&named), path).unwrap_err().to_string();
            assert!(said.starts_with("--criu") && said.contains(words), "{said}");
        }
    }
}
