//! A private machine to measure on: its own mount namespace that looks like a cgroup v2 host with an empty /run, and two
//! processes beside the one that measures. The supervisor ends it when it is told to end itself; the sweeper removes
//! every container and cgroup when both have gone, however they went.
//!
//! ```text
//!   supervisor --pipe: pid of worker, then end of file--> sweeper: kills the worker's group, removes what has its prefix
//!        | spawns, waits for, kills
//!      worker (dies with it) --> runtimes, in its process group
//! ```

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};

use crate::{Result, fail};

/// Every container's id begins with this and the supervisor's pid.
const PREFIX: &str = "rcrun-bench-";
const WORKER: &str = "RCRUN_BENCH_WORKER";
const SWEEPER: &str = "RCRUN_BENCH_SWEEPER";
/// Where the private machine has cgroup v2.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// Everything the measuring process writes but its report; on the private tmpfs.
pub const WORK: &str = "/run/rcrun-bench";

/// Which of the three processes this is; the last two know what every container's id begins with.
pub enum Role {
    /// Started by a person.
    Supervisor,
    /// Measures.
    Worker(String),
    /// Cleans up.
    Sweeper(String),
}

impl Role {
    /// That of this process.
    pub fn own() -> Self {
        let named = |name| std::env::var(name).ok();
        match (named(WORKER), named(SWEEPER)) {
            (Some(prefix), _) => Self::Worker(prefix),
            (None, Some(prefix)) => Self::Sweeper(prefix),
            (None, None) => Self::Supervisor,
        }
    }
}

/// What the measuring process does first.
pub fn begin_work() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before.
    if getppid().as_raw() == 1 {
        return fail("the supervisor has died");
    }
    Ok(set_child_subreaper(true)?)
}

/// Waits until the supervisor has gone, and cleans up after the measuring process, whose pid it has told.
pub fn sweep(prefix: &str) -> Result<ExitCode> {
    let mut told = String::new();
    std::io::stdin().read_to_string(&mut told)?;
    if let Ok(worker) = told.trim().parse() {
        // Its runtimes are in its group: none is to make a cgroup after this.
        match killpg(Pid::from_raw(worker), Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    remove_cgroups(prefix)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the private machine, measures in a child process, and cleans up after it.
pub fn supervise() -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return fail("the benchmark starts containers and mounts: it must run as root");
    }
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), nothing)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    fs::create_dir_all(WORK)?;
    remove_leftovers()?;

    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD]);
    signals.thread_block()?;
    let signal_fd = SignalFd::new(&signals)?;
    // Inits of created containers belong to the measuring process, and to this one when that has died.
    set_child_subreaper(true)?;
    let prefix = format!("{PREFIX}{}-", std::process::id());
    // std resets the signal mask of both; a terminal's signals reach neither.
    let spawn = |role: &str, input: Stdio| {
        let mut command = Command::new("/proc/self/exe");
        command.args(std::env::args_os().skip(1)).env(role, &prefix).stdin(input).process_group(0).spawn()
    };
    let mut sweeper = spawn(SWEEPER, Stdio::piped())?;
    let worker = spawn(WORKER, Stdio::null())?.id();
    let mut pipe = sweeper.stdin.take().ok_or("no pipe")?;
    write!(pipe, "{worker}")?;
    let worker = Pid::from_raw(i32::try_from(worker)?);

    let mut code = None;
    while code.is_none() {
        let Some(signal) = signal_fd.read_signal()? else { continue };
        if signal.ssi_signo == Signal::SIGCHLD as u32 {
            while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                match status {
                    WaitStatus::Exited(pid, status) if pid == worker => code = Some(status as u8),
                    WaitStatus::Signaled(pid, signal, _) if pid == worker => code = Some(128 + signal as u8),
                    WaitStatus::StillAlive => break,
                    _ => {}
                }
            }
        } else {
            kill(worker, Signal::SIGKILL)?;
            waitpid(worker, None)?;
            code = Some(128 + signal.ssi_signo as u8);
        }
    }
    drop(pipe);
    if !sweeper.wait()?.success() {
        return fail("not everything was removed");
    }
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Cgroups of a benchmark whose sweeper was killed too.
fn remove_leftovers() -> Result<()> {
    for cgroup in cgroups_named(Path::new(CGROUPS), PREFIX)? {
        let name = cgroup.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let pid: String = name
            .split_once(PREFIX)
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
            .unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.trim() != "bench" {
            remove_cgroups(&format!("{PREFIX}{pid}-"))?;
        }
    }
    Ok(())
}

/// Kills what runs in the cgroups with this in their names, and removes them.
fn remove_cgroups(prefix: &str) -> Result<()> {
    for cgroup in cgroups_named(Path::new(CGROUPS), prefix)? {
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        let events = fs::File::open(cgroup.join("cgroup.events"))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_to_string(cgroup.join("cgroup.events"))?.contains("populated 1") {
            if Instant::now() > deadline {
                return fail(format!("{} is still populated 10 s after cgroup.kill", cgroup.display()));
            }
            poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::from(100u8))?;
        }
        remove_tree(&cgroup)?;
    }
    Ok(())
}

fn cgroups_named(under: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(text) {
            found.push(entry.path());
        } else if let Ok(mut deeper) = cgroups_named(&entry.path(), text) {
            found.append(&mut deeper);
        }
    }
    Ok(found)
}

/// A cgroup's files cannot be removed, its folders can: children first.
pub fn remove_tree(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(cgroup)?)
}
