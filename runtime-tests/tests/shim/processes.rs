//! Processes that exec adds, and the order in which ends are told.

use crate::harness::{Io, Place};
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
