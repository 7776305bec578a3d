//! A container's life from outside: what each verb does, says and leaves.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::{Lines, Runtime, code, said};
use serde_json::json;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// A payload that says that it runs and stays.
const STAY: [&str; 3] = ["sh", "-c", "echo up; exec sleep 1000"];

#[test]
fn run_prints_what_the_payload_prints_and_exits_as_it_does() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("run", &["sh", "-c", "echo hello from $$; exit 7"]);
    let said = runtime.run(&bundle, "run");
    assert_eq!((said.status, said.out.as_str()), (7, "hello from 1\n"), "{}", said.err);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn the_exit_status_of_run_is_the_code_or_128_and_the_signal() {
    let runtime = Runtime::new();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 255", 255),
        // Nobody but the kernel can end PID 1 by a signal from inside: a child of its passes the number on.
        ("sh -c 'kill -9 $$'; exit $?", 137),
        ("sh -c 'kill -TERM $$'; exit $?", 143),
    ] {
        let bundle = Bundle::new("status", &["sh", "-c", script]);
        let said = runtime.run(&bundle, "status");
        assert_eq!(said.status, status, "{script}: {}", said.err);
        assert_eq!(said.err.replace("Killed\n", "").replace("Terminated\n", ""), "", "{script}");
    }
    let bundle = Bundle::new("status", &STAY);
    let mut child = runtime
        .command(["run".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), "status".as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    assert_eq!(Lines::of(child.stdout.take().expect("piped").into()).line(), "up");
    runtime.ok(["kill", "status", "KILL"]);
    assert_eq!(code(child.wait().expect("wait")), 137);
}

#[test]
fn a_container_is_created_running_paused_stopped_and_then_gone() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("life", &["sh", "-c", "echo up > /run/fifo; exec sleep 1000"]).with(|config| {
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/run", "source": "run", "type": "bind", "options": ["bind"]
        }));
    });
    std::fs::create_dir(bundle.path().join("run")).expect("mkdir");
    let fifo = bundle.path().join("run/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("mkfifo");

    let said = runtime.create(&bundle, "life");
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert_eq!(runtime.status("life"), "created");
    let pid = runtime.pid("life");
    assert!(Path::new(&format!("/proc/{pid}")).exists());

    runtime.ok(["start", "life"]);
    assert_eq!(std::fs::read_to_string(&fifo).expect("the payload writes"), "up\n");
    assert_eq!(runtime.status("life"), "running");
    assert_eq!(runtime.pid("life"), pid);

    runtime.ok(["pause", "life"]);
    assert_eq!(runtime.status("life"), "paused");
    assert!(runtime.say(["pause", "life"]).status == 1, "pause of a paused container is refused");
    runtime.ok(["resume", "life"]);
    assert_eq!(runtime.status("life"), "running");
    let said = runtime.say(["resume", "life"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("container not paused"), "{}", said.err);

    let said = runtime.say(["delete", "life"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("that is not stopped"), "{}", said.err);
    assert_eq!(runtime.status("life"), "running", "a refused delete has changed nothing");

    runtime.ok(["kill", "life", "KILL"]);
    runtime.wait_for_end("life");
    assert_eq!(runtime.status("life"), "stopped");
    assert_eq!(runtime.pid("life"), 0);
    for verb in ["start", "pause"] {
        assert_eq!(runtime.say([verb, "life"]).status, 1, "{verb} of a stopped container");
    }

    runtime.ok(["delete", "life"]);
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        let said = runtime.say([verb, "life"]);
        assert_eq!(said.status, 1, "{verb}");
        assert!(said.err.contains("does not exist"), "{verb}: {}", said.err);
        assert_eq!(said.out, "", "{verb}");
    }
    assert_eq!(runtime.say(["exec", "life", "true"]).status, 255);
    assert!(!runtime.root().join("life").exists());
}

#[test]
fn delete_with_force_of_nothing_is_a_success() {
    let runtime = Runtime::new();
    for option in ["--force", "-f"] {
        let said = runtime.ok(["delete", option, "nobody"]);
        assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    }
}

#[test]
fn delete_with_force_ends_what_runs_and_leaves_neither_process_nor_cgroup() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("force", &["sh", "-c", "sleep 1000 & sleep 1000 & echo up; wait"])
        .with(|config| config["linux"]["cgroupsPath"] = json!(format!("/force-{}", std::process::id())));
    assert_eq!(runtime.detached(&bundle, "force").line(), "up");
    let pids = pids(&runtime, "force");
    assert!(pids.len() == 3, "{pids:?}");
    let cgroup = cgroup(pids[0]);
    runtime.ok(["delete", "--force", "force"]);
    for pid in pids {
        assert!(!is_alive(pid), "process {pid} is left");
    }
    assert!(!cgroup.exists(), "{} is left", cgroup.display());
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn delete_with_force_ends_a_paused_container() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("frozen", &STAY);
    assert_eq!(runtime.detached(&bundle, "frozen").line(), "up");
    runtime.ok(["pause", "frozen"]);
    let pid = runtime.pid("frozen");
    runtime.ok(["delete", "--force", "frozen"]);
    assert!(!is_alive(pid));
}

#[test]
fn a_created_container_is_killed_and_deleted_without_a_start() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("unstarted", &STAY);
    for signal in ["KILL", "TERM"] {
        runtime.created(&bundle, "unstarted");
        let pid = runtime.pid("unstarted");
        runtime.ok(["kill", "unstarted", signal]);
        if signal == "KILL" {
            runtime.wait_for_end("unstarted");
            assert_eq!(runtime.status("unstarted"), "stopped");
        }
        // init waits without a handler, and PID 1 does not die of a signal that it does not handle.
        runtime.ok(["delete", "unstarted"]);
        assert!(!is_alive(pid));
    }
    runtime.created(&bundle, "unstarted");
    let pid = runtime.pid("unstarted");
    runtime.ok(["delete", "unstarted"]);
    assert!(!is_alive(pid), "a created container is deleted without force");
}

#[test]
fn a_created_container_can_be_paused_and_resumed() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("early", &STAY);
    runtime.created(&bundle, "early");
    runtime.ok(["pause", "early"]);
    assert_eq!(runtime.status("early"), "paused");
    let said = runtime.say(["start", "early"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("paused"), "{}", said.err);
    runtime.ok(["resume", "early"]);
    assert_eq!(runtime.status("early"), "created");
    runtime.ok(["start", "early"]);
    assert_eq!(runtime.status("early"), "running");
}

#[test]
fn every_form_of_a_signal_ends_the_payload_by_it() {
    let runtime = Runtime::new();
    for (words, signal) in [
        (&["KILL"] as &[&str], 9),
        (&["SIGKILL"], 9),
        (&["9"], 9),
        (&["kill"], 9),
        (&["sigkill"], 9),
        (&[], 15),
        (&["TERM"], 15),
        (&["15"], 15),
        (&["hup"], 1),
        (&["SIGUSR1"], 10),
    ] {
        // The trap of PID 1 is what makes the other signals arrive.
        let script = "for s in 1 10 15; do trap \"exit $((128+s))\" $s; done; echo up; while :; do sleep 1000 & wait; done";
        let bundle = Bundle::new("signal", &["sh", "-c", script]);
        let mut child = runtime
            .command(["run".as_ref(), "-b".as_ref(), bundle.path().as_os_str(), "signal".as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut lines = Lines::of(child.stdout.take().expect("piped").into());
        assert_eq!(lines.line(), "up");
        runtime.ok(["kill", "signal"].iter().chain(words));
        assert_eq!(code(child.wait().expect("wait")), 128 + signal, "{words:?}");
    }
}

#[test]
fn a_signal_that_is_none_is_refused_by_name() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("nosignal", &STAY);
    assert_eq!(runtime.detached(&bundle, "nosignal").line(), "up");
    for word in ["FOO", "SIGFOO", "65", "-1", "9x", ""] {
        let said = runtime.say(["kill", "nosignal", word]);
        assert_eq!(said.status, 1, "{word:?}");
        assert_eq!(said.err.lines().count(), 1, "{word:?}: {}", said.err);
    }
    // It asks whether a signal could be sent.
    runtime.ok(["kill", "nosignal", "0"]);
    assert_eq!(runtime.status("nosignal"), "running");
}

#[test]
fn ps_of_a_stopped_container_shows_no_process() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("nobody", &["true"]);
    runtime.detached(&bundle, "nobody").rest();
    runtime.wait_for_end("nobody");
    assert_eq!(runtime.ok(["ps", "--format", "json", "nobody"]).out.trim(), "[]");
    assert_eq!(runtime.ok(["ps", "nobody"]).out.lines().count(), 1, "the head alone");
    runtime.ok(["delete", "nobody"]);
}

#[test]
fn kill_of_a_stopped_container_says_so_and_with_all_is_a_success() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("over", &["true"]);
    runtime.detached(&bundle, "over").rest();
    runtime.wait_for_end("over");
    let said = runtime.say(["kill", "over", "9"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("container not running"), "{}", said.err);
    runtime.ok(["kill", "--all", "over", "9"]);
    runtime.ok(["kill", "-a", "over", "9"]);
    runtime.ok(["kill", "-a", "over", "0"]);
    let said = runtime.say(["kill", "over", "0"]);
    assert!(said.status == 1 && said.err.contains("container not running"), "{}", said.err);
    runtime.ok(["delete", "over"]);
}

#[test]
fn kill_with_all_reaches_processes_that_outlive_init_in_a_shared_pid_namespace() {
    let runtime = Runtime::new();
    // Without a namespace of its own a sleep outlives the shell.
    let bundle =
        Bundle::new("shared", &["sh", "-c", "sleep 1000 >/dev/null & echo up; exit 0"]).with(|config| {
            config["linux"]["namespaces"].as_array_mut().expect("list").retain(|ns| ns["type"] != "pid");
            // procfs of a pid namespace that the container does not own still can be mounted by root.
        });
    let mut lines = runtime.detached(&bundle, "shared");
    assert_eq!(lines.line(), "up");
    runtime.wait_for_end("shared");
    assert_eq!(runtime.status("shared"), "stopped");
    let cgroup = runtime_cgroup("shared");
    let left = processes_of(&cgroup);
    assert_eq!(left.len(), 1, "the sleep lives on");
    runtime.ok(["kill", "--all", "shared", "KILL"]);
    for pid in &left {
        wait_for_death(*pid);
    }
    runtime.ok(["delete", "shared"]);
    assert!(!cgroup.exists());
}

#[test]
fn an_id_is_used_once() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("twice", &STAY);
    runtime.created(&bundle, "twice");
    let pid = runtime.pid("twice");
    for verb in ["create", "run"] {
        let said =
            runtime.say([verb.as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), "twice".as_ref()]);
        assert_eq!(said.status, 1, "{verb}");
        assert!(said.err.contains("container with given ID already exists"), "{verb}: {}", said.err);
    }
    assert_eq!(runtime.status("twice"), "created");
    assert_eq!(runtime.pid("twice"), pid, "the first one is as it was");
    assert!(is_alive(pid));
}

#[test]
fn a_second_start_is_refused() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("again", &STAY);
    runtime.created(&bundle, "again");
    runtime.ok(["start", "again"]);
    let said = runtime.say(["start", "again"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("cannot start an already running container"), "{}", said.err);
    assert_eq!(runtime.status("again"), "running");
}

#[test]
fn run_with_keep_leaves_the_container_and_its_cgroup() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("keep", &["sh", "-c", "exit 3"]);
    let said = runtime.say([
        "run".as_ref(),
        "--keep".as_ref(),
        "--bundle".as_ref(),
        bundle.path().as_os_str(),
        "keep".as_ref(),
    ]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert_eq!(runtime.status("keep"), "stopped");
    // BuildKit reads memory.events there.
    assert!(runtime_cgroup("keep").exists());
    runtime.ok(["delete", "keep"]);
}

#[test]
fn a_detached_run_returns_while_the_payload_runs() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("detached", &STAY);
    let mut lines = runtime.detached(&bundle, "detached");
    assert_eq!(lines.line(), "up");
    assert_eq!(runtime.status("detached"), "running");
    runtime.ok(["kill", "detached", "KILL"]);
    assert_eq!(lines.rest(), "", "nobody else holds the pipe");
}

#[test]
fn standard_input_of_run_reaches_the_payload() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("stdin", &["sh", "-c", "cat; echo end"]);
    let mut child = runtime
        .command(["run".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), "stdin".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    child.stdin.take().expect("piped").write_all(b"some\nlines\n").expect("write");
    let said = said(&child.wait_with_output().expect("wait"));
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "some\nlines\nend\n", ""));
}

#[test]
fn signals_to_a_foreground_run_are_forwarded() {
    let runtime = Runtime::new();
    for (signal, number) in
        [(Signal::SIGTERM, 15), (Signal::SIGINT, 2), (Signal::SIGHUP, 1), (Signal::SIGUSR2, 12)]
    {
        let script = format!(
            "trap 'echo got {number}; exit 5' {number}; echo up; while :; do sleep 1000 & wait; done"
        );
        let bundle = Bundle::new("forward", &["sh", "-c", &script]);
        let mut child = runtime
            .command(["run".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), "forward".as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut lines = Lines::of(child.stdout.take().expect("piped").into());
        assert_eq!(lines.line(), "up");
        kill(Pid::from_raw(child.id() as i32), signal).expect("kill");
        assert_eq!(lines.line(), format!("got {number}"));
        assert_eq!(code(child.wait().expect("wait")), 5);
    }
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn a_foreground_run_whose_container_was_deleted_spares_the_next_one_of_its_name() {
    let runtime = Runtime::new();
    let id = "foreground-name-again";
    let bundle = Bundle::new(id, &["sh", "-c", "echo up; sleep 1000"]);
    let words = ["run".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), id.as_ref()];
    let mut child = runtime.command(words).stdout(Stdio::piped()).spawn().expect("spawn");
    let mut lines = Lines::of(child.stdout.take().expect("piped").into());
    assert_eq!(lines.line(), "up");
    // What says "up" may be ahead of the run that started it, which has the container's lock until it has told so. A delete
    // waits for the lock, and is refused then.
    assert!(runtime.say(["delete", id]).err.contains("that is not stopped: running"));
    // Held back between the end of its container and its care for what is left.
    kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).expect("kill");
    runtime.ok(["delete", "--force", id]);
    runtime.created(&bundle, id);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT).expect("kill");
    assert_eq!(code(child.wait().expect("wait")), 137);
    assert!(runtime.ok(["state", id]).out.contains("\"created\""));
    runtime.ok(["delete", "--force", id]);
}

#[test]
fn orphans_in_the_container_do_not_disturb_run() {
    let runtime = Runtime::new();
    let script = "i=0; while [ $i -lt 30 ]; do (sh -c 'sleep 0.01 & exit 0' &) ; i=$((i+1)); done; exit 9";
    let said = runtime.run(&Bundle::new("orphans", &["sh", "-c", script]), "orphans");
    assert_eq!((said.status, said.err.as_str()), (9, ""));
    // In the machine's pid namespace they fall to rcrun, a subreaper.
    let bundle = Bundle::new("orphans", &["sh", "-c", script]).with(|config| {
        config["linux"]["namespaces"].as_array_mut().expect("list").retain(|ns| ns["type"] != "pid");
    });
    let said = runtime.run(&bundle, "orphans");
    assert_eq!((said.status, said.err.as_str()), (9, ""));
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn the_config_is_frozen_at_create() {
    let runtime = Runtime::new();
    let bundle =
        Bundle::new("config", &["sh", "-c", "echo old > /run/said; exec sleep 1000"]).with(|config| {
            config["mounts"].as_array_mut().expect("mounts").push(json!({
                "destination": "/run", "source": "run", "type": "bind", "options": ["bind"]
            }));
            config["process"]["env"].as_array_mut().expect("env").push(json!("WHEN=old"));
        });
    let run = bundle.path().join("run");
    std::fs::create_dir(&run).expect("mkdir");
    runtime.created(&bundle, "config");
    let bundle = bundle.with(|config| {
        config["process"]["args"] = json!(["sh", "-c", "echo new > /run/said"]);
        config["process"]["env"] = json!(["WHEN=new"]);
    });
    runtime.ok(["start", "config"]);
    // exec takes its environment from the config as it was, and runs after the payload has begun.
    let said = runtime.ok([
        "exec",
        "config",
        "/bin/sh",
        "-c",
        "while ! grep . /run/said; do sleep 0.01; done; echo $WHEN",
    ]);
    assert_eq!(said.out, "old\nold\n");
    // Nor does a config that is gone or broken stand in the way of the rest.
    std::fs::write(bundle.path().join("config.json"), "{").expect("write");
    assert_eq!(runtime.status("config"), "running");
    std::fs::remove_file(bundle.path().join("config.json")).expect("remove");
    runtime.ok(["kill", "config", "9"]);
    runtime.wait_for_end("config");
    runtime.ok(["delete", "config"]);
}

#[test]
fn home_comes_from_the_passwd_of_the_container_unless_it_is_set() {
    let runtime = Runtime::new();
    for (uid, set, home) in [
        (0, None, "/root"),
        (33, None, "/srv"),
        (4711, None, "/"),
        (33, Some("HOME=/else"), "/else"),
        // As with runc, empty is as good as missing.
        (33, Some("HOME="), "/srv"),
    ] {
        let bundle = Bundle::new("home", &["sh", "-c", "echo $HOME"]).with(|config| {
            config["process"]["user"]["uid"] = json!(uid);
            config["process"]["env"].as_array_mut().expect("env").extend(set.map(|s| json!(s)));
        });
        let said = runtime.run(&bundle, "home");
        assert_eq!(
            (said.status, said.out.as_str()),
            (0, format!("{home}\n").as_str()),
            "uid {uid}: {}",
            said.err
        );
    }
}

#[test]
fn the_environment_keeps_its_order_and_of_duplicates_the_last() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("env", &["/bin/env"]).with(|config| {
        config["process"]["env"] =
            json!(["PATH=/bin", "Z=1", "A=1", "HOME=/h", "Z=2", "EMPTY=", "EQ=a=b", "A=3"]);
    });
    let said = runtime.run(&bundle, "env");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines, ["PATH=/bin", "HOME=/h", "Z=2", "EMPTY=", "EQ=a=b", "A=3"], "{}", said.err);
}

#[test]
fn twenty_containers_start_at_once() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("many", &["sh", "-c", "echo $(hostname) $$; exit 4"]);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|i| {
                let (runtime, bundle) = (&runtime, &bundle);
                scope.spawn(move || runtime.run(bundle, &format!("many-{i}")))
            })
            .collect();
        for run in runs {
            let said = run.join().expect("thread");
            assert_eq!((said.status, said.out.as_str()), (4, "box 1\n"), "{}", said.err);
        }
    });
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
    assert_eq!(std::fs::read_dir(runtime.root()).expect("root").count(), 0, "the state root is empty");
}

#[test]
fn of_twenty_creates_with_one_id_one_wins() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("race", &STAY);
    let won = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|_| {
                let (runtime, bundle) = (&runtime, &bundle);
                scope.spawn(move || runtime.create(bundle, "race"))
            })
            .collect();
        let said: Vec<_> = runs.into_iter().map(|r| r.join().expect("thread")).collect();
        for lost in said.iter().filter(|s| s.status != 0) {
            assert!(lost.err.contains("container with given ID already exists"), "{}", lost.err);
        }
        said.iter().filter(|s| s.status == 0).count()
    });
    assert_eq!(won, 1);
    assert_eq!(runtime.status("race"), "created");
    runtime.ok(["start", "race"]);
    assert_eq!(runtime.status("race"), "running");
}

#[test]
fn of_ten_starts_one_wins() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("starts", &STAY);
    runtime.created(&bundle, "starts");
    let won = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..10)
            .map(|_| {
                let runtime = &runtime;
                scope.spawn(move || runtime.say(["start", "starts"]))
            })
            .collect();
        let said: Vec<_> = runs.into_iter().map(|r| r.join().expect("thread")).collect();
        for lost in said.iter().filter(|s| s.status != 0) {
            assert!(lost.err.contains("cannot start an already running container"), "{}", lost.err);
        }
        said.iter().filter(|s| s.status == 0).count()
    });
    assert_eq!(won, 1);
    assert_eq!(runtime.status("starts"), "running");
}

#[test]
fn run_names_a_container_after_its_bundle() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("named", &STAY);
    // The bundle's own path: the id is printed by a detached run.
    let said = runtime.without_pipes(&mut runtime.command([
        "run".as_ref(),
        "-d".as_ref(),
        bundle.path().as_os_str(),
    ]));
    assert_eq!(said.status, 0, "{}", said.err);
    let name = bundle.path().file_name().expect("a name").to_str().expect("UTF-8");
    let ids = runtime.ok(["list", "-q"]).out;
    let id = ids.trim();
    assert!(id.starts_with(&format!("{name}-")), "{id}");
    assert!(said.out.lines().any(|line| line == id), "{}", said.out);
    // A second one gets an id of its own.
    let said = runtime.without_pipes(&mut runtime.command([
        "run".as_ref(),
        "-d".as_ref(),
        bundle.path().as_os_str(),
    ]));
    assert_eq!(said.status, 0, "{}", said.err);
    assert_eq!(runtime.ok(["list", "-q"]).out.lines().count(), 2);
}

#[test]
fn in_a_bundle_a_word_is_the_id() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("here", &["true"]);
    let here =
        |words: &[&str]| said(&runtime.command(words).current_dir(bundle.path()).output().expect("execute"));
    assert_eq!(here(&["run", "--keep", "word"]).status, 0);
    assert_eq!(runtime.ok(["list", "-q"]).out, "word\n");
    assert_eq!(runtime.state("word")["bundle"], bundle.path().to_str().expect("UTF-8"));
    // rootfs is a folder of the bundle, without a config.json: by name it is an id, by path it is not.
    assert_eq!(here(&["run", "--keep", "rootfs"]).status, 0);
    let said = here(&["run", "./rootfs"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("holds no config.json"), "{}", said.err);
    let folder = Folder::new("empty");
    let said = runtime.say(["run".as_ref(), folder.path().as_os_str()]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("holds no config.json"), "{}", said.err);
}

#[test]
fn the_payload_starts_with_no_signal_blocked_or_ignored() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("signals", &["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"]);
    let fresh = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n";
    // As under nohup, or from a runtime of a language that ignores SIGPIPE.
    let line = "trap '' HUP INT QUIT PIPE TERM USR1 CHLD; exec \"$@\"";
    let ignoring = |words: &[&OsStr]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", line, "sh"]).arg(runtime.binary()).arg("--root").arg(runtime.root()).args(words);
        command
    };
    let path = bundle.path().as_os_str();
    let run =
        said(&ignoring(&["run".as_ref(), "-b".as_ref(), path, "signals".as_ref()]).output().expect("sh"));
    assert_eq!((run.status, run.out.as_str()), (0, fresh), "{}", run.err);

    let (reader, writer) = std::io::pipe().expect("pipe");
    let mut create = ignoring(&["create".as_ref(), "-b".as_ref(), path, "signals".as_ref()]);
    assert!(create.stdout(writer).status().expect("sh").success());
    drop(create);
    runtime.ok(["start", "signals"]);
    assert_eq!(Lines::of(reader.into()).rest(), fresh);
    runtime.wait_for_end("signals");
    runtime.ok(["delete", "signals"]);

    let bundle = Bundle::new("signals", &STAY);
    assert_eq!(runtime.detached(&bundle, "signals").line(), "up");
    let words = ["exec", "signals", "grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"].map(OsStr::new);
    let exec = said(&ignoring(&words).output().expect("sh"));
    assert_eq!((exec.status, exec.out.as_str()), (0, fresh), "{}", exec.err);
}

#[test]
fn without_a_state_root_there_are_no_containers() {
    let runtime = Runtime::new();
    let root = runtime.root().join("none");
    let at = |words: &[&str]| {
        let mut command = std::process::Command::new(runtime.binary());
        said(&command.arg("--root").arg(&root).args(words).output().expect("execute"))
    };
    assert_eq!(at(&["list", "-q"]).status, 0);
    assert_eq!(at(&["list"]).out.lines().count(), 1);
    assert_eq!(at(&["state", "x"]).status, 1);
    assert_eq!(at(&["delete", "--force", "x"]).status, 0);
    assert!(!root.exists(), "looking makes nothing");
}

#[test]
fn a_reader_that_goes_away_ends_the_payload_and_not_rcruns_care() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("yes", &["sh", "-c", "while echo y; do :; done"]);
    let mut child = runtime
        .command(["run".as_ref(), "-b".as_ref(), bundle.path().as_os_str(), "yes".as_ref()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    let mut lines = Lines::of(child.stdout.take().expect("piped").into());
    assert_eq!(lines.line(), "y");
    drop(lines);
    // PID 1 is spared by SIGPIPE's default action; its echo fails instead, and the loop ends.
    child.wait().expect("wait");
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn a_user_namespace_is_joined_by_exec_and_its_container_lives_like_any_other() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("userns", &STAY).with(|config| {
        config["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "user"}));
        for ids in ["uidMappings", "gidMappings"] {
            config["linux"][ids] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
    });
    runtime.created(&bundle, "userns");
    runtime.ok(["start", "userns"]);
    let pid = runtime.pid("userns");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    assert!(status.contains("Uid:\t100000\t"), "{status}");
    let said = runtime.ok([
        "exec",
        "userns",
        "sh",
        "-c",
        "id -u; cut -c 1-32 /proc/self/uid_map; ls /proc/1/ns | wc -l",
    ]);
    assert_eq!(said.out.lines().next(), Some("0"), "{}", said.out);
    let said = runtime.ok([
        "exec",
        "-u",
        "33:34",
        "userns",
        "sh",
        "-c",
        "id -u; id -g; grep CapEff /proc/self/status",
    ]);
    assert_eq!(said.out, "33\n34\nCapEff:\t0000000000000000\n");
    // 70000 has no mapping.
    let said = runtime.say(["exec", "-u", "70000", "userns", "true"]);
    assert_eq!((said.status, said.err.lines().count()), (255, 1), "{}", said.err);
    runtime.ok(["pause", "userns"]);
    runtime.ok(["resume", "userns"]);
    runtime.ok(["kill", "userns", "KILL"]);
    runtime.wait_for_end("userns");
    runtime.ok(["delete", "userns"]);
}

#[test]
fn a_payload_with_closed_standard_streams_runs() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("closed", &["sh", "-c", "exit 6"]);
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let line = format!("exec \"$@\" {closed}");
        let status = std::process::Command::new("sh")
            .args(["-c", &line, "sh"])
            .arg(runtime.binary())
            .arg("--root")
            .arg(runtime.root())
            .args(["run".as_ref(), "-b".as_ref(), bundle.path().as_os_str(), "closed".as_ref()])
            .status()
            .expect("sh");
        assert_eq!(code(status), 6, "{closed}");
    }
}

/// The pids that `ps` tells.
fn pids(runtime: &Runtime, id: &str) -> Vec<i32> {
    serde_json::from_str(&runtime.ok(["ps", "--format", "json", id]).out).expect("a list of pids")
}

/// Not gone, and not a zombie.
fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

fn wait_for_death(pid: i32) {
    let raw = rustix::process::Pid::from_raw(pid).expect("a pid");
    if let Ok(pidfd) = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
        assert!(runtime_tests::runtime::readable(std::os::fd::AsFd::as_fd(&pidfd)), "{pid} does not end");
    }
}

/// Where cgroup2 is mounted.
fn cgroup_mount() -> std::path::PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2")).expect("a cgroup2 mount");
    line.split(' ').nth(1).expect("a path").into()
}

/// The cgroup of a process, as a folder.
fn cgroup(pid: i32) -> std::path::PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    let path = text.lines().find_map(|l| l.strip_prefix("0::/")).expect("a cgroup2 path");
    cgroup_mount().join(path)
}

/// The cgroup that a container without cgroupsPath gets: named after it, beside rcrun's own.
fn runtime_cgroup(id: &str) -> std::path::PathBuf {
    let own = cgroup(std::process::id() as i32);
    // Beside the root of the hierarchy there is nothing: below it.
    let folder = if own == cgroup_mount().join("") { own.as_path() } else { own.parent().expect("a parent") };
    folder.join(id)
}

fn processes_of(cgroup: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).expect("cgroup.procs");
    text.lines().map(|l| l.parse().expect("a pid")).collect()
}

#[test]
fn a_low_limit_on_the_stack_is_the_payloads_and_does_not_hurt_rcrun() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("low-stack", &["sh", "-c", "ulimit -s"]);
    let rcrun = runtime.command([
        "run".as_ref(),
        "--bundle".as_ref(),
        bundle.path().as_os_str(),
        "low-stack".as_ref(),
    ]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -s 64; exec \"$@\"", "sh"]).arg(rcrun.get_program()).args(rcrun.get_args());
    let said = said(&shell.stdin(std::process::Stdio::null()).output().expect("sh"));
    assert_eq!((said.status, said.out.as_str()), (0, "64\n"), "{}", said.err);
}
