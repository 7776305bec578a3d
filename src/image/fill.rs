//! Reading as much as there is room for, from what gives less at a time. Uses: std.

use std::io::{self, ErrorKind, Read};

/// Reads until `buffer` is full or the stream ends. Returns how much that was.
pub(crate) fn fill(from: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
