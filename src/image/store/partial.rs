//! Blobs of which only the beginning is here: what was read of them from far away outlives the import that failed.
//! Uses: digest, error, folder.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Kind, Store};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The beginning of a blob. One import at a time has it: others wait for that one, since what it reads they need not.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    store: &'a Store,
    digest: Digest,
    /// Read from its begin on, and then written.
    file: File,
}

impl Store {
    /// What there is of the blob, empty if there is nothing; `None` once the blob itself is there. `waits` is told
    /// when another import has it.
    pub(crate) fn partial(&self, digest: &Digest, waits: &dyn Fn()) -> Result<Option<Partial<'_>>> {
        let folder = self.of(Kind::Partials, digest.algorithm())?;
        let name = digest.hex();
        loop {
            if self.has_blob(digest)? {
                return Ok(None);
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let fd = rustix::fs::openat(folder, &name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|e| Error::call(format_args!("open partial {digest}"), e))?;
            let locked = match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {
                    waits();
                    rustix::fs::flock(&fd, FlockOperation::LockExclusive)
                }
                other => other,
            };
            match locked {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Error::call(format_args!("flock partial {digest}"), error)),
            }
            let file = File::from(fd);
            // Who had it before may have published or removed it while this one waited.
            let partial = Partial { store: self, digest: *digest, file };
            if partial.is_in_place()? {
                return Ok(Some(partial));
            }
        }
    }
}

impl Partial<'_> {
    fn is_in_place(&self) -> Result<bool> {
        let folder = self.store.of(Kind::Partials, self.digest.algorithm())?;
        let own = rustix::fs::fstat(&self.file).map_err(|e| Error::call("fstat", e))?;
        match rustix::fs::statat(folder, self.digest.hex(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::call("stat", error)),
        }
    }

    /// Publishes it as the blob that it was found to be.
    pub(crate) fn publish(self) -> Result<()> {
        let folder = self.store.of(Kind::Partials, self.digest.algorithm())?;
        let name = self.digest.hex();
        if !folder.hand_over(&name, self.store.blob_folder(&self.digest)?, &name)? {
            folder.remove(&name)?;
        }
        Ok(())
    }

    /// Removes it: its content is not what it should be, and going on from there would never help.
    pub(crate) fn refuse(self) -> Result<()> {
        let folder = self.store.of(Kind::Partials, self.digest.algorithm())?;
        folder.remove(&self.digest.hex()).map(|_| ())
    }
}

/// Reads what there is of a blob, then the rest of it from where `far` gets it, which is added to the file.
pub(crate) struct Continued<'a, R, F: FnMut(u64) -> Result<R>> {
    file: &'a File,
    far: F,
    rest: Option<R>,
    at: u64,
}

impl<'a, R: Read, F: FnMut(u64) -> Result<R>> Continued<'a, R, F> {
    pub(crate) fn new(partial: &'a Partial<'_>, far: F) -> Self {
        Continued { file: &partial.file, far, rest: None, at: 0 }
    }
}

impl<R: Read, F: FnMut(u64) -> Result<R>> Read for Continued<'_, R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = match &mut self.rest {
            Some(rest) => rest,
            None => {
                let read = self.file.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    self.at += read as u64;
                    return Ok(read);
                }
                self.rest.insert((self.far)(self.at)?)
            }
        };
        let read = rest.read(buffer)?;
        self.file.write_all(&buffer[..read])?;
        Ok(read)
    }
}
