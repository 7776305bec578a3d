//! What is counted rather than timed: memory of shims, and the programs that are executed for one container.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Way;
use super::place::Place;
use crate::{Result, fail};

/// How long a shim rests before its memory is read: what it has let go of by then is not needed.
const REST: Duration = Duration::from_secs(3);

/// KiB of all shims together.
pub struct Memory {
    /// One container.
    pub one: u64,
    /// As many, each with a shim of its own.
    pub each: u64,
    /// As many, in one pod, with one shim.
    pub pod: u64,
}

/// How many containers are many.
pub const MANY: usize = 50;

/// The memory of this way's shims.
pub fn memory(place: &Place, way: Way) -> Result<Memory> {
    Ok(Memory {
        one: of_containers(place, way, 1, false)?,
        each: of_containers(place, way, MANY, false)?,
        pod: of_containers(place, way, MANY, true)?,
    })
}

/// KiB (PSS) of the shims of that many containers.
pub fn of_containers(place: &Place, way: Way, count: usize, pod: bool) -> Result<u64> {
    let containers = place.start_containers(way, count, pod)?;
    std::thread::sleep(REST);
    let shims = place.shims()?;
    if shims.len() != if pod { 1 } else { count } {
        return fail(format!("{} shims for {count} containers by {}", shims.len(), way.name()));
    }
    let sum = shims.iter().map(|pid| pss(*pid)).sum::<Result<u64>>()?;
    containers.remove()?;
    Ok(sum)
}

fn pss(pid: i32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    match line.and_then(|rest| rest.split_whitespace().next()) {
        Some(kib) => Ok(kib.parse()?),
        None => fail(format!("/proc/{pid}/smaps_rollup has no Pss")),
    }
}

/// What containerd and all below it did for one `ctr run --rm`.
pub struct Births {
    /// execve and execveat that succeeded: the container's own program is one.
    pub programs: usize,
    /// Processes that were born, not threads.
    pub processes: usize,
}

/// Counts with strace, which follows containerd.
pub fn births(place: &Place, way: Way) -> Result<Births> {
    let file = "/run/bench-births";
    let mut strace = Command::new("strace")
        .args(["-f", "-o", file, "-e", "trace=execve,execveat,clone,clone3,fork,vfork", "-p"])
        .arg(place.containerd.daemon.pid().to_string())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(strace.stderr.take().ok_or("no pipe")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    let attached = line.contains("attached");
    // Whatever it says of children must not fill the pipe.
    let rest = std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    let ran = if attached { place.ctr_run(way).map(drop) } else { fail(format!("strace: {line}")) };
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGTERM)?;
    strace.wait()?;
    let _ = rest.join();
    ran?;
    Ok(counted(&fs::read_to_string(file)?))
}

fn counted(trace: &str) -> Births {
    let ends_well = |line: &&str| {
        line.rsplit_once(" = ")
            .is_some_and(|(_, value)| value.split_whitespace().next().is_some_and(|v| !v.starts_with('-')))
    };
    let lines: Vec<&str> = trace.lines().filter(ends_well).collect();
    let call = |line: &str, names: &[&str]| {
        names
            .iter()
            .any(|name| line.contains(&format!("{name}(")) || line.contains(&format!("{name} resumed")))
    };
    let programs = lines.iter().filter(|line| call(line, &["execve", "execveat"])).count();
    // A call that was interrupted by another's line has its flags in its first half.
    let threads = trace.lines().filter(|line| line.contains("CLONE_THREAD")).count();
    let born = lines.iter().filter(|line| call(line, &["clone", "clone3", "fork", "vfork"])).count();
    Births { programs, processes: born.saturating_sub(threads) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_processes_are_counted_and_threads_and_failures_are_not() {
        let births = counted(
            "10 clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD) = 11\n\
             10 vfork( <unfinished ...>\n\
             12 execve(\"/no\", [\"no\"], 0x1) = -1 ENOENT (No such file or directory)\n\
             12 execve(\"/bin/shim\", [\"shim\"], 0x1 <unfinished ...>\n\
             12 <... execve resumed>) = 0\n\
             10 <... vfork resumed>) = 12\n\
             12 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0} <unfinished ...>\n\
             12 <... clone3 resumed> => {parent_tid=[13]}, 88) = 13\n\
             12 clone3({flags=CLONE_VFORK|CLONE_NEWPID}, 88) = 14\n\
             14 execveat(5, \"\", [\"init\"], 0x1, AT_EMPTY_PATH) = 0\n\
             14 +++ exited with 0 +++\n",
        );
        assert_eq!((births.programs, births.processes), (2, 2));
    }
}
