//! `kill -9` of a shim at any moment of what it does: what is left is seen and cleared by containerd's `delete`, and by
//! `rcrun delete --force`.

use crate::harness::{Io, Living, Place, Shim, all_here, run, text};
use containerd_shim_protos::api::{
    CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, StartRequest,
};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::said;
use runtime_tests::trace::{Victim, trace};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;

/// Lets the process `pid` and all its threads go on to their system call number `at` (entries and exits count) while `work`
/// runs, and kills it there, or after that. How many there were, and the number of the call.
fn kill_at(pid: i32, at: u32, work: impl FnOnce()) -> (u32, Option<i64>) {
    let (ready, is_ready) = channel();
    std::thread::scope(|scope| {
        let tracer = scope.spawn(move || {
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks").flatten();
            for task in tasks {
                let tid = Pid::from_raw(task.file_name().to_string_lossy().parse().expect("a tid"));
                // One may have ended just now.
                if ptrace::seize(tid, options).is_ok() {
                    let _ = ptrace::interrupt(tid);
                }
            }
            ready.send(()).expect("somebody who waits");
            follow(pid, at)
        });
        is_ready.recv().expect("a tracer");
        work();
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        tracer.join().expect("the tracer")
    })
}

fn follow(pid: i32, at: u32) -> (u32, Option<i64>) {
    let (mut stops, mut killed) = (0, None);
    loop {
        let (task, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::PtraceSyscall(task)) => {
                if stops == at && killed.is_none() {
                    killed = Some(ptrace::getregs(task).map_or(-1, |r| r.orig_rax as i64));
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                stops += 1;
                (task, None)
            }
            Ok(WaitStatus::Stopped(task, signal)) => (task, Some(signal)),
            Ok(WaitStatus::PtraceEvent(task, ..)) => (task, None),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => return (stops, killed),
            Err(errno) => panic!("waitpid: {errno}"),
        };
        // ESRCH: it has been killed meanwhile.
        let gone_on = ptrace::syscall(task, signal);
        assert!(matches!(gone_on, Ok(()) | Err(Errno::ESRCH)), "ptrace of {task}: {gone_on:?}");
    }
}

/// A container's whole life, as far as the shim comes with it.
fn live(shim: &Shim, bundle: &Bundle, id: &str) {
    let mut create = CreateTaskRequest::new();
    (create.id, create.bundle) = (id.into(), bundle.path().display().to_string());
    let mount = containerd_shim_protos::types::mount::Mount {
        type_: "bind".into(),
        source: bundle.path().join("layer").display().to_string(),
        options: vec!["rbind".into(), "rw".into()],
        ..Default::default()
    };
    create.rootfs.push(mount);
    let start = |exec: &str| StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
    let mut exec = ExecProcessRequest::new();
    (exec.id, exec.exec_id) = (id.into(), "e".into());
    exec.spec.mut_or_insert_default().value =
        br#"{"args":["sleep","1000"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}"#.to_vec();
    let end = KillRequest { id: id.into(), signal: 9, all: true, ..Default::default() };
    let _ = shim.try_call("Create", &create)
        && shim.try_call("Start", &start(""))
        && shim.try_call("Exec", &exec)
        && shim.try_call("Start", &start("e"))
        && shim.try_call("Kill", &end)
        && shim.try_call("Wait", &start(""))
        && shim.try_call("Delete", &DeleteRequest { id: id.into(), ..Default::default() });
}

fn left(place: &Place, id: &str) -> BTreeMap<&'static str, String> {
    let mut left = BTreeMap::new();
    let state = std::path::Path::new("/run/containerd/rcrun").join(&place.namespace).join(id);
    let cgroup = runtime_tests::machine::cgroup2().join(&place.namespace).join(id);
    for (what, path) in [("state", &state), ("cgroup", &cgroup)] {
        if path.exists() {
            left.insert(what, path.display().to_string());
        }
    }
    left
}

#[test]
fn a_shim_that_is_killed_at_any_system_call_leaves_what_delete_clears() {
    let place = Place::new("shim-killed-at");
    let mut total = 0;
    let mut calls = BTreeMap::new();
    // The first one tells how many there are; then a choice of them, those of `delete` by containerd and by rcrun in turn.
    for round in 0..25_u32 {
        let at = if round == 0 { u32::MAX } else { total * (2 * round - 1) / 48 };
        let id = format!("at{round}");
        let bundle = Bundle::new("shim-killed-at", &["sleep", "1000"]);
        std::fs::rename(bundle.root(), bundle.path().join("layer")).expect("rename");
        let shim = Shim::at(&place.start(&bundle, &id));
        let own = the_shim();
        let living = Living::of(own);
        let (stops, killed) = kill_at(own, at, || live(&shim, &bundle, &id));
        living.ends();
        if round == 0 {
            total = stops;
        }
        calls.extend(killed.map(|call| (call, at)));
        if round % 2 == 1 {
            // What a person does: the state is found, or there is none.
            let root = format!("/run/containerd/rcrun/{}", place.namespace);
            let rcrun = std::env::var_os("RCRUN").expect("RCRUN");
            let deleted = Command::new(rcrun).args(["--root", &root, "delete", "--force", &id]).output();
            let deleted = said(&deleted.expect("rcrun"));
            assert_eq!(deleted.status, 0, "killed at {at} of {total}, call {killed:?}: {}", deleted.err);
        }
        let mut command = place.command(&bundle, &id);
        command.arg("-bundle").arg(bundle.path()).arg("delete");
        let deleted = run(&mut command, b"");
        assert_eq!(deleted.status, 0, "killed at {at} of {total}, call {killed:?}: {}", deleted.err);
        assert_eq!(left(&place, &id), BTreeMap::new(), "killed at {at} of {total}, call {killed:?}");
        let mounts = runtime_tests::machine::mounts();
        assert!(!mounts.contains(bundle.path().to_str().expect("a path")), "{killed:?}: {mounts}");
        assert!(!shim.socket().exists());
    }
    // Processes of the container are in mount namespaces of their own; its cgroup is gone, and they with it.
    assert_eq!(all_here(), Vec::<i32>::new());
    assert!(total > 100 && calls.len() > 5, "{total} system calls, killed at {calls:?}");
}

/// The pid of the only shim here.
fn the_shim() -> i32 {
    let is_shim = |pid: &i32| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("containerd-shim-rcrun-v2")
    };
    let shims: Vec<i32> = all_here().into_iter().filter(is_shim).collect();
    assert_eq!(shims.len(), 1, "{shims:?}");
    shims[0]
}

/// `start` as containerd 1.6 calls it, by a command that can be traced; its answer goes to a file.
fn start(place: &Place, bundle: &Bundle, id: &str, answer: &Path) -> Command {
    let start = place.command(bundle, id);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cd \"$1\" && exec >\"$2\" && shift 2 && exec env -i \"$@\"", "sh"]);
    command.arg(bundle.path()).arg(answer);
    command.arg(format!("TTRPC_ADDRESS={}", place.folder.path().join("events.sock").display()));
    command.arg(start.get_program()).args(start.get_args()).arg("start");
    command
}

#[test]
fn a_shim_whose_start_is_killed_before_its_answer_ends_by_itself() {
    let place = Place::new("shim-unknown");
    let bundle = Bundle::new("shim-unknown", &["true"]);
    let answer = place.folder.path().join("answer");
    let command = start(&place, &bundle, "unknown", &answer);
    let (mut at, mut orphans) = (0, 0);
    // How many calls there are while there is a shim and no answer yet differs from run to run, from a few to a hundred: what one
    // run has too few of the next ones have, from where the first of them found a shim.
    let (mut begin, mut runs) = (None, 0);
    loop {
        std::fs::write(&answer, "").expect("write");
        let mut traced = trace(&command, Victim::Command, at);
        // Few calls are made then: each of them counts.
        at += if traced.besides > 0 {
            begin = begin.or(Some(at));
            1
        } else {
            5
        };
        let shims = all_here();
        let unknown = text(&answer).is_empty();
        if !unknown && let [shim] = shims[..] {
            let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
        }
        assert!(traced.all_end(), "{shims:?} does not end: {traced:?}");
        assert_eq!(all_here(), Vec::<i32>::new(), "{traced:?}");
        if traced.status == 0 {
            runs += 1;
            if orphans > 2 {
                break;
            }
            assert!(runs < 50, "{orphans} shims were left behind by a start that was killed");
            at = begin.unwrap_or(0);
        }
        orphans += u32::from(traced.status != 0 && unknown && traced.besides > 0);
    }
    // Whoever comes next gets one that serves.
    let shim = place.created(&bundle, "unknown", &Io::none());
    shim.clear("unknown");
}

#[test]
fn a_shim_that_dies_while_it_starts_is_an_error_and_leaves_no_socket() {
    let place = Place::new("shim-dies");
    let bundle = Bundle::new("shim-dies", &["true"]);
    let command = start(&place, &bundle, "dies", Path::new("/dev/null"));
    let sockets = || std::fs::read_dir("/run/containerd/s").into_iter().flatten().flatten().count();
    let mut failed = 0;
    for at in (0..).step_by(9) {
        let mut traced = trace(&command, Victim::Init, at);
        // Its threads are traced each for itself, and its end is one only when that of each has been waited for.
        if let [shim] = all_here()[..] {
            let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
        }
        assert!(traced.all_end());
        if traced.status == 0 {
            // It was ready before.
            break;
        }
        failed += 1;
        assert!(traced.killed_at.is_some(), "{traced:?}");
        assert_eq!(sockets(), 0, "killed at {at}: {traced:?}");
    }
    assert!(failed > 3, "it died {failed} times before it was ready");
    // Whoever comes next gets one that serves, whether that one lives or not.
    let shim = place.created(&bundle, "dies", &Io::none());
    shim.clear("dies");
}
