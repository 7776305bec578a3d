//! The list of what each test must do: parsed from the file `expected` beside this one, and compared with what
//! came. Pure.

use std::collections::BTreeMap;

use crate::tap::{Style, Verdict};

/// How often a racy test is tried.
pub const TRIES: u32 = 5;

/// What a test must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Must {
    /// Pass at the first try.
    Pass,
    /// Pass once in [`TRIES`].
    PassOnce(String),
    /// Fail: it cannot pass.
    Fail(String),
    /// Either.
    Nothing(String),
}

impl Must {
    /// Whether the verdict is the one expected.
    pub fn met_by(&self, verdict: &Verdict) -> bool {
        match self {
            Must::Pass | Must::PassOnce(_) => *verdict == Verdict::Pass,
            Must::Fail(_) => *verdict != Verdict::Pass,
            Must::Nothing(_) => true,
        }
    }

    /// How often a test that fails is tried.
    pub fn tries(&self) -> u32 {
        if matches!(self, Must::PassOnce(_)) { TRIES } else { 1 }
    }

    /// The word for a verdict in a record.
    pub fn word(&self, verdict: &Verdict) -> &'static str {
        match (self, verdict) {
            // Another run would say otherwise, and the document change for nothing.
            (Must::Nothing(_), _) => "either",
            (_, Verdict::Pass) => "pass",
            (_, Verdict::Skip) => "skip",
            (_, Verdict::Fail(_)) => "fail",
        }
    }

    /// The word for it in tables, and the reason.
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Must::Pass => ("yes", ""),
            Must::PassOnce(reason) => ("yes, racy", reason),
            Must::Fail(reason) => ("no", reason),
            Must::Nothing(reason) => ("by luck", reason),
        }
    }
}

/// The parsed list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    must: BTreeMap<String, Must>,
    style: BTreeMap<String, Style>,
    says: BTreeMap<String, String>,
}

impl Expected {
    /// Parses the list. `all_capabilities` says whether this machine can grant every capability.
    pub fn parse(text: &str, all_capabilities: bool) -> Result<Expected, String> {
        let mut list = Expected::default();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |what: &str| format!("line {} of the expected list: {what}: {line}", number + 1);
            let (kind, rest) = line.split_once(' ').ok_or_else(|| at("no test is named"))?;
            let style = match kind {
                "hooks-only" => Some(Style::HooksOnly),
                "status-only" => Some(Style::Status),
                _ => None,
            };
            if let Some(style) = style {
                list.style.insert(rest.into(), style);
                continue;
            }
            let (name, reason) = rest.split_once(": ").ok_or_else(|| at("no reason is given"))?;
            if kind == "says" {
                list.says.insert(name.into(), reason.into());
                continue;
            }
            let must = match kind {
                "never" => Must::Fail(reason.into()),
                "racy" => Must::PassOnce(reason.into()),
                "luck" => Must::Nothing(reason.into()),
                "all-capabilities" if all_capabilities => Must::Pass,
                "all-capabilities" => Must::Fail(reason.into()),
                _ => return Err(at("unknown first word")),
            };
            if list.must.insert(name.into(), must).is_some() {
                return Err(at("a test is named twice"));
            }
        }
        Ok(list)
    }

    /// What a test must do.
    pub fn of(&self, test: &str) -> Must {
        self.must.get(test).cloned().unwrap_or(Must::Pass)
    }

    /// How a test tells its result.
    pub fn style(&self, test: &str) -> Style {
        self.style.get(test).copied().unwrap_or_default()
    }

    /// What a runtime's refusal must talk of, in a test that asks for one.
    pub fn says(&self, test: &str) -> Option<&str> {
        self.says.get(test).map(String::as_str)
    }

    /// A name on the list that is no test of the suite.
    pub fn stranger(&self, tests: &[String]) -> Option<&str> {
        let mut names = self.must.keys().chain(self.style.keys()).chain(self.says.keys());
        names.find(|name| !tests.contains(name)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Expected {
        Expected::parse(include_str!("expected"), false).unwrap()
    }

    #[test]
    fn the_list_leaves_thirty_of_fifty_eight_firm() {
        let count = |wanted: &str| list().must.values().filter(|must| must.words().0 == wanted).count();
        assert_eq!((count("no"), count("by luck"), count("yes, racy")), (25, 1, 2));
        assert_eq!(58 - list().must.len(), 30);
    }

    #[test]
    fn a_listed_test_that_passes_and_an_unlisted_that_fails_are_both_wrong() {
        let fail = Verdict::Fail("x".into());
        assert!(!list().of("prestart").met_by(&Verdict::Pass));
        assert!(list().of("prestart").met_by(&fail));
        assert!(list().of("create").met_by(&Verdict::Pass));
        assert!(!list().of("create").met_by(&fail));
        assert!(!list().of("create").met_by(&Verdict::Skip));
        assert!(!list().of("killsig").met_by(&fail));
        assert!(list().of("pidfile").met_by(&fail) && list().of("pidfile").met_by(&Verdict::Pass));
    }

    #[test]
    fn capabilities_decide_what_they_may() {
        let able = Expected::parse(include_str!("expected"), true).unwrap();
        assert_eq!(able.of("process_capabilities"), Must::Pass);
        assert!(matches!(list().of("process_capabilities"), Must::Fail(_)));
    }

    #[test]
    fn a_broken_list_is_refused() {
        for text in ["never", "never x", "maybe x: y", "never x: y\nracy x: z"] {
            assert!(Expected::parse(text, false).is_err(), "{text}");
        }
    }
}
