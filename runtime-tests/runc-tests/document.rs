//! Writes results: a line for each file while the tests run, and docs/runc-tests.md. Pure.

use std::fmt::Write;

use crate::exceptions::Exceptions;
use crate::tap::Verdict;
use crate::{Row, Runtime};

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

/// docs/runc-tests.md.
pub fn document(rows: &[Row], exceptions: &Exceptions, both: [&Runtime; 2]) -> String {
    let mut text = String::from(
        "<!-- Written by `make runc-tests-doc`. Do not edit: the reasons are in runtime-tests/runc-tests/exceptions. -->\n\n\
         # runc's own tests\n\n\
         `make runc-tests` runs the integration tests of runc (bats), from Debian's source package, with rcrun in the place\n\
         of runc, and beside it on the runc of that package, built on the same machine. What runc passes, rcrun must pass,\n\
         but for the tests that have a reason below; the run fails when one of those passes, too. What neither passes wants\n\
         controllers, capabilities or programs that the machine has not. A skip is the test's own word.\n\n",
    );
    let all: Vec<&Row> = rows.iter().collect();
    let verdicts = verdicts(both);
    text.push_str("| runtime | version | passes | fails | skips |\n|---|---|---|---|---|\n");
    for (runtime, of) in verdicts {
        let [pass, fail, skip] = [Verdict::Pass, Verdict::Fail, Verdict::Skip].map(|v| count(&all, of, v));
        _ = writeln!(text, "| {} | {} | {pass} | {fail} | {skip} |", runtime.label, runtime.version);
    }
    _ = write!(
        text,
        "\n| file | test | {} | {} | why |\n|---|---|---|---|---|\n",
        both[0].label, both[1].label
    );
    for row in rows {
        let why = exceptions.reason(&row.file, &row.name).unwrap_or_default();
        let cell = |text: &str| text.replace('|', "\\|");
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.file,
            cell(&row.name),
            row.judged.word(),
            row.judge.word(),
            cell(why)
        );
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
    fn the_document_shows_each_test_with_its_reason() {
        let exceptions = Exceptions::parse("a.bats: z\n    so | so\n").unwrap();
        let [one, two] = runtimes();
        let text = document(&rows(), &exceptions, [&one, &two]);
        for line in [
            "| one | one 1 | 1 | 1 | 0 |",
            "| two | two 1 | 1 | 1 | 0 |",
            "| a.bats | x \\| y | pass | fail |  |",
            "| a.bats | z | fail | pass | so \\| so |",
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
