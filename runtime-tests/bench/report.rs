//! The result in words: docs/benchmarks.md from what was measured. Pure but for the machine's own name and date.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::Result;
use crate::facts::Facts;
use crate::gate::Verdict;
use crate::plot::{Axis, Bars, svg};
use crate::rounds::{Pace, Series};
use crate::runtimes::Runtime;
use crate::stats::Quartiles;

/// All that docs/benchmarks.md tells.
pub struct Report<'a> {
    /// The floor first.
    pub runtimes: &'a [Runtime],
    /// Every row at every pace.
    pub series: &'a [Series],
    /// In the runtimes' order.
    pub facts: &'a [Facts],
    /// The promises, when rcrun was measured.
    pub verdicts: &'a [Verdict],
    /// From `steps`, when rcrun was measured.
    pub steps: Option<String>,
    /// Whether the floor had a filter in the row with Docker's profile.
    pub floor_filtered: bool,
}

impl Report<'_> {
    /// The tables, as Markdown, which is also what the terminal shows.
    pub fn tables(&self) -> Result<String> {
        let mut out = String::new();
        for (pace, title) in [
            (Pace::BackToBack, "Back to back"),
            (
                Pace::Pauses,
                "With a pause of 20 ms before each operation (parallel: 20 bursts instead of 200 runs)",
            ),
        ] {
            writeln!(out, "## {title}\n\nRatio to the floor in the same round: median (quartiles).\n")?;
            self.heading(&mut out, "floor", |out| {
                for series in self.series.iter().filter(|s| s.pace == pace) {
                    write!(out, "| {} | {} |", series.row.name(), own(series, 0))?;
                    for runtime in 1..self.runtimes.len() {
                        write!(out, " {} |", ratio(series, runtime))?;
                    }
                    writeln!(out)?;
                }
                Ok(())
            })?;
            writeln!(
                out,
                "\nAbsolute medians, of this machine in this hour only: they travel to no other.\n"
            )?;
            self.heading(&mut out, "floor", |out| {
                for series in self.series.iter().filter(|s| s.pace == pace) {
                    write!(out, "| {} |", series.row.name())?;
                    for runtime in 0..self.runtimes.len() {
                        write!(out, " {} |", own(series, runtime))?;
                    }
                    writeln!(out)?;
                }
                Ok(())
            })?;
            writeln!(out)?;
        }
        if !self.floor_filtered {
            writeln!(out, "The floor had no filter in the row with Docker's profile.\n")?;
        }
        writeln!(out, "## Size\n")?;
        self.heading(&mut out, "floor", |out| {
            self.facts_row(out, "peak memory of one run, MB", |f| megabytes(f.peak_kib))?;
            self.facts_row(out, "page faults of one run", |f| f.faults.to_string())?;
            self.facts_row(out, "system calls of one run", |f| f.calls.to_string())?;
            self.facts_row(out, "binary, MB", |f| {
                format!("{:.2}", (f.bytes - f.library_bytes) as f64 / 1e6)
            })?;
            self.facts_row(out, "with the libraries it brings, MB", |f| {
                format!("{:.2}", f.bytes as f64 / 1e6)
            })
        })?;
        Ok(out)
    }

    fn heading(
        &self,
        out: &mut String,
        first: &str,
        rows: impl FnOnce(&mut String) -> Result<()>,
    ) -> Result<()> {
        let others = self.runtimes[1..].iter().map(|r| format!(" {} |", r.name)).collect::<String>();
        writeln!(out, "| | {first} |{others}\n|---|{}", "---|".repeat(self.runtimes.len()))?;
        rows(out)
    }

    fn facts_row(&self, out: &mut String, name: &str, value: impl Fn(&Facts) -> String) -> Result<()> {
        let values = self.facts.iter().map(|f| format!(" {} |", value(f))).collect::<String>();
        Ok(writeln!(out, "| {name} |{values}")?)
    }

    /// The whole page.
    pub fn page(&self) -> Result<String> {
        let mut out = String::from(PREFACE);
        writeln!(out, "{}\n", machine()?)?;
        for runtime in &self.runtimes[1..] {
            writeln!(out, "- {}: {}", runtime.name, runtime.version)?;
        }
        writeln!(out, "\n![ratios to the floor](benchmarks.svg)\n")?;
        out += &self.tables()?;
        if !self.verdicts.is_empty() {
            writeln!(out, "\n## What is promised\n")?;
            out += &crate::gate::table(self.verdicts)?;
        }
        if let Some(steps) = &self.steps {
            writeln!(out, "\n## Where rcrun's time goes\n\n{steps}")?;
        }
        out += METHOD;
        Ok(out)
    }

    /// The picture: rows back to back.
    pub fn plot(&self) -> String {
        let legend: Vec<&str> = self.runtimes[1..].iter().map(|r| r.name).collect();
        let rows: Vec<Bars> = self
            .series
            .iter()
            .filter(|s| s.pace == Pace::BackToBack)
            .map(|s| Bars {
                name: s.row.name(),
                ratios: (1..self.runtimes.len()).map(|r| s.ratio(r, 0).median).collect(),
            })
            .collect();
        svg(&Axis { title: "Time as a multiple of the floor's", one: "floor" }, &legend, &rows)
    }
}

/// The kernel counts resident pages in batches for each processor: what is smaller than those reads as nothing.
fn megabytes(kib: u64) -> String {
    if kib < 256 { "under 0.25".into() } else { format!("{:.2}", kib as f64 / 1024.0) }
}

/// Milliseconds, or containers per second.
fn own(series: &Series, runtime: usize) -> String {
    let median = series.time(runtime).median;
    if series.row.is_rate() { format!("{:.0}/s", 1.0 / median) } else { format!("{:.2} ms", median * 1e3) }
}

fn ratio(series: &Series, runtime: usize) -> String {
    let Quartiles { low, median, high } = series.ratio(runtime, 0);
    if series.row.is_rate() {
        format!("{:.2} ({:.2}–{:.2})", 1.0 / median, 1.0 / high, 1.0 / low)
    } else {
        format!("{median:.2} ({low:.2}–{high:.2})")
    }
}

/// The machine and the day, in words.
pub fn machine() -> Result<String> {
    let date = Command::new("date").arg("+%Y-%m-%d").output()?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let models: Vec<&str> =
        cpus.lines().filter(|l| l.starts_with("model name")).filter_map(|l| l.split(": ").nth(1)).collect();
    Ok(format!(
        "Measured on {}, kernel {}, {} × {}.",
        String::from_utf8_lossy(&date.stdout).trim(),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        models.len(),
        models.first().unwrap_or(&"processor without a name"),
    ))
}

const PREFACE: &str = "# Benchmarks

<!-- Written by `make bench`; edit runtime-tests/bench/report.rs instead. -->

`make bench` sets up all runtimes, times them in one run and writes this page. The **floor** is a C program
(`runtime-tests/bench/floor.c`), linked statically with the C library, that makes the container of `runc spec` with bare
system calls: it parses nothing and checks nothing. Every other figure is a multiple of it. Only these ratios travel to
another machine. **bare** is the same program without the C library's start: how far a program that is nothing but system
calls gets. The promises are made against the floor; the column shows what is left to gain. What a full machine changes is in
[benchmarks-load.md](benchmarks-load.md), how fast images unpack in [benchmarks-image.md](benchmarks-image.md), what a
container costs through containerd and Docker in [benchmarks-engines.md](benchmarks-engines.md).

";

const METHOD: &str = "
## How it is measured

- Each round gives every runtime the same work once, in an order that rotates by one each round. A ratio compares two
  times of one round; the tables show the median of these ratios. A busy machine slows all runtimes of a round.
- The container is that of `runc spec` (six namespaces, seven mounts, masks, a device filter, a cgroup), its root file
  system busybox on a tmpfs. `run` and `exec` run /bin/true. `create`, `start`, `state`, `exec`, `kill` and `delete` are the
  life of one sleeping container; the time between kill and the end of init is charged to nobody.
- It all happens in a mount namespace of its own that looks like a cgroup v2 host with an empty /run. Cgroups and
  containers are removed afterwards, also when the benchmark is interrupted.
- With Docker's profile, the floor loads a filter that was compiled before by rcrun: as strict, and as quick to load.
- `start` of rcrun waits until execve has succeeded or failed; the floor's does not.
- crun is trixie's, with trixie's own C library and loader written into the binary (patchelf), so that no wrapper is
  charged to it. Its libraries lie in one folder instead of the loader's cache: a few failing opens more, one file less.
- Peak memory is that of the largest process (ru_maxrss) with a payload of a few kilobytes. Page faults are
  those of all processes of that run, of a copy of the binary on a tmpfs: how many pages one fault brings depends on how a
  file came into memory. System calls are counted by `strace -f -c` and include the payload's.
";
