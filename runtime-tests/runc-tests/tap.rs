//! Reads what bats reads and prints. Pure but for `names`.

use std::path::Path;

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Pass,
    /// It says that it cannot run here.
    Skip,
    /// It failed.
    Fail,
}

impl Verdict {
    /// In a table.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Skip => "skip",
            Verdict::Fail => "fail",
        }
    }

    /// The one of a word.
    #[cfg(test)]
    pub fn read(word: &str) -> Option<Verdict> {
        [Verdict::Pass, Verdict::Skip, Verdict::Fail].into_iter().find(|verdict| verdict.word() == word)
    }
}

/// A test.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// The tests of an output, as many as it planned.
pub fn read(output: &str) -> Result<Vec<Line>, String> {
    let plan = output.lines().find_map(|line| line.strip_prefix("1..")?.trim().parse::<usize>().ok());
    let planned = plan.ok_or("it has no plan")?;
    let tests: Vec<Line> = output.lines().filter_map(line).collect();
    match tests.len() == planned {
        true => Ok(tests),
        false => Err(format!("{} tests where {planned} were planned", tests.len())),
    }
}

/// `ok 1 NAME`, `ok 1 NAME # skip WHY`, `not ok 1 NAME`, `not ok 1 NAME # timeout after 60s`.
fn line(line: &str) -> Option<Line> {
    let (good, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<usize>().ok()?;
    let (name, directive) = match rest.rsplit_once(" # ") {
        Some((name, why)) if why.starts_with("skip") || why.starts_with("timeout") => (name, why),
        _ => (rest, ""),
    };
    let verdict = match good {
        false => Verdict::Fail,
        true if directive.starts_with("skip") => Verdict::Skip,
        true => Verdict::Pass,
    };
    Some(Line { name: name.trim_end().into(), verdict })
}

/// The names of the tests in a file.
pub fn names(file: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("read {}: {e}", file.display()))?;
    let titles = text.lines().filter_map(|line| line.strip_prefix("@test ")?.strip_suffix(" {"));
    Ok(titles.map(title).collect())
}

/// A word as a shell reads it, in either sort of quotation marks.
fn title(word: &str) -> String {
    let bare = |mark: char| word.strip_prefix(mark)?.strip_suffix(mark);
    match (bare('\''), bare('"')) {
        (Some(plain), _) => plain.into(),
        (_, Some(escaped)) => escaped.replace("\\\"", "\"").replace("\\$", "$"),
        _ => word.into(),
    }
}

/// A regular expression that only this name matches, or names with other signs in the same places.
pub fn pattern(name: &str) -> String {
    let any = |c: char| if c.is_ascii_alphanumeric() || c == ' ' { c } else { '.' };
    format!("^{}$", name.chars().map(any).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_name_and_a_verdict() {
        let output = "1..5\nok 1 runc create\n# a comment\nok 2 x [y] # skip test requires criu\n\
                      not ok 3 z # timeout after 60s\nnot ok 4 a # b\n# not ok 9 c\nok 5 d # e\n";
        let found = read(output).unwrap();
        let found: Vec<_> = found.iter().map(|l| (l.name.as_str(), l.verdict)).collect();
        let expected = [
            ("runc create", Verdict::Pass),
            ("x [y]", Verdict::Skip),
            ("z", Verdict::Fail),
            ("a # b", Verdict::Fail),
            ("d # e", Verdict::Pass),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_output_that_ends_early_is_none() {
        for output in ["", "ok 1 a\n", "1..2\nok 1 a\n", "1..0\nok 1 a\n"] {
            assert!(read(output).is_err(), "{output}");
        }
    }

    #[test]
    fn a_title_is_what_its_quotation_marks_hold() {
        for (word, expected) in [
            ("\"a 'b'\"", "a 'b'"),
            ("'a \"b\"'", "a \"b\""),
            ("\"a \\\"b\\\"\"", "a \"b\""),
            ("plain", "plain"),
        ] {
            assert_eq!(title(word), expected);
        }
    }

    #[test]
    fn a_pattern_holds_no_sign_of_its_own() {
        assert_eq!(pattern("runc exec --tty [stdin | x]"), "^runc exec ..tty .stdin . x.$");
    }
}
