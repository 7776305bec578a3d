//! What is promised of images, whether it is kept, and docs/benchmarks-image.md.

use std::fmt::Write;
use std::process::ExitCode;

use super::floors::Part;
use super::second::{self, Starts};
use super::tools::Tool;
use super::{Bench, Column, Kind, Series};
use crate::Result;
use crate::gate::{RETRIES, Verdict};
use crate::report::machine;
use crate::stats::{Quartiles, quartiles};

/// A promise: the median of rcrun's time is at most this many times the other's.
struct Promise {
    to: Beside,
    limit: f64,
}

/// What rcrun is held against.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    /// The fastest of the other tools that verify both digests of a layer.
    Verifying,
    Tar,
    Floor,
}

const PROMISES: &[Promise] = &[
    Promise { to: Beside::Verifying, limit: 0.5 },
    Promise { to: Beside::Tar, limit: 1.0 },
    Promise { to: Beside::Floor, limit: 1.3 },
];

/// A second run of an image, to a plain bundle.
const SECOND_RUN: f64 = 1.3;
/// A start takes milliseconds, an image seconds.
const STARTS: usize = 12;

const FLOORS: [Column; 2] = [Column::Floor(Part::Verify), Column::Floor(Part::Write)];

/// The columns that promises are about.
fn promised(kind: Kind) -> Vec<Column> {
    let tools = [Tool::Rcrun, Tool::Umoci, Tool::Containerd, Tool::Tar];
    columns(kind, &tools).chain(FLOORS).collect()
}

fn all(kind: Kind) -> Vec<Column> {
    let tools = [Tool::Rcrun, Tool::Umoci, Tool::Containerd, Tool::Skopeo, Tool::Tar, Tool::Copy];
    let parts = [Part::Decompress, Part::Hash].map(Column::Floor);
    columns(kind, &tools).chain(parts).chain(FLOORS).collect()
}

fn columns(kind: Kind, tools: &[Tool]) -> impl Iterator<Item = Column> {
    tools.iter().copied().filter(move |tool| tool.reads(kind)).map(Column::Tool)
}

fn judge(series: &Series, promise: &Promise, slack: f64) -> Result<Verdict> {
    let mut name = format!("{}: rcrun to ", series.kind.name());
    let ratio = match promise.to {
        Beside::Tar => {
            name += "GNU tar";
            series.rcrun_to(series.of(Column::Tool(Tool::Tar))?)?
        }
        Beside::Floor => {
            name += "the floor";
            series.rcrun_to(&series.floor()?)?
        }
        Beside::Verifying => {
            let others =
                series.columns.iter().zip(&series.seconds).filter_map(|(column, seconds)| match column {
                    Column::Tool(tool) if tool.verifies() && *tool != Tool::Rcrun => Some((tool, seconds)),
                    _ => None,
                });
            let median = |seconds: &[f64]| quartiles(seconds.iter().copied()).median;
            let (tool, seconds) = others
                .min_by(|a, b| median(a.1).total_cmp(&median(b.1)))
                .ok_or("no other tool that verifies was measured")?;
            write!(name, "{}, the fastest other tool that verifies", tool.name())?;
            series.rcrun_to(seconds)?
        }
    };
    Ok(verdict(name, promise.limit, ratio, series.seconds[0].len(), slack))
}

fn verdict(name: String, limit: f64, ratio: Quartiles, rounds: usize, slack: f64) -> Verdict {
    Verdict {
        name,
        promised: format!("at most {limit:.2}"),
        measured: format!("{}, {rounds} rounds", shown(ratio)),
        faster: Vec::new(),
        kept: ratio.median <= limit * slack,
    }
}

fn judge_second(starts: &Starts, slack: f64) -> Verdict {
    let name = "a second run of an image, to a plain bundle".into();
    verdict(name, SECOND_RUN, starts.ratio(), starts.rounds(), slack)
}

/// Measures, and measures again what missed, as often as `retries` says; the new rounds join the old ones.
fn measured(
    bench: &Bench,
    columns: fn(Kind) -> Vec<Column>,
    rounds: usize,
    retries: usize,
    slack: f64,
) -> Result<(Vec<Series>, Starts, Vec<Verdict>)> {
    let (mut all, mut verdicts) = (Vec::new(), Vec::new());
    let judged = |series: &Series| -> Result<Vec<Verdict>> {
        PROMISES.iter().map(|promise| judge(series, promise, slack)).collect()
    };
    for kind in [Kind::Gzip, Kind::Zstd] {
        eprintln!("bench: {}", kind.name());
        let mut series = bench.measure(kind, &columns(kind), rounds, 1)?;
        for _ in 0..retries {
            let missed = judged(&series)?.iter().filter(|v| !v.kept).map(Verdict::line).collect::<Vec<_>>();
            if missed.is_empty() {
                break;
            }
            eprintln!("measuring again: {}", missed.join("; "));
            series.append(bench.measure(kind, &columns(kind), rounds, 0)?);
        }
        verdicts.extend(judged(&series)?);
        all.push(series);
    }
    let mut starts = Starts::default();
    for _ in 0..=retries {
        second::measure(bench, rounds * STARTS, &mut starts)?;
        if judge_second(&starts, slack).kept {
            break;
        }
    }
    verdicts.push(judge_second(&starts, slack));
    Ok((all, starts, verdicts))
}

/// `make bench-image-gate`: only what is promised.
pub fn gate(bench: &Bench, rounds: usize, slack: f64) -> Result<ExitCode> {
    let (_, _, verdicts) = measured(bench, promised, rounds, RETRIES, slack)?;
    print!("{}", promises(&verdicts)?);
    let missed = verdicts.iter().filter(|v| !v.kept).count();
    println!("{} passed, {missed} failed", verdicts.len() - missed);
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `make bench-image`: everything, and the page.
pub fn table(bench: &Bench, rounds: usize) -> Result<String> {
    let (all, starts, verdicts) = measured(bench, self::all, rounds, 0, 1.0)?;
    let mut out = String::from(PREFACE);
    writeln!(out, "{}\n", machine()?)?;
    for tool in [Tool::Umoci, Tool::Containerd, Tool::Skopeo, Tool::Tar] {
        if let Some(version) = tool.version()? {
            writeln!(out, "- {}: {version}", tool.name())?;
        }
    }
    for series in &all {
        writeln!(
            out,
            "\n## {}\n\n{}; {} MB of tar, {} files, folders and links in the end.\n",
            series.kind.name(),
            bench.layers(series.kind).words(),
            bench.layers[0].bytes() / 1_000_000,
            bench.entries
        )?;
        let heading =
            "| | verifies | time | of processors | to GNU tar | to the floor |\n|---|---|---|---|---|---|";
        writeln!(out, "{heading}")?;
        let tar = series.of(Column::Tool(Tool::Tar))?;
        let floor = series.floor()?;
        for ((column, seconds), worked) in series.columns.iter().zip(&series.seconds).zip(&series.worked) {
            let verifies = match column {
                Column::Tool(tool) => tool.verified(),
                Column::Floor(_) => "",
            };
            row(&mut out, column.name(), verifies, Some(worked), seconds, tar, &floor)?;
        }
        row(&mut out, "**floor**: the larger of the last two", "", None, &floor, tar, &floor)?;
        let here = series.floor_here()?;
        row(&mut out, "the floor on these processors", "", None, &here, tar, &floor)?;
    }
    writeln!(out, "\n## The second run\n\n| a plain bundle | the image, to that |\n|---|---|")?;
    writeln!(out, "| {:.2} ms | {} |", starts.bundle().median * 1e3, shown(starts.ratio()))?;
    writeln!(out, "\n## What is promised\n\n{}", promises(&verdicts)?.trim_end())?;
    out += METHOD;
    Ok(out)
}

fn row(
    out: &mut String,
    name: &str,
    verifies: &str,
    worked: Option<&Vec<f64>>,
    seconds: &[f64],
    tar: &[f64],
    floor: &[f64],
) -> Result<()> {
    let median = |seconds: &[f64]| format!("{:.2} s", quartiles(seconds.iter().copied()).median);
    let (time, work) = (median(seconds), worked.map_or(String::new(), |worked| median(worked)));
    let to = |others: &[f64]| shown(quartiles(seconds.iter().zip(others).map(|(one, other)| one / other)));
    Ok(writeln!(out, "| {name} | {verifies} | {time} | {work} | {} | {} |", to(tar), to(floor))?)
}

fn shown(ratio: Quartiles) -> String {
    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
}

fn promises(verdicts: &[Verdict]) -> Result<String> {
    let mut out = String::from("| | promised ratio | measured (quartiles) | |\n|---|---|---|---|\n");
    for verdict in verdicts {
        writeln!(out, "{}", verdict.line())?;
    }
    Ok(out)
}

const PREFACE: &str = "# Benchmarks of images

<!-- Written by `make bench-image`; edit runtime-tests/bench/image/page.rs instead. -->

`make bench-image` makes an image from Debian packages (`runtime-tests/bench/image.sh`: Python and a C compiler, five
layers, whiteouts), and times how long it takes until there is a root file system of it. Only the ratios travel to
another machine.

- **rcrun** is `rcrun image load` into a new store: it verifies both digests of every layer, keeps the blobs, and
  unpacks, behind the walls of its jail.
- **umoci** unpacks into a bundle. **containerd** is `ctr image import` into a new containerd without CRI, which keeps
  the blobs too. **skopeo** copies into a new store of podman's, of its overlay driver.
- **tar** is `tar xzf`, or `zstd -dc | tar xf`, layer by layer into one folder. **cp -a** copies the finished tree.
- **decompress**, **hash**, **decompress and hash** and **write the tree** are parts of rcrun's work with rcrun's own code
  and as many threads: the third reads and verifies everything and writes nothing, the fourth unpacks tars that lie in
  memory and hashes nothing. The **floor** is the larger of these two in each round: as fast as it goes where there are
  processors enough to do one beside the other. Where both already keep all processors busy, the whole takes longer than
  the larger: *the floor on these processors* is what their time adds up to, shared out evenly. Its own ratio to the floor
  is the least that rcrun's can be there, whatever its code does: with all processors busy it is one and the smaller half's
  share of the larger. What rcrun takes of processors above the two halves together is the copy of the blobs that the
  store keeps, which the jail reads once more, and the changes from thread to thread.

";

const METHOD: &str = "
## How it is measured

- Each round gives every tool the same image once, in an order that rotates by one each round. A ratio compares two times
  of one round; the tables show the median of these ratios and their quartiles.
- Each run goes into an empty tmpfs of its own (`BENCH_IMAGE_DIR=DIR` takes new folders of a file system instead, removed
  at the end). So no disk is waited for, and the tools that sync what they write are not charged for it.
- *of processors* is the time of all processors, user and system, that a run took: with two of them it cannot last less
  than half of it. It includes the start and the end of containerd.
- The image is in the page cache: a first round is not counted.
- *verifies* says what was tried: an image with a blob that is not what its digest says, and one with a layer whose
  tar is not what the configuration says. Both are refused by who verifies both digests.
- containerd is started, and stopped, off the clock. It reads a tar of the layout, which is made off the clock too.
- A run counts only if it left as many files as the tree of the image has.
- The second run: `rcrun run IMAGE /bin/true` with the layers in the store, and `rcrun run` of a bundle with the same
  root in one folder and the same configuration.
";
