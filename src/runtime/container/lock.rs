//! The lock on a container's folder: held by who makes, changes or removes the container. Uses: process.

use super::process::END;
use crate::error::CallContext;
use crate::{Code, Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Opens and locks a folder; None when it is gone or, not waiting, somebody else has the lock.
pub(super) fn lock(folder: &Path, how: FlockOperation) -> Result<Option<OwnedFd>> {
    lock_file(folder, OFlags::DIRECTORY, how)
}

/// The same of what is no folder.
pub(super) fn lock_file(path: &Path, kind: OFlags, how: FlockOperation) -> Result<Option<OwnedFd>> {
    let Some(fd) = open(path, kind)? else { return Ok(None) };
    match flock(&fd, how) {
        Ok(()) => Ok(Some(fd)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(Error::call(format!("flock {}", path.display()), e)),
    }
}

/// Opens and locks a folder for oneself; None when it is gone. Who has the lock may be stopped, or wait for a hook that hangs:
/// it is waited for as long as an end may take, and then named.
pub(super) fn lock_in_time(folder: &Path) -> Result<Option<OwnedFd>> {
    match open(folder, OFlags::DIRECTORY)? {
        Some(fd) => lock_opened(fd, folder).map(Some),
        None => Ok(None),
    }
}

/// Opens a file that is there for its lock alone; it is made if it is missing.
pub(super) fn lock_of_its_own(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).call(format!("open {}", path.display()))
}

/// Locks what was opened, as `lock_in_time`.
pub(super) fn lock_opened(fd: OwnedFd, folder: &Path) -> Result<OwnedFd> {
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(fd),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(e) => return Err(Error::call(format!("flock {}", folder.display()), e)),
    }
    let what = rustix::fs::fstat(&fd).call(format!("stat {}", folder.display()))?;
    // flock(2) knows no time limit. Who comes too late gives the lock back by closing it.
    let (tell, told) = mpsc::channel();
    let wait = move || drop(tell.send(flock(&fd, FlockOperation::LockExclusive).map(|()| fd)));
    let thread = std::thread::Builder::new().name("lock".into());
    thread.spawn(wait).call(format!("flock {}: a thread to wait", folder.display()))?;
    match told.recv_timeout(END) {
        Ok(locked) => locked.call(format!("flock {}", folder.display())),
        Err(_) => Err(held(&what, END)),
    }
}

fn open(path: &Path, kind: OFlags) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::call(format!("open {}", path.display()), e)),
    }
}

fn flock(fd: &OwnedFd, how: FlockOperation) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(fd, how))
}

/// Who holds the lock on that file, as /proc/locks tells it, and what to do about it.
fn held(what: &rustix::fs::Stat, patience: Duration) -> Error {
    let seconds = patience.as_secs();
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let (major, minor) = (rustix::fs::major(what.st_dev), rustix::fs::minor(what.st_dev));
    let known = holder(&locks, &format!("{major:02x}:{minor:02x}:{}", what.st_ino))
        .and_then(|pid| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)));
    let text = match known.as_ref().and_then(|(pid, stat)| Some((pid, name_and_state(stat)?))) {
        Some((pid, (name, 'T' | 't'))) => format!(
            "process {pid} ({name}), which makes, changes or removes it, is stopped: `kill -CONT {pid}` lets it go on, `kill -KILL {pid}` ends it; then try again"
        ),
        Some((pid, (name, _))) => format!(
            "process {pid} ({name}) makes, changes or removes it, and has not come to an end in {seconds} s: wait for it, or end it with `kill -KILL {pid}`, and try again"
        ),
        None => format!(
            "a process that cannot be seen from here makes, changes or removes it, and has not come to an end in {seconds} s"
        ),
    };
    Error::new(Code::System, text)
}

/// The process that has a lock of flock(2) on `file` (device and inode as /proc/locks writes them).
fn holder(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4711 00:1b:9 0 EOF`; who waits has an arrow after the number.
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [_, "FLOCK", _, "WRITE", pid, of, ..] if *of == file => pid.parse().ok().filter(|pid| *pid > 0),
            _ => None,
        }
    })
}

/// Of /proc/PID/stat. The name may hold anything.
fn name_and_state(stat: &str) -> Option<(String, char)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    Some((name.escape_default().to_string(), after.trim_start().chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_told_from_who_waits_and_from_locks_of_other_files() {
        let locks = "\
1: FLOCK  ADVISORY  WRITE 11 00:1b:90 0 EOF
1: -> FLOCK  ADVISORY  WRITE 12 00:1b:9 0 EOF
2: POSIX  ADVISORY  WRITE 13 00:1b:9 0 EOF
3: FLOCK  ADVISORY  READ 14 00:1b:9 0 EOF
4: FLOCK  ADVISORY  WRITE 15 00:1b:9 0 EOF
5: FLOCK  ADVISORY  WRITE 0 00:1c:7 0 EOF
";
        for (file, expected) in [("00:1b:9", Some(15)), ("00:1b:90", Some(11)), ("00:1c:7", None)] {
            assert_eq!(holder(locks, file), expected, "{file}");
        }
    }

    #[test]
    fn a_process_may_have_any_name() {
        for (stat, expected) in [
            ("7 (rcrun) S 1 7", Some(("rcrun", 'S'))),
            ("7 (a) T (b\n) t 1", Some(("a) T (b\\n", 't'))),
            ("7 rcrun", None),
        ] {
            let expected = expected.map(|(name, state)| (name.to_string(), state));
            assert_eq!(name_and_state(stat), expected, "{stat}");
        }
    }
}
