//! A runtime binary and the commands that a test gives it, each container below a state root of the test's own.

use crate::bundle::{Bundle, Folder};
use std::ffi::OsStr;
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
        let binary = PathBuf::from(named.expect("RCRUN is not set: run the tests by `make test`"));
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
        let errors = self.root.path().with_extension("err");
        let file = std::fs::File::create(&errors).expect("a file for errors");
        let status = self
            .command([
                OsStr::new("create"),
                OsStr::new("--bundle"),
                bundle.path().as_os_str(),
                OsStr::new(id),
            ])
            .stdout(Stdio::null())
            .stderr(file)
            .status()
            .expect("execute the runtime");
        let err = std::fs::read_to_string(&errors).unwrap_or_default();
        let _ = std::fs::remove_file(&errors);
        Said { status: code(status), out: String::new(), err }
    }

    /// The container's status, as `state` tells it.
    pub fn status(&self, id: &str) -> String {
        let state: serde_json::Value =
            serde_json::from_str(&self.ok(["state", id]).out).expect("state is JSON");
        state["status"].as_str().expect("a status").to_string()
    }

    /// The container's pid, as `state` tells it.
    pub fn pid(&self, id: &str) -> i32 {
        let state: serde_json::Value =
            serde_json::from_str(&self.ok(["state", id]).out).expect("state is JSON");
        state["pid"].as_i64().expect("a pid") as i32
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

/// An output in a test's words.
pub fn said(output: &Output) -> Said {
    Said {
        status: code(output.status),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
