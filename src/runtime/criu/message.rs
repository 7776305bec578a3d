//! The few messages of CRIU's RPC (its rpc.proto, in the encoding of protobuf) that are said and heard. Pure.

/// What is asked for, and what an answer is to: criu_req_type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Write the processes to images, and end them.
    Dump = 1,
    /// Make processes of images.
    Restore = 2,
    /// Write their memory only, and let them run.
    PreDump = 4,
    /// It tells how far it has come, and waits for an answer.
    Notify = 6,
    /// What this kernel lets it do.
    Features = 9,
    /// Which CRIU it is.
    Version = 10,
}

/// Fields of criu_opts that are switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Switch {
    LeaveRunning = 3,
    ExtUnixSk = 4,
    TcpEstablished = 5,
    EvasiveDevices = 6,
    ShellJob = 7,
    FileLocks = 8,
    NotifyScripts = 12,
    TrackMem = 15,
    AutoDedup = 16,
    LinkRemap = 18,
    ManageCgroups = 24,
    RstSibling = 26,
    TcpSkipInFlight = 46,
    LazyPages = 48,
    OrphanPtsMaster = 50,
    TcpClose = 52,
}

/// Fields of criu_opts that are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Number {
    ImagesDirFd = 1,
    Pid = 2,
    LogLevel = 9,
    WorkDirFd = 17,
    ManageCgroupsMode = 34,
    EmptyNs = 38,
    NetworkLock = 64,
}

/// Fields of criu_opts that are texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Text {
    LogFile = 10,
    Root = 13,
    ParentImg = 14,
    External = 37,
    FreezeCgroup = 44,
    ConfigFile = 51,
    LsmProfile = 53,
    LsmMountContext = 63,
}

/// criu_opts, as far as it has been said.
#[derive(Clone, Debug, Default)]
pub struct Options(Message);

impl Options {
    /// Sets a switch that is on.
    pub fn switch(&mut self, switch: Switch, on: bool) {
        if on {
            self.0.number(switch as u32, 1);
        }
    }

    /// Sets a number.
    pub fn number(&mut self, number: Number, value: u32) {
        self.0.number(number as u32, value.into());
    }

    /// Sets a text, or adds one where there may be several.
    pub fn text(&mut self, text: Text, value: &str) {
        self.0.bytes(text as u32, value.as_bytes());
    }

    /// A mount that is not in the images (ext_mnt): `key` and `value` are where it is and its name with a dump, its name and
    /// the source with a restore.
    pub fn mount(&mut self, key: &str, value: &str) {
        self.pair(23, key, value);
    }

    /// A namespace of others that restored processes join (join_ns).
    pub fn namespace(&mut self, kind: &str, path: &str) {
        self.pair(39, kind, path);
    }

    /// A descriptor of CRIU's that stands for `key` of the images (inherit_fd).
    pub fn inherit(&mut self, key: &str, fd: u32) {
        let mut part = Message::default();
        part.bytes(1, key.as_bytes());
        part.number(2, fd.into());
        self.0.bytes(27, &part.0);
    }

    /// The cgroup that takes the place of the topmost one of the images (cg_root).
    pub fn cgroup(&mut self, controller: &str, path: &str) {
        self.pair(25, controller, path);
    }

    /// Where pages go to instead of a file (ps).
    pub fn page_server(&mut self, address: &str, port: u16) {
        let mut part = Message::default();
        part.bytes(1, address.as_bytes());
        part.number(2, port.into());
        self.0.bytes(11, &part.0);
    }

    fn pair(&mut self, field: u32, first: &str, second: &str) {
        let mut part = Message::default();
        part.bytes(1, first.as_bytes());
        part.bytes(2, second.as_bytes());
        self.0.bytes(field, &part.0);
    }
}

/// criu_req.
pub fn request(kind: Kind, options: Option<&Options>) -> Vec<u8> {
    let mut request = Message::default();
    request.number(1, kind as u64);
    if let Some(options) = options {
        request.bytes(2, &options.0.0);
    }
    if kind == Kind::Features {
        let mut features = Message::default();
        features.number(1, 1);
        features.number(2, 1);
        request.bytes(5, &features.0);
    }
    request.0
}

/// The answer to a notice.
pub fn heard(well: bool) -> Vec<u8> {
    let mut request = Message::default();
    request.number(1, Kind::Notify as u64);
    request.number(3, well.into());
    request.0
}

/// What is read of a criu_resp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// What it answers: a number of `Kind`.
    pub kind: u64,
    /// It was done.
    pub success: bool,
    /// Why not, as an errno.
    pub errno: i32,
    /// How far it has come: `post-restore` and the like.
    pub notice: String,
    /// The restored process, with a notice or at the end.
    pub pid: Option<i32>,
    /// It can tell which pages were written since the last dump.
    pub tracks_memory: bool,
    /// It can restore memory page by page, as it is asked for.
    pub lazy_pages: bool,
    /// Its version: 4 and 1.
    pub version: (u64, u64),
}

impl Reply {
    /// None for what is none.
    pub fn of(bytes: &[u8]) -> Option<Reply> {
        let mut reply = Reply::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(kind)) => reply.kind = kind,
                (2, Value::Number(success)) => reply.success = success != 0,
                (4, Value::Bytes(restore)) => reply.pid = Some(number(restore, 1)? as i32),
                (5, Value::Bytes(notify)) => {
                    for field in Fields(notify) {
                        match field? {
                            (1, Value::Bytes(script)) => {
                                reply.notice = String::from_utf8_lossy(script).into_owned();
                            }
                            (2, Value::Number(pid)) => reply.pid = Some(pid as i32),
                            _ => {}
                        }
                    }
                }
                (7, Value::Number(errno)) => reply.errno = errno as i32,
                (8, Value::Bytes(features)) => {
                    reply.tracks_memory = number(features, 1)? != 0;
                    reply.lazy_pages = number(features, 2)? != 0;
                }
                (10, Value::Bytes(version)) => reply.version = (number(version, 1)?, number(version, 2)?),
                _ => {}
            }
        }
        Some(reply)
    }
}

/// A number of a message, 0 where it is not there.
fn number(message: &[u8], wanted: u32) -> Option<u64> {
    let mut found = 0;
    for field in Fields(message) {
        if let (field, Value::Number(value)) = field?
            && field == wanted
        {
            found = value;
        }
    }
    Some(found)
}

#[derive(Clone, Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; `Some(None)` where it is broken, and no more after that.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_protoc_makes_of_it() {
        let mut options = Options::default();
        options.number(Number::ImagesDirFd, 300);
        options.switch(Switch::LeaveRunning, true);
        options.switch(Switch::ShellJob, false);
        options.text(Text::LogFile, "dump.log");
        options.mount("/a", "/b");
        let expected =
            b"\x08\x01\x12\x1a\x08\xac\x02\x18\x01\x52\x08dump.log\xba\x01\x08\x0a\x02/a\x12\x02/b";
        assert_eq!(request(Kind::Dump, Some(&options)), expected);
        assert_eq!(heard(true), b"\x08\x06\x18\x01");
    }

    #[test]
    fn replies_are_read() {
        let notice = Reply::of(b"\x08\x06\x10\x01\x2a\x0f\x0a\x0bpre-restore\x10\x07").unwrap();
        assert_eq!((notice.kind, notice.notice.as_str(), notice.pid), (6, "pre-restore", Some(7)));
        let failed = Reply::of(b"\x08\x01\x10\x00\x38\x11\x4a\x02no").unwrap();
        assert_eq!((failed.success, failed.errno), (false, 17));
        let restored = Reply::of(b"\x08\x02\x10\x01\x22\x02\x08\x2a").unwrap();
        assert_eq!((restored.success, restored.pid), (true, Some(42)));
        let version = Reply::of(b"\x08\x0a\x10\x01\x52\x04\x08\x04\x10\x01").unwrap();
        assert_eq!(version.version, (4, 1));
    }

    #[test]
    fn what_is_no_reply_is_none() {
        let whole: &[u8] = b"\x08\x06\x10\x01\x2a\x0d\x0a\x0bpre-restore";
        for length in (0..whole.len()).filter(|l| ![0, 2, 4].contains(l)) {
            assert_eq!(Reply::of(&whole[..length]), None, "{length}");
        }
        assert_eq!(Reply::of(b"\x0b\x01"), None);
        assert_eq!(Reply::of(&[0xff; 16]), None);
    }
}
