//! The upper folder of an overlay to a layer: what was changed, as a tar. The same tree gives the same bytes.
//! Uses: rustix, error, attributes, changes, lower, notes, remove, tar.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Attributes};
use super::changes::{Change, ChangeKind};
use super::error::{Call, Error, Result, Shown};
use super::lower::{is_whiteout, open_one};
use super::notes::{Notes, Sort};
use super::tar::write::Writer;
use super::tar::{Entry, Kind, Time};
use super::{Form, Limits, Summary, remove};

/// How to make a layer of a folder.
#[derive(Clone, Copy, Debug)]
pub struct Diff {
    /// How the folder tells what is hidden. In form `Flat` nothing is: the layer holds the tree.
    pub form: Form,
    /// Whether the root itself gets an entry. An upper folder's own attributes are those of the layer below it, unless
    /// the container changed them.
    pub root: bool,
    /// Later times become this one, as builds that are reproducible have it (SOURCE_DATE_EPOCH).
    pub latest: Option<i64>,
}

/// Writes what is in `upper` to `out` as the tar of a layer: names in the order of their bytes, each folder before what
/// is in it.
///
/// Access times, owners' names, inode numbers and the order of the file system leave no trace in it; holes are written
/// as zeros. The folder must not change meanwhile.
pub fn diff(upper: BorrowedFd<'_>, options: &Diff, out: impl Write) -> Result<Summary> {
    write(upper, options, out, |walk, root| walk.folder(root, Limits::default().depth))
}

/// Writes `changes`, as [`changes`](super::changes()) found them in `upper`, in the same way and nothing else. All that is
/// hidden is told name by name.
pub fn diff_of(
    upper: BorrowedFd<'_>,
    changes: &[Change],
    options: &Diff,
    out: impl Write,
) -> Result<Summary> {
    write(upper, options, out, |walk, root| changes.iter().try_for_each(|change| walk.change(root, change)))
}

fn write<W: Write>(
    upper: BorrowedFd<'_>,
    options: &Diff,
    out: W,
    all: impl FnOnce(&mut Walk<'_, BufWriter<W>>, &OwnedFd) -> Result<()>,
) -> Result<Summary> {
    let root =
        rustix::fs::openat(upper, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .call("open of the upper folder")?;
    let mut walk = Walk {
        options,
        attributes: Attributes::new(options.form, false),
        // Headers and padding are small, and the caller may hash each piece.
        writer: Writer::new(BufWriter::with_capacity(256 << 10, out)),
        notes: Notes::default(),
        summary: Summary { root: options.root, ..Summary::default() },
        linked: HashMap::new(),
        path: Vec::new(),
        buffer: vec![0; 256 << 10],
    };
    let stat = rustix::fs::fstat(&root).call("fstat of the upper folder")?;
    if options.root {
        let xattrs = walk.xattrs(&root)?.1;
        let mut entry = walk.describe(&stat, Kind::Directory, xattrs);
        entry.path = b"./".to_vec();
        walk.write(&entry)?;
    }
    if let Err(e) = all(&mut walk, &root) {
        return Err(match e.kind() {
            super::Kind::Stream => e,
            // Where the walk stopped.
            _ => e.of(Shown(&walk.path)),
        });
    }
    let Walk { writer, notes, mut summary, .. } = walk;
    writer.finish().map_err(|e| Error::stream("write of the layer", e))?;
    summary.notes = notes.sentences();
    Ok(summary)
}

struct Walk<'o, W> {
    options: &'o Diff,
    attributes: Attributes,
    writer: Writer<W>,
    notes: Notes,
    summary: Summary,
    /// The first name of each file that has more than one.
    linked: HashMap<(u64, u64), Vec<u8>>,
    path: Vec<u8>,
    buffer: Vec<u8>,
}

/// Whether overlayfs calls the folder opaque, and the image's own extended attributes.
type Xattrs = (bool, Vec<(Vec<u8>, Vec<u8>)>);

impl<W: Write> Walk<'_, W> {
    /// Writes all that is in `dir`, whose path is `self.path`.
    fn folder(&mut self, dir: &OwnedFd, depth: usize) -> Result<()> {
        if self.xattrs(dir)?.0 {
            self.whiteout(b".wh..wh..opq")?;
        }
        let mut names: Vec<Vec<u8>> = remove::list(dir.as_fd())?.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let len = self.path.len();
        for name in names {
            self.path.extend_from_slice(&name);
            if let Some(fd) = self.one(dir, &name)? {
                let Some(deeper) = depth.checked_sub(1) else {
                    let most = Limits::default().depth;
                    return Err(Error::limit(format!("more than {most} folders deep")));
                };
                self.folder(&fd, deeper)?;
            }
            self.path.truncate(len);
        }
        Ok(())
    }

    /// Writes `change`, below `root`.
    fn change(&mut self, root: &OwnedFd, change: &Change) -> Result<()> {
        let path = &change.path[..];
        let slash = path.iter().rposition(|b| *b == b'/');
        let (above, name) = slash.map_or((&b""[..], path), |at| (&path[..at + 1], &path[at + 1..]));
        self.path = above.to_vec();
        if change.kind == ChangeKind::Removed {
            return self.whiteout(&[b".wh.", name].concat());
        }
        self.path.extend_from_slice(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = open_one(root.as_fd(), if above.is_empty() { b"." } else { above }, flags);
        self.one(&folder.call("openat2")?, name).map(|_| ())
    }

    /// Writes what `name` in `dir` is. A folder is given back, its path ended by a slash.
    fn one(&mut self, dir: &OwnedFd, name: &[u8]) -> Result<Option<OwnedFd>> {
        let fd = open_one(dir.as_fd(), name, OFlags::PATH).call("openat2")?;
        let stat = rustix::fs::fstat(&fd).call("fstat")?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::CharacterDevice if is_whiteout(&stat) => {
                if self.options.form == Form::Flat {
                    return Err(Error::archive("a whiteout of overlayfs in a tree that is none"));
                }
                self.path.truncate(self.path.len() - name.len());
                return self.whiteout(&[b".wh.", name].concat()).map(|()| None);
            }
            FileType::CharacterDevice => Kind::CharDevice,
            _ => {
                self.notes.add(Sort::Socket, || Shown(&self.path).to_string());
                return Ok(None);
            }
        };
        if name.starts_with(b".wh.") {
            return Err(Error::archive(format!("the name \"{}\" means a whiteout in a layer", Shown(name))));
        }
        if kind == Kind::Directory {
            let fd = open_one(dir.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY).call("openat2")?;
            let xattrs = self.xattrs(&fd)?.1;
            self.path.push(b'/');
            let entry = self.describe(&stat, kind, xattrs);
            self.write(&entry)?;
            return Ok(Some(fd));
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&inode) {
                let link = first.clone();
                let entry = Entry { link, ..self.describe(&stat, Kind::HardLink, Vec::new()) };
                return self.write(&entry).map(|()| None);
            }
            self.linked.insert(inode, self.path.clone());
        }
        if kind == Kind::File {
            return self.file(&fd, &stat).map(|()| None);
        }
        let xattrs = self.attributes.plain(&attributes::xattrs_of_path(fd.as_fd())?)?;
        let mut entry = self.describe(&stat, kind, xattrs);
        if kind == Kind::Symlink {
            entry.link = rustix::fs::readlinkat(&fd, "", Vec::new()).call("readlinkat")?.into_bytes();
        }
        self.write(&entry).map(|()| None)
    }

    /// Of the inode that was looked at, not by its name: a container that goes on may have put a FIFO there meanwhile, which
    /// would be waited for, or a device, whose opening may do anything.
    fn file(&mut self, seen: &OwnedFd, stat: &Stat) -> Result<()> {
        let path = attributes::magic_path(seen.as_fd());
        let open = |more| rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC | more, Mode::empty());
        let fd = open(OFlags::NOATIME)
            .or_else(|e| match e {
                Errno::PERM => open(OFlags::empty()),
                e => Err(e),
            })
            .call("open")?;
        let xattrs = self.xattrs(&fd)?.1;
        let mut entry = self.describe(stat, Kind::File, xattrs);
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        self.write(&entry)?;
        let mut left = entry.size;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = match rustix::io::read(&fd, &mut self.buffer[..want]) {
                Ok(0) => return Err(Error::archive("it became shorter while it was read")),
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Error::call("read", e)),
            };
            self.writer.data(&self.buffer[..got]).map_err(|e| Error::stream("write of the layer", e))?;
            left -= got as u64;
        }
        self.summary.bytes += entry.size;
        self.writer.pad(entry.size).map_err(|e| Error::stream("write of the layer", e))
    }

    fn xattrs(&self, fd: &OwnedFd) -> Result<Xattrs> {
        let all = attributes::xattrs_of(fd.as_fd())?;
        let mark = self.options.form.private().map(|private| format!("{private}opaque").into_bytes());
        let opaque = all.iter().any(|(name, value)| Some(name) == mark.as_ref() && value == b"y");
        Ok((opaque, self.attributes.plain(&all)?))
    }

    fn describe(&self, stat: &Stat, kind: Kind, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
        let mut mtime = Time::both(stat).1;
        if let Some(latest) = self.options.latest.filter(|&latest| mtime.seconds >= latest) {
            mtime = Time { seconds: latest, nanoseconds: 0 };
        }
        Entry {
            kind,
            path: self.path.clone(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime,
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => {
                    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
                }
                _ => (0, 0),
            },
            xattrs,
            ..Entry::default()
        }
    }

    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        self.summary.whiteouts += 1;
        let path = [&self.path[..], name].concat();
        self.write(&Entry { path, ..Entry::default() })
    }

    fn write(&mut self, entry: &Entry) -> Result<()> {
        self.summary.entries += 1;
        self.writer.entry(entry).map_err(|e| Error::stream("write of the layer", e))
    }
}
