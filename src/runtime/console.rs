//! The bytes between the host's stdio and the container's pty, for a foreground container. Owns the pty's
//! master and the host terminal's raw mode; foreground's loop says when a descriptor is ready. Never blocks
//! on a write and holds at most one buffer a direction.

use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, openat};
use rustix::io::{Errno, read, write};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{SpecialCodeIndex, tcgetattr};

use crate::error::{CallContext, Result};
use crate::terminal::{RawMode, clear_onlcr, copy_size, first_terminal};

/// A write of at most PIPE_BUF never blocks on a pipe that poll(2) calls writable.
const BUFFER: usize = 4096;

/// More than a pty can hold (64 KiB of tty buffers and the line discipline's 4 KiB): where reading stops
/// once the container is gone, though something else still writes to its terminal.
const LEFT_OVER: usize = 128 * 1024;

/// A foreground container's terminal, joined to the host's stdio.
#[derive(Debug)]
pub struct Console {
    /// None once it has failed for good: every slave is closed.
    master: Option<OwnedFd>,
    /// A slave of our own: without it the master fails while the container has its terminal closed between
    /// two opens, as init systems do with /dev/console. None where the container is gone already.
    _peer: Option<OwnedFd>,
    /// None after its end.
    input: Option<OwnedFd>,
    /// None when nobody reads it any more; the container's output is then thrown away, so that it goes on.
    output: Option<OwnedFd>,
    /// The terminal whose size the container's follows.
    host: Option<OwnedFd>,
    raw: Option<RawMode>,
    to_container: Buffer,
    to_host: Buffer,
    /// The last byte that went to the container.
    last: u8,
}

impl Console {
    /// Joins `master` to this process's stdin and stdout: the host's terminal goes to raw mode if stdin is
    /// one, and its size to the pty. Best before the container's process can write: what it wrote already has
    /// carriage returns.
    pub fn new(master: OwnedFd) -> Result<Console> {
        let (input, output, error) = (stdin(), stdout(), stderr());
        let host = first_terminal(&[input.as_fd(), output.as_fd(), error.as_fd()]);
        Console::between(master, input.as_fd(), output.as_fd(), host)
    }

    /// The same with other descriptors; `host` is the terminal whose size is copied.
    pub fn between(
        master: OwnedFd,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        host: Option<BorrowedFd<'_>>,
    ) -> Result<Console> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = ioctl_tiocgptpeer(&master, flags).ok();
        clear_onlcr(master.as_fd())?;
        let status = fcntl_getfl(&master).call("F_GETFL of the pty's master")?;
        fcntl_setfl(&master, status | OFlags::NONBLOCK).call("F_SETFL of the pty's master")?;
        let console = Console {
            _peer: peer,
            raw: first_terminal(&[input]).map(RawMode::set).transpose()?,
            input: Some(without_blocking(input, OFlags::RDONLY).call("dup of stdin")?),
            output: Some(without_blocking(output, OFlags::WRONLY).call("dup of stdout")?),
            host: host.map(|fd| fd.try_clone_to_owned()).transpose().call("dup of the host's terminal")?,
            master: Some(master),
            to_container: Buffer::new(),
            to_host: Buffer::new(),
            last: b'\n',
        };
        console.resize()?;
        Ok(console)
    }

    /// Gives the container's terminal the size of the host's: at first, and on SIGWINCH.
    pub fn resize(&self) -> Result<()> {
        match (&self.host, &self.master) {
            (Some(host), Some(master)) => copy_size(host.as_fd(), master.as_fd()),
            _ => Ok(()),
        }
    }

    /// Back to raw mode after SIGCONT.
    pub fn continued(&self) -> Result<()> {
        self.raw.as_ref().map_or(Ok(()), RawMode::set_again)
    }

    /// What to wait for now.
    pub(crate) fn wanted(&self) -> Vec<PollFd<'_>> {
        let mut wanted = Vec::with_capacity(3);
        let Some(master) = &self.master else {
            wanted.extend(self.output_wanted());
            return wanted;
        };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.to_host.is_empty());
        flags.set(PollFlags::OUT, !self.to_container.is_empty());
        if !flags.is_empty() {
            wanted.push(PollFd::new(master, flags));
        }
        if let (Some(input), true) = (&self.input, self.to_container.is_empty()) {
            wanted.push(PollFd::new(input, PollFlags::IN));
        }
        wanted.extend(self.output_wanted());
        wanted
    }

    /// The output, while something is to be written; its hang-up would be reported at any time.
    pub(crate) fn output_wanted(&self) -> Option<PollFd<'_>> {
        let output = self.output.as_ref()?;
        (!self.to_host.is_empty()).then(|| PollFd::new(output, PollFlags::OUT))
    }

    /// Moves bytes. `ready` says whether poll(2) reported a descriptor; only stdin and stdout need to be
    /// asked, the master never blocks.
    pub(crate) fn turn(&mut self, ready: impl Fn(BorrowedFd<'_>) -> bool) {
        if let Some(input) = &self.input
            && self.to_container.is_empty()
            && ready(input.as_fd())
            && self.to_container.fill(input) == Flow::Ended
        {
            self.input = None;
            self.end_of_input();
        }
        if let Some(master) = &self.master {
            if let Some(last) = self.to_container.last() {
                self.last = last;
            }
            if self.to_container.flush(master) == Flow::Ended {
                self.master = None;
            }
        }
        self.read_master();
        if self.output.as_ref().is_some_and(|output| ready(output.as_fd())) {
            self.write_output();
        }
    }

    /// Nobody is left to read what is typed: ^C and ^Q are the host terminal's own again.
    pub(crate) fn end_raw_mode(&mut self) {
        self.raw = None;
    }

    /// After the container's end: moves what its terminal still holds. True when all is written; else
    /// wait for `output_wanted` and call again.
    pub(crate) fn drain(&mut self, left: &mut usize) -> bool {
        loop {
            if !self.to_host.is_empty() {
                return false;
            }
            if *left == 0 {
                return true;
            }
            self.read_master();
            if self.to_host.is_empty() {
                return true;
            }
            *left = left.saturating_sub(self.to_host.len());
        }
    }

    /// How much `drain` may move in all.
    pub(crate) fn left_over() -> usize {
        LEFT_OVER
    }

    /// Writes to stdout, which poll(2) has called writable.
    pub(crate) fn write_output(&mut self) {
        if let Some(output) = &self.output
            && self.to_host.flush(output) == Flow::Ended
        {
            self.output = None;
            self.to_host.clear();
        }
    }

    fn read_master(&mut self) {
        if let Some(master) = &self.master
            && self.to_host.is_empty()
            && self.to_host.fill(master) == Flow::Ended
        {
            self.master = None;
        }
        if self.output.is_none() {
            self.to_host.clear();
        }
    }

    /// Types the terminal's end-of-file character, so that a shell that reads a script from our stdin ends
    /// with it; twice after an unfinished line, which the first one only completes.
    fn end_of_input(&mut self) {
        let Some(Ok(modes)) = self.master.as_ref().map(tcgetattr) else { return };
        // _POSIX_VDISABLE: there is no such character.
        let character = modes.special_codes[SpecialCodeIndex::VEOF];
        if character != 0 {
            let times = if self.last == b'\n' { 1 } else { 2 };
            self.to_container.put(&[character; 2][..times]);
        }
    }
}

/// A descriptor for the same file whose reads and writes do not block, where that is possible without
/// changing the description that we share with the shell: terminals and pipes can be opened once more. Others
/// rarely block after poll(2).
fn without_blocking(fd: BorrowedFd<'_>, access: OFlags) -> std::io::Result<OwnedFd> {
    if let FileType::CharacterDevice | FileType::Fifo = FileType::from_raw_mode(fstat(fd)?.st_mode) {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Fails where the terminal belongs to another user (after su), or a pipe has lost its readers.
        if let Ok(again) = openat(CWD, path, flags, Mode::empty()) {
            return Ok(again);
        }
    }
    fd.try_clone_to_owned()
}

#[derive(Debug, PartialEq, Eq)]
enum Flow {
    On,
    Ended,
}

/// Bytes on their way in one direction; filled again only when empty.
#[derive(Debug)]
struct Buffer {
    bytes: [u8; BUFFER],
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Buffer { bytes: [0; BUFFER], start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn last(&self) -> Option<u8> {
        self.bytes[self.start..self.end].last().copied()
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        (self.start, self.end) = (0, bytes.len());
    }

    fn fill(&mut self, from: &OwnedFd) -> Flow {
        match read(from, &mut self.bytes) {
            Ok(0) => Flow::Ended,
            Ok(count) => {
                (self.start, self.end) = (0, count);
                Flow::On
            }
            Err(Errno::INTR | Errno::AGAIN) => Flow::On,
            // EIO: no slave is open any more, or the host's terminal has hung up.
            Err(_) => Flow::Ended,
        }
    }

    fn flush(&mut self, to: &OwnedFd) -> Flow {
        if self.is_empty() {
            return Flow::On;
        }
        match write(to, &self.bytes[self.start..self.end]) {
            Ok(count) => {
                self.start += count;
                Flow::On
            }
            Err(Errno::INTR | Errno::AGAIN) => Flow::On,
            Err(_) => Flow::Ended,
        }
    }
}
