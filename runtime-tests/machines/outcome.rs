//! What the test programs said about themselves, against what was asked of them. Pure.

use crate::payload::{Chosen, heading};

/// One target in one machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The target.
    pub target: String,
    /// How many tests were asked for.
    pub asked: usize,
    /// How many passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
}

impl Outcome {
    /// All that was asked for has run and passed.
    pub fn is_good(&self) -> bool {
        self.passed == self.asked && self.failed == 0
    }
}

/// Reads a machine's output. A target without a last line has passed nothing: it was ended, or never began.
pub fn outcomes(chosen: &[Chosen], output: &str) -> Vec<Outcome> {
    chosen
        .iter()
        .map(|one| {
            let begins = format!("{}\n", heading(&one.target));
            let said = output.split_once(&begins).map_or("", |(_, rest)| rest);
            let said = said.split_once("\n== ").map_or(said, |(own, _)| own);
            let last = said.lines().rev().find_map(|line| line.strip_prefix("test result: "));
            let count = |word: &str| {
                let parts = last.unwrap_or_default().split(&[';', '.'][..]);
                let number = parts.filter_map(|part| part.trim().strip_suffix(word)).next();
                number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
            };
            let (passed, failed) = (count("passed"), count("failed"));
            Outcome { target: one.target.clone(), asked: one.tests.len(), passed, failed }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(target: &str, asked: usize) -> Chosen {
        Chosen { target: target.into(), program: "/nowhere".into(), tests: vec!["t".into(); asked] }
    }

    #[test]
    fn what_did_not_pass_is_missed_whatever_the_reason() {
        let output = "== good\n\nrunning 2 tests\n..\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.1s\n\n\
                      == ignores\ntest result: ok. 1 passed; 0 failed; 1 ignored; 0 measured\n\
                      == fails\ntest result: FAILED. 1 passed; 2 failed; 0 ignored\n\
                      == killed\nrunning 2 tests\ntest a ... ok\n";
        let asked = [
            chosen("good", 2),
            chosen("ignores", 2),
            chosen("fails", 3),
            chosen("killed", 2),
            chosen("never", 1),
        ];
        let found: Vec<_> =
            outcomes(&asked, output).iter().map(|o| (o.passed, o.failed, o.is_good())).collect();
        assert_eq!(found, [(2, 0, true), (1, 0, false), (1, 2, false), (0, 0, false), (0, 0, false)]);
    }
}
