//! The shim under Debian's containerd, by what a person types. Each test has a containerd of its own, in a mount namespace
//! with a /run of its own. Whoever executes a runtime's binary is found out: those on its PATH leave a mark.

use crate::harness::{Living, all_here, binary, text};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::Folder;
use runtime_tests::image::Image;
use runtime_tests::inside::is_alive;
use runtime_tests::machine::own_mount_namespace;
use runtime_tests::runtime::{Lines, Said, readable, said};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const IMAGE: &str = "example.test/box:1";

struct Containerd {
    folder: Folder,
    namespace: String,
    child: Child,
}

impl Containerd {
    fn new() -> Containerd {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        own_mount_namespace();
        let nothing = None::<&str>;
        let folder = Folder::new("containerd");
        crate::harness::own_run(folder.path());
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("mkdir");
        // An overlay's upper folder cannot lie on an overlay, which /tmp may be.
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), nothing).expect("tmpfs for containerd");
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = \"/run/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"/run/containerd/containerd.sock\"\n"
        );
        std::fs::write(folder.path().join("config.toml"), config).expect("write");
        let stubs = folder.path().join("stubs");
        std::fs::create_dir(&stubs).expect("mkdir");
        for name in ["runc", "crun", "rcrun"] {
            let mark = folder.path().join("executed");
            let script = format!("#!/bin/sh\necho {name} \"$@\" >> {}\nexit 1\n", mark.display());
            std::fs::write(stubs.join(name), script).expect("write");
            std::fs::set_permissions(stubs.join(name), PermissionsExt::from_mode(0o755)).expect("chmod");
        }
        let child = Containerd::start(&folder);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let containerd =
            Containerd { folder, namespace: format!("rcrun-ctr-{}-{number}", std::process::id()), child };
        let tar = containerd.folder.path().join("image.tar");
        Image::new("ctr")
            .runs(serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}))
            .docker_save(&tar, &[IMAGE]);
        containerd.ok(&format!("image import {}", tar.display()));
        containerd
    }

    /// A containerd that serves.
    fn start(folder: &Folder) -> Child {
        let notify = folder.path().join("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).expect("bind");
        let log =
            std::fs::File::options().append(true).create(true).open(folder.path().join("log")).expect("log");
        let shim = binary();
        let path = format!(
            "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
            folder.path().join("stubs").display(),
            shim.parent().expect("a folder").display()
        );
        let child = Command::new("containerd")
            .arg("--config")
            .arg(folder.path().join("config.toml"))
            .env("PATH", path)
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("containerd is missing: apt-get install containerd");
        assert!(readable(socket.as_fd()), "containerd does not serve: {}", text(&folder.path().join("log")));
        child
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["60", "ctr", "-n", &self.namespace]).args(words(line)).stdin(Stdio::null());
        command
    }

    fn ctr(&self, line: &str) -> Said {
        said(&self.command(line).output().expect("ctr"))
    }

    /// What a command prints that must succeed.
    fn ok(&self, line: &str) -> String {
        let said = self.ctr(line);
        assert_eq!(
            said.status,
            0,
            "ctr {line}: {} {}\n{}",
            said.out,
            said.err,
            text(&self.folder.path().join("log"))
        );
        said.out
    }

    /// `ctr run` with our runtime. (ctr's default of CPU shares needs a controller, which the machine may not have.)
    fn run(&self, options: &str, rest: &str) -> Said {
        self.ctr(&format!("run --cpu-shares 0 --runtime io.containerd.rcrun.v2 {options} {IMAGE} {rest}"))
    }

    /// The pid and status of a task.
    fn task(&self, id: &str) -> Option<(i32, String)> {
        let list = self.ok("task ls");
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.to_string()))
    }

    /// The pid of the shim of a task: the task's parent.
    fn shim_of(&self, pid: i32) -> i32 {
        let status = text(format!("/proc/{pid}/status").as_ref());
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("PPid");
        let parent: i32 = parent.trim().parse().expect("a number");
        assert!(text(format!("/proc/{parent}/cmdline").as_ref()).contains("containerd-shim-rcrun-v2"));
        parent
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill containerd");
        self.child.wait().expect("wait for containerd");
    }

    fn start_again(&mut self) {
        self.child = Containerd::start(&self.folder);
    }

    /// No runtime was executed, and nothing is left.
    fn is_clean(&self) {
        // A shim has answered before it ends.
        for pid in all_here() {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.contains("containerd-shim-rcrun-v2") {
                Living::of_some(pid).iter().for_each(Living::ends);
            }
        }
        let mark = self.folder.path().join("executed");
        assert!(!mark.exists(), "these were executed: {}", text(&mark));
        let mounts = text("/proc/thread-self/mountinfo".as_ref());
        let left: Vec<_> = mounts.lines().filter(|line| line.contains("/rootfs ")).collect();
        assert!(left.is_empty(), "{left:?}");
        for folder in [
            "s",
            &format!("rcrun/{}", self.namespace),
            &format!("io.containerd.runtime.v2.task/{}", self.namespace),
        ] {
            let folder = std::path::Path::new("/run/containerd").join(folder);
            let left: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        crate::harness::end_all_here(&self.namespace);
    }
}

/// A line as a shell reads it: words, and text in single quotes.
fn words(line: &str) -> Vec<String> {
    line.split('\'')
        .enumerate()
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_string).collect::<Vec<_>>(),
            _ => vec![part.to_string()],
        })
        .collect()
}

#[test]
fn ctr_runs_a_container_and_gives_back_its_status() {
    let containerd = Containerd::new();
    let said = containerd.run("--rm", "box sh -c 'echo out; echo err >&2; exit 3'");
    assert_eq!((said.out.as_str(), said.status), ("out\n", 3), "{}", said.err);
    assert!(said.err.starts_with("err\n"), "{}", said.err);
    let said = containerd.run("--rm", "box /no/such");
    assert!(said.status != 0 && said.err.contains("no such file or directory"), "{}", said.err);
    let said = containerd.run("--rm --read-only --cwd /tmp --env A=b", "box sh -c 'pwd; echo $A; touch /x'");
    assert!(said.out.starts_with("/tmp\nb\n") && said.err.contains("Read-only"), "{said:?}");
    containerd.is_clean();
}

#[test]
fn ctr_lives_with_a_container_in_the_background() {
    let containerd = Containerd::new();
    let said = containerd.run("-d", "back sleep 1000");
    assert_eq!(said.status, 0, "{}", said.err);
    let (pid, status) = containerd.task("back").expect("a task");
    assert_eq!(status, "RUNNING");
    let said = containerd.ctr("task exec --exec-id e back sh -c 'echo in exec; exit 5'");
    assert_eq!((said.out.as_str(), said.status), ("in exec\n", 5), "{}", said.err);
    let mut cat = containerd.command("task exec --exec-id typed back cat");
    let said = crate::harness::run(&mut cat, b"typed\n");
    assert_eq!((said.out.as_str(), said.status), ("typed\n", 0), "{}", said.err);
    assert!(containerd.ok("task ps back").contains(&pid.to_string()));
    assert!(containerd.ok("task metrics back").contains("cpu.usage_usec"));
    containerd.ok("task pause back");
    assert_eq!(containerd.task("back").expect("a task").1, "PAUSED");
    containerd.ok("task resume back");
    let waiting = Living::of(pid);
    containerd.ok("task kill -s KILL back");
    waiting.ends();
    // ctr tells the status of the container as its own.
    assert!(containerd.ctr("task rm back").err.contains("137"));
    containerd.ok("container rm back");
    containerd.is_clean();
}

#[test]
fn a_container_outlives_containerd_which_finds_it_again() {
    let mut containerd = Containerd::new();
    let said = containerd.run("-d", "lives sleep 1000");
    assert_eq!(said.status, 0, "{}", said.err);
    let (pid, _) = containerd.task("lives").expect("a task");
    containerd.kill();
    assert!(is_alive(pid));
    containerd.start_again();
    assert_eq!(containerd.task("lives"), Some((pid, "RUNNING".to_string())));
    // One that ends while containerd is away has ended when it is back.
    containerd.kill();
    let living = Living::of(pid);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    living.ends();
    containerd.start_again();
    assert_eq!(containerd.task("lives").expect("a task").1, "STOPPED");
    assert!(containerd.ctr("task rm lives").err.contains("137"));
    containerd.ok("container rm lives");
    containerd.is_clean();
}

#[test]
fn a_container_whose_shim_was_killed_is_cleared_away() {
    let mut containerd = Containerd::new();
    for with_containerd in [false, true] {
        let said = containerd.run("-d", "lost sleep 1000");
        assert_eq!(said.status, 0, "{}", said.err);
        let (pid, _) = containerd.task("lost").expect("a task");
        let shim = containerd.shim_of(pid);
        if with_containerd {
            containerd.kill();
        }
        let living = Living::of(pid);
        kill(Pid::from_raw(shim), Signal::SIGKILL).expect("kill");
        if with_containerd {
            containerd.start_again();
        }
        // containerd runs the shim's `delete`.
        living.ends();
        let mut attempts = 0;
        while containerd.task("lost").is_some_and(|(_, status)| status != "STOPPED") {
            attempts += 1;
            assert!(attempts < 600, "containerd does not notice");
        }
        containerd.ctr("task rm lost");
        containerd.ok("container rm lost");
        containerd.is_clean();
    }
}

#[test]
fn a_terminal_of_ctr_is_the_containers() {
    let containerd = Containerd::new();
    let pty = nix::pty::openpty(None, None).expect("openpty");
    // Without `timeout`, which would put it into the background of its terminal.
    let line = format!(
        "run --rm -t --cpu-shares 0 --runtime io.containerd.rcrun.v2 {IMAGE} term sh -c 'tty; stty size; read x; echo got $x'"
    );
    let mut command = Command::new("ctr");
    command.args(["-n", &containerd.namespace]).args(words(&line));
    let size = rustix::termios::Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&pty.slave, size).expect("TIOCSWINSZ");
    let dup = || Stdio::from(pty.slave.try_clone().expect("dup"));
    let mut child = command.stdin(dup()).stdout(dup()).stderr(dup()).spawn().expect("ctr");
    drop(pty.slave);
    let typing = pty.master.try_clone().expect("dup");
    let mut out = Lines::of(pty.master);
    assert_eq!(out.line().trim_end(), "/dev/pts/0");
    out.line();
    rustix::io::write(&typing, b"word\r").expect("write");
    assert!(out.until("got word").contains("word"));
    assert!(child.wait().expect("wait").success());
    containerd.is_clean();
}
