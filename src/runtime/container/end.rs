//! How a container has ended, told until it is deleted: by who waited for its process, and by what its cgroup still shows.

use super::process::Status;
use super::state::{Container, State};
use crate::Result;
use crate::cgroup::Cgroup;
use crate::foreground::Exit;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// The end of a container. What nobody knows is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// `exited`, `killed` (by a signal), or `unknown`: another process than rcrun has waited for it.
    pub status: String,
    /// The exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// It was the OOM killer that killed its first process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// How many of its processes the OOM killer has killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// What all of its processes have used, where the cgroup was still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Resources that were used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Nanoseconds of CPU time in programs.
    pub cpu_user: u64,
    /// Nanoseconds of CPU time in the kernel.
    pub cpu_system: u64,
    /// Bytes of memory at most (memory.peak).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Bytes read from block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read: Option<u64>,
    /// Bytes written to block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_written: Option<u64>,
}

/// What a cgroup shows of those who were in it.
fn shown(cgroup: &Cgroup) -> Result<(Option<u64>, Usage)> {
    let stats = cgroup.stats()?;
    let sum = |op: &str| {
        let entries = stats.blkio.io_service_bytes_recursive.iter().filter(|entry| entry.op == op);
        entries.map(|entry| entry.value).reduce(u64::saturating_add)
    };
    let usage = Usage {
        cpu_user: stats.cpu.usage.user,
        cpu_system: stats.cpu.usage.kernel,
        memory_peak: Some(stats.memory.usage.max).filter(|bytes| *bytes > 0),
        io_read: sum("Read"),
        io_written: sum("Write"),
    };
    Ok((cgroup.oom_kills()?, usage))
}

/// The same; what cannot be read any more is not told: a container has ended all the same.
fn seen(cgroup: &Cgroup) -> (Option<u64>, Option<Usage>) {
    shown(cgroup).map_or((None, None), |(oom_kills, usage)| (oom_kills, Some(usage)))
}

/// Keeps in its state how the container's first process has ended.
pub(super) fn record(container: &Container, cgroup: Option<&Cgroup>, exit: Exit) -> Result<()> {
    let Some(state) = container.state()? else { return Ok(()) };
    let (oom_kills, usage) = cgroup.map_or((None, None), seen);
    let (status, code, signal) = match exit {
        Exit::Code(code) => ("exited", Some(code), None),
        Exit::Signal(signal) => ("killed", None, Some(signal)),
    };
    let end = End {
        status: status.to_string(),
        code,
        signal,
        at: Some(humantime::format_rfc3339_nanos(SystemTime::now()).to_string()),
        oom_killed: Some(by_oom_killer(exit, oom_kills)),
        oom_kills,
        usage,
    };
    container.save(&State { end: Some(end), ..state })
}

/// The OOM killer kills with SIGKILL, and counts.
pub(super) fn by_oom_killer(exit: Exit, oom_kills: Option<u64>) -> bool {
    exit == Exit::Signal(libc::SIGKILL) && oom_kills.is_some_and(|kills| kills > 0)
}

/// How a container with this state has ended; None where it has not, or never ran.
pub(super) fn of(state: Option<&State>, status: Status) -> Option<End> {
    let state = state.filter(|state| status == Status::Stopped && state.process.is_some())?;
    if let Some(end) = &state.end {
        return Some(end.clone());
    }
    let (oom_kills, usage) = state.open_cgroup().ok().flatten().map_or((None, None), |cgroup| seen(&cgroup));
    Some(End { status: "unknown".to_string(), oom_kills, usage, ..End::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oom_killer_is_named_only_where_it_killed() {
        for (exit, kills, expected) in [
            (Exit::Signal(9), Some(1), true),
            (Exit::Signal(9), Some(0), false),
            (Exit::Signal(9), None, false),
            (Exit::Signal(15), Some(3), false),
            (Exit::Code(137), Some(1), false),
        ] {
            assert_eq!(by_oom_killer(exit, kills), expected, "{exit:?} with {kills:?}");
        }
    }
}
