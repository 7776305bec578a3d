//! Holds rcrun to its promises. A row that misses is measured again, up to three times with ever more rounds, before it
//! counts as missed: the machines this runs on are busy. The new rounds join the old ones and all are judged together, so
//! that no lucky attempt passes by itself.

use std::fmt::Write;

use crate::Result;
use crate::rounds::{Bench, Pace, Row, Series};
use crate::targets::{FAULTS, TARGETS, Target};

/// How one promise stands.
pub struct Verdict {
    /// The row's name and pace.
    pub name: String,
    /// The promise.
    pub promised: String,
    /// The median ratio with its quartiles.
    pub measured: String,
    /// Which runtimes were faster than rcrun in this row.
    pub faster: Vec<&'static str>,
    /// Whether the promise is kept.
    pub kept: bool,
}

/// How often a row that misses is measured again.
pub const RETRIES: usize = 3;

/// rcrun's place among the runtimes.
pub fn rcrun(bench: &Bench) -> Option<usize> {
    bench.runtimes.iter().position(|r| r.name == "rcrun")
}

/// Judges all promises by series that were measured already. Empty when rcrun is not measured.
pub fn judge_all(bench: &Bench, series: &[Series]) -> Vec<Verdict> {
    TARGETS
        .iter()
        .filter_map(|target| {
            let series = series.iter().find(|s| s.row == target.row && s.pace == target.pace)?;
            Some(judge(bench, rcrun(bench)?, target, series, 1.0))
        })
        .collect()
}

/// `slack` of 1.2 lets a promise be missed by a fifth: for machines whose other work nobody can stop.
fn judge(bench: &Bench, rcrun: usize, target: &Target, series: &Series, slack: f64) -> Verdict {
    let ratio = series.ratio(rcrun, 0);
    let faster = faster(bench, rcrun, series);
    let rounds = series.seconds[rcrun].len();
    let show =
        |median: f64, low: f64, high: f64| format!("{median:.2} ({low:.2}–{high:.2}), {rounds} rounds");
    let (promised, measured, reached) = if target.row.is_rate() {
        let rate = 1.0 / ratio.median;
        let measured = show(rate, 1.0 / ratio.high, 1.0 / ratio.low);
        (format!("at least {:.2}", target.limit), measured, rate >= target.limit / slack)
    } else {
        let measured = show(ratio.median, ratio.low, ratio.high);
        (format!("at most {:.2}", target.limit), measured, ratio.median <= target.limit * slack)
    };
    Verdict {
        name: name(target.row, target.pace),
        promised,
        measured,
        kept: reached && faster.is_empty(),
        faster,
    }
}

/// Judges what is counted: the page faults of each runtime's `run`, in their order.
pub fn judge_faults(bench: &Bench, faults: &[u64]) -> Result<Verdict> {
    let Some(rcrun) = rcrun(bench) else { return crate::fail("the gate needs rcrun") };
    let others = 1..bench.runtimes.len();
    let faster =
        others.filter(|other| bench.runtimes[*other].name != "bare" && faults[*other] < faults[rcrun]);
    Ok(Verdict {
        name: "page faults of one run".into(),
        promised: format!("at most {FAULTS} ({} of the floor)", faults[0]),
        measured: faults[rcrun].to_string(),
        faster: faster.map(|other| bench.runtimes[other].name).collect(),
        kept: faults[rcrun] <= FAULTS,
    })
}

/// Which runtimes took less time than rcrun.
pub fn faster(bench: &Bench, rcrun: usize, series: &Series) -> Vec<&'static str> {
    (1..bench.runtimes.len())
        .filter(|other| *other != rcrun && bench.runtimes[*other].name != "bare")
        .filter(|other| series.ratio(rcrun, *other).median >= 1.0)
        .map(|other| bench.runtimes[other].name)
        .collect()
}

fn name(row: Row, pace: Pace) -> String {
    match pace {
        Pace::BackToBack => row.name(),
        Pace::Pauses => format!("{}, with pauses", row.name()),
    }
}

/// Measures only what is promised, quickly, and says how each promise stands.
pub fn run(bench: &Bench, rounds: usize, slack: f64) -> Result<Vec<Verdict>> {
    let Some(rcrun) = rcrun(bench) else { return crate::fail("the gate needs rcrun") };
    let mut verdicts = Vec::new();
    let mut done: Vec<(crate::rounds::Work, Pace)> = Vec::new();
    for target in TARGETS {
        let work = target.row.work();
        if done.contains(&(work, target.pace)) {
            continue;
        }
        done.push((work, target.pace));
        let targets: Vec<&Target> =
            TARGETS.iter().filter(|t| t.row.work() == work && t.pace == target.pace).collect();
        let mut all = bench.measure(work, target.pace, rounds_of(work, rounds))?;
        let mut judged = judge_these(bench, rcrun, &targets, &all, slack);
        for attempt in 1..=RETRIES {
            let missed: Vec<&Verdict> = judged.iter().filter(|v| !v.kept).collect();
            if missed.is_empty() {
                break;
            }
            for verdict in missed {
                eprintln!("measuring again: {}", line(verdict));
            }
            let more = bench.measure(work, target.pace, rounds_of(work, rounds) * (attempt + 1))?;
            for (all, more) in all.iter_mut().zip(more) {
                for (all, mut more) in all.seconds.iter_mut().zip(more.seconds) {
                    all.append(&mut more);
                }
            }
            judged = judge_these(bench, rcrun, &targets, &all, slack);
        }
        verdicts.extend(judged);
    }
    Ok(verdicts)
}

fn judge_these(
    bench: &Bench,
    rcrun: usize,
    targets: &[&Target],
    series: &[Series],
    slack: f64,
) -> Vec<Verdict> {
    let of = |target: &&&Target| series.iter().find(|s| s.row == target.row);
    targets.iter().filter_map(|target| Some(judge(bench, rcrun, target, of(&target)?, slack))).collect()
}

/// A round of the parallel rows is 200 containers for each runtime.
pub fn rounds_of(work: crate::rounds::Work, rounds: usize) -> usize {
    match work {
        crate::rounds::Work::Parallel(_) => (rounds / 12).max(3),
        _ => rounds,
    }
}

impl Verdict {
    /// A row of a table without a column for who is faster.
    pub fn line(&self) -> String {
        let kept = if self.kept { "kept" } else { "**missed**" };
        format!("| {} | {} | {} | {kept} |", self.name, self.promised, self.measured)
    }
}

/// A row of [`table`].
pub fn line(verdict: &Verdict) -> String {
    let faster = if verdict.faster.is_empty() { "rcrun".into() } else { verdict.faster.join(", ") };
    let kept = if verdict.kept { "kept" } else { "**missed**" };
    format!("| {} | {} | {} | {faster} | {kept} |", verdict.name, verdict.promised, verdict.measured)
}

/// The promises as Markdown.
pub fn table(verdicts: &[Verdict]) -> Result<String> {
    let mut out = String::from(
        "| | promised ratio | measured (quartiles) | fastest runtime | |\n|---|---|---|---|---|\n",
    );
    for verdict in verdicts {
        writeln!(out, "{}", line(verdict))?;
    }
    Ok(out)
}
