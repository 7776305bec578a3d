//! Terminals from outside: rcrun on a pty as a person has it, and the console socket as an engine has it.

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::{Lines, Runtime, code, readable};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

/// A bundle with a terminal.
fn bundle(script: &str) -> Bundle {
    Bundle::new("tty", &["sh", "-c", script]).with(|config| config["process"]["terminal"] = true.into())
}

/// rcrun on a terminal of its own, as a person has it.
struct Person {
    master: OwnedFd,
    slave: OwnedFd,
    screen: Lines,
    child: Child,
}

impl Person {
    /// Types a command on a terminal of 30 rows and 100 columns. setsid makes it rcrun's controlling terminal.
    fn types(runtime: &Runtime, words: &[&OsStr]) -> Person {
        let pty = openpty(None, None).expect("openpty");
        size(&pty.master, 30, 100);
        let stdio = || Stdio::from(pty.slave.try_clone().expect("dup"));
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(runtime.binary())
            .arg("--root")
            .arg(runtime.root())
            .args(words)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .expect("setsid");
        let screen = Lines::of(pty.master.try_clone().expect("dup"));
        Person { master: pty.master, slave: pty.slave, screen, child }
    }

    fn run(runtime: &Runtime, bundle: &Bundle, id: &str) -> Person {
        let words = [OsStr::new("run"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new(id)];
        Person::types(runtime, &words)
    }

    fn keys(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).expect("write");
    }

    fn status(&mut self) -> i32 {
        code(self.child.wait().expect("wait"))
    }
}

fn size(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("TIOCSWINSZ");
}

#[test]
fn a_payload_on_a_terminal_has_the_size_of_the_persons_from_its_first_instruction() {
    let runtime = Runtime::new();
    let bundle = bundle("stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo all; exit 7");
    for i in 0..10 {
        let mut person = Person::run(&runtime, &bundle, &format!("size-{i}"));
        assert_eq!(person.screen.line(), "30 100\r");
        assert!(person.screen.line().starts_with("/dev/"));
        assert_eq!(person.screen.line(), "all\r");
        assert_eq!(person.status(), 7);
    }
}

#[test]
fn the_terminal_is_raw_while_the_container_runs_and_as_before_after_it() {
    let runtime = Runtime::new();
    let bundle = bundle("echo up; read line; echo got $line; exit 3");
    let mut person = Person::run(&runtime, &bundle, "raw");
    let raw = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    person.screen.until("up\r\n");
    let modes = tcgetattr(&person.slave).expect("tcgetattr");
    assert!(!modes.local_modes.intersects(raw), "{:?}", modes.local_modes);
    // The container's own terminal echoes, once.
    person.keys("typed\r");
    let screen = person.screen.until("got typed\r\n");
    assert_eq!(screen, "typed\r\ngot typed\r\n");
    assert_eq!(person.status(), 3);
    let modes = tcgetattr(&person.slave).expect("tcgetattr");
    assert!(modes.local_modes.contains(raw), "{:?}", modes.local_modes);
}

#[test]
fn the_terminal_is_restored_when_run_fails_or_the_payload_is_killed() {
    let runtime = Runtime::new();
    let raw = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    let missing = bundle("true").with(|config| config["process"]["args"] = json!(["nope"]));
    let mut person = Person::run(&runtime, &missing, "missing");
    person.screen.until("executable file not found in $PATH");
    assert_eq!(person.status(), 1);
    assert!(tcgetattr(&person.slave).expect("tcgetattr").local_modes.contains(raw));

    let bundle = bundle("echo up; exec sleep 1000");
    let mut person = Person::run(&runtime, &bundle, "killed");
    person.screen.until("up\r\n");
    runtime.ok(["kill", "killed", "KILL"]);
    assert_eq!(person.status(), 137);
    assert!(tcgetattr(&person.slave).expect("tcgetattr").local_modes.contains(raw));
}

#[test]
fn a_change_of_the_window_reaches_the_payload() {
    let runtime = Runtime::new();
    let bundle = bundle("trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 1000 & wait; done");
    let mut person = Person::run(&runtime, &bundle, "window");
    person.screen.until("up\r\n");
    // The kernel sends SIGWINCH to the foreground processes of this terminal: to rcrun.
    size(&person.master, 44, 120);
    assert_eq!(person.screen.line(), "44 120\r");
    assert_eq!(person.status(), 0);
}

#[test]
fn control_c_is_the_containers_and_not_rcruns() {
    let runtime = Runtime::new();
    let bundle = bundle("trap 'echo interrupted; exit 9' INT; echo up; while :; do sleep 1000 & wait; done");
    let mut person = Person::run(&runtime, &bundle, "interrupt");
    person.screen.until("up\r\n");
    person.keys("\x03");
    person.screen.until("interrupted\r\n");
    assert_eq!(person.status(), 9);
}

#[test]
fn a_signal_to_rcrun_on_a_terminal_is_forwarded() {
    let runtime = Runtime::new();
    let bundle = bundle("trap 'echo ended; exit 4' TERM; echo up; while :; do sleep 1000 & wait; done");
    let mut person = Person::run(&runtime, &bundle, "term");
    person.screen.until("up\r\n");
    kill(Pid::from_raw(person.child.id() as i32), Signal::SIGTERM).expect("kill");
    person.screen.until("ended\r\n");
    assert_eq!(person.status(), 4);
}

#[test]
fn exec_with_a_terminal_is_like_run_with_one() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("exectty", &["sh", "-c", "echo up; exec sleep 1000"]);
    assert_eq!(runtime.detached(&bundle, "exectty").line(), "up");
    for option in ["--tty", "-t"] {
        let words =
            ["exec", option, "exectty", "sh", "-c", "stty size; read l; echo got $l; exit 5"].map(OsStr::new);
        let mut person = Person::types(&runtime, &words);
        assert_eq!(person.screen.line(), "30 100\r");
        person.keys("x\r");
        person.screen.until("got x\r\n");
        assert_eq!(person.status(), 5);
    }
}

#[test]
fn a_megabyte_of_output_comes_whole() {
    let runtime = Runtime::new();
    let bundle =
        bundle("i=0; while [ $i -lt 20000 ]; do echo line $i of many that fill the pty; i=$((i+1)); done");
    let mut person = Person::run(&runtime, &bundle, "flood");
    for i in 0..20000 {
        assert_eq!(person.screen.line(), format!("line {i} of many that fill the pty\r"));
    }
    assert_eq!(person.status(), 0);
}

#[test]
fn without_a_terminal_around_it_a_payload_on_a_terminal_writes_no_carriage_return() {
    let runtime = Runtime::new();
    // As in a script: run with terminal in config.json, but pipes around.
    let bundle = bundle("echo one; echo two; exit 6");
    let said = runtime.run(&bundle, "piped");
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (6, "one\ntwo\n", ""));
}

/// An engine's end of a console socket.
struct Engine {
    folder: Folder,
    listener: UnixListener,
}

impl Engine {
    fn new() -> Engine {
        let folder = Folder::new("console");
        let listener = UnixListener::bind(folder.path().join("sock")).expect("bind");
        Engine { folder, listener }
    }

    fn path(&self) -> String {
        self.folder.path().join("sock").to_str().expect("UTF-8").to_string()
    }

    /// What one message holds: its text, and its only descriptor.
    fn receive(&self) -> (String, OwnedFd) {
        assert!(readable(self.listener.as_fd()), "nobody connects");
        let (stream, _) = self.listener.accept().expect("accept");
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg(&stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).expect("recvmsg");
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        assert_eq!(fds.len(), 1, "exactly one descriptor");
        (String::from_utf8_lossy(&bytes[..message.bytes]).into_owned(), fds.remove(0))
    }
}

#[test]
fn create_hands_the_terminal_to_the_console_socket() {
    let runtime = Runtime::new();
    let engine = Engine::new();
    let bundle =
        bundle("tty; stty size; read line; echo got $line; test -c /dev/console && echo console; exit 3")
            .with(|config| config["process"]["consoleSize"] = json!({"height": 21, "width": 77}));
    let said = runtime.create_with(&bundle, "console", &["--console-socket", &engine.path()]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let (name, master) = engine.receive();
    assert!(name.starts_with("/dev/pts/"), "{name}");
    runtime.ok(["start", "console"]);
    let mut screen = Lines::of(master.try_clone().expect("dup"));
    // With carriage returns: the terminal of the engine's client is in raw mode and makes none.
    assert_eq!(screen.line(), format!("{name}\r"));
    assert_eq!(screen.line(), "21 77\r");
    rustix::io::write(&master, b"typed\n").expect("write");
    assert_eq!(screen.line(), "typed\r");
    assert_eq!(screen.line(), "got typed\r");
    assert_eq!(screen.line(), "console\r");
    assert_eq!(screen.rest(), "", "rcrun holds no end of the terminal");
    runtime.wait_for_end("console");
    runtime.ok(["delete", "console"]);
}

#[test]
fn a_detached_run_and_exec_hand_over_their_terminals() {
    let runtime = Runtime::new();
    let engine = Engine::new();
    let bundle = bundle("echo up; exec sleep 1000");
    let mut command = runtime.command(["run", "-d", "--console-socket", &engine.path(), "--bundle"]);
    let said = runtime.without_pipes(command.arg(bundle.path()).arg("handover"));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let (_, master) = engine.receive();
    assert_eq!(Lines::of(master).line(), "up\r");

    let engine = Engine::new();
    let words =
        ["exec", "-d", "-t", "--console-socket", &engine.path(), "handover", "sh", "-c", "echo in; read l"];
    let said = runtime.without_pipes(&mut runtime.command(words));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let (name, master) = engine.receive();
    assert!(name.starts_with("/dev/pts/"), "{name}");
    let mut screen = Lines::of(master.try_clone().expect("dup"));
    assert_eq!(screen.line(), "in\r");
    rustix::io::write(&master, b"\n").expect("write");
    screen.rest();
}

#[test]
fn the_terminal_belongs_to_the_payloads_user() {
    let runtime = Runtime::new();
    let bundle = bundle("stat -c %u /dev/console $(tty); echo out > /dev/stdout; echo err > /dev/stderr")
        .with(|config| config["process"]["user"]["uid"] = json!(33));
    let said = runtime.run(&bundle, "owner");
    assert_eq!((said.status, said.out.as_str()), (0, "33\n33\nout\nerr\n"), "{}", said.err);
}

#[test]
fn pidfds_of_init_and_exec_are_handed_over() {
    let runtime = Runtime::new();
    let engine = Engine::new();
    let bundle = Bundle::new("pidfd", &["sh", "-c", "exec sleep 1000"]);
    let said = runtime.create_with(&bundle, "pidfd", &["--pidfd-socket", &engine.path()]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let (text, pidfd) = engine.receive();
    assert_eq!(text, "standard");
    let pid = |pidfd: &OwnedFd| {
        let info =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).expect("fdinfo");
        let line = info.lines().find_map(|l| l.strip_prefix("Pid:")).expect("a pidfd");
        line.trim().parse::<i32>().expect("a pid")
    };
    assert_eq!(pid(&pidfd), runtime.pid("pidfd"));
    runtime.ok(["start", "pidfd"]);

    let engine = Engine::new();
    let words = ["exec", "-d", "--pidfd-socket", &engine.path(), "pidfd", "sleep", "1000"];
    let said = runtime.without_pipes(&mut runtime.command(words));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let (text, execs) = engine.receive();
    assert_eq!(text, "setns");
    let pids: Vec<i32> = serde_json::from_str(&runtime.ok(["ps", "-f", "json", "pidfd"]).out).expect("pids");
    assert!(pids.contains(&pid(&execs)) && pid(&execs) != pid(&pidfd));
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("kill");
    runtime.wait_for_end("pidfd");
    assert_eq!(runtime.status("pidfd"), "stopped");
}
