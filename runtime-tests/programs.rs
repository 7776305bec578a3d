//! Programs of an attacker, in C because they do what no crate's safe functions do: static, so that they run in any root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `programs/NAME.c` to the file `to`.
pub fn compile(name: &str, to: &Path) {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("programs").join(name).with_extension("c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(to).arg(&source);
    let compiled = cc.output().expect("cc is missing: apt-get install gcc libc6-dev");
    assert!(compiled.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr));
}
