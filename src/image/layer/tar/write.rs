//! Puts a tar together: ustar, and PAX records for what ustar cannot say. The same entries give the same bytes.
//! Uses: tar.

use std::io::{self, Write};

use super::{BLOCK, Entry, Kind, Time, pax};

/// A tar that is being written.
pub struct Writer<W> {
    output: W,
    records: Vec<u8>,
}

/// The largest number of `digits` octal digits.
const fn octal_max(digits: u32) -> u64 {
    (1 << (3 * digits)) - 1
}

impl<W: Write> Writer<W> {
    /// A tar that goes to `output`.
    pub fn new(output: W) -> Self {
        Writer { output, records: Vec::new() }
    }

    /// Writes the headers of an entry; a file's data and `pad` follow.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.records.clear();
        let mut block = [0; BLOCK];
        match split(&entry.path) {
            Some((prefix, name)) => {
                put(&mut block, 345, prefix);
                put(&mut block, 0, name);
            }
            None => {
                put(&mut block, 0, &entry.path[..entry.path.len().min(100)]);
                pax::append(&mut self.records, b"path", &entry.path);
            }
        }
        if entry.link.len() > 100 {
            pax::append(&mut self.records, b"linkpath", &entry.link);
        }
        put(&mut block, 157, &entry.link[..entry.link.len().min(100)]);
        octal(&mut block, 100, 7, u64::from(entry.mode));
        self.number(&mut block, b"uid", 108, 7, u64::from(entry.uid));
        self.number(&mut block, b"gid", 116, 7, u64::from(entry.gid));
        self.number(&mut block, b"size", 124, 11, if entry.kind == Kind::File { entry.size } else { 0 });
        match u64::try_from(entry.mtime.seconds).ok().filter(|&s| s <= octal_max(11)) {
            Some(seconds) => {
                octal(&mut block, 136, 11, seconds);
                if entry.mtime.nanoseconds != 0 {
                    pax::append(&mut self.records, b"mtime", &decimal(entry.mtime));
                }
            }
            None => {
                octal(&mut block, 136, 11, 0);
                pax::append(&mut self.records, b"mtime", &decimal(entry.mtime));
            }
        }
        for (name, value) in &entry.xattrs {
            let mut key = b"SCHILY.xattr.".to_vec();
            for &byte in name {
                match byte {
                    b'=' => key.extend_from_slice(b"%3D"),
                    b'%' => key.extend_from_slice(b"%25"),
                    byte => key.push(byte),
                }
            }
            pax::append(&mut self.records, &key, value);
        }
        block[156] = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        if let Kind::CharDevice | Kind::BlockDevice = entry.kind {
            octal(&mut block, 329, 7, u64::from(entry.device.0));
            octal(&mut block, 337, 7, u64::from(entry.device.1));
        }
        if !self.records.is_empty() {
            let mut extended = [0; BLOCK];
            let base = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
            let base = base.rsplit(|&b| b == b'/').next().unwrap_or_default();
            let name = [b"PaxHeaders.0/", &base[..base.len().min(87)]].concat();
            put(&mut extended, 0, &name);
            for (at, digits) in [(100, 7), (108, 7), (116, 7), (136, 11)] {
                octal(&mut extended, at, digits, 0);
            }
            octal(&mut extended, 124, 11, self.records.len() as u64);
            extended[156] = b'x';
            seal(&mut extended);
            self.output.write_all(&extended)?;
            self.output.write_all(&self.records)?;
            self.pad(self.records.len() as u64)?;
        }
        seal(&mut block);
        self.output.write_all(&block)
    }

    fn number(&mut self, block: &mut [u8; BLOCK], key: &[u8], at: usize, digits: usize, number: u64) {
        if number <= octal_max(digits as u32) {
            octal(block, at, digits, number);
        } else {
            octal(block, at, digits, 0);
            pax::append(&mut self.records, key, number.to_string().as_bytes());
        }
    }

    /// Writes a piece of a file's data.
    pub fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        self.output.write_all(piece)
    }

    /// Fills up to a block after `len` bytes of data.
    pub fn pad(&mut self, len: u64) -> io::Result<()> {
        let padding = (len.wrapping_neg() % BLOCK as u64) as usize;
        self.output.write_all(&[0; BLOCK][..padding])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, mut number: u64) {
    for place in block[at..at + digits].iter_mut().rev() {
        *place = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

/// Magic and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    put(block, 257, b"ustar\x0000");
    put(block, 148, b"        ");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(block, 148, 6, sum);
    block[154] = 0;
}

/// Prefix and name, where the path fits ustar.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The slash at the end of a folder belongs to the name.
    let last = path.len() - 1;
    let slash = (path.len().saturating_sub(101)..last.min(156)).find(|&at| path[at] == b'/' && at > 0)?;
    Some((&path[..slash], &path[slash + 1..]))
}

/// Seconds with the fraction they have, no zeros at the end.
fn decimal(time: Time) -> Vec<u8> {
    let (sign, whole, fraction) = match (time.seconds < 0, time.nanoseconds) {
        (true, 1..) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - time.nanoseconds),
        (true, _) => ("-", time.seconds.unsigned_abs(), 0),
        (false, nanoseconds) => ("", time.seconds.unsigned_abs(), nanoseconds),
    };
    let mut text = format!("{sign}{whole}");
    if fraction != 0 {
        text += format!(".{fraction:09}").trim_end_matches('0');
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (-2, 500_000_000, "-1.5"),
            (-1, 1, "-0.999999999"),
            (-1, 0, "-1"),
            (7, 20, "7.00000002"),
        ] {
            let time = Time { seconds, nanoseconds };
            assert_eq!(String::from_utf8(decimal(time)).unwrap(), text);
            assert_eq!(pax::time(text.as_bytes()), Some(time));
        }
    }

    #[test]
    fn a_path_is_split_where_ustar_can_hold_it() {
        let part = |n: usize| vec![b'a'; n];
        let join = |parts: &[usize]| parts.iter().map(|&n| part(n)).collect::<Vec<_>>().join(&b'/');
        for (path, expected) in [
            (join(&[100]), Some((0, 100))),
            (join(&[101]), None),
            (join(&[1, 99]), Some((1, 99))),
            (join(&[155, 100]), Some((155, 100))),
            (join(&[156, 100]), None),
            (join(&[155, 101]), None),
            ([join(&[155, 99]), b"/".to_vec()].concat(), Some((155, 100))),
            ([join(&[155, 100]), b"/".to_vec()].concat(), None),
        ] {
            assert_eq!(split(&path).map(|(p, n)| (p.len(), n.len())), expected, "{}", path.len());
        }
    }
}
