//! checkpoint and restore, by the machine's CRIU.

mod moved;
mod tasks;

use super::limits;
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::{field, shell};
use runtime_tests::runtime::{Lines, Runtime, Said, code, readable};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Counts for ever, a line for each.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";

/// A place for images, and the words that name it.
struct Images(Folder);

impl Images {
    fn new() -> Images {
        Images(Folder::new("images"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// `--image-path` of the folder `name` in it.
    fn of(&self, name: &str) -> String {
        format!("--image-path={}", self.path().join(name).display())
    }
}

fn checkpoint(runtime: &Runtime, options: &[&str], id: &str) -> Said {
    let words = ["checkpoint"].iter().chain(options).chain([&id]);
    runtime.without_pipes(&mut runtime.command(words))
}

fn checkpointed(runtime: &Runtime, options: &[&str], id: &str) {
    let said = checkpoint(runtime, options, id);
    assert_eq!((said.status, said.err.as_str()), (0, ""), "checkpoint {options:?} {id}");
}

/// A restore in the background; what the container says comes from what is returned.
fn try_restore(runtime: &Runtime, bundle: &Bundle, options: &[&str], id: &str) -> Result<Lines, Said> {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let folder = Folder::new("said");
    let errors = folder.path().join("err");
    let words = ["restore", "--detach", "--bundle"].map(OsStr::new).into_iter();
    let words = words.chain([bundle.path().as_os_str()]).chain(options.iter().map(OsStr::new));
    let mut command = runtime.command(words.chain([OsStr::new(id)]));
    let status = command.stdout(writer).stderr(File::create(&errors).expect("a file")).status();
    let status = code(status.expect("execute the runtime"));
    let err = fs::read_to_string(&errors).expect("what was said");
    match status {
        0 => Ok(Lines::of(reader.into())),
        _ => Err(Said { status, out: String::new(), err }),
    }
}

fn restore(runtime: &Runtime, bundle: &Bundle, options: &[&str], id: &str) -> Lines {
    try_restore(runtime, bundle, options, id).unwrap_or_else(|said| panic!("restore {options:?}: {said:?}"))
}

fn number(line: &str) -> u64 {
    line.trim().parse().unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

fn last(text: &str) -> u64 {
    number(text.lines().last().unwrap_or_else(|| panic!("no lines in {text:?}")))
}

#[test]
fn a_restored_container_goes_on_where_it_was_and_takes_every_verb() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let bundle = shell("counter", COUNT, |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
    });
    let mut lines = runtime.detached(&bundle, "counter");
    let mut before = lines.until("3\n");
    checkpointed(&runtime, &[&images.of("a")], "counter");
    before += &lines.rest();
    assert_eq!(runtime.say(["state", "counter"]).status, 1, "it is deleted");

    let mut lines = restore(&runtime, &bundle, &[&images.of("a")], "counter");
    assert_eq!(number(&lines.line()), last(&before) + 1);
    assert_eq!(runtime.status("counter"), "running");
    let status = fs::read_to_string(format!("/proc/{}/status", runtime.pid("counter"))).expect("status");
    assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("2", "1"));
    let clocks =
        runtime.ok(["exec", "counter", "sh", "-c", "readlink /proc/1/ns/time; readlink /proc/self/ns/time"]);
    let clocks: Vec<&str> = clocks.out.lines().collect();
    assert_eq!(clocks[0], clocks[1]);
    assert!(runtime.ok(["ps", "counter"]).out.contains("sleep"));
    assert!(runtime.ok(["events", "--stats", "counter"]).out.contains("\"pids\""));
    runtime.ok(["pause", "counter"]);
    assert_eq!(runtime.status("counter"), "paused");
    // A paused one can be written too, and stays paused.
    checkpointed(&runtime, &["--leave-running", &images.of("b")], "counter");
    assert_eq!(runtime.status("counter"), "paused");
    runtime.ok(["resume", "counter"]);
    lines.line();
    runtime.ok(["kill", "counter", "KILL"]);
    runtime.wait_for_end("counter");
    runtime.ok(["delete", "counter"]);
}

#[test]
fn a_terminal_comes_to_the_console_socket_of_the_restore() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let bundle = shell("console", "echo up; while read line; do echo got $line; done", |config| {
        config["process"]["terminal"] = json!(true);
    });
    let folder = Folder::new("console");
    let listener = UnixListener::bind(folder.path().join("sock")).expect("bind");
    let socket = format!("--console-socket={}", folder.path().join("sock").display());
    assert_eq!(runtime.create_with(&bundle, "console", &[&socket]).status, 0);
    let master = received(&listener);
    runtime.ok(["start", "console"]);
    let mut screen = Lines::of(master.try_clone().expect("dup"));
    screen.until("up\r\n");
    checkpointed(&runtime, &[&images.of("a")], "console");
    drop((master, screen));

    restore(&runtime, &bundle, &[&images.of("a"), &socket], "console");
    let master = received(&listener);
    rustix::io::write(&master, b"this\n").expect("write");
    Lines::of(master).until("got this\r\n");
    // Without a socket nobody would have it.
    let said = try_restore(&runtime, &bundle, &[&images.of("a")], "nobody").expect_err("it has no terminal");
    assert!(said.err.contains("console socket"), "{}", said.err);
}

/// The descriptor that a runtime sends.
fn received(listener: &UnixListener) -> OwnedFd {
    assert!(readable(listener.as_fd()), "nobody connects");
    let (stream, _) = listener.accept().expect("accept");
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .expect("recvmsg");
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.expect("a descriptor")
}

#[test]
fn memory_is_written_before_and_the_rest_with_its_parent() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let bundle = shell("parent", COUNT, |_| {});
    let mut lines = runtime.detached(&bundle, "parent");
    let mut before = lines.until("2\n");
    checkpointed(&runtime, &["--pre-dump", &images.of("first")], "parent");
    assert_eq!(runtime.status("parent"), "running");
    before += &lines.line();
    let said = checkpoint(&runtime, &["--parent-path", "../nowhere", &images.of("bad")], "parent");
    assert!(said.status == 1 && said.err.contains("--parent-path"), "{}", said.err);
    checkpointed(&runtime, &["--parent-path", "../first", &images.of("second")], "parent");
    before += "\n";
    before += &lines.rest();
    let mut lines = restore(&runtime, &bundle, &[&images.of("second")], "parent");
    assert_eq!(number(&lines.line()), last(&before) + 1);
}

#[test]
fn limits_after_a_restore_are_those_of_the_config_at_hand() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let bundle = |limit: u64| {
        limits::limited(
            "relimited",
            &["sh", "-c", COUNT],
            json!({"pids": {"limit": limit}, "memory": {"limit": 64 << 20}}),
        )
    };
    let first = bundle(20);
    let mut lines = runtime.detached(&first, "relimited");
    lines.until("2\n");
    checkpointed(&runtime, &["--manage-cgroups-mode=full", &images.of("a")], "relimited");
    // As if the images had come from elsewhere, to a config of its own, with the root that they know.
    let second = first.with(|config| config["linux"]["resources"]["pids"]["limit"] = json!(30));
    let options = ["--manage-cgroups-mode=full", &images.of("a")];
    let mut lines = restore(&runtime, &second, &options, "relimited");
    lines.line();
    assert_eq!(limits::read("relimited", "pids.max").trim(), "30");
    assert_eq!(limits::read("relimited", "memory.max").trim(), (64 << 20).to_string());
    let pids = limits::read("relimited", "cgroup.procs");
    assert!(pids.lines().any(|pid| pid == runtime.pid("relimited").to_string()), "{pids}");
}

#[test]
fn images_that_give_more_than_the_config_are_refused_and_leave_nothing() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let bundle = shell("strong", COUNT, |config| {
        config["process"]["capabilities"]["bounding"]
            .as_array_mut()
            .expect("a set")
            .push(json!("CAP_NET_RAW"));
        config["linux"]["cgroupsPath"] = json!("/rcrun-strong");
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/tmp/p", "type": "proc", "source": "proc"}));
    });
    let mut lines = runtime.detached(&bundle, "strong");
    lines.until("2\n");
    checkpointed(&runtime, &[&images.of("a")], "strong");
    let mut strong = bundle.config.clone();
    let without = |mounts: &serde_json::Value| {
        let mounts = mounts.as_array().expect("mounts");
        mounts.iter().filter(|mount| mount["destination"] != "/tmp/p").cloned().collect()
    };
    let cases: [(&str, serde_json::Value, &str); 6] = [
        // Writable, and nothing of it is masked.
        ("/mounts", without(&strong["mounts"]), "a proc is mounted on /tmp/p, against /mounts"),
        (
            "/process/capabilities/bounding",
            json!(["CAP_KILL", "CAP_AUDIT_WRITE", "CAP_NET_BIND_SERVICE"]),
            "CAP_NET_RAW",
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}), "/linux/seccomp"),
        ("/linux/maskedPaths/1", json!("/proc/version"), "/linux/maskedPaths"),
        ("/linux/readonlyPaths", json!(["/dev/shm"]), "/linux/readonlyPaths"),
        ("/mounts/3/options", json!(["ro", "nosuid", "noexec", "nodev"]), "/mounts"),
    ];
    let mut bundle = bundle;
    for (pointer, value, word) in cases {
        let (above, name) = pointer.rsplit_once('/').expect("a pointer");
        let mut config = strong.clone();
        match config.pointer_mut(pointer) {
            Some(there) => *there = value,
            None => config.pointer_mut(above).expect("an object")[name] = value,
        }
        bundle = bundle.with(|own| *own = config);
        let said = try_restore(&runtime, &bundle, &[&images.of("a")], "weak").expect_err(pointer);
        assert!(said.err.contains(word), "{pointer}: {}", said.err);
        assert_eq!(runtime.ok(["list", "--quiet"]).out, "", "{pointer}");
        assert!(!limits::cgroup("strong").exists(), "{pointer}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains("criu-root"), "{mounts}");
    }
    // A link among them would be read as memory.
    strong["root"]["readonly"] = json!(true);
    let bundle = bundle.with(|own| *own = strong);
    std::os::unix::fs::symlink("/etc/shadow", images.path().join("a/pages-9.img")).expect("symlink");
    let said = try_restore(&runtime, &bundle, &[&images.of("a")], "weak").expect_err("a link");
    assert!(said.err.contains("pages-9.img is a symbolic link"), "{}", said.err);
    fs::remove_file(images.path().join("a/pages-9.img")).expect("unlink");
    // Nor is the log written through a link.
    let canary = images.path().join("canary");
    fs::write(&canary, "alive").expect("write");
    let _ = fs::remove_file(images.path().join("a/restore.log"));
    std::os::unix::fs::symlink(&canary, images.path().join("a/restore.log")).expect("symlink");
    let said = try_restore(&runtime, &bundle, &[&images.of("a")], "weak").expect_err("a link");
    assert!(said.err.contains("symbolic link"), "{}", said.err);
    assert_eq!(fs::read_to_string(&canary).expect("read"), "alive");
    fs::remove_file(images.path().join("a/restore.log")).expect("unlink");
    // A parent's folder lies beside them.
    std::os::unix::fs::symlink("/etc", images.path().join("a/parent")).expect("symlink");
    let said = try_restore(&runtime, &bundle, &[&images.of("a")], "weak").expect_err("a parent");
    assert!(said.err.contains("link parent leads to /etc"), "{}", said.err);
    fs::remove_file(images.path().join("a/parent")).expect("unlink");
    // What is broken names CRIU's log.
    fs::write(images.path().join("a/pstree.img"), "broken").expect("write");
    let said = try_restore(&runtime, &bundle, &[&images.of("a")], "weak").expect_err("broken images");
    assert!(said.err.contains("restore.log"), "{}", said.err);
    assert_eq!(runtime.ok(["list", "--quiet"]).out, "");
    assert!(!limits::cgroup("strong").exists());
}

#[test]
fn what_cannot_be_done_is_said_with_the_remedy() {
    let (runtime, images) = (Runtime::new(), Images::new());
    let bundle = shell("refused", "echo up; exec sleep 1000", |_| {});
    runtime.created(&bundle, "refused");
    let said = checkpoint(&runtime, &[&images.of("a")], "refused");
    assert!(said.err.contains("cannot checkpoint a container that is created"), "{}", said.err);
    runtime.ok(["delete", "refused"]);
    let mut lines = runtime.detached(&bundle, "refused");
    assert_eq!(lines.line(), "up");
    let mut command = runtime.command(["checkpoint", &images.of("a"), "refused"]);
    let said = runtime.without_pipes(command.env("PATH", images.path()));
    assert!(said.err.contains("criu is not found in PATH: install it"), "{}", said.err);
    let words = ["--rootless=true", "checkpoint", &images.of("a"), "refused"];
    let said = runtime.without_pipes(&mut runtime.command(words));
    assert!(said.err.contains("checkpoint needs root of the machine"), "{}", said.err);
    assert_eq!(runtime.status("refused"), "running");
    let said =
        try_restore(&runtime, &bundle, &[&format!("--image-path={}", images.path().display())], "none");
    let said = said.expect_err("there are no images");
    assert!(said.err.contains("holds no checkpoint of a container"), "{}", said.err);
}
