//! The folders of images and log. What lies in the first may come from anywhere.

use super::Images;
use crate::criu;
use crate::error::CallContext;
use crate::resolve::open_within;
use crate::{Code, Error, Result, sys};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, readlinkat, unlinkat};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What stdin, stdout and stderr were: an array of three texts, as runc and crun write it.
const DESCRIPTORS: &str = "descriptors.json";
/// Three paths or numbers of pipes, and room.
const DESCRIPTORS_SIZE: u64 = 64 << 10;

/// CRIU's name of the folder that has what was written before.
const PARENT: &str = "parent";
/// So long a chain is nobody's.
const MOST_PARENTS: usize = 64;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Both folders, open.
#[derive(Debug)]
pub(super) struct Folder {
    images: OwnedFd,
    work: Option<OwnedFd>,
    logs: PathBuf,
}

impl Folder {
    /// Makes what is not there.
    pub(super) fn make(options: &Images) -> Result<Folder> {
        make(&options.path)?;
        Folder::open(options)
    }

    /// Of images that are there.
    pub(super) fn open(options: &Images) -> Result<Folder> {
        let images = criu::open_folder(&options.path)?;
        let work = match &options.work {
            Some(path) => {
                make(path)?;
                Some(criu::open_folder(path)?)
            }
            None => None,
        };
        let logs = options.work.as_ref().unwrap_or(&options.path).clone();
        Ok(Folder { images, work, logs })
    }

    /// Both have the same images.
    pub(super) fn is(&self, other: &Folder) -> Result<bool> {
        let stat =
            |folder: &Folder| rustix::fs::fstat(&folder.images).call("stat of the folder of the images");
        let (one, other) = (stat(self)?, stat(other)?);
        Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
    }

    pub(super) fn images_number(&self) -> u32 {
        self.images.as_raw_fd() as u32
    }

    pub(super) fn work_number(&self) -> Option<u32> {
        self.work.as_ref().map(|fd| fd.as_raw_fd() as u32)
    }

    /// CRIU would write through a link of the log's name (CVE-2026-50195).
    pub(super) fn remove_log(&self, name: &str) -> Result<()> {
        match unlinkat(self.work.as_ref().unwrap_or(&self.images), name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e).call(format!("unlink {}", self.logs.join(name).display())),
        }
    }

    /// Adds to an error what the log says, and where it is.
    pub(super) fn with_log(&self, name: &str, error: Error) -> Error {
        let folder = self.work.as_ref().unwrap_or(&self.images);
        let path = self.logs.join(name);
        if !path.exists() {
            return error;
        }
        let said = match criu::excerpt(folder.as_fd(), name) {
            said if said.is_empty() => String::new(),
            said => format!("{said}: "),
        };
        Error::new(error.code(), format!("{error}: {said}see {}", path.display()))
    }

    /// Images are files. A link would have any file of the machine read as the container's memory, or written over, and a
    /// FIFO would be waited for. Only a parent's folder is a link, which CRIU makes itself: `given`, or within the folder
    /// that the images' own lies in.
    pub(super) fn refuse_others(&self, options: &Images, given: Option<&Path>) -> Result<()> {
        let real = sys::path::real(&options.path).call(format!("find {}", options.path.display()))?;
        let mut folder =
            rustix::io::fcntl_dupfd_cloexec(&self.images, 3).call("dup of the folder of images")?;
        let around =
            openat(&folder, "..", FOLDER, Mode::empty()).call(format!("open {}/..", real.display()))?;
        let mut below = PathBuf::from(real.file_name().unwrap_or_default());
        let mut given = given;
        for _ in 0..MOST_PARENTS {
            only_files(&folder, &options.path, options.lazy_pages)?;
            let link = match readlinkat(&folder, PARENT, Vec::new()) {
                Ok(link) => PathBuf::from(OsStr::from_bytes(link.as_bytes())),
                Err(rustix::io::Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e).call(format!("readlink {PARENT} of the images")),
            };
            let next = match given.take().is_some_and(|given| given == link) {
                true => openat(&folder, &link, FOLDER, Mode::empty()),
                false => {
                    below.push(&link);
                    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                    open_within(&around, &below, FOLDER, resolve)
                }
            };
            folder = next.map_err(|e| {
                let link = link.display();
                let text =
                    format!("the images' link {PARENT} leads to {link}, and not to a folder beside theirs");
                Error::new(Code::Config, format!("{text} ({e}): --parent-path {link} allows another"))
            })?;
        }
        Err(Error::new(Code::Config, format!("the images have more than {MOST_PARENTS} parents")))
    }

    /// Writes what stdin, stdout and stderr are.
    pub(super) fn write_descriptors(&self, descriptors: &[String]) -> Result<()> {
        let text = serde_json::to_vec(descriptors)
            .map_err(|e| Error::new(Code::System, format!("{DESCRIPTORS} cannot be written: {e}")))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.images, DESCRIPTORS, flags, Mode::RUSR | Mode::WUSR)
            .call(format!("open {DESCRIPTORS}"))?;
        std::io::Write::write_all(&mut std::fs::File::from(fd), &text).call(format!("write {DESCRIPTORS}"))
    }

    /// What they were.
    pub(super) fn read_descriptors(&self) -> Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(&self.images, DESCRIPTORS, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => {
                return Err(Error::new(
                    Code::Config,
                    format!(
                        "no {DESCRIPTORS} in {}: it holds no checkpoint of a container",
                        self.logs.display()
                    ),
                ));
            }
            Err(e) => return Err(e).call(format!("open {DESCRIPTORS}")),
        };
        let mut text = Vec::new();
        std::fs::File::from(fd)
            .take(DESCRIPTORS_SIZE)
            .read_to_end(&mut text)
            .call(format!("read {DESCRIPTORS}"))?;
        serde_json::from_slice::<Vec<String>>(&text).ok().filter(|all| all.len() <= 3).ok_or_else(|| {
            Error::new(Code::Config, format!("{DESCRIPTORS} is not an array of at most three texts"))
        })
    }
}

fn only_files(folder: &OwnedFd, path: &Path, lazy_pages: bool) -> Result<()> {
    let what = || format!("read {}", path.display());
    for entry in rustix::fs::Dir::read_from(folder).call(what())? {
        let entry = entry.call(what())?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).call(what())?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        let kind = match kind {
            FileType::RegularFile => continue,
            FileType::Symlink if name.to_bytes() == PARENT.as_bytes() => continue,
            // Mount points that it makes itself, and leaves where it is killed.
            FileType::Directory if name.to_bytes().starts_with(b".criu.") => continue,
            // Where `criu lazy-pages` listens.
            FileType::Socket if lazy_pages && name == c"lazy-pages.socket" => continue,
            FileType::Symlink => "symbolic link",
            FileType::Directory => "folder",
            FileType::Fifo => "FIFO",
            FileType::Socket => "socket",
            _ => "device",
        };
        let name = name.to_string_lossy();
        let text = format!("the image {name} is a {kind}, which CRIU never writes");
        return Err(Error::new(Code::Config, format!("{text}: these are not the images of a checkpoint")));
    }
    Ok(())
}

fn make(path: &Path) -> Result<()> {
    // Memory of processes, and all that they keep secret in it.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.call(format!("mkdir {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;
    use std::os::unix::fs::symlink;

    fn refused(images: &Path, given: Option<&str>) -> Option<String> {
        let options = Images { path: images.to_path_buf(), ..Images::default() };
        let folder = Folder::open(&options).unwrap();
        folder.refuse_others(&options, given.map(Path::new)).err().map(|error| error.to_string())
    }

    #[test]
    fn what_is_no_file_is_no_image() {
        let folder = scratch::Folder::new("images");
        let images = folder.path().join("a");
        std::fs::create_dir(&images).unwrap();
        std::fs::write(images.join("pstree.img"), "").unwrap();
        assert_eq!(refused(&images, None), None);
        let fifo = images.join("inventory.img");
        let (kind, mode) = (FileType::Fifo, Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        assert!(refused(&images, None).unwrap().contains("inventory.img is a FIFO"));
        std::fs::remove_file(&fifo).unwrap();
        symlink("/etc/shadow", images.join("pages-1.img")).unwrap();
        assert!(refused(&images, None).unwrap().contains("pages-1.img is a symbolic link"));
        std::fs::remove_file(images.join("pages-1.img")).unwrap();
        std::fs::create_dir(images.join(".criu.cgyard.X")).unwrap();
        assert_eq!(refused(&images, None), None);
        std::fs::create_dir(images.join("parent")).unwrap();
        assert!(refused(&images, None).unwrap().contains("parent is a folder"));
    }

    #[test]
    fn a_parent_lies_beside_its_child_or_where_the_caller_says_and_has_files_only() {
        let folder = scratch::Folder::new("images");
        let at = |name: &str| folder.path().join(name);
        for name in ["all", "all/a", "all/b", "all/c", "other"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let link = |from: &str, to: &str| {
            let _ = std::fs::remove_file(at(from).join("parent"));
            symlink(to, at(from).join("parent")).unwrap();
        };
        link("all/a", "../b");
        link("all/b", "../c");
        assert_eq!(refused(&at("all/a"), None), None);
        link("all/a", "../../other");
        assert!(refused(&at("all/a"), None).unwrap().contains("--parent-path ../../other"));
        assert_eq!(refused(&at("all/a"), Some("../../other")), None);
        link("all/a", "/etc");
        assert!(refused(&at("all/a"), Some("../../other")).is_some());
        link("all/a", "../b");
        symlink("/etc/shadow", at("all/c").join("pages-1.img")).unwrap();
        assert!(refused(&at("all/a"), None).unwrap().contains("pages-1.img is a symbolic link"));
        std::fs::remove_file(at("all/c").join("pages-1.img")).unwrap();
        link("all/c", "../a");
        assert!(refused(&at("all/a"), None).unwrap().contains("more than 64 parents"));
    }
}
