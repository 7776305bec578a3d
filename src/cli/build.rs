//! Tells the program which commit it was built from: `RCRUN_COMMIT` for `--version`. Outside of a git
//! checkout, as in a source archive, there is none, unless the packager sets the variable. And tells the linker which functions
//! of the released program lie side by side.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RCRUN_COMMIT");
    let commit = std::env::var("RCRUN_COMMIT").ok().filter(|c| !c.is_empty()).or_else(commit);
    println!("cargo::rustc-env=RCRUN_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // One file of objects, in which every function is a section: that takes link-time optimisation and a static libc.
    let is = |name, value| std::env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_ENV", "musl") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", layout().display());
    }
    println!("cargo::rerun-if-changed={}", layout().display());
}

/// Written by `make layout`.
fn layout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("layout.ld")
}

fn commit() -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent()?.parent()?;
    // A source archive may have been unpacked inside somebody else's checkout.
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // The log of HEAD grows with every commit and checkout; HEAD itself only names a branch.
    for file in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(root, &["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(root, &["rev-parse", "HEAD"])
}

fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_string())
}
