//! Who may not get into whose way: two state roots with one cgroup, two commands on one container, a command that was
//! killed and one that clears after it.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use runtime_tests::bundle::Bundle;
use runtime_tests::machine::cgroup2;
use runtime_tests::runtime::{Runtime, code, said};
use runtime_tests::trace::{Victim, act_at, trace_since};
use rustix::event::{PollFd, PollFlags};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A payload that stays.
const STAY: [&str; 2] = ["sleep", "1000"];

/// A cgroup of the test's own, with a process in it that is nobody's container.
struct Foreign {
    folder: PathBuf,
    process: Child,
}

impl Foreign {
    fn new(name: &str) -> Foreign {
        let folder = cgroup2().join(name);
        fs::create_dir(&folder).expect("mkdir of a cgroup");
        let process = Command::new("sleep").arg("1000").spawn().expect("spawn");
        fs::write(folder.join("cgroup.procs"), process.id().to_string()).expect("cgroup.procs");
        Foreign { folder, process }
    }

    fn lives(&mut self) -> bool {
        self.process.try_wait().expect("wait").is_none()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.folder);
    }
}

fn in_cgroup(name: &str, path: &str) -> Bundle {
    Bundle::new(name, &STAY).with(|config| config["linux"]["cgroupsPath"] = json!(path))
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

fn create_words<'a>(bundle: &'a Bundle, id: &'a str) -> [&'a OsStr; 4] {
    ["create".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), id.as_ref()]
}

#[test]
fn what_lives_in_a_cgroup_survives_the_clearing_of_a_create_that_wanted_it_and_was_killed() {
    let runtime = Runtime::new();
    let name = format!("rcrun-foreign-{}", std::process::id());
    let mut foreign = Foreign::new(&name);
    let bundle = in_cgroup("foreign", &format!("/{name}"));
    let command = runtime.command(create_words(&bundle, "foreign"));
    let (mut points, mut left) = (0, 0);
    let state = runtime.root().join("foreign/state.json");
    // Killed at each system call from its first state.json on, until it comes to its own end: the refusal.
    loop {
        let traced = trace_since(&command, Victim::Command, Some(&state), points);
        left += u32::from(state.exists());
        runtime.ok(["delete", "--force", "foreign"]);
        assert!(foreign.lives(), "killed by delete, after a create killed at stop {points}");
        assert!(foreign.folder.exists(), "removed after a create killed at stop {points}");
        assert_eq!(runtime.ok(["list", "-q"]).out, "");
        if traced.killed_at.is_none() {
            assert_eq!(traced.status, 1, "a cgroup with processes is refused");
            break;
        }
        points += 1;
    }
    println!("{left} of {points} left a state.json");
    assert!(points > 3 && left > 0, "{left} of {points} creates left a state.json");
}

/// A bundle with a folder that its container and the test can write to.
fn with_a_folder(name: &str) -> Bundle {
    let bundle = Bundle::new(name, &STAY).with(|config| {
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({"destination": "/out", "source": "out", "type": "bind", "options": ["bind"]}));
    });
    fs::create_dir(bundle.path().join("out")).expect("mkdir");
    bundle
}

#[test]
fn of_ten_starts_at_once_one_runs_the_hooks_and_the_others_harm_nothing() {
    let runtime = Runtime::new();
    // It fails the second time.
    let hook = json!({"path": "/bin/mkdir", "args": ["mkdir", "/out/once"]});
    let bundle = with_a_folder("hooked").with(|config| config["hooks"] = json!({"startContainer": [hook]}));
    runtime.created(&bundle, "hooked");
    let said: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..10).map(|_| scope.spawn(|| runtime.say(["start", "hooked"]))).collect();
        starts.into_iter().map(|s| s.join().expect("thread")).collect()
    });
    for lost in said.iter().filter(|s| s.status != 0) {
        assert!(lost.err.contains("cannot start an already running container"), "{}", lost.err);
    }
    assert_eq!(said.iter().filter(|s| s.status == 0).count(), 1);
    assert_eq!(runtime.status("hooked"), "running");
}

#[test]
fn a_start_whose_hook_hangs_keeps_no_delete_waiting() {
    let runtime = Runtime::new();
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo in > /out/fifo; exec sleep 1000"]});
    let bundle = with_a_folder("hangs").with(|config| config["hooks"] = json!({"startContainer": [hook]}));
    let fifo = bundle.path().join("out/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    runtime.created(&bundle, "hangs");
    let mut start = runtime.command(["start", "hangs"]).stderr(Stdio::null()).spawn().expect("spawn");
    assert_eq!(fs::read_to_string(&fifo).expect("the hook writes"), "in\n");
    runtime.ok(["delete", "--force", "hangs"]);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
    assert_eq!(start.wait().expect("wait").code(), Some(1), "a start of what is gone fails");
}

#[test]
fn kill_with_all_sends_nothing_to_a_pid_that_is_no_longer_of_the_container() {
    const PIDFD_OPEN: i64 = 434;
    let runtime = Runtime::new();
    let path = format!("/rcrun-left-{}", std::process::id());
    let bundle = in_cgroup("left", &path);
    runtime.created(&bundle, "left");
    let folder = cgroup2().join(path.trim_start_matches('/'));
    let [mut leaves, mut stays] = [(), ()].map(|()| {
        let process = Command::new("sleep").arg("1000").spawn().expect("spawn");
        fs::write(folder.join("cgroup.procs"), process.id().to_string()).expect("cgroup.procs");
        process
    });
    let pid = leaves.id();
    // As if it had ended after the list was read, and its number were another's by now.
    let (status, came) =
        act_at(&runtime.command(["kill", "--all", "left", "TERM"]), PIDFD_OPEN, Some(pid.into()), |_| {
            fs::write(cgroup2().join("cgroup.procs"), pid.to_string()).expect("cgroup.procs");
        });
    assert_eq!((status, came), (0, true));
    assert_eq!(code(stays.wait().expect("wait")), 128 + 15);
    let left = leaves.try_wait().expect("wait");
    let _ = leaves.kill();
    leaves.wait().expect("wait");
    assert_eq!(left, None, "a process that is not the container's got the signal");
}

#[test]
fn delete_with_force_waits_for_no_child_that_a_killed_create_has_left() {
    const CLONE3: i64 = 435;
    let runtime = Runtime::new();
    let path = format!("/rcrun-child-{}", std::process::id());
    let bundle = in_cgroup("child", &path);
    let folder = cgroup2().join(path.trim_start_matches('/'));
    let command = runtime.command(create_words(&bundle, "child"));
    let (status, came) = act_at(&command, CLONE3, None, |pid| {
        // Born frozen, before its first instruction: it keeps all that its parent had open, the lock among it.
        fs::write(folder.join("cgroup.freeze"), "1").expect("cgroup.freeze");
        let events = fs::File::open(folder.join("cgroup.events")).expect("cgroup.events");
        std::thread::spawn(move || {
            wait_until(&events, "populated 1");
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        });
    });
    assert_eq!((status, came), (128 + 9, true));
    assert!(runtime.ok(["list"]).out.contains("creating"));
    let mut delete = Command::new("timeout");
    delete.args(["--kill-after=1", "20"]).arg(runtime.binary()).arg("--root").arg(runtime.root());
    let said = said(&delete.args(["delete", "--force", "child"]).output().expect("timeout"));
    let left = folder.exists();
    if left {
        let _ = fs::write(folder.join("cgroup.kill"), "1");
    }
    assert_eq!((said.status, said.err.as_str(), left), (0, "", false));
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn delete_with_force_names_the_stopped_process_that_holds_the_container_and_waits_no_longer() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("stopped-holder", &STAY);
    runtime.created(&bundle, "stopped-holder");
    // As a run or an update has it while it is at work.
    let mut flock = Command::new("flock");
    flock.args(["--exclusive", "--no-fork"]).arg(runtime.root().join("stopped-holder"));
    flock.args(["sh", "-c", "echo locked; exec sleep 1000"]).stdout(Stdio::piped());
    let mut holder = flock.spawn().expect("execute flock");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "locked\n");
    let pid = Pid::from_raw(holder.id().cast_signed());
    kill(pid, Signal::SIGSTOP).expect("SIGSTOP");
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it is stopped");
    let mut delete = Command::new("timeout");
    delete.args(["--kill-after=1", "60"]).arg(runtime.binary()).arg("--root").arg(runtime.root());
    let said = said(&delete.args(["delete", "--force", "stopped-holder"]).output().expect("timeout"));
    let words = format!("process {pid} (");
    let remedy = format!("`kill -KILL {pid}` ends it");
    assert!(said.status == 1 && said.err.contains(&words) && said.err.contains(&remedy), "{said:?}");
    assert!(said.err.contains("is stopped") && said.err.lines().count() == 1, "{}", said.err);
    // What it says to do helps.
    holder.kill().expect("SIGKILL");
    holder.wait().expect("wait");
    runtime.ok(["delete", "--force", "stopped-holder"]);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

/// Waits until a cgroup.events has this line.
fn wait_until(mut events: &fs::File, line: &str) {
    loop {
        let mut text = String::new();
        events.rewind().expect("rewind");
        events.read_to_string(&mut text).expect("cgroup.events");
        if text.lines().any(|l| l == line) {
            return;
        }
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        rustix::event::poll(&mut fds, None).expect("poll");
    }
}

#[test]
fn of_two_state_roots_with_one_id_the_first_has_the_cgroup_and_the_other_is_refused() {
    let (first, second) = (Runtime::new(), Runtime::new());
    let id = format!("rcrun-roots-{}", std::process::id());
    let bundle = Bundle::new("roots", &STAY);
    first.created(&bundle, &id);
    let pid = first.pid(&id);
    let said = second.create(&bundle, &id);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("container's cgroup is not empty"), "{}", said.err);
    second.ok(["delete", "--force", &id]);
    assert!(is_alive(pid));
    assert_eq!(first.status(&id), "created");
    assert_eq!(second.ok(["list", "-q"]).out, "");
}

#[test]
fn an_emptied_cgroup_that_another_root_has_taken_is_no_longer_the_first_ones_to_kill() {
    let (first, second) = (Runtime::new(), Runtime::new());
    let path = format!("/rcrun-taken-{}", std::process::id());
    let bundle = in_cgroup("taken", &path);
    first.created(&bundle, "taken");
    first.ok(["kill", "taken", "KILL"]);
    first.wait_for_end("taken");
    assert_eq!(first.status("taken"), "stopped");
    second.created(&bundle, "taken");
    let pid = second.pid("taken");
    for words in [&["kill", "--all", "taken", "KILL"] as &[&str], &["delete", "--force", "taken"]] {
        first.ok(words);
        assert!(is_alive(pid), "killed by {words:?} of the other state root");
        assert_eq!(second.status("taken"), "created", "after {words:?}");
    }
    second.ok(["start", "taken"]);
    second.ok(["delete", "--force", "taken"]);
    assert!(!cgroup2().join(Path::new(&path).strip_prefix("/").expect("absolute")).exists());
}

#[test]
fn of_ten_state_roots_that_create_at_once_in_one_cgroup_one_wins_and_lives() {
    let runtimes: Vec<Runtime> = (0..10).map(|_| Runtime::new()).collect();
    let bundle = in_cgroup("crowd", &format!("/rcrun-crowd-{}", std::process::id()));
    let said: Vec<_> = std::thread::scope(|scope| {
        let creates: Vec<_> =
            runtimes.iter().map(|runtime| scope.spawn(|| runtime.create(&bundle, "crowd"))).collect();
        creates.into_iter().map(|c| c.join().expect("thread")).collect()
    });
    for lost in said.iter().filter(|s| s.status != 0) {
        assert!(lost.err.contains("container's cgroup is not empty"), "{}", lost.err);
    }
    let winners: Vec<_> = runtimes.iter().zip(&said).filter(|(_, s)| s.status == 0).collect();
    assert_eq!(winners.len(), 1, "{said:?}");
    assert_eq!(winners[0].0.status("crowd"), "created");
}
