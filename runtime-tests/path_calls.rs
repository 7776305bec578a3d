//! A race without luck: a command and all that it makes are stopped by ptrace(2) before each system call that names a path,
//! so that an attacker's rename comes between any two of them. Uses nix and trace.

use crate::trace::{let_go, seized, tracees};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

/// System calls that name paths, and which arguments these are.
const CALLS: [(libc::c_long, &[usize]); 38] = [
    (libc::SYS_access, &[0]),
    (libc::SYS_chdir, &[0]),
    (libc::SYS_chmod, &[0]),
    (libc::SYS_chroot, &[0]),
    (libc::SYS_execve, &[0]),
    (libc::SYS_execveat, &[1]),
    (libc::SYS_faccessat, &[1]),
    (libc::SYS_faccessat2, &[1]),
    (libc::SYS_fchmodat, &[1]),
    (libc::SYS_fchownat, &[1]),
    (libc::SYS_lchown, &[0]),
    (libc::SYS_linkat, &[1, 3]),
    (libc::SYS_lstat, &[0]),
    (libc::SYS_mkdir, &[0]),
    (libc::SYS_mkdirat, &[1]),
    (libc::SYS_mknod, &[0]),
    (libc::SYS_mknodat, &[1]),
    (libc::SYS_mount, &[0, 1]),
    (libc::SYS_mount_setattr, &[1]),
    (libc::SYS_move_mount, &[1, 3]),
    (libc::SYS_newfstatat, &[1]),
    (libc::SYS_open, &[0]),
    (libc::SYS_open_tree, &[1]),
    (libc::SYS_openat, &[1]),
    (libc::SYS_openat2, &[1]),
    (libc::SYS_pivot_root, &[0, 1]),
    (libc::SYS_readlink, &[0]),
    (libc::SYS_readlinkat, &[1]),
    (libc::SYS_renameat2, &[1, 3]),
    (libc::SYS_rmdir, &[0]),
    (libc::SYS_stat, &[0]),
    (libc::SYS_statfs, &[0]),
    (libc::SYS_statx, &[1]),
    (libc::SYS_symlink, &[0, 1]),
    (libc::SYS_symlinkat, &[0, 2]),
    (libc::SYS_umount2, &[0]),
    (libc::SYS_unlink, &[0]),
    (libc::SYS_unlinkat, &[1]),
];

/// Which of these calls count.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// All of what the command makes, and none of its own: what works below the root is a child that names one component of
    /// an fd, or nothing.
    OfChildren,
    /// Those that name a path with this in it: a runtime with thousands of calls is looked at where it matters.
    Naming(&'a str),
}

/// How a command ended that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit status, or 128 and the signal.
    pub status: i32,
    /// Before how many calls it was stopped.
    pub calls: u32,
}

/// Runs `command` to its end and calls `act` with the number of each counted call, from 0 on, before the call is made.
/// Its output goes nowhere. What lives on after it goes on by itself. The calling thread must have no other child.
pub fn stopped_before_each(command: &Command, which: Which, mut act: impl FnMut(u32)) -> Ended {
    let main = seized(command);
    let (mut calls, mut begun) = (0, false);
    let status = loop {
        let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == main => break status,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => break 128 + signal as i32,
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                if begun && counts(pid, which) {
                    act(calls);
                    calls += 1;
                }
                (pid, None)
            }
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                // The shell's own may come as well: it was seized in the moment of its birth.
                begun |= pid == main && event == libc::PTRACE_EVENT_EXEC && runs(main, command);
                (pid, None)
            }
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(errno) => panic!("waitpid: {errno}"),
        };
        let gone_on = match which {
            Which::OfChildren if begun && pid == main => ptrace::cont(pid, signal),
            _ => ptrace::syscall(pid, signal),
        };
        assert!(matches!(gone_on, Ok(()) | Err(Errno::ESRCH)), "ptrace of {pid}: {gone_on:?}");
    };
    tracees().into_iter().for_each(let_go);
    Ended { status, calls }
}

/// The process has executed what the command names.
fn runs(pid: Pid, command: &Command) -> bool {
    let own = std::fs::read_link(format!("/proc/{pid}/exe"));
    own.is_ok_and(|own| std::fs::canonicalize(command.get_program()).is_ok_and(|program| own == program))
}

/// The process stands before such a call: after one it has what the call gave, which is never ENOSYS for these.
fn counts(pid: Pid, which: Which) -> bool {
    let Ok(registers) = ptrace::getregs(pid) else { return false };
    if registers.rax as i64 != -i64::from(libc::ENOSYS) {
        return false;
    }
    let Some((_, paths)) = CALLS.iter().find(|(call, _)| *call as u64 == registers.orig_rax) else {
        return false;
    };
    let Which::Naming(part) = which else { return true };
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
    paths.iter().any(|path| text(pid, arguments[*path]).contains(part))
}

/// The text at an address of a process, as far as it can be read.
fn text(pid: Pid, address: u64) -> String {
    let mut bytes = [0; 512];
    let read = File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_at(&mut bytes, address));
    let bytes = &bytes[..read.unwrap_or_default()];
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
