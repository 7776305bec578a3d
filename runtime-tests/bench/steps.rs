//! Where a runtime's time goes beyond the floor's: its stages between milestones of one run, and the system calls that it
//! makes more often. For reading, not for judging: strace itself costs.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::facts::{Calls, calls};
use crate::host::WORK;
use crate::rounds::Bench;
use crate::runtimes::{Quiet, Runtime};
use crate::stats::quartiles;
use crate::{Result, fail};

/// Only these calls stop a traced process (--seccomp-bpf), so the time between them is nearly undisturbed.
const MILESTONES: &str =
    "execve,execveat,clone,clone3,vfork,bpf,pivot_root,seccomp,wait4,waitid,exit,exit_group";
const RUNS: usize = 15;

/// Two tables in Markdown about `run`, the floor beside the runtime of this name.
pub fn table(bench: &Bench, name: &str) -> Result<String> {
    let Some(runtime) = bench.runtimes.iter().find(|r| r.name == name) else {
        return fail(format!("{name} is not among the runtimes"));
    };
    let floor = &bench.runtimes[0];
    let mut text = String::new();
    writeln!(
        text,
        "Milestones of one `run` (microseconds since the first, median of {RUNS} traced runs):\n"
    )?;
    for one in [floor, runtime] {
        writeln!(text, "| {} | at | since the one before |\n|---|---|---|", one.name)?;
        let mut before = 0.0;
        for (what, at) in milestones(bench, one)? {
            writeln!(text, "| {what} | {at:.0} | {:.0} |", at - before)?;
            before = at;
        }
        writeln!(text)?;
    }
    let (of_floor, of_runtime) = (calls(bench, floor)?, calls(bench, runtime)?);
    let mut more: Vec<_> = of_runtime
        .iter()
        .map(|(call, here)| (call, *here, of_floor.get(call).copied().unwrap_or_default()))
        .filter(|(_, here, there)| here.calls > there.calls)
        .collect();
    more.sort_by_key(|(_, here, there)| std::cmp::Reverse(here.calls - there.calls));
    writeln!(
        text,
        "System calls that {name} makes more often than the floor (time while traced, waiting included):\n"
    )?;
    writeln!(text, "| call | floor | {name} | floor, µs | {name}, µs |\n|---|---|---|---|---|")?;
    for (call, here, there) in more {
        let Calls { calls, seconds } = there;
        writeln!(
            text,
            "| {call} | {calls} | {} | {:.0} | {:.0} |",
            here.calls,
            seconds * 1e6,
            here.seconds * 1e6
        )?;
    }
    Ok(text)
}

/// Milestones with their median time; runs whose sequence differs from the first run's are left out.
fn milestones(bench: &Bench, runtime: &Runtime) -> Result<Vec<(String, f64)>> {
    let mut names: Vec<String> = Vec::new();
    let mut times: Vec<Vec<f64>> = Vec::new();
    for _ in 0..RUNS {
        let found = trace(bench, runtime)?;
        if times.is_empty() {
            names = found.iter().map(|(name, _)| name.clone()).collect();
            times = vec![Vec::new(); names.len()];
        }
        if found.iter().map(|(name, _)| name).eq(&names) {
            for (times, (_, at)) in times.iter_mut().zip(found) {
                times.push(at);
            }
        }
    }
    Ok(names.into_iter().zip(times).map(|(name, times)| (name, quartiles(times).median)).collect())
}

fn trace(bench: &Bench, runtime: &Runtime) -> Result<Vec<(String, f64)>> {
    let file = Path::new(WORK).join("strace");
    let only = format!("trace={MILESTONES}");
    let id = bench.id();
    let strace: Vec<&OsStr> =
        ["strace", "-f", "--seccomp-bpf", "-ttt", "-e", &only, "-o"].iter().map(|s| OsStr::new(*s)).collect();
    let strace = [&strace[..], &[file.as_os_str()]].concat();
    let args = ["run".as_ref(), "-b".as_ref(), bench.bundles.quick.as_os_str(), id.as_ref()];
    let mut command = runtime.command(&strace, &args, false);
    Quiet::new("strace")?.apply(&mut command)?;
    if !command.status()?.success() {
        return fail(format!("{} does not run under strace", runtime.name));
    }
    let text = fs::read_to_string(file)?;
    let mut found = Vec::new();
    let (mut begin, mut processes) = (None, Vec::new());
    for line in text.lines() {
        let Some((process, time, what)) = milestone(line) else { continue };
        if !processes.contains(&process) {
            processes.push(process);
        }
        let number = 1 + processes.iter().position(|p| *p == process).unwrap_or_default();
        let begin = *begin.get_or_insert(time);
        found.push((format!("process {number}: {what}"), (time - begin) * 1e6));
    }
    Ok(found)
}

/// A line of strace -f -ttt as process, time and the call with its first argument, if that is text.
fn milestone(line: &str) -> Option<(u32, f64, String)> {
    let (process, rest) = line.split_once(' ')?;
    let (time, call) = rest.trim_start().split_once(' ')?;
    if call.starts_with("<...") || call.starts_with("---") {
        return None;
    }
    let what = match call.split_once('(') {
        Some((name, arguments)) => match arguments.strip_prefix('"').and_then(|a| a.split_once('"')) {
            Some((path, _)) => format!("{name} {}", path.rsplit('/').next().unwrap_or(path)),
            None => name.to_owned(),
        },
        None => call.trim_matches(['+', ' ']).to_owned(),
    };
    Some((process.parse().ok()?, time.parse().ok()?, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_its_end_and_an_exit_are_told_apart() {
        let call = "31 1700000000.250000 execve(\"/usr/bin/true\", [\"true\"], 0x7f /* 2 vars */) = 0";
        assert_eq!(milestone(call), Some((31, 1_700_000_000.25, "execve true".into())));
        assert_eq!(milestone("31 1700000000.5 <... wait4 resumed>) = 32"), None);
        assert_eq!(milestone("32 1700000000.5 --- SIGCHLD {si_signo=SIGCHLD} ---"), None);
        let exit = milestone("32   1700000000.5 +++ exited with 0 +++");
        assert_eq!(exit, Some((32, 1_700_000_000.5, "exited with 0".into())));
    }
}
