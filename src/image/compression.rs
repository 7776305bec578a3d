//! What a blob is compressed with, and the reader that undoes it: gzip of several members, zstd of several frames, or
//! nothing. Its decoders are chosen in docs/adr/0009. Uses: error, fill.

mod zstd;

use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use crate::error::{Code, Error, Result};
use crate::fill::fill;

pub use zstd::WINDOW_LOG_MAX;
pub(crate) use zstd::Wide;

/// What a content is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames, skippable ones between them.
    Zstd,
}

impl Compression {
    /// What the first bytes of a content say. A tar begins with a name, which none of the magics is.
    pub fn sniff(begin: &[u8]) -> Compression {
        match begin {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::Plain,
        }
    }

    /// Names of formats that some tools write and no OCI image may have, for the error only.
    fn foreign(begin: &[u8]) -> Option<&'static str> {
        match begin {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
            [b'P', b'K', 3, 4, ..] => Some("zip"),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Plain => "not compressed",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// A reader whose first bytes were looked at.
pub type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// The first bytes of a reader, and the reader as if they had not been read.
pub fn peek<R: Read>(mut reader: R) -> io::Result<(Vec<u8>, Peeked<R>)> {
    let mut begin = vec![0; 8];
    let filled = fill(&mut reader, &mut begin)?;
    begin.truncate(filled);
    Ok((begin.clone(), Cursor::new(begin).chain(reader)))
}

/// Waits for the right to a zstd window above 8 MiB, and keeps it. Called once at most, before such a window is taken.
pub(crate) type Claim<'a> = Box<dyn FnMut() -> io::Result<()> + Send + 'a>;

/// Reads what `reader` holds compressed. `declared` is what its media type says: a content of another compression is
/// refused, since two readers that believe one of them each would see two images. At most `limit` bytes come out.
pub fn decompress<'a>(
    reader: impl Read + Send + 'a,
    declared: Option<Compression>,
    limit: u64,
) -> Result<Box<dyn Read + Send + 'a>> {
    let mut wide = None;
    let claim = move || {
        wide.get_or_insert_with(Wide::take);
        Ok(())
    };
    decompress_with(reader, declared, limit, Box::new(claim))
}

/// The same for who holds the right to a wide window itself: `claim` asks for it.
pub(crate) fn decompress_with<'a>(
    reader: impl Read + Send + 'a,
    declared: Option<Compression>,
    limit: u64,
    claim: Claim<'a>,
) -> Result<Box<dyn Read + Send + 'a>> {
    let (begin, reader) = peek(reader).map_err(|e| Error::call("read", e))?;
    let found = Compression::sniff(&begin);
    if let Some(foreign) = Compression::foreign(&begin) {
        return Err(Error::new(
            Code::Unsupported,
            format!("is compressed with {foreign}; images are plain, gzip or zstd"),
        ));
    }
    if let Some(declared) = declared.filter(|declared| *declared != found) {
        return Err(Error::invalid(format!("its media type says {declared}, its content is {found}")));
    }
    let inner: Box<dyn Read + Send + 'a> = match found {
        Compression::Plain => Box::new(reader),
        Compression::Gzip => {
            Box::new(Gzip(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(128 << 10, reader))))
        }
        Compression::Zstd => Box::new(zstd::Zstd::new(BufReader::with_capacity(128 << 10, reader), claim)?),
    };
    Ok(Box::new(Limited { inner, left: limit, limit }))
}

struct Gzip<R>(flate2::bufread::MultiGzDecoder<R>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| undone("gzip", error))
    }
}

/// The decoder's failure as a sentence; what its input failed with stays as it is.
fn undone(format: &str, error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) || error.raw_os_error().is_some() {
        return error;
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::invalid(format!("the {format} stream is truncated")),
        _ => Error::invalid(format!("the {format} stream is broken: {error}")),
    }
    .into()
}

struct Limited<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(Error::new(
                    Code::Limit,
                    format!("is larger than {} bytes when decompressed", self.limit),
                )
                .into());
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(content, 1).unwrap()
    }

    pub(crate) fn skippable(content: &[u8]) -> Vec<u8> {
        [&[0x50, 0x2a, 0x4d, 0x18], &(content.len() as u32).to_le_bytes()[..], content].concat()
    }

    pub(crate) fn out(content: &[u8], declared: Option<Compression>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(content, declared, 1 << 20)?
            .read_to_end(&mut out)
            .map_err(|error| Error::call("read", error))?;
        Ok(out)
    }

    pub(crate) fn content() -> Vec<u8> {
        (0..200_000u32).flat_map(|i| (i.wrapping_mul(i) % 251).to_le_bytes()).collect()
    }

    #[test]
    fn members_and_frames_follow_each_other_and_frames_that_say_skip_are_skipped() {
        let content = content();
        let (first, second) = content.split_at(300_001);
        for packed in [
            content.clone(),
            gzip(&content),
            [gzip(first), gzip(second)].concat(),
            [gzip(first), gzip(b""), gzip(second)].concat(),
            zstd(&content),
            [zstd(first), zstd(second)].concat(),
            [zstd(first), skippable(&[7; 5000]), zstd(b""), zstd(second), skippable(b"table")].concat(),
            [skippable(b""), zstd(&content)].concat(),
        ] {
            assert_eq!(out(&packed, None).unwrap(), content);
        }
        for empty in [vec![], gzip(b""), zstd(b""), skippable(b"x")] {
            assert_eq!(out(&empty, None).unwrap(), b"");
        }
    }

    #[test]
    fn a_truncated_stream_is_never_taken_for_whole() {
        let content = &content()[..1000];
        for packed in [gzip(content), zstd(content), [zstd(content), skippable(&[1; 20])].concat()] {
            let whole_first = zstd(content).len();
            for end in 4..packed.len() {
                if end == whole_first && packed[..end] == zstd(content) {
                    continue;
                }
                let error = out(&packed[..end], None).unwrap_err();
                assert_eq!(error.code(), Code::Invalid, "cut at {end} of {}: {error}", packed.len());
            }
        }
    }

    #[test]
    fn broken_streams_are_told_in_words() {
        let mut flipped = gzip(&content());
        let end = flipped.len() - 5;
        flipped[end] ^= 1;
        let mut frame = zstd(&content());
        // The reserved bit of the frame's descriptor.
        frame[4] |= 8;
        for (packed, why) in [
            (flipped, "gzip stream is broken"),
            ([gzip(b"x"), b"garbage after it".to_vec()].concat(), "gzip stream is broken"),
            ([zstd(b"x"), b"garbage after it".to_vec()].concat(), "zstd stream is broken"),
            (frame, "zstd stream"),
            (b"\xfd7zXZ\0..".to_vec(), "xz"),
            (b"BZh91AY&".to_vec(), "bzip2"),
        ] {
            let error = match out(&packed, None) {
                Ok(_) => panic!("read without an error where it says: {why}"),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_media_type_and_the_content_must_agree() {
        for (packed, declared, why) in [
            (gzip(b"x"), Compression::Plain, "not compressed, its content is gzip"),
            (b"plain".to_vec(), Compression::Gzip, "says gzip, its content is not compressed"),
            (zstd(b"x"), Compression::Gzip, "says gzip, its content is zstd"),
        ] {
            assert!(out(&packed, Some(declared)).unwrap_err().to_string().contains(why));
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 2 << 20];
        for packed in [gzip(&zeros), zstd(&zeros), zeros.clone()] {
            assert_eq!(out(&packed, None).unwrap_err().code(), Code::Limit);
        }
        assert_eq!(out(&zeros[..1 << 20], None).unwrap().len(), 1 << 20, "the limit itself is within it");
    }
}
