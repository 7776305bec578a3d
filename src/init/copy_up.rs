//! tmpcopyup: the contents of a directory into a new tmpfs, with modes, owners, times and links. Extended attributes stay
//! behind (as with runc). Each name is opened in its directory and never through a link.

use crate::sys::{
    Failure, Fd, Result,
    errno::{EINVAL, ELOOP},
    file::{self, PATH_MAX, S_IFDIR, S_IFLNK, S_IFREG, Statx},
    numbers::{O_CREAT, O_DIRECTORY, O_EXCL, O_NONBLOCK, O_RDONLY, O_WRONLY},
};
use core::ffi::CStr;

/// Directories within directories: each level keeps two fds and a buffer on the stack.
const MOST_LEVELS: u32 = 64;

/// Copies what `from` holds into `to`.
pub fn copy(from: &Fd, to: i32) -> Result<()> {
    contents(from, to, MOST_LEVELS)
}

fn contents(from: &Fd, to: i32, levels: u32) -> Result<()> {
    let levels = levels.checked_sub(1).ok_or(Failure::found(ELOOP))?;
    let mut buffer = [0; 2048];
    loop {
        let mut entries = file::getdents(from.raw(), &mut buffer)?;
        if entries.is_empty() {
            return Ok(());
        }
        while let Some((name, next)) = entry(entries)? {
            entries = next;
            if name != c"." && name != c".." {
                one(from, to, name, levels)?;
            }
        }
    }
}

/// The name in the first struct linux_dirent64 (8 bytes inode, 8 offset, 2 length, 1 type, name), and the others.
fn entry(entries: &[u8]) -> Result<Option<(&CStr, &[u8])>> {
    if entries.is_empty() {
        return Ok(None);
    }
    let broken = Failure::found(EINVAL);
    let length = entries.get(16..18).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8).ok_or(broken)?;
    let (first, next) = entries.split_at_checked(length).ok_or(broken)?;
    let name = first.get(19..).and_then(|b| CStr::from_bytes_until_nul(b).ok()).ok_or(broken)?;
    Ok(Some((name, next)))
}

fn one(from: &Fd, to: i32, name: &CStr, levels: u32) -> Result<()> {
    let stat = file::stat_name(from.raw(), name)?;
    match stat.kind() {
        S_IFDIR => {
            let source = file::openat(from.raw(), name, O_RDONLY | O_DIRECTORY, 0)?;
            file::mkdirat(to, name, 0o700)?;
            let copy = file::openat(to, name, O_RDONLY | O_DIRECTORY, 0)?;
            contents(&source, copy.raw(), levels)?;
            finish(&copy, &file::stat_fd(source.raw())?)
        }
        S_IFREG => {
            // O_NONBLOCK: a FIFO that took the file's place meanwhile must not be waited for.
            let source = file::openat(from.raw(), name, O_RDONLY | O_NONBLOCK, 0)?;
            let stat = file::stat_fd(source.raw())?;
            if stat.kind() != S_IFREG {
                return Err(Failure::found(EINVAL));
            }
            let copy = file::openat(to, name, O_CREAT | O_EXCL | O_WRONLY, 0o600)?;
            while file::sendfile(copy.raw(), source.raw(), 1 << 30)? > 0 {}
            finish(&copy, &stat)
        }
        S_IFLNK => {
            let mut target = [0; PATH_MAX];
            // readlink cuts at the buffer's end: the last byte is kept for the NUL.
            let length = file::readlinkat(from.raw(), name, &mut target[..PATH_MAX - 1])?.len();
            let target = CStr::from_bytes_with_nul(&target[..=length]).map_err(|_| Failure::found(EINVAL))?;
            file::symlinkat(target, to, name)?;
            file::chown_name(to, name, stat.uid, stat.gid)?;
            file::set_times_name(to, name, &stat)
        }
        kind => {
            file::mknodat(to, name, kind | stat.permissions(), stat.rdev_major, stat.rdev_minor)?;
            file::chown_name(to, name, stat.uid, stat.gid)?;
            file::set_times_name(to, name, &stat)
        }
    }
}

/// Owner first: chown(2) takes set-user-id away.
fn finish(copy: &Fd, stat: &Statx) -> Result<()> {
    file::chown_fd(copy.raw(), stat.uid, stat.gid)?;
    file::chmod_fd(copy.raw(), stat.permissions())?;
    file::set_times_fd(copy.raw(), stat)
}
