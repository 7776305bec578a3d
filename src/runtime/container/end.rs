//! How a container has ended, told until it is deleted: by who waited for its process, and by what its cgroup still shows.

use super::process::Status;
use super::state::{Container, State};
use crate::Result;
use crate::cgroup::Shown;
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

impl Usage {
    /// None where not even the time is known, which every cgroup counts.
    fn of(shown: &Shown) -> Option<Usage> {
        shown.cpu.as_ref().map(|cpu| Usage {
            cpu_user: cpu.user,
            cpu_system: cpu.kernel,
            memory_peak: shown.memory_peak.filter(|bytes| *bytes > 0),
            io_read: shown.io_read,
            io_written: shown.io_written,
        })
    }
}

/// Keeps in its state how the container's first process has ended, and what its cgroup has shown.
pub(super) fn record(container: &Container, exit: Exit, shown: &Shown) -> Result<()> {
    let Some(state) = container.state()? else { return Ok(()) };
    let (status, code, signal) = match exit {
        Exit::Code(code) => ("exited", Some(code), None),
        Exit::Signal(signal) => ("killed", None, Some(signal)),
    };
    let end = End {
        status: status.to_string(),
        code,
        signal,
        at: Some(humantime::format_rfc3339_nanos(SystemTime::now()).to_string()),
        oom_killed: by_oom_killer(exit, shown.oom_kills),
        oom_kills: shown.oom_kills,
        usage: Usage::of(shown),
    };
    container.save(&State { end: Some(end), ..state })
}

/// The OOM killer kills with SIGKILL, and counts. None where nobody knows what it has counted.
pub(super) fn by_oom_killer(exit: Exit, oom_kills: Option<u64>) -> Option<bool> {
    match exit {
        Exit::Signal(libc::SIGKILL) => oom_kills.map(|kills| kills > 0),
        _ => Some(false),
    }
}

/// How a container with this state has ended; None where it has not, or never ran.
pub(super) fn of(state: Option<&State>, status: Status) -> Option<End> {
    let state = state.filter(|state| status == Status::Stopped && state.process.is_some())?;
    if let Some(end) = &state.end {
        return Some(end.clone());
    }
    let shown = state.open_cgroup().ok().flatten().map(|cgroup| cgroup.shown()).unwrap_or_default();
    let usage = Usage::of(&shown);
    Some(End { status: "unknown".to_string(), oom_kills: shown.oom_kills, usage, ..End::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oom_killer_is_named_only_where_it_killed() {
        for (exit, kills, expected) in [
            (Exit::Signal(9), Some(1), Some(true)),
            (Exit::Signal(9), Some(0), Some(false)),
            (Exit::Signal(9), None, None),
            (Exit::Signal(15), Some(3), Some(false)),
            (Exit::Signal(15), None, Some(false)),
            (Exit::Code(137), Some(1), Some(false)),
        ] {
            assert_eq!(by_oom_killer(exit, kills), expected, "{exit:?} with {kills:?}");
        }
    }
}
