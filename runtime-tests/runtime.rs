//! A runtime binary and the commands that a test gives it, each container below a state root of the test's own.

use crate::bundle::{Bundle, Folder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The runtime under test: `RCRUN`, or `RUNTIME` to run the same tests against runc or crun.
#[derive(Debug)]
pub struct Runtime {
    binary: PathBuf,
    root: Folder,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Exit status; 128 and the signal when it was killed.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Runtime {
    /// The runtime, with an empty state root. Fails, and never skips, where there is none.
    pub fn new() -> Runtime {
        let named = std::env::var_os("RUNTIME").or_else(|| std::env::var_os("RCRUN"));
        Runtime::of(PathBuf::from(named.expect("RCRUN is not set: run the tests by `make test`")))
    }

    /// This binary, with an empty state root.
    pub fn of(binary: PathBuf) -> Runtime {
        assert!(binary.exists(), "{} is not there: run `make build` first", binary.display());
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers: run them as root");
        Runtime { binary, root: Folder::new("state") }
    }

    /// The binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The state root.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A command of the runtime, not yet run.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root.path()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn say<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        said(&self.command(args).output().expect("execute the runtime"))
    }

    /// Runs a command to its end that reads `input`.
    pub fn say_with_input<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &str) -> Said {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("execute the runtime");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("write what it reads");
        drop(stdin);
        said(&child.wait_with_output().expect("what it says"))
    }

    /// Runs a command that must succeed.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        let args: Vec<_> = args.into_iter().collect();
        let said = self.say(&args);
        let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
        assert_eq!(said.status, 0, "{} failed: {}{}", words.join(" "), said.out, said.err);
        said
    }

    /// Runs a bundle in the foreground.
    pub fn run(&self, bundle: &Bundle, id: &str) -> Said {
        self.say([OsStr::new("run"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new(id)])
    }

    /// Creates a container; its process inherits no pipe of the test's, so that this returns.
    pub fn create(&self, bundle: &Bundle, id: &str) -> Said {
        self.create_with(bundle, id, &[])
    }

    /// The same, and it must succeed.
    pub fn created(&self, bundle: &Bundle, id: &str) {
        let said = self.create(bundle, id);
        assert_eq!((said.status, said.err.as_str()), (0, ""));
    }

    /// Creates with more options.
    pub fn create_with(&self, bundle: &Bundle, id: &str, options: &[&str]) -> Said {
        let words = ["create", "--bundle"].map(OsStr::new).into_iter();
        let words = words.chain([bundle.path().as_os_str()]).chain(options.iter().map(OsStr::new));
        self.without_pipes(&mut self.command(words.chain([OsStr::new(id)])))
    }

    /// Runs a command whose container lives on: no pipe of the test's is inherited, so that this returns.
    pub fn without_pipes(&self, command: &mut Command) -> Said {
        let folder = Folder::new("said");
        let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
        let file = |path: &Path| std::fs::File::create(path).expect("a file for what is said");
        let status = command.stdout(file(&out)).stderr(file(&err)).status().expect("execute the runtime");
        let [out, err] = [out, err].map(|path| std::fs::read_to_string(path).expect("what was said"));
        Said { status: code(status), out, err }
    }

    /// Runs a bundle in the background; its standard output comes from what is returned.
    pub fn detached(&self, bundle: &Bundle, id: &str) -> Lines {
        let (reader, writer) = std::io::pipe().expect("pipe");
        let words = ["run", "--detach", "--bundle"].map(OsStr::new).into_iter();
        let mut command = self.command(words.chain([bundle.path().as_os_str(), OsStr::new(id)]));
        let folder = Folder::new("said");
        let errors = folder.path().join("err");
        let file = std::fs::File::create(&errors).expect("a file for errors");
        let status = command.stdout(writer).stderr(file).status().expect("execute the runtime");
        drop(command);
        assert!(status.success(), "{}", std::fs::read_to_string(&errors).expect("what was said"));
        Lines::of(reader.into())
    }

    /// What `state` tells.
    pub fn state(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.ok(["state", id]).out).expect("state is JSON")
    }

    /// Returns when the container's first process has ended.
    pub fn wait_for_end(&self, id: &str) {
        let state = self.state(id);
        let Some(pid) = state["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32)) else { return };
        // Gone already: that is what was waited for.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        assert!(readable(pidfd.as_fd()), "process {pid:?} of {id} does not end");
    }

    /// The container's status, as `state` tells it.
    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().expect("a status").to_string()
    }

    /// The container's pid, as `state` tells it.
    pub fn pid(&self, id: &str) -> i32 {
        self.state(id)["pid"].as_i64().expect("a pid") as i32
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime::new()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // What a failed test left: only containers below the test's own root.
        let listed = self.say(["list", "--quiet"]).out;
        for id in listed.lines() {
            self.say(["delete", "--force", id]);
        }
    }
}

/// Lines that somebody writes into a pipe or a terminal. One that does not come fails the test.
#[derive(Debug)]
pub struct Lines(std::fs::File);

impl Lines {
    /// Those that `fd` gives.
    pub fn of(fd: OwnedFd) -> Lines {
        Lines(fd.into())
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while let Some(byte) = self.byte(&line) {
            if byte == b'\n' {
                return String::from_utf8_lossy(&line).into_owned();
            }
            line.push(byte);
        }
        panic!("end of file after {:?}", String::from_utf8_lossy(&line));
    }

    /// All until and with `word`.
    pub fn until(&mut self, word: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(word.as_bytes()) {
            match self.byte(&text) {
                Some(byte) => text.push(byte),
                None => panic!("end of file after {:?}, before {word:?}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All until the last writer has gone.
    pub fn rest(&mut self) -> String {
        let mut text = Vec::new();
        while let Some(byte) = self.byte(&text) {
            text.push(byte);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// How many bytes are there to be read.
    pub fn unread(&self) -> usize {
        rustix::io::ioctl_fionread(&self.0).expect("FIONREAD") as usize
    }

    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut taken = 0;
        while taken < count {
            assert!(readable(self.0.as_fd()), "nothing comes after {taken} bytes");
            match self.0.read(&mut bytes[taken..]).expect("read") {
                0 => panic!("end of file after {taken} bytes"),
                more => taken += more,
            }
        }
        bytes
    }

    fn byte(&mut self, before: &[u8]) -> Option<u8> {
        assert!(readable(self.0.as_fd()), "nothing comes after {:?}", String::from_utf8_lossy(before));
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            // EIO: a terminal whose last user has gone.
            Ok(_) | Err(_) => None,
        }
    }
}

/// Waits for something to read, for as long as a slow machine may take.
pub fn readable(fd: BorrowedFd<'_>) -> bool {
    let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll: {e}"),
        }
    }
}

/// An output in a test's words.
pub fn said(output: &Output) -> Said {
    Said {
        status: code(output.status),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An exit status as a shell tells it: the code, or 128 and the signal.
pub fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
