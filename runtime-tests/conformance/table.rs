//! Writes results: a line for each test while the suite runs, and docs/conformance.md. Pure.

use std::fmt::Write;

use crate::expected::{Expected, Must};
use crate::tap::Verdict;
use crate::{Outcome, Row, Runtime};

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

/// docs/conformance.md.
pub fn document(runtimes: &[Runtime], rows: &[Row], expected: &Expected) -> String {
    let can = rows.iter().filter(|row| expected.of(&row.test).words().0.starts_with("yes")).count();
    let mut text = String::from(
        "<!-- Written by `make conformance-doc`. Do not edit: the reasons are in runtime-tests/conformance/expected. -->\n\n\
         # OCI conformance\n\n\
         `make conformance` runs the validation programs of opencontainers/runtime-tools, built from Debian's source\n\
         package, on rcrun and for comparison on runc. A program passes if it ends well, prints the test lines that it\n\
         planned, and each is `ok`; the hook tests, which print none, fail by any error or warning. runc's own tests are in\n\
         [runc-tests.md](runc-tests.md).\n\n",
    );
    _ = writeln!(
        text,
        "{can} of the {} tests can pass on a cgroup v2 host with this machine's capabilities. The rest know only \
         cgroup v1,\ncontradict the present runtime-spec, or have bugs: each has its reason below, and the run fails \
         when one of them passes\nas well as when another fails. A racy test must pass once in {} tries.\n",
        rows.len(),
        crate::expected::TRIES
    );
    text.push_str("| runtime | version | passes |\n|---|---|---|\n");
    for (i, runtime) in runtimes.iter().enumerate() {
        let passes = rows
            .iter()
            .filter(|row| !matches!(expected.of(&row.test), Must::Nothing(_)))
            .filter(|row| row.outcomes[i].verdict == Verdict::Pass)
            .count();
        _ = writeln!(text, "| {} | {} | {passes} |", runtime.label, runtime.version);
    }
    text.push_str("\n| test | can pass |");
    for runtime in runtimes {
        _ = write!(text, " {} |", runtime.label);
    }
    _ = write!(text, " why |\n|---|---|{}---|\n", "---|".repeat(runtimes.len()));
    for row in rows {
        let must = expected.of(&row.test);
        let (possible, reason) = must.words();
        _ = write!(text, "| {} | {possible} |", row.test);
        for outcome in &row.outcomes {
            let word = match (&must, &outcome.verdict) {
                // Another run would say otherwise, and the file change for nothing.
                (Must::Nothing(_), _) => "either",
                (_, Verdict::Pass) => "pass",
                (_, Verdict::Skip) => "skip",
                (_, Verdict::Fail(_)) => "fail",
            };
            _ = write!(text, " {word} |");
        }
        _ = writeln!(text, " {} |", reason.replace('|', "\\|"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(test: &str, verdict: Verdict) -> Row {
        Row { test: test.into(), outcomes: vec![Outcome { verdict, tries: 1 }] }
    }

    #[test]
    fn the_document_shows_each_test_with_its_reason() {
        let expected = Expected::parse("never delete: it is | so\nluck pidfile: a race\n", false).unwrap();
        let runtimes = [Runtime { label: "x".into(), binary: "/x".into(), version: "x 1".into() }];
        let rows = [
            row("create", Verdict::Pass),
            row("delete", Verdict::Fail("y".into())),
            row("pidfile", Verdict::Pass),
        ];
        let text = document(&runtimes, &rows, &expected);
        for line in [
            "1 of the 3 tests can pass",
            "| x | x 1 | 1 |",
            "| create | yes | pass |  |",
            "| delete | no | fail | it is \\| so |",
            "| pidfile | by luck | either | a race |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
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
