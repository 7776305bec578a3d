//! Programs that tests execute. Those of an attacker are in C, because they do what no crate's safe functions do, and static, so
//! that they run in any root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Copies a program to where anybody may execute it, at once: a process of its own does it, since of this one's some thread may
/// bear a child meanwhile that has the copy open for writing until it executes something else (ETXTBSY).
pub fn copy(from: &Path, to: &Path) {
    let done = Command::new("install").arg("--mode=755").args([from, to]).status();
    assert!(done.expect("execute install").success(), "a copy of {}", from.display());
}

/// Writes a program, such as a script, that can be executed at once: by a process of its own, as `copy`.
pub fn write(to: &Path, text: impl AsRef<[u8]>, mode: u32) {
    let mut command = Command::new("install");
    command.arg(format!("--mode={mode:o}")).arg("/dev/stdin").arg(to).stdin(Stdio::piped());
    let mut writer = command.spawn().expect("execute install");
    let written = writer.stdin.take().expect("a pipe").write_all(text.as_ref());
    assert!(writer.wait().expect("wait").success() && written.is_ok(), "write {}", to.display());
}

/// Compiles `programs/NAME.c` to the file `to`.
pub fn compile(name: &str, to: &Path) {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("programs").join(name).with_extension("c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(to).arg(&source);
    let compiled = cc.output().expect("cc is missing: apt-get install gcc libc6-dev");
    assert!(compiled.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr));
}
