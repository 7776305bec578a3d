//! Tars written byte by byte, so that they can lie.
//! Knows no other module: what it writes does not come from the code it tests.

/// A tar in the making.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// A header that can still be changed; the checksum is made last.
pub struct Header(pub [u8; 512]);

impl Header {
    /// A plain header: mode 0644, owner 0:0, mtime 1.
    pub fn new(path: &[u8], flag: u8, size: u64) -> Self {
        let mut block = [0; 512];
        let cut = path.len().min(100);
        block[..cut].copy_from_slice(&path[..cut]);
        let mut header = Header(block);
        header.set(100, if flag == b'5' { b"0000755\0" } else { b"0000644\0" });
        header.set(108, b"0000000\0");
        header.set(116, b"0000000\0");
        header.set(124, format!("{size:011o}\0").as_bytes());
        header.set(136, b"00000000001\0");
        header.0[156] = flag;
        header.set(257, b"ustar\x0000");
        header
    }

    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn link(mut self, target: &[u8]) -> Self {
        let cut = target.len().min(100);
        self.set(157, &target[..cut]);
        self
    }

    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.set(at, bytes);
        self
    }
}

/// A PAX record, its length told rightly.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let len = (body..).find(|len| body + len.to_string().len() == *len).unwrap();
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

impl Tar {
    pub fn new() -> Self {
        Tar::default()
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A header with its checksum, and data filled up to a block.
    pub fn header(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set(148, b"        ");
        let sum: u32 = header.0.iter().map(|&b| u32::from(b)).sum();
        header.set(148, format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header.0);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, data: &str) -> Self {
        self.header(Header::new(path.as_bytes(), b'0', data.len() as u64), data.as_bytes())
    }

    pub fn dir(self, path: &str) -> Self {
        self.header(Header::new(path.as_bytes(), b'5', 0), b"")
    }

    pub fn sym(self, path: &str, target: &str) -> Self {
        self.header(Header::new(path.as_bytes(), b'2', 0).link(target.as_bytes()), b"")
    }

    pub fn hard(self, path: &str, target: &str) -> Self {
        self.header(Header::new(path.as_bytes(), b'1', 0).link(target.as_bytes()), b"")
    }

    pub fn node(self, path: &str, flag: u8, major: u32, minor: u32) -> Self {
        let header = Header::new(path.as_bytes(), flag, 0)
            .with(329, format!("{major:07o}\0").as_bytes())
            .with(337, format!("{minor:07o}\0").as_bytes());
        self.header(header, b"")
    }

    /// An extended header of `flag` with `data`.
    pub fn extended(self, flag: u8, data: &[u8]) -> Self {
        self.header(Header::new(b"extended", flag, data.len() as u64), data)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.extended(b'x', &data)
    }

    /// The two blocks at the end.
    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}
