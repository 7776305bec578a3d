//! What is promised of containerd with rcrun's shim, whether it is kept, and docs/benchmarks-engines.md.

use std::fmt::Write;
use std::fs;
use std::process::ExitCode;

use super::counts::{self, Births, MANY, Memory};
use super::place::Place;
use super::{Row, Series, WAYS, WAYS_OF_DOCKER, Way, measure};
use crate::gate::{RETRIES, Verdict};
use crate::plot::{Axis, Bars, svg};
use crate::report::machine;
use crate::stats::Quartiles;
use crate::{Options, Result, judged};

/// Of the time that runc's shim with crun takes, after the client's own.
const TIME: f64 = 0.7;
/// Of the memory of runc's shim.
const MEMORY: f64 = 1.0 / 3.0;

fn judge_time(series: &Series, slack: f64) -> Result<Verdict> {
    let ratio = series.ratio_after_client(Way::Rcrun, Way::StockCrun)?;
    let mut faster = Vec::new();
    for way in series.ways.iter().copied().filter(|way| ![Way::Client, Way::Rcrun].contains(way)) {
        if series.ratio(Way::Rcrun, way)?.median >= 1.0 {
            faster.push(way.name());
        }
    }
    Ok(Verdict {
        name: "ctr run --rm after the client's own cost, to runc's shim with crun".into(),
        promised: format!("at most {TIME:.2}"),
        measured: format!("{}, {} rounds", show(ratio), series.rounds()),
        kept: ratio.median <= TIME * slack,
        faster,
    })
}

fn judge_memory(name: &str, ours: u64, stock: u64, slack: f64) -> Verdict {
    let ratio = ours as f64 / stock as f64;
    Verdict {
        name: format!("memory of the shims of {name}, to runc's shim"),
        promised: format!("at most {MEMORY:.2}"),
        measured: format!("{ratio:.2} ({} to {})", megabytes(ours), megabytes(stock)),
        kept: ratio <= MEMORY * slack,
        faster: if ratio >= 1.0 { vec![Way::StockCrun.name()] } else { Vec::new() },
    }
}

/// Measures what is promised, quickly. What misses is measured again, and all is judged together.
pub fn gate(place: &Place, options: &Options) -> Result<ExitCode> {
    let ways = [Way::Client, Way::Rcrun, Way::StockCrun];
    let mut series = measure(place, Row::Ctr, &ways, options.rounds)?;
    let mut time = judge_time(&series, options.slack)?;
    for _ in 0..RETRIES {
        if time.kept {
            break;
        }
        eprintln!("measuring again: {}", time.line());
        series.append(measure(place, Row::Ctr, &ways, options.rounds)?);
        time = judge_time(&series, options.slack)?;
    }
    let [ours, stock] = [Way::Rcrun, Way::StockCrun].map(|way| counts::of_containers(place, way, 1, false));
    judged(&[time, judge_memory("one container", ours?, stock?, options.slack)])
}

/// Measures all, as docs/benchmarks-engines.md and its plot.
pub fn page(place: &Place, options: &Options) -> Result<ExitCode> {
    let with_client: Vec<Way> = std::iter::once(Way::Client).chain(WAYS).collect();
    let begin = load_average()?;
    let mut all = Vec::new();
    for (row, ways, rounds) in [
        (Row::Ctr, &with_client[..], options.rounds),
        (Row::Docker, &WAYS_OF_DOCKER[..], options.rounds.div_ceil(2)),
        (Row::Many, &WAYS[..], options.rounds.div_ceil(20)),
    ] {
        eprintln!("bench: {}", row.name());
        all.push(measure(place, row, ways, rounds)?);
    }
    eprintln!("bench: memory and programs");
    let memory = [Way::Rcrun, Way::StockCrun].map(|way| counts::memory(place, way));
    let [ours, stock] = memory;
    let (ours, stock) = (ours?, stock?);
    let births = WAYS.iter().map(|way| counts::births(place, *way)).collect::<Result<Vec<Births>>>()?;
    let verdicts = [
        judge_time(&all[0], 1.0)?,
        judge_memory("one container", ours.one, stock.one, 1.0),
        judge_memory(&format!("{MANY} containers, each its own"), ours.each, stock.each, 1.0),
        judge_memory(&format!("a pod of {MANY} containers"), ours.pod, stock.pod, 1.0),
    ];
    let mut out = String::from(PREFACE);
    writeln!(
        out,
        "{} Other jobs ran meanwhile: the load average was {begin} at the beginning and {} at the end, of which one is the \
         benchmark.\n",
        machine()?,
        load_average()?
    )?;
    for version in place.versions()? {
        writeln!(out, "- {version}")?;
    }
    writeln!(out, "\n![as a multiple of rcrun](benchmarks-engines.svg)\n")?;
    times(&mut out, &all)?;
    if let Some(why) = place.crun_without_cgroups() {
        writeln!(
            out,
            "For Docker crun makes no cgroup (`--cgroup-manager=disabled`) and does that much less than the others, because it \
             says here: {why}. A runtime that has arguments Docker executes by a shell, at each call.\n"
        )?;
    }
    counted(&mut out, &ours, &stock, &births)?;
    writeln!(out, "\n## What is promised\n")?;
    out += &crate::gate::table(&verdicts)?;
    out += METHOD;
    println!("{out}");
    fs::write(options.repo.join("docs/benchmarks-engines.md"), out)?;
    fs::write(options.repo.join("docs/benchmarks-engines.svg"), plot(&all, &ours, &stock, &births)?)?;
    Ok(ExitCode::SUCCESS)
}

fn times(out: &mut String, all: &[Series]) -> Result<()> {
    writeln!(out, "## Time\n\nRatio to runc's shim with crun in the same round: median (quartiles).\n")?;
    writeln!(out, "| | rounds |{}", WAYS.map(|way| format!(" {} |", way.name())).concat())?;
    writeln!(out, "|---|---|{}", "---|".repeat(WAYS.len()))?;
    for series in all {
        write!(out, "| {} | {} |", series.row.name(), series.rounds())?;
        for way in WAYS {
            let cell = if series.ways.contains(&way) {
                show(series.ratio(way, Way::StockCrun)?)
            } else {
                "–".into()
            };
            write!(out, " {cell} |")?;
        }
        writeln!(out)?;
        if series.row == Row::Ctr {
            write!(out, "| the same, after the client's own cost | {} |", series.rounds())?;
            for way in WAYS {
                write!(out, " {} |", show(series.ratio_after_client(way, Way::StockCrun)?))?;
            }
            writeln!(out)?;
        }
    }
    writeln!(out, "\nAbsolute medians, of this machine in this hour only: they travel to no other.\n")?;
    writeln!(out, "| |{}", WAYS.map(|way| format!(" {} |", way.name())).concat())?;
    writeln!(out, "|---|{}", "---|".repeat(WAYS.len()))?;
    for series in all {
        write!(out, "| {}{} |", series.row.name(), if series.row == Row::Many { ", each" } else { "" })?;
        for way in WAYS {
            let time =
                || Ok::<_, Box<dyn std::error::Error>>(format!("{:.0} ms", series.time(way)?.median * 1e3));
            let cell = if series.ways.contains(&way) { time()? } else { "–".into() };
            write!(out, " {cell} |")?;
        }
        writeln!(out)?;
        if series.row == Row::Ctr {
            let client = series.time(Way::Client)?.median * 1e3;
            writeln!(
                out,
                "| of which the client alone |{}",
                format!(" {client:.0} ms |").repeat(WAYS.len())
            )?;
        }
    }
    writeln!(out)?;
    Ok(())
}

fn counted(out: &mut String, ours: &Memory, stock: &Memory, births: &[Births]) -> Result<()> {
    writeln!(out, "## Memory and processes\n\n| | rcrun | runc's shim | ratio |\n|---|---|---|---|")?;
    for (name, ours, stock) in [
        ("shim of one container, PSS".to_string(), ours.one, stock.one),
        (format!("{MANY} shims of {MANY} containers"), ours.each, stock.each),
        (format!("one shim of a pod of {MANY} containers"), ours.pod, stock.pod),
    ] {
        let ratio = ours as f64 / stock as f64;
        writeln!(out, "| {name} | {} | {} | {ratio:.2} |", megabytes(ours), megabytes(stock))?;
    }
    writeln!(out, "\n| |{}", WAYS.map(|way| format!(" {} |", way.name())).concat())?;
    writeln!(out, "|---|{}", "---|".repeat(WAYS.len()))?;
    let row = |of: fn(&Births) -> usize| births.iter().map(|b| format!(" {} |", of(b))).collect::<String>();
    writeln!(out, "| programs executed by containerd for one `ctr run --rm` |{}", row(|b| b.programs))?;
    writeln!(out, "| processes born for it |{}", row(|b| b.processes))?;
    Ok(())
}

/// All as multiples of rcrun.
fn plot(all: &[Series], ours: &Memory, stock: &Memory, births: &[Births]) -> Result<String> {
    let others = &WAYS[1..];
    let mut rows = Vec::new();
    for series in all {
        let one = if series.ways.contains(&Way::Rcrun) { Way::Rcrun } else { Way::StockRcrun };
        let ratio = |way: &Way| Ok(series.ratio(*way, one)?.median);
        rows.push(Bars { name: series.row.name(), ratios: others.iter().map(ratio).collect::<Result<_>>()? });
    }
    // The shim is the same whatever it executes.
    let memory = |name: String, ours: u64, stock: u64| Bars {
        name,
        ratios: vec![stock as f64 / ours as f64; others.len()],
    };
    rows.push(memory("memory, one container".into(), ours.one, stock.one));
    rows.push(memory(format!("memory, {MANY} containers"), ours.each, stock.each));
    let first = births[0].programs as f64;
    let ratios = births[1..].iter().map(|b| b.programs as f64 / first).collect();
    rows.push(Bars { name: "programs executed".into(), ratios });
    let legend: Vec<&str> = others.iter().map(|way| way.name()).collect();
    let axis =
        Axis { title: "As a multiple of rcrun with its own shim, or with runc's for Docker", one: "rcrun" };
    Ok(svg(&axis, &legend, &rows))
}

fn show(ratio: Quartiles) -> String {
    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
}

fn megabytes(kib: u64) -> String {
    format!("{:.1} MB", kib as f64 / 1024.0)
}

fn load_average() -> Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned())
}

const PREFACE: &str = "# What a container costs through an engine

<!-- Written by `make bench-engines`; edit runtime-tests/bench/engines/page.rs instead. -->

`make bench-engines` starts Debian's containerd and Docker in namespaces of their own and writes this page. **rcrun** is
containerd's shim of rcrun, which makes containers in its own process; the others are the shim that comes with containerd,
which executes crun, runc or rcrun. Only ratios travel to another machine.

";

const METHOD: &str = "
## How it is measured

- Each round gives every way the same work once, in an order that rotates by one each round. A ratio compares two times of one
  round; the tables show the median of these ratios.
- The client's own cost is that of `ctr run --rm` for a shim that is not there: it makes the container, its snapshot and its
  bundle, hears that there is no such shim, and removes all again.
- The container runs busybox's `true`. All files of containerd and Docker lie on a tmpfs. Docker's containers have no network,
  which costs the same by every way.
- Debian 12's Docker (20.10) takes no other shim than runc's, which executes what `daemon.json` names.
- Memory is the proportional share (PSS) of all shims, three seconds after the last container was started. In a pod the
  containers share one shim, by annotation.
- Programs and processes are counted by `strace -f` on containerd: whatever it, its shims and their children execute or bear.
  The container's own program is one of each.
";
