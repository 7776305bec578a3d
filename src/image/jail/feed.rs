//! How the blob gets to the child: through a pipe; or, where a copy of it is kept, by way of that copy, which the child
//! reads as far as the pipe says that it is written. That costs a copy and a page less for each page of the blob.
//! Uses: pipeline (the size of a chunk).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Bytes of a word in the pipe of a blob that is kept; it begins with how many bytes there are now. Four fill the pipe: the
/// caller is four chunks ahead at most, and what the child reads is in the processor's cache still.
const WORD: usize = PAGE / 4;
const PAGE: usize = 4096;

/// The end of the caller.
pub(crate) struct Feed {
    pipe: File,
    /// Bytes of the copy, where there is one.
    written: Option<u64>,
}

impl Feed {
    pub(super) fn new(pipe: OwnedFd, kept: bool) -> Feed {
        let size = if kept { PAGE } else { 4 * crate::pipeline::CHUNK };
        // A hint: the kernel may refuse as much to a user with many pipes.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, size);
        Feed { pipe: File::from(pipe), written: kept.then_some(0) }
    }

    /// Gives the child `chunk`, which stands at the end of the copy where there is one. `Ok(false)` when it reads no more.
    pub(crate) fn give(&mut self, chunk: &[u8]) -> io::Result<bool> {
        let given = match &mut self.written {
            Some(written) => {
                *written += chunk.len() as u64;
                let mut word = [0; WORD];
                word[..size_of::<u64>()].copy_from_slice(&written.to_le_bytes());
                self.pipe.write_all(&word)
            }
            None => self.pipe.write_all(chunk),
        };
        match given {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            given => given.map(|()| true),
        }
    }
}

/// The end of the child.
pub(super) struct Fed {
    pipe: File,
    /// The copy.
    kept: Option<File>,
    /// Bytes of the copy that are there, and those that were read.
    there: u64,
    at: u64,
}

impl Fed {
    pub(super) fn new(pipe: File, kept: Option<File>) -> Fed {
        Fed { pipe, kept, there: 0, at: 0 }
    }
}

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(kept) = &self.kept else { return self.pipe.read(buffer) };
        if self.at == self.there {
            let mut word = [0; WORD];
            match self.pipe.read_exact(&mut word) {
                // The caller has written it all, or given up: then nobody asks what came of it.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => read?,
            }
            self.there = word.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        }
        let left = usize::try_from(self.there.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let read = kept.read_at(&mut buffer[..want], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
