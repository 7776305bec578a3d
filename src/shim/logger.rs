//! A program that takes the output of a container: `binary://PATH?ARGUMENT=VALUE`. It reads stdout from descriptor 3 and
//! stderr from 4, and says on 5 that it is ready. Uses: stream, watch.

use crate::stream::Open;
use crate::watch::{Next, Watches};
use rcrun_runtime::error::{CallContext, errno_text};
use rcrun_runtime::sys::spawn::{Program, spawn};
use rcrun_runtime::{Code, Error, Result, sys};
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// How long it may take to be ready.
const READY: i64 = 30;

/// How long it may take to end when it is asked to: containerd's own figure.
const TERM: i64 = 12;

/// What a URI of a logger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logger {
    path: String,
    args: Vec<String>,
    /// It must say that it is ready, and not only close its descriptor: `binary-v2://`.
    must_say: bool,
}

/// Whose output it takes.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// containerd's namespace.
    pub namespace: &'a str,
    /// The container, or the exec.
    pub id: &'a str,
}

/// A logger that runs.
#[derive(Debug)]
pub struct Running {
    pidfd: Arc<OwnedFd>,
}

/// The logger that `name` names, if it names one.
pub fn parse(name: &str) -> Option<Result<Logger>> {
    let (must_say, rest) = match name.split_once("://")? {
        ("binary", rest) => (false, rest),
        ("binary-v2", rest) => (true, rest),
        _ => return None,
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut args = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.push(decode(&key.replace('+', " ")));
        if !value.is_empty() {
            args.push(decode(&value.replace('+', " ")));
        }
    }
    let path = decode(path);
    Some(match path.starts_with('/') {
        true => Ok(Logger { path, args, must_say }),
        false => Err(Error::new(Code::Usage, format!("{name}: the path of a logger must be absolute"))),
    })
}

/// `%2F` and the like; what is no such thing stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl Logger {
    /// Starts it and waits until it is ready. It reads from `out` and `err`; `open` counts it until it has ended.
    pub fn start(
        &self,
        whose: Whose<'_>,
        out: BorrowedFd<'_>,
        err: BorrowedFd<'_>,
        watches: &Watches,
        open: &Arc<Open>,
    ) -> Result<Running> {
        let what = || format!("logger {}", self.path);
        let string = |text: &str| {
            CString::new(text)
                .map_err(|_| Error::new(Code::Usage, format!("{}: a NUL character in its arguments", what())))
        };
        let path = string(&self.path)?;
        let args: Vec<CString> =
            std::iter::once(&self.path).chain(&self.args).map(|text| string(text)).collect::<Result<_>>()?;
        let env = [
            string(&format!("CONTAINER_ID={}", whose.id))?,
            string(&format!("CONTAINER_NAMESPACE={}", whose.namespace))?,
        ];
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .call("open /dev/null")?;
        let (ready, theirs) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
        let child = spawn(&Program {
            path: &path,
            args: &args,
            env: &env,
            cwd: c"/",
            stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
            passed: &[out, err, theirs.as_fd()],
            own_group: false,
        })
        .call(format!("execve {}", what()))?;
        drop(theirs);
        let running = Running { pidfd: Arc::new(child.pidfd) };
        let (pidfd, mut counted) = (Arc::clone(&running.pidfd), Some(open.one_more()));
        let react = Box::new(move || {
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            drop(counted.take());
            Next::Nothing
        });
        watches.add(Arc::clone(&running.pidfd), EventFlags::IN, react)?;
        // Not read before there is something: who says nothing would be waited for without end.
        let said = wait(ready.as_fd(), READY).unwrap_or(false);
        match said.then(|| rustix::io::read(&ready, &mut [0; 1])) {
            Some(Ok(1)) => Ok(running),
            Some(Ok(_)) if !self.must_say => Ok(running),
            _ => {
                running.end();
                let why =
                    if said { "has not said that it is ready" } else { "does not say that it is ready" };
                Err(Error::new(Code::System, format!("{} {why}", what())))
            }
        }
    }
}

impl Running {
    /// Asks it to end if it has not, and then makes it.
    pub fn end(&self) {
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            if let Err(error) = sys::pidfd::send_signal(self.pidfd.as_fd(), signal) {
                if error.raw_os_error() != Some(libc::ESRCH) {
                    let why = errno_text(error.raw_os_error().unwrap_or_default());
                    crate::log::warn(format_args!("signal to a logger: {why}"));
                }
                return;
            }
            if wait(self.pidfd.as_fd(), TERM).unwrap_or(true) {
                return;
            }
        }
    }
}

/// Waits until there is something to read, or to be told; false when so many seconds have passed.
fn wait(fd: BorrowedFd<'_>, seconds: i64) -> Result<bool> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.call("poll")? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_is_a_path_with_arguments() {
        let logger = |path: &str, args: &[&str], must_say| Logger {
            path: path.into(),
            args: args.iter().map(ToString::to_string).collect(),
            must_say,
        };
        for (name, expected) in [
            ("binary:///bin/log", logger("/bin/log", &[], false)),
            ("binary:///bin/log?a=b&c&d=", logger("/bin/log", &["a", "b", "c", "d"], false)),
            (
                "binary-v2:///my%20logger?_NERDCTL_INTERNAL_LOGGING=%2Fvar%2Flib%2Fn",
                logger("/my logger", &["_NERDCTL_INTERNAL_LOGGING", "/var/lib/n"], true),
            ),
            ("binary:///100%?a=x+y", logger("/100%", &["a", "x y"], false)),
        ] {
            assert_eq!(parse(name).unwrap().unwrap(), expected, "{name}");
        }
        for name in ["/run/fifo", "fifo:///x", "file:///x"] {
            assert!(parse(name).is_none(), "{name}");
        }
        assert!(parse("binary://relative").unwrap().is_err());
    }
}
