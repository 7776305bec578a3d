//! docs/escapes.md has a row for each known escape: with the tests that mount it, which are there, or with the reason why
//! rcrun has nothing to attack. Uses: page.

mod page;
#[allow(dead_code)]
mod source;

use page::quoted;
use std::collections::BTreeSet;
use std::path::Path;

/// By the numbers of CVE, and of GitHub's advisories where there is none.
const KNOWN: [&str; 72] = [
    // Of runtimes.
    "2016-9962",
    "2019-5736",
    "2019-14271",
    "2019-16884",
    "2019-18837",
    "2019-19921",
    "2021-30465",
    "2021-43784",
    "2022-24769",
    "2022-27649",
    "2022-27650",
    "2022-27651",
    "2022-29162",
    "2023-25809",
    "2023-27561",
    "2023-28642",
    "2024-21626",
    "2024-45310",
    "2025-24965",
    "2025-27612",
    "2025-31133",
    "2025-52565",
    "2025-52881",
    "2025-54867",
    "2025-62161",
    "2025-62596",
    "2026-30892",
    "2026-41579",
    "2026-47766",
    "2026-84042",
    "2026-88264",
    "2026-88265",
    "crun 1.28",
    // Of engines and image loaders.
    "2017-1002101",
    "2018-15664",
    "2020-1702",
    "2020-15257",
    "2021-29136",
    "2021-32760",
    "2021-41190",
    "2022-23471",
    "2022-23648",
    "2022-31030",
    "2023-25153",
    "2024-0132",
    "2024-0133",
    "2024-1753",
    "2024-9676",
    "2024-25621",
    "2024-40635",
    "2025-47290",
    "2025-64329",
    "2026-1386",
    "2026-33711",
    "2026-33897",
    "2026-33945",
    "2026-48749",
    "2026-48750",
    "2026-48752",
    "2026-48769",
    "2026-50195",
    "2026-53488",
    "2026-53489",
    "2026-53492",
    "2026-53493",
    "2026-53495",
    "2026-57231",
    "2026-94603",
    "2026-97029",
    "GHSA-m8cg-xc2p-r3fc",
    "GHSA-p7v4-vr35-mj6f",
    "GHSA-rp3h-jf77-q9p4",
];

/// How a reason begins.
const NOT_HERE: &str = "Not in rcrun: ";

fn rows() -> Vec<Vec<String>> {
    page::rows(&page::text("escapes.md"), 4)
}

#[test]
fn every_known_escape_has_one_row_with_its_rule() {
    let mut told = BTreeSet::new();
    for cells in rows() {
        for name in quoted(&cells[0]) {
            assert!(told.insert(name.to_string()), "{name} is there twice");
        }
        assert!(cells[1].len() > 20 && cells[2].len() > 20, "{cells:?}");
    }
    let known: BTreeSet<String> = KNOWN.iter().map(ToString::to_string).collect();
    let missing: Vec<_> = known.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "no row: {missing:?}; not known: {unknown:?}");
}

#[test]
fn every_row_names_tests_that_are_there_or_the_reason_why_there_is_none() {
    let rows = rows();
    let (reasons, tests): (Vec<&str>, Vec<&str>) =
        rows.iter().map(|cells| cells[3].as_str()).partition(|cell| cell.starts_with(NOT_HERE));
    for reason in &reasons {
        assert!(reason.len() > NOT_HERE.len() + 30, "{reason}");
    }
    assert!(reasons.len() * 4 < rows.len(), "{} of {} rows have no test", reasons.len(), rows.len());
    assert!(page::tests_are_there(tests.into_iter()) >= 50);
}

/// And the other way: what is named after an escape is told of.
#[test]
fn every_test_that_has_the_name_of_an_escape_is_in_a_row() {
    let page = page::text("escapes.md");
    let mut seen = 0;
    for file in source::files() {
        if !file.starts_with(Path::new("runtime-tests/tests")) || file.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(source::top().join(&file)).expect("a source");
        for test in
            text.lines().filter_map(|line| line.strip_prefix("fn ")?.split_once("()")).map(|(name, _)| name)
        {
            if test.starts_with("cve_") {
                assert!(page.contains(&format!("`{test}`")), "{test} is in no row");
                seen += 1;
            }
        }
    }
    assert!(seen >= 20, "only {seen} tests have such a name");
}
