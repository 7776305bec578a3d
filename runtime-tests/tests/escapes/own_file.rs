//! The runtime's own program, out of a container's reach (CVE-2019-5736): whatever appears in its pid namespace runs a
//! sealed memfd, or a program of the container, at each moment in which the container can look. runc 1.1.5 runs its own
//! file there, from a mount that is read-only: the container holds it, and cannot write it. What it could do without that
//! mount is shown on a program that enters as runc did before. Each runtime here is a copy in a folder of the test's.

use crate::victim::{Loot, holds, holds_where_runc_falls, id, is_runc, mapped_for_runc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::{give, user_namespace};
use runtime_tests::machine::own_mount_namespace;
use runtime_tests::programs::{self, compile};
use runtime_tests::runtime::{Lines, Runtime};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of a program, which a container may well succeed to write, with a look at what it was.
struct Copy {
    file: PathBuf,
    was: Vec<u8>,
    _folder: Folder,
}

impl Copy {
    fn new(of: &Path) -> Copy {
        let folder = Folder::new("copy");
        // busybox asks for its own name.
        let file = folder.path().join(of.file_name().expect("a file"));
        programs::copy(of, &file);
        Copy { was: fs::read(&file).expect("the copy"), file, _folder: folder }
    }

    /// As `Seen` names a file.
    fn numbers(&self) -> String {
        let data = fs::metadata(&self.file).expect("the copy");
        format!("{}:{}", data.dev(), data.ino())
    }

    fn has_changed(&self) -> bool {
        fs::read(&self.file).expect("the copy") != self.was
    }
}

/// A file that a process ran, and how the attempts to write it went.
#[derive(Debug)]
struct Seen {
    /// Device and inode.
    file: String,
    /// Seals, or why there are none.
    seals: String,
    attempts: [String; 2],
    link: String,
}

/// Ends the program that looks: the files, and at how many processes it looked.
fn end(pid: i32, mut lines: Lines) -> (Vec<Seen>, u32) {
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("kill");
    let mut files = Vec::new();
    loop {
        let line = lines.line();
        if let Some(looked) = line.strip_prefix("looked at ") {
            return (files, looked.parse().expect("a number"));
        }
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let ["file", file, seals, at_once, later, link] = words[..] else { panic!("{line}") };
        files.push(Seen {
            file: file.into(),
            seals: seals.into(),
            attempts: [at_once.into(), later.into()],
            link: link.into(),
        });
    }
}

/// What a container got of the copy: it was written, or a process ran it that the container could look at.
fn loot(copy: &Copy, files: &[Seen]) -> Loot {
    let own = copy.numbers();
    let written = files.iter().find(|seen| seen.attempts.contains(&"written".into()));
    let ran = files.iter().find(|seen| seen.file == own);
    match (copy.has_changed(), written, ran) {
        (true, ..) => Some("the runtime's file has changed".into()),
        (_, Some(seen), _) => Some(format!("a file was written: {seen:?}")),
        (.., Some(seen)) => Some(format!("a process ran the runtime's own file: {seen:?}")),
        _ => None,
    }
}

/// All that was seen is init's memfd, with all seals.
fn are_sealed(files: &[Seen]) {
    let sealed = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    for seen in files {
        assert_eq!(seen.link, "/memfd:rcrun-init (deleted)", "{seen:?}");
        let seals = seen.seals.strip_prefix("0x").and_then(|hex| i32::from_str_radix(hex, 16).ok());
        assert_eq!(seals.map(|seals| seals & sealed), Some(sealed), "{seen:?}");
    }
}

/// What an attacker needs to look at processes with more capabilities than its own, and to open files of mode 0111.
fn with_eyes(config: &mut Value) {
    let caps = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    config["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
}

/// A bundle whose first process looks.
fn looking(name: &str) -> Bundle {
    let bundle = Bundle::new(name, &["/bin/exe"]).with(with_eyes);
    compile("exe", &bundle.root().join("bin/exe"));
    bundle
}

/// A looking container and the copy that has started it.
struct Watched<'a> {
    /// That was copied.
    original: &'a Runtime,
    runtime: Runtime,
    copy: Copy,
    id: String,
    pid: i32,
    lines: Lines,
    bundle: Bundle,
}

impl Watched<'_> {
    fn new<'a>(original: &'a Runtime, name: &str, change: fn(&mut Value)) -> Watched<'a> {
        let copy = Copy::new(original.binary());
        let runtime = Runtime::of(copy.file.clone());
        let bundle = looking(name).with(change);
        if bundle.config["linux"]["uidMappings"].is_array() {
            give(&bundle.root());
        }
        let id = id(name);
        let mut lines = runtime.detached(&bundle, &id);
        assert_eq!(lines.line(), "watching");
        let pid = runtime.pid(&id);
        Watched { original, runtime, copy, id, pid, lines, bundle }
    }

    /// Runs a command of the copy; false where the container has it open for writing (ETXTBSY): what it saw tells more.
    fn goes(&self, words: &[&str]) -> bool {
        let Ok(status) = self.runtime.command(words).status() else { return false };
        assert!(status.success() || is_runc(self.original), "{words:?}: {status}");
        status.success()
    }

    /// What it got and saw of `least` processes, or more.
    fn end(self, least: u32) -> (Loot, Vec<Seen>) {
        let (files, looked) = end(self.pid, self.lines);
        println!(
            "{}: looked at {looked} processes, {} files, such as {:?}",
            self.id,
            files.len(),
            files.first()
        );
        let loot = loot(&self.copy, &files);
        if loot.is_none() && !is_runc(self.original) {
            are_sealed(&files);
            // Else it was too slow to see anything.
            assert!(looked >= least, "{looked}");
        }
        (loot, files)
    }
}

fn exec_often(watched: &Watched) {
    // The payload stays for a moment, so that each is looked at.
    let words = ["exec", &watched.id, "sleep", "0.02"];
    let _ = (0..30).all(|_| watched.goes(&words));
}

#[test]
fn cve_2019_5736_no_exec_shows_the_runtimes_file_to_a_container_that_may_look_at_any_process() {
    holds_where_runc_falls(|runtime: &Runtime| {
        let watched = Watched::new(runtime, "own-file-exec", |_| {});
        exec_often(&watched);
        watched.end(20).0
    });
}

#[test]
fn cve_2019_5736_no_exec_shows_any_file_but_its_own_to_root_of_a_user_namespace() {
    holds(|runtime: &Runtime| {
        let watched = Watched::new(runtime, "own-file-user", user_namespace);
        exec_often(&watched);
        // Init is not dumpable, so that it has no file for a container with a user namespace of its own.
        let (loot, files) = watched.end(20);
        loot.or_else(|| (!files.is_empty()).then(|| format!("{files:?}")))
    });
}

/// Containers that join the namespaces of `kinds` of the one that looks.
fn guests(watched: &Watched, kinds: &[&str]) {
    let guest = Bundle::new("own-file-guest", &["sleep", "0.02"]).with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != "pid");
        for kind in kinds {
            namespaces.push(json!({"type": kind, "path": format!("/proc/{}/ns/{kind}", watched.pid)}));
        }
        if kinds.contains(&"user") && is_runc(watched.original) {
            mapped_for_runc(config);
        }
    });
    give(&guest.root());
    let bundle = guest.path().to_str().expect("UTF-8");
    let id = format!("{}-guest", watched.id);
    let _ = (0..20).all(|_| watched.goes(&["run", "--bundle", bundle, &id]))
        && (0..10).all(|_| {
            watched.goes(&["create", "--bundle", bundle, &id])
                && watched.goes(&["start", &id])
                && watched.goes(&["delete", "--force", &id])
        });
}

#[test]
fn cve_2019_5736_no_run_or_create_into_its_pid_namespace_shows_the_runtimes_file_to_a_container() {
    holds_where_runc_falls(|runtime: &Runtime| {
        let watched = Watched::new(runtime, "own-file-pod", |_| {});
        guests(&watched, &["pid"]);
        let (loot, files) = watched.end(20);
        // Init is set up in there: each is seen.
        assert!(is_runc(runtime) || loot.is_some() || files.len() >= 10, "{files:?}");
        loot
    });
}

#[test]
fn cve_2019_5736_no_run_or_create_into_its_pid_and_user_namespaces_shows_any_file_but_its_own_to_a_container()
{
    holds(|runtime: &Runtime| {
        let watched = Watched::new(runtime, "own-file-user-pod", user_namespace);
        guests(&watched, &["user", "pid"]);
        let (loot, files) = watched.end(20);
        loot.or_else(|| (!files.is_empty()).then(|| format!("{files:?}")))
    });
}

#[test]
fn cve_2019_5736_what_a_created_container_waits_with_cannot_be_written_before_or_after_its_start() {
    holds_where_runc_falls(|original: &Runtime| {
        let copy = Copy::new(original.binary());
        let runtime = Runtime::of(copy.file.clone());
        let id = id("own-file-created");
        let bundle = Bundle::new("own-file-created", &["sleep", "1000"]).with(with_eyes);
        compile("exe", &bundle.root().join("bin/exe"));
        runtime.created(&bundle, &id);
        let (reader, writer) = std::io::pipe().expect("pipe");
        let folder = Folder::new("pid");
        let pid_file = folder.path().join("pid");
        let mut command = runtime.command(["exec", "--detach", "--pid-file"]);
        command.arg(&pid_file).args([id.as_str(), "/bin/exe", "1"]).stdout(writer);
        assert!(command.status().expect("exec").success());
        drop(command);
        let mut lines = Lines::of(reader.into());
        assert_eq!(lines.line(), "watching");
        runtime.ok(["start", &id]);
        let pid = fs::read_to_string(&pid_file).expect("pid file").parse().expect("a pid");
        let (files, looked) = end(pid, lines);
        let loot = loot(&copy, &files);
        if loot.is_none() && !is_runc(original) {
            assert_eq!((files.len(), looked), (1, 1), "{files:?}");
            are_sealed(&files);
        }
        loot
    });
}

/// The attack itself, on what has no defence: a copy of busybox that joins the pid namespace and stays for a moment.
#[test]
fn cve_2019_5736_a_program_that_enters_from_a_mount_that_can_be_written_is_overwritten() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let watched = Watched::new(&runtime, "own-file-bites", |_| {});
    let copy = Copy::new(&watched.bundle.root().join("bin/busybox"));
    let enter = || {
        let mut command = Command::new(&copy.file);
        command.args(["nsenter", "--target", &watched.pid.to_string(), "--pid"]);
        command.arg(&copy.file).args(["sleep", "0.05"]).status()
    };
    // It fails where somebody writes the copy at this moment (ETXTBSY).
    let rounds = (0..100).take_while(|_| !copy.has_changed() && enter().is_ok()).count();
    let (files, _) = end(watched.pid, watched.lines);
    println!("{rounds} rounds: {files:?}");
    assert!(copy.has_changed(), "{files:?}");
    assert!(
        files.iter().any(|seen| seen.file == copy.numbers() && seen.attempts.contains(&"written".into()))
    );
}
