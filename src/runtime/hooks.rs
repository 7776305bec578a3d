//! OCI hooks: each gets the container's state on stdin, in the order of config.json; the first that fails
//! ends the operation, after the container's stop they are warnings. Uses: sys::spawn.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::{CallContext, Code, Context, Error, Result};
use crate::sys::{pidfd, spawn};

/// How much of a hook's output an error repeats: its end.
const TAIL: usize = 4096;

/// More than a pipe holds: where reading stops once the hook is gone, though a child of it still writes.
const LEFT_OVER: usize = 1 << 20;

/// Runs `hooks`, config.json's list of `kind` (`createRuntime`), in our own namespaces and in `bundle`, each
/// with `state` on stdin. Stops at the first that fails.
pub fn run(hooks: &[Hook], kind: &str, bundle: &Path, state: &[u8]) -> Result<()> {
    (0..).zip(hooks).try_for_each(|(index, hook)| run_one(hook, kind, index, bundle, state))
}

/// The same for `poststop`: runs all of them; what failed is the answer.
pub fn run_all(hooks: &[Hook], kind: &str, bundle: &Path, state: &[u8]) -> Vec<Error> {
    (0..).zip(hooks).filter_map(|(index, hook)| run_one(hook, kind, index, bundle, state).err()).collect()
}

fn run_one(hook: &Hook, kind: &str, index: usize, bundle: &Path, state: &[u8]) -> Result<()> {
    let timeout = hook.timeout();
    let outcome = start(hook, bundle).and_then(|process| attend(process, state, timeout));
    named(outcome, hook, kind, index)
}

/// Names the hook in `outcome`'s error: for hooks that were started elsewhere, too.
pub fn named<T>(outcome: Result<T>, hook: &Hook, kind: &str, index: usize) -> Result<T> {
    outcome
        .context(format!("hooks/{kind}/{index}: {}", hook.path().display()))
        .map_err(|error| error.with_code(Code::Hook).at(format!("/hooks/{kind}/{index}")))
}

/// A hook that has been started: a child of this process.
#[derive(Debug)]
pub struct HookProcess {
    /// Readable when it has exited.
    pub pidfd: OwnedFd,
    /// The process group to kill with it, if it leads one.
    pub group: Option<Pid>,
    /// The writing end of the pipe that is its stdin.
    pub stdin: OwnedFd,
    /// The reading end of the pipe that is its stdout and stderr.
    pub output: OwnedFd,
}

fn start(hook: &Hook, bundle: &Path) -> Result<HookProcess> {
    let string = |bytes: &[u8]| {
        let invalid = |_| Error::new(Code::Hook, "has a NUL character in its path, arguments or environment");
        CString::new(bytes).map_err(invalid)
    };
    let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>> {
        list.iter().flatten().map(|text| string(text.as_bytes())).collect()
    };
    let path = string(hook.path().as_os_str().as_bytes())?;
    let mut args = strings(hook.args())?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let (reader, stdin) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
    let (output, writer) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
    let child = spawn::spawn(&spawn::Program {
        path: &path,
        args: &args,
        // Absent is empty: nothing of our environment is meant for it.
        env: &strings(hook.env())?,
        cwd: &string(bundle.as_os_str().as_bytes())?,
        stdio: [reader.as_fd(), writer.as_fd(), writer.as_fd()],
        // A group of its own can be killed whole when the time is up. Without a timeout only the
        // terminal's ^C ends a hook that hangs, and that reaches our own group.
        own_group: hook.timeout().is_some(),
    })
    .call("execve")?;
    let group = hook.timeout().map(|_| child.pid);
    Ok(HookProcess { pidfd: child.pidfd, group, stdin, output })
}

/// Gives a hook the `state`, reads what it prints, and waits for its end, `timeout` seconds at most. Any
/// status but 0 is an error that ends with what it printed last.
pub fn attend(process: HookProcess, state: &[u8], timeout: Option<i64>) -> Result<()> {
    let deadline = match timeout {
        None => None,
        // Beyond what the clock can count is for ever.
        Some(seconds) => Instant::now().checked_add(Duration::from_secs(seconds.max(0) as u64)),
    };
    let mut talk = Conversation { state, stdin: Some(process.stdin), output: Some(process.output), tail: Vec::new() };
    talk.do_not_block()?;
    let in_time = loop {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break false;
        }
        if talk.wait(&process.pidfd, left)? {
            break true;
        }
    };
    if !in_time {
        // Not waited for yet, so that neither number has passed to others.
        if let Some(group) = process.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL).call("pidfd_send_signal")?;
    }
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED))
        .call("waitid")?
        .ok_or_else(|| Error::new(Code::System, "waitid: no status"))?;
    let outcome = match (in_time, status.exit_status(), status.terminating_signal()) {
        (false, ..) => format!("did not end within {} seconds, killed", timeout.unwrap_or(0)),
        (true, Some(0), _) => return Ok(()),
        (true, Some(code), _) => format!("exit status {code}"),
        (true, None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    };
    let said = talk.last_words();
    let separator = if said.is_empty() { "" } else { ": " };
    Err(Error::new(Code::Hook, format!("{outcome}{separator}{said}")))
}

/// The pipes to and from a hook.
struct Conversation<'a> {
    /// What it has yet to be told.
    state: &'a [u8],
    /// None when it has been told, or does not listen.
    stdin: Option<OwnedFd>,
    /// None at its end.
    output: Option<OwnedFd>,
    /// The end of what it said.
    tail: Vec<u8>,
}

impl Conversation<'_> {
    fn do_not_block(&self) -> Result<()> {
        for fd in [&self.stdin, &self.output].into_iter().flatten() {
            let flags = fcntl_getfl(fd).call("F_GETFL")?;
            fcntl_setfl(fd, flags | OFlags::NONBLOCK).call("F_SETFL")?;
        }
        Ok(())
    }

    /// Waits for something to happen, `left` at most; true when the hook has exited.
    fn wait(&mut self, pidfd: &OwnedFd, left: Option<Duration>) -> Result<bool> {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(self.output.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.stdin.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => return Ok(false),
            other => other.call("poll")?,
        };
        let exited = !fds[0].revents().is_empty();
        self.tell();
        self.listen();
        Ok(exited)
    }

    fn tell(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        match write(stdin, self.state) {
            Ok(count) => self.state = &self.state[count..],
            Err(Errno::AGAIN | Errno::INTR) => return,
            // EPIPE: it does not care for the state, which is its right.
            Err(_) => self.state = &[],
        }
        if self.state.is_empty() {
            self.stdin = None;
        }
    }

    fn listen(&mut self) {
        let Some(output) = &self.output else { return };
        let mut bytes = [0; TAIL];
        let mut left = LEFT_OVER;
        while left > 0 {
            match read(output, &mut bytes) {
                Ok(count) if count > 0 => {
                    left = left.saturating_sub(count);
                    self.tail.extend_from_slice(&bytes[..count]);
                    self.tail.drain(..self.tail.len().saturating_sub(TAIL));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                _ => {
                    self.output = None;
                    return;
                }
            }
        }
    }

    fn last_words(&self) -> String {
        String::from_utf8_lossy(&self.tail).trim().to_string()
    }
}
