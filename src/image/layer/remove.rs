//! Removes what is replaced or hidden, by fd, one name at a time.
//! Uses: rustix, attributes, error, tar.

use std::cell::Cell;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::timestamps;
use super::error::{Call, Error, Result};
use super::tar::Time;

/// Names that this layer made, by the inode of their folder: what is below it may be hidden, they may not. Kept as
/// 128 bits of a keyed hash, so that a million take 32 MiB.
#[derive(Default)]
pub struct Made {
    names: HashSet<(u64, u64)>,
    keys: (RandomState, RandomState),
    looked_at: Cell<u64>,
}

impl Made {
    fn print(&self, folder: u64, name: &[u8]) -> (u64, u64) {
        let print = |key: &RandomState| key.hash_one((folder, name));
        (print(&self.keys.0), print(&self.keys.1))
    }

    /// Notes a name.
    pub fn add(&mut self, folder: u64, name: &[u8]) {
        let print = self.print(folder, name);
        self.names.insert(print);
    }

    /// How many names were looked at to see whether they stay, since this was last asked.
    pub fn looked_at(&self) -> u64 {
        self.looked_at.take()
    }

    fn has(&self, folder: u64, name: &[u8]) -> bool {
        !self.names.is_empty() && self.names.contains(&self.print(folder, name))
    }
}

/// What may stay.
#[derive(Clone, Copy)]
pub enum Keep<'a> {
    /// Nothing.
    Nothing,
    /// What the layer made, and the folders that hold any of it.
    Made(&'a Made),
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes `name` in `dir`, whose inode is `folder`, with all below it. `depth` bounds how far down that may be.
pub fn remove(dir: BorrowedFd<'_>, folder: u64, name: &[u8], keep: Keep<'_>, depth: usize) -> Result<()> {
    let kept = matches!(keep, Keep::Made(made) if made.has(folder, name));
    if !kept {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Linux says EISDIR of a folder; POSIX, and some file systems, EPERM.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(Error::call("unlinkat", e)),
        }
    }
    let fd = match rustix::fs::openat(dir, name, FOLDER, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) if kept => return Ok(()),
        // A folder that was closed to its owner, who is not root.
        Err(Errno::ACCESS) => open_closed(dir, name)?,
        Err(e) => return Err(Error::call("openat", e)),
    };
    let stat = rustix::fs::fstat(&fd).call("fstat")?;
    empty(fd.as_fd(), keep, depth)?;
    if !kept {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) => return Ok(()),
            Err(Errno::NOTEMPTY) if matches!(keep, Keep::Made(_)) => {}
            Err(e) => return Err(Error::call("rmdir", e)),
        }
    }
    // It stays, and what went from it is not to be seen in its times.
    let (atime, mtime) = Time::both(&stat);
    rustix::fs::futimens(&fd, &timestamps(atime, mtime)).call("futimens")
}

/// Removes all that is in `dir`, but not itself.
pub fn empty(dir: BorrowedFd<'_>, keep: Keep<'_>, depth: usize) -> Result<()> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(Error::limit("a tree is deeper than a layer may be"));
    };
    let folder = rustix::fs::fstat(dir).call("fstat")?.st_ino;
    for (name, _) in list(dir)? {
        if let Keep::Made(made) = keep {
            made.looked_at.update(|n| n + 1);
        }
        remove(dir, folder, &name, keep, deeper)?;
    }
    Ok(())
}

/// All names in `dir`, and what they are as far as the file system tells.
pub fn list(dir: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    for found in Dir::read_from(dir).call("open of a folder to list it")? {
        let found = found.call("getdents")?;
        let name = found.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), found.file_type()));
        }
    }
    Ok(names)
}

/// Opens a folder to which its owner, this process, has no permission.
pub fn open_closed(dir: BorrowedFd<'_>, name: &[u8]) -> Result<rustix::fd::OwnedFd> {
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, path, Mode::empty()).call("openat")?;
    let mode = rustix::fs::fstat(&fd).call("fstat")?.st_mode & 0o7777;
    let magic = super::attributes::magic_path(fd.as_fd());
    rustix::fs::chmod(magic, Mode::from_raw_mode(mode | 0o700)).call("chmod")?;
    rustix::fs::openat(dir, name, FOLDER, Mode::empty()).call("openat")
}
