//! Tasks from create to delete, what containerd hears of them, and what it is answered where it asks too much.

use crate::harness::{Io, Living, PATIENCE, Place, Shim};
use containerd_shim_protos::api::{StateRequest, Status, WaitRequest};
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::ttrpc::{self, Code};
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::shell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

#[test]
fn a_task_lives_from_create_to_delete_in_both_versions_of_the_api() {
    let place = Place::new("shim-life");
    for (id, v3) in [("v2", false), ("v3", true)] {
        let bundle = shell("shim-life", "echo out; echo err >&2; exit 3", |_| ());
        let shim = place.shim(&bundle, id);
        let shim = if v3 { shim.v3() } else { shim };
        let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), id) };
        let (mut out, mut err) = (io.out(), io.err());
        let pid = shim.create(&bundle, id, &io).expect("create");
        let state = shim.state(id, "").expect("state");
        assert_eq!((state.status.enum_value(), state.pid), (Ok(Status::CREATED), pid));
        assert_eq!(
            (state.stdout.as_str(), state.bundle.as_str()),
            (io.stdout.as_str(), bundle.path().to_str().unwrap())
        );
        let connected = shim.connect(id).expect("connect");
        assert_eq!(connected.task_pid, pid);
        let living = Living::of(connected.shim_pid as i32);
        assert_eq!(shim.start(id, ""), Ok(pid));
        assert_eq!((out.rest().as_str(), err.rest().as_str()), ("out\n", "err\n"));
        assert_eq!(shim.wait(id, ""), Ok(3));
        let state = shim.state(id, "").expect("state");
        assert_eq!((state.status.enum_value(), state.exit_status), (Ok(Status::STOPPED), 3));
        let deleted = shim.delete(id, "").expect("delete");
        assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
        shim.shut_down();
        living.ends();
        let heard: Vec<_> = (0..4).map(|_| place.event()).collect();
        let expected = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
        assert_eq!(heard.iter().map(|event| event.topic.as_str()).collect::<Vec<_>>(), expected);
        assert!(heard.iter().all(|event| event.whose == id && event.pid == pid), "{heard:?}");
        assert_eq!((heard[2].status, heard[3].status), (3, 3));
        let left: Vec<_> = std::fs::read_dir("/run/containerd/rcrun").expect("root").flatten().collect();
        let states = left.iter().flat_map(|folder| std::fs::read_dir(folder.path()).expect("states")).count();
        assert_eq!(states, 0);
    }
}

#[test]
fn a_process_that_ends_at_once_is_told_after_its_start_each_time() {
    let place = Place::new("shim-short");
    let bundle = Bundle::new("shim-short", &["true"]);
    for round in 0..15 {
        let id = format!("short{round}");
        let shim = place.created(&bundle, &id, &Io::none());
        shim.start(&id, "").expect("start");
        assert_eq!(shim.wait(&id, ""), Ok(0));
        shim.clear(&id);
        let expected = ["create", "start", "exit", "delete"].map(|topic| format!("/tasks/{topic} {id}"));
        assert_eq!(place.heard(4), expected);
    }
}

#[test]
fn a_container_that_is_killed_before_its_start_has_ended_all_the_same() {
    let place = Place::new("shim-early");
    let bundle = Bundle::new("shim-early", &["true"]);
    let shim = place.created(&bundle, "early", &Io::none());
    shim.kill("early", "", libc::SIGKILL, false).expect("kill");
    assert_eq!(shim.wait("early", ""), Ok(137));
    let (code, text) = shim.start("early", "").expect_err("it has ended");
    assert_eq!(code, Code::FAILED_PRECONDITION, "{text}");
    shim.clear("early");
    assert_eq!(place.heard(3), ["/tasks/create early", "/tasks/exit early", "/tasks/delete early"]);
    // One that waits for its start may be deleted as it is.
    let shim = place.created(&bundle, "waits", &Io::none());
    assert_eq!(shim.delete("waits", "").expect("delete").exit_status, 137);
    shim.shut_down();
    assert_eq!(place.heard(3), ["/tasks/create waits", "/tasks/exit waits", "/tasks/delete waits"]);
}

#[test]
fn a_program_that_is_not_there_fails_the_start_in_the_words_that_docker_looks_for() {
    let place = Place::new("shim-missing");
    for (program, words) in [
        ("/no/such", "no such file or directory"),
        ("nowhere", "executable file not found"),
        ("/etc", "is a directory"),
    ] {
        let bundle = Bundle::new("shim-missing", &[program]);
        let shim = place.shim(&bundle, "missing");
        let failed = shim.create(&bundle, "missing", &Io::none()).and_then(|_| shim.start("missing", ""));
        let (_, text) = failed.expect_err("it cannot be executed");
        assert!(text.to_lowercase().contains(words), "{program}: {text}");
        // containerd deletes what did not start.
        if shim.state("missing", "").is_ok() {
            shim.wait("missing", "").expect("wait");
            shim.clear("missing");
        } else {
            shim.shut_down();
        }
    }
}

#[test]
fn what_cannot_be_is_answered_in_containerds_classes() {
    let place = Place::new("shim-classes");
    let bundle = Bundle::new("shim-classes", &["sleep", "1000"]);
    let shim = place.created(&bundle, "classes", &Io::none());
    let code = |result: Result<(), (Code, String)>| result.expect_err("a refusal").0;
    assert_eq!(code(shim.create(&bundle, "classes", &Io::none()).map(drop)), Code::ALREADY_EXISTS);
    assert_eq!(code(shim.create(&bundle, "../x", &Io::none()).map(drop)), Code::INVALID_ARGUMENT);
    assert_eq!(code(shim.state("other", "").map(drop)), Code::NOT_FOUND);
    assert_eq!(code(shim.start("classes", "no-exec").map(drop)), Code::NOT_FOUND);
    shim.start("classes", "").expect("start");
    assert_eq!(code(shim.start("classes", "").map(drop)), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.delete("classes", "").map(drop)), Code::FAILED_PRECONDITION);
    // There is no CRIU where this shim looks.
    let images = place.folder.path().join("images");
    let options = CheckpointOptions { exit: true, ..CheckpointOptions::default() };
    let (_, text) = shim.checkpoint("classes", &images, &options).expect_err("a refusal");
    assert!(text.contains("criu is not found in PATH"), "{text}");
    let options = CheckpointOptions { cgroups_mode: "hard".into(), ..options };
    assert_eq!(code(shim.checkpoint("classes", &images, &options)), Code::INVALID_ARGUMENT);
    assert_eq!(code(shim.resume("classes")), Code::FAILED_PRECONDITION);
    shim.exec("classes", "e", &Io::none(), "exit 4").expect("exec");
    assert_eq!(code(shim.exec("classes", "e", &Io::none(), "true")), Code::ALREADY_EXISTS);
    assert_eq!(code(shim.kill("classes", "e", 9, false)), Code::FAILED_PRECONDITION);
    shim.start("classes", "e").expect("start");
    assert_eq!(shim.wait("classes", "e"), Ok(4));
    assert_eq!(code(shim.kill("classes", "e", 9, false)), Code::NOT_FOUND);
    assert_eq!(code(shim.start("classes", "e").map(drop)), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.kill("classes", "", 99, false)), Code::INVALID_ARGUMENT);
    shim.kill("classes", "", libc::SIGKILL, false).expect("kill");
    assert_eq!(shim.wait("classes", ""), Ok(137));
    assert_eq!(code(shim.kill("classes", "", libc::SIGTERM, false)), Code::NOT_FOUND);
    assert_eq!(code(shim.exec("classes", "late", &Io::none(), "true")), Code::FAILED_PRECONDITION);
    let refused = shim.create_with(&bundle, "options", &Io::none(), |request| {
        request.options.mut_or_insert_default().type_url = "io.kata.v1.Options".into();
    });
    assert_eq!(code(refused.map(drop)), Code::UNIMPLEMENTED);
    let refused =
        shim.create_with(&bundle, "restored", &Io::none(), |request| request.checkpoint = "/x".into());
    let (_, text) = refused.expect_err("a refusal");
    assert!(text.contains("the checkpoint /x: open: no such file"), "{text}");
    a_checkpoint_waits_for_its_start(&shim, &bundle, place.folder.path());
    shim.clear("classes");
}

/// What there is of a container that its start restores; here nothing can restore it.
fn a_checkpoint_waits_for_its_start(shim: &Shim, bundle: &Bundle, images: &Path) {
    let path = images.display().to_string();
    let made = shim.create_with(bundle, "pending", &Io::none(), |request| request.checkpoint = path);
    assert_eq!(made, Ok(0));
    let code = |result: Result<(), (Code, String)>| result.expect_err("a refusal").0;
    for _ in 0..2 {
        assert_eq!(shim.status("pending", ""), Status::CREATED);
        let (_, text) = shim.start("pending", "").expect_err("a refusal");
        assert!(text.contains("criu is not found in PATH"), "{text}");
    }
    assert_eq!(shim.pids("pending").expect("pids"), []);
    assert_eq!(code(shim.exec("pending", "e", &Io::none(), "true")), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.pause("pending")), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.kill("pending", "", 9, false)), Code::NOT_FOUND);
    let options = CheckpointOptions::default();
    assert_eq!(code(shim.checkpoint("pending", images, &options)), Code::FAILED_PRECONDITION);
    let deleted = shim.delete("pending", "").expect("delete");
    assert_eq!((deleted.pid, deleted.exit_status), (0, 0));
    assert_eq!(code(shim.state("pending", "").map(drop)), Code::NOT_FOUND);
}

#[test]
fn a_container_is_frozen_and_goes_on() {
    let place = Place::new("shim-frozen");
    let bundle = Bundle::new("shim-frozen", &["sleep", "1000"]);
    let shim = place.created(&bundle, "frozen", &Io::none());
    shim.start("frozen", "").expect("start");
    shim.pause("frozen").expect("pause");
    assert_eq!(shim.status("frozen", ""), Status::PAUSED);
    shim.resume("frozen").expect("resume");
    assert_eq!(shim.status("frozen", ""), Status::RUNNING);
    let topics = ["create", "start", "paused", "resumed"].map(|topic| format!("/tasks/{topic} frozen"));
    assert_eq!(place.heard(4), topics);
    // SIGKILL reaches who is frozen.
    shim.pause("frozen").expect("pause");
    shim.clear("frozen");
}

#[test]
fn statistics_are_those_of_cgroup_v2() {
    let place = Place::new("shim-stats");
    let bundle = shell(
        "shim-stats",
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 1000",
        |_| (),
    );
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "stats") };
    let mut out = io.out();
    let shim = place.created(&bundle, "stats", &io);
    shim.start("stats", "").expect("start");
    assert_eq!(out.line(), "done");
    let stats = shim.stats("stats").expect("stats").stats;
    assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics = Metrics::parse_from_bytes(&stats.value).expect("metrics");
    assert!(metrics.cpu.usage_usec > 0, "{metrics:?}");
    // Which controllers there are, and whether what is asked can be set, is the machine's; that it is tried is ours.
    let cpu = runtime_tests::machine::cgroup2().join(&place.namespace).join("stats/pids.max");
    match (cpu.exists(), shim.update("stats", r#"{"pids":{"limit":123}}"#)) {
        (true, Ok(())) => {
            let limit = std::fs::read_to_string(cpu).expect("pids.max");
            assert_eq!(limit.trim(), "123");
        }
        (false, Err((_, text))) => assert!(text.contains("pids"), "{text}"),
        (there, answer) => panic!("pids.max is there: {there}; {answer:?}"),
    }
    shim.clear("stats");
}

#[test]
fn all_processes_of_a_container_are_listed_with_the_names_of_execs() {
    let place = Place::new("shim-pids");
    let bundle = Bundle::new("shim-pids", &["sleep", "1000"]);
    let shim = place.created(&bundle, "pids", &Io::none());
    let init = shim.start("pids", "").expect("start");
    shim.exec("pids", "named", &Io::none(), "exec sleep 1000").expect("exec");
    let exec = shim.start("pids", "named").expect("start");
    let mut pids = shim.pids("pids").expect("pids");
    pids.sort_by_key(|process| process.pid != init);
    assert_eq!(pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [init, exec]);
    assert!(pids[0].info.is_none());
    assert_eq!(pids[1].info.type_url, "containerd.runc.v1.ProcessDetails");
    assert!(String::from_utf8_lossy(&pids[1].info.value).contains("named"));
    shim.clear("pids");
}

#[test]
fn containerds_mounts_become_the_root_and_go_with_the_container() {
    let place = Place::new("shim-mounts");
    let bundle = shell("shim-mounts", "cat /from-layer; echo x > /written && echo written", |c| {
        c["root"]["readonly"] = false.into();
    });
    let layers = place.folder.path().join("layers");
    for folder in ["lower", "upper", "work"] {
        std::fs::create_dir_all(layers.join(folder)).expect("mkdir");
    }
    std::fs::write(layers.join("lower/from-layer"), "layer\n").expect("write");
    let root = place.folder.path().join("root");
    std::fs::rename(bundle.root(), &root).expect("rename");
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "mounts") };
    let mut out = io.out();
    let shim = place.shim(&bundle, "mounts");
    let mounted =
        || std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo").contains("shim-mounts");
    let before = mounted();
    shim.create_with(&bundle, "mounts", &io, |request| {
        let mut mount = containerd_shim_protos::types::mount::Mount::new();
        mount.type_ = "overlay".into();
        mount.source = "overlay".into();
        mount.options = vec![
            format!("lowerdir={}:{}", layers.join("lower").display(), root.display()),
            format!("upperdir={}", layers.join("upper").display()),
            format!("workdir={}", layers.join("work").display()),
        ];
        request.rootfs.push(mount);
    })
    .expect("create");
    assert!(mounted());
    shim.start("mounts", "").expect("start");
    assert_eq!(out.rest(), "layer\nwritten\n");
    assert_eq!(std::fs::read_to_string(layers.join("upper/written")).expect("upper"), "x\n");
    shim.wait("mounts", "").expect("wait");
    shim.clear("mounts");
    assert_eq!(mounted(), before);
    // And after a create that fails.
    let shim = place.shim(&bundle, "mounts");
    let failed = shim.create_with(&bundle, "mounts", &io, |request| {
        let mut mount = containerd_shim_protos::types::mount::Mount::new();
        mount.type_ = "bind".into();
        mount.source = layers.join("lower").display().to_string();
        mount.options = vec!["rbind".into(), "ro".into()];
        request.rootfs.push(mount);
        request.stdin = "/no/such/fifo".into();
    });
    assert!(failed.expect_err("a refusal").1.contains("/no/such/fifo"));
    assert_eq!(mounted(), before);
    shim.shut_down();
}

#[test]
fn a_shim_gives_back_all_that_it_took() {
    let place = Place::new("shim-leaks");
    let bundle = Bundle::new("shim-leaks", &["sleep", "1000"]);
    let shim = place.created(&bundle, "leaks", &Io::none());
    shim.start("leaks", "").expect("start");
    let own = shim.pid("leaks");
    let fds = || std::fs::read_dir(format!("/proc/{own}/fd")).expect("fds").count();
    let round = |number: usize| {
        let name = format!("e{number}");
        let io = Io::fifos(place.folder.path(), &name);
        let mut out = io.out();
        shim.exec("leaks", &name, &io, "echo x").expect("exec");
        shim.start("leaks", &name).expect("start");
        assert_eq!(shim.wait("leaks", &name), Ok(0));
        assert_eq!(out.rest(), "x\n");
        shim.delete("leaks", &name).expect("delete");
    };
    round(0);
    let before = fds();
    (1..40).for_each(round);
    // What belonged to the last one may still be on its way.
    let after = fds();
    assert!(after < before + 3, "{before} descriptors, and then {after}");
    shim.clear("leaks");
}

/// A connection that waits for the end of a container, and has an answer to a later call.
fn waits(shim: &Shim, id: &str) -> UnixStream {
    let mut socket = UnixStream::connect(shim.socket()).expect("connect to the shim");
    let wait = WaitRequest { id: id.into(), ..WaitRequest::default() }.write_to_bytes();
    let state = StateRequest { id: id.into(), ..StateRequest::default() }.write_to_bytes();
    for (stream, method, payload) in [(1, "Wait", wait), (3, "State", state)] {
        let mut request = ttrpc::Request::new();
        request.service = "containerd.task.v2.Task".into();
        request.method = method.into();
        request.payload = payload.expect("encode");
        let body = request.write_to_bytes().expect("encode");
        let header = Vec::from(ttrpc::MessageHeader::new_request(stream, body.len() as u32));
        socket.write_all(&[header, body].concat()).expect("write");
    }
    assert_eq!(answered(&mut socket), 3);
    socket
}

/// The call that the next answer belongs to.
fn answered(socket: &mut UnixStream) -> u32 {
    let mut header = [0; 10];
    socket.read_exact(&mut header).expect("an answer");
    let header = ttrpc::MessageHeader::from(header);
    socket.read_exact(&mut vec![0; header.length as usize]).expect("all of it");
    header.stream_id
}

#[test]
fn who_waits_takes_no_thread_and_is_forgotten_when_he_goes() {
    let place = Place::new("shim-waits");
    let bundle = Bundle::new("shim-waits", &["sleep", "1000"]);
    let shim = place.created(&bundle, "waits", &Io::none());
    shim.start("waits", "").expect("start");
    let own = shim.pid("waits");
    let count = |what: &str| std::fs::read_dir(format!("/proc/{own}/{what}")).expect(what).count();
    // No event tells of a thread's end, or of a file that another process closes.
    let at_most = |what: &str, most| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while count(what) > most {
            assert!(
                std::time::Instant::now() < deadline,
                "{} in {what}, which should be {most}",
                count(what)
            );
            std::thread::yield_now();
        }
    };
    at_most("task", 2);
    let mut stay = waits(&shim, "waits");
    let go: Vec<UnixStream> = (0..20).map(|_| waits(&shim, "waits")).collect();
    at_most("task", 2);
    let all = count("fd");
    drop(go);
    // One that the shim has for itself for a moment may have been among them.
    at_most("fd", all - 20 + 1);
    shim.kill("waits", "", libc::SIGKILL, false).expect("kill");
    assert_eq!(answered(&mut stay), 1);
    // Also who asks when it is known.
    assert_eq!(shim.wait("waits", ""), Ok(137));
    shim.clear("waits");
}

#[test]
fn a_shim_at_rest_takes_little_memory() {
    let place = Place::new("shim-memory");
    let bundle = Bundle::new("shim-memory", &["sleep", "1000"])
        .with(|c| c["annotations"] = serde_json::json!({"io.containerd.runc.v2.group": "memory"}));
    let shim = place.created(&bundle, "memory0", &Io::none());
    shim.start("memory0", "").expect("start");
    // A debug build has twenty times the code, and glibc's heap for each thread.
    let size = crate::harness::binary().metadata().expect("the shim").len();
    let (most, more_each) = if size < 16 << 20 { (3000, 300) } else { (20_000, 600) };
    let one = at_rest(&shim, "memory0", most);
    assert!(one <= most, "{one} kB");
    // Each has a connection of its own, as under containerd.
    let more: Vec<Shim> = (1..11)
        .map(|number| {
            let id = format!("memory{number}");
            assert_eq!(place.start(&bundle, &id), shim.address);
            let shim = Shim::at(&shim.address);
            shim.create(&bundle, &id, &Io::none()).expect("create");
            shim.start(&id, "").expect("start");
            shim
        })
        .collect();
    let eleven = at_rest(&shim, "memory0", one + 10 * more_each);
    assert!(eleven <= one + 10 * more_each, "{one} kB, and with ten more {eleven} kB");
    for (number, shim) in (1..11).zip(&more) {
        let id = format!("memory{number}");
        shim.kill(&id, "", libc::SIGKILL, false).expect("kill");
        shim.wait(&id, "").expect("wait");
        shim.delete(&id, "").expect("delete");
    }
    shim.clear("memory0");
}

/// Kilobytes of memory (PSS) once the shim has come to rest: at most `most`, or what it is after a minute.
fn at_rest(shim: &Shim, id: &str, most: u64) -> u64 {
    let pid = shim.pid(id);
    let resident = || {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("Pss");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    // A second after the last start it gives back what it does not need, and nothing tells of that.
    for _ in 0..60 {
        if resident() <= most {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    resident()
}
