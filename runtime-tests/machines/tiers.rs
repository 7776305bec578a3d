//! Which test runs where: reads the table in `tiers`. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Where a test can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The machine that builds: `make test`.
    Native,
    /// User-mode Linux: `make test-vm`.
    Uml,
    /// QEMU: `make test-vm`.
    Qemu,
}

impl Tier {
    /// All of them.
    pub const ALL: [Tier; 3] = [Tier::Native, Tier::Uml, Tier::Qemu];

    /// As the table and the command line call it.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Native => "native",
            Tier::Uml => "uml",
            Tier::Qemu => "qemu",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

/// The table.
#[derive(Debug)]
pub struct Tiers(Vec<(String, BTreeSet<Tier>)>);

impl Tiers {
    /// Reads it: a line is a test target, or a target and a path in it (`vm::limits`), and the tiers it runs in.
    pub fn parse(text: &str) -> Result<Tiers, String> {
        let mut rows: Vec<(String, BTreeSet<Tier>)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            let wrong = |what: &str| Err(format!("tiers, line {}: {name}: {what}", number + 1));
            let mut tiers = BTreeSet::new();
            for word in words {
                let Some(tier) = Tier::named(word) else { return wrong(&format!("{word} is no tier")) };
                tiers.insert(tier);
            }
            if tiers.is_empty() {
                return wrong("runs nowhere");
            }
            if rows.iter().any(|(known, _)| known == name) {
                return wrong("is there twice");
            }
            rows.push((name.to_string(), tiers));
        }
        Ok(Tiers(rows))
    }

    /// Where the test of this full name (`target::module::function`) runs: the longest line that it lies under decides.
    pub fn of(&self, test: &str) -> BTreeSet<Tier> {
        let fitting = self.0.iter().filter(|(name, _)| lies_under(test, name));
        fitting.max_by_key(|(name, _)| name.len()).map(|(_, tiers)| tiers.clone()).unwrap_or_default()
    }

    /// A line that none of these tests (by target) lies under: a name that is misspelled or gone.
    pub fn idle(&self, lists: &BTreeMap<String, Vec<String>>) -> Option<&str> {
        let known = |name: &str| {
            let (target, path) = name.split_once("::").unwrap_or((name, ""));
            // Of a target that was not built nothing is known.
            lists.get(target).is_none_or(|tests| tests.iter().any(|t| path.is_empty() || lies_under(t, path)))
        };
        self.0.iter().map(|(name, _)| name.as_str()).find(|name| !known(name))
    }

    /// Test targets of which something runs in this tier.
    pub fn targets(&self, tier: Tier) -> BTreeSet<&str> {
        let rows = self.0.iter().filter(|(_, tiers)| tiers.contains(&tier));
        rows.filter_map(|(name, _)| name.split("::").next()).collect()
    }
}

fn lies_under(test: &str, name: &str) -> bool {
    test.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The test targets of which Cargo.toml says this.
    fn said(line: &str) -> BTreeSet<String> {
        let text = read("Cargo.toml");
        let sections = text.split("\n[").filter_map(|section| section.strip_prefix("[test]]\n"));
        let named = sections.filter(|section| section.lines().any(|l| l == line));
        named
            .map(|section| {
                let name = section.lines().find_map(|l| l.strip_prefix("name = \"")?.strip_suffix('"'));
                name.expect("a name").to_string()
            })
            .collect()
    }

    /// The test targets in tests/: files, and folders with a main.rs; but for one that is no harness of Rust's, which
    /// has a command of its own.
    fn targets() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let entries = std::fs::read_dir(folder).expect("tests").map(|e| e.expect("an entry").path());
        let tests =
            entries.filter(|p| p.extension().is_some_and(|e| e == "rs") || p.join("main.rs").exists());
        let names = tests.map(|p| p.file_stem().expect("a name").to_string_lossy().into_owned());
        let own = said("harness = false");
        names.filter(|name| !own.contains(name)).collect()
    }

    fn names(tiers: &Tiers) -> impl Iterator<Item = &str> {
        tiers.0.iter().map(|(name, _)| name.as_str())
    }

    #[test]
    fn every_test_target_has_a_line_and_every_line_has_a_test_target() {
        let tiers = Tiers::parse(&read("tiers")).expect("tiers");
        let named: BTreeSet<String> =
            names(&tiers).filter_map(|name| name.split("::").next()).map(String::from).collect();
        assert_eq!(named, targets());
    }

    #[test]
    fn what_cargo_test_runs_is_native_and_what_it_does_not_run_is_not() {
        let tiers = Tiers::parse(&read("tiers")).expect("tiers");
        let kept = said("test = false");
        assert!(kept.contains("vm"), "{kept:?}");
        for name in names(&tiers) {
            let native = tiers.of(name).contains(&Tier::Native);
            assert_eq!(native, !kept.contains(name.split("::").next().unwrap_or(name)), "{name}");
        }
    }

    #[test]
    fn every_module_of_the_target_vm_has_a_line() {
        let tiers = Tiers::parse(&read("tiers")).expect("tiers");
        let main = read("tests/vm/main.rs");
        let modules = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        // The others are what tests have in common, here or (by #[path]) with a native target.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm");
        let of_tests = |module: &&str| {
            let file = folder.join(format!("{module}.rs"));
            std::fs::read_to_string(file).is_ok_and(|text| text.contains("#[test]"))
        };
        for module in modules.filter(of_tests) {
            assert!(names(&tiers).any(|name| name == format!("vm::{module}")), "tiers lacks vm::{module}");
        }
    }

    #[test]
    fn the_longest_line_decides() {
        let tiers = Tiers::parse("a native uml # why\na::b native\n\nab qemu\n").expect("tiers");
        for (test, expected) in [
            ("a::c", vec![Tier::Native, Tier::Uml]),
            ("a::b", vec![Tier::Native]),
            ("a::b::c", vec![Tier::Native]),
            ("a::bc", vec![Tier::Native, Tier::Uml]),
            ("ab::c", vec![Tier::Qemu]),
            ("c", vec![]),
        ] {
            assert_eq!(tiers.of(test), expected.into_iter().collect(), "{test}");
        }
        assert_eq!(tiers.targets(Tier::Native), ["a"].into());
    }

    #[test]
    fn a_line_under_which_no_test_lies_is_found() {
        let lists = BTreeMap::from([("a".to_string(), vec!["b::c".to_string()])]);
        for (line, idle) in
            [("a", None), ("a::b", None), ("a::b::c", None), ("not_built::x", None), ("a::c", Some("a::c"))]
        {
            let tiers = Tiers::parse(&format!("{line} uml")).expect("tiers");
            assert_eq!(tiers.idle(&lists), idle, "{line}");
        }
    }

    #[test]
    fn a_line_without_a_tier_with_an_unknown_one_or_twice_is_an_error() {
        for text in ["a", "a moon", "a uml\na qemu"] {
            assert!(Tiers::parse(text).is_err(), "{text}");
        }
    }
}
