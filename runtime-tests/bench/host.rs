//! A private machine to measure on: its own mount namespace that looks like a cgroup v2 host with an empty /run, and a
//! supervisor that removes every container and cgroup of the measuring process, however that ends.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::{Result, fail};

/// Every container's id begins with this and the supervisor's pid.
const PREFIX: &str = "rcrun-bench-";
const WORKER: &str = "RCRUN_BENCH_WORKER";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Everything the measuring process writes but its report; on the private tmpfs.
pub const WORK: &str = "/run/rcrun-bench";

/// In the measuring process, the beginning of every container's id; in the supervisor, none.
pub fn worker_prefix() -> Option<String> {
    std::env::var(WORKER).ok()
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
    // std resets the child's signal mask.
    let worker =
        Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).env(WORKER, &prefix).spawn()?;
    let worker = Pid::from_raw(i32::try_from(worker.id())?);

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
            nix::sys::signal::kill(worker, Signal::SIGKILL)?;
            waitpid(worker, None)?;
            code = Some(128 + signal.ssi_signo as u8);
        }
    }
    remove_cgroups(&prefix)?;
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Cgroups of a benchmark whose supervisor was killed.
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
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
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
fn remove_tree(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(cgroup)?)
}
