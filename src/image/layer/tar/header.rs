//! The header block: fields of fixed width, octal or base-256 numbers, a checksum.
//! Uses: tar.

use super::super::error::{Error, Result, Shown};
use super::BLOCK;

/// A header block as it stands in the archive.
pub struct Header<'a>(pub &'a [u8; BLOCK]);

/// Which dialect a header is written in: they disagree about the bytes from 257 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Before 1988: no magic.
    V7,
    /// POSIX: a prefix of 155 bytes.
    Ustar,
    /// Jörg Schilling's: a prefix of 131 bytes, then times.
    Star,
    /// GNU: times and a sparse map where POSIX has the prefix.
    Gnu,
}

impl<'a> Header<'a> {
    fn field(&self, at: usize, len: usize) -> &'a [u8] {
        &self.0[at..at + len]
    }

    /// Whether the sum of all bytes is the one written. Some old programs added signed bytes.
    pub fn checksum_fits(&self) -> bool {
        let Ok(written) = number(self.field(148, 8)) else { return false };
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (i, &byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        written == unsigned || written == signed
    }

    /// The dialect, by its magic.
    pub fn dialect(&self) -> Dialect {
        match self.field(257, 8) {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if self.field(508, 4) == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::V7,
        }
    }

    /// The letter that says what the entry is.
    pub fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// Writes the name, prefix and all, to `path`.
    pub fn path(&self, path: &mut Vec<u8>) {
        path.clear();
        let prefix = match self.dialect() {
            Dialect::Ustar => text(self.field(345, 155)),
            Dialect::Star => text(self.field(345, 131)),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if !prefix.is_empty() {
            path.extend_from_slice(prefix);
            path.push(b'/');
        }
        path.extend_from_slice(text(self.field(0, 100)));
    }

    /// The target of a link.
    pub fn link(&self) -> &'a [u8] {
        text(self.field(157, 100))
    }

    /// Permission bits; what stands above them is the file's type in some archives.
    pub fn mode(&self) -> Result<u32> {
        Ok((named("mode", self.field(100, 8))? & 0o7777) as u32)
    }

    /// The owner.
    pub fn uid(&self) -> Result<i64> {
        named("uid", self.field(108, 8))
    }

    /// The group.
    pub fn gid(&self) -> Result<i64> {
        named("gid", self.field(116, 8))
    }

    /// How many bytes follow.
    pub fn size(&self) -> Result<i64> {
        named("size", self.field(124, 12))
    }

    /// Last changed.
    pub fn mtime(&self) -> Result<i64> {
        named("mtime", self.field(136, 12))
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Result<(i64, i64)> {
        Ok((named("devmajor", self.field(329, 8))?, named("devminor", self.field(337, 8))?))
    }

    /// GNU's old sparse files: the four pairs in the header, whether more blocks of them follow, the real size.
    pub fn sparse(&self) -> Result<(&'a [u8], bool, i64)> {
        Ok((self.field(386, 96), self.0[482] != 0, named("real size", self.field(483, 12))?))
    }
}

/// A field up to its first NUL, if it has one.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

fn named(name: &str, field: &[u8]) -> Result<i64> {
    number(field).map_err(|()| Error::archive(format!("{name} is no number: \"{}\"", Shown(field))))
}

/// A number: octal digits between blanks, or, with the highest bit set, a big-endian two's complement of 8n-1 bits.
pub fn number(field: &[u8]) -> std::result::Result<i64, ()> {
    let Some(&first) = field.first() else { return Err(()) };
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, &byte) in field.iter().enumerate() {
            let byte = match i {
                0 if negative => byte | 0x80,
                0 => byte & 0x7f,
                _ => byte,
            };
            // Twelve bytes at most: 96 bits.
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| ());
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(blank).unwrap_or(digits.len())];
    let rest = &field[start + digits.len()..];
    if !rest.iter().all(blank) {
        return Err(());
    }
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        // Twelve digits at most: 36 bits.
        b'0'..=b'7' => Ok((value << 3) | i64::from(digit - b'0')),
        _ => Err(()),
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let cases: [(&[u8], Result<i64, ()>); 13] = [
            (b"0000644\0", Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"        ", Ok(0)),
            (b"77777777", Ok(0o77777777)),
            (b"\x80\0\0\0\0\0\x01\0", Ok(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Ok(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err(())),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Err(())),
            (b"0000648\0", Err(())),
            (b"644\0junk", Err(())),
            (b"-644\0\0\0\0", Err(())),
        ];
        for (field, value) in cases {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }
}
