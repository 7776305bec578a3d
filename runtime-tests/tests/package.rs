//! What `make install` places and `make deb` packs: installed into a folder of its own, used there, removed again.

use runtime_tests::bundle::Folder;
use runtime_tests::programs;
use runtime_tests::runtime::{Runtime, Said, said};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn must(command: &mut Command) -> Said {
    let done = said(&command.output().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    assert_eq!(done.status, 0, "{command:?}: {}{}", done.out, done.err);
    done
}

// The man pages and completions, by the program that `make unit-tests` has built beside this one.
fn manual(folder: &Path) -> PathBuf {
    let own = std::env::current_exe().expect("my own path");
    let program = own.with_file_name("../examples/manual");
    assert!(program.exists(), "{}: cargo build --workspace --example manual", program.display());
    let made = folder.join("manual");
    must(Command::new(program).arg(&made));
    made
}

// The programs as they are packed: rcrun is the one under test; what stands for the shim is never executed.
fn programs(folder: &Path) -> PathBuf {
    let programs = folder.join("programs");
    fs::create_dir(&programs).expect("mkdir");
    for name in ["rcrun", "containerd-shim-rcrun-v2"] {
        programs::copy(Runtime::new().binary(), &programs.join(name));
    }
    programs
}

fn files(root: &Path) -> BTreeSet<String> {
    let found = must(Command::new("find").args([".", "!", "-type", "d"]).current_dir(root));
    found.out.lines().map(String::from).collect()
}

#[test]
fn what_is_installed_is_whole_and_is_removed_without_a_trace() {
    let folder = Folder::new("install");
    let (manual, programs, root) =
        (manual(folder.path()), programs(folder.path()), folder.path().join("root"));
    let script = |name: &str| Command::new(top().join("package").join(name));
    fs::create_dir_all(root.join("usr/local/share/man/man8")).expect("mkdir");
    fs::write(root.join("usr/local/share/man/man8/other.8"), "").expect("write");
    must(script("stage").args([&programs, &manual, &root]).arg("/usr/local"));
    let there = files(&root.join("usr/local"));
    for file in [
        "./sbin/rcrun",
        "./sbin/containerd-shim-rcrun-v2",
        "./share/man/man8/rcrun.8",
        "./share/man/man8/rcrun-run.8",
        "./share/man/man8/rcrun-image-pull.8",
        "./share/man/man8/containerd-shim-rcrun-v2.8",
        "./share/bash-completion/completions/rcrun",
        "./share/zsh/site-functions/_rcrun",
        "./share/fish/vendor_completions.d/rcrun.fish",
        "./share/doc/rcrun/engines/daemon.json",
        "./share/doc/rcrun/engines/containers.conf",
        "./share/doc/rcrun/engines/containerd.toml",
    ] {
        assert!(there.contains(file), "{file}: {there:?}");
    }
    let snippet = fs::read(root.join("usr/local/share/doc/rcrun/engines/daemon.json")).expect("read");
    let snippet: serde_json::Value = serde_json::from_slice(&snippet).expect("JSON");
    assert_eq!(snippet["runtimes"]["rcrun"]["path"], "/usr/local/sbin/rcrun");
    must(script("unstage").args([&manual, &root]).arg("/usr/local"));
    assert_eq!(files(&root), BTreeSet::from(["./usr/local/share/man/man8/other.8".to_string()]));
    assert!(!root.join("usr/local/share/doc/rcrun").exists());
}

#[test]
fn the_debian_package_is_installed_used_and_purged() {
    let folder = Folder::new("package");
    let (manual, programs) = (manual(folder.path()), programs(folder.path()));
    let made = must(Command::new(top().join("package/deb")).args([&programs, &manual]).arg(folder.path()));
    let package = Path::new(made.out.trim());
    let field = |name: &str| must(Command::new("dpkg-deb").arg("-f").arg(package).arg(name)).out;
    assert_eq!(field("Package").trim(), "rcrun");
    assert_eq!(field("Version").trim(), concat!(env!("CARGO_PKG_VERSION"), "-1"));

    // A root of its own, in which there is what rcrun depends on.
    let root = folder.path().join("root");
    let admin = root.join("var/lib/dpkg");
    for empty in ["info", "updates", "triggers"] {
        fs::create_dir_all(admin.join(empty)).expect("mkdir");
    }
    let depends: String = field("Depends")
        .split(',')
        .map(|name| {
            let name = name.trim();
            format!(
                "Package: {name}\nStatus: install ok installed\nMaintainer: a <a@b.test>\nArchitecture: all\nVersion: 1\nDescription: x\n\n"
            )
        })
        .collect();
    fs::write(admin.join("status"), &depends).expect("write");
    let dpkg = || {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display())).arg("--force-script-chrootless");
        dpkg
    };
    must(dpkg().arg("--install").arg(package));
    assert_eq!(must(dpkg().args(["--verify", "rcrun"])).out, "");
    let there = files(&root.join("usr"));
    for file in [
        "./sbin/rcrun",
        "./sbin/containerd-shim-rcrun-v2",
        "./share/man/man8/rcrun-exec.8.gz",
        "./share/zsh/vendor-completions/_rcrun",
        "./share/doc/rcrun/copyright",
        "./share/doc/rcrun/changelog.gz",
        "./share/doc/rcrun/changelog.Debian.gz",
        "./share/doc/rcrun/docs/docker.md",
        "./share/doc/rcrun/engines/daemon.json",
    ] {
        assert!(there.contains(file), "{file}: {there:?}");
    }
    let crates = fs::read_to_string(root.join("usr/share/doc/rcrun/crates")).expect("the list of crates");
    assert!(
        crates.contains("\nserde_json v") && !crates.contains('/'.to_string().as_str().repeat(2).as_str())
    );
    let version = must(Command::new(root.join("usr/sbin/rcrun")).arg("--version")).out;
    assert!(version.starts_with(concat!("rcrun version ", env!("CARGO_PKG_VERSION"))), "{version}");
    must(dpkg().args(["--purge", "rcrun"]));
    assert!(!root.join("usr").exists(), "{:?}", files(&root));
}
