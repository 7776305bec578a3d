//! Which way imports point inside `runtime`: each module with what it may use, and what is pure.
//! Uses: source.

mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module and all that it uses of this crate. Arrows point down the way of a start: container -> launch -> prepare ->
/// compile -> spec; below them lie plan, host, sys and error.
const USES: [(&str, &[&str]); 41] = [
    ("error", &[]),
    ("sys", &[]),
    ("init_image", &[]),
    ("plan", &[]),
    ("host", &["error", "sys"]),
    ("spec", &["error"]),
    ("seccomp", &["error", "host"]),
    ("compile", &["error", "host", "plan", "seccomp", "spec"]),
    ("words", &["plan"]),
    ("failure", &["error", "plan", "words"]),
    ("plan_text", &["error", "plan", "words"]),
    ("timings", &["error", "plan", "words"]),
    ("idmap", &["error", "plan", "sys"]),
    ("resolve", &[]),
    ("prepare", &["error", "idmap", "plan", "resolve", "sys", "words"]),
    ("program", &["error", "failure", "plan", "prepare", "resolve"]),
    ("launch", &["error", "failure", "idmap", "init_image", "plan", "prepare", "program", "sys", "words"]),
    ("home", &["prepare"]),
    ("mountinfo", &["error"]),
    ("resctrl", &["error", "mountinfo"]),
    ("cgroup", &["error", "mountinfo", "resolve", "sys"]),
    ("doctor", &["cgroup", "error", "host", "plan", "subids", "sys", "systemd"]),
    ("systemd", &["cgroup", "error", "sys", "unix_socket"]),
    ("netlink", &["error"]),
    ("netdev", &["error", "netlink", "plan"]),
    ("hooks", &["error", "sys"]),
    ("listen_fds", &["error", "sys"]),
    ("pid_file", &["error"]),
    ("unix_socket", &["error"]),
    ("notify_socket", &["error", "unix_socket"]),
    ("seccomp_agent", &["error", "unix_socket"]),
    ("terminal", &["error", "unix_socket"]),
    ("console", &["error", "terminal"]),
    ("criu", &["error", "sys"]),
    ("foreground", &["cgroup", "console", "error", "notify_socket", "sys"]),
    (
        "container",
        &[
            "cgroup",
            "compile",
            "criu",
            "error",
            "failure",
            "foreground",
            "home",
            "hooks",
            "host",
            "launch",
            "listen_fds",
            "mountinfo",
            "netdev",
            "notify_socket",
            "pid_file",
            "plan",
            "prepare",
            "program",
            "resctrl",
            "resolve",
            "seccomp_agent",
            "spec",
            "sys",
            "systemd",
            "terminal",
            "timings",
        ],
    ),
    (
        "check",
        &[
            "cgroup",
            "compile",
            "container",
            "error",
            "host",
            "plan",
            "prepare",
            "resolve",
            "spec",
            "sys",
            "systemd",
        ],
    ),
    ("users", &["container", "error", "plan", "subids", "sys"]),
    ("features", &["compile", "plan", "spec"]),
    ("scratch", &[]),
    ("subids", &[]),
];

/// Modules that only turn data into data: no file, environment, process, clock or system call.
const PURE: [&str; 7] = ["spec", "compile", "seccomp", "plan", "plan_text", "words", "failure"];

/// What `spec` reads config.json with: the only file of a pure module that opens one.
const READS_CONFIG: &str = "spec/mod.rs";

/// Names of std that reach out of the process. (`io` alone is errors.)
const IMPURE: [&str; 8] = ["env", "fs", "io", "net", "os", "process", "thread", "time"];

fn crate_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The sources of the library, below its folder, without tests.
fn sources() -> Vec<PathBuf> {
    let of_library = |file: &Path| {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        file.extension().is_some_and(|e| e == "rs")
            && !file.starts_with("tests")
            && !matches!(name, "build.rs" | "lib.rs" | "tests.rs")
            && !name.ends_with("_test.rs")
            && !name.ends_with("_tests.rs")
    };
    source::files()
        .iter()
        .filter_map(|file| Some(file.strip_prefix("src/runtime").ok()?.to_path_buf()))
        .filter(|file| of_library(file))
        .collect()
}

fn words_of(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(crate_folder().join(file)).expect("a source can be read");
    source::without_tests(&source::words(&text))
}

/// The modules of the crate that a file names, but for its own.
fn uses(file: &Path) -> BTreeSet<String> {
    let (words, path) = (words_of(file), source::path_of(file));
    let named = source::modules(&words, &path);
    named
        .into_iter()
        // What lib.rs hands on.
        .map(
            |name| {
                if matches!(name.as_str(), "Code" | "Error" | "Result") { "error".to_string() } else { name }
            },
        )
        .filter(|name| *name != path[0])
        .collect()
}

#[test]
fn every_module_uses_what_the_table_says_and_nothing_else() {
    let mut found: Vec<(String, BTreeSet<String>)> = Vec::new();
    for file in sources() {
        let module = source::path_of(&file).swap_remove(0);
        let uses = uses(&file);
        match found.iter_mut().find(|(name, _)| *name == module) {
            Some((_, all)) => all.extend(uses),
            None => found.push((module, uses)),
        }
    }
    let mut wrong = String::new();
    for (module, uses) in &found {
        let Some((_, may)) = USES.iter().find(|(name, _)| name == module) else {
            wrong += &format!("{module} is not in the table; it uses {uses:?}\n");
            continue;
        };
        let may: BTreeSet<String> = may.iter().map(ToString::to_string).collect();
        for name in uses.difference(&may) {
            wrong += &format!("{module} uses {name}\n");
        }
        for name in may.difference(uses) {
            wrong += &format!("{module} uses {name} no more\n");
        }
    }
    for (module, _) in USES.iter().filter(|(name, _)| found.iter().all(|(there, _)| there != name)) {
        wrong += &format!("{module} is no more\n");
    }
    assert!(wrong.is_empty(), "the table in tests/imports.rs says otherwise:\n{wrong}");
}

#[test]
fn no_two_modules_use_each_other() {
    let names = source::circle(&USES);
    assert!(names.is_empty(), "these use each other in a circle: {names:?}");
}

#[test]
fn what_turns_data_into_data_does_nothing_else() {
    let mut wrong = String::new();
    for file in sources().iter().filter(|f| PURE.contains(&source::path_of(f)[0].as_str())) {
        let words = words_of(file);
        let mut impure: BTreeSet<String> =
            source::below(&words, &["std"]).into_iter().filter(|n| IMPURE.contains(&n.as_str())).collect();
        for of_the_kernel in ["rustix", "nix", "caps"] {
            if !source::below(&words, &[of_the_kernel]).is_empty() {
                impure.insert(of_the_kernel.to_string());
            }
        }
        // Constants of libc are the kernel's numbers; calls are not.
        for call in words.windows(4).filter(|w| w[0] == "libc" && w[1] == "::" && w[3] == "(") {
            impure.insert(format!("libc::{}()", call[2]));
        }
        if file == Path::new(READS_CONFIG) {
            for name in ["fs", "io", "os"] {
                assert!(impure.remove(name), "{READS_CONFIG} no more uses std::{name}");
            }
        }
        for name in impure {
            wrong += &format!("{}: {name}\n", file.display());
        }
    }
    assert!(wrong.is_empty(), "these are to be pure:\n{wrong}");
}

#[test]
fn a_source_is_read_as_the_compiler_reads_it() {
    let words = |text: &str| source::words(text).join(" ");
    for (text, expected) in [
        ("use crate::a; // crate::b\n/* crate::c /* crate::d */ */ x", "use crate :: a ; x"),
        (r#"f("crate::a \" crate::b", 'x', '"', '\'', '\u{41}')"#, "f ( , , , , )"),
        (r####"r#"a " crate::a"# + br"b" + r"c""####, "+ +"),
        ("fn f<'a>(x: &'a str) -> &'a str", "fn f < ' a > ( x : & ' a str ) - > & ' a str"),
    ] {
        assert_eq!(words(text), expected, "{text}");
    }
    let left = |text: &str| source::without_tests(&source::words(text)).join(" ");
    assert_eq!(left("a; #[cfg(test)] mod t { fn f() { x } } b"), "a ; b");
    assert_eq!(left("#[cfg(test)] #[path = \"x\"] mod t; b"), "b");
    let below = |text: &str, from: &[&str]| source::below(&source::words(text), from);
    assert_eq!(
        below("use crate::{a, b::{c, d}, E}; use x::crate::f; crate::g::h()", &["crate"]),
        ["a", "b", "E", "g"]
    );
    assert_eq!(below("super::super::a super::b", &["super", "::", "super"]), ["a"]);
}
