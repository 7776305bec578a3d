//! The list of tests that runc passes and rcrun need not: parsed from the file `exceptions` beside this one. Pure.

use std::collections::BTreeMap;

use crate::Row;
use crate::tap::Verdict;

/// The parsed list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exceptions(BTreeMap<(String, String), String>);

impl Exceptions {
    /// Parses it: a line for the test, `FILE.bats: NAME`, and below, indented, the reason.
    pub fn parse(text: &str) -> Result<Exceptions, String> {
        let mut list = BTreeMap::new();
        let mut lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).peekable();
        while let Some(line) = lines.next() {
            let (file, name) = line
                .split_once(": ")
                .filter(|(file, _)| file.ends_with(".bats") && !file.starts_with(' '))
                .ok_or_else(|| format!("the list of exceptions names no test here: {line:?}"))?;
            let mut reason = String::new();
            while let Some(more) = lines.next_if(|line| line.starts_with("    ")) {
                reason = format!("{reason} {}", more.trim()).trim_start().into();
            }
            if reason.is_empty() {
                return Err(format!("the list of exceptions gives no reason for {line}"));
            }
            if list.insert((file.into(), name.into()), reason).is_some() {
                return Err(format!("the list of exceptions names {line} twice"));
            }
        }
        Ok(Exceptions(list))
    }

    /// Why a test is on it.
    pub fn reason(&self, file: &str, name: &str) -> Option<&str> {
        self.0.get(&(file.to_string(), name.to_string())).map(String::as_str)
    }

    /// A test on it that is none of the suite.
    pub fn stranger(&self, tests: &[(&str, &str)]) -> Option<(&str, &str)> {
        let mut names = self.0.keys().map(|(file, name)| (file.as_str(), name.as_str()));
        names.find(|named| !tests.contains(named))
    }

    /// What is wrong with a row, in a sentence.
    pub fn wrong(&self, row: &Row) -> Option<String> {
        let Row { file, name, judged, judge } = row;
        match (self.reason(file, name), judged, judge) {
            (Some(_), Verdict::Pass, _) => {
                Some(format!("{file}: {name}: passes, and is on the list of exceptions: take it out"))
            }
            (None, Verdict::Fail | Verdict::Skip, Verdict::Pass) => {
                Some(format!("{file}: {name}: {} where runc passes", judged.word()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_well_formed() {
        Exceptions::parse(include_str!("exceptions")).unwrap();
    }

    #[test]
    fn a_broken_list_is_refused() {
        for text in [
            "a.bats: x",
            "a.bats: x\nb.bats: y\n    why",
            "x\n    why",
            "    why",
            "a.bats: x\n    y\na.bats: x\n    z",
        ] {
            assert!(Exceptions::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_runc_passes_must_pass_but_what_is_listed_must_not() {
        let list = Exceptions::parse("# c\n\na.bats: listed: x\n    since\n    so\n").unwrap();
        assert_eq!(list.reason("a.bats", "listed: x"), Some("since so"));
        let wrong = |name: &str, judged, judge| {
            let row = Row { file: "a.bats".into(), name: name.into(), judged, judge };
            list.wrong(&row).is_some()
        };
        use Verdict::{Fail, Pass, Skip};
        for (name, judged, judge, expected) in [
            ("other", Pass, Pass, false),
            ("other", Fail, Pass, true),
            ("other", Skip, Pass, true),
            ("other", Fail, Fail, false),
            ("other", Pass, Fail, false),
            ("listed: x", Fail, Pass, false),
            ("listed: x", Pass, Pass, true),
            ("listed: x", Pass, Fail, true),
        ] {
            assert_eq!(wrong(name, judged, judge), expected, "{name} {judged:?} {judge:?}");
        }
        assert_eq!(list.stranger(&[("a.bats", "other")]), Some(("a.bats", "listed: x")));
        assert_eq!(list.stranger(&[("a.bats", "listed: x")]), None);
    }
}
