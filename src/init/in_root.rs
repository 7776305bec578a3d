//! Paths below the container's root, which an attacker may have written. A path goes in, an fd comes out; nothing here
//! gives a path back. The kernel resolves (openat2, RESOLVE_IN_ROOT); what it cannot do, making what a path leads to
//! through links, is done one component at a time on fds that were resolved so. Uses sys only.

use crate::sys::{
    Failure, Fd, Result,
    errno::{EAGAIN, EEXIST, EINVAL, ELOOP, ENAMETOOLONG, ENOENT},
    file::{self, PATH_MAX, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS},
    numbers::{MKDIRAT, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, OPENAT, OPENAT2},
};
use core::ffi::CStr;

/// Mode of directories that lie above what is wanted.
const ABOVE: u32 = 0o755;
/// Mode of files that are made to be mounted on.
const EMPTY_FILE: u32 = 0o644;
/// Links that one path may lead through, as in path_resolution(7).
const MOST_LINKS: u32 = 40;
/// How often a walk begins again because somebody moved what it stood on. Each time costs the racer a rename too.
const MOST_RESTARTS: u32 = 128;

/// The root of the container.
#[derive(Debug)]
pub struct Root(Fd);

/// What a walk makes of a last component that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Directory { mode: u32 },
    File,
}

impl Root {
    /// The directory in `fd`, from now on the end of every `..`.
    pub fn new(fd: Fd) -> Self {
        Root(fd)
    }

    /// The root itself, for fchdir and the calls on its mount.
    pub fn raw(&self) -> i32 {
        self.0.raw()
    }

    /// Opens what `path` leads to without leaving the root. With `plain`, no component may be a link (ELOOP).
    pub fn open(&self, path: &CStr, flags: u64, plain: bool) -> Result<Fd> {
        let links = if plain { RESOLVE_NO_SYMLINKS } else { 0 };
        let path = if path.is_empty() { c"." } else { path };
        let mut left = MOST_RESTARTS;
        loop {
            match file::openat2(self.raw(), path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | links) {
                // A rename or mount somewhere on the machine while `..` was resolved: openat2(2).
                Err(Failure { errno: EAGAIN, .. }) if left > 0 => left -= 1,
                outcome => return outcome,
            }
        }
    }

    /// The directory at `path`; what is missing is made, through links too, as long as they stay below the root.
    pub fn directory(&self, path: &CStr, mode: u32) -> Result<Fd> {
        self.open_or_make(path, Last::Directory { mode })
    }

    /// What is at `path`, whatever it is; an empty file is made where there is nothing.
    pub fn file(&self, path: &CStr) -> Result<Fd> {
        self.open_or_make(path, Last::File)
    }

    /// The directory that `path` lies in, made if missing, and the last component, which is not resolved.
    pub fn parent_of<'a>(&self, path: &'a CStr) -> Result<(Fd, &'a CStr)> {
        let (above, name) = split(path)?;
        Ok((self.above(above)?, name))
    }

    /// The directory at a path that `split` gave, made if missing.
    pub fn above(&self, path: &[u8]) -> Result<Fd> {
        self.directory(Text::of(path)?.c(), ABOVE)
    }

    fn open_or_make(&self, path: &CStr, last: Last) -> Result<Fd> {
        let flags = match last {
            Last::Directory { .. } => O_PATH | O_DIRECTORY,
            Last::File => O_PATH,
        };
        match self.open(path, flags, false) {
            Err(Failure { errno: ENOENT, .. }) => {}
            outcome => return outcome,
        }
        if self.make_last(path, last).is_some()
            && let Ok(made) = self.open(path, flags, false)
        {
            return Ok(made);
        }
        let mut left = MOST_RESTARTS;
        loop {
            match self.walk(path, last) {
                Err(failure) if left > 0 && was_moved(&failure) => left -= 1,
                outcome => return outcome,
            }
        }
    }

    /// Makes the last component where no other is missing, as it is with most mounts. What it does not manage (a link that
    /// leads nowhere has the name) is left to a walk.
    fn make_last(&self, path: &CStr, last: Last) -> Option<()> {
        let (above, name) = split(path).ok()?;
        let above = self.open(Text::of(above).ok()?.c(), O_PATH | O_DIRECTORY, false).ok()?;
        make(&above, name, last).ok()
    }

    /// Goes through `path` by hand. `reached` holds no link, no `.` and no `..`, and each time it is opened the kernel
    /// checks that anew; `rest` is still to be looked at.
    fn walk(&self, path: &CStr, last: Last) -> Result<Fd> {
        let mut reached = Text::of(b"")?;
        let mut rest = Text::of(path.to_bytes())?;
        let mut here = self.open(c"", O_PATH | O_DIRECTORY, true)?;
        let mut links = 0;
        while let Some(name) = rest.take_component()? {
            match name.bytes() {
                b"." => continue,
                b".." => {
                    reached.pop();
                    here = self.open(reached.c(), O_PATH | O_DIRECTORY, true)?;
                    continue;
                }
                _ => {}
            }
            let mut link = [0; PATH_MAX];
            match file::readlinkat(here.raw(), name.c(), &mut link) {
                Ok(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Failure::found(ELOOP));
                    }
                    if target.first() == Some(&b'/') {
                        reached = Text::of(b"")?;
                        here = self.open(c"", O_PATH | O_DIRECTORY, true)?;
                    }
                    rest.put_before(target)?;
                    continue;
                }
                // Not a link.
                Err(Failure { errno: EINVAL, .. }) => {}
                Err(Failure { errno: ENOENT, .. }) => match last {
                    Last::File if !rest.is_spent() => file::mkdirat(here.raw(), name.c(), ABOVE)?,
                    last => make(&here, name.c(), last)?,
                },
                Err(failure) => return Err(failure),
            }
            reached.push(name.bytes())?;
            let directory = if last == Last::File && rest.is_spent() { 0 } else { O_DIRECTORY };
            here = self.open(reached.c(), O_PATH | directory, true)?;
        }
        Ok(here)
    }
}

/// A path as the directory above and the last component: a name, not `.` or `..`.
pub fn split(path: &CStr) -> Result<(&[u8], &CStr)> {
    let bytes = path.to_bytes_with_nul();
    let (above, name) = match path.to_bytes().iter().rposition(|b| *b == b'/') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (&b""[..], bytes),
    };
    match CStr::from_bytes_with_nul(name) {
        Ok(name) if !matches!(name.to_bytes(), b"" | b"." | b"..") => Ok((above, name)),
        _ => Err(Failure::found(EINVAL)),
    }
}

/// Makes `name` in `above`.
fn make(above: &Fd, name: &CStr, last: Last) -> Result<()> {
    match last {
        Last::Directory { mode } => file::mkdirat(above.raw(), name, mode),
        Last::File => file::openat(above.raw(), name, O_CREAT | O_EXCL | O_RDONLY, EMPTY_FILE).map(drop),
    }
}

/// Somebody renamed, removed or made a part of the path between two calls of a walk.
fn was_moved(failure: &Failure) -> bool {
    match failure.call {
        OPENAT2 => [ENOENT, ELOOP].contains(&failure.errno),
        MKDIRAT | OPENAT => [ENOENT, EEXIST].contains(&failure.errno),
        _ => false,
    }
}

/// Opens one name in a directory with O_PATH, the name itself if it is a link.
pub fn open_name(dir: &Fd, name: &CStr) -> Result<Fd> {
    file::openat(dir.raw(), name, O_PATH | O_NOFOLLOW, 0)
}

/// A path or a part of one, in a fixed buffer; a NUL follows it.
pub struct Text {
    bytes: [u8; PATH_MAX],
    length: usize,
}

impl Text {
    /// ENAMETOOLONG if it does not fit.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        let mut text = Text { bytes: [0; PATH_MAX], length: 0 };
        text.append(bytes)?;
        Ok(text)
    }

    /// With its NUL.
    pub fn c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// Without its NUL.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.length + bytes.len();
        if end >= PATH_MAX {
            return Err(Failure::found(ENAMETOOLONG));
        }
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    fn push(&mut self, name: &[u8]) -> Result<()> {
        if self.length > 0 {
            self.append(b"/")?;
        }
        self.append(name)
    }

    /// Removes the last component, if there is one.
    fn pop(&mut self) {
        let end = self.bytes().iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.bytes[end..self.length].fill(0);
        self.length = end;
    }

    fn is_spent(&self) -> bool {
        self.bytes().iter().all(|b| *b == b'/')
    }

    fn take_component(&mut self) -> Result<Option<Text>> {
        let Some(start) = self.bytes().iter().position(|b| *b != b'/') else { return Ok(None) };
        let end = self.bytes()[start..].iter().position(|b| *b == b'/').map_or(self.length, |at| start + at);
        let name = Text::of(&self.bytes[start..end])?;
        let left = self.length - end;
        self.bytes.copy_within(end..self.length, 0);
        self.bytes[left..self.length].fill(0);
        self.length = left;
        Ok(Some(name))
    }

    fn put_before(&mut self, target: &[u8]) -> Result<()> {
        let end = target.len() + 1 + self.length;
        if end >= PATH_MAX {
            return Err(Failure::found(ENAMETOOLONG));
        }
        self.bytes.copy_within(0..self.length, target.len() + 1);
        self.bytes[..target.len()].copy_from_slice(target);
        self.bytes[target.len()] = b'/';
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
#[path = "in_root_tests.rs"]
mod tests;
