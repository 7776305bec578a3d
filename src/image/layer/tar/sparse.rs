//! Sparse files: GNU's map in the header, and its three ways to put one into PAX records.
//! Uses: tar.

use super::super::error::{Error, Result};
use super::{header, pax};

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it begins.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}

/// More stretches than any file that fits a layer needs: 4 MiB of map.
const EXTENTS: usize = 1 << 18;

/// What PAX records said about a sparse file, until all are read.
#[derive(Debug, Default)]
pub struct Records {
    /// Version 1.0: the map stands before the data.
    pub in_data: bool,
    /// The real name, where the header's is made up.
    pub name: Option<Vec<u8>>,
    /// The real size.
    pub size: Option<u64>,
    /// The map, offsets and lengths alternating.
    pub map: Vec<u64>,
    version: [Option<u64>; 2],
    seen: bool,
}

impl Records {
    /// Whether there was any.
    pub fn any(&self) -> bool {
        self.seen
    }

    /// Takes a record whose key begins with `GNU.sparse.`, which is cut off.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let wrong = || Error::archive(format!("GNU.sparse.{} is no number", key.escape_ascii()));
        let number = || pax::decimal(value).ok_or_else(wrong);
        self.seen = true;
        match key {
            b"major" => self.version[0] = Some(number()?),
            b"minor" => self.version[1] = Some(number()?),
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" | b"size" => self.size = Some(number()?),
            // 0.0 tells the count before the map, which it spreads over records of one key.
            b"numblocks" => drop(number()?),
            b"offset" if self.map.len().is_multiple_of(2) => self.push(number()?)?,
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.push(number()?)?,
            b"offset" | b"numbytes" => {
                return Err(Error::archive("GNU.sparse.offset and GNU.sparse.numbytes do not alternate"));
            }
            b"map" => {
                self.map.clear();
                for part in value.split(|&b| b == b',') {
                    self.push(pax::decimal(part).ok_or_else(wrong)?)?;
                }
            }
            _ => return Err(Error::archive(format!("GNU.sparse.{} is unknown", key.escape_ascii()))),
        }
        self.in_data = match self.version {
            [None | Some(0), _] => false,
            [Some(1), None | Some(0)] => true,
            [major, minor] => {
                return Err(Error::archive(format!(
                    "a sparse file of version {}.{}",
                    major.unwrap_or(0),
                    minor.unwrap_or(0)
                )));
            }
        };
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<()> {
        if self.map.len() >= 2 * EXTENTS {
            return Err(too_many());
        }
        self.map.push(number);
        Ok(())
    }
}

fn too_many() -> Error {
    Error::limit(format!("a sparse file of more than {EXTENTS} stretches"))
}

/// Appends the pairs of a header or an extension block of GNU's old form to `map`; an empty pair ends it.
pub fn append_pairs(map: &mut Vec<u64>, pairs: &[u8]) -> Result<()> {
    for pair in pairs.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        if map.len() >= 2 * EXTENTS {
            return Err(too_many());
        }
        for half in pair.chunks_exact(12) {
            let number = header::number(half).ok().and_then(|n| u64::try_from(n).ok());
            map.push(number.ok_or_else(|| Error::archive("the map of a sparse file holds no number"))?);
        }
    }
    Ok(())
}

/// How many pairs version 1.0 may announce.
pub fn check_count(count: u64) -> Result<usize> {
    usize::try_from(count).ok().filter(|&n| n <= EXTENTS).ok_or_else(too_many)
}

/// The map of a file of `size` bytes of which `data` are in the archive.
pub fn extents(map: &[u64], size: u64, data: u64) -> Result<Vec<Extent>> {
    let wrong = |what: &str| Error::archive(format!("the map of a sparse file {what}"));
    if !map.len().is_multiple_of(2) {
        return Err(wrong("has an offset without a length"));
    }
    let mut extents = Vec::with_capacity(map.len() / 2);
    let (mut end, mut sum) = (0u64, 0u64);
    for pair in map.chunks_exact(2) {
        let (offset, len) = (pair[0], pair[1]);
        if offset < end {
            return Err(wrong("goes backwards"));
        }
        end =
            offset.checked_add(len).filter(|&end| end <= size).ok_or_else(|| wrong("goes beyond its end"))?;
        // Cannot overflow: the stretches do not overlap and end within 64 bits.
        sum += len;
        if len > 0 {
            extents.push(Extent { offset, len });
        }
    }
    if sum != data {
        return Err(wrong(&format!("tells of {sum} bytes of data, the archive has {data}")));
    }
    Ok(extents)
}
