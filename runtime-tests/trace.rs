//! Kills a command, or the process that it makes, at one chosen system call, by ptrace(2): what is killed needs no hook
//! for it. Uses nix, whose ptrace calls are safe functions: a tracee is named by its pid and no memory is touched.
//!
//! ```text
//!   sh -c 'read word; exec COMMAND'   <- seized while it reads, so that COMMAND is traced from its first instruction
//!      |  PTRACE_EVENT_EXEC: counting begins
//!      |  PTRACE_SYSCALL: each process stops before and after each of its system calls
//!      +-- clone3 --> child, seized by the kernel (PTRACE_O_TRACECLONE, PTRACE_O_TRACEVFORK)
//! ```

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Who is killed, and whose stops are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The command, at any system call of its own or of its child.
    Command,
    /// Its first child, at its own system calls, from its birth to its execve of something that is not init.
    Init,
}

/// A command that was traced until it had ended.
#[derive(Debug)]
pub struct Traced {
    /// How it ended: exit status, or 128 and the signal.
    pub status: i32,
    /// How many stops were counted.
    pub stops: u32,
    /// The system call of the stop at which somebody was killed.
    pub killed_at: Option<i64>,
    /// How many processes besides the command lived then.
    pub besides: usize,
    /// Children that are alive and still traced.
    left: Vec<Pid>,
}

/// Traces `command` to its end and kills `victim` at stop `at`, if it comes so far. The calling thread must have no other
/// child that is traced.
pub fn trace(command: &Command, victim: Victim, at: u32) -> Traced {
    trace_since(command, victim, None, at)
}

/// The same, counting only from the moment on that the file `since` exists: how many calls come before may vary.
pub fn trace_since(command: &Command, victim: Victim, since: Option<&Path>, at: u32) -> Traced {
    let main = seized(command);
    let mut run = Run {
        main,
        victim,
        since,
        at,
        begun: false,
        stops: 0,
        killed_at: None,
        besides: 0,
        living: BTreeMap::new(),
    };
    run.living.insert(main, 0);
    let status = run.follow();
    Traced { status, stops: run.stops, killed_at: run.killed_at, besides: run.besides, left: tracees() }
}

/// All that the calling thread traces. Not by what it was told: of a child that the command made in the moment in which it
/// was killed no event tells, and as long as nobody lets it go on it holds what the command had locked.
pub(crate) fn tracees() -> Vec<Pid> {
    let tracer = format!("TracerPid:\t{}", nix::unistd::gettid());
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let traced = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|status| status.lines().any(|line| line == tracer))
    };
    pids.filter(traced).map(Pid::from_raw).collect()
}

/// Traces `command` to its end; `act` is called once with its pid, while it stands before its system call `call`, with
/// `argument` as the first argument if that is given. The exit status, and whether it came so far.
pub fn act_at(command: &Command, call: i64, argument: Option<u64>, act: impl FnOnce(i32)) -> (i32, bool) {
    let child = spawn_reading(command);
    let main = child.pid();
    ptrace::seize(main, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC).expect("ptrace seize");
    child.go();
    let mut act = Some(act);
    loop {
        let signal = match waitpid(main, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(_, status)) => return (status, act.is_none()),
            Ok(WaitStatus::Signaled(_, signal, _)) => return (128 + signal as i32, act.is_none()),
            Ok(WaitStatus::PtraceSyscall(_)) => {
                let there = |r: &nix::libc::user_regs_struct| {
                    r.orig_rax as i64 == call && argument.is_none_or(|argument| r.rdi == argument)
                };
                if ptrace::getregs(main).is_ok_and(|r| there(&r))
                    && let Some(act) = act.take()
                {
                    act(main.as_raw());
                }
                None
            }
            Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
            Ok(_) | Err(Errno::EINTR) => None,
            Err(errno) => panic!("waitpid: {errno}"),
        };
        let gone_on = ptrace::syscall(main, signal);
        assert!(matches!(gone_on, Ok(()) | Err(Errno::ESRCH)), "ptrace of {main}: {gone_on:?}");
    }
}

/// A shell that waits for a line before it becomes the command.
struct Reading(Child);

/// The command, traced with all that it makes from its first instruction on.
pub(crate) fn seized(command: &Command) -> Pid {
    let child = spawn_reading(command);
    let main = child.pid();
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).expect("ptrace seize");
    child.go();
    main
}

fn spawn_reading(command: &Command) -> Reading {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read word; exec \"$@\" </dev/null >/dev/null 2>&1", "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).stdin(Stdio::piped());
    Reading(shell.spawn().expect("a shell to trace"))
}

impl Reading {
    /// The process that becomes the command.
    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// Lets it.
    fn go(mut self) {
        self.0.stdin.take().expect("a pipe").write_all(b"\n").expect("a word to the shell");
    }
}

struct Run<'a> {
    main: Pid,
    victim: Victim,
    since: Option<&'a Path>,
    at: u32,
    begun: bool,
    stops: u32,
    killed_at: Option<i64>,
    besides: usize,
    /// Traced processes, with how often each has executed something.
    living: BTreeMap<Pid, u32>,
}

impl Run<'_> {
    /// Until the command has ended.
    fn follow(&mut self) -> i32 {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(WaitStatus::Exited(pid, status)) => {
                    self.living.remove(&pid);
                    if pid == self.main {
                        return status;
                    }
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.living.remove(&pid);
                    if pid == self.main {
                        return 128 + signal as i32;
                    }
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    self.count(pid);
                    self.go_on(pid, None);
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    self.event(pid, event);
                    self.go_on(pid, None);
                }
                Ok(WaitStatus::Stopped(pid, signal)) => self.go_on(pid, Some(signal)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => panic!("waitpid: {errno}"),
            }
        }
    }

    fn event(&mut self, pid: Pid, event: i32) {
        self.living.entry(pid).or_default();
        if event == Event::PTRACE_EVENT_EXEC as i32 {
            *self.living.entry(pid).or_default() += 1;
            self.begun |= pid == self.main;
        } else if [Event::PTRACE_EVENT_CLONE, Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK]
            .iter()
            .any(|e| *e as i32 == event)
            && let Ok(child) = ptrace::getevent(pid)
        {
            self.living.entry(Pid::from_raw(child as i32)).or_default();
        }
    }

    fn count(&mut self, pid: Pid) {
        let counts = match self.victim {
            Victim::Command => self.begun,
            // After its second execve it is the payload.
            Victim::Init => self.begun && pid != self.main && self.living.get(&pid).is_none_or(|e| *e < 2),
        };
        if !counts || self.killed_at.is_some() || self.since.is_some_and(|file| !file.exists()) {
            return;
        }
        self.since = None;
        if self.stops == self.at {
            let victim = if self.victim == Victim::Command { self.main } else { pid };
            self.besides = self.living.keys().filter(|one| **one != self.main).count();
            // The number is kept while the call is done, and after it.
            self.killed_at = Some(ptrace::getregs(pid).map_or(-1, |r| r.orig_rax as i64));
            kill(victim, Signal::SIGKILL).expect("kill");
        }
        self.stops += 1;
    }

    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        // Once somebody is dead the others run on unhindered. ESRCH: it was killed while it was stopped.
        let gone_on = match self.killed_at {
            None => ptrace::syscall(pid, signal),
            Some(_) => ptrace::cont(pid, signal),
        };
        assert!(matches!(gone_on, Ok(()) | Err(Errno::ESRCH)), "ptrace of {pid}: {gone_on:?}");
    }
}

impl Traced {
    /// Waits until all that is still traced has ended by itself; false if it had to be killed after ten seconds.
    pub fn all_end(&mut self) -> bool {
        let mut left = std::mem::take(&mut self.left);
        let victims = left.clone();
        let (done, is_done) = channel();
        let watch = std::thread::spawn(move || match is_done.recv_timeout(Duration::from_secs(10)) {
            Ok(()) => true,
            // Nobody else waits for them, so their numbers are still their own.
            Err(_) => {
                for pid in victims {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                false
            }
        });
        // Whichever ends first: the first process of a pid namespace ends only when somebody has waited for the others in
        // it, and for a tracee that is us. __WNOTHREAD: other threads have tracees of their own.
        while !left.is_empty() {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => left.retain(|l| *l != pid),
                Ok(WaitStatus::Stopped(pid, signal)) => drop(ptrace::cont(pid, signal)),
                Ok(status) => drop(status.pid().map(|pid| ptrace::cont(pid, None))),
                Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("waitpid: {errno}"),
            }
        }
        let _ = done.send(());
        watch.join().expect("the watch")
    }

    /// Lets go of all that is still traced, which goes on by itself.
    pub fn let_go(&mut self) {
        std::mem::take(&mut self.left).into_iter().for_each(let_go);
    }
}

/// Lets go of a tracee, which goes on by itself.
pub(crate) fn let_go(pid: Pid) {
    // A tracee has to be stopped to be let go of. ESRCH: it has ended, or is stopped already.
    let _ = ptrace::interrupt(pid);
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => break,
            Ok(_) => match ptrace::detach(pid, None) {
                Ok(()) => break,
                Err(Errno::ESRCH) => {}
                Err(errno) => panic!("ptrace detach of {pid}: {errno}"),
            },
            Err(Errno::EINTR) => {}
            Err(errno) => panic!("waitpid {pid}: {errno}"),
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.let_go();
    }
}
