//! Holds rcrun to its promises. A row that misses is measured again, up to three times with ever more rounds, before it
//! counts as missed: the machines this runs on are busy.

use std::fmt::Write;

use crate::Result;
use crate::rounds::{Bench, Pace, Row, Series};
use crate::targets::{TARGETS, Target};

/// How one promise stands.
pub struct Verdict {
    /// The row's name and pace.
    pub name: String,
    /// The promise.
    pub promised: String,
    /// What was measured.
    pub measured: String,
    /// Which runtimes were faster than rcrun in this row.
    pub faster: Vec<&'static str>,
    /// Whether the promise is kept.
    pub kept: bool,
}

const RETRIES: usize = 3;

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
            Some(judge(bench, rcrun(bench)?, target, series))
        })
        .collect()
}

fn judge(bench: &Bench, rcrun: usize, target: &Target, series: &Series) -> Verdict {
    let ratio = series.ratio(rcrun, 0);
    let faster: Vec<&str> = (1..bench.runtimes.len())
        .filter(|other| *other != rcrun && series.ratio(rcrun, *other).median >= 1.0)
        .map(|other| bench.runtimes[other].name)
        .collect();
    let (promised, measured, reached) = if target.row.is_rate() {
        let rate = 1.0 / ratio.median;
        (format!("at least {:.2}", target.limit), rate, rate >= target.limit)
    } else {
        (format!("at most {:.2}", target.limit), ratio.median, ratio.median <= target.limit)
    };
    Verdict {
        name: name(target.row, target.pace),
        promised,
        measured: format!("{measured:.2}"),
        kept: reached && faster.is_empty(),
        faster,
    }
}

fn name(row: Row, pace: Pace) -> String {
    match pace {
        Pace::BackToBack => row.name(),
        Pace::Pauses => format!("{}, with pauses", row.name()),
    }
}

/// Measures only what is promised, quickly, and says how each promise stands.
pub fn run(bench: &Bench, rounds: usize) -> Result<Vec<Verdict>> {
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
        let mut kept: Vec<Option<Verdict>> = targets.iter().map(|_| None).collect();
        for attempt in 0..=RETRIES {
            let series = bench.measure(work, target.pace, rounds_of(work, rounds) << attempt)?;
            for (target, kept) in targets.iter().zip(&mut kept) {
                if kept.as_ref().is_some_and(|v| v.kept) {
                    continue;
                }
                if let Some(series) = series.iter().find(|s| s.row == target.row) {
                    let verdict = judge(bench, rcrun, target, series);
                    if !verdict.kept {
                        eprintln!("missed: {}", line(&verdict));
                    }
                    *kept = Some(verdict);
                }
            }
            if kept.iter().flatten().all(|v| v.kept) {
                break;
            }
        }
        verdicts.extend(kept.into_iter().flatten());
    }
    Ok(verdicts)
}

/// A round of the parallel rows is 200 containers for each runtime.
pub fn rounds_of(work: crate::rounds::Work, rounds: usize) -> usize {
    match work {
        crate::rounds::Work::Parallel(_) => (rounds / 12).max(3),
        _ => rounds,
    }
}

fn line(verdict: &Verdict) -> String {
    let faster = if verdict.faster.is_empty() { "rcrun".into() } else { verdict.faster.join(", ") };
    let kept = if verdict.kept { "kept" } else { "**missed**" };
    format!("| {} | {} | {} | {faster} | {kept} |", verdict.name, verdict.promised, verdict.measured)
}

/// The promises as Markdown.
pub fn table(verdicts: &[Verdict]) -> Result<String> {
    let mut out =
        String::from("| | promised ratio | measured | fastest runtime | |\n|---|---|---|---|---|\n");
    for verdict in verdicts {
        writeln!(out, "{}", line(verdict))?;
    }
    Ok(out)
}
