//! What the upper folder of an overlay changes of the layers below it: names, in the order of a layer.
//! Uses: rustix, crate::fill, error, attributes, lower, remove.
//!
//! overlayfs copies a file up when it is opened for writing, and all folders above it: what is equal to what is below is
//! no change. Of a folder the time of its last change says nothing, since each name made and removed sets it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::fill::fill;

use super::attributes::{self, Attributes};
use super::error::{Call, Error, Result, Shown};
use super::lower::{Below, Found, Merged, Step, is_whiteout, open_one};
use super::{Form, Limits, Lower, remove};

/// How a path differs from what the layers below have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// They do not have it.
    Added,
    /// They have something else; or in this folder there is a change.
    Changed,
    /// They have it, and it is gone.
    Removed,
}

/// A path that differs from what the layers below have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path, without a slash at its begin and its end.
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: ChangeKind,
    /// When it was last changed, in seconds of 1970; none for what is gone.
    pub modified: Option<i64>,
}

/// What an upper folder changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Each folder before what is in it, names in the order of their bytes.
    pub all: Vec<Change>,
    /// Whether the root itself has other attributes.
    pub root: bool,
}

/// What was made in an upper folder before the container began: a mount point, a folder that leads to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Type and permission bits, as stat(2) tells them.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What an upper folder is compared with.
pub struct Over<'a> {
    /// How the folders tell what is hidden.
    pub form: Form,
    /// The layers below.
    pub lower: Lower<'a>,
    /// The topmost layer that tells the attributes of the root, if any does.
    pub root: Option<BorrowedFd<'a>>,
    /// What was made before the container began, by path: no change as long as it stays as it was.
    pub made: &'a BTreeMap<Vec<u8>, Made>,
    /// Paths that are left out with all that is in them.
    pub without: &'a BTreeSet<Vec<u8>>,
}

/// What `upper` changes of the layers that it lies over. A container may go on meanwhile: what it removes in this moment
/// may be told or not.
pub fn changes(upper: BorrowedFd<'_>, over: &Over<'_>) -> Result<Changes> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(upper, ".", flags, rustix::fs::Mode::empty()).call("open of the upper folder")?;
    let mut walk = Walk {
        over,
        below: Below::new(over.form, Some(over.lower)),
        attributes: Attributes::new(over.form, false),
        path: Vec::new(),
        all: Vec::new(),
    };
    let merged = walk.below.root()?;
    let opaque = walk.below.is_opaque(root.as_fd())?;
    walk.folder(&root, &merged, opaque, Limits::default().depth).map_err(|e| match e.kind() {
        super::Kind::Stream => e,
        _ => e.of(Shown(&walk.path)),
    })?;
    let root = walk.root_differs(&root)?;
    Ok(Changes { all: walk.all, root })
}

struct Walk<'a> {
    over: &'a Over<'a>,
    below: Below<'a>,
    attributes: Attributes,
    path: Vec<u8>,
    all: Vec<Change>,
}

impl Walk<'_> {
    /// Tells of all in `dir`, whose path is `self.path` and which is `merged` below. `opaque`: nothing of that is seen.
    fn folder(&mut self, dir: &OwnedFd, merged: &Merged, opaque: bool, depth: usize) -> Result<()> {
        let mut names: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        if opaque {
            names.extend(self.below.names(merged)?.into_iter().map(|name| (name, false)));
        }
        names.extend(remove::list(dir.as_fd())?.into_iter().map(|(name, _)| (name, true)));
        let len = self.path.len();
        for (name, above) in names {
            if len > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if !self.over.without.contains(&self.path) {
                match above {
                    true => self.one(dir, &name, merged, opaque, depth)?,
                    false => self.change(ChangeKind::Removed, None),
                }
            }
            self.path.truncate(len);
        }
        Ok(())
    }

    fn change(&mut self, kind: ChangeKind, stat: Option<&Stat>) {
        let modified = stat.map(|stat| stat.st_mtime);
        self.all.push(Change { path: self.path.clone(), kind, modified });
    }

    fn one(&mut self, dir: &OwnedFd, name: &[u8], merged: &Merged, opaque: bool, depth: usize) -> Result<()> {
        let fd = match open_one(dir.as_fd(), name, OFlags::PATH) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.call("openat2")?,
        };
        let stat = rustix::fs::fstat(&fd).call("fstat")?;
        let below = self.below.step(merged, name)?;
        let kind = if matches!(below, Step::Nothing) { ChangeKind::Added } else { ChangeKind::Changed };
        if is_whiteout(&stat) {
            if kind == ChangeKind::Changed {
                self.change(ChangeKind::Removed, None);
            }
            return Ok(());
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let same = match &below {
                Step::Other(found) => self.is_same_file(&fd, &stat, found)?,
                Step::Folder(_) => false,
                Step::Nothing => self.is_as_made(&fd, &stat)?,
            };
            if !same {
                self.change(kind, Some(&stat));
            }
            return Ok(());
        }
        let fd = match open_one(dir.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            opened => opened.call("openat2")?,
        };
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(Error::limit(format!("more than {} folders deep", Limits::default().depth)));
        };
        let (merged, same) = match below {
            Step::Folder(merged) => {
                let same = match merged.top() {
                    Some(top) => {
                        let lower = rustix::fs::fstat(top).call("fstat in a lower layer")?;
                        self.is_owned_alike(&stat, &lower) && self.xattrs(&fd)? == self.xattrs(top)?
                    }
                    None => false,
                };
                (merged, same)
            }
            Step::Other(_) => (Merged::default(), false),
            Step::Nothing => (Merged::default(), self.is_as_made(&fd, &stat)?),
        };
        let before = self.all.len();
        self.change(kind, Some(&stat));
        let opaque = opaque || self.below.is_opaque(fd.as_fd())?;
        self.folder(&fd, &merged, opaque, deeper)?;
        if same && self.all.len() == before + 1 {
            self.all.pop();
        }
        Ok(())
    }

    fn xattrs(&self, fd: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.attributes.plain(&attributes::xattrs_of_path(fd.as_fd())?)
    }

    fn is_owned_alike(&self, one: &Stat, other: &Stat) -> bool {
        (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
    }

    fn is_as_made(&self, fd: &OwnedFd, stat: &Stat) -> Result<bool> {
        let Some(made) = self.over.made.get(&self.path) else { return Ok(false) };
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Ok((made.mode, made.uid, made.gid) == (stat.st_mode, stat.st_uid, stat.st_gid)
            && (folder || stat.st_size == 0 && stat.st_nlink == 1)
            && self.xattrs(fd)?.is_empty())
    }

    /// Both have the same type, as `is_owned_alike` finds. Times can be set: only the bytes tell whether a file is another.
    fn is_same_file(&self, fd: &OwnedFd, stat: &Stat, lower: &Found) -> Result<bool> {
        let dated = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_size, stat.st_rdev);
        // A file with one more name than one is in a layer with all of them, or its copies are files of their own.
        if !self.is_owned_alike(stat, &lower.stat)
            || dated(stat) != dated(&lower.stat)
            || stat.st_nlink > 1
            || self.xattrs(fd)? != self.xattrs(&lower.fd)?
        {
            return Ok(false);
        }
        let link = |fd: &OwnedFd| rustix::fs::readlinkat(fd, "", Vec::new()).call("readlinkat");
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => same_bytes(fd, &lower.fd),
            FileType::Symlink => Ok(link(fd)? == link(&lower.fd)?),
            _ => Ok(true),
        }
    }

    /// The upper folder got the attributes of `over.root` when it was mounted, or those that a root has of which no layer
    /// tells.
    fn root_differs(&self, root: &OwnedFd) -> Result<bool> {
        let stat = rustix::fs::fstat(root).call("fstat of the upper folder")?;
        let alike = match self.over.root {
            Some(layer) => self.is_owned_alike(&stat, &rustix::fs::fstat(layer).call("fstat of a layer")?),
            None => (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o755, 0, 0),
        };
        Ok(!alike || !self.xattrs(root)?.is_empty())
    }
}

/// Compares two files of the same size.
fn same_bytes(one: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let open = |fd: &OwnedFd| {
        let file = std::fs::File::open(attributes::magic_path(fd.as_fd()));
        file.map_err(|e| Error::call("open", e))
    };
    let [mut one, mut other] = [open(one)?, open(other)?];
    let [mut left, mut right] = [vec![0; 64 << 10], vec![0; 64 << 10]];
    let call = |error| Error::call("read", error);
    loop {
        let read = fill(&mut one, &mut left).map_err(call)?;
        if read != fill(&mut other, &mut right).map_err(call)? || left[..read] != right[..read] {
            return Ok(false);
        }
        if read < left.len() {
            return Ok(true);
        }
    }
}
