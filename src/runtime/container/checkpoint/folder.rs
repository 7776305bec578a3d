//! The folders of images and log. What lies in the first may come from anywhere.

use super::Images;
use crate::criu;
use crate::error::CallContext;
use crate::{Code, Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What stdin, stdout and stderr were: an array of three texts, as runc and crun write it.
const DESCRIPTORS: &str = "descriptors.json";
/// Three paths or numbers of pipes, and room.
const DESCRIPTORS_SIZE: u64 = 64 << 10;

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

    /// Images are files. A link would have any file of the machine read as the container's memory; only a parent's folder
    /// is a link, which CRIU makes itself.
    pub(super) fn refuse_links(&self) -> Result<()> {
        let what = || format!("read {}", self.logs.display());
        let entries = rustix::fs::Dir::read_from(&self.images).call(what())?;
        for entry in entries {
            let entry = entry.call(what())?;
            let name = entry.file_name();
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat =
                        rustix::fs::statat(&self.images, name, AtFlags::SYMLINK_NOFOLLOW).call(what())?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            if kind == FileType::Symlink && name != c"parent" {
                return Err(Error::new(
                    Code::Config,
                    format!(
                        "the image {} is a symbolic link, which CRIU never writes: these are not the images of a checkpoint",
                        name.to_string_lossy()
                    ),
                ));
            }
        }
        Ok(())
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

fn make(path: &Path) -> Result<()> {
    // Memory of processes, and all that they keep secret in it.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.call(format!("mkdir {}", path.display()))
}
