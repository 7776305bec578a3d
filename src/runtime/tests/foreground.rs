//! A foreground container on real terminals: this program is run once more as the process that attends a
//! shell, and talked to through its own terminal or pipes. Not libtest: `attend` blocks signals and waits for any
//! child, which takes a process with one thread.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio, exit};

use rcrun_runtime::console::Console;
use rcrun_runtime::foreground::{Signals, attend};
use rcrun_runtime::notify_socket::{self, NotifySocket};
use rcrun_runtime::sys::{pidfd, spawn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, waitid,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

const TESTS: &[(&str, fn())] = &[
    ("exit_statuses_and_signals_become_ours", exit_statuses_and_signals_become_ours),
    ("signals_are_forwarded_also_real_time_ones", signals_are_forwarded_also_real_time_ones),
    (
        "a_signal_that_comes_before_the_container_is_not_lost",
        a_signal_that_comes_before_the_container_is_not_lost,
    ),
    (
        "an_ignored_sigchld_that_we_inherit_loses_no_status",
        an_ignored_sigchld_that_we_inherit_loses_no_status,
    ),
    (
        "orphans_are_waited_for_and_do_not_change_the_status",
        orphans_are_waited_for_and_do_not_change_the_status,
    ),
    (
        "what_is_typed_reaches_the_container_and_raw_mode_ends",
        what_is_typed_reaches_the_container_and_raw_mode_ends,
    ),
    ("control_c_is_a_byte_for_the_container", control_c_is_a_byte_for_the_container),
    ("raw_mode_ends_when_the_container_is_killed", raw_mode_ends_when_the_container_is_killed),
    ("raw_mode_comes_back_after_a_stop", raw_mode_comes_back_after_a_stop),
    ("a_service_manager_hears_of_readiness", a_service_manager_hears_of_readiness),
    ("sizes_follow_the_host_terminal", sizes_follow_the_host_terminal),
    ("the_end_of_a_piped_script_ends_the_shell", the_end_of_a_piped_script_ends_the_shell),
    ("all_output_arrives_and_without_carriage_returns", all_output_arrives_and_without_carriage_returns),
    (
        "output_after_a_closed_and_reopened_terminal_arrives",
        output_after_a_closed_and_reopened_terminal_arrives,
    ),
    (
        "a_descendant_that_keeps_the_terminal_is_not_waited_for",
        a_descendant_that_keeps_the_terminal_is_not_waited_for,
    ),
    ("a_container_goes_on_when_nobody_reads_its_output", a_container_goes_on_when_nobody_reads_its_output),
    (
        "signals_are_forwarded_while_nobody_reads_the_output",
        signals_are_forwarded_while_nobody_reads_the_output,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|word| word == "attend") {
        attending_process(&args[1], &args[2]);
    }
    if args.first().is_some_and(|word| word == "ready") {
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(b"READY=1", Path::new(&args[1]).join("notify/notify.sock")).unwrap();
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen =
        TESTS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in chosen {
        let result = std::panic::catch_unwind(test);
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        *(if result.is_ok() { &mut passed } else { &mut failed }) += 1;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The other side: starts `script` as rcrun would start a container, and attends it. `how` is made of
/// `terminal`; `held`: signals are blocked, then a byte of stdin is waited for; and `notify`: below $STATE.
fn attending_process(how: &str, script: &str) -> ! {
    // A test that fails, or is killed, leaves nothing behind: the shell ends with its terminal or its stdin.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let signals = Signals::block().unwrap();
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    if how.contains("held") {
        println!("blocked");
        std::io::stdin().read_exact(&mut [0]).unwrap();
    }
    let notify = how.contains("notify").then(|| {
        let state = PathBuf::from(std::env::var_os("STATE").unwrap());
        notify_socket::make_directory(&state).unwrap();
        NotifySocket::bind(&state, state.join("manager").to_str().unwrap()).unwrap()
    });
    let (master, slave) = how.contains("terminal").then(pty).unzip();
    // Before the shell can write: its first line has no carriage return either.
    let console = master.map(|master| Console::new(master).unwrap());
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let own = [input.as_fd(), output.as_fd(), error.as_fd()];
    let stdio = slave.as_ref().map_or(own, |slave| [slave.as_fd(); 3]);
    let words: &[&str] =
        if slave.is_some() { &["setsid", "-c", "sh", "-c", script] } else { &["sh", "-c", script] };
    let args: Vec<CString> = words.iter().map(|word| CString::new(*word).unwrap()).collect();
    let child = spawn::spawn(&spawn::Program {
        path: if slave.is_some() { c"/usr/bin/setsid" } else { c"/bin/sh" },
        args: &args,
        env: &[c"PATH=/usr/bin:/bin".to_owned()],
        cwd: c"/",
        stdio,
        passed: &[],
        own_group: false,
    })
    .unwrap();
    drop(slave);
    let attended = attend(child.pidfd.as_fd(), child.pid, &signals, console, notify, None).unwrap();
    for warning in attended.warnings {
        eprintln!("warning: {warning}");
    }
    exit(attended.exit.status());
}

fn pty() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, slave)
}

/// An attending process on pipes.
fn on_pipes(how: &str, script: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["attend", how, script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// An attending process on a terminal, and that terminal's two ends.
struct OnTerminal {
    process: Child,
    keyboard: OwnedFd,
    terminal: OwnedFd,
    /// The terminal's modes before the process was there.
    before: Termios,
    seen: String,
}

impl OnTerminal {
    fn start(script: &str) -> OnTerminal {
        let (keyboard, terminal) = pty();
        tcsetwinsize(&keyboard, Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.arg("-c").arg(std::env::current_exe().unwrap()).args(["attend", "terminal", script]);
        let process = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        OnTerminal { process, keyboard, terminal, before, seen: String::new() }
    }

    fn type_in(&self, text: &str) {
        rustix::io::write(&self.keyboard, text.as_bytes()).unwrap();
    }

    /// Reads the screen until `text` has appeared; forgets what came before its end.
    fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut bytes = [0; 4096];
            let count = rustix::io::read(&self.keyboard, &mut bytes).unwrap();
            self.seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }

    fn local(&self) -> LocalModes {
        tcgetattr(&self.terminal).unwrap().local_modes
    }

    fn status(&mut self) -> i32 {
        self.process.wait().unwrap().code().expect("it exits by itself")
    }
}

/// Reads a line.
fn line(output: &mut ChildStdout) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while output.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn signal(process: &Child, number: i32) {
    let pidfd = pidfd_open(Pid::from_child(process), PidfdFlags::empty()).unwrap();
    pidfd::send_signal(pidfd.as_fd(), number).unwrap();
}

fn exit_statuses_and_signals_become_ours() {
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -40 $$", 168)] {
        for how in ["plain", "terminal"] {
            assert_eq!(on_pipes(how, script).wait().unwrap().code(), Some(status), "{script} ({how})");
        }
    }
}

fn signals_are_forwarded_also_real_time_ones() {
    // No traps: a shell may run one only after the read that the signal came just before.
    let fatal = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGPIPE, 40];
    for number in fatal {
        let mut process = on_pipes("plain", "echo ready; read x; exit 4");
        assert_eq!(line(process.stdout.as_mut().unwrap()), "ready");
        signal(&process, number);
        // Its stdin stays open meanwhile: `wait` of Child would close it.
        let _stdin = process.stdin.take();
        assert_eq!(process.wait().unwrap().code(), Some(128 + number), "signal {number}");
    }
}

fn a_signal_that_comes_before_the_container_is_not_lost() {
    let mut process = on_pipes("held", "read x");
    assert_eq!(line(process.stdout.as_mut().unwrap()), "blocked");
    signal(&process, libc::SIGUSR1);
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"!").unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(128 + libc::SIGUSR1));
}

fn an_ignored_sigchld_that_we_inherit_loses_no_status() {
    let program = std::env::current_exe().unwrap();
    let script = "trap '' CHLD; exec \"$0\" attend plain 'exit 7'";
    let status = Command::new("sh").args(["-c", script]).arg(program).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

fn orphans_are_waited_for_and_do_not_change_the_status() {
    // The orphan is dead and gone only when its new parent has waited for it; the count ends a failing try.
    let script = "orphan=$(sh -c 'sh -c \"exit 9\" >/dev/null & echo $!'); n=0
        while kill -0 $orphan 2>/dev/null; do n=$((n+1)); [ $n -gt 3000000 ] && exit 1; done; exit 6";
    assert_eq!(on_pipes("plain", script).wait().unwrap().code(), Some(6));
}

fn what_is_typed_reaches_the_container_and_raw_mode_ends() {
    let mut container = OnTerminal::start("stty -echo; echo ready; read x; echo got:$x; read y; exit 5");
    let before = container.before.local_modes;
    container.until("ready\r\n");
    assert!(!container.local().intersects(LocalModes::ICANON | LocalModes::ECHO));
    container.type_in("hello\r");
    container.until("got:hello\r\n");
    container.type_in("\r");
    assert_eq!(container.status(), 5);
    assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
    assert_eq!(container.local(), before);
}

fn control_c_is_a_byte_for_the_container() {
    let mut container = OnTerminal::start("echo ready; read x; exit 4");
    container.until("ready\r\n");
    container.type_in("\x03");
    assert_eq!(container.status(), 128 + libc::SIGINT);
}

fn raw_mode_ends_when_the_container_is_killed() {
    let mut container = OnTerminal::start("echo ready; read x");
    let before = container.before.local_modes;
    container.until("ready\r\n");
    assert_ne!(container.local(), before);
    signal(&container.process, libc::SIGTERM);
    assert_eq!(container.status(), 143);
    assert_eq!(container.local(), before);
}

fn raw_mode_comes_back_after_a_stop() {
    let mut container = OnTerminal::start("stty -echo; echo ready; read x; echo got:$x; read y");
    let cooked = container.before.clone();
    container.until("ready\r\n");
    let raw = container.local();
    signal(&container.process, libc::SIGSTOP);
    let stopped = WaitIdOptions::STOPPED;
    waitid(WaitId::Pid(Pid::from_child(&container.process)), stopped).unwrap();
    // As a shell does when its job has stopped.
    tcsetattr(&container.terminal, OptionalActions::Now, &cooked).unwrap();
    signal(&container.process, libc::SIGCONT);
    container.type_in("on\r");
    container.until("got:on\r\n");
    assert_eq!(container.local(), raw);
    signal(&container.process, libc::SIGTERM);
    assert_eq!(container.status(), 143);
    assert_eq!(container.local(), cooked.local_modes);
}

fn a_service_manager_hears_of_readiness() {
    let state = std::env::temp_dir().join(format!("rcrun-attend-{}", std::process::id()));
    std::fs::create_dir(&state).unwrap();
    let manager = UnixDatagram::bind(state.join("manager")).unwrap();
    let program = std::env::current_exe().unwrap();
    let script = format!("{} ready {} && read x && exit 3", program.display(), state.display());
    let mut command = Command::new(&program);
    command.args(["attend", "notify", &script]).env("STATE", &state).stdin(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut bytes = [0; 64];
    let mut hear = || {
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    assert_eq!(hear(), "READY=1\n");
    let main = hear();
    assert_ne!(main, format!("MAINPID={}\n", process.id()), "the container's process, not rcrun");
    assert!(main.starts_with("MAINPID="), "{main}");
    assert_eq!(hear(), "BARRIER=1");
    process.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(3));
    std::fs::remove_dir_all(&state).unwrap();
}

fn sizes_follow_the_host_terminal() {
    // Asked with a key, which is passed on after the signal that came before it.
    let mut container = OnTerminal::start("stty -echo; echo ready; while read x; do stty size; done");
    container.until("ready\r\n");
    container.type_in("\r");
    container.until("30 90\r\n");
    tcsetwinsize(&container.keyboard, Winsize { ws_row: 41, ws_col: 123, ws_xpixel: 0, ws_ypixel: 0 })
        .unwrap();
    container.type_in("\r");
    container.until("41 123\r\n");
    container.type_in("\x04");
    assert_eq!(container.status(), 0);
}

fn the_end_of_a_piped_script_ends_the_shell() {
    // The second script has no newline at its end.
    for script in ["echo one\nexit 3\n", "echo one\n", "echo one"] {
        let mut process = on_pipes("terminal", "stty -echo; exec cat");
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        let mut text = String::new();
        process.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("echo one"), "{text}");
        assert_eq!(process.wait().unwrap().code(), Some(0), "{script:?}");
    }
}

fn all_output_arrives_and_without_carriage_returns() {
    let mut process = on_pipes("terminal", "read x; seq 1 200000; exit 3");
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    let mut text = String::new();
    process.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(3));
    let mut expected = String::from("\n"); // the echo of what was typed
    for number in 1..=200_000 {
        expected.push_str(&format!("{number}\n"));
    }
    assert!(
        text == expected,
        "{} characters, not {}: ..{}",
        text.len(),
        expected.len(),
        &text[text.len().saturating_sub(40)..]
    );
}

fn output_after_a_closed_and_reopened_terminal_arrives() {
    let mut container = OnTerminal::start(
        "echo ready; read x; exec 0<&- 1>&- 2>&-; orphan=$(sh -c 'exit 1'); exec 0<>/dev/tty 1>&0; echo back; read x; exit 6",
    );
    container.until("ready\r\n");
    container.type_in("\r");
    container.until("back\r\n");
    container.type_in("\r");
    assert_eq!(container.status(), 6);
}

fn a_descendant_that_keeps_the_terminal_is_not_waited_for() {
    let mut container = OnTerminal::start("trap '' HUP; sleep 1000 & echo pid=$!.; exit 5");
    container.until("pid=");
    let pid = container.until(".\r\n");
    assert_eq!(container.status(), 5);
    let pid = Pid::from_raw(pid.trim_end().trim_end_matches('.').parse().unwrap()).unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    kill_process(pid, Signal::KILL).unwrap();
}

fn a_container_goes_on_when_nobody_reads_its_output() {
    let mut process = on_pipes("terminal", "echo ready; read x; seq 1 100000; exit 4");
    let mut output = process.stdout.take().unwrap();
    assert_eq!(line(&mut output), "ready");
    drop(output);
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(4));
}

fn signals_are_forwarded_while_nobody_reads_the_output() {
    // Pipe and pty fill up, and with them all that could block a write.
    let mut process = on_pipes("terminal", "echo $$; exec yes");
    let mut output = process.stdout.take().unwrap();
    let pid = Pid::from_raw(line(&mut output).parse().unwrap()).unwrap();
    let container = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    signal(&process, libc::SIGTERM);
    // Ends when the container has, with its output still unread.
    poll(&mut [PollFd::new(&container, PollFlags::IN)], None).unwrap();
    drop(output);
    assert_eq!(process.wait().unwrap().code(), Some(143));
}
