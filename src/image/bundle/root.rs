//! Files inside a root file system that nobody vouches for: found below an fd, regular, bounded. Uses: error, in_root,
//! layer.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::in_root::open_in_root;
use crate::layer;

/// No file that is read from a root is larger.
pub const FILE_MAX: u64 = 1 << 20;

/// The root file system of a container, by its fd: that of the mounted overlay, so that whiteouts are not read past.
#[derive(Debug)]
pub struct RootFiles {
    root: OwnedFd,
}

impl RootFiles {
    /// The root behind `root`, a folder.
    pub fn new(root: OwnedFd) -> RootFiles {
        RootFiles { root }
    }

    /// The root at `path`.
    pub fn open(path: &Path) -> Result<RootFiles> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map(RootFiles::new)
            .map_err(|e| Error::call(format_args!("open {}", path.display()), e))
    }

    fn find(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        open_in_root(&self.root, path, flags)
    }

    /// The content of the file `path` of the root, or nothing if there is none. Links are followed as the container
    /// would. What is not a regular file, or larger than a mebibyte, is refused.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let failed = |call: &str, e: Errno| failed(call, path, e);
        // First without opening: to open a FIFO waits, to open a device may do anything.
        let place = match self.find(path, OFlags::PATH) {
            Ok(place) => place,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(failed("openat2", e)),
        };
        let seen = rustix::fs::fstat(&place).map_err(|e| failed("fstat", e))?;
        let kind = FileType::from_raw_mode(seen.st_mode);
        if kind != FileType::RegularFile {
            return Err(Error::invalid(format!("{path} in the root is {}, not a file", words(kind))));
        }
        let too_large =
            || Error::new(Code::Limit, format!("{path} in the root is larger than {FILE_MAX} bytes"));
        if seen.st_size as u64 > FILE_MAX {
            return Err(too_large());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.find(path, flags).map_err(|e| failed("openat2", e))?;
        let opened = rustix::fs::fstat(&file).map_err(|e| failed("fstat", e))?;
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino) {
            return Err(Error::invalid(format!("{path} in the root was exchanged while it was opened")));
        }
        let mut content = Vec::with_capacity(seen.st_size as usize);
        File::from(file)
            .take(FILE_MAX + 1)
            .read_to_end(&mut content)
            .map_err(|e| Error::call(format_args!("read {path} in the root"), e))?;
        if content.len() as u64 > FILE_MAX {
            return Err(too_large());
        }
        Ok(Some(content))
    }

    /// Makes the folder `path` of the root and those above it, 0755, where they are not there. Gives its path, without
    /// symbolic links and without a slash at its begin.
    pub fn make_folder(&self, path: &str) -> Result<PathBuf> {
        let folder = self.folder(path, path)?;
        let real = |fd: &OwnedFd| {
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
                .map_err(|e| Error::call(format_args!("readlink of {path} in the root"), e))
        };
        let root = self.find("/", OFlags::PATH).map_err(|e| failed("openat2", path, e))?;
        let (folder, root) = (real(&folder)?, real(&root)?);
        folder.strip_prefix(&root).map(Path::to_path_buf).map_err(|_| {
            Error::invalid(format!(
                "{path} in the root is {}, not below {}",
                folder.display(),
                root.display()
            ))
        })
    }

    /// The same, for who does not ask for the path.
    pub fn ensure_folder(&self, path: &str) -> Result<()> {
        match self.find(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => Ok(()),
            Err(_) => self.folder(path, path).map(drop),
        }
    }

    /// Makes the empty file `path` of the root, 0644, and the folders above it, where they are not there.
    pub fn make_file(&self, path: &str) -> Result<()> {
        match self.find(path, OFlags::PATH) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(failed("openat2", path, e)),
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = self.folder(above, path)?;
        let times = times(&above).map_err(|e| failed("fstat", path, e))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&above, name, flags, mode).map_err(|e| failed("create", path, e))?;
        // The caller's umask is not the container's.
        rustix::fs::fchmod(&file, mode).map_err(|e| failed("fchmod", path, e))?;
        restore(&above, &times).map_err(|e| failed("utimensat", path, e))
    }

    /// Gives `into`, an empty folder, all that the folder `path` of the root has, and its attributes. Where there is none it
    /// stays as it is.
    pub fn copy_folder(&self, path: &str, into: BorrowedFd<'_>) -> Result<()> {
        let folder = match self.find(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(e) => return Err(failed("openat2", path, e)),
        };
        layer::copy(folder.as_fd(), into).map_err(|e| {
            let errno = e.errno();
            Error::with_errno(Code::System, format!("copy {path} in the root: {e}"), errno)
        })
    }

    /// The folder `path`, made for the sake of `whole`.
    fn folder(&self, path: &str, whole: &str) -> Result<OwnedFd> {
        let failed = |call: &str, e: Errno| failed(call, whole, e);
        let mut above = self.find("/", OFlags::PATH | OFlags::DIRECTORY).map_err(|e| failed("openat2", e))?;
        let mut reached = String::new();
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            reached.push('/');
            reached.push_str(name);
            above = match self.find(&reached, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    let times = times(&above).map_err(|e| failed("fstat", e))?;
                    rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))
                        .map_err(|e| failed("mkdir", e))?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let made = rustix::fs::openat(&above, name, flags, Mode::empty())
                        .map_err(|e| failed("open", e))?;
                    // The caller's umask is not the container's.
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(|e| failed("fchmod", e))?;
                    restore(&above, &times).map_err(|e| failed("utimensat", e))?;
                    made
                }
                Err(e) => return Err(failed("openat2", e)),
            };
        }
        Ok(above)
    }
}

fn failed(call: &str, path: &str, e: Errno) -> Error {
    Error::call(format_args!("{call} {path} in the root"), e)
}

/// A folder's times, to be given back: that something was made in it is no change of the container's.
fn times(folder: &OwnedFd) -> rustix::io::Result<Timestamps> {
    let stat = rustix::fs::fstat(folder)?;
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    })
}

fn restore(folder: &OwnedFd, times: &Timestamps) -> rustix::io::Result<()> {
    // futimens(2) takes no fd of O_PATH.
    // By its path: before Linux 5.8 utimensat takes no fd of O_PATH.
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    rustix::fs::utimensat(rustix::fs::CWD, path, times, rustix::fs::AtFlags::empty())
}

fn words(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, RootFiles) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("root/etc")).unwrap();
        fs::write(place.path().join("secret"), "outside").unwrap();
        let root = RootFiles::open(&place.path().join("root")).unwrap();
        (place, root)
    }

    #[test]
    fn links_are_followed_inside_of_the_root_only() {
        let (place, root) = root();
        let etc = place.path().join("root/etc");
        fs::write(etc.join("real"), "inside").unwrap();
        let secret = place.path().join("secret");
        for (target, expected) in [
            ("real", Some("inside")),
            ("/etc/real", Some("inside")),
            ("../../../../etc/real", Some("inside")),
            ("../../secret", None),
            (secret.to_str().unwrap(), None),
            ("/nowhere", None),
            ("real/x", None),
        ] {
            let _ = fs::remove_file(etc.join("passwd"));
            symlink(target, etc.join("passwd")).unwrap();
            let read = root.read("/etc/passwd").unwrap();
            assert_eq!(read.as_deref(), expected.map(str::as_bytes), "{target}");
        }
    }

    #[test]
    fn what_is_no_plain_small_file_is_refused_and_not_waited_for() {
        let (place, root) = root();
        let etc = place.path().join("root/etc");
        rustix::fs::mknodat(rustix::fs::CWD, etc.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(etc.join("socket")).unwrap();
        fs::create_dir(etc.join("folder")).unwrap();
        fs::File::create(etc.join("giant")).unwrap().set_len(1 << 30).unwrap();
        fs::File::create(etc.join("most")).unwrap().set_len(FILE_MAX).unwrap();
        fs::File::create(etc.join("more")).unwrap().set_len(FILE_MAX + 1).unwrap();
        symlink("loop", etc.join("loop")).unwrap();
        symlink("/proc/self/environ", etc.join("proc")).unwrap();
        for (name, why) in [
            ("fifo", "/etc/fifo in the root is a FIFO, not a file"),
            ("socket", "/etc/socket in the root is a socket, not a file"),
            ("folder", "/etc/folder in the root is a folder, not a file"),
            ("giant", "/etc/giant in the root is larger than 1048576 bytes"),
            ("more", "/etc/more in the root is larger than 1048576 bytes"),
            ("loop", "openat2 /etc/loop in the root: too many levels of symbolic links"),
        ] {
            let error = root.read(&format!("/etc/{name}")).unwrap_err();
            assert_eq!(error.to_string(), why);
        }
        assert_eq!(root.read("/etc/most").unwrap().unwrap().len() as u64, FILE_MAX);
        assert_eq!(root.read("/etc/proc").unwrap(), None);
    }

    #[test]
    fn folders_are_made_inside_of_the_root_only() {
        let (place, root) = root();
        symlink("/var/real", place.path().join("root/link")).unwrap();
        symlink("../../..", place.path().join("root/up")).unwrap();
        fs::create_dir_all(place.path().join("root/var/real")).unwrap();
        root.make_folder("/link/a/./b").unwrap();
        root.make_folder("/up/c").unwrap();
        root.make_folder("/").unwrap();
        assert!(place.path().join("root/c").is_dir() && !place.path().join("c").exists());
        let made = fs::metadata(place.path().join("root/var/real/a/b")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o755);
        symlink("/nowhere", place.path().join("root/dangling")).unwrap();
        let error = root.make_folder("/dangling/x").unwrap_err();
        assert_eq!(error.to_string(), "mkdir /dangling/x in the root: file exists");
        fs::write(place.path().join("root/file"), "").unwrap();
        let error = root.make_folder("/file/x").unwrap_err();
        assert_eq!(error.to_string(), "openat2 /file/x in the root: not a directory");
    }
}
