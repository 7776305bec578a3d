//! tar, as far as layers need it: ustar, PAX, GNU's extensions, and its three ways to write sparse files.
//! Uses: error. Touches no file: `read` takes a stream apart, `write` puts one together.

pub(in crate::layer) mod extended;
pub(in crate::layer) mod header;
pub(in crate::layer) mod pax;
pub(in crate::layer) mod read;
pub(in crate::layer) mod sparse;
pub(in crate::layer) mod write;

/// Everything in a tar stands in blocks of this size.
pub(in crate::layer) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layer) enum Kind {
    /// A regular file.
    File,
    /// Another name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A folder.
    Directory,
    /// A FIFO.
    Fifo,
}

/// A time as utimensat(2) takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::layer) struct Time {
    /// Seconds since 1970; before it, negative.
    pub seconds: i64,
    /// 0 to 999,999,999, always forward.
    pub nanoseconds: u32,
}

impl Time {
    /// Last read and last changed, as stat(2) tells them.
    pub fn both(stat: &rustix::fs::Stat) -> (Time, Time) {
        // Types differ between architectures; nanoseconds are below 10^9 on all.
        let time = |seconds: i64, nanoseconds| Time { seconds, nanoseconds };
        (time(stat.st_atime, stat.st_atime_nsec as u32), time(stat.st_mtime, stat.st_mtime_nsec as u32))
    }
}

/// An entry, all its extended headers applied.
#[derive(Clone, Debug)]
pub(in crate::layer) struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name as the archive has it.
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Permission bits, set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Last changed.
    pub mtime: Time,
    /// Last read, where the archive says.
    pub atime: Option<Time>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of the file once unpacked.
    pub size: u64,
    /// Extended attributes, in the archive's order, none twice.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data lies in a sparse file; `None` for any other.
    pub sparse: Option<Vec<sparse::Extent>>,
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            kind: Kind::File,
            path: Vec::new(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            atime: None,
            device: (0, 0),
            size: 0,
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}
