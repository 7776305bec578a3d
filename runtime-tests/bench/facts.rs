//! What is counted rather than timed: peak memory, system calls of one run, the size of what is installed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::host::WORK;
use crate::rounds::Bench;
use crate::runtimes::{Quiet, Runtime};
use crate::{Result, fail};

/// The counts of one runtime.
pub struct Facts {
    /// KiB, the largest process of one `run` with a payload of a few kilobytes; median of five.
    pub peak_kib: u64,
    /// Page faults of one `run` with that payload, all processes together; median of five.
    pub faults: u64,
    /// System calls of one `run` of /bin/true, all processes together.
    pub calls: u64,
    /// Bytes of the binary, and of the shared libraries that were brought with it.
    pub bytes: u64,
    /// Bytes of those libraries alone.
    pub library_bytes: u64,
}

/// Counts for every runtime, in their order. `peak` is the program of peak.c.
pub fn count(bench: &Bench, peak: &Path) -> Result<Vec<Facts>> {
    bench
        .runtimes
        .iter()
        .map(|runtime| {
            let library_bytes = libraries(&runtime.binary)?;
            let (peak_kib, faults) = touched(bench, runtime, peak)?;
            Ok(Facts {
                peak_kib,
                faults,
                calls: calls(bench, runtime)?.values().map(|c| c.calls).sum(),
                bytes: fs::metadata(&runtime.binary)?.len() + library_bytes,
                library_bytes,
            })
        })
        .collect()
}

/// crun's libraries lie in lib/ beside it.
fn libraries(binary: &Path) -> Result<u64> {
    let folder = binary.with_file_name("lib");
    if binary.file_name() != Some("crun".as_ref()) || !folder.is_dir() {
        return Ok(0);
    }
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Peak memory in KiB, and page faults. Of a copy on a tmpfs: how many pages of a program one fault brings depends on how its
/// file came into memory, and there it came page by page.
pub fn touched(bench: &Bench, runtime: &Runtime, peak: &Path) -> Result<(u64, u64)> {
    let runtime = runtime.copied()?;
    let mut values = Vec::new();
    for _ in 0..5 {
        let id = bench.id();
        let args = ["run".as_ref(), "-b".as_ref(), bench.bundles.nothing.as_os_str(), id.as_ref()];
        let out = runtime.command(&[peak.as_os_str()], &args, false).output()?;
        if !out.status.success() {
            return fail(format!("{} under peak: {}", runtime.name, String::from_utf8_lossy(&out.stderr)));
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let Some((kib, faults)) = text.trim().split_once(' ') else { return fail(format!("peak: {text}")) };
        values.push((kib.parse::<u64>()?, faults.parse::<u64>()?));
    }
    let median = |mut values: Vec<u64>| {
        values.sort_unstable();
        values[2]
    };
    let (peaks, faults): (Vec<u64>, Vec<u64>) = values.into_iter().unzip();
    Ok((median(peaks), median(faults)))
}

/// One system call's part in a run.
#[derive(Clone, Copy, Default)]
pub struct Calls {
    /// How often, failing ones too.
    pub calls: u64,
    /// Seconds spent in it while traced: waiting counts, and tracing itself costs.
    pub seconds: f64,
}

/// Counts a run's system calls by name, with strace following every process.
pub fn calls(bench: &Bench, runtime: &Runtime) -> Result<BTreeMap<String, Calls>> {
    let file = Path::new(WORK).join("strace");
    let id = bench.id();
    let strace: [&OsStr; 6] =
        ["strace".as_ref(), "-f".as_ref(), "-w".as_ref(), "-c".as_ref(), "-o".as_ref(), file.as_os_str()];
    let args = ["run".as_ref(), "-b".as_ref(), bench.bundles.quick.as_os_str(), id.as_ref()];
    let mut command = runtime.command(&strace, &args, false);
    Quiet::new("strace")?.apply(&mut command)?;
    if !command.status()?.success() {
        return fail(format!("{} does not run under strace", runtime.name));
    }
    let table = parse(&fs::read_to_string(file)?);
    if table.is_empty() { fail("strace counted nothing") } else { Ok(table) }
}

/// strace -c: share, seconds, microseconds a call, calls, perhaps errors, name.
fn parse(table: &str) -> BTreeMap<String, Calls> {
    let mut found = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, seconds, _, calls, .., name] = words[..] else { continue };
        if let (Ok(seconds), Ok(calls), false) = (seconds.parse(), calls.parse(), name == "total") {
            found.insert(name.to_owned(), Calls { calls, seconds });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strace_lines_with_and_without_errors_are_counted_and_the_total_is_not() {
        let table = parse(
            "% time     seconds  usecs/call     calls    errors syscall\n\
             ------ ----------- ----------- --------- --------- ----------------\n\
             75.00    0.000300         100         3         1 mount\n\
             25.00    0.000100          50         2           close\n\
             ------ ----------- ----------- --------- --------- ----------------\n\
             100.00    0.000400          80         5         1 total\n",
        );
        let counts: Vec<_> = table.iter().map(|(name, c)| (name.as_str(), c.calls)).collect();
        assert_eq!(counts, [("close", 2), ("mount", 3)]);
        assert!((table["mount"].seconds - 0.0003).abs() < 1e-9);
    }
}
