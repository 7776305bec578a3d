//! How a plan lies in the sealed memory that init maps (privately, so that it may turn offsets into pointers).
//!
//! ```text
//!   header | slots (i32) | groups (u32) | filter (8 bytes each) | args (u64) | env (u64) | candidates (u64) | strings | steps
//! ```
//!
//! Numbers are little-endian; every table starts at a multiple of 8. args and env are tables of offsets from the start,
//! each followed by a zero entry, as execve(2) wants its pointers; candidates are paths that FindExecutable tries in turn.

/// First bytes of every image: name and version of the layout.
pub const MAGIC: u64 = u64::from_le_bytes(*b"rcrun\0\x01\0");
/// Bytes of the header.
pub const HEADER_SIZE: usize = 96;
/// Bytes of a stamp: struct timespec.
pub const STAMP_SIZE: usize = 16;
/// `home` of an image whose environment needs no HOME.
pub const NO_HOME: u32 = u32::MAX;

/// A table in the image: where it starts, how many entries (without a closing zero entry) it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Offset of the first entry in bytes.
    pub offset: u32,
    /// Number of entries.
    pub count: u32,
}

/// The header: where everything lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole image.
    pub length: u32,
    /// fd numbers (i32), by slot.
    pub slots: Table,
    /// Supplementary groups (u32).
    pub groups: Table,
    /// seccomp program: struct sock_filter, 8 bytes each.
    pub filter: Table,
    /// Arguments: offsets (u64), then a zero.
    pub args: Table,
    /// Environment: offsets (u64), then a zero.
    pub env: Table,
    /// Paths to try for the executable: offsets (u64), then a zero.
    pub candidates: Table,
    /// Encoded steps; `count` is their number.
    pub steps: Table,
    /// The socket to the parent, an fd.
    pub parent: i32,
    /// Index in env that takes `HOME=`, or NO_HOME.
    pub home: u32,
    /// First fd that is not the payload's: 3, or more with passed fds.
    pub first_own_fd: u32,
    /// The memory, an fd, in which init notes when each step begins, a stamp a step; 0 where it does not.
    pub stamps: i32,
}

impl Header {
    const TABLES: usize = 7;

    fn tables(&self) -> [Table; Self::TABLES] {
        [self.slots, self.groups, self.filter, self.args, self.env, self.candidates, self.steps]
    }

    /// As it lies in the image.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[12..16].copy_from_slice(&self.parent.to_le_bytes());
        out[16..20].copy_from_slice(&self.home.to_le_bytes());
        out[20..24].copy_from_slice(&self.first_own_fd.to_le_bytes());
        out[80..84].copy_from_slice(&self.stamps.to_le_bytes());
        for (i, table) in self.tables().iter().enumerate() {
            out[24 + i * 8..28 + i * 8].copy_from_slice(&table.offset.to_le_bytes());
            out[28 + i * 8..32 + i * 8].copy_from_slice(&table.count.to_le_bytes());
        }
        out
    }

    /// None unless every table lies inside `bytes`.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
        if u64::from_le_bytes(bytes.get(0..8)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let mut tables = [Table::default(); Self::TABLES];
        for (i, table) in tables.iter_mut().enumerate() {
            *table = Table { offset: word(24 + i * 8)?, count: word(28 + i * 8)? };
        }
        let [slots, groups, filter, args, env, candidates, steps] = tables;
        let header = Header {
            length: word(8)?,
            slots,
            groups,
            filter,
            args,
            env,
            candidates,
            steps,
            parent: word(12)? as i32,
            home: word(16)?,
            first_own_fd: word(20)?,
            stamps: word(80)? as i32,
        };
        let fits = |t: Table, size: usize, extra: usize| {
            let count = (t.count as usize).checked_add(extra)?;
            let end = (t.offset as usize).checked_add(count.checked_mul(size)?)?;
            (end <= header.length as usize && t.offset.is_multiple_of(8)).then_some(())
        };
        if header.length as usize > bytes.len() {
            return None;
        }
        fits(slots, 4, 0)?;
        fits(groups, 4, 0)?;
        fits(filter, 8, 0)?;
        fits(args, 8, 1)?;
        fits(env, 8, 1)?;
        fits(candidates, 8, 1)?;
        fits(steps, 1, 0)?;
        if header.home != NO_HOME && header.home >= env.count {
            return None;
        }
        Some(header)
    }
}

#[cfg(feature = "alloc")]
mod encode {
    use super::{HEADER_SIZE, Header, NO_HOME, Table};
    use crate::{Step, text::Text};
    use alloc::vec::Vec;

    /// What an image is made of.
    pub struct Parts<'a> {
        /// Steps in order.
        pub steps: &'a [Step<Text>],
        /// fd numbers by slot.
        pub slots: &'a [i32],
        /// Supplementary groups.
        pub groups: &'a [u32],
        /// seccomp program as struct sock_filter lies in memory.
        pub filter: &'a [u8],
        /// Arguments of the payload.
        pub args: &'a [&'a str],
        /// Environment of the payload.
        pub env: &'a [&'a str],
        /// Paths to try for the executable.
        pub candidates: &'a [&'a str],
        /// The socket to the parent.
        pub parent: i32,
        /// Reserve an entry of env for HOME, which the parent answers at Ready.
        pub home: bool,
        /// First fd that is not the payload's.
        pub first_own_fd: u32,
        /// The memory in which init notes when each step begins.
        pub stamps: Option<i32>,
    }

    /// Lays the parts out. Fails on a NUL in a text and on more than 4 GiB.
    pub fn encode(parts: &Parts<'_>) -> Result<Vec<u8>, &'static str> {
        let mut out = alloc::vec![0; HEADER_SIZE];
        let mut header = Header {
            parent: parts.parent,
            home: NO_HOME,
            first_own_fd: parts.first_own_fd,
            stamps: parts.stamps.unwrap_or(0),
            ..Header::default()
        };
        header.slots = table(&mut out, parts.slots.len())?;
        parts.slots.iter().for_each(|fd| out.extend_from_slice(&fd.to_le_bytes()));
        header.groups = table(&mut out, parts.groups.len())?;
        parts.groups.iter().for_each(|gid| out.extend_from_slice(&gid.to_le_bytes()));
        header.filter = table(&mut out, parts.filter.len() / 8)?;
        out.extend_from_slice(parts.filter);

        header.args = pointers(&mut out, parts.args.len())?;
        let env = parts.env.len() + usize::from(parts.home);
        header.env = pointers(&mut out, env)?;
        if parts.home {
            header.home = parts.env.len() as u32;
        }
        header.candidates = pointers(&mut out, parts.candidates.len())?;
        for (table, texts) in
            [(header.args, parts.args), (header.env, parts.env), (header.candidates, parts.candidates)]
        {
            for (i, text) in texts.iter().enumerate() {
                if text.contains('\0') {
                    return Err("text holds a NUL");
                }
                let at = table.offset as usize + i * 8;
                let offset = (out.len() as u64).to_le_bytes();
                out[at..at + 8].copy_from_slice(&offset);
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
        }
        header.steps = table(&mut out, parts.steps.len())?;
        for step in parts.steps {
            out = postcard::to_extend(step, out).map_err(|_| "a step holds a NUL")?;
        }
        header.length = u32::try_from(out.len()).map_err(|_| "the plan is larger than 4 GiB")?;
        // The check that steps lie inside the image counts a byte each: no step is shorter than its number.
        out[..HEADER_SIZE].copy_from_slice(&header.encode());
        Ok(out)
    }

    fn table(out: &mut Vec<u8>, count: usize) -> Result<Table, &'static str> {
        out.resize(out.len().next_multiple_of(8), 0);
        let offset = u32::try_from(out.len()).map_err(|_| "the plan is larger than 4 GiB")?;
        Ok(Table { offset, count: u32::try_from(count).map_err(|_| "the plan has too many entries")? })
    }

    fn pointers(out: &mut Vec<u8>, count: usize) -> Result<Table, &'static str> {
        let table = table(out, count)?;
        out.resize(out.len() + (count + 1) * 8, 0);
        Ok(table)
    }
}

#[cfg(feature = "alloc")]
pub use encode::{Parts, encode};

/// Reads the steps of an image one after the other.
pub struct Steps<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Steps<'a> {
    /// Over the steps that `header` names in `image`.
    pub fn new(image: &'a [u8], header: &Header) -> Option<Self> {
        let rest = image.get(header.steps.offset as usize..header.length as usize)?;
        Some(Steps { rest, left: header.steps.count })
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Result<crate::Step<crate::text::Z<'a>>, postcard::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(postcard::take_from_bytes(self.rest).map(|(step, rest)| {
            self.rest = rest;
            step
        }))
    }
}
