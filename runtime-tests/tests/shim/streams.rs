//! What goes in and comes out of tasks: FIFOs, terminals, files.

use crate::harness::{Io, Place, text};
use containerd_shim_protos::api::Status;
use containerd_shim_protos::ttrpc::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::shell;
use runtime_tests::programs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// What a FIFO has room for.
const FIFO: usize = 64 << 10;

#[test]
fn input_lasts_until_it_is_closed_whoever_comes_and_goes() {
    let place = Place::new("shim-input");
    let bundle = Bundle::new("shim-input", &["cat"]);
    let io = Io::fifos(place.folder.path(), "input");
    let mut out = io.out();
    let shim = place.created(&bundle, "input", &io);
    shim.start("input", "").expect("start");
    for word in ["one", "two", "three"] {
        let mut writer = io.input();
        writeln!(writer, "{word}").expect("write");
        drop(writer);
        assert_eq!(out.line(), word);
    }
    let mut writer = io.input();
    shim.close_stdin("input", "").expect("close");
    writeln!(writer, "last").expect("write");
    assert_eq!(out.line(), "last");
    drop(writer);
    assert_eq!(shim.wait("input", ""), Ok(0));
    assert_eq!(out.rest(), "");
    shim.clear("input");
}

#[test]
fn input_that_is_closed_before_the_process_is_there_ends_all_the_same() {
    let place = Place::new("shim-closed");
    let bundle = Bundle::new("shim-closed", &["sleep", "1000"]);
    let shim = place.created(&bundle, "closed", &Io::none());
    shim.start("closed", "").expect("start");
    let io = Io::fifos(place.folder.path(), "closed");
    let mut out = io.out();
    shim.exec("closed", "e", &io, "cat; echo end").expect("exec");
    shim.close_stdin("closed", "e").expect("close");
    shim.start("closed", "e").expect("start");
    assert_eq!(out.rest(), "end\n");
    assert_eq!(shim.wait("closed", "e"), Ok(0));
    shim.clear("closed");
}

#[test]
fn output_waits_for_a_reader_and_survives_one_that_goes() {
    let place = Place::new("shim-reader");
    let bundle = shell("shim-reader", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end", |_| ());
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "reader") };
    let shim = place.created(&bundle, "reader", &io);
    shim.start("reader", "").expect("start");
    // As much as a first reader takes before it goes.
    let mut first = io.out();
    let mut count = first.until("xxxxxxxxxxxxxxxx").len();
    drop(first);
    let mut second = io.out();
    let line = second.line();
    count += line.len();
    assert_eq!(second.rest(), "end\n");
    assert!(line.bytes().all(|byte| byte == b'x'));
    assert_eq!(count, 1_000_000);
    assert_eq!(shim.wait("reader", ""), Ok(0));
    shim.clear("reader");
}

#[test]
fn a_terminal_is_one_and_has_the_size_that_it_is_given() {
    let place = Place::new("shim-terminal");
    let script = "tty; read go; stty size; echo typed $go";
    let bundle = shell("shim-terminal", script, |c| c["process"]["terminal"] = true.into());
    let io = Io { terminal: true, stderr: String::new(), ..Io::fifos(place.folder.path(), "terminal") };
    let mut out = io.out();
    let shim = place.created(&bundle, "terminal", &io);
    shim.resize("terminal", "", 33, 101).expect("resize");
    shim.start("terminal", "").expect("start");
    assert_eq!(out.line().trim_end(), "/dev/pts/0");
    writeln!(io.input(), "word").expect("write");
    // The terminal repeats what is typed.
    assert_eq!(out.line().trim_end(), "word");
    assert_eq!(out.line().trim_end(), "33 101");
    assert_eq!(out.line().trim_end(), "typed word");
    assert_eq!(out.rest(), "");
    assert_eq!(shim.wait("terminal", ""), Ok(0));
    shim.clear("terminal");
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    let place = Place::new("shim-exec-terminal");
    let bundle = Bundle::new("shim-exec-terminal", &["sleep", "1000"]);
    let shim = place.created(&bundle, "of-exec", &Io::none());
    shim.start("of-exec", "").expect("start");
    let io = Io { terminal: true, stderr: String::new(), ..Io::fifos(place.folder.path(), "of-exec") };
    let mut out = io.out();
    shim.exec("of-exec", "e", &io, "tty; read go; stty size").expect("exec");
    shim.resize("of-exec", "e", 1, 1).expect("a terminal that is not there yet is no error");
    shim.start("of-exec", "e").expect("start");
    assert_eq!(out.line().trim_end(), "/dev/pts/0");
    shim.resize("of-exec", "e", 12, 34).expect("resize");
    writeln!(io.input(), "go").expect("write");
    assert_eq!(out.line().trim_end(), "go");
    assert_eq!(out.line().trim_end(), "12 34");
    assert_eq!(shim.wait("of-exec", "e"), Ok(0));
    shim.clear("of-exec");
}

#[test]
fn what_a_deleted_exec_has_left_running_does_not_keep_its_reader() {
    let place = Place::new("shim-left");
    let bundle = Bundle::new("shim-left", &["sleep", "1000"]);
    let shim = place.created(&bundle, "left", &Io::none());
    shim.start("left", "").expect("start");
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "left") };
    let mut out = io.out();
    shim.exec("left", "e", &io, "echo begun; sleep 1000 &").expect("exec");
    shim.start("left", "e").expect("start");
    assert_eq!(out.line(), "begun");
    assert_eq!(shim.wait("left", "e"), Ok(0));
    // After the ten seconds that containerd gives it.
    shim.delete("left", "e").expect("delete");
    assert_eq!(out.rest(), "");
    shim.clear("left");
}

#[test]
fn output_goes_to_a_file_where_one_is_named() {
    let place = Place::new("shim-file");
    let log = place.folder.path().join("logs/new/log");
    for _ in 0..2 {
        let bundle = shell("shim-file", "echo out; echo err >&2", |_| ());
        let uri = format!("file://{}", log.display());
        let io = Io { stdout: uri.clone(), stderr: uri, ..Io::none() };
        let shim = place.created(&bundle, "file", &io);
        shim.start("file", "").expect("start");
        assert_eq!(shim.wait("file", ""), Ok(0));
        shim.clear("file");
    }
    let mut lines: Vec<String> = text(&log).lines().map(str::to_string).collect();
    lines.sort();
    assert_eq!(lines, ["err", "err", "out", "out"]);
}

/// A logger that says that it is ready if it is asked to, and writes all that it is given with the arguments and variables
/// that it got.
const LOGGER: &str = r#"#!/bin/sh
log=$2
[ "$3" = silent ] || printf x >&5
exec 5>&-
[ "$3" = idle ] && trap 'echo asked >> "$log"; exit' TERM && while :; do read never < "$4"; done
{ echo "$CONTAINER_NAMESPACE $CONTAINER_ID"; cat <&3; cat <&4; echo end; } > "$log"
"#;

fn logger(place: &Place) -> std::path::PathBuf {
    let path = place.folder.path().join("logger");
    programs::write(&path, LOGGER, 0o755);
    path
}

#[test]
fn output_goes_to_a_logger_which_has_written_all_when_the_container_is_deleted() {
    let place = Place::new("shim-logger");
    let logger = logger(&place);
    for (id, scheme, terminal) in
        [("plain", "binary", false), ("told", "binary-v2", false), ("tty", "binary", true)]
    {
        let bundle =
            shell("shim-logger", "echo out; echo err >&2", |c| c["process"]["terminal"] = terminal.into());
        let log = place.folder.path().join(format!("log of {id}"));
        let uri =
            format!("{scheme}://{}?log={}", logger.display(), log.display().to_string().replace(' ', "%20"));
        let stderr = if terminal { String::new() } else { uri.clone() };
        let io = Io { stdout: uri, stderr, terminal, ..Io::none() };
        let shim = place.created(&bundle, id, &io);
        shim.start(id, "").expect("start");
        assert_eq!(shim.wait(id, ""), Ok(0));
        shim.clear(id);
        let expected = format!("{} {id}\nout\nerr\nend\n", place.namespace);
        assert_eq!(text(&log).replace('\r', ""), expected);
    }
}

#[test]
fn a_logger_that_is_not_ready_fails_the_create_and_one_that_stays_is_asked_to_end() {
    let place = Place::new("shim-bad-logger");
    let logger = logger(&place);
    let bundle = Bundle::new("shim-bad-logger", &["true"]);
    let shim = place.shim(&bundle, "bad");
    let log = place.folder.path().join("log");
    let of = |scheme: &str, path: &str, log: &str, more: &str| Io {
        stdout: format!("{scheme}://{path}?log={log}{more}"),
        ..Io::none()
    };
    let path = logger.to_str().expect("a path");
    for (io, why) in [
        (of("binary", "/no/such/logger", "/dev/null", ""), "no such file or directory"),
        (of("binary-v2", path, "/dev/null", "&silent"), "has not said that it is ready"),
    ] {
        let (_, text) = shim.create(&bundle, "bad", &io).expect_err("a refusal");
        assert!(text.to_lowercase().contains(why), "{text}");
    }
    let never = place.folder.path().join("never");
    nix::unistd::mkfifo(&never, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let _held = std::fs::File::options().read(true).write(true).open(&never).expect("open");
    shim.create(
        &bundle,
        "bad",
        &of("binary", path, &log.display().to_string(), &format!("&idle={}", never.display())),
    )
    .expect("create");
    shim.start("bad", "").expect("start");
    shim.wait("bad", "").expect("wait");
    shim.clear("bad");
    assert_eq!(text(&log), "asked\n");
}

#[test]
fn names_of_streams_that_rcrun_does_not_know_are_refused() {
    let place = Place::new("shim-schemes");
    let bundle = Bundle::new("shim-schemes", &["true"]);
    let shim = place.shim(&bundle, "schemes");
    for (io, why) in [
        (Io { stdout: "npipe://x".into(), ..Io::none() }, "npipe://"),
        (Io { stdin: "file:///x".into(), ..Io::none() }, "file://"),
        (Io { stderr: "/no/such/fifo".into(), ..Io::none() }, "/no/such/fifo"),
    ] {
        let (_, text) = shim.create(&bundle, "schemes", &io).expect_err("a refusal");
        assert!(text.contains(why), "{text}");
    }
    shim.create(&bundle, "schemes", &Io::none()).expect("what was refused has left nothing");
    shim.clear("schemes");
}

#[test]
fn a_process_is_not_made_before_those_who_read_it_are_there() {
    let place = Place::new("shim-readers");
    let bundle = Bundle::new("shim-readers", &["echo", "said"]);
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "readers") };
    let shim = place.shim(&bundle, "readers");
    std::thread::scope(|scope| {
        let (tell, made) = std::sync::mpsc::channel();
        let (shim, bundle, asked) = (&shim, &bundle, io.clone());
        scope.spawn(move || tell.send(shim.create(bundle, "readers", &asked)));
        let early = made.recv_timeout(Duration::from_millis(500));
        assert!(early.is_err(), "nobody reads, and a container is made: {early:?}");
        let mut out = io.out();
        made.recv().expect("an answer").expect("create");
        shim.start("readers", "").expect("start");
        assert_eq!(shim.wait("readers", ""), Ok(0));
        shim.clear("readers");
        // Nor is anything lost where it is deleted before it was read.
        assert_eq!(out.rest(), "said\n");
    });
}

#[test]
fn an_end_that_comes_with_that_of_another_container_waits_for_its_reader_too() {
    let place = Place::new("shim-together");
    let pod = |c: &mut serde_json::Value| {
        c["annotations"] = serde_json::json!({"io.containerd.runc.v2.group": "both"})
    };
    let first = shell("shim-first", "read go </go", pod);
    let second = shell("shim-second", "read go </go; echo said", pod);
    for bundle in [&first, &second] {
        let go = bundle.root().join("go");
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    }
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "second") };
    let mut out = io.out();
    let shim = place.created(&first, "first", &Io::none());
    shim.create(&second, "second", &io).expect("create");
    let pids = ["first", "second"].map(|id| shim.start(id, "").expect("start"));
    // Who was first among those that have ended, is when it goes on.
    let own = Pid::from_raw(shim.pid("first"));
    kill(own, Signal::SIGSTOP).expect("stop the shim");
    for (bundle, pid) in [(&first, pids[0]), (&second, pids[1])] {
        std::fs::write(bundle.root().join("go"), "go\n").expect("write");
        while !text(Path::new(&format!("/proc/{pid}/stat"))).contains(") Z ") {
            std::thread::yield_now();
        }
    }
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let shim = &shim;
        scope.spawn(move || tell.send(shim.wait("second", "")));
        kill(own, Signal::SIGCONT).expect("continue the shim");
        assert_eq!(shim.wait("first", ""), Ok(0));
        let early = told.recv_timeout(Duration::from_millis(500));
        assert!(early.is_err(), "nobody has read what it said, and its end is told: {early:?}");
        assert_eq!(out.rest(), "said\n");
        assert_eq!(told.recv().expect("an answer"), Ok(0));
    });
    shim.delete("first", "").expect("delete");
    shim.clear("second");
}

#[test]
fn an_end_waits_for_a_reader_who_was_behind_when_it_came() {
    // What the FIFO has no room for is moved when the end is looked at: in one piece, or in so many that they are not all moved
    // at once.
    let all_lines: String = (0..200).map(|i| format!("line {i}\n")).collect();
    for (id, script, said) in [
        ("piece", "echo said", "said\n"),
        ("pieces", "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done", &all_lines[..]),
    ] {
        let place = Place::new("shim-behind");
        let script = format!("dd if=/dev/zero bs={FIFO} count=1 2>/dev/null; read go </go; {script}");
        let bundle = shell("shim-behind", &script, |_| ());
        let go = bundle.root().join("go");
        nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), id) };
        let mut out = io.out();
        let shim = place.created(&bundle, id, &io);
        let pid = shim.start(id, "").expect("start");
        while out.unread() < FIFO {
            std::thread::yield_now();
        }
        let own = Pid::from_raw(shim.pid(id));
        kill(own, Signal::SIGSTOP).expect("stop the shim");
        std::fs::write(&go, "go\n").expect("write");
        while !text(Path::new(&format!("/proc/{pid}/stat"))).contains(") Z ") {
            std::thread::yield_now();
        }
        // After the end: it is looked at before this.
        assert_eq!(out.take(FIFO).len(), FIFO);
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let shim = &shim;
            scope.spawn(move || tell.send(shim.wait(id, "")));
            kill(own, Signal::SIGCONT).expect("continue the shim");
            let early = told.recv_timeout(Duration::from_millis(500));
            assert!(early.is_err(), "{id}: nobody has read what it said, and its end is told: {early:?}");
            assert_eq!(out.rest(), said);
            assert_eq!(told.recv().expect("an answer"), Ok(0));
        });
        shim.clear(id);
    }
}

#[test]
fn an_end_is_told_though_who_outlives_it_writes_more_than_anybody_reads() {
    let place = Place::new("shim-orphan");
    let bundle = Bundle::new("shim-orphan", &["sleep", "1000"]);
    let shim = place.created(&bundle, "orphan", &Io::none());
    shim.start("orphan", "").expect("start");
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "e") };
    let mut out = io.out();
    // Its reader is behind when it ends, and reads from then on.
    let script = format!(
        "dd if=/dev/zero bs={FIFO} count=1 2>/dev/null; dd if=/dev/zero bs={FIFO} 2>/dev/null & exit 3"
    );
    shim.exec("orphan", "e", &io, &script).expect("exec");
    let pid = shim.start("orphan", "e").expect("start");
    while Path::new(&format!("/proc/{pid}")).exists() {
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            while told.recv_timeout(Duration::from_millis(100)).is_err() {
                out.take(4096);
            }
        });
        assert_eq!(shim.wait("orphan", "e"), Ok(3));
        tell.send(()).expect("a reader");
    });
    shim.clear("orphan");
}

#[test]
fn an_end_waits_until_what_was_said_is_read_where_a_child_keeps_the_pipe() {
    let place = Place::new("shim-child");
    let bundle = Bundle::new("shim-child", &["sleep", "1000"]);
    let go = bundle.root().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let shim = place.created(&bundle, "child", &Io::none());
    shim.start("child", "").expect("start");
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "e") };
    let mut out = io.out();
    shim.exec("child", "e", &io, "read go </go; sleep 1000 & echo said").expect("exec");
    let pid = shim.start("child", "e").expect("start");
    let own = Pid::from_raw(shim.pid("child"));
    kill(own, Signal::SIGSTOP).expect("stop the shim");
    std::fs::write(&go, "go\n").expect("write");
    while !text(Path::new(&format!("/proc/{pid}/stat"))).contains(") Z ") {
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let shim = &shim;
        scope.spawn(move || tell.send(shim.wait("child", "e")));
        kill(own, Signal::SIGCONT).expect("continue the shim");
        let early = told.recv_timeout(Duration::from_millis(500));
        assert!(early.is_err(), "nobody has read what it said, and its end is told: {early:?}");
        assert_eq!(out.line(), "said");
        assert_eq!(told.recv().expect("an answer"), Ok(0));
    });
    shim.clear("child");
}

#[test]
fn who_asks_for_a_container_that_is_being_made_hears_of_it_when_it_is_or_is_not() {
    let place = Place::new("shim-asked");
    // Its creation takes until somebody reads.
    for (id, root, answer) in
        [("comes", "rootfs", Ok(Status::CREATED)), ("fails", "none", Err(Code::NOT_FOUND))]
    {
        let bundle = Bundle::new("shim-asked", &["true"]).with(|config| config["root"]["path"] = root.into());
        let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), id) };
        let shim = place.shim(&bundle, id);
        std::thread::scope(|scope| {
            let (shim, bundle, asked) = (&shim, &bundle, io.clone());
            let create = scope.spawn(move || shim.create(bundle, id, &asked));
            // It takes a moment to come so far. A containerd that is started anew asks this first, and is not kept waiting.
            let connected = (0..100_000).find_map(|_| shim.connect(id).ok());
            assert_eq!(connected.expect("a container that is being made").task_pid, 0);
            let (tell, told) = std::sync::mpsc::channel();
            scope.spawn(move || {
                let state = shim.state(id, "");
                tell.send(state.map(|state| (state.status.enum_value(), state.pid)).map_err(|(code, _)| code))
            });
            let early = told.recv_timeout(Duration::from_millis(500));
            assert!(early.is_err(), "it is not made, and so it is told: {early:?}");
            let _out = io.out();
            let made = create.join().expect("no panic");
            let state = told.recv().expect("an answer");
            assert_eq!(state, answer.map(|status| (Ok(status), made.clone().unwrap_or(0))), "{made:?}");
            assert_eq!(made.is_ok(), answer.is_ok(), "{made:?}");
        });
        if answer.is_ok() {
            shim.clear(id);
        } else {
            shim.shut_down();
        }
    }
}

#[test]
fn what_a_process_has_said_waits_for_a_reader_who_comes_after_its_end() {
    let place = Place::new("late");
    let bundle = Bundle::new("late", &["sh", "-c", "echo said"]);
    let io = Io { stdin: String::new(), ..Io::fifos(place.folder.path(), "late") };
    let shim = place.created(&bundle, "late", &io);
    shim.start("late", "").expect("start");
    assert_eq!(shim.wait("late", ""), Ok(0));
    let mut out = io.out();
    assert_eq!(out.line(), "said");
    assert_eq!(out.rest(), "");
    shim.clear("late");
}
