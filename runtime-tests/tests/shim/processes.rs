//! Processes that exec adds, and the order in which ends are told.

use crate::harness::{Io, Living, Place};
use containerd_shim_protos::api::Status;
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::shell;
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn an_exec_is_added_started_waited_for_and_deleted() {
    let place = Place::new("shim-exec");
    let bundle = Bundle::new("shim-exec", &["sleep", "1000"]);
    let shim = place.created(&bundle, "exec", &Io::none());
    shim.start("exec", "").expect("start");
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "e") };
    let (mut out, mut err) = (io.out(), io.err());
    shim.exec("exec", "e", &io, "echo $PPID; echo err >&2; exit 7").expect("exec");
    assert_eq!(shim.status("exec", "e"), Status::CREATED);
    let pid = shim.start("exec", "e").expect("start");
    assert_eq!((out.rest().as_str(), err.rest().as_str()), ("0\n", "err\n"));
    assert_eq!(shim.wait("exec", "e"), Ok(7));
    assert_eq!(shim.status("exec", "e"), Status::STOPPED);
    let deleted = shim.delete("exec", "e").expect("delete");
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 7));
    // Its name is free again.
    shim.exec("exec", "e", &Io::none(), "true").expect("exec");
    shim.delete("exec", "e").expect("delete one that never started");
    assert_eq!(shim.status("exec", ""), Status::RUNNING);
    shim.clear("exec");
    let topics = [
        "create exec",
        "start exec",
        "exec-added e",
        "exec-started e",
        "exit e",
        "exec-added e",
        "exit exec",
        "delete exec",
    ];
    assert_eq!(place.heard(topics.len()), topics.map(|topic| format!("/tasks/{topic}")));
}

#[test]
fn execs_end_before_their_container_also_where_they_could_outlive_it() {
    let place = Place::new("shim-order");
    for (id, shared) in [("own-pids", false), ("machines-pids", true)] {
        let bundle = Bundle::new("shim-order", &["sleep", "1000"]).with(|c| {
            if shared {
                c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
            }
        });
        let shim = place.created(&bundle, id, &Io::none());
        shim.start(id, "").expect("start");
        let mut expected = BTreeSet::new();
        for number in 0..3 {
            let name = format!("{id}-e{number}");
            shim.exec(id, &name, &Io::none(), "sleep 1000 & exec sleep 1000").expect("exec");
            shim.start(id, &name).expect("start");
            expected.insert(format!("/tasks/exit {name}"));
        }
        assert_eq!(place.heard(8).len(), 8);
        shim.kill(id, "", libc::SIGKILL, false).expect("kill");
        assert_eq!(place.heard(3).into_iter().collect::<BTreeSet<_>>(), expected);
        assert_eq!(place.heard(1), [format!("/tasks/exit {id}")]);
        assert_eq!(shim.wait(id, &format!("{id}-e1")), Ok(137));
        shim.clear(id);
        assert_eq!(place.heard(1), [format!("/tasks/delete {id}")]);
    }
}

#[test]
fn an_exec_whose_program_is_not_there_fails_and_leaves_the_container_alone() {
    let place = Place::new("shim-no-program");
    let bundle = Bundle::new("shim-no-program", &["sleep", "1000"]);
    let shim = place.created(&bundle, "alone", &Io::none());
    shim.start("alone", "").expect("start");
    shim.exec_of("alone", "e", json!({"args": ["nowhere"], "cwd": "/", "user": {"uid": 0, "gid": 0}}))
        .expect("exec");
    let (_, text) = shim.start("alone", "e").expect_err("no such program");
    assert!(text.contains("executable file not found"), "{text}");
    shim.delete("alone", "e").expect("delete");
    assert_eq!(shim.status("alone", ""), Status::RUNNING);
    let (_, text) =
        shim.exec_of("alone", "e", json!({"args": [], "cwd": "relative"})).expect_err("a bad process");
    assert!(text.contains("process.json"), "{text}");
    shim.clear("alone");
}

#[test]
fn orphans_of_a_container_in_the_machines_pid_namespace_do_not_stay_as_zombies() {
    let place = Place::new("shim-orphans");
    let bundle =
        shell("shim-orphans", "for i in 1 2 3 4 5; do (sleep 0.1 & echo $!); done; exec sleep 1000", |c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        });
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "orphans") };
    let mut out = io.out();
    let shim = place.created(&bundle, "orphans", &io);
    shim.start("orphans", "").expect("start");
    let pids: Vec<i32> = (0..5).map(|_| out.line().parse().expect("a pid")).collect();
    for pid in pids {
        // Its pid is free once it was waited for.
        let number = rustix::process::Pid::from_raw(pid).expect("a pid");
        if let Ok(fd) = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
            assert!(runtime_tests::runtime::readable(std::os::fd::AsFd::as_fd(&fd)));
        }
    }
    // The shim's turn comes with the next answer at the latest.
    for _ in 0..3 {
        shim.exec("orphans", "turn", &Io::none(), "true").expect("exec");
        shim.start("orphans", "turn").expect("start");
        shim.wait("orphans", "turn").expect("wait");
        shim.delete("orphans", "turn").expect("delete");
    }
    let own = shim.pid("orphans");
    let zombies = std::fs::read_dir("/proc").expect("/proc").flatten().filter(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(&format!("Z {own} ")))
    });
    assert_eq!(zombies.count(), 0);
    shim.clear("orphans");
}

#[test]
fn a_process_that_a_real_time_signal_has_killed_is_told_with_it() {
    let place = Place::new("shim-real-time");
    let bundle = Bundle::new("shim-real-time", &["sleep", "1000"]);
    let shim = place.created(&bundle, "real-time", &Io::none());
    shim.start("real-time", "").expect("start");
    for (name, signal) in [("e35", 35), ("e64", 64)] {
        // A child of a thread that goes with its connection: then it is the main thread's.
        let other = crate::harness::Shim::at(&shim.address);
        other.exec("real-time", name, &Io::none(), "exec sleep 1000").expect("exec");
        other.start("real-time", name).expect("start");
        drop(other);
        shim.kill("real-time", name, signal, false).expect("kill");
        assert_eq!(shim.wait("real-time", name), Ok(128 + signal as u32));
    }
    shim.clear("real-time");
}

#[test]
fn a_traced_process_that_is_killed_is_told_once_its_tracer_has_heard_of_it() {
    use nix::sys::{ptrace, wait};
    let place = Place::new("shim-traced");
    let bundle = Bundle::new("shim-traced", &["sleep", "1000"]);
    let shim = place.created(&bundle, "traced", &Io::none());
    shim.start("traced", "").expect("start");
    shim.exec("traced", "e", &Io::none(), "exec sleep 1000").expect("exec");
    let pid = nix::unistd::Pid::from_raw(shim.start("traced", "e").expect("start") as i32);
    ptrace::seize(pid, ptrace::Options::empty()).expect("ptrace");
    shim.kill("traced", "e", libc::SIGKILL, false).expect("kill");
    // Its pidfd is readable, and it is nobody's but the tracer's yet. Others are attended meanwhile.
    let dead = Living::of(pid.as_raw());
    dead.ends();
    shim.exec("traced", "f", &Io::none(), "exit 3").expect("exec");
    shim.start("traced", "f").expect("start");
    assert_eq!(shim.wait("traced", "f"), Ok(3));
    assert_eq!(shim.status("traced", "e"), Status::RUNNING);
    let heard = wait::waitpid(pid, Some(wait::WaitPidFlag::__WALL));
    assert_eq!(heard, Ok(wait::WaitStatus::Signaled(pid, nix::sys::signal::Signal::SIGKILL, false)));
    assert_eq!(shim.wait("traced", "e"), Ok(137));
    shim.clear("traced");
}

#[test]
fn a_process_that_cannot_be_attended_is_ended_and_the_error_told() {
    let place = Place::new("shim-unattended");
    let bundle = Bundle::new("shim-unattended", &["sleep", "1000"]);
    let shim = place.created(&bundle, "unattended", &Io::none());
    let init = shim.start("unattended", "").expect("start");
    let second = shell("shim-unattended", "exec sleep 1000", |c| {
        c["linux"]["cgroupsPath"] = json!(format!("/{}/second", place.namespace));
    });
    let state = std::path::Path::new("/run/containerd/rcrun").join(&place.namespace).join("second");
    // A file can be opened as stdin, and not be waited for (EPERM of epoll_ctl(2)): that comes after the birth.
    let file = place.folder.path().join("no-fifo");
    std::fs::write(&file, "").expect("write");
    let io = Io { stdin: file.display().to_string(), ..Io::fifos(place.folder.path(), "unattended") };
    shim.exec("unattended", "e", &io, "exec sleep 1000").expect("exec");
    let (_, text) = shim.start("unattended", "e").expect_err("it cannot be attended");
    assert!(text.contains("epoll_ctl"), "{text}");
    for process in shim.pids("unattended").expect("pids") {
        if process.pid != init
            && let Some(living) = Living::of_some(process.pid as i32)
        {
            living.ends();
        }
    }
    assert_eq!(shim.status("unattended", "e"), Status::CREATED);
    shim.delete("unattended", "e").expect("delete");
    let (_, text) = shim.create(&second, "second", &io).expect_err("it cannot be attended");
    assert!(text.contains("epoll_ctl"), "{text}");
    assert!(!state.exists());
    shim.create(&second, "second", &Io::none()).expect("nothing is left of it");
    shim.delete("second", "").expect("delete");
    shim.clear("unattended");
}
