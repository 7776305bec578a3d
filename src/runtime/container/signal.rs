//! kill, pause, resume, and which processes a container has.

use super::process::Status;
use super::state::Container;
use crate::error::CallContext;
use crate::{Code, Error, Result};
use rustix::process::{Signal, pidfd_send_signal};
use std::time::Duration;

/// How long a freeze may take: longer than any disk that a process waits for uninterruptibly, as with runc.
const FREEZE: Duration = Duration::from_secs(10);

/// Sends a signal to the container's init, or with `all` to every process in its cgroup.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let state = container.state()?;
    let status = container.status(state.as_ref());
    let not_running = || Error::new(Code::Status, "container not running");
    let Some(state) = state else { return Err(not_running()) };
    // Safe for any number: real-time signals have no name in rustix, and the number was checked by the caller.
    let signal = number(signal)?;
    if all {
        let Some(cgroup) = state.open_cgroup()? else { return Ok(()) };
        return match signal {
            Signal::KILL => cgroup.kill_all(),
            _ => cgroup.signal_all(signal),
        };
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
            None => Err(Error::new(Code::Status, "container not running: its cgroup is gone")),
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
            None => Err(Error::new(Code::Status, "container not paused: its cgroup is gone")),
        },
        _ => Err(Error::new(Code::Status, "container not paused")),
    }
}

/// The pids of all processes in the container's cgroup, in rcrun's pid namespace.
pub fn processes(container: &Container) -> Result<Vec<u32>> {
    let state = container.state()?;
    if container.status(state.as_ref()) == Status::Stopped {
        return Err(Error::new(Code::Status, "container not running"));
    }
    match state.map(|s| s.open_cgroup()).transpose()?.flatten() {
        Some(cgroup) => cgroup.processes(),
        None => Ok(Vec::new()),
    }
}
