//! Which way imports point inside `rcrun-image`: each module with what it may use. Uses: the source reader of the
//! runtime's tests.

#[path = "../../runtime/tests/source/mod.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module and all that it uses of this crate. The way of an image: source -> import, flat -> carry -> jail -> unfold ->
/// layer; below them lie store, document and error.
const USES: [(&str, &[&str]); 23] = [
    ("errno", &[]),
    ("fill", &[]),
    ("error", &["errno"]),
    ("digest", &["error"]),
    ("platform", &["error"]),
    ("name", &["digest", "error"]),
    ("compression", &["error", "fill"]),
    ("document", &["compression", "digest", "error", "platform"]),
    ("in_root", &[]),
    ("bundle", &["document", "error", "in_root", "layer"]),
    ("overlay", &["error"]),
    ("source", &["compression", "digest", "document", "error", "in_root", "name", "platform"]),
    ("layer", &["errno", "fill"]),
    ("store", &["digest", "document", "error", "layer", "name", "source"]),
    ("save", &["digest", "document", "error", "name", "source", "store"]),
    ("survey", &["error", "layer"]),
    ("pipeline", &["fill"]),
    ("unfold", &["compression", "digest", "error", "layer", "pipeline"]),
    ("jail", &["digest", "error", "layer", "pipeline", "unfold"]),
    ("carry", &["compression", "digest", "error", "jail", "layer", "pipeline", "source", "store", "unfold"]),
    ("import", &["carry", "digest", "error", "jail", "layer", "name", "source", "store"]),
    ("commit", &["digest", "document", "error", "import", "layer", "source", "store", "unfold"]),
    ("flat", &["carry", "error", "jail", "layer", "source", "store", "unfold"]),
];

/// The sources of the library, below its folder, without tests.
fn sources() -> Vec<PathBuf> {
    let of_library = |file: &Path| {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        file.extension().is_some_and(|e| e == "rs")
            && !file.iter().any(|part| part == "tests")
            && !matches!(name, "lib.rs" | "tests.rs")
    };
    source::files()
        .iter()
        .filter_map(|file| Some(file.strip_prefix("src/image").ok()?.to_path_buf()))
        .filter(|file| of_library(file))
        .collect()
}

/// The modules of the crate that each one names, but for its own.
fn found() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources() {
        let path = source::path_of(&file);
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).unwrap();
        let words = source::without_tests(&source::words(&text));
        let named = source::modules(&words, &path);
        // What lib.rs hands on.
        let module = |name: String| match name.as_str() {
            "Code" | "Error" | "Result" => "error".to_string(),
            "Algorithm" | "Digest" => "digest".to_string(),
            "Name" => "name".to_string(),
            "Platform" => "platform".to_string(),
            _ => name,
        };
        let uses = found.entry(path[0].clone()).or_default();
        uses.extend(named.into_iter().map(module).filter(|name| *name != path[0]));
    }
    found
}

#[test]
fn every_module_uses_what_the_table_says_and_nothing_else() {
    let table: BTreeMap<String, BTreeSet<String>> = USES
        .iter()
        .map(|(name, uses)| (name.to_string(), uses.iter().map(ToString::to_string).collect()))
        .collect();
    let mut wrong = String::new();
    for (module, uses) in found() {
        if table.get(&module) != Some(&uses) {
            wrong += &format!("    (\"{module}\", &{uses:?}),\n");
        }
    }
    for gone in table.keys().filter(|name| !found().contains_key(*name)) {
        wrong += &format!("{gone} is no more\n");
    }
    assert!(wrong.is_empty(), "the table in tests/imports.rs says otherwise of these:\n{wrong}");
}

#[test]
fn no_two_modules_use_each_other() {
    let names = source::circle(&USES);
    assert!(names.is_empty(), "these use each other in a circle: {names:?}");
}
