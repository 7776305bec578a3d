//! The runtimes that are compared, and one command on one of them. The only file that starts processes while timing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::WORK;
use crate::{Result, fail};

/// A runtime binary and what it is called in the tables.
pub struct Runtime {
    /// As in the tables.
    pub name: &'static str,
    /// The binary, by absolute path: a search would be charged to it.
    pub binary: PathBuf,
    /// What `--version` says first.
    pub version: String,
    root: PathBuf,
    filter: Option<PathBuf>,
}

impl Runtime {
    /// Fails when the binary is not there or does not answer `--version`: a missing runtime is never left out silently.
    pub fn new(name: &'static str, binary: &Path) -> Result<Self> {
        let binary = fs::canonicalize(binary)
            .or_else(|e| fail(format!("{name} is to be measured, but {}: {e}", binary.display())))?;
        let root = Path::new(WORK).join("root").join(name);
        fs::create_dir_all(&root)?;
        let out = Command::new(&binary).arg("--version").output()?;
        if !out.status.success() {
            return fail(format!("{name} --version: {}", out.status));
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let version = text.lines().next().unwrap_or_default().replace(" version", "");
        Ok(Self { name, binary, version, root, filter: None })
    }

    /// The floor compiles no profile: it loads this file of struct sock_filter.
    pub fn with_filter(mut self, file: Option<&Path>) -> Self {
        self.filter = file.map(Path::to_owned);
        self
    }

    /// The same with a copy of the binary on the private tmpfs.
    pub fn copied(&self) -> Result<Self> {
        let copy = Path::new(WORK).join(self.name);
        fs::copy(&self.binary, &copy)?;
        Ok(Self {
            name: self.name,
            binary: copy,
            version: self.version.clone(),
            root: self.root.clone(),
            filter: self.filter.clone(),
        })
    }

    /// Starts of a command: the binary (or `wrapper` and the binary) with the global options.
    pub fn command(&self, wrapper: &[&OsStr], args: &[&OsStr], filtered: bool) -> Command {
        let mut command = match wrapper.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command.arg("--root").arg(&self.root).args(args);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if let (true, Some(filter)) = (filtered, &self.filter) {
            command.env("FLOOR_SECCOMP", filter);
        }
        command
    }

    /// Runs one command to its end and says how long that took, from spawn to wait.
    pub fn time(&self, quiet: &Quiet, args: &[&OsStr], filtered: bool) -> Result<Duration> {
        let mut command = self.command(&[], args, filtered);
        quiet.apply(&mut command)?;
        let begin = Instant::now();
        // std uses posix_spawn here: no page table of this process is copied.
        let status = command.spawn()?.wait()?;
        let time = begin.elapsed();
        if !status.success() {
            let said = fs::read_to_string(&quiet.stderr).unwrap_or_default();
            return fail(format!("{} {args:?}: {status}\n{said}", self.name));
        }
        Ok(time)
    }
}

/// Standard streams for measured commands: opened once, for they are no part of what is measured.
pub struct Quiet {
    null_in: File,
    null_out: File,
    stderr: PathBuf,
}

impl Quiet {
    /// One for each thread: stderr is a file whose text goes into a failure's message.
    pub fn new(name: &str) -> Result<Self> {
        let stderr = Path::new(WORK).join(format!("stderr-{name}"));
        Ok(Self {
            null_in: File::open("/dev/null")?,
            null_out: File::options().write(true).open("/dev/null")?,
            stderr,
        })
    }

    /// Gives a command these streams, with stderr emptied.
    pub fn apply(&self, command: &mut Command) -> Result<()> {
        command.stdin(Stdio::from(self.null_in.try_clone()?));
        command.stdout(Stdio::from(self.null_out.try_clone()?));
        command.stderr(Stdio::from(File::create(&self.stderr)?));
        Ok(())
    }
}
