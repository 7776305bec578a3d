//! Writes results: a line for each file while the tests run, and docs/runc-tests.md of the records of runs. Pure.

use std::fmt::Write;

use crate::Row;
use crate::exceptions::Exceptions;
use crate::tap::Verdict;
use runtime_tests::suite::Runtime;
use runtime_tests::suite::record::Record;
use std::collections::BTreeSet;

fn count(rows: &[&Row], of: impl Fn(&Row) -> Verdict, verdict: Verdict) -> usize {
    rows.iter().filter(|row| of(row) == verdict).count()
}

type Of = fn(&Row) -> Verdict;

fn verdicts(both: [&Runtime; 2]) -> [(&Runtime, Of); 2] {
    [(both[0], |r| r.judged), (both[1], |r| r.judge)]
}

/// The line that is printed when a file of tests has run on both.
pub fn line(file: &str, rows: &[Row], both: [&Runtime; 2]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.file == file).collect();
    let mut text = format!("{file:28} {:2} tests", rows.len());
    let verdicts = verdicts(both);
    for (runtime, of) in verdicts {
        let [pass, fail] = [Verdict::Pass, Verdict::Fail].map(|v| count(&rows, of, v));
        _ = write!(text, "  {} {pass:2} pass {fail:2} fail", runtime.label);
    }
    let mark = rows.iter().filter(|r| r.judge == Verdict::Pass && r.judged != Verdict::Pass);
    for row in mark {
        _ = write!(text, "\n    not passed: {}", row.name);
    }
    text
}

/// The last line.
pub fn sum(rows: &[Row], both: [&Runtime; 2]) -> String {
    let rows: Vec<&Row> = rows.iter().collect();
    let passes = [count(&rows, |r| r.judged, Verdict::Pass), count(&rows, |r| r.judge, Verdict::Pass)];
    format!(
        "of {} tests {} passes {} and {} passes {}",
        rows.len(),
        both[0].label,
        passes[0],
        both[1].label,
        passes[1]
    )
}

/// Runs of different files in one place and mode, as one, in the order of the table `vm`: of a test that several have
/// run the last word is the newest.
fn whole(mut records: Vec<Record>, vm: &str) -> Vec<Record> {
    let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let order: Vec<String> = vm.lines().map(words).collect();
    records.sort_by_key(|record| {
        let listed = order.iter().position(|place| *place == record.place);
        let native = record.place.starts_with("native ");
        (!native, listed.unwrap_or(order.len()), record.days.last().cloned())
    });
    let mut all: Vec<Record> = Vec::new();
    for record in records {
        match all.iter_mut().find(|r| r.place == record.place && r.runtimes == record.runtimes) {
            Some(known) => {
                known.rows.extend(record.rows);
                known.days.extend(record.days);
            }
            None => all.push(record),
        }
    }
    all
}

/// docs/runc-tests.md, of runs in several places and modes, and of the table `vm`.
pub fn document(records: Vec<Record>, vm: &str, exceptions: &Exceptions) -> String {
    let records = whole(records, vm);
    let mut text = String::from(
        "<!-- Written by `make runc-tests-doc`. Do not edit: the reasons are in runtime-tests/runc-tests/exceptions. -->\n\n\
         # runc's own tests\n\n\
         `make runc-tests` runs the integration tests of runc (bats), from Debian's source package, with rcrun in the place\n\
         of runc, and beside it on the runc of that package, on this machine; `make runc-tests-vm` runs them in machines that\n\
         have all controllers of cgroup v2, systemd and all capabilities, in the modes of runc's own makefile: as root and as\n\
         a user, with and without systemd, with ranges of ids (`idmap`) and a cgroup (`cgroup`) given to the user. What runc\n\
         passes in a place, rcrun must pass there, but for the tests that have a reason below; the run fails when one of those\n\
         passes, too. A skip is the test's own word. A machine of ours is emulated and forks slowly: of each mode it runs what\n\
         `runtime-tests/runc-tests/vm` names, and this page shows what has been run: the records of these runs are in\n\
         `runtime-tests/runc-tests/records`, and of a place with several days each run has its own there.\n\n",
    );
    text.push_str(
        "| place | run on | runtime | version | passes | fails | skips |\n|---|---|---|---|---|---|---|\n",
    );
    for record in &records {
        let days = record.days.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        for (i, (label, version)) in record.runtimes.iter().enumerate() {
            let [pass, fail, skip] = ["pass", "fail", "skip"].map(|word| record.count(i, word));
            _ = writeln!(
                text,
                "| {} | {days} | {label} | {version} | {pass} | {fail} | {skip} |",
                record.place
            );
        }
    }
    text.push_str("\nOne word is said of both; of two, the first is rcrun's. No word: not run there.\n\n| file | test |");
    for record in &records {
        _ = write!(text, " {} |", record.place);
    }
    _ = writeln!(text, " why |\n|---|---|{}---|", "---|".repeat(records.len()));
    let names: BTreeSet<&String> = records.iter().flat_map(|record| record.rows.keys()).collect();
    let cell = |text: &str| text.replace('|', "\\|");
    for whole in names {
        let (file, name) = whole.split_once(": ").unwrap_or((whole, ""));
        _ = write!(text, "| {file} | {} |", cell(name));
        for record in &records {
            let words = match record.rows.get(whole).map(Vec::as_slice) {
                Some([one, other]) if one == other => one.clone(),
                Some(words) => words.join(", "),
                None => String::new(),
            };
            _ = write!(text, " {words} |");
        }
        _ = writeln!(text, " {} |", cell(exceptions.reason(file, name).unwrap_or_default()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |name: &str, judged, judge| Row { file: "a.bats".into(), name: name.into(), judged, judge };
        vec![row("x | y", Verdict::Pass, Verdict::Fail), row("z", Verdict::Fail, Verdict::Pass)]
    }

    fn runtimes() -> [Runtime; 2] {
        ["one", "two"].map(|l| Runtime { label: l.into(), binary: "/x".into(), version: format!("{l} 1") })
    }

    #[test]
    fn the_document_shows_each_test_in_each_place_with_its_reason() {
        let exceptions = Exceptions::parse("a.bats: z\n    so | so\n").unwrap();
        let record = |place: &str, day: &str, rows: &[(&str, [&str; 2])]| {
            let runtimes = [("one".into(), "one 1".into()), ("two".into(), "two 2".into())].to_vec();
            let rows = rows.iter().map(|(name, words)| (name.to_string(), words.map(String::from).to_vec()));
            Record { place: place.into(), runtimes, days: [day.to_string()].into(), rows: rows.collect() }
        };
        let native = record(
            "native root",
            "2026-01-09",
            &[("a.bats: x | y", ["skip", "skip"]), ("a.bats: z", ["fail", "pass"])],
        );
        let qemu = record("qemu root", "2026-01-04", &[("a.bats: z", ["skip", "skip"])]);
        let newer = record("uml root", "2026-01-03", &[("a.bats: x | y", ["pass", "fail"])]);
        let older = record(
            "uml root",
            "2026-01-02",
            &[("a.bats: x | y", ["skip", "skip"]), ("b.bats: y", ["pass"; 2])],
        );
        let vm = "# c\numl  root  a\numl  root  b\nqemu root  a\n";
        let text = document(vec![qemu, newer, native, older], vm, &exceptions);
        for line in [
            "| native root | 2026-01-09 | one | one 1 | 0 | 1 | 1 |",
            "| uml root | 2026-01-02, 2026-01-03 | two | two 2 | 1 | 1 | 0 |",
            "| file | test | native root | uml root | qemu root | why |\n|---|---|---|---|---|---|",
            "| a.bats | x \\| y | skip | pass, fail |  |  |",
            "| a.bats | z | fail, pass |  | skip | so \\| so |",
            "| b.bats | y |  | pass |  |  |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_line_names_what_only_the_judge_passes() {
        let [one, two] = runtimes();
        let text = line("a.bats", &rows(), [&one, &two]);
        assert!(text.contains("one  1 pass  1 fail  two  1 pass  1 fail\n    not passed: z"), "{text}");
        assert_eq!(sum(&rows(), [&one, &two]), "of 2 tests one passes 1 and two passes 1");
    }
}
