//! The runtime's own program, out of a container's reach (CVE-2019-5736): whatever appears in its pid namespace runs a
//! sealed memfd, or a program of the container, at each moment in which the container can look.

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
use std::path::PathBuf;

/// A copy of the runtime, which a container may well succeed to write, with a look at what it was.
struct Copy {
    runtime: Runtime,
    file: PathBuf,
    was: Vec<u8>,
    _folder: Folder,
}

impl Copy {
    fn new() -> Copy {
        let folder = Folder::new("copy");
        let original = Runtime::new();
        let file = folder.path().join("runtime");
        programs::copy(original.binary(), &file);
        Copy {
            runtime: Runtime::of(file.clone()),
            was: fs::read(&file).expect("the copy"),
            file,
            _folder: folder,
        }
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

/// Nobody ran the runtime's file, nothing could be written, the copy is as it was.
fn out_of_reach(copy: &Copy, name: &str, files: &[Seen]) {
    let data = fs::metadata(&copy.file).expect("the copy");
    let own = format!("{}:{}", data.dev(), data.ino());
    let sealed = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    for seen in files {
        assert_ne!(seen.file, own, "{name}: a process ran the runtime's own file: {seen:?}");
        assert!(!seen.attempts.contains(&"written".into()), "{name}: {seen:?}");
        assert_eq!(seen.link, "/memfd:rcrun-init (deleted)", "{name}: {seen:?}");
        let seals = seen.seals.strip_prefix("0x").and_then(|hex| i32::from_str_radix(hex, 16).ok());
        assert_eq!(seals.map(|seals| seals & sealed), Some(sealed), "{name}: {seen:?}");
    }
    assert!(fs::read(&copy.file).expect("the copy") == copy.was, "{name}: the runtime's file has changed");
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

fn id(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// A looking container and the copy that has started it.
struct Watched {
    copy: Copy,
    id: String,
    pid: i32,
    lines: Lines,
    _bundle: Bundle,
}

impl Watched {
    fn new(name: &str, change: fn(&mut Value)) -> Watched {
        own_mount_namespace();
        let copy = Copy::new();
        let bundle = looking(name).with(change);
        if bundle.config["linux"]["uidMappings"].is_array() {
            give(&bundle.root());
        }
        let id = id(name);
        let mut lines = copy.runtime.detached(&bundle, &id);
        assert_eq!(lines.line(), "watching");
        let pid = copy.runtime.pid(&id);
        Watched { copy, id, pid, lines, _bundle: bundle }
    }

    /// Runs a command of the copy; false where the container has it open for writing (ETXTBSY): what it saw tells more.
    fn goes(&self, words: &[&str]) -> bool {
        let Ok(status) = self.copy.runtime.command(words).status() else { return false };
        assert!(status.success(), "{words:?}: {status}");
        true
    }

    /// What it saw of `least` processes, or more.
    fn end(self, least: u32) -> Vec<Seen> {
        let (files, looked) = end(self.pid, self.lines);
        println!(
            "{}: looked at {looked} processes, {} files, such as {:?}",
            self.id,
            files.len(),
            files.first()
        );
        out_of_reach(&self.copy, &self.id, &files);
        // Else it was too slow to see anything.
        assert!(looked >= least, "{looked}");
        files
    }
}

fn exec_often(watched: &Watched) {
    // The payload stays for a moment, so that each is looked at.
    let words = ["exec", &watched.id, "sleep", "0.02"];
    let _ = (0..30).all(|_| watched.goes(&words));
}

#[test]
fn no_exec_shows_the_runtimes_file_to_a_container_that_may_look_at_any_process() {
    let watched = Watched::new("own-file-exec", |_| {});
    exec_often(&watched);
    watched.end(20);
}

#[test]
fn no_exec_shows_any_file_but_its_own_to_root_of_a_user_namespace() {
    let watched = Watched::new("own-file-user", user_namespace);
    exec_often(&watched);
    // Init is not dumpable, so that it has no file for a container with a user namespace of its own.
    let files = watched.end(20);
    assert!(files.is_empty(), "{files:?}");
}

/// Containers that join the namespaces of `kinds` of the one that looks.
fn guests(watched: &Watched, kinds: &[&str]) {
    let guest = Bundle::new("own-file-guest", &["sleep", "0.02"]).with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != "pid");
        for kind in kinds {
            namespaces.push(json!({"type": kind, "path": format!("/proc/{}/ns/{kind}", watched.pid)}));
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
fn no_run_or_create_into_its_pid_namespace_shows_the_runtimes_file_to_a_container() {
    let watched = Watched::new("own-file-pod", |_| {});
    guests(&watched, &["pid"]);
    // Init is set up in there: each is seen.
    let files = watched.end(20);
    assert!(files.len() >= 10, "{files:?}");
}

#[test]
fn no_run_or_create_into_its_pid_and_user_namespaces_shows_any_file_but_its_own_to_a_container() {
    let watched = Watched::new("own-file-user-pod", user_namespace);
    guests(&watched, &["user", "pid"]);
    let files = watched.end(20);
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn what_a_created_container_waits_with_cannot_be_written_before_or_after_its_start() {
    own_mount_namespace();
    let copy = Copy::new();
    let runtime = &copy.runtime;
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
    assert_eq!((files.len(), looked), (1, 1), "{files:?}");
    out_of_reach(&copy, "created", &files);
}
