//! What the drivers of other people's suites share: the way in, a runtime under test, the end of a program. The places
//! that a suite runs in are in `host`, what a run gave is kept as `record` says.

pub mod host;
pub mod record;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::wait::{WaitStatus, wait};

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// Killed because its time was over.
    TimedOut,
    /// By a signal.
    Signal(i32),
}

/// A driver: `run` on the command line where the suite can run, which says whether all was as expected.
pub fn main(name: &str, run: fn() -> Result<bool, String>) -> ExitCode {
    let done = if host::is_ready() { run() } else { host::enter() };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => {
            eprintln!("{name}: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// A driver that only prints a document.
pub fn print(document: Result<String, String>) -> ExitCode {
    match document {
        Ok(text) => print!("{text}"),
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A runtime under test.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// What results call it.
    pub label: String,
    /// Its program.
    pub binary: PathBuf,
    /// The first line of what it says to `--version`.
    pub version: String,
}

impl Runtime {
    /// Of a word LABEL=BINARY.
    pub fn parse(word: &str) -> Result<Runtime, String> {
        let (label, binary) = word.split_once('=').ok_or_else(|| format!("{word} is not LABEL=BINARY"))?;
        if label.is_empty() || label.contains(['/', '.']) {
            return Err(format!("{label:?} cannot name a runtime's folder of results"));
        }
        let path =
            std::fs::canonicalize(binary).map_err(|e| format!("the runtime {label}, {binary}: {e}"))?;
        Runtime::new(label, &path)
    }

    /// Asks it for its version.
    pub fn new(label: &str, binary: &Path) -> Result<Runtime, String> {
        let said = Command::new(binary)
            .arg("--version")
            .output()
            .map_err(|e| format!("the runtime {label}, {}, does not start: {e}", binary.display()))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said.lines().next().unwrap_or("no version").to_string();
        Ok(Runtime { label: label.into(), binary: binary.into(), version })
    }
}

/// Waits for a child, and buries the orphans that come to PID 1 meanwhile.
pub fn wait_for(child: u32) -> Result<Ended, String> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid.as_raw() as u32 == child => {
                return Ok(Ended::Exit(status));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() as u32 == child => {
                return Ok(Ended::Signal(signal as i32));
            }
            Ok(_) => {}
            Err(e) => return Err(format!("wait for process {child}: {e}")),
        }
    }
}

/// Whether the capability bounding set holds every capability that this kernel knows.
pub fn all_capabilities() -> Result<bool, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"));
    let last: u32 = read("/proc/sys/kernel/cap_last_cap")?.trim().parse().map_err(|e| format!("{e}"))?;
    let status = read("/proc/self/status")?;
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap_or("").trim();
    let bounding = u64::from_str_radix(bounding, 16).map_err(|e| format!("CapBnd {bounding}: {e}"))?;
    Ok(bounding == u64::MAX >> (63 - last))
}
