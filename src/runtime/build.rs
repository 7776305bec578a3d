//! Builds rcrun-init, always optimised, in a target directory of its own, for the library to embed.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets no {name}"));
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let house = here.ancestors().nth(2).expect("src/runtime lies two folders below the workspace");
    let out = PathBuf::from(variable("OUT_DIR"));
    let target = variable("TARGET").into_string().expect("a target's name is text");

    for watched in ["src/init", "src/plan", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", house.join(watched).display());
    }
    println!("cargo:rerun-if-changed=build.rs");

    let folder = out.join("init");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(house)
        .args(["build", "--release", "--package", "rcrun-init", "--bin", "rcrun-init", "--target", &target])
        .args(["--features", "freestanding"])
        .arg("--target-dir")
        .arg(&folder);
    // What the outer build was told (flags, wrappers such as clippy's, a profile's settings) is about the outer build.
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let outer = text.starts_with("CARGO_BUILD_")
            || text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_FEATURE_")
            || text.starts_with("CARGO_CFG_")
            || text.starts_with("CARGO_PKG_")
            || (text.starts_with("CARGO_TARGET_") && !text.ends_with("_LINKER"))
            || [
                "RUSTFLAGS",
                "CARGO_ENCODED_RUSTFLAGS",
                "RUSTC_WRAPPER",
                "RUSTC_WORKSPACE_WRAPPER",
                "RUSTDOCFLAGS",
            ]
            .contains(&text)
            || ["CLIPPY_ARGS", "CLIPPY_CONF_DIR", "TARGET", "OUT_DIR", "PROFILE", "OPT_LEVEL", "DEBUG"]
                .contains(&text);
        if outer {
            cargo.env_remove(&name);
        }
    }
    // Fixed addresses need no table of addresses. Rust adds start files of its own to a musl program, and only there.
    let mut flags =
        vec!["-Crelocation-model=static", "-Cforce-unwind-tables=no", "-Cstrip=symbols", "-Clink-arg=-Wl,-s"];
    if target.ends_with("-musl") {
        flags.push("-Clink-self-contained=no");
    }
    // Its dependencies too: what it is made of is loaded into every container.
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));

    let status = cargo.status().unwrap_or_else(|e| panic!("cannot run cargo for rcrun-init: {e}"));
    assert!(status.success(), "cargo build of rcrun-init failed: {status}");
    let built = folder.join(&target).join("release/rcrun-init");
    copy_if_changed(&built, &out.join("rcrun-init"));
}

/// Leaves the time of an equal file alone, so that the library is not compiled again.
fn copy_if_changed(from: &Path, to: &Path) {
    let new = std::fs::read(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    if std::fs::read(to).ok().as_deref() != Some(new.as_slice()) {
        std::fs::write(to, new).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    }
}
