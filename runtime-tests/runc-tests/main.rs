//! Runs runc's own integration tests (bats, from Debian's source package, set up by `setup`) on rcrun and beside it on
//! runc, in the same place.
//!
//! usage: runc-tests SUITE-FOLDER OPTION... LABEL=BINARY LABEL=BINARY
//!        runc-tests --document FOLDER
//!
//! --mode MODE       as in `mode`
//! --file NAME.bats  only this one, and others that are named so
//! --besides RECORD  only tests that the second runtime did not pass there
//! --record FILE     keeps the results; `-`: on standard output
//!
//! The first runtime is judged by the second: what that one passes, this one must pass, but for the list `exceptions`.
//! What each file printed is kept in SUITE-FOLDER/results/LABEL/. `--document` prints docs/runc-tests.md, made of the
//! records in a folder, of runs in several places and modes.

mod document;
mod exceptions;
mod mode;
mod output;
mod tap;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use exceptions::Exceptions;
use mode::{Means, Mode};
use nix::pty::openpty;
use runtime_tests::suite::host::{self, Host, Names};
use runtime_tests::suite::record::Record;
use runtime_tests::suite::{self, Ended, Runtime};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tap::{Line, Verdict};

/// Seconds that one file of tests may take; the slowest takes thirty on a calm machine, and in an emulated one up to a
/// hundred times as long. (bats has a limit for each test: a process beside it, for which the tests of events then wait.)
const FILE_LIMIT: u32 = 300;
const FILE_LIMIT_IN_MACHINE: u32 = 3600;

/// The tests' own cgroups, and the names of their containers.
const CGROUPS: Names = Names { fixed: &["runc-cgroups-integration-test"], containers: is_container };

fn is_container(name: &str) -> bool {
    let whole = ["attached_ctr", "busybox", "ct1", "ct2", "ct3", "in_userns", "target_ctr", "target_userns"];
    name.starts_with("test") || whole.contains(&name)
}

/// The command line.
struct Request {
    suite: PathBuf,
    mode: Mode,
    record: Option<PathBuf>,
    only: Vec<String>,
    besides: Option<PathBuf>,
    judged: Runtime,
    judge: Runtime,
}

/// One test on both runtimes.
struct Row {
    file: String,
    name: String,
    judged: Verdict,
    judge: Verdict,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((word, [folder])) if word == "--document" => suite::print(document(Path::new(folder))),
        _ => suite::main("runc-tests", run),
    }
}

fn document(folder: &Path) -> Result<String, String> {
    let exceptions = Exceptions::parse(include_str!("exceptions"))?;
    Ok(document::document(Record::read_all(&records(folder)?)?, include_str!("vm"), &exceptions))
}

/// The files of a folder of records, in order.
fn records(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    Ok(files)
}

fn run() -> Result<bool, String> {
    let request = parse(std::env::args().skip(1))?;
    let exceptions = Exceptions::parse(include_str!("exceptions"))?;
    let tests = request.suite.join("suite/tests/integration");
    let mut files = files(&tests)?;
    if let Some(name) = request.only.iter().find(|name| !files.contains(name)) {
        return Err(format!("there is no file {name} in the suite"));
    }
    files.retain(|file| request.only.is_empty() || request.only.contains(file));
    let means = request.mode.prepare()?;
    let host = Host::set_up(&request.suite.join("cgroups-before"), CGROUPS)?;
    let started = Instant::now();
    let both = [&request.judged, &request.judge];
    for runtime in both {
        println!("{}: {}", runtime.label, runtime.version);
    }
    let site = Site { host: &host, suite: &request.suite, tests: &tests, means: &means };
    let place = format!("{} {}", host::place(), request.mode.name);
    let head = Record::new(&place, &both);
    if let Some(kept) = &request.record {
        head.keep(kept)?;
    }
    let passed: Vec<String> = match &request.besides {
        Some(record) => Record::read_all(&[record])?.iter().flat_map(|r| r.names(1, "pass")).collect(),
        None => Vec::new(),
    };
    let mut rows = Vec::new();
    for file in &files {
        let wanted = match passed.is_empty() {
            true => None,
            false => {
                let mut names = tap::names(&tests.join(file))?;
                names.retain(|name| !passed.contains(&format!("{file}: {name}")));
                Some(names)
            }
        };
        if wanted.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let run = |runtime| site.run(runtime, file, wanted.as_deref());
        let [mut judged, judge] = [run(both[0])?, run(both[1])?];
        for name in judge.keys().chain(judged.clone().keys()) {
            if judge.contains_key(name) && judged.contains_key(name) {
                continue;
            }
            return Err(format!("{file}: only one of the two runs tells of the test {name:?}"));
        }
        for (name, reference) in judge {
            let mut verdict = judged.remove(&name).unwrap_or(Verdict::Fail);
            // Some of them race, and the machine is shared: what fails alone, too, is broken.
            if reference == Verdict::Pass
                && verdict == Verdict::Fail
                && exceptions.reason(file, &name).is_none()
            {
                let alone = std::slice::from_ref(&name);
                verdict = site.run(both[0], file, Some(alone))?.remove(&name).unwrap_or(Verdict::Fail);
            }
            rows.push(Row { file: file.clone(), name, judged: verdict, judge: reference });
        }
        println!("{}", document::line(file, &rows, both));
        if let Some(kept) = &request.record {
            let ran = rows.iter().filter(|row| row.file == *file);
            let words = |row: &Row| vec![row.judged.word().to_string(), row.judge.word().to_string()];
            let ran = ran.map(|row| (format!("{}: {}", row.file, row.name), words(row)));
            Record { rows: ran.collect(), ..head.clone() }.keep_rows(kept)?;
        }
    }
    let known: Vec<(&str, &str)> = rows.iter().map(|r| (r.file.as_str(), r.name.as_str())).collect();
    if request.only.is_empty()
        && request.besides.is_none()
        && let Some((file, name)) = exceptions.stranger(&known)
    {
        return Err(format!("the list of exceptions names {file}: {name}, which is no test of the suite"));
    }
    let wrong: Vec<String> = rows.iter().filter_map(|row| exceptions.wrong(row)).collect();
    println!("\n{}", document::sum(&rows, both));
    println!(
        "took {} s; what each test printed is in {}",
        started.elapsed().as_secs(),
        request.suite.join("results").display()
    );
    for sentence in &wrong {
        println!("{sentence}");
    }
    Ok(wrong.is_empty())
}

/// Where the tests run.
struct Site<'a> {
    host: &'a Host,
    suite: &'a Path,
    tests: &'a Path,
    means: &'a Means,
}

impl Site<'_> {
    /// Runs a file of tests, or only some of its tests.
    fn run(
        &self,
        runtime: &Runtime,
        file: &str,
        only: Option<&[String]>,
    ) -> Result<BTreeMap<String, Verdict>, String> {
        let results = self.suite.join("results").join(&runtime.label);
        let scratch = self.suite.join("scratch");
        for folder in [&results, &scratch] {
            fs::create_dir_all(folder).map_err(|e| format!("mkdir {}: {e}", folder.display()))?;
        }
        let path = results.join(match only {
            None => format!("{file}.tap"),
            Some([_]) => format!("{file}.alone.tap"),
            Some(_) => format!("{file}.some.tap"),
        });
        let mut kept = File::create(&path).map_err(|e| format!("create {}: {e}", path.display()))?;
        let (reader, writer) = std::io::pipe().map_err(|e| format!("pipe: {e}"))?;
        let errors = writer.try_clone().map_err(|e| format!("dup: {e}"))?;
        self.host.fresh(&scratch)?;
        // They want a controlling terminal, and read nothing from it.
        let terminal = openpty(None, None).map_err(|e| format!("openpty: {e}"))?;
        let limit = file_limit().to_string();
        let mut command = self.host.command("setsid");
        command.args(["--ctty", "--wait"]).args(&self.means.before);
        command.args(["timeout", "--foreground", "--kill-after=5", &limit, "bats", "--tap"]);
        if let Some(names) = only {
            let patterns: Vec<String> = names.iter().map(|name| tap::pattern(name)).collect();
            command.args(["--filter", &patterns.join("|")]);
        }
        let child = command
            .arg(file)
            .current_dir(self.tests)
            .env("RUNC", &runtime.binary)
            .env("TMPDIR", &scratch)
            .envs(self.means.environment.iter().map(|(name, value)| (name, value)))
            .stdin(terminal.slave)
            .stdout(writer)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("setsid (package util-linux) does not start: {e}"))?;
        drop(command);
        let mut master = File::from(terminal.master);
        // What is written to the terminal goes nowhere, and nobody waits for room in it. It ends with the last holder.
        let drain = std::thread::spawn(move || std::io::copy(&mut master, &mut std::io::sink()));
        let bats = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|e| format!("pidfd_open: {e}"))?;
        let told = std::thread::spawn(move || output::keep(reader, &mut kept, &bats, output::PATIENCE));
        let ended = suite::wait_for(child.id())?;
        self.host.sweep(&scratch)?;
        // EIO, when all that held the other side are dead.
        let _ = drain.join();
        told.join().map_err(|_| "the output of bats was not read to its end")??;
        let text = fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let lines = tap::read(&String::from_utf8_lossy(&text))
            .map_err(|what| format!("{}: {what} ({})", path.display(), words(ended)))?;
        Ok(lines.into_iter().map(|Line { name, verdict }| (name, verdict)).collect())
    }
}

fn file_limit() -> u32 {
    if host::place() == "native" { FILE_LIMIT } else { FILE_LIMIT_IN_MACHINE }
}

fn words(ended: Ended) -> String {
    match ended {
        Ended::Exit(124 | 137) | Ended::TimedOut => format!("its {} seconds were over", file_limit()),
        Ended::Exit(status) => format!("exit status {status}"),
        Ended::Signal(signal) => format!("signal {signal}"),
    }
}

/// The names of the suite's files, in order.
fn files(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder)
        .map_err(|e| format!("{}: {e}: set the suite up first (`make runc-tests` does)", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".bats"))
        .collect();
    names.sort();
    Ok(names)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Request, String> {
    let usage = "usage: runc-tests SUITE-FOLDER [--mode MODE] [--file NAME.bats]... [--besides RECORD] [--record FILE] LABEL=BINARY LABEL=BINARY";
    let suite = words.next().ok_or(usage)?;
    let suite = fs::canonicalize(&suite).map_err(|e| format!("{suite}: {e}"))?;
    let (mut only, mut runtimes) = (Vec::new(), Vec::new());
    let (mut mode, mut record, mut besides) = (Mode::parse("root")?, None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--mode" => mode = Mode::parse(&words.next().ok_or(usage)?)?,
            "--record" => record = Some(words.next().ok_or(usage)?.into()),
            "--besides" => besides = Some(words.next().ok_or(usage)?.into()),
            "--file" => only.push(words.next().ok_or(usage)?),
            _ => runtimes.push(as_runc(&suite, Runtime::parse(&word)?)?),
        }
    }
    match <[Runtime; 2]>::try_from(runtimes) {
        Ok([judged, judge]) => Ok(Request { suite, mode, record, only, besides, judged, judge }),
        Err(_) => Err(usage.into()),
    }
}

/// A copy called `runc`, which some tests want.
fn as_runc(suite: &Path, runtime: Runtime) -> Result<Runtime, String> {
    let folder = suite.join("runtimes").join(&runtime.label);
    fs::create_dir_all(&folder).map_err(|e| format!("mkdir {}: {e}", folder.display()))?;
    let copy = folder.join("runc");
    // One that a killed run has left running cannot be written to.
    let _ = fs::remove_file(&copy);
    fs::copy(&runtime.binary, &copy).map_err(|e| format!("the runtime {}: {e}", runtime.label))?;
    Runtime::new(&runtime.label, &copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("runc-tests/records")
    }

    #[test]
    fn the_page_shows_what_the_records_hold() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runc-tests.md");
        let shown = fs::read_to_string(page).unwrap();
        assert!(shown == document(&kept()).unwrap(), "write it anew: make runc-tests-doc");
    }

    #[test]
    fn each_record_has_its_day_and_meets_the_list_of_exceptions() {
        let exceptions = Exceptions::parse(include_str!("exceptions")).unwrap();
        for file in records(&kept()).unwrap() {
            for record in Record::read_all(&[&file]).unwrap() {
                assert_eq!(record.days.len(), 1, "{}", file.display());
                for (whole, words) in &record.rows {
                    let (file, name) = whole.split_once(": ").unwrap();
                    let [judged, judge] = [&words[0], &words[1]].map(|word| Verdict::read(word).unwrap());
                    let row = Row { file: file.into(), name: name.into(), judged, judge };
                    assert_eq!(exceptions.wrong(&row), None, "{}", record.place);
                }
            }
        }
    }
}
