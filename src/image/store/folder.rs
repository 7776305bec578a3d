//! A folder of the store, by its fd: every name below is one component. Uses: error.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Code, Error, Result};

/// An opened folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// What lies in a store, by rcrun and by who keeps more there ([`Store::discard`](super::Store::discard)).
const OWN: [&str; 14] = [
    "blobs",
    "boot",
    "bundles",
    "chains",
    "containers",
    "form",
    "images",
    "layers",
    "leases",
    "lock",
    "mountpoints",
    "names",
    "partials",
    "tmp",
];

/// How many folders of a tree that is removed are open at a time.
const DEPTH: usize = 16;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Folder {
    /// The folder at `path`, made if it is not there, 0700: what is unpacked in it may have set-id bits and belong to
    /// users of this machine. And whether it is a store already.
    pub(crate) fn top(path: &Path) -> Result<(Folder, bool)> {
        use std::os::unix::fs::DirBuilderExt;
        // The store itself may be a link; nothing in it may.
        let open = || rustix::fs::open(path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT) => {
                let mut make = std::fs::DirBuilder::new();
                make.recursive(true).mode(0o700).create(path).map_err(|e| Error::call("mkdir", e))?;
                open()
            }
            opened => opened,
        };
        let fd = opened.map_err(|e| Error::call("open", e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::call("fstat", e))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Error::new(
                Code::Usage,
                format!("belongs to user {}, who could change what is run", stat.st_uid),
            ));
        }
        let folder = Folder(fd);
        let known = folder.mode("form")?.is_some();
        if !known {
            // A folder that something else lives in (`--store /tmp`) is closed to nobody, and none of it cleared away.
            let foreign = |name: &&String| !OWN.contains(&name.as_str()) && *name != "lost+found";
            if let Some(name) = folder.names()?.iter().find(foreign) {
                let why = format!("has {name:?} in it, and is no store: name a folder of its own");
                return Err(Error::new(Code::Usage, why));
            }
        }
        if stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&folder, Mode::RWXU).map_err(|e| Error::call("fchmod", e))?;
        }
        Ok((folder, known))
    }

    /// The folder `name`, made if it is not there.
    pub(crate) fn make(&self, name: &str) -> Result<Folder> {
        if let Some(there) = self.find(name)? {
            return Ok(there);
        }
        match self.make_new(name) {
            Ok(()) | Err(Errno::EXIST) => self.open(name),
            Err(error) => Err(Error::call(format_args!("mkdir {name}"), error)),
        }
    }

    /// Makes the folder `name`, which must not be there.
    pub(crate) fn make_new(&self, name: &str) -> std::result::Result<(), Errno> {
        rustix::fs::mkdirat(&self.0, name, Mode::RWXU)
    }

    /// The folder `name`.
    pub(crate) fn open(&self, name: &str) -> Result<Folder> {
        self.find(name)?.ok_or_else(|| Error::call(format_args!("open {name}"), Errno::NOENT))
    }

    /// The folder `name`, if it is there.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Folder>> {
        match rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some(Folder(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::call(format_args!("open {name}"), error)),
        }
    }

    /// The folder at `path` below this one, if it is there.
    pub(crate) fn find_below(&self, path: &str) -> Result<Option<Folder>> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.0, path, DIRECTORY, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(Folder(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::call(format_args!("open {path}"), error)),
        }
    }

    /// The same, once more.
    pub(crate) fn again(&self) -> Result<Folder> {
        self.0.try_clone().map(Folder).map_err(|e| Error::call("fcntl F_DUPFD_CLOEXEC", e))
    }

    /// Where it is, without links.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let link = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let path = rustix::fs::readlink(&link, Vec::new()).map_err(|e| Error::call("readlink", e))?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())))
    }

    /// The fd itself.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The regular file `name`, if it is there.
    pub(crate) fn file(&self, name: &str) -> Result<Option<File>> {
        Ok(self.file_and_size(name)?.map(|(file, _)| file))
    }

    fn file_and_size(&self, name: &str) -> Result<Option<(File, u64)>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return Err(Error::new(Code::Damaged, format!("{name} is a link")));
            }
            Err(error) => return Err(Error::call(format_args!("open {name}"), error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::call(format_args!("fstat {name}"), e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(Code::Damaged, format!("{name} is no regular file")));
        }
        Ok(Some((File::from(fd), u64::try_from(stat.st_size).unwrap_or(0))))
    }

    /// The file `name`, made; it must not be there.
    pub(crate) fn create(&self, name: &str) -> std::result::Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// The text of `name`, if it is there; at most `limit` bytes.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, size)) = self.file_and_size(name)? else { return Ok(None) };
        let failed = |e| Error::call(format_args!("read {name}"), e);
        // One byte more than it has: that a read of a regular file gives less is its end (read(2)).
        let mut text = Vec::with_capacity(size.min(limit) as usize + 1);
        let first = retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut text)));
        if first.map_err(|e| failed(e.into()))? as u64 != size {
            file.take((limit + 1).saturating_sub(text.len() as u64))
                .read_to_end(&mut text)
                .map_err(failed)?;
        }
        if text.len() as u64 > limit {
            return Err(Error::new(Code::Damaged, format!("{name} is larger than {limit} bytes")));
        }
        Ok(Some(text))
    }

    /// Writes `text` as `name`, whole and on the disk or not at all; by way of `unpublished`.
    pub(crate) fn publish(&self, unpublished: &Folder, name: &str, text: &[u8]) -> Result<()> {
        let failed = |call: &'static str| move |e| Error::call(format_args!("{call} {name}"), e);
        let mut file = unpublished.create(name).map_err(|e| failed("create")(e.into()))?;
        file.write_all(text).map_err(failed("write"))?;
        file.sync_all().map_err(failed("fsync"))?;
        rustix::fs::renameat(unpublished, name, self, name).map_err(|e| failed("rename")(e.into()))?;
        self.sync()
    }

    /// What was renamed into or out of this folder is on the disk when this returns.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.0).map_err(|e| Error::call("fsync of a folder", e))
    }

    /// Moves `name` to `to` as `new`, if nothing of that name is there. Whether it was moved.
    pub(crate) fn hand_over(&self, name: &str, to: &Folder, new: &str) -> Result<bool> {
        match rustix::fs::renameat_with(&self.0, name, to, new, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(Error::call(format_args!("rename {name} to {new}"), error)),
        }
    }

    /// Permission bits of `name`; `None` if it is not there.
    pub(crate) fn mode(&self, name: &str) -> Result<Option<u32>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_mode & 0o7777)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::call(format_args!("stat {name}"), error)),
        }
    }

    /// Sets the permission bits of `name`, which is no link.
    pub(crate) fn set_mode(&self, name: &str, mode: u32) -> Result<()> {
        match rustix::fs::chmodat(&self.0, name, Mode::from_raw_mode(mode), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::call(format_args!("chmod {name}"), error)),
        }
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let failed = |e: Errno| Error::call("read a folder of the store", e);
        // By an fd of its own: where it is read to is kept with the fd.
        let fd = rustix::fs::openat(&self.0, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        let mut buffer = [const { MaybeUninit::uninit() }; 2048];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // Somebody has removed it since it was opened (getdents(2)).
                Err(Errno::NOENT) => break,
                entry => entry.map_err(failed)?,
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes the file `name`. Whether it was there.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::call(format_args!("unlink {name}"), error)),
        }
    }

    /// Removes `name` and all below it: folder by folder, and what is deeper than `DEPTH` by [`Folder::remove_deep`].
    pub(crate) fn remove_tree(&self, name: &str) -> Result<()> {
        let failed = |e: Errno| Error::call(format_args!("remove {name}"), e);
        let c_name = std::ffi::CString::new(name).map_err(|_| failed(Errno::INVAL))?;
        self.remove_entry(&c_name, FileType::Unknown, DEPTH).map_err(failed)
    }

    /// Removes all that is in it.
    pub(crate) fn empty(&self) -> Result<()> {
        let failed = |e: Errno| Error::call("empty a folder of the store", e);
        // Once more as long as there was anything: a file system may leave out what moved while it was read.
        while self.clear(DEPTH).map_err(failed)? {
            rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Start(0)).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes what a folder has as `name`, of that type as far as its file system tells.
    fn remove_entry(&self, name: &CStr, kind: FileType, depth: usize) -> std::result::Result<(), Errno> {
        if kind != FileType::Directory {
            match self.unlink(name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
                Err(error) => return Err(error),
            }
        }
        if depth == 0 {
            return self.remove_deep(name);
        }
        let folder = match self.open_to_clear(name) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        loop {
            let cleared = folder.clear(depth - 1)?;
            match self.unlink(name, AtFlags::REMOVEDIR) {
                // A file system may leave out what moved in it while it was read.
                Err(Errno::NOTEMPTY) if cleared => {
                    rustix::fs::seek(&folder, rustix::fs::SeekFrom::Start(0))?;
                }
                Err(Errno::NOENT) => return Ok(()),
                removed => return removed,
            }
        }
    }

    /// Removes all that is in it, as far as one look tells. Whether there was anything.
    fn clear(&self, depth: usize) -> std::result::Result<bool, Errno> {
        let mut buffer = [const { MaybeUninit::uninit() }; 2048];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            any = true;
            self.remove_entry(name, entry.file_type(), depth)?;
        }
        Ok(any)
    }

    /// unlinkat(2) in it. Without privilege, a folder of an image may be closed to its owner.
    fn unlink(&self, name: &CStr, flags: AtFlags) -> std::result::Result<(), Errno> {
        match rustix::fs::unlinkat(&self.0, name, flags) {
            Err(Errno::ACCESS) => {
                rustix::fs::fchmod(&self.0, Mode::RWXU)?;
                rustix::fs::unlinkat(&self.0, name, flags)
            }
            unlinked => unlinked,
        }
    }

    /// The folder `name`, open to be cleared, whatever its mode is.
    fn open_to_clear(&self, name: &CStr) -> std::result::Result<Folder, Errno> {
        match rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty()) {
            // Without privilege, a folder of an image may be closed to its owner.
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(&self.0, name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty()).map(Folder)
            }
            opened => opened.map(Folder),
        }
    }

    /// Removes the folder `name` and all below it, which may be deeper than there are fds: folders below are first moved
    /// up, so that at any time two are open.
    fn remove_deep(&self, name: &CStr) -> std::result::Result<(), Errno> {
        let tree = self.open_to_clear(name)?;
        let _ = rustix::fs::fchmod(&tree, Mode::RWXU);
        let mut moved = 0u64;
        loop {
            let mut again = false;
            let entries: Vec<_> = Dir::read_from(&tree.0)?.collect::<std::result::Result<_, _>>()?;
            for entry in entries {
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                match rustix::fs::unlinkat(&tree.0, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(error) => return Err(error),
                }
                let folder = tree.open_to_clear(name)?;
                let _ = rustix::fs::fchmod(&folder, Mode::RWXU);
                for below in Dir::read_from(&folder.0)? {
                    let below = below?;
                    let below = below.file_name();
                    if below == c"." || below == c".." {
                        continue;
                    }
                    match rustix::fs::unlinkat(&folder.0, below, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => continue,
                        Err(Errno::ISDIR | Errno::PERM) => {}
                        Err(error) => return Err(error),
                    }
                    // A folder can be moved only by who may write to it: its `..` changes.
                    let _ = rustix::fs::chmodat(&folder.0, below, Mode::RWXU, AtFlags::empty());
                    loop {
                        let up = format!(".removed-{moved}");
                        moved += 1;
                        match rustix::fs::renameat_with(
                            &folder.0,
                            below,
                            &tree.0,
                            &up,
                            RenameFlags::NOREPLACE,
                        ) {
                            Ok(()) => break,
                            Err(Errno::EXIST) => {}
                            Err(error) => return Err(error),
                        }
                    }
                    again = true;
                }
                rustix::fs::unlinkat(&tree.0, name, AtFlags::REMOVEDIR)?;
            }
            if !again {
                break;
            }
        }
        rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)
    }

    /// Locks the folder itself, if no living process has.
    pub(crate) fn try_lock(&self) -> Result<bool> {
        try_lock(&self.0)
    }
}

/// Locks an opened file for this process alone, if no living process has. The kernel unlocks when the process ends,
/// however it ends.
pub(crate) fn try_lock(fd: impl AsFd) -> Result<bool> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(Error::call("flock", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_there_are_fds_is_removed_and_links_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (top, _) = Folder::top(&place.path().join("store")).unwrap();
        std::fs::write(place.path().join("outside"), "kept").unwrap();
        let tree = top.make("tree").unwrap();
        let mut at = tree;
        for depth in 0..3000 {
            if depth % 100 == 0 {
                at.create("file").unwrap();
                rustix::fs::symlinkat("../../../../outside", &at, "link").unwrap();
                at.make(".removed-1").unwrap();
            }
            at = at.make("deeper").unwrap();
        }
        top.remove_tree("tree").unwrap();
        assert_eq!(top.names().unwrap(), Vec::<String>::new());
        assert_eq!(std::fs::read_to_string(place.path().join("outside")).unwrap(), "kept");
        top.remove_tree("tree").unwrap();
    }

    #[test]
    fn the_store_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/store");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Folder::top(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_something_else_lives_in_is_neither_closed_nor_made_a_store() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let mode = || std::fs::metadata(place.path()).unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(place.path().join("app.tar"), "").unwrap();
        let error = Folder::top(place.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("has \"app.tar\" in it, and is no store: name a folder of its own"),
            "{error}"
        );
        assert_eq!(mode(), 0o755);
        // A disk of its own, and what a first opener that was killed left.
        std::fs::remove_file(place.path().join("app.tar")).unwrap();
        std::fs::create_dir(place.path().join("lost+found")).unwrap();
        std::fs::create_dir(place.path().join("blobs")).unwrap();
        Folder::top(place.path()).unwrap();
        assert_eq!(mode(), 0o700);
    }
}
