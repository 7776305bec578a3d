//! kill, pause, resume, and which processes a container has.

use super::process::Status;
use super::state::{Container, State};
use crate::error::CallContext;
use crate::{Code, Error, Result};
use rustix::process::{Signal, pidfd_send_signal};
use std::time::Duration;

/// How long a freeze may take: longer than any disk that a process waits for uninterruptibly, as with runc.
const FREEZE: Duration = Duration::from_secs(10);

/// Sends a signal to the container's init, or with `all` to every process in its cgroup. 0 asks whether init is there.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let state = container.state()?;
    let status = container.status(state.as_ref());
    let not_running = || Error::new(Code::Status, "container not running");
    let Some(state) = state else { return Err(not_running()) };
    // kill(2): with 0 no signal is sent, only asked whether one could be. Of nobody at all each has been sent.
    if signal == 0 {
        return match status {
            Status::Stopped | Status::Creating if !all => Err(not_running()),
            _ => Ok(()),
        };
    }
    // Safe for any number: real-time signals have no name in rustix, and the number was checked by the caller.
    let signal = number(signal)?;
    if all {
        match state.open_cgroup()? {
            Some(cgroup) if signal == Signal::KILL => return cgroup.kill_all(),
            Some(cgroup) => return cgroup.signal_all(signal),
            None if state.cgroup.is_some() => return Ok(()),
            // With its init ends its pid namespace.
            None if signal == Signal::KILL && state.own_pids => {}
            None => return by_namespace(&state, signal),
        }
    }
    let process = match status {
        Status::Stopped | Status::Creating => return Err(not_running()),
        _ => state.process.as_ref().ok_or_else(not_running)?,
    };
    // In a shared pid namespace the others outlive init, and an engine that kills the container means them too.
    if signal == Signal::KILL
        && !state.own_pids
        && let Some(cgroup) = state.open_cgroup()?
    {
        return cgroup.kill_all();
    }
    match pidfd_send_signal(process.pidfd()?, signal) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Err(not_running()),
        Err(e) => Err(e).call(format!("pidfd_send_signal to {}", process.pid)),
    }
}

/// Signals every process of a container without a cgroup.
fn by_namespace(state: &State, signal: Signal) -> Result<()> {
    for pid in in_namespaces(state)? {
        let Some(pid) = rustix::process::Pid::from_raw(pid as i32) else { continue };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            continue;
        };
        // It may have ended, and the number be another's by now: what counts is whose it is while the pidfd is held.
        if in_namespaces(state)?.contains(&(pid.as_raw_nonzero().get() as u32)) {
            match pidfd_send_signal(&pidfd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(e).call(format!("pidfd_send_signal to {pid:?}")),
            }
        }
    }
    Ok(())
}

/// The processes in the pid namespace of a container without a cgroup, and in those below it; without a pid namespace of its
/// own, its init alone is known.
fn in_namespaces(state: &State) -> Result<Vec<u32>> {
    let Some(init) = state.process.as_ref().filter(|process| process.is_alive()) else {
        return Ok(Vec::new());
    };
    let init = init.pid as u32;
    if !state.own_pids {
        return Ok(vec![init]);
    }
    let own =
        std::fs::read_link(format!("/proc/{init}/ns/pid")).call(format!("readlink /proc/{init}/ns/pid"))?;
    let mut found = vec![init];
    // Parents come before children: a pid namespace below is one of a descendant.
    let mut others: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").call("open /proc")?.filter_map(|e| e.ok()) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == init {
            continue;
        }
        match std::fs::read_link(entry.path().join("ns/pid")) {
            Ok(namespace) if namespace == own => found.push(pid),
            _ => others.extend(parent(pid).map(|parent| (pid, parent))),
        }
    }
    loop {
        let (below, rest): (Vec<_>, Vec<_>) = others.iter().partition(|(_, parent)| found.contains(parent));
        if below.is_empty() {
            found.sort_unstable();
            return Ok(found);
        }
        found.extend(below.iter().map(|(pid, _)| *pid));
        others = rest;
    }
}

fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn number(signal: i32) -> Result<Signal> {
    crate::sys::signal::from_number(signal)
        .ok_or_else(|| Error::new(Code::Usage, format!("invalid signal {signal}: 1 to 64 are signals")))
}

/// Freezes all processes of the container.
pub fn pause(container: &Container) -> Result<()> {
    let state = container.state()?;
    match (container.status(state.as_ref()), state) {
        (Status::Running | Status::Created, Some(state)) => match state.open_cgroup()? {
            Some(cgroup) => cgroup.freeze(FREEZE),
            None => Err(state.without_cgroup("pause")),
        },
        (status, _) => {
            Err(Error::new(Code::Status, format!("container not running or created: {}", status.as_str())))
        }
    }
}

/// Lets a paused container go on.
pub fn resume(container: &Container) -> Result<()> {
    let state = container.state()?;
    match (container.status(state.as_ref()), state) {
        (Status::Paused, Some(state)) => match state.open_cgroup()? {
            Some(cgroup) => cgroup.thaw(FREEZE),
            None => Err(state.without_cgroup("resume")),
        },
        _ => Err(Error::new(Code::Status, "container not paused")),
    }
}

/// The pids of all processes in the container's cgroup, in rcrun's pid namespace.
pub fn processes(container: &Container) -> Result<Vec<u32>> {
    let state = container.state()?;
    // One that has stopped has none, as with runc.
    if container.status(state.as_ref()) == Status::Stopped {
        return Ok(Vec::new());
    }
    let Some(state) = state else { return Ok(Vec::new()) };
    match state.open_cgroup()? {
        Some(cgroup) => cgroup.processes(),
        None if state.cgroup.is_none() => in_namespaces(&state),
        None => Ok(Vec::new()),
    }
}
