//! Rules of the house that hold for every file of the tree.
//! Uses: source.

#[allow(dead_code)]
mod source;

use std::path::{Path, PathBuf};

/// Each file that is text, with its text.
fn texts() -> impl Iterator<Item = (PathBuf, String)> {
    source::files().into_iter().filter_map(|file| {
        let text = std::fs::read_to_string(source::top().join(&file)).ok()?;
        Some((file, text))
    })
}

fn rust() -> impl Iterator<Item = (PathBuf, String)> {
    texts().filter(|(file, _)| file.extension().is_some_and(|e| e == "rs"))
}

/// Where system calls are made that no crate wraps, and where a test calls the C library that is its oracle.
fn may_be_unsafe(file: &Path) -> bool {
    ["src/runtime/sys", "src/init", "runtime-tests/tests/seccomp/sys.rs"]
        .iter()
        .any(|may| file.starts_with(may))
}

#[test]
fn every_source_begins_with_what_its_job_is() {
    let silent: Vec<PathBuf> =
        rust().filter(|(_, text)| !text.starts_with("//! ")).map(|(file, _)| file).collect();
    assert!(silent.is_empty(), "these do not begin with a //! comment: {silent:?}");
}

#[test]
fn nothing_but_sys_and_init_is_unsafe() {
    let found: Vec<PathBuf> = rust()
        .filter(|(file, text)| {
            let words = source::words(text);
            let unsafe_word = words.iter().any(|word| matches!(word.as_str(), "unsafe" | "unsafe_code"));
            unsafe_word && !may_be_unsafe(file)
        })
        .map(|(file, _)| file)
        .collect();
    assert!(found.is_empty(), "unsafe outside of src/runtime/sys and src/init: {found:?}");
}

#[test]
fn no_file_names_a_path_of_the_machine_it_was_written_on() {
    let checkout = source::top();
    // Spelled so that this file does not name them.
    let mut paths = vec![format!("{}/", checkout.display()), ["/", "work", "/"].concat()];
    paths.extend(
        std::env::var("CARGO_HOME").ok().filter(|home| home.len() > 1).map(|home| format!("{home}/")),
    );
    let mut found = String::new();
    for (file, text) in texts() {
        for (i, line) in text.lines().enumerate() {
            let starts = |at: usize| {
                line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"._-/})*".contains(c))
            };
            if paths.iter().any(|path| line.match_indices(path.as_str()).any(|(at, _)| starts(at))) {
                found += &format!("{}:{}: {}\n", file.display(), i + 1, line.trim());
            }
        }
    }
    assert!(found.is_empty(), "paths of a machine:\n{found}");
}

#[test]
fn every_test_that_the_specification_names_is_there() {
    let page = std::fs::read_to_string(source::top().join("SPECIFICATION.md")).expect("SPECIFICATION.md");
    let sources: Vec<(PathBuf, String)> = rust().collect();
    // A test is a sentence; a word or two are a field or a target of `make fuzz`.
    let is_name = |word: &str| {
        word.matches('_').count() > 1
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (mut missing, mut seen) = (Vec::new(), 0);
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let held_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        // A section says where those stand that follow no file.
        let mut file = Path::new("");
        for word in held_by.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                file = Path::new(word);
            }
            let test = is_name(word).then(|| format!("fn {word}()"));
            let names = word.ends_with(".rs") || test.is_some();
            seen += usize::from(names);
            let there = |(path, text): &(PathBuf, String)| {
                (file.as_os_str().is_empty() || path.ends_with(file))
                    && test.as_ref().is_none_or(|test| text.contains(test.as_str()))
            };
            if names && !sources.iter().any(there) {
                missing.push(format!("{word} in {}", file.display()));
            }
        }
    }
    assert!(seen > 200 && missing.is_empty(), "of {seen} files and tests these are not there: {missing:?}");
}

/// Hosts that documents refer to, and the index that Cargo.lock names. A mirror or a registry near a machine is none of
/// them: that is the machine's own configuration.
const HOSTS: [&str; 10] = [
    "github.com",
    "crates.io",
    "docs.rs",
    "www.kernel.org",
    "man7.org",
    "www.apache.org",
    "www.debian.org",
    "www.w3.org",
    "semver.org",
    "keepachangelog.com",
];

#[test]
fn no_file_names_a_host_that_is_not_everybodys() {
    let mut found = String::new();
    for (file, text) in texts() {
        // What engines wrote into samples is theirs.
        if file.starts_with("runtime-tests/samples") {
            continue;
        }
        for (i, line) in text.lines().enumerate() {
            for (at, _) in line.match_indices("://") {
                let scheme = line[..at].rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                if !["http", "https", "ftp", "git", "ssh"].contains(&scheme) {
                    continue;
                }
                let host: String = line[at + 3..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || ".-@:_".contains(*c))
                    .collect();
                // Names below .test are nobody's, for ever (RFC 6761).
                let nobodys = host.split(':').next().is_some_and(|host| host.ends_with(".test"));
                if !host.is_empty() && !nobodys && !HOSTS.contains(&host.trim_end_matches(['.', ':'])) {
                    found += &format!("{}:{}: {host}\n", file.display(), i + 1);
                }
            }
        }
    }
    assert!(found.is_empty(), "hosts that are not in the list of tests/house.rs:\n{found}");
}

/// Of each alternative one must be here; of what is joined by AND, all.
const LICENCES: [&str; 7] =
    ["Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Zlib"];

/// The versions that a Cargo.lock holds of each crate from the registry.
fn locked(file: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(source::top().join(file)).expect("a Cargo.lock");
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches(['"', ' ', '=']).to_string())
    };
    text.split("[[package]]")
        .filter(|package| package.contains("\nsource = "))
        .map(|package| (value(package, "name").expect("name"), value(package, "version").expect("version")))
        .collect()
}

/// What cargo says of a workspace; its Cargo.lock has to hold all that it needs.
fn metadata(manifest: &str) -> serde_json::Value {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(source::top().join(manifest))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{manifest}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_is_fuzzed_is_what_is_shipped() {
    metadata("fuzz/engine/Cargo.toml");
    let (ours, fuzzed) = (locked("Cargo.lock"), locked("fuzz/engine/Cargo.lock"));
    let also = |name: &String| ours.iter().any(|(other, _)| other == name);
    let differ: Vec<_> = fuzzed.iter().filter(|one| also(&one.0) && !ours.contains(one)).collect();
    assert!(
        differ.is_empty() && fuzzed.len() > 20,
        "cp Cargo.lock fuzz/engine/ && cargo check --manifest-path fuzz/engine/Cargo.toml: {differ:?}"
    );
    // What only the fuzzer has is built and run here, and never shipped.
    let only: Vec<&str> =
        fuzzed.iter().map(|(name, _)| name.as_str()).filter(|n| !also(&n.to_string())).collect();
    assert_eq!(only, ["arbitrary", "libfuzzer-sys"]);
}

fn may_be_shipped(licence: &str) -> bool {
    let known = |one: &str| LICENCES.contains(&one.trim().trim_matches(['(', ')']));
    licence.split(" AND ").all(|all| all.replace('/', " OR ").split(" OR ").any(known))
}

#[test]
fn every_crate_comes_from_the_registry_under_a_licence_that_goes_with_ours() {
    let metadata = metadata("Cargo.toml");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 20, "{}", packages.len());
    let wrong: Vec<String> = packages
        .iter()
        .filter(|package| {
            let ours = package["source"].is_null();
            let registry = package["source"].as_str().is_some_and(|s| s.starts_with("registry+"));
            !(ours || registry) || !package["license"].as_str().is_some_and(may_be_shipped)
        })
        .map(|package| format!("{}: {} from {}", package["name"], package["license"], package["source"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        !may_be_shipped("GPL-3.0-only")
            && !may_be_shipped("MIT AND GPL-2.0")
            && may_be_shipped("GPL-2.0 OR MIT")
    );
}
