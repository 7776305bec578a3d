//! Takes a tar apart while it streams by: no seeking, nothing kept but the entry at hand, and the data of files handed on
//! as the stream gives it, without a copy.
//! Uses: tar. Every number in the stream is checked before it is believed; an error says at which byte.

use std::io::{self, BufRead};

use super::super::error::{Error, Result, Shown};
use super::extended::{Extended, one_name};
use super::header::Header;
use super::{BLOCK, Entry, Kind, Time, pax, sparse};

/// All extended attributes of a file are at most 64 KiB each, and few: no archive needs more than this.
const EXTENDED: u64 = 1 << 20;

/// What a stream gives at once, and gives again until it is consumed.
fn chunk(input: &mut impl BufRead) -> Result<&[u8]> {
    // The loop that looks for the end of the interruptions cannot hand out what it borrowed.
    while let Err(e) = input.fill_buf() {
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(Error::stream("read of the layer", e));
        }
    }
    input.fill_buf().map_err(|e| Error::stream("read of the layer", e))
}

/// A tar that is being read.
pub struct Reader<R> {
    input: R,
    /// What has to lie in one piece: headers.
    buffer: [u8; 2 * BLOCK],
    start: usize,
    end: usize,
    /// Bytes of `input` that were handed out as data; they lie in it until more is wanted.
    lent: usize,
    /// Bytes of the stream that were used.
    passed: u64,
    limit: u64,
    ended: bool,
    /// Bytes of the entry's data not yet handed out, and of the padding after them.
    data: u64,
    padding: u64,
    scratch: Vec<u8>,
    global: Vec<String>,
}

impl<R: BufRead> Reader<R> {
    /// A tar that begins where `input` stands; more than `limit` bytes are not read.
    pub fn new(input: R, limit: u64) -> Self {
        Reader {
            input,
            buffer: [0; 2 * BLOCK],
            start: 0,
            end: 0,
            lent: 0,
            passed: 0,
            limit,
            ended: false,
            data: 0,
            padding: 0,
            scratch: Vec::new(),
            global: Vec::new(),
        }
    }

    /// Keywords of global headers that were not followed.
    pub fn global(&self) -> &[String] {
        &self.global
    }

    /// How many bytes the stream gives at once; none at its end.
    fn given(&mut self) -> Result<usize> {
        self.input.consume(std::mem::take(&mut self.lent));
        if self.ended {
            return Ok(0);
        }
        if self.passed > self.limit {
            return Err(Error::limit(format!("a layer of more than {} bytes", self.limit)));
        }
        let size = chunk(&mut self.input)?.len();
        self.ended = size == 0;
        Ok(size)
    }

    /// Reads until `want` bytes, at most two blocks, lie in one piece or the stream ends.
    fn fill(&mut self, want: usize) -> Result<&[u8]> {
        if self.end - self.start < want {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            while self.end < want && self.given()? > 0 {
                let chunk = chunk(&mut self.input)?;
                let step = chunk.len().min(want - self.end);
                self.buffer[self.end..self.end + step].copy_from_slice(&chunk[..step]);
                self.input.consume(step);
                self.end += step;
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        self.passed += n as u64;
        debug_assert!(self.start <= self.end);
    }

    /// Goes on by as much as there is in one piece, and at most `most`: by nothing at the end of the stream.
    fn advance(&mut self, most: u64) -> Result<usize> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if self.end > self.start {
            let step = most.min(self.end - self.start);
            self.consume(step);
            return Ok(step);
        }
        self.lent = self.given()?.min(most);
        self.passed += self.lent as u64;
        Ok(self.lent)
    }

    /// Skips `n` bytes; `false` where the stream ends before.
    fn skip(&mut self, mut n: u64) -> Result<bool> {
        while n > 0 {
            match self.advance(n)? {
                0 => return Ok(false),
                step => n -= step as u64,
            }
        }
        Ok(true)
    }

    /// The next piece of the entry's data, as much of it as the stream gives at once.
    pub fn data(&mut self) -> Result<Option<&[u8]>> {
        if self.data == 0 {
            return Ok(None);
        }
        let step = self.advance(self.data)?;
        if step == 0 {
            return Err(self.cut_short());
        }
        self.data -= step as u64;
        Ok(Some(match self.lent {
            0 => &self.buffer[self.start - step..self.start],
            lent => &chunk(&mut self.input)?[..lent],
        }))
    }

    fn cut_short(&self) -> Error {
        let at = self.passed + (self.end - self.start) as u64;
        Error::archive(format!("the archive ends at byte {at}, within an entry"))
    }

    /// Reads the stream to its end: the digest of a layer covers what follows its last entry too.
    pub fn drain(&mut self) -> Result<()> {
        self.skip(u64::MAX).map(drop)
    }

    /// Puts the next entry into `entry`; `false` at the end.
    pub fn next(&mut self, entry: &mut Entry) -> Result<bool> {
        let at = self.passed + self.data + self.padding;
        self.entry(entry).map_err(|e| match e.kind() {
            super::super::error::Kind::Stream => e,
            _ => e.of(format_args!("entry at byte {at}")),
        })
    }

    fn entry(&mut self, entry: &mut Entry) -> Result<bool> {
        let mut extended = Extended::default();
        let mut any = false;
        loop {
            if !self.skip(self.data)? {
                return Err(self.cut_short());
            }
            // Some archives end without the padding of their last entry.
            let padded = self.skip(self.padding)?;
            (self.data, self.padding) = (0, 0);
            let block = if padded { self.fill(BLOCK)? } else { &[] };
            let have = block.len();
            if have < BLOCK {
                if have > 0 || any {
                    return Err(self.cut_short());
                }
                return Ok(false);
            }
            let mut block = [0; BLOCK];
            block.copy_from_slice(&self.buffer[self.start..self.start + BLOCK]);
            if block == [0; BLOCK] {
                if any {
                    return Err(Error::archive("an extended header that no entry follows"));
                }
                let two = self.fill(2 * BLOCK)?;
                if two.len() >= 2 * BLOCK && two[BLOCK..2 * BLOCK] != [0; BLOCK] {
                    return Err(Error::archive("a single block of zeros amid the entries"));
                }
                return Ok(false);
            }
            self.consume(BLOCK);
            let header = Header(&block);
            if !header.checksum_fits() {
                return Err(Error::archive("this is no tar header: its checksum is wrong"));
            }
            match header.typeflag() {
                b'x' | b'X' => {
                    if extended.pax {
                        return Err(Error::archive("two PAX headers for one entry"));
                    }
                    self.whole(&header)?;
                    extended.pax = true;
                    let records = std::mem::take(&mut self.scratch);
                    let read = extended.read(&records);
                    self.scratch = records;
                    read?;
                    any = true;
                }
                b'g' => {
                    self.whole(&header)?;
                    let records = std::mem::take(&mut self.scratch);
                    let read = self.read_global(&records);
                    self.scratch = records;
                    read?;
                }
                flag @ (b'L' | b'K') => {
                    self.whole(&header)?;
                    let name = self.scratch.split(|&b| b == 0).next().unwrap_or_default().to_vec();
                    let place = if flag == b'L' { &mut extended.long_path } else { &mut extended.long_link };
                    if place.replace(name).is_some() {
                        return Err(Error::archive("two GNU long names for one entry"));
                    }
                    any = true;
                }
                // A volume's label describes the archive, not a file.
                b'V' => self.frame(header.size()?)?,
                flag => {
                    self.take(&header, flag, extended, entry)?;
                    return Ok(true);
                }
            }
        }
    }

    /// Sets how much data follows a header.
    fn frame(&mut self, size: i64) -> Result<()> {
        self.data = u64::try_from(size).map_err(|_| Error::archive(format!("a size of {size}")))?;
        self.padding = self.data.wrapping_neg() % BLOCK as u64;
        Ok(())
    }

    /// Reads all data of an extended header into `scratch`.
    fn whole(&mut self, header: &Header<'_>) -> Result<()> {
        self.frame(header.size()?)?;
        if self.data > EXTENDED {
            return Err(Error::limit(format!(
                "an extended header of {} bytes (at most {EXTENDED} are read)",
                self.data
            )));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        while let Some(piece) = self.data()? {
            scratch.extend_from_slice(piece);
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Engines do not follow global headers, GNU tar does: what would make two trees of one archive is refused.
    fn read_global(&mut self, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            let (record, rest) = pax::first(records)?;
            records = rest;
            match record.key {
                b"comment" | b"hdrcharset" | b"charset" | b"atime" | b"ctime" | b"mtime" | b"uname"
                | b"gname" => {
                    let key = String::from_utf8_lossy(record.key).into_owned();
                    if key != "comment" && !self.global.contains(&key) {
                        self.global.push(key);
                    }
                }
                key => {
                    return Err(Error::archive(format!(
                        "a global header sets {}, which engines do not follow and tar does",
                        Shown(key)
                    )));
                }
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        header: &Header<'_>,
        flag: u8,
        mut extended: Extended,
        entry: &mut Entry,
    ) -> Result<()> {
        header.path(&mut entry.path);
        let path = one_name("path", extended.path.take(), extended.long_path.take())?;
        if let Some(path) = extended.sparse.name.take().or(path) {
            entry.path = path;
        }
        entry.link.clear();
        match one_name("linkpath", extended.link.take(), extended.long_link.take())? {
            Some(link) => entry.link = link,
            None => entry.link.extend_from_slice(header.link()),
        }
        entry.kind = match flag {
            0 if entry.path.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' if entry.path.ends_with(b"/") => {
                return Err(
                    Error::archive("a regular file whose name ends in a slash").of(Shown(&entry.path))
                );
            }
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let other = [other];
                let flag = other.escape_ascii();
                return Err(Error::archive(format!("entries of type '{flag}' are not for layers"))
                    .of(Shown(&entry.path)));
            }
        };
        self.describe(header, flag, extended, entry).map_err(|e| e.of(Shown(&entry.path)))
    }

    fn describe(
        &mut self,
        header: &Header<'_>,
        flag: u8,
        extended: Extended,
        entry: &mut Entry,
    ) -> Result<()> {
        let id = |what: &str, told: Option<u64>, field: Result<i64>| -> Result<u32> {
            let id = match told {
                Some(id) => i128::from(id),
                None => i128::from(field?),
            };
            // The last is chown(2)'s "leave it".
            u32::try_from(id)
                .ok()
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| Error::archive(format!("{what} {id} is none that Linux has")))
        };
        entry.mode = header.mode()?;
        entry.uid = id("uid", extended.uid, header.uid())?;
        entry.gid = id("gid", extended.gid, header.gid())?;
        entry.mtime = match extended.mtime {
            Some(time) => time,
            None => Time { seconds: header.mtime()?, nanoseconds: 0 },
        };
        entry.atime = extended.atime;
        entry.xattrs = extended.xattrs;
        entry.sparse = None;
        entry.size = 0;
        entry.device = (0, 0);
        if let Kind::CharDevice | Kind::BlockDevice = entry.kind {
            let (major, minor) = header.device()?;
            let fits = |n: i64, bits: u32| u32::try_from(n).ok().filter(|n| n >> bits == 0);
            // dev_t has 12 bits for the one and 20 for the other.
            entry.device = fits(major, 12)
                .zip(fits(minor, 20))
                .ok_or_else(|| Error::archive(format!("device number {major}:{minor} is out of range")))?;
        }
        if entry.kind != Kind::File {
            if extended.sparse.any() {
                return Err(Error::archive("only regular files are sparse"));
            }
            // As Go's reader has it, which all engines use: nothing follows, whatever the size says.
            (self.data, self.padding) = (0, 0);
            return Ok(());
        }
        let size = match extended.size {
            Some(size) => i64::try_from(size).map_err(|_| Error::archive(format!("a size of {size}")))?,
            None => header.size()?,
        };
        self.frame(size)?;
        if flag == b'S' {
            if extended.sparse.any() {
                return Err(Error::archive("a sparse file told of in two ways"));
            }
            return self.old_sparse(header, entry);
        }
        entry.size = self.data;
        if extended.sparse.any() {
            self.pax_sparse(extended.sparse, entry)?;
        }
        Ok(())
    }

    /// GNU's old form: pairs in the header, then blocks of 21 pairs for as long as each says that one follows.
    fn old_sparse(&mut self, header: &Header<'_>, entry: &mut Entry) -> Result<()> {
        let (pairs, mut more, size) = header.sparse()?;
        let size = u64::try_from(size).map_err(|_| Error::archive(format!("a real size of {size}")))?;
        let mut map = Vec::new();
        sparse::append_pairs(&mut map, pairs)?;
        while more {
            let block = self.fill(BLOCK)?;
            if block.len() < BLOCK {
                return Err(self.cut_short());
            }
            more = block[504] != 0;
            sparse::append_pairs(&mut map, &block[..504])?;
            self.consume(BLOCK);
        }
        entry.size = size;
        entry.sparse = Some(sparse::extents(&map, size, self.data)?);
        Ok(())
    }

    fn pax_sparse(&mut self, mut records: sparse::Records, entry: &mut Entry) -> Result<()> {
        let size = records.size.ok_or_else(|| Error::archive("a sparse file without its real size"))?;
        if i64::try_from(size).is_err() {
            return Err(Error::archive(format!("a real size of {size}")));
        }
        if records.in_data {
            if !records.map.is_empty() {
                return Err(Error::archive("a sparse file with two maps"));
            }
            self.map_in_data(&mut records.map)?;
        }
        entry.size = size;
        entry.sparse = Some(sparse::extents(&records.map, size, self.data)?);
        Ok(())
    }

    /// Version 1.0: how many pairs, then the pairs, a number a line, filled up to a block.
    fn map_in_data(&mut self, map: &mut Vec<u64>) -> Result<()> {
        let wrong = || Error::archive("the map of a sparse file holds no number");
        let mut left: Option<usize> = None;
        let mut digits = Vec::with_capacity(20);
        while left != Some(0) {
            if self.data < BLOCK as u64 {
                return Err(Error::archive("the map of a sparse file is longer than its data"));
            }
            let mut block = [0; BLOCK];
            let have = self.fill(BLOCK)?;
            if have.len() < BLOCK {
                return Err(self.cut_short());
            }
            block.copy_from_slice(&have[..BLOCK]);
            self.consume(BLOCK);
            self.data -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    if digits.len() == 20 {
                        return Err(wrong());
                    }
                    digits.push(byte);
                    continue;
                }
                let number = pax::decimal(&digits).ok_or_else(wrong)?;
                digits.clear();
                match &mut left {
                    None => left = Some(2 * sparse::check_count(number)?),
                    Some(left) => {
                        map.push(number);
                        *left -= 1;
                    }
                }
                if left == Some(0) {
                    break;
                }
            }
        }
        Ok(())
    }
}
