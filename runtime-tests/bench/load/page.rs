//! What is promised of a machine under load, whether it is kept, and docs/benchmarks-load.md.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::{CGROUPS, CONTAINERS, Growth, Load, MOUNTS, ROUNDS};
use crate::gate::{self, RETRIES, Verdict, line};
use crate::host;
use crate::report::machine;
use crate::rounds::{Bench, Row};
use crate::stats::Quartiles;
use crate::{Result, fail};

/// The ratio of these verbs to the floor grows by at most this factor under each load.
const PROMISED: [Row; 4] = [Row::Start, Row::Exec, Row::State, Row::Delete];
const LIMIT: f64 = 1.1;

fn judge(bench: &Bench, growth: &Growth, row: Row, slack: f64) -> Result<Verdict> {
    let Some(rcrun) = gate::rcrun(bench) else { return fail("the gate needs rcrun") };
    let (Some(measured), Some((_, under))) = (growth.of_runtime(row, rcrun), growth.of(row)) else {
        return fail(format!("{} was not measured", row.name()));
    };
    let rounds = under.seconds[rcrun].len();
    Ok(Verdict {
        name: format!("{}, {}", row.name(), growth.load.name()),
        promised: format!("grows by at most {LIMIT:.2}"),
        measured: format!("{}, {} blocks", show(measured), rounds / ROUNDS),
        faster: gate::faster(bench, rcrun, under),
        kept: measured.median <= LIMIT * slack,
    })
}

/// Measures all loads at once, quickly, and says how each promise stands. What misses is measured again, as in the gate.
pub fn gate(bench: &Bench, blocks: usize, slack: f64) -> Result<Vec<Verdict>> {
    let mut growth = Growth::measure(bench, Load::All, blocks)?;
    let judge_all = |growth: &Growth| -> Result<Vec<Verdict>> {
        PROMISED.iter().map(|row| judge(bench, growth, *row, slack)).collect()
    };
    let mut verdicts = judge_all(&growth)?;
    for _ in 0..RETRIES {
        let missed: Vec<&Verdict> = verdicts.iter().filter(|v| !v.kept).collect();
        if missed.is_empty() {
            break;
        }
        for verdict in missed {
            eprintln!("measuring again: {}", verdict.line());
        }
        let more = Growth::measure(bench, Load::All, blocks)?;
        growth.append(more.alone, more.under);
        verdicts = judge_all(&growth)?;
    }
    Ok(verdicts)
}

/// Measures every load with all runtimes, as docs/benchmarks-load.md.
pub fn page(bench: &Bench, blocks: usize) -> Result<String> {
    let alone = counts()?;
    let begin = load_average()?;
    let all = [Load::Containers, Load::Cgroups, Load::Mounts, Load::All]
        .into_iter()
        .map(|load| Growth::measure(bench, load, blocks))
        .collect::<Result<Vec<Growth>>>()?;
    let mut out = String::from(PREFACE);
    writeln!(
        out,
        "{} Other jobs ran meanwhile: the load average was {begin} at the beginning and {} at the end, of which one \
         is the benchmark. {blocks} blocks of {ROUNDS} rounds each. Alone there are {alone}.\n",
        machine()?,
        load_average()?
    )?;
    for runtime in &bench.runtimes[1..] {
        writeln!(out, "- {}: {}", runtime.name, runtime.version)?;
    }
    writeln!(out, "\n## Growth of the ratio to the floor: median of the blocks (quartiles)")?;
    for growth in &all {
        writeln!(out, "\n### {}\n", growth.load.name())?;
        table(&mut out, bench, growth)?;
    }
    writeln!(out, "\n## What is promised\n")?;
    out +=
        "| | promised ratio | measured (quartiles) | fastest runtime under load | |\n|---|---|---|---|---|\n";
    for growth in &all {
        for row in PROMISED {
            writeln!(out, "{}", line(&judge(bench, growth, row, 1.0)?))?;
        }
    }
    method(&mut out)?;
    Ok(out)
}

fn table(out: &mut String, bench: &Bench, growth: &Growth) -> Result<()> {
    let names = bench.runtimes[1..].iter().map(|r| format!(" {} |", r.name)).collect::<String>();
    writeln!(out, "| | floor alone | floor under load |{names}")?;
    writeln!(out, "|---|---|---|{}", "---|".repeat(bench.runtimes.len() - 1))?;
    for row in growth.rows() {
        let Some((alone, under)) = growth.of(row) else { continue };
        let [alone, under] = [alone, under].map(|series| series.time(0).median * 1e3);
        write!(out, "| {} | {alone:.2} ms | {under:.2} ms |", row.name())?;
        for runtime in 1..bench.runtimes.len() {
            let cell = growth.of_runtime(row, runtime).map(show).unwrap_or_default();
            write!(out, " {cell} |")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn show(growth: Quartiles) -> String {
    format!("{:.2} ({:.2}–{:.2})", growth.median, growth.low, growth.high)
}

/// What the private machine has without a load.
fn counts() -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    let stat = fs::read_to_string(Path::new(host::CGROUPS).join("cgroup.stat"))?;
    let cgroups = stat.lines().find_map(|line| line.strip_prefix("nr_descendants ")).unwrap_or("no");
    Ok(format!("{mounts} mounts, {cgroups} cgroups and the one container that is measured"))
}

fn load_average() -> Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned())
}

const PREFACE: &str = "# What a verb costs on a full machine

<!-- Written by `make bench-load`, a part of `make bench`; edit runtime-tests/bench/load/page.rs instead. -->

What rcrun does depends on nothing but the container that it is asked about: it lists no containers, walks no cgroups and
reads no table of mounts. The kernel does have more to do where there is more: it copies every mount of the machine for
a new mount namespace and drops the copies after pivot_root. The floor (see [benchmarks.md](benchmarks.md)) pays that
too, so the ratio to the floor under the same load says what a runtime adds. 1.00 is a ratio that does not grow.

";

fn method(out: &mut String) -> Result<()> {
    Ok(write!(
        out,
        "
## How it is measured

- A block is {ROUNDS} rounds of one container's life (create, start, state, exec, kill, delete) for every runtime, alone;
  then the load is put on the machine, {ROUNDS} rounds follow, and it is taken away. A block's growth is the median of
  the ratios to the floor under the load over their median alone. The tables show the median of the blocks' growths.
- {CONTAINERS} containers: those of `runc spec` with a sleeping busybox, each with its namespaces and its cgroup, all
  below the state root that rcrun is measured with. The other runtimes' state roots hold nothing but the container that
  is measured: of what they do with a list of their own containers nothing shows here.
- {CGROUPS} cgroups: in one folder of the hierarchy that the containers' cgroups are made in.
- {MOUNTS} mounts: shared bind mounts, as systemd shares those of a machine, in a mount namespace of the benchmark's.
- That rcrun makes the same system calls and reads as many bytes with and without a load is tested by
  `runtime-tests/tests/load.rs`, which no other job on the machine disturbs.
"
    )?)
}
