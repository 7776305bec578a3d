//! Programs that tests execute. Those of an attacker are in C, because they do what no crate's safe functions do, and static, so
//! that they run in any root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies a program to where anybody may execute it, at once: a process of its own does it, since of this one's some thread may
/// bear a child meanwhile that has the copy open for writing until it executes something else (ETXTBSY).
pub fn copy(from: &Path, to: &Path) {
    let done = Command::new("install").arg("--mode=755").args([from, to]).status();
    assert!(done.expect("execute install").success(), "a copy of {}", from.display());
}

/// Compiles `programs/NAME.c` to the file `to`.
pub fn compile(name: &str, to: &Path) {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("programs").join(name).with_extension("c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(to).arg(&source);
    let compiled = cc.output().expect("cc is missing: apt-get install gcc libc6-dev");
    assert!(compiled.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr));
}
