//! The birth of init: clone3 with a shared address space, and the trampoline that runs in the child until its exec.
//!
//! CLONE_VM and CLONE_VFORK: the child borrows this thread's memory and this thread sleeps until the child has
//! executed rcrun-init or exited. So the trampoline may only make system calls and write to `Birth`'s cells: no
//! allocation, no lock, no panic. A process with many threads (the shim) may do this too.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What the child needs; every fd is one of this process's.
pub struct Birth<'a> {
    /// CLONE_NEW* bits of the namespaces to make.
    pub namespaces: u64,
    /// The cgroup to be born in (CLONE_INTO_CGROUP, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Namespaces (with their CLONE_NEW* flags) that a first child joins before it makes the newborn as its sibling
    /// (CLONE_PARENT): a user namespace owns only what is made after it has been joined.
    pub first_joins: &'a [(RawFd, i32)],
    /// Keep the newborn from reading init's file also where its capabilities are raised: others are in its pid namespace.
    pub unreadable: bool,
    /// Raise the inheritable and ambient sets: exec with an unmapped uid drops all capabilities (capabilities(7)).
    pub raise_capabilities: bool,
    /// `monotonic 1 0` lines for /proc/self/timens_offsets below this procfs: written before the exec, after which they
    /// are frozen (time_namespaces(7)).
    pub time_offsets: Option<(BorrowedFd<'a>, &'a [u8])>,
    /// Becomes stdin, stdout and stderr; else they are this process's.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// fds that init inherits; all others are closed by the exec.
    pub keep: &'a [RawFd],
    /// fds below this one are the payload's and stay as they are.
    pub first_own_fd: u32,
    /// rcrun-init: a memfd, or a file.
    pub init: BorrowedFd<'a>,
    /// `argv[1]` of init.
    pub argument: &'a CStr,
}

/// The newborn.
#[derive(Debug)]
pub struct Newborn {
    /// Its pid, in this process's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

impl Newborn {
    /// A child of this process that was not born here (CLONE_PARENT) and has not been waited for.
    pub fn child(pid: i32) -> io::Result<Self> {
        open_pidfd(pid).map(|pidfd| Newborn { pid, pidfd })
    }
}

/// A failure before init ran: which call.
#[derive(Debug)]
pub struct Stillbirth {
    /// Name of the system call.
    pub call: &'static str,
    /// Its error.
    pub error: io::Error,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PARENT_SETTID: u64 = libc::CLONE_PARENT_SETTID as u64;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const STACK: usize = 32 * 1024;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const DAC_BITS: u32 = 1 << 1 | 1 << 2; // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

unsafe extern "C" {
    // clone3(2) whose child calls `run(data)` on its own stack and exits with what it returns.
    fn rcrun_clone3(
        args: *const CloneArgs,
        size: usize,
        run: extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
    ) -> isize;
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".text",
    ".balign 16",
    ".globl rcrun_clone3",
    "rcrun_clone3:",
    "mov r8, rdx",
    "mov r9, rcx",
    "mov eax, 435",
    "syscall",
    "test rax, rax",
    "jnz 1f",
    "xor ebp, ebp",
    "mov rdi, r9",
    "call r8",
    "mov edi, eax",
    "mov eax, 60",
    "syscall",
    "1: ret",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".text",
    ".balign 16",
    ".globl rcrun_clone3",
    "rcrun_clone3:",
    "mov x8, #435",
    "svc #0",
    "cbnz x0, 1f",
    "mov x29, xzr",
    "mov x0, x3",
    "blr x2",
    "mov x8, #93",
    "svc #0",
    "1: ret",
);

/// What parent and children share; the pointers stay valid while the parent sleeps in clone3.
struct Shared<'a, 'b> {
    birth: &'a Birth<'b>,
    argv: [*const c_char; 3],
    envp: [*const c_char; 1],
    second: CloneArgs,
    /// The first child moves to the cgroup: the newborn is not cloned into it.
    moves: bool,
    /// The newborn has run an instruction.
    began: bool,
    failed_call: *const c_char,
    errno: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

macro_rules! attempt {
    ($shared:expr, $name:literal, $call:expr) => {{
        let result = $call as i64;
        if result < 0 {
            // errno is this thread's cell, which the sleeping parent does not touch.
            $shared.errno = io::Error::last_os_error().raw_os_error().unwrap_or_default();
            $shared.failed_call = $name.as_ptr();
            return 1;
        }
        result
    }};
}

extern "C" fn first_child(data: *mut c_void) -> c_int {
    // SAFETY: data is the Shared of the parent's frame, which sleeps until this child has exited.
    let shared = unsafe { &mut *data.cast::<Shared<'_, '_>>() };
    if let Some(cgroup) = shared.birth.cgroup.filter(|_| shared.moves) {
        // SAFETY: openat, write, close with a NUL-terminated path and a live buffer.
        unsafe {
            let flags = libc::O_WRONLY | libc::O_CLOEXEC;
            let fd = attempt!(
                shared,
                c"openat cgroup.procs",
                libc::openat(cgroup.as_raw_fd(), c"cgroup.procs".as_ptr(), flags)
            ) as c_int;
            attempt!(shared, c"write cgroup.procs", libc::write(fd, c"0".as_ptr().cast(), 1));
            libc::close(fd);
        }
    }
    for (fd, kind) in shared.birth.first_joins {
        // SAFETY: setns takes two integers.
        attempt!(shared, c"setns", unsafe { libc::setns(*fd, *kind) });
    }
    // SAFETY: `second` points to a stack of its own and to cells in the parent's frame; this child sleeps meanwhile.
    let pid = unsafe {
        rcrun_clone3(&shared.second, size_of::<CloneArgs>(), second_child, std::ptr::from_mut(shared).cast())
    };
    if pid < 0 {
        shared.errno = -pid as c_int;
        shared.failed_call = c"clone3".as_ptr();
        return 1;
    }
    0
}

extern "C" fn second_child(data: *mut c_void) -> c_int {
    // SAFETY: data is the Shared of the parent's frame, which sleeps until this child has executed init or exited.
    let shared = unsafe { &mut *data.cast::<Shared<'_, '_>>() };
    shared.began = true;
    let birth = shared.birth;
    if let Some((proc, lines)) = birth.time_offsets {
        // SAFETY: open, write, close with NUL-terminated path and a live buffer.
        unsafe {
            let fd = attempt!(
                shared,
                c"openat timens_offsets",
                libc::openat(
                    proc.as_raw_fd(),
                    c"self/timens_offsets".as_ptr(),
                    libc::O_WRONLY | libc::O_CLOEXEC
                )
            ) as c_int;
            attempt!(shared, c"write timens_offsets", libc::write(fd, lines.as_ptr().cast(), lines.len()));
            libc::close(fd);
        }
    }
    if let Some(stdio) = birth.stdio {
        for (target, fd) in (0..).zip(stdio) {
            // SAFETY: dup2 in this child's own fd table (no CLONE_FILES); the sources are above 2, as Birth::stdio are
            // fds that the parent opened while 0 to 2 were open.
            attempt!(shared, c"dup2", unsafe { libc::dup2(fd.as_raw_fd(), target) });
        }
    }
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut caps = [CapData::default(); 2];
    // SAFETY: capget fills two structs, the size of version 3.
    attempt!(shared, c"capget", unsafe { libc::syscall(libc::SYS_capget, &mut header, caps.as_mut_ptr()) });
    if birth.raise_capabilities {
        for word in &mut caps {
            word.inheritable = word.permitted;
        }
    }
    let permitted = u64::from(caps[0].permitted) | u64::from(caps[1].permitted) << 32;
    // Without these two the mode 0111 of init's file keeps root from reading it, and the kernel makes a process whose
    // file it may not read undumpable from its first instruction (would_dump, fs/exec.c): in a pid namespace that is
    // joined nobody can ptrace it but who has CAP_SYS_PTRACE in the user namespace of the runtime. exec gives root its
    // capabilities back.
    if !birth.raise_capabilities || birth.unreadable {
        caps[0].effective &= !DAC_BITS;
    }
    // SAFETY: capset reads two structs.
    attempt!(shared, c"capset", unsafe { libc::syscall(libc::SYS_capset, &header, caps.as_ptr()) });
    if birth.raise_capabilities {
        for cap in 0..64 {
            if permitted & 1 << cap != 0 {
                // SAFETY: prctl with integers.
                attempt!(shared, c"prctl PR_CAP_AMBIENT_RAISE", unsafe {
                    libc::prctl(
                        libc::PR_CAP_AMBIENT,
                        libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
                        cap as libc::c_ulong,
                        0,
                        0,
                    )
                });
            }
        }
    }
    // All that the machine leaked to us is closed by the exec, but for what init needs (CVE-2024-21626).
    // SAFETY: close_range and fcntl on this child's own fd table (no CLONE_FILES).
    unsafe {
        attempt!(
            shared,
            c"close_range",
            libc::syscall(libc::SYS_close_range, birth.first_own_fd, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
        );
        // What is passed on was closed to hooks: see listen_fds::seal_inherited.
        for fd in 3..birth.first_own_fd as RawFd {
            attempt!(shared, c"fcntl F_SETFD", libc::fcntl(fd, libc::F_SETFD, 0));
        }
        for fd in birth.keep {
            attempt!(shared, c"fcntl F_SETFD", libc::fcntl(*fd, libc::F_SETFD, 0));
        }
        attempt!(
            shared,
            c"execveat",
            libc::syscall(
                libc::SYS_execveat,
                birth.init.as_raw_fd(),
                c"".as_ptr(),
                shared.argv.as_ptr(),
                shared.envp.as_ptr(),
                libc::AT_EMPTY_PATH
            )
        );
    }
    1
}

/// Makes the child. Returns when rcrun-init runs, or with the call that failed, in which case nothing is left.
pub fn bear(birth: &Birth<'_>) -> Result<Newborn, Stillbirth> {
    match try_to_bear(birth, false)? {
        Some(newborn) => Ok(newborn),
        None => try_to_bear(birth, true)?
            .ok_or_else(|| Stillbirth { call: "clone3", error: io::Error::from_raw_os_error(libc::ECHILD) }),
    }
}

/// None when the child was killed before its first instruction. Linux (6.18, and 6.1.y and 6.12.y of 2025) does that to a
/// child cloned into a cgroup from one in which everything was killed once (cgroup.kill): it compares how often that
/// happened to the one and to the other. With `moves` a child is moved into the cgroup and makes the newborn there.
fn try_to_bear(birth: &Birth<'_>, moves: bool) -> Result<Option<Newborn>, Stillbirth> {
    // Room only, not zeroes: sixteen pages that nobody else would touch.
    let stacks: Vec<u128> = Vec::with_capacity(2 * STACK / size_of::<u128>());
    let bottom = stacks.as_ptr() as u64;
    let mut second_pid: libc::pid_t = 0;
    let mut pidfd: RawFd = -1;
    let staged = moves || !birth.first_joins.is_empty();
    let shares = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;

    let mut args = CloneArgs {
        flags: birth.namespaces | shares,
        exit_signal: libc::SIGCHLD as u64,
        stack: bottom,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = birth.cgroup.filter(|_| !moves) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let mut shared = Shared {
        birth,
        argv: [c"rcrun-init".as_ptr(), birth.argument.as_ptr(), std::ptr::null()],
        envp: [std::ptr::null()],
        second: CloneArgs::default(),
        moves,
        began: false,
        failed_call: std::ptr::null(),
        errno: 0,
    };
    let run: extern "C" fn(*mut c_void) -> c_int = if staged {
        shared.second = CloneArgs {
            flags: args.flags | libc::CLONE_PARENT as u64 | CLONE_PARENT_SETTID,
            // With CLONE_PARENT the exit signal is the first child's own (clone(2)).
            exit_signal: 0,
            parent_tid: std::ptr::from_mut(&mut second_pid) as u64,
            stack: bottom + STACK as u64,
            ..args
        };
        args.flags = shares;
        args.cgroup = 0;
        first_child
    } else {
        args.flags |= libc::CLONE_PIDFD as u64;
        args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
        second_child
    };

    let mask = BlockedSignals::all();
    // SAFETY: the child runs `run` on its own stack inside `stacks`; everything that it touches lives in this frame, which
    // sleeps (CLONE_VFORK) until the child no longer uses this memory; signal handlers cannot run in it.
    let child =
        unsafe { rcrun_clone3(&args, size_of::<CloneArgs>(), run, std::ptr::from_mut(&mut shared).cast()) };
    drop(mask);
    drop(stacks);
    if child < 0 {
        return Err(Stillbirth { call: "clone3", error: io::Error::from_raw_os_error(-child as i32) });
    }
    let child = child as libc::pid_t;
    // SAFETY: the kernel stored an fd of ours in `pidfd` when CLONE_PIDFD was given and clone3 succeeded.
    let owned = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    if !shared.failed_call.is_null() {
        // SAFETY: failed_call was set from a C string literal.
        let call = unsafe { CStr::from_ptr(shared.failed_call) };
        reap(child);
        if second_pid > 0 {
            reap(second_pid);
        }
        return Err(Stillbirth {
            call: call.to_str().unwrap_or("a system call of the trampoline"),
            error: io::Error::from_raw_os_error(shared.errno),
        });
    }
    if !shared.began && !moves && birth.cgroup.is_some() {
        reap(child);
        if second_pid > 0 {
            reap(second_pid);
        }
        return Ok(None);
    }
    if staged {
        reap(child);
        let pidfd = open_pidfd(second_pid).map_err(|error| Stillbirth { call: "pidfd_open", error })?;
        return Ok(Some(Newborn { pid: second_pid, pidfd }));
    }
    match owned {
        Some(pidfd) => Ok(Some(Newborn { pid: child, pidfd })),
        None => Err(Stillbirth {
            call: "clone3 without pidfd",
            error: io::Error::from_raw_os_error(libc::EINVAL),
        }),
    }
}

fn open_pidfd(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes integers; pid is an unreaped child of ours, so it cannot be another's.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh fd.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn reap(pid: libc::pid_t) {
    // SAFETY: waits for a child of ours; EINTR is tried again.
    unsafe {
        while libc::waitpid(pid, std::ptr::null_mut(), 0) < 0 && *libc::__errno_location() == libc::EINTR {}
    }
}

/// All signals blocked while alive: a handler that ran in the child would run in the parent's memory.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn all() -> Self {
        // SAFETY: the sets are plain memory that sigfillset and pthread_sigmask fill.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
            BlockedSignals(old)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: restores the set that `all` saved.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut());
        }
    }
}
