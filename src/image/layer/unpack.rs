//! Entries of a layer to files, one by one, in the order of the archive.
//! Uses: rustix, error, attributes, lower, name, notes, remove, tar, tree.

use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{Attributes, DEFAULT_ACL, timestamps};
use super::error::{Call, Error, Result, Shown};
use super::lower::{Below, is_whiteout};
use super::name::{self, Wish};
use super::notes::Sort;
use super::remove::{self, Keep};
use super::tar::read::Reader;
use super::tar::sparse::Extent;
use super::tar::{Entry, Kind};
use super::tree::Tree;
use super::{Form, Summary, Unpack};

/// Unpacks the tar `stream` into the folder `into`, and reads it to its very end.
///
/// In the overlay forms `into` is an empty folder; in form `Flat` it holds the layers below. Nothing outside of it is
/// touched. After an error, what is in it is of no use: the caller removes it.
pub fn unpack(stream: impl BufRead, into: BorrowedFd<'_>, options: &Unpack<'_>) -> Result<Summary> {
    let mut reader = Reader::new(stream, options.limits.stream);
    let attributes = Attributes::new(options.form, options.rootless);
    let below = Below::new(options.form, options.lower);
    let tree = Tree::new(into, options.form, options.limits, attributes, below)?;
    let mut unpacker = Unpacker {
        options,
        tree,
        summary: Summary::default(),
        path: Vec::new(),
        target: Vec::new(),
        left_out: Vec::new(),
    };
    let mut entry = Entry::default();
    while reader.next(&mut entry)? {
        unpacker.summary.entries += 1;
        if unpacker.summary.entries > options.limits.inodes {
            // An entry that makes nothing takes time all the same.
            return Err(Error::limit(format!("more than {} entries", options.limits.inodes)));
        }
        unpacker.entry(&mut reader, &mut entry).map_err(|e| match e.kind() {
            super::Kind::Stream => e,
            _ => e.of(format_args!("entry {}", Shown(&entry.path))),
        })?;
    }
    reader.drain()?;
    let Unpacker { tree, mut summary, .. } = unpacker;
    if !reader.global().is_empty() {
        tree.notes.add(Sort::Global, || reader.global().join(", "));
    }
    let (notes, looked_below) = tree.finish()?;
    summary.notes = notes.sentences();
    summary.depends_on_lower = looked_below;
    Ok(summary)
}

/// A layer that is being unpacked.
pub struct Unpacker<'o, 'a> {
    /// What was asked for.
    pub options: &'o Unpack<'a>,
    /// Where it goes.
    pub tree: Tree<'a>,
    /// What was done.
    pub summary: Summary,
    /// The plain form of the target of a hard link.
    pub target: Vec<u8>,
    /// Where device nodes would be.
    pub left_out: Vec<Vec<u8>>,
    /// The plain form of the entry's name.
    path: Vec<u8>,
}

/// What Linux takes of an extended attribute (linux/limits.h).
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 64 << 10;

/// Makes a file, and opens none that is there.
pub const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Unpacker<'_, '_> {
    fn entry<R: BufRead>(&mut self, reader: &mut Reader<R>, entry: &mut Entry) -> Result<()> {
        let size: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > self.options.limits.xattrs {
            return Err(Error::limit(format!(
                "{size} bytes of extended attributes (at most {})",
                self.options.limits.xattrs
            )));
        }
        for (name, value) in &entry.xattrs {
            if !(1..=XATTR_NAME_MAX).contains(&name.len()) || value.len() > XATTR_SIZE_MAX {
                return Err(Error::archive(format!(
                    "an extended attribute whose name has {} bytes and whose value {} (1 to {XATTR_NAME_MAX}, and at most \
                     {XATTR_SIZE_MAX})",
                    name.len(),
                    value.len()
                )));
            }
        }
        let mut path = std::mem::take(&mut self.path);
        let done = name::plain(&entry.path, &self.options.limits, &mut path)
            .and_then(|()| self.wish(reader, entry, &path));
        self.path = path;
        done
    }

    fn wish<R: BufRead>(&mut self, reader: &mut Reader<R>, entry: &mut Entry, path: &[u8]) -> Result<()> {
        if path.is_empty() {
            return self.root(entry);
        }
        let (parent, wish) = name::wish(path)?;
        match wish {
            Wish::Aufs => Ok(()),
            Wish::Whiteout(name) => self.whiteout(parent, name),
            Wish::Opaque => self.opaque(parent),
            Wish::Entry(name) => {
                if entry.kind == Kind::HardLink {
                    return self.hard_link(entry, parent, name);
                }
                self.tree.go(parent)?;
                match entry.kind {
                    Kind::Directory => self.directory(entry, path, name),
                    Kind::File => self.file(reader, entry, name),
                    _ => self.special(entry, name),
                }
            }
        }
    }

    /// An entry for the root itself.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::archive("the root is a folder, and nothing else"));
        }
        self.tree.go(b"")?;
        self.summary.root = true;
        self.replace(entry)
    }

    /// Gives the folder at hand, which was there before, the attributes of `entry`.
    fn replace(&mut self, entry: &Entry) -> Result<()> {
        let fd = &self.tree.top().fd;
        self.tree.attributes.replace(fd.as_fd(), entry, &self.tree.notes)?;
        let closed = open_mode(fd, entry.mode)?;
        self.tree.set_times((entry.atime.unwrap_or(entry.mtime), entry.mtime), closed);
        self.tree.refresh()
    }

    fn directory(&mut self, entry: &Entry, path: &[u8], name: &[u8]) -> Result<()> {
        let times = (entry.atime.unwrap_or(entry.mtime), entry.mtime);
        let mode = self.tree.attributes.birth_mode(entry.mode | 0o700);
        let mut opaque = false;
        match rustix::fs::mkdirat(&self.tree.top().fd, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = self.stat(name)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    self.tree.made(name)?;
                    self.tree.enter(name, times)?;
                    self.replace(entry)?;
                    self.tree.is_at(path);
                    return Ok(());
                }
                // Something else stood there, a whiteout perhaps: what is below it is gone.
                opaque = true;
                self.clear(name)?;
                rustix::fs::mkdirat(&self.tree.top().fd, name, mode).call("mkdirat")?;
            }
            Err(e) => return Err(Error::call("mkdirat", e)),
        }
        self.tree.made(name)?;
        let place = self.tree.top().place;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = super::lower::open_one(self.tree.top().fd.as_fd(), name, flags).call("openat2")?;
        self.tree.attributes.finish_fd(fd.as_fd(), entry, place, &self.tree.notes)?;
        let closed = open_mode(&fd, entry.mode)?;
        let acl = entry.xattrs.iter().any(|(name, _)| name == DEFAULT_ACL.as_bytes());
        self.tree.enter_new(fd, name, times, closed, acl, opaque)?;
        self.tree.is_at(path);
        Ok(())
    }

    fn file<R: BufRead>(&mut self, reader: &mut Reader<R>, entry: &Entry, name: &[u8]) -> Result<()> {
        let data = match &entry.sparse {
            Some(extents) => extents.iter().map(|extent| extent.len).sum(),
            None => entry.size,
        };
        self.charge(data)?;
        let mode = self.tree.attributes.birth_mode(entry.mode);
        let fd = self.create(name, |dir| rustix::fs::openat(dir, name, NEW_FILE, mode), "openat")?;
        match &entry.sparse {
            None => {
                while let Some(piece) = reader.data()? {
                    write_all(&fd, piece)?;
                }
            }
            Some(extents) => write_sparse(reader, &fd, extents, entry.size)?,
        }
        let place = self.tree.top().place;
        self.tree.attributes.finish_fd(fd.as_fd(), entry, place, &self.tree.notes)?;
        rustix::fs::futimens(&fd, &timestamps(entry.atime.unwrap_or(entry.mtime), entry.mtime))
            .call("futimens")
    }

    /// Counts bytes of data before they are written.
    pub fn charge(&mut self, bytes: u64) -> Result<()> {
        self.summary.bytes = self.summary.bytes.saturating_add(bytes);
        if self.summary.bytes > self.options.limits.bytes {
            return Err(Error::limit(format!("more than {} bytes of data", self.options.limits.bytes)));
        }
        Ok(())
    }

    /// Symbolic links, FIFOs, devices.
    pub fn special(&mut self, entry: &Entry, name: &[u8]) -> Result<()> {
        let mode = self.tree.attributes.birth_mode(entry.mode);
        match entry.kind {
            Kind::Symlink => {
                let target = &entry.link[..];
                if target.is_empty() || target.contains(&0) || target.len() >= 4096 {
                    return Err(Error::archive(format!("a symbolic link to \"{}\"", Shown(target))));
                }
                self.create(name, |dir| rustix::fs::symlinkat(target, dir, name), "symlinkat")?;
            }
            Kind::Fifo => {
                self.create(name, |dir| rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0), "mknodat")?;
            }
            _ => {
                let (major, minor) = entry.device;
                let kind = match entry.kind {
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ if (major, minor) == (0, 0) => {
                        return Err(Error::archive("character device 0:0 is overlayfs's word for nothing"));
                    }
                    _ => FileType::CharacterDevice,
                };
                if self.tree.attributes.rootless() {
                    self.tree.notes.add(Sort::Device, || Shown(&entry.path).to_string());
                    self.left_out.push([&self.tree.path(), name].join(&b'/'));
                    // What is below under that name is not to show in its place.
                    return self.hide(name);
                }
                let device = rustix::fs::makedev(major, minor);
                self.create(name, |dir| rustix::fs::mknodat(dir, name, kind, mode, device), "mknodat")?;
            }
        }
        let top = self.tree.top();
        self.tree.attributes.finish_at(top.fd.as_fd(), name, entry, top.place, &self.tree.notes)
    }

    /// Makes `name` in the folder at hand; what stands there goes.
    pub fn create<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
        call: &str,
    ) -> Result<T> {
        let made = match make(self.tree.top().fd.as_fd()) {
            Err(Errno::EXIST) => {
                self.clear(name)?;
                make(self.tree.top().fd.as_fd()).call(call)?
            }
            other => other.call(call)?,
        };
        self.tree.made(name)?;
        Ok(made)
    }

    /// Removes `name` in the folder at hand with all below it.
    fn clear(&mut self, name: &[u8]) -> Result<()> {
        self.tree.touch();
        let top = self.tree.top();
        remove::remove(top.fd.as_fd(), top.ino, name, Keep::Nothing, self.options.limits.depth + 1)
    }

    /// What `name` in the folder at hand is.
    pub fn stat(&self, name: &[u8]) -> Result<Stat> {
        rustix::fs::statat(&self.tree.top().fd, name, AtFlags::SYMLINK_NOFOLLOW).call("fstatat")
    }

    /// What `name` in the folder at hand is, if anything.
    pub fn stat_if_there(&self, name: &[u8]) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.tree.top().fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::call("fstatat", e)),
        }
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        self.summary.whiteouts += 1;
        if self.tree.go_if_there(parent)? { self.hide(name) } else { Ok(()) }
    }

    /// Hides what is below under `name` in the folder at hand. What this layer has there stays.
    fn hide(&mut self, name: &[u8]) -> Result<()> {
        if self.options.form == Form::Flat {
            self.tree.touch();
            let top = self.tree.top();
            let keep = Keep::Made(&self.tree.made);
            remove::remove(top.fd.as_fd(), top.ino, name, keep, self.options.limits.depth + 1)?;
            return self.tree.spend(self.tree.made.looked_at());
        }
        match self.stat_if_there(name)? {
            None if self.tree.hides() => Ok(()),
            None => {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(&self.tree.top().fd, name, FileType::CharacterDevice, mode, 0)
                    .call("mknodat of a whiteout")?;
                let times = timestamps(Default::default(), Default::default());
                rustix::fs::utimensat(&self.tree.top().fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .call("utimensat")?;
                self.tree.made(name)?;
                self.tree.hold_whiteouts()
            }
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let path = [&self.tree.path(), name].join(&b'/');
                self.tree.go(&path)?;
                self.make_opaque()
            }
            Some(_) => Ok(()),
        }
    }

    fn opaque(&mut self, parent: &[u8]) -> Result<()> {
        self.summary.whiteouts += 1;
        if !self.tree.go_if_there(parent)? {
            return Ok(());
        }
        if self.options.form == Form::Flat {
            self.tree.touch();
            let keep = Keep::Made(&self.tree.made);
            remove::empty(self.tree.top().fd.as_fd(), keep, self.options.limits.depth + 1)?;
            return self.tree.spend(self.tree.made.looked_at());
        }
        self.make_opaque()
    }

    /// Makes the folder at hand opaque; whiteouts in it hide nothing any more.
    fn make_opaque(&mut self) -> Result<()> {
        if self.tree.hides() {
            return Ok(());
        }
        self.tree.make_opaque()?;
        let dir = self.tree.top().fd.as_fd();
        for (name, kind) in remove::list(dir)? {
            if matches!(kind, FileType::CharacterDevice | FileType::Unknown)
                && is_whiteout(&self.stat(&name)?)
            {
                rustix::fs::unlinkat(dir, &name[..], AtFlags::empty()).call("unlinkat")?;
            }
        }
        self.tree.touch();
        Ok(())
    }
}

/// The mode to set when a folder is left, where it closes the folder to its owner; it stays open until then.
fn open_mode(fd: &OwnedFd, mode: u32) -> Result<Option<u32>> {
    if mode & 0o700 == 0o700 {
        return Ok(None);
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode | 0o700)).call("fchmod")?;
    Ok(Some(mode))
}

/// Writes a piece whole.
pub fn write_all(fd: &OwnedFd, mut piece: &[u8]) -> Result<()> {
    while !piece.is_empty() {
        match rustix::io::write(fd, piece) {
            Ok(0) => return Err(Error::call("write", io::Error::from(io::ErrorKind::WriteZero))),
            Ok(n) => piece = &piece[n.min(piece.len())..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::call("write", e)),
        }
    }
    Ok(())
}

/// Writes the data where the map says; the rest are holes.
fn write_sparse<R: BufRead>(
    reader: &mut Reader<R>,
    fd: &OwnedFd,
    extents: &[Extent],
    size: u64,
) -> Result<()> {
    let mut extents = extents.iter();
    let mut now = Extent { offset: 0, len: 0 };
    while let Some(mut piece) = reader.data()? {
        while !piece.is_empty() {
            if now.len == 0 {
                let lying = || Error::archive("more data than the map of the sparse file tells of");
                now = *extents.next().ok_or_else(lying)?;
                rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(now.offset)).call("lseek")?;
            }
            let step = piece.len().min(usize::try_from(now.len).unwrap_or(usize::MAX));
            write_all(fd, &piece[..step])?;
            now.len -= step as u64;
            piece = &piece[step..];
        }
    }
    rustix::fs::ftruncate(fd, size).call("ftruncate")
}
