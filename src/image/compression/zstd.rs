//! The reader of zstd frames, which bounds their windows before memory is taken for them. Uses: error, compression.

use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Claim, undone};
use crate::error::{Error, Result};

/// A zstd window of 128 MiB: what every zstd decoder takes without being asked, so images have no more. Of windows
/// above 8 MiB only one at a time is decoded for a process: a second stream waits until the first one ends, so no thread
/// may read two of them in turns.
pub const WINDOW_LOG_MAX: u32 = 27;

/// A frame's window up to this is every decoder's own affair.
const WINDOW_OF_ALL: u64 = 8 << 20;

/// The longest header of a frame.
const HEADER_MAX: usize = 18;

/// The right to a window above [`WINDOW_OF_ALL`]: one stream has it at a time of those that this process, or a child
/// of it, decodes.
pub(crate) struct Wide(());

static WIDE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl Wide {
    /// Waits for it.
    pub(crate) fn take() -> Wide {
        let (taken, freed) = &WIDE;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        *freed.wait_while(taken, |taken| *taken).unwrap_or_else(PoisonError::into_inner) = true;
        Wide(())
    }
}

impl Drop for Wide {
    fn drop(&mut self) {
        let (taken, freed) = &WIDE;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        freed.notify_one();
    }
}

/// What the header of a zstd frame says; `None` for a skippable frame, and for what is no header, of which the decoder
/// tells.
#[derive(Debug, PartialEq)]
struct Header {
    /// Bytes of memory to decode it.
    window: u64,
    /// Bytes that come out, where it says so.
    content: Option<u64>,
}

impl Header {
    fn of(begin: &[u8]) -> Option<Header> {
        let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = begin else { return None };
        let single = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = rest.get(usize::from(!single) + dictionary..)?;
        let number = |bytes: usize| {
            size.get(..bytes).map(|b| b.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let content = match descriptor >> 6 {
            0 if !single => None,
            0 => Some(number(1)?),
            1 => Some(number(2)? + 256),
            2 => Some(number(4)?),
            // All ones is libzstd's own word for "not known".
            _ => Some(number(8)?).filter(|content| *content != u64::MAX),
        };
        let window = if single {
            // A single segment: its window is its content.
            content.unwrap_or(u64::MAX)
        } else {
            let base = 1u64 << (10 + (rest[0] >> 3));
            base + base / 8 * u64::from(rest[0] & 7)
        };
        Some(Header { window, content })
    }
}

/// zstd's own streaming state, fed by hand: the crate's reader says nothing of where a frame begins.
pub(super) struct Zstd<'a, R> {
    input: R,
    /// What was read to look at a frame's header, and is not decoded yet.
    head: Vec<u8>,
    state: zstd::stream::raw::Decoder<'static>,
    /// Within a frame: end of file is none here.
    inside: bool,
    /// Bytes that the frame still owes to what its header said. libzstd holds a frame to it only if it decodes the frame
    /// in one go, so a frame that ends in an empty block would be valid or not by the size of the reader's buffer.
    owed: Option<u64>,
    /// Claims the right to a wide window. What it holds is dropped after the decoder.
    claim: Claim<'a>,
    claimed: bool,
}

impl<'a, R: BufRead> Zstd<'a, R> {
    pub(super) fn new(input: R, claim: Claim<'a>) -> Result<Self> {
        let mut state = zstd::stream::raw::Decoder::new().map_err(|e| Error::call("zstd", e))?;
        state
            .set_parameter(zstd::stream::raw::DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(|e| Error::call("zstd", e))?;
        Ok(Zstd { input, head: Vec::new(), state, inside: false, owed: None, claim, claimed: false })
    }

    /// Looks at the header of the next frame. `Ok(false)` at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        while self.head.len() < HEADER_MAX {
            let input = self.input.fill_buf()?;
            if input.is_empty() {
                break;
            }
            let take = input.len().min(HEADER_MAX - self.head.len());
            self.head.extend_from_slice(&input[..take]);
            self.input.consume(take);
        }
        let header = Header::of(&self.head);
        self.owed = header.as_ref().and_then(|header| header.content);
        if !self.claimed && header.is_some_and(|header| header.window > WINDOW_OF_ALL) {
            (self.claim)()?;
            self.claimed = true;
        }
        self.inside = !self.head.is_empty();
        Ok(self.inside)
    }
}

impl<R: BufRead> Read for Zstd<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use zstd::stream::raw::Operation;
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside && !self.begin()? {
                return Ok(0);
            }
            let from_head = !self.head.is_empty();
            let input = if from_head { &self.head[..] } else { self.input.fill_buf()? };
            let ended = input.is_empty();
            // What the decoder holds back comes out without more input.
            let status = self.state.run_on_buffers(input, buffer).map_err(|error| undone("zstd", error))?;
            match from_head {
                true => drop(self.head.drain(..status.bytes_read)),
                false => self.input.consume(status.bytes_read),
            }
            self.inside = status.remaining != 0;
            if let Some(owed) = &mut self.owed {
                let left = owed.checked_sub(status.bytes_written as u64);
                if left.is_none() || !self.inside && left != Some(0) {
                    let broken = "what comes out of a frame is not as long as its header says";
                    return Err(undone("zstd", io::Error::new(io::ErrorKind::InvalidData, broken)));
                }
                *owed = left.unwrap_or(0);
            }
            if status.bytes_written > 0 {
                return Ok(status.bytes_written);
            }
            if ended && self.inside {
                return Err(undone("zstd", io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{decompress, tests::*};
    use super::*;

    #[test]
    fn window_and_content_are_read_from_the_header() {
        let with = |log: u32, pledged: bool| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(log).unwrap();
            let content = vec![7; 100_000];
            if pledged {
                encoder.set_pledged_src_size(Some(content.len() as u64)).unwrap();
            }
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap()
        };
        for (packed, header) in [
            (with(20, false), Some((1 << 20, None))),
            (with(27, false), Some((1 << 27, None))),
            (with(27, true), Some((100_000, Some(100_000)))),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, 9], Some((9, Some(9)))),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0x60, 1, 1], Some((513, Some(513)))),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0x40, 0x00, 1, 1], Some((1 << 10, Some(513)))),
            (
                vec![0x28, 0xb5, 0x2f, 0xfd, 0xe3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                Some((1 << 56, Some(1 << 56))),
            ),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x0f], Some(((1 << 11) + 7 * (1 << 8), None))),
            ([&[0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x00], &[0xff; 8][..]].concat(), Some((1 << 10, None))),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x00, 1, 1, 1], None),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0x00], None),
            (vec![0x28, 0xb5, 0x2f, 0xfd], None),
            (skippable(b"x"), None),
        ] {
            let header = header.map(|(window, content)| Header { window, content });
            assert_eq!(Header::of(&packed[..packed.len().min(HEADER_MAX)]), header, "{:x?}", &packed[..4]);
        }
    }

    #[test]
    fn a_frame_is_as_long_as_its_header_says_whatever_the_size_of_a_read() {
        let frame = |content: u8, raw: &[u8], last_is_empty: bool| {
            let block = |last: bool, content: &[u8]| {
                let header = (content.len() as u32) << 3 | u32::from(last);
                [&header.to_le_bytes()[..3], content].concat()
            };
            let begin = [0x28, 0xb5, 0x2f, 0xfd, 0x20, content];
            let end = if last_is_empty { block(true, b"") } else { Vec::new() };
            [&begin[..], &block(!last_is_empty, raw), &end].concat()
        };
        for (packed, valid) in [
            (frame(9, b"123456789", false), true),
            (frame(9, b"123456789", true), true),
            (frame(9, b"12345678", false), false),
            (frame(9, b"12345678", true), false),
            (frame(8, b"123456789", false), false),
            (frame(8, b"123456789", true), false),
            ([frame(9, b"12345678", true), frame(7, b"12345678", true)].concat(), false),
        ] {
            for at_once in [1, 7, 8, 9, 64 << 10] {
                let mut reader = decompress(&packed[..], None, 1 << 20).unwrap();
                let mut buffer = vec![0; at_once];
                let end = loop {
                    match reader.read(&mut buffer) {
                        Ok(0) => break Ok(()),
                        Ok(_) => {}
                        Err(error) => break Err(error.to_string()),
                    }
                };
                assert_eq!(end.is_ok(), valid, "{packed:x?} read by {at_once}: {end:?}");
                assert!(end.is_ok() || end.unwrap_err().contains("zstd stream is broken"));
            }
        }
    }

    #[test]
    fn two_wide_windows_are_never_decoded_at_once() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&content()).unwrap();
        let wide = encoder.finish().unwrap();
        let mut first = decompress(&wide[..], None, 1 << 20).unwrap();
        first.read_exact(&mut [0; 10]).unwrap();
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let wide = &wide;
            scope.spawn(move || {
                assert_eq!(out(wide, None).unwrap(), content());
                sender.send(()).unwrap();
            });
            assert_eq!(out(&zstd(&content()), None).unwrap(), content(), "a small window does not wait");
            assert!(
                receiver.recv_timeout(std::time::Duration::from_millis(200)).is_err(),
                "the second waits"
            );
            drop(first);
            receiver.recv().unwrap();
        });
    }

    #[test]
    fn a_zstd_window_above_128_mib_is_refused_before_memory_is_taken() {
        // Magic, a descriptor without single segment, a window descriptor of exponent `log - 10`, an empty last block.
        let frame = |log: u8| vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3, 0x01, 0x00, 0x00];
        assert_eq!(out(&frame(27), None).unwrap(), b"");
        for log in [28, 31, 41] {
            let error = out(&frame(log), None).unwrap_err().to_string();
            assert!(error.contains("zstd stream is broken"), "{error}");
        }
    }
}
