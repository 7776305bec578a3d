//! OCI hooks: each gets the container's state on stdin, in the order of config.json; the first that fails
//! ends the operation, after the container's stop they are warnings. Uses: sys::spawn.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::{CallContext, Code, Context, Error, Result};
use crate::sys::{pidfd, spawn};

/// How much of a hook's output an error repeats: its end.
const TAIL: usize = 4096;

/// More than a pipe holds: where reading stops once the hook is gone, though a child of it still writes.
const LEFT_OVER: usize = 1 << 20;

/// The files that hooks' standard output and standard error are appended to. Where there is none, what a hook writes is told
/// if it fails, and else lost.
#[derive(Debug, Default)]
pub struct Files([Option<(OwnedFd, PathBuf)>; 2]);

impl Files {
    /// Opens those that are named, by annotations of config.json; a file that is missing is made.
    pub fn open(named: [Option<(&str, &Path)>; 2]) -> Result<Files> {
        let mut files = Files::default();
        for (file, named) in files.0.iter_mut().zip(named) {
            let Some((annotation, path)) = named else { continue };
            // A FIFO that nobody reads would hold the container up for ever.
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NONBLOCK;
            let at = format!("/annotations/{annotation}");
            let opened = rustix::fs::open(path, flags | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::from(0o600))
                .and_then(|fd| fcntl_setfl(&fd, OFlags::APPEND).map(|()| fd))
                .call(format!("{at}: open {}", path.display()))
                .map_err(|error| error.with_code(Code::Hook).at(at))?;
            *file = Some((opened, path.to_path_buf()));
        }
        Ok(files)
    }

    /// Standard output and error of a hook; `else_to` is the pipe that is listened to.
    pub fn or<'a>(&'a self, else_to: BorrowedFd<'a>) -> [BorrowedFd<'a>; 2] {
        self.0.each_ref().map(|file| file.as_ref().map_or(else_to, |(fd, _)| fd.as_fd()))
    }

    /// Says in the error of a hook where what it wrote is.
    pub fn named_in(&self, error: Error) -> Error {
        let paths: Vec<String> =
            self.0.iter().flatten().map(|(_, path)| path.display().to_string()).collect();
        let told = (!paths.is_empty()).then(|| format!("what it wrote is in {}", paths.join(" and ")));
        error.hint(told.as_deref())
    }
}

/// Runs `hooks`, config.json's list of `kind` (`createRuntime`), in our own namespaces and in `bundle`, each
/// with `state` on stdin. Stops at the first that fails.
pub fn run(hooks: &[Hook], kind: &str, bundle: &Path, state: &[u8], files: &Files) -> Result<()> {
    (0..).zip(hooks).try_for_each(|(index, hook)| run_one(hook, (kind, index), bundle, state, files))
}

/// The same for `poststop`: runs all of them; what failed is the answer.
pub fn run_all(hooks: &[Hook], kind: &str, bundle: &Path, state: &[u8], files: &Files) -> Vec<Error> {
    let each = (0..).zip(hooks);
    each.filter_map(|(index, hook)| run_one(hook, (kind, index), bundle, state, files).err()).collect()
}

fn run_one(
    hook: &Hook,
    (kind, index): (&str, usize),
    bundle: &Path,
    state: &[u8],
    files: &Files,
) -> Result<()> {
    let timeout = hook.timeout();
    let outcome = start(hook, bundle, files)
        .and_then(|process| attend(process, state, timeout).map_err(|error| files.named_in(error)));
    named(outcome, hook, kind, index)
}

/// Names the hook in `outcome`'s error: for hooks that were started elsewhere, too.
pub fn named<T>(outcome: Result<T>, hook: &Hook, kind: &str, index: usize) -> Result<T> {
    outcome
        // runc's words, but for the pointer.
        .context(format!("/hooks/{kind}/{index}: error running hook {}", hook.path().display()))
        .map_err(|error| error.with_code(Code::Hook).at(format!("/hooks/{kind}/{index}")))
}

/// A hook that has been started: a child of this process.
#[derive(Debug)]
pub struct HookProcess {
    /// Readable when it has exited.
    pub pidfd: OwnedFd,
    /// The process group to kill with it, if it leads one.
    pub group: Option<Pid>,
    /// The writing end of the pipe that is its stdin.
    pub stdin: OwnedFd,
    /// The reading end of the pipe that is its stdout and stderr, where these are no files.
    pub output: OwnedFd,
}

fn start(hook: &Hook, bundle: &Path, files: &Files) -> Result<HookProcess> {
    let string = |bytes: &[u8]| {
        let invalid = |_| Error::new(Code::Hook, "has a NUL character in its path, arguments or environment");
        CString::new(bytes).map_err(invalid)
    };
    let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>> {
        list.iter().flatten().map(|text| string(text.as_bytes())).collect()
    };
    let path = string(hook.path().as_os_str().as_bytes())?;
    let mut args = strings(hook.args())?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let (reader, stdin) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
    let (output, writer) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
    let [stdout, stderr] = files.or(writer.as_fd());
    let child = spawn::spawn(&spawn::Program {
        path: &path,
        args: &args,
        // Absent is empty: nothing of our environment is meant for it.
        env: &strings(hook.env())?,
        cwd: &string(bundle.as_os_str().as_bytes())?,
        stdio: [reader.as_fd(), stdout, stderr],
        passed: &[],
        // A group of its own can be killed whole when the time is up. Without a timeout only the
        // terminal's ^C ends a hook that hangs, and that reaches our own group.
        own_group: hook.timeout().is_some(),
    })
    .call("execve")
    .map_err(|error| {
        let hint = execute_hint(hook.path(), error.errno());
        error.hint(hint)
    })?;
    let group = hook.timeout().map(|_| child.pid);
    Ok(HookProcess { pidfd: child.pidfd, group, stdin, output })
}

/// Gives a hook the `state`, reads what it prints, and waits for its end, `timeout` seconds at most. Any
/// status but 0 is an error that ends with what it printed last.
pub fn attend(process: HookProcess, state: &[u8], timeout: Option<i64>) -> Result<()> {
    let deadline = match timeout {
        None => None,
        // Beyond what the clock can count is for ever.
        Some(seconds) => Instant::now().checked_add(Duration::from_secs(seconds.max(0) as u64)),
    };
    let mut talk =
        Conversation { state, stdin: Some(process.stdin), output: Some(process.output), tail: Vec::new() };
    talk.do_not_block()?;
    let in_time = loop {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break false;
        }
        if talk.wait(&process.pidfd, left)? {
            break true;
        }
    };
    if !in_time {
        // Not waited for yet, so that neither number has passed to others.
        if let Some(group) = process.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL).call("pidfd_send_signal")?;
    }
    let status =
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED))
            .call("waitid")?
            .ok_or_else(|| Error::new(Code::System, "waitid: no status"))?;
    let outcome = match (in_time, status.exit_status(), status.terminating_signal()) {
        (false, ..) => format!("did not end within {} seconds, killed", timeout.unwrap_or(0)),
        (true, Some(0), _) => return Ok(()),
        (true, Some(code), _) => format!("exit status {code}"),
        (true, None, Some(libc::SIGSYS)) => format!("killed by signal {}: bad system call", libc::SIGSYS),
        (true, None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    };
    let said = talk.last_words();
    let separator = if said.is_empty() { "" } else { ": " };
    Err(Error::new(Code::Hook, format!("{outcome}{separator}{said}")))
}

/// The pipes to and from a hook.
struct Conversation<'a> {
    /// What it has yet to be told.
    state: &'a [u8],
    /// None when it has been told, or does not listen.
    stdin: Option<OwnedFd>,
    /// None at its end.
    output: Option<OwnedFd>,
    /// The end of what it said.
    tail: Vec<u8>,
}

impl Conversation<'_> {
    fn do_not_block(&self) -> Result<()> {
        for fd in [&self.stdin, &self.output].into_iter().flatten() {
            let flags = fcntl_getfl(fd).call("F_GETFL")?;
            fcntl_setfl(fd, flags | OFlags::NONBLOCK).call("F_SETFL")?;
        }
        Ok(())
    }

    /// Waits for something to happen, `left` at most; true when the hook has exited.
    fn wait(&mut self, pidfd: &OwnedFd, left: Option<Duration>) -> Result<bool> {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(self.output.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.stdin.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => return Ok(false),
            other => other.call("poll")?,
        };
        let exited = !fds[0].revents().is_empty();
        self.tell();
        self.listen();
        Ok(exited)
    }

    fn tell(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        match write(stdin, self.state) {
            Ok(count) => self.state = &self.state[count..],
            Err(Errno::AGAIN | Errno::INTR) => return,
            // EPIPE: it does not care for the state, which is its right.
            Err(_) => self.state = &[],
        }
        if self.state.is_empty() {
            self.stdin = None;
        }
    }

    fn listen(&mut self) {
        let Some(output) = &self.output else { return };
        let mut bytes = [0; TAIL];
        let mut left = LEFT_OVER;
        while left > 0 {
            match read(output, &mut bytes) {
                Ok(count) if count > 0 => {
                    left = left.saturating_sub(count);
                    self.tail.extend_from_slice(&bytes[..count]);
                    self.tail.drain(..self.tail.len().saturating_sub(TAIL));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                _ => {
                    self.output = None;
                    return;
                }
            }
        }
    }

    fn last_words(&self) -> String {
        String::from_utf8_lossy(&self.tail).trim().to_string()
    }
}

/// execve(2) has one errno for a file that is missing and for one whose interpreter is.
fn execute_hint(path: &std::path::Path, errno: Option<i32>) -> Option<&'static str> {
    match errno? {
        libc::ENOENT if path.exists() => {
            Some("the file is there: the interpreter that its first line names, or its loader, is not")
        }
        libc::ENOENT => Some(
            "a createContainer hook is looked for in the container's namespaces, startContainer in its root, all others on the machine",
        ),
        libc::EACCES => Some("a hook is a regular file that may be executed: `chmod +x`"),
        libc::ENOEXEC => Some(
            "it is neither a program of this machine nor a script: a script's first line is #! and its interpreter",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::{Folder, program};
    use oci_spec::runtime::HookBuilder;
    use std::fs;

    fn shell(script: &str) -> Hook {
        hook("/bin/sh", &["sh", "-c", script])
    }

    fn hook(path: &str, args: &[&str]) -> Hook {
        let args: Vec<String> = args.iter().map(|text| text.to_string()).collect();
        HookBuilder::default().path(path).args(args).build().unwrap()
    }

    fn with_timeout(mut hook: Hook, seconds: i64) -> Hook {
        hook.set_timeout(Some(seconds));
        hook
    }

    #[test]
    fn a_hook_gets_its_arguments_its_environment_the_bundle_and_the_state() {
        let folder = Folder::new("hooks");
        let mut asked =
            hook("/bin/sh", &["name", "-c", "{ echo $0 $*; pwd; env; cat; } > said", "zero", "one"]);
        // Kept in order, doubled names too; PWD is the shell's own.
        asked.set_env(Some(vec!["PWD=/x".into(), "B=2".into(), "A=1".into(), "A=3".into()]));
        run(&[asked], "prestart", folder.path(), b"{\"id\":\"web\"}", &Files::default()).unwrap();
        let said = fs::read_to_string(folder.path().join("said")).unwrap();
        let cwd = folder.path().display();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["zero one", &cwd.to_string()]);
        assert!(lines.contains(&"B=2"), "{said}");
        assert_eq!(lines.last(), Some(&"{\"id\":\"web\"}"));
    }

    #[test]
    fn the_environment_is_passed_as_given_and_empty_when_absent() {
        for (env, expected) in
            [(None, ""), (Some(vec!["B=2", "A=1", "A=3", "none"]), "B=2\0A=1\0A=3\0none\0")]
        {
            let folder = Folder::new("hooks");
            // No shell in between, which would change it.
            let mut asked = hook("/usr/bin/tee", &["tee", "told"]);
            asked.set_env(env.map(|list| list.into_iter().map(String::from).collect()));
            let process = start(&asked, folder.path(), &Files::default()).unwrap();
            // tee waits for its stdin, so that it is there to be looked at.
            echo(&process);
            let environ = fs::read(format!("/proc/{}/environ", number(&process))).unwrap();
            assert_eq!(String::from_utf8(environ).unwrap(), expected);
            attend(process, b"state", None).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("told")).unwrap(), "!state");
        }
    }

    #[test]
    fn without_arguments_the_path_is_the_name() {
        let folder = Folder::new("hooks");
        let script = folder.path().join("hook");
        program(&script, "#!/bin/sh\necho $0 > name\n");
        let bare = HookBuilder::default().path(&script).build().unwrap();
        run(&[bare], "poststart", folder.path(), b"", &Files::default()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("name")).unwrap().trim(), script.to_str().unwrap());
    }

    #[test]
    fn failures_name_the_hook_and_repeat_its_last_words() {
        let folder = Folder::new("hooks");
        for (failing, text) in [
            (
                shell("echo bad >&2; exit 3"),
                "/hooks/prestart/1: error running hook /bin/sh: exit status 3: bad",
            ),
            (shell("exit 1"), "/hooks/prestart/1: error running hook /bin/sh: exit status 1"),
            (
                shell("kill -SYS $$"),
                "/hooks/prestart/1: error running hook /bin/sh: killed by signal 31: bad system call",
            ),
            (shell("kill -KILL $$"), "/hooks/prestart/1: error running hook /bin/sh: killed by signal 9"),
            (
                hook("/nowhere", &[]),
                "/hooks/prestart/1: error running hook /nowhere: execve: no such file or directory (a createContainer hook is looked for in the container's namespaces, startContainer in its root, all others on the machine)",
            ),
        ] {
            let after = shell("touch after");
            let hooks = [shell("true"), failing, after];
            let error = run(&hooks, "prestart", folder.path(), b"", &Files::default()).unwrap_err();
            assert_eq!(error.to_string().replace("No such", "no such"), text);
            assert_eq!((error.code(), error.pointer()), (Code::Hook, Some("/hooks/prestart/1")));
            assert!(!folder.path().join("after").exists(), "the first failure is the last hook");
        }
    }

    #[test]
    fn only_the_end_of_a_long_output_is_repeated() {
        let folder = Folder::new("hooks");
        let long = shell("yes word | head -c 1000000; echo; echo the end; exit 2");
        let text = run(&[long], "prestart", folder.path(), b"", &Files::default()).unwrap_err().to_string();
        assert!(text.ends_with("word\nthe end") || text.ends_with("the end"), "{text}");
        assert!(text.len() < TAIL + 100, "{} characters", text.len());
    }

    #[test]
    fn a_failing_poststop_hook_stops_no_other() {
        let folder = Folder::new("hooks");
        let hooks = [shell("exit 1"), shell("touch second; exit 2"), shell("touch third")];
        let warnings = run_all(&hooks, "poststop", folder.path(), b"", &Files::default());
        let pointers: Vec<_> = warnings.iter().map(Error::pointer).collect();
        assert_eq!(pointers, [Some("/hooks/poststop/0"), Some("/hooks/poststop/1")]);
        assert!(folder.path().join("second").exists() && folder.path().join("third").exists());
    }

    #[test]
    fn a_hook_may_leave_a_state_larger_than_a_pipe_unread() {
        let folder = Folder::new("hooks");
        let state = vec![b' '; 1 << 20];
        for script in ["exec <&-; echo deaf", "head -c 10 >/dev/null", "cat >state", "true"] {
            run(&[shell(script)], "poststop", folder.path(), &state, &Files::default()).unwrap();
        }
        assert_eq!(fs::metadata(folder.path().join("state")).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_hook_out_of_time_is_killed_with_its_children() {
        let folder = Folder::new("hooks");
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("held"), rustix::fs::Mode::RWXU).unwrap();
        // The child opens the fifo for writing and would keep it for ever.
        let slow = with_timeout(shell("(exec 9>held; sleep 1000) & wait"), 1);
        let reader = std::thread::spawn({
            let path = folder.path().join("held");
            // Ends when the last writer is gone.
            move || fs::read(path).unwrap()
        });
        let error = run(&[slow], "createRuntime", folder.path(), b"", &Files::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/hooks/createRuntime/0: error running hook /bin/sh: did not end within 1 seconds, killed"
        );
        assert!(reader.join().unwrap().is_empty());
    }

    #[test]
    fn a_daemon_that_a_hook_leaves_behind_is_not_waited_for() {
        let folder = Folder::new("hooks");
        let daemon = shell("sleep 1000 & echo $! > pid");
        run(&[daemon], "createRuntime", folder.path(), b"", &Files::default()).unwrap();
        let pid: i32 = fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_hook_inherits_no_descriptor_no_blocked_and_no_ignored_signal() {
        let folder = Folder::new("hooks");
        // In a thread of its own, whose mask ends with it. SIGPIPE is ignored in every Rust program.
        let process = std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                nix::sys::signal::SigSet::all().thread_block().unwrap();
                start(&hook("/bin/cat", &["cat"]), folder.path(), &Files::default()).unwrap()
            });
            started.join().unwrap()
        });
        echo(&process);
        let proc = format!("/proc/{}", number(&process));
        let fds = fs::read_dir(format!("{proc}/fd")).unwrap().map(|fd| fd.unwrap().file_name());
        let mut fds: Vec<i32> = fds.map(|fd| fd.to_str().unwrap().parse().unwrap()).collect();
        // What was open without close-on-exec when this test program was started is not ours.
        fds.retain(|fd| !handed_down(*fd));
        fds.sort_unstable();
        assert_eq!(fds, [0, 1, 2]);
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let set = |name: &str| {
            let text = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(text.trim(), 16).unwrap()
        };
        // glibc's posix_spawn ignores 32 and 33, which are its own.
        assert_eq!((set("SigBlk:"), set("SigIgn:") & !(0b11 << 31)), (0, 0));
        attend(process, b"", None).unwrap();
    }

    fn handed_down(fd: i32) -> bool {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("02000000").trim();
        fd > 2 && i32::from_str_radix(flags, 8).unwrap() & libc::O_CLOEXEC == 0
    }

    /// Has a cat or tee answer: posix_spawn returns when the old memory is let go, before execve has closed
    /// descriptors and placed the new environment.
    fn echo(process: &HookProcess) {
        write(&process.stdin, b"!").unwrap();
        assert_eq!(read(&process.output, &mut [0; 1]).unwrap(), 1);
    }

    fn number(process: &HookProcess) -> i32 {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&process.pidfd);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn what_hooks_write_is_appended_to_the_files_that_are_named_and_an_error_says_where() {
        let folder = Folder::new("hooks");
        let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
        fs::write(&out, "before\n").unwrap();
        let hooks = [shell("echo one; echo two >&2"), shell("echo three; echo four >&2; exit 5")];
        let both = Files::open([Some(("o", &out)), Some(("e", &err))]).unwrap();
        let error = run(&hooks, "prestart", folder.path(), b"", &both).unwrap_err().to_string();
        assert_eq!(fs::read_to_string(&out).unwrap(), "before\none\nthree\n");
        assert_eq!(fs::read_to_string(&err).unwrap(), "two\nfour\n");
        let told = format!("exit status 5 (what it wrote is in {} and {})", out.display(), err.display());
        assert!(error.ends_with(&told), "{error}");
        // The other one is told, as ever.
        let one = Files::open([Some(("o", &out)), None]).unwrap();
        let error = run(&hooks, "prestart", folder.path(), b"", &one).unwrap_err().to_string();
        assert!(error.contains("exit status 5: four (what it wrote is in "), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_had_is_refused_at_its_annotation() {
        let folder = Folder::new("hooks");
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from(0o600), 0)
            .unwrap();
        let missing = folder.path().join("none/file");
        for (path, words) in [(&missing, "no such file or directory"), (&fifo, "no such device or address")] {
            let error = Files::open([None, Some(("run.oci.hooks.stderr", path))]).unwrap_err();
            assert_eq!(error.pointer(), Some("/annotations/run.oci.hooks.stderr"));
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_nul_in_an_argument_is_refused() {
        let hooks = [hook("/bin/true", &["a\0b"])];
        let error = run(&hooks, "prestart", Path::new("/"), b"", &Files::default()).unwrap_err();
        assert!(error.to_string().contains("NUL"), "{error}");
    }
}
