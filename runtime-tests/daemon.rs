//! A daemon that can be killed and started again, and that says when it serves, as it would to systemd. Uses nix.

use crate::runtime::readable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The daemon; it is killed with its owner.
#[derive(Debug)]
pub struct Daemon {
    program: String,
    words: Vec<OsString>,
    path: OsString,
    folder: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts `program` with this PATH, and returns when it serves. `folder` gets its log.
    pub fn start(
        program: &str,
        words: Vec<OsString>,
        path: OsString,
        folder: &Path,
    ) -> Result<Daemon, String> {
        let child = launch(program, &words, &path, folder)?;
        Ok(Daemon { program: program.into(), words, path, folder: folder.into(), child })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Ends it with SIGKILL, and returns when it has ended.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it as before, and returns when it serves.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.child = launch(&self.program, &self.words, &self.path, &self.folder)?;
        Ok(())
    }

    /// Ends it as systemd would.
    pub fn end(&mut self) {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let _ = self.child.wait();
    }

    /// What it has written, since it was first started.
    pub fn log(&self) -> String {
        let bytes = fs::read(log_of(&self.folder, &self.program)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_of(folder: &Path, program: &str) -> PathBuf {
    folder.join(program).with_extension("log")
}

fn launch(program: &str, words: &[OsString], path: &OsString, folder: &Path) -> Result<Child, String> {
    let notify = folder.join(program).with_extension("ready");
    let _ = fs::remove_file(&notify);
    let ready = UnixDatagram::bind(&notify).map_err(|e| format!("bind {}: {e}", notify.display()))?;
    let log = log_of(folder, program);
    let out = fs::File::options().append(true).create(true).open(&log);
    let out = out.map_err(|e| format!("open {}: {e}", log.display()))?;
    let both = out.try_clone().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.args(words).env("PATH", path).env("NOTIFY_SOCKET", &notify);
    command.stdin(Stdio::null()).stdout(both).stderr(out);
    let mut child = command.spawn().map_err(|e| format!("{program} cannot be executed: {e}"))?;
    let mut word = [0; 4096];
    while readable(ready.as_fd()) {
        let length = ready.recv(&mut word).map_err(|e| e.to_string())?;
        if word[..length].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
            return Ok(child);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(&log).unwrap_or_default();
    Err(format!("{program} does not come up:\n{said}"))
}
