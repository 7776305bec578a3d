//! Hard links, and the copy that they need where the file is in a layer below.
//! Uses: rustix, error, attributes, name, notes, tar, unpack.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::Form;
use super::attributes::{self, timestamps};
use super::error::{Call, Error, Result, Shown};
use super::lower::is_whiteout;
use super::name;
use super::notes::Sort;
use super::tar::{Entry, Kind, Time};
use super::unpack::{NEW_FILE, Unpacker, write_all};

impl Unpacker<'_, '_> {
    /// Another name for a file that the layer has, or that is below.
    pub fn hard_link(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<()> {
        let mut target = std::mem::take(&mut self.target);
        let done = name::plain(&entry.link, &self.options.limits, &mut target)
            .and_then(|()| self.link(&target, parent, name))
            .map_err(|e| e.of(format_args!("hard link to {}", Shown(&entry.link))));
        self.target = target;
        done
    }

    fn link(&mut self, target: &[u8], parent: &[u8], name: &[u8]) -> Result<()> {
        let (target_parent, target_name) = name::split(target);
        let gone = || Error::archive("no such file in the archive before it, nor below");
        if target.is_empty() {
            return Err(Error::archive("the root is a folder"));
        }
        if !self.tree.go_if_there(target_parent)? {
            return Err(gone());
        }
        if !self.left_out.is_empty() {
            let path = [&self.tree.path(), target_name].join(&b'/');
            if self.left_out.contains(&path) {
                self.tree.notes.add(Sort::Device, || Shown(target).to_string());
                return Ok(());
            }
        }
        let stat = match self.stat_if_there(target_name)? {
            Some(stat) if self.options.form != Form::Flat && is_whiteout(&stat) => return Err(gone()),
            Some(stat) => stat,
            // overlayfs cannot link across layers: as it does itself, the file is copied up first.
            None => {
                self.copy_up(target_name)?.ok_or_else(gone)?;
                self.stat(target_name)?
            }
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Error::archive("it is a folder"));
        }
        let same_folder = target_parent == parent;
        let from = if same_folder {
            None
        } else {
            let fd = self.tree.top().fd.try_clone().map_err(|e| Error::call("dup", e))?;
            self.tree.go(parent)?;
            Some(fd)
        };
        // A second name of the file already: to remove it might be to remove the file.
        if let Some(there) = self.stat_if_there(name)?
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return self.tree.made(name);
        }
        self.create(
            name,
            |dir| {
                let from = from.as_ref().map_or(dir, |fd| fd.as_fd());
                rustix::fs::linkat(from, target_name, dir, name, AtFlags::empty())
            },
            "linkat",
        )
    }

    /// Copies `name` from below into the folder at hand; `None` where there is no such thing.
    fn copy_up(&mut self, name: &[u8]) -> Result<Option<()>> {
        let Some(found) = self.tree.look_below(name)? else { return Ok(None) };
        let stat = found.stat;
        let kind = found.kind();
        if kind == FileType::Directory {
            return Err(Error::archive("it is a folder"));
        }
        if self.options.rootless && matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Ok(None);
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        let (atime, mtime) = Time::both(&stat);
        if kind == FileType::RegularFile {
            self.charge(u64::try_from(stat.st_size).unwrap_or(0))?;
            let magic = attributes::magic_path(found.fd.as_fd());
            let from: OwnedFd =
                std::fs::File::open(magic).map_err(|e| Error::call("open of a lower file", e))?.into();
            let to = self.create(name, |dir| rustix::fs::openat(dir, name, NEW_FILE, mode), "openat")?;
            copy_data(&from, &to)?;
            self.tree.attributes.copy(from.as_fd(), to.as_fd(), &self.tree.notes)?;
            rustix::fs::futimens(&to, &timestamps(atime, mtime)).call("futimens")?;
            return Ok(Some(()));
        }
        let magic = attributes::magic_path(found.fd.as_fd());
        let mut entry = Entry {
            path: name.to_vec(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime,
            atime: Some(atime),
            kind: match kind {
                FileType::Symlink => Kind::Symlink,
                FileType::Fifo => Kind::Fifo,
                FileType::BlockDevice => Kind::BlockDevice,
                FileType::CharacterDevice => Kind::CharDevice,
                _ => return Err(Error::archive("it is a socket")),
            },
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            ..Entry::default()
        };
        if entry.kind == Kind::Symlink {
            entry.link = rustix::fs::readlinkat(&found.fd, "", Vec::new()).call("readlinkat")?.into_bytes();
        }
        for xattr in attributes::names(|buffer| rustix::fs::listxattr(&magic, buffer))? {
            let get = |buffer: &mut [u8]| rustix::fs::getxattr(&magic, &xattr[..], buffer);
            if let Some(value) = attributes::value(&xattr, get)? {
                entry.xattrs.extend(self.tree.attributes.plain_name(&xattr).map(|name| (name, value)));
            }
        }
        self.special(&entry, name)?;
        Ok(Some(()))
    }
}

/// All data of a file, in the kernel where it can, holes and all.
fn copy_data(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => break,
            Err(e) => return Err(Error::call("copy_file_range", e)),
        }
    }
    let mut buffer = vec![0; 128 << 10];
    loop {
        match rustix::io::read(from, &mut buffer[..]) {
            Ok(0) => return Ok(()),
            Ok(n) => write_all(to, &buffer[..n])?,
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::call("read of a lower file", e)),
        }
    }
}
