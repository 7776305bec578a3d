//! Writes results: a line for each test while the suite runs, and docs/conformance.md. Pure.

use std::fmt::Write;

use crate::expected::{Expected, Must};
use crate::tap::Verdict;
use crate::{Outcome, Runtime};
use runtime_tests::suite::record::Record;

/// The line that is printed when a test has run on every runtime.
pub fn line(test: &str, must: &Must, good: bool, runtimes: &[Runtime], outcomes: &[Outcome]) -> String {
    let mut text = format!("{test:32}");
    for (runtime, outcome) in runtimes.iter().zip(outcomes) {
        let word = match &outcome.verdict {
            Verdict::Pass => "pass",
            Verdict::Skip => "skip",
            Verdict::Fail(_) => "FAIL",
        };
        let tries = match must {
            Must::PassOnce(_) => format!(" in {} tries", outcome.tries),
            _ => String::new(),
        };
        _ = write!(text, "  {:22}", format!("{} {word}{tries}", runtime.label));
    }
    let (possible, reason) = must.words();
    match (&outcomes[0].verdict, good) {
        (_, true) if possible == "yes" => {}
        (_, true) => _ = write!(text, "  as listed: {reason}"),
        (Verdict::Fail(why), false) => _ = write!(text, "  UNEXPECTED: {why}"),
        (Verdict::Skip, false) => _ = write!(text, "  UNEXPECTED: skipped"),
        (Verdict::Pass, false) => {
            _ = write!(text, "  UNEXPECTED: passes, though listed as impossible: {reason}")
        }
    }
    text.trim_end().to_string()
}

/// docs/conformance.md, of runs in several places. The list is given twice: as it is where some capabilities are missing,
/// and where all are.
pub fn document(records: &[Record], [here, everywhere]: [&Expected; 2]) -> Result<String, String> {
    let tests: Vec<&String> = records.first().map(|record| record.rows.keys().collect()).unwrap_or_default();
    if let Some(other) = records.iter().find(|record| record.rows.keys().ne(tests.iter().copied())) {
        return Err(format!("the record of {} has other tests than the first", other.place));
    }
    let can =
        |list: &Expected| tests.iter().filter(|test| list.of(test).words().0.starts_with("yes")).count();
    let mut text = String::from(
        "<!-- Written by `make conformance-doc`. Do not edit: the reasons are in runtime-tests/conformance/expected. -->\n\n\
         # OCI conformance\n\n\
         `make conformance` runs the validation programs of opencontainers/runtime-tools, built from Debian's source\n\
         package, on rcrun, and beside it on runc and crun; `make conformance-vm` runs them in a machine with all controllers\n\
         of cgroup v2 and all capabilities, with Debian trixie's runc and crun. A program passes if it ends well, prints the\n\
         test lines that it planned, and each is `ok`; the hook tests, which print none, fail by any error or warning. Where\n\
         CAP_SYS_RESOURCE cannot be had, crun starts nothing: it raises RLIMIT_MEMLOCK. runc's own tests are in\n\
         [runc-tests.md](runc-tests.md).\n\n",
    );
    _ = writeln!(
        text,
        "{} of the {} tests can pass on a cgroup v2 host with all capabilities, {} of them on a machine that cannot grant\n\
         each. The rest know only cgroup v1, contradict the present runtime-spec, or have bugs: each has its reason below, and\n\
         the run fails when one of them passes as well as when another fails. A racy test must pass once in {} tries.\n",
        can(everywhere),
        tests.len(),
        can(here),
        crate::expected::TRIES
    );
    text.push_str("| place | runtime | version | passes |\n|---|---|---|---|\n");
    let mut heads = String::new();
    for record in records {
        for (i, (label, version)) in record.runtimes.iter().enumerate() {
            _ = writeln!(text, "| {} | {label} | {version} | {} |", record.place, record.count(i, "pass"));
            _ = write!(heads, " {}: {label} |", record.place);
        }
    }
    _ = writeln!(text, "\n| test | can pass |{heads} why |");
    _ = writeln!(text, "|---|---|{}---|", "---|".repeat(heads.matches('|').count()));
    for test in tests {
        let (possible, reason) = match (here.of(test), everywhere.of(test)) {
            (Must::Fail(reason), Must::Pass) => ("with all capabilities", reason),
            (must, _) => (must.words().0, must.words().1.to_string()),
        };
        _ = write!(text, "| {test} | {possible} |");
        for word in records.iter().flat_map(|record| &record.rows[test]) {
            _ = write!(text, " {word} |");
        }
        _ = writeln!(text, " {} |", reason.replace('|', "\\|"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(place: &str, rows: &[(&str, &str)]) -> Record {
        let rows = rows.iter().map(|(test, word)| (test.to_string(), vec![word.to_string()]));
        Record {
            place: place.into(),
            runtimes: vec![("x".into(), "x 1".into())],
            rows: rows.collect(),
            ..Record::default()
        }
    }

    #[test]
    fn the_document_shows_each_test_in_each_place_with_its_reason() {
        let text = "never delete: it is | so\nluck pidfile: a race\nall-capabilities all: wants all\n";
        let lists = [false, true].map(|all| Expected::parse(text, all).unwrap());
        let native = [("all", "fail"), ("create", "pass"), ("delete", "fail"), ("pidfile", "either")];
        let uml = [("all", "pass"), ("create", "pass"), ("delete", "fail"), ("pidfile", "either")];
        let records = [record("native", &native), record("uml", &uml)];
        let text = document(&records, [&lists[0], &lists[1]]).unwrap();
        for line in [
            "2 of the 4 tests can pass on a cgroup v2 host with all capabilities, 1 of them on",
            "| native | x | x 1 | 1 |",
            "| uml | x | x 1 | 2 |",
            "| test | can pass | native: x | uml: x | why |\n|---|---|---|---|---|",
            "| all | with all capabilities | fail | pass | wants all |",
            "| create | yes | pass | pass |  |",
            "| delete | no | fail | fail | it is \\| so |",
            "| pidfile | by luck | either | either | a race |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let partial = [record("native", &native), record("uml", &uml[1..])];
        assert!(document(&partial, [&lists[0], &lists[1]]).is_err());
    }

    #[test]
    fn a_line_says_what_was_not_expected() {
        let runtimes = [Runtime { label: "x".into(), binary: "/x".into(), version: "x 1".into() }];
        let line = |must: &Must, verdict: Verdict| {
            let good = must.met_by(&verdict);
            line("t", must, good, &runtimes, &[Outcome { verdict, tries: 2 }])
        };
        assert!(line(&Must::Pass, Verdict::Fail("why".into())).ends_with("UNEXPECTED: why"));
        assert!(line(&Must::Pass, Verdict::Skip).ends_with("UNEXPECTED: skipped"));
        assert!(line(&Must::Fail("r".into()), Verdict::Pass).contains("UNEXPECTED: passes"));
        assert!(line(&Must::PassOnce("r".into()), Verdict::Pass).contains("x pass in 2 tries"));
        assert!(line(&Must::Pass, Verdict::Pass).ends_with("x pass"));
    }
}
