//! The files of a source by their names, wherever they are: in a folder, or in a tar that is read in place.
//! Uses: archive, document, digest, error, compression, in_root.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

use super::archive::Archive;
use crate::compression::{self, Compression};
use crate::digest::Verified;
use crate::document::{Descriptor, SIZE_MAX};
use crate::error::{Code, Error, Result};
use crate::in_root::open_in_root;

/// A folder or a tar.
pub(super) enum Files {
    Folder(OwnedFd),
    Archive(Archive),
}

/// One file: a stretch of an opened file, read without moving that file's offset.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.offset += read as u64;
        self.size -= read as u64;
        Ok(read)
    }
}

impl Files {
    pub(super) fn open(path: &Path, scratch: BorrowedFd<'_>, limit: u64) -> Result<Files> {
        // A FIFO would wait for its writer here.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| {
            let error = Error::call("open", e);
            match e {
                rustix::io::Errno::NOENT => Error::new(Code::NotFound, error.to_string()),
                _ => error,
            }
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::call("fstat", e))?;
        let file = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Ok(Files::Folder(fd)),
            FileType::RegularFile => File::from(fd),
            _ => {
                // Now it may wait: for the writer, and for what it writes.
                let waiting = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|e| Error::call("open", e))?;
                return spooled(File::from(waiting), scratch, limit);
            }
        };
        let mut begin = [0; 8];
        let read = file.read_at(&mut begin, 0).map_err(|e| Error::call("read", e))?;
        if Compression::sniff(&begin[..read]) != Compression::Plain {
            return spooled(file, scratch, limit);
        }
        Archive::index(file).map(Files::Archive)
    }

    /// The file `name`, if there is one.
    pub(super) fn find(&self, name: &str) -> Result<Option<Member>> {
        let folder = match self {
            Files::Archive(archive) => return archive.find(name),
            Files::Folder(folder) => folder,
        };
        // A link within the layout may lead anywhere within the layout.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match open_in_root(folder, name, flags) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Error::call(format_args!("open {name}"), error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::call(format_args!("fstat {name}"), e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::invalid(format!("{name}: is no regular file")));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Some(Member { file: Arc::new(File::from(fd)), offset: 0, size }))
    }

    /// The file `name`, which must be there.
    pub(super) fn require(&self, name: &str) -> Result<Member> {
        self.find(name)?.ok_or_else(|| Error::new(Code::NotFound, format!("{name}: is not there")))
    }

    /// The text of the document `name`, if there is one.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.find(name)?.map(|member| text_of(name, member)).transpose()
    }

    /// The text of the document that `descriptor` names, verified.
    pub(super) fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.digest;
        let member = self.require(&blob_path(descriptor))?;
        if descriptor.size > SIZE_MAX {
            return Err(Error::new(Code::Limit, format!("blob {digest}: is larger than {SIZE_MAX} bytes")));
        }
        if member.size != descriptor.size {
            return Err(Error::invalid(format!(
                "blob {digest}: has {} bytes, and its descriptor says {}",
                member.size, descriptor.size
            )));
        }
        let mut text = Vec::new();
        Verified::new(member, digest, descriptor.size)
            .read_to_end(&mut text)
            .map_err(|e| Error::call(format_args!("blob {digest}: read"), e))?;
        Ok(text)
    }
}

/// Where a layout has a blob.
pub(super) fn blob_path(descriptor: &Descriptor) -> String {
    format!("blobs/{}/{}", descriptor.digest.algorithm().as_str(), descriptor.digest.hex())
}

pub(super) fn text_of(name: &str, member: Member) -> Result<Vec<u8>> {
    if member.size > SIZE_MAX {
        return Err(Error::new(Code::Limit, format!("{name}: is larger than {SIZE_MAX} bytes")));
    }
    let mut text = Vec::new();
    let size = member.size;
    let mut member = member;
    member.read_to_end(&mut text).map_err(|e| Error::call(format_args!("read {name}"), e))?;
    if text.len() as u64 != size {
        return Err(Error::invalid(format!("{name}: is truncated")));
    }
    Ok(text)
}

/// The archive in `file`, decompressed into a file without a name: it goes with the process, however that ends.
fn spooled(file: File, scratch: BorrowedFd<'_>, limit: u64) -> Result<Files> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let into = rustix::fs::openat(scratch.as_fd(), ".", flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| Error::call("open an unnamed file in the store", e))?;
    let mut into = BufWriter::with_capacity(1 << 20, File::from(into));
    let mut archive = compression::decompress(file, None, limit)?;
    io::copy(&mut archive, &mut into).map_err(|e| Error::call("decompress the archive", e))?;
    into.flush().map_err(|e| Error::call("write", e))?;
    let mut file = into.into_inner().map_err(|e| Error::call("write", e.into_error()))?;
    file.seek(SeekFrom::Start(0)).map_err(|e| Error::call("seek", e))?;
    Archive::index(file).map(Files::Archive)
}
