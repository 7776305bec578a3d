//! Compressed blobs: bytes as a gzip or zstd stream, or as neither. Uses: rcrun_image::compression, flate2, zstd,
//! sentence.
//!
//! What holds: no more comes out than the limit; the same comes out whether it is read in pieces or whole, and what is
//! not compressed comes out as it is; the input, compressed, comes out as it was; an error is a sentence.

use std::io::{self, Read, Write};

use rcrun_image::Error;
use rcrun_image::compression::{Compression, decompress};

use crate::sentence;

/// A bomb is met by this bound, and no sooner.
const LIMIT: u64 = 1 << 20;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    let (whole, failed) = read(input, None, 64 << 10);
    let (pieces, failed_too) = read(input, None, 7);
    assert!(whole.len() as u64 <= LIMIT, "{} bytes came out", whole.len());
    assert_eq!(failed, failed_too, "whole or in pieces, one is an error");
    assert!(failed || whole == pieces, "whole or in pieces, what comes out differs");
    let found = Compression::sniff(input);
    if found == Compression::Plain && !failed {
        assert!(whole == input, "what is not compressed comes out changed");
    }
    for other in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        assert!(other == found || read(input, Some(other), 512).1, "it is {found} and taken for {other}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(input).expect("write to memory");
    let gzip = gzip.finish().expect("write to memory");
    assert!(read(&gzip, Some(Compression::Gzip), 4096) == (input.to_vec(), false), "gzip");
    let zstd = zstd::encode_all(input, 1).expect("write to memory");
    assert!(read(&zstd, Some(Compression::Zstd), 4096) == (input.to_vec(), false), "zstd");
}

/// What comes out, read `at_once` bytes at a time, and whether it ended in an error.
fn read(input: &[u8], declared: Option<Compression>, at_once: usize) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let mut reader = match decompress(input, declared, LIMIT) {
        Ok(reader) => reader,
        Err(error) => {
            sentence::is_one(&error);
            return (out, true);
        }
    };
    let mut buffer = vec![0; at_once];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (out, false),
            Ok(read) => out.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                sentence::is_one(&Error::call("read", error));
                return (out, true);
            }
        }
    }
}
