//! posix_spawn(3) in one safe function: a program started with clean signals, the descriptors it is given, and
//! arguments and environment exactly as given (std's Command sorts the environment, drops its duplicates
//! and leaves the signal mask as it is).
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What to start.
pub struct Program<'a> {
    /// The file to execute; PATH is not searched.
    pub path: &'a CStr,
    /// argv, whole.
    pub args: &'a [CString],
    /// environ, whole.
    pub env: &'a [CString],
    /// The working directory.
    pub cwd: &'a CStr,
    /// What becomes descriptors 0, 1 and 2. Every other one must be close-on-exec.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What becomes descriptors 3 and up.
    pub passed: &'a [BorrowedFd<'a>],
    /// Make it the leader of a process group of its own.
    pub own_group: bool,
}

/// A child of this process that nobody has waited for yet.
#[derive(Debug)]
pub struct Child {
    /// Its number, which stays its own until it is waited for.
    pub pid: Pid,
    /// Readable when it has exited.
    pub pidfd: OwnedFd,
}

/// The attributes and file actions of one spawn, freed on every way out.
struct Request {
    attributes: libc::posix_spawnattr_t,
    actions: libc::posix_spawn_file_actions_t,
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: a Request is only made by `Request::new`, which initialises both.
        unsafe {
            libc::posix_spawnattr_destroy(&mut self.attributes);
            libc::posix_spawn_file_actions_destroy(&mut self.actions);
        }
    }
}

impl Request {
    fn new() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        let mut actions = MaybeUninit::uninit();
        // SAFETY: each call initialises the object it is given; the second one's failure frees the first.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            if let Err(error) = check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr())) {
                libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
                return Err(error);
            }
            Ok(Request { attributes: attributes.assume_init(), actions: actions.assume_init() })
        }
    }

    /// `passed` are those of the program, by numbers above their places.
    fn set(&mut self, program: &Program<'_>, passed: &[OwnedFd]) -> io::Result<()> {
        let mut flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let mut mask = MaybeUninit::uninit();
        let mut defaults = MaybeUninit::uninit();
        // SAFETY: attributes and actions are initialised (Request::new), the sets by sigemptyset and
        // sigfillset before they are read, and `program.cwd` outlives the calls, which copy it.
        unsafe {
            libc::sigemptyset(mask.as_mut_ptr());
            libc::sigfillset(defaults.as_mut_ptr());
            // Their dispositions cannot be set, and musl's posix_spawn would report that.
            libc::sigdelset(defaults.as_mut_ptr(), libc::SIGKILL);
            libc::sigdelset(defaults.as_mut_ptr(), libc::SIGSTOP);
            check(libc::posix_spawnattr_setsigmask(&mut self.attributes, mask.as_ptr()))?;
            check(libc::posix_spawnattr_setsigdefault(&mut self.attributes, defaults.as_ptr()))?;
            if program.own_group {
                flags |= libc::POSIX_SPAWN_SETPGROUP;
                check(libc::posix_spawnattr_setpgroup(&mut self.attributes, 0))?;
            }
            check(libc::posix_spawnattr_setflags(&mut self.attributes, flags as libc::c_short))?;
            for (number, fd) in (0..).zip(program.stdio) {
                check(libc::posix_spawn_file_actions_adddup2(&mut self.actions, fd.as_raw_fd(), number))?;
            }
            for (number, fd) in (3..).zip(passed) {
                check(libc::posix_spawn_file_actions_adddup2(&mut self.actions, fd.as_raw_fd(), number))?;
            }
            check(libc::posix_spawn_file_actions_addchdir_np(&mut self.actions, program.cwd.as_ptr()))
        }
    }
}

/// Starts `program`; the error is that of the execve, or of the chdir before it.
pub fn spawn(program: &Program<'_>) -> io::Result<Child> {
    let mut request = Request::new()?;
    // One that lies where another is to be placed would be lost: all are moved above their places first.
    let above = 3 + program.passed.len() as RawFd;
    let passed: Vec<OwnedFd> = program
        .passed
        .iter()
        .map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, above)?))
        .collect::<io::Result<_>>()?;
    request.set(program, &passed)?;
    let args = pointers(program.args);
    let env = pointers(program.env);
    let mut pid = 0;
    // SAFETY: `request` is initialised; `args` and `env` end with a null pointer and point into CStrings
    // that `program` borrows; posix_spawn writes to none of them.
    check(unsafe {
        libc::posix_spawn(
            &mut pid,
            program.path.as_ptr(),
            &request.actions,
            &request.attributes,
            args.as_ptr(),
            env.as_ptr(),
        )
    })?;
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no pid"))?;
    // Not waited for yet, so that the number cannot have passed to another process.
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Child { pid, pidfd })
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// The posix_spawn family returns its errno.
fn check(errno: libc::c_int) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}
