//! Reads what one program of the suite printed and says whether it passed. Pure: text and exit status in,
//! verdict out.

use runtime_tests::suite::Ended;

/// What came of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Each of its test lines is `ok`, and all that it planned are there.
    Pass,
    /// Each of its test lines says that it was skipped.
    Skip,
    /// Everything else, with the reason.
    Fail(String),
}

/// How the program tells its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// By `ok` and `not ok` lines, as many as its plan says.
    #[default]
    Lines,
    /// Only by an "error" in YAML or a warning: it prints an empty plan at its end.
    HooksOnly,
    /// Only by its exit status: it prints no plan.
    Status,
}

/// Judges a program by its output and its end. `says` is what a refusal that it asks for must talk of: else a
/// runtime that crashes would pass it.
pub fn judge(output: &str, ended: Ended, style: Style, says: Option<&str>) -> Verdict {
    let verdict = judge_lines(output, ended, style);
    match says {
        Some(word) if verdict == Verdict::Pass && !says_so(output, word) => {
            Verdict::Fail(format!("the runtime's refusal says nothing of {word:?}"))
        }
        _ => verdict,
    }
}

/// Whether the word is anywhere but in the program's own test lines.
fn says_so(output: &str, word: &str) -> bool {
    output
        .lines()
        .filter(|line| !is_test_line(line, "ok") && !is_test_line(line, "not ok"))
        .any(|line| line.contains(word))
}

fn judge_lines(output: &str, ended: Ended, style: Style) -> Verdict {
    let fail = |reason: String| Verdict::Fail(reason);
    match ended {
        Ended::Exit(0) => {}
        Ended::Exit(status) => return fail(format!("exit status {status}: {}", last_words(output))),
        Ended::TimedOut => return fail("time over".into()),
        Ended::Signal(signal) => return fail(format!("killed by signal {signal}")),
    }
    // Lines of a TAP inside the TAP (in YAML) are indented, and not counted.
    let bad: Vec<&str> = output.lines().filter(|line| is_test_line(line, "not ok")).collect();
    let good: Vec<&str> = output.lines().filter(|line| is_test_line(line, "ok")).collect();
    let plan = output.lines().rev().find_map(|line| line.strip_prefix("1..")?.trim().parse::<usize>().ok());
    if let Some(first) = bad.first() {
        return fail(format!("{} of {} not ok: {first}", bad.len(), bad.len() + good.len()));
    }
    if style == Style::Status {
        return Verdict::Pass;
    }
    let Some(planned) = plan else {
        return fail(format!("ended without a plan: {}", last_words(output)));
    };
    if planned != good.len() {
        return fail(format!("{} test lines where {planned} were planned", good.len()));
    }
    if planned == 0 {
        let words = ["\"error\": ", "WARNING"];
        return match output.lines().find(|line| words.iter().any(|word| line.contains(word))) {
            Some(line) => fail(line.trim().into()),
            None if style != Style::HooksOnly => fail("printed no test line".into()),
            None => Verdict::Pass,
        };
    }
    if good.iter().all(|line| is_skipped(line)) { Verdict::Skip } else { Verdict::Pass }
}

fn is_test_line(line: &str, word: &str) -> bool {
    line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn is_skipped(line: &str) -> bool {
    line.split_once('#')
        .is_some_and(|(_, directive)| directive.trim_start().to_lowercase().starts_with("skip"))
}

fn last_words(output: &str) -> &str {
    output.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it printed nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED_WELL: Ended = Ended::Exit(0);

    #[test]
    fn lines_count_by_plan_and_word() {
        let passes =
            ["TAP version 13\nok 1 - a\nok 2 - b\n1..2\n", "1..1\nok 1 - a\n", "ok 1 # TODO a\n1..1\n"];
        for output in passes {
            assert_eq!(judge(output, ENDED_WELL, Style::Lines, None), Verdict::Pass, "{output}");
        }
        let fails = [
            ("ok 1 - a\nnot ok 2 - b\n1..2\n", "1 of 2 not ok: not ok 2 - b"),
            ("1..2\nok 1 - a\n", "1 test lines where 2 were planned"),
            ("ok 1 - a\nok 2 - b\n1..1\n", "2 test lines where 1 were planned"),
            ("ok 1 - a\ndied here\n", "ended without a plan: died here"),
            ("", "ended without a plan: it printed nothing"),
            ("TAP version 13\n1..0\n", "printed no test line"),
            ("okay\n1..1\n", "0 test lines where 1 were planned"),
        ];
        for (output, reason) in fails {
            assert_eq!(
                judge(output, ENDED_WELL, Style::Lines, None),
                Verdict::Fail(reason.into()),
                "{output}"
            );
        }
    }

    #[test]
    fn the_end_counts_before_the_lines() {
        let output = "ok 1 - a\n1..1\n";
        for ended in [Ended::Exit(1), Ended::Exit(2), Ended::TimedOut, Ended::Signal(11)] {
            assert!(matches!(judge(output, ended, Style::Lines, None), Verdict::Fail(_)), "{ended:?}");
        }
    }

    #[test]
    fn lines_of_an_inner_tap_are_not_counted() {
        let output =
            "  ---\n  \"stdout\": \"x\"\n  not ok 1 - inner\n  ok 2 - inner\n  ...\nok 1 - outer\n1..1\n";
        assert_eq!(judge(output, ENDED_WELL, Style::Lines, None), Verdict::Pass);
    }

    #[test]
    fn all_lines_skipped_is_a_skip() {
        assert_eq!(judge("1..1\nok 1 # SKIP no\n", ENDED_WELL, Style::Lines, None), Verdict::Skip);
        assert_eq!(judge("1..2\nok 1 # SKIP no\nok 2 - a\n", ENDED_WELL, Style::Lines, None), Verdict::Pass);
    }

    #[test]
    fn a_hooks_only_test_fails_by_error_or_warning_or_early_end() {
        let judge = |output| judge(output, ENDED_WELL, Style::HooksOnly, None);
        assert_eq!(judge("TAP version 13\n1..0\n"), Verdict::Pass);
        assert!(matches!(judge("  ---\n  {\n    \"error\": \"x\"\n  }\n  ...\n1..0\n"), Verdict::Fail(_)));
        assert!(matches!(judge("WARNING: The poststart hook invoke fails\n1..0\n"), Verdict::Fail(_)));
        assert!(matches!(judge("TAP version 13\n"), Verdict::Fail(_)));
        assert!(matches!(judge(""), Verdict::Fail(_)));
    }

    #[test]
    fn a_refusal_must_say_what_it_refuses() {
        let judge = |output| judge(output, ENDED_WELL, Style::Status, Some("RLIMIT_TEST"));
        assert_eq!(judge("create: /process/rlimits/0: RLIMIT_TEST is unknown\n"), Verdict::Pass);
        assert!(matches!(judge("create: segmentation fault\n"), Verdict::Fail(_)));
        assert!(matches!(judge("ok 1 - RLIMIT_TEST\n"), Verdict::Fail(_)));
    }
}
