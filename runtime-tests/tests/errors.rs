//! Errors as a feature: every case of the corpus is told as it declares and leaves nothing, and docs/errors.md shows what is
//! said. `make errors` writes the document: the same with ERRORS_WRITE and the paths of runc and crun. Cases that want
//! controllers are met in a machine (vm::errors).

use rcrun_runtime::Code;
use runtime_tests::errors::document::{self, Column};
use runtime_tests::errors::scene::{Outcome, meet};
use runtime_tests::errors::{Case, corpus, of_machines, page, wrong};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a runtime makes of all cases. Most of the time is spent in waiting for the kernel to take mounts away: several wait at
/// once.
fn all(runtime: &Path) -> Vec<(Case, Outcome)> {
    let cases = corpus();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut met = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            met.push((case.name, meet(case, runtime)));
        }
        met
    };
    let mut met: BTreeMap<&str, Outcome> = std::thread::scope(|scope| {
        let threads = [(); 8].map(|()| scope.spawn(work));
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    });
    let outcomes: Vec<Outcome> = cases.iter().filter_map(|case| met.remove(case.name)).collect();
    cases.into_iter().zip(outcomes).collect()
}

/// All cases that any machine shows, with what rcrun made of them.
fn met() -> &'static [(Case, Outcome)] {
    static MET: OnceLock<Vec<(Case, Outcome)>> = OnceLock::new();
    MET.get_or_init(|| {
        let rcrun =
            PathBuf::from(std::env::var_os("RCRUN").expect("RCRUN is not set: run the tests by `make test`"));
        all(&rcrun)
    })
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md")
}

fn codes() -> String {
    let mut text = String::from(
        "## Codes\n\nStable words for classes of failure. The exit status is 1, of `exec` 255; that of a container is its own.\n\n\
         | code | meaning | when | what helps |\n|---|---|---|---|\n",
    );
    for meaning in Code::ALL {
        text += &format!(
            "| `{}` | {} | {} | {} |\n",
            meaning.code.as_str(),
            meaning.what,
            meaning.when,
            meaning.remedy
        );
    }
    text
}

#[test]
fn every_case_is_told_once_with_its_container_field_call_and_cause_and_leaves_nothing() {
    let wrong: Vec<String> = met().iter().filter_map(|(case, outcome)| wrong(case, outcome)).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), met().len(), wrong.join("\n"));
}

#[test]
fn the_corpus_is_large_names_each_case_once_and_shows_every_code() {
    let all = corpus();
    assert!(all.len() >= 250, "{}", all.len());
    let mut names = BTreeSet::new();
    let twice: Vec<&str> = all.iter().map(|case| case.name).filter(|name| !names.insert(*name)).collect();
    assert!(twice.is_empty(), "two cases of one name: {twice:?}");
    for meaning in Code::ALL {
        let code = meaning.code.as_str();
        assert!(all.iter().any(|case| case.told.code == code), "no case has the code {code}");
    }
}

#[test]
fn the_document_shows_what_rcrun_says() {
    let there = std::fs::read_to_string(path()).unwrap_or_default();
    let known = document::read(&there);
    let write = std::env::var_os("ERRORS_WRITE").is_some();
    // What a machine of our own has shown: `make errors-vm` gives its rows, else they are as they were.
    let shown = std::env::var_os("ERRORS_OF_MACHINE").map_or_else(
        || known.clone(),
        |path| document::read(&std::fs::read_to_string(path).expect("the rows of a machine")),
    );
    let cases: Vec<Case> = corpus().into_iter().chain(of_machines()).collect();
    let column = |cell: fn(&Outcome) -> String| -> Column {
        met().iter().map(|(case, outcome)| (page::cell(case.name), cell(outcome))).collect()
    };
    let mut columns = [column(document::class), column(document::cell), Column::new(), Column::new()];
    let mut names = ["rcrun".to_string(), String::new(), String::new()];
    for (at, runtime) in [(2, "RUNC"), (3, "CRUN")] {
        if write {
            let binary =
                PathBuf::from(std::env::var_os(runtime).unwrap_or_else(|| panic!("{runtime} is not set")));
            names[at - 1] = version(&binary);
            let met = all(&binary);
            columns[at]
                .extend(met.iter().map(|(case, outcome)| (page::cell(case.name), document::cell(outcome))));
        }
    }
    if !write {
        for (at, column) in columns.iter_mut().enumerate().skip(2) {
            column.extend(known.iter().map(|(name, cells)| (name.clone(), cells[at].clone())));
        }
        let line = there.lines().find(|line| line.contains("namespace of its own: rcrun, "));
        let line = line
            .and_then(|line| line.split_once("rcrun, "))
            .map(|(_, rest)| rest.trim_end_matches(". The words are"));
        let (runc, crun) = line.and_then(|line| line.split_once(", ")).unwrap_or_default();
        names = ["rcrun".into(), runc.into(), crun.into()];
    }
    for name in of_machines().iter().map(|case| page::cell(case.name)) {
        let cells = shown
            .get(&name)
            .unwrap_or_else(|| panic!("no machine has shown {name:?}: `make errors-vm` does"));
        for (column, cell) in columns.iter_mut().zip(cells) {
            column.insert(name.clone(), cell.clone());
        }
    }
    let [class, rcrun, runc, crun] = &columns;
    let text =
        document::document(&codes(), &cases, &[class, rcrun, runc, crun], [&names[0], &names[1], &names[2]]);
    if write {
        std::fs::write(path(), text).expect("write docs/errors.md");
        return;
    }
    let differ: BTreeMap<usize, (&str, &str)> =
        there.lines().zip(text.lines()).enumerate().filter(|(_, (a, b))| a != b).collect();
    let first: Vec<String> = differ
        .iter()
        .take(5)
        .map(|(n, (a, b))| format!("line {}:\n  has   {a}\n  is now {b}", n + 1))
        .collect();
    assert!(
        there == text,
        "docs/errors.md is not what is said (`make errors` writes it):\n{}",
        first.join("\n")
    );
}

fn version(binary: &Path) -> String {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().unwrap_or_default().replace(" version", "")
}
