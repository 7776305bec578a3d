//! Runs the OCI conformance suite (runtime-tools' validation programs, built by `setup`) on one or more runtimes,
//! and compares the first one's results with the list `expected`.
//!
//! usage: conformance SUITE-FOLDER [--record FILE] [--test NAME]... LABEL=BINARY...
//!        conformance --document RECORD...
//!
//! The first runtime is judged: the run fails when a listed test passes or an unlisted one fails. The others are
//! shown beside it. Each program's output is kept in SUITE-FOLDER/results/LABEL/. `--record` keeps the results (`-`: on
//! standard output), and `--document` prints docs/conformance.md, made of the records of runs in several places.

mod expected;
mod table;
mod tap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use expected::Expected;
use runtime_tests::suite::host::{self, Host, Names};
use runtime_tests::suite::record::Record;
use runtime_tests::suite::{self, Ended, Runtime};
use tap::Verdict;

/// Seconds that a program may run; the slowest one that works takes a fifth of it on a calm machine, and in an emulated
/// one up to thirty times as long.
const TIME_LIMIT: u32 = 90;
const TIME_LIMIT_IN_MACHINE: u32 = 900;

/// What the suite's programs write into their configs, and uuids, which they call their containers.
const CGROUPS: Names = Names { fixed: &["cgrouptest", "testdir", "test"], containers: host::is_uuid };

/// What one runtime did in one test.
struct Outcome {
    verdict: Verdict,
    tries: u32,
}

/// The command line.
struct Request {
    suite: PathBuf,
    record: Option<PathBuf>,
    only: Vec<String>,
    runtimes: Vec<Runtime>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((word, records)) if word == "--document" => suite::print(document(records)),
        _ => suite::main("conformance", run),
    }
}

fn document(records: &[String]) -> Result<String, String> {
    let here = Expected::parse(include_str!("expected"), false)?;
    let everywhere = Expected::parse(include_str!("expected"), true)?;
    table::document(&Record::read_all(records)?, [&here, &everywhere])
}

fn run() -> Result<bool, String> {
    let request = parse(std::env::args().skip(1))?;
    let expected = Expected::parse(include_str!("expected"), suite::all_capabilities()?)?;
    let mut tests = programs(&request.suite.join("suite/programs"))?;
    if let Some(name) = expected.stranger(&tests) {
        return Err(format!("the expected list names {name}, which is no test of the suite"));
    }
    if let Some(name) = request.only.iter().find(|name| !tests.contains(name)) {
        return Err(format!("there is no test {name} in the suite"));
    }
    tests.retain(|test| request.only.is_empty() || request.only.contains(test));

    let site = Host::set_up(&request.suite.join("cgroups-before"), CGROUPS)?;
    let started = Instant::now();
    for runtime in &request.runtimes {
        // Else a reader meets the output of a run before.
        let old = request.suite.join("results").join(&runtime.label);
        if request.only.is_empty() && old.exists() {
            fs::remove_dir_all(&old).map_err(|e| format!("remove {}: {e}", old.display()))?;
        }
        println!("{}: {}, {}", runtime.label, runtime.binary.display(), runtime.version);
    }
    let mut record = Record::new(host::place(), &request.runtimes.iter().collect::<Vec<_>>());
    let mut met = 0;
    for test in tests {
        let must = expected.of(&test);
        let mut outcomes = Vec::new();
        for runtime in &request.runtimes {
            outcomes.push(run_test(&site, &request.suite, runtime, &test, &expected)?);
        }
        let good = must.met_by(&outcomes[0].verdict);
        met += usize::from(good);
        println!("{}", table::line(&test, &must, good, &request.runtimes, &outcomes));
        let words = outcomes.iter().map(|outcome| must.word(&outcome.verdict).into());
        record.rows.insert(test, words.collect());
    }
    println!();
    for (i, runtime) in request.runtimes.iter().enumerate() {
        println!("{} passes {} of {} tests", runtime.label, record.count(i, "pass"), record.rows.len());
    }
    println!(
        "took {} s; what each test printed is in {}",
        started.elapsed().as_secs(),
        request.suite.join("results").display()
    );
    let failed = record.rows.len() - met;
    if let Some(file) = &request.record {
        record.keep(file)?;
    }
    println!("{met} passed, {failed} failed");
    Ok(failed == 0)
}

/// Runs one program until it passes or its tries are used up.
fn run_test(
    site: &Host,
    suite: &Path,
    runtime: &Runtime,
    test: &str,
    expected: &Expected,
) -> Result<Outcome, String> {
    let results = suite.join("results").join(&runtime.label);
    let scratch = suite.join("scratch");
    // Where the programs look for runtimetest and the root file system.
    let source = suite.join("suite");
    for folder in [&results, &scratch] {
        fs::create_dir_all(folder).map_err(|e| format!("mkdir {}: {e}", folder.display()))?;
    }
    let limit = if host::place() == "native" { TIME_LIMIT } else { TIME_LIMIT_IN_MACHINE };
    let tries = expected.of(test).tries();
    let mut tried = 0;
    loop {
        tried += 1;
        let path =
            results.join(if tried == 1 { format!("{test}.out") } else { format!("{test}.{tried}.out") });
        let output = fs::File::create(&path).map_err(|e| format!("create {}: {e}", path.display()))?;
        let errors = output.try_clone().map_err(|e| format!("dup: {e}"))?;
        site.fresh(&scratch)?;
        let child = site
            .command("timeout")
            .args(["--kill-after=5", &limit.to_string()])
            .arg(suite.join("suite/programs").join(test))
            .current_dir(&source)
            .env("RUNTIME", &runtime.binary)
            .env("TMPDIR", &scratch)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("timeout (package coreutils) does not start: {e}"))?;
        let ended = match suite::wait_for(child.id())? {
            // timeout's own statuses: the time was over, or it had to kill.
            Ended::Exit(124 | 137) => Ended::TimedOut,
            ended => ended,
        };
        site.sweep(&scratch)?;
        let text = fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let verdict =
            tap::judge(&String::from_utf8_lossy(&text), ended, expected.style(test), expected.says(test));
        if verdict == Verdict::Pass || tried == tries {
            return Ok(Outcome { verdict, tries: tried });
        }
    }
}

/// The names of the suite's programs, in order.
fn programs(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|e| {
        format!("{}: {e}: set the suite up first (`make conformance` does)", folder.display())
    })?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    if names.is_empty() {
        return Err(format!("{} is empty: set the suite up first", folder.display()));
    }
    Ok(names)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Request, String> {
    let usage = "usage: conformance SUITE-FOLDER [--record FILE] [--test NAME]... LABEL=BINARY...";
    let suite = words.next().ok_or(usage)?;
    let suite = fs::canonicalize(&suite).map_err(|e| format!("{suite}: {e}"))?;
    let mut request = Request { suite, record: None, only: Vec::new(), runtimes: Vec::new() };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--record" => request.record = Some(words.next().ok_or(usage)?.into()),
            "--test" => request.only.push(words.next().ok_or(usage)?),
            _ => request.runtimes.push(Runtime::parse(&word)?),
        }
    }
    if request.runtimes.is_empty() { Err(usage.into()) } else { Ok(request) }
}
