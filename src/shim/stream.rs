//! Bytes on their way between a process and whoever reads or feeds it. From pipe to pipe the kernel moves the pages
//! (splice(2)); nothing is held here but what a terminal or file has not taken yet. Uses: reader, watch.

use crate::reader;
use crate::watch::{Next, Token, Watches};
use rcrun_runtime::Result;
use rcrun_runtime::error::CallContext;
use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What a pipe holds.
const PIPE: usize = 64 * 1024;

/// What is read at once where there is no pipe at one end.
const CHUNK: usize = 8 * 1024;

/// After so many rounds others get their turn.
const ROUNDS: usize = 16;

/// How long what was said waits for a reader. A user has few instances of inotify (128 where the machine does not say otherwise).
const LATEST: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

/// How many streams of a process are not at their end.
#[derive(Debug, Default)]
pub struct Open {
    counts: Mutex<Counts>,
    less: Condvar,
    /// The FIFOs that we have open to read, too, of those that are not at their end.
    fifos: Mutex<Vec<Weak<OwnedFd>>>,
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    /// Of those: what their readers have yet to read holds them up.
    behind: usize,
}

impl Open {
    /// Waits until none is left, or `patience` ran out.
    pub fn wait(&self, patience: Duration) {
        self.wait_while(patience, patience, |counts| counts.open > 0);
    }

    /// Waits until no reader is behind, or none of them has read anything for as long as `silence`, or `patience` ran out: who
    /// outlives the process may write more than a reader can read.
    pub fn wait_for_readers(&self, silence: Duration, patience: Duration) {
        self.wait_while(silence, patience, |counts| counts.behind > 0);
    }

    /// Whether a reader has yet to read what was said.
    pub fn is_behind(&self) -> bool {
        self.counts().behind > 0
    }

    /// Whether something was moved that a reader has not read, by streams that are not at their end: a process that has ended
    /// has left others who may say more.
    pub fn has_unread(&self) -> bool {
        let fifos = self.fifos();
        fifos.iter().any(|fifo| is_unread(fifo, &fifos))
    }

    /// Waits until readers have read that, or have read nothing for as long as `silence`, or `patience` ran out.
    pub fn wait_for_unread(&self, silence: Duration, patience: Duration) {
        let deadline = Instant::now() + patience;
        let fifos = self.fifos().clone();
        for fifo in fifos {
            let locked = self.fifos();
            let Some(watch) = fifo.upgrade().map(|fifo| reader::watch(&*fifo)) else { continue };
            drop(locked);
            // A machine without an instance of inotify left has its ends all the same.
            let Ok(watch) = watch else { continue };
            while is_unread(&fifo, &self.fifos()) {
                let left = deadline.saturating_duration_since(Instant::now()).min(silence);
                if left.is_zero() || !reader::reads(&watch, left) {
                    return;
                }
            }
        }
    }

    fn fifos(&self) -> MutexGuard<'_, Vec<Weak<OwnedFd>>> {
        self.fifos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, silence: Duration, patience: Duration, more: impl Fn(&Counts) -> bool) {
        let deadline = Instant::now() + patience;
        let mut counts = self.counts();
        while more(&counts) {
            let left = deadline.saturating_duration_since(Instant::now()).min(silence);
            let (now, waited) = self.less.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return;
            }
            counts = now;
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; it is at its end when what is returned is dropped.
    pub fn one_more(self: &Arc<Self>) -> Counted {
        self.counts().open += 1;
        Counted { of: Arc::clone(self), behind: false }
    }
}

/// `_locked`: while it is held here its stream does not come to its end, where only its reader may have it open.
fn is_unread(fifo: &Weak<OwnedFd>, _locked: &MutexGuard<'_, Vec<Weak<OwnedFd>>>) -> bool {
    fifo.upgrade().is_some_and(|fifo| rustix::io::ioctl_fionread(&*fifo).is_ok_and(|unread| unread > 0))
}

/// A stream that is not at its end.
#[derive(Debug)]
pub struct Counted {
    of: Arc<Open>,
    behind: bool,
}

impl Counted {
    /// Something of it was moved: a reader who was behind has read.
    fn goes_on(&self) {
        if self.behind {
            self.of.less.notify_all();
        }
    }

    /// Whether its reader is.
    fn is_behind(&mut self, behind: bool) {
        if behind == self.behind {
            return;
        }
        self.behind = behind;
        let mut counts = self.of.counts();
        match behind {
            true => counts.behind += 1,
            false => counts.behind -= 1,
        }
        self.of.less.notify_all();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.is_behind(false);
        self.of.counts().open -= 1;
        self.of.less.notify_all();
    }
}

/// One direction.
struct Stream {
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    /// Both are pipes.
    pipes: bool,
    /// Read and not yet written.
    held: Vec<u8>,
    /// Nobody will ever read: what comes is thrown away, so that the process goes on.
    deaf: bool,
    /// It is `to` that is waited for.
    full: bool,
    /// `to` is a FIFO that we have open to read, too.
    kept: bool,
    /// All is said, into a FIFO that has not been read to its end: who is waited for.
    late: Option<Late>,
    /// Before the descriptors are closed: whoever has waited finds them closed a moment later at most.
    counted: Option<Counted>,
}

/// A reader who may still come, or has not read all.
struct Late {
    watch: OwnedFd,
    patience: OwnedFd,
    /// Of both of them.
    either: Arc<OwnedFd>,
}

impl Late {
    fn new(fifo: &OwnedFd) -> rustix::io::Result<Late> {
        let watch = reader::watch(fifo)?;
        let patience =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let end = Itimerspec { it_interval: never, it_value: LATEST };
        timerfd_settime(&patience, TimerfdTimerFlags::empty(), &end)?;
        let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for fd in [&watch, &patience] {
            epoll::add(&either, fd, epoll::EventData::new_u64(0), EventFlags::IN)?;
        }
        Ok(Late { watch, patience, either: Arc::new(either) })
    }

    /// Whether he will not come any more.
    fn look(&self) -> rustix::io::Result<bool> {
        reader::seen(&self.watch);
        Ok(rustix::io::read(&self.patience, &mut [0; 8]).is_ok())
    }
}

enum Step {
    Moved,
    Empty,
    Full,
    End,
}

/// Begins to move what comes from `from` to `to`. With `open` it is output, and counted there until its end, which is that
/// of `from`; else it is input, which also ends where nobody reads.
pub fn join(watches: &Watches, from: OwnedFd, to: OwnedFd, open: Option<&Arc<Open>>) -> Result<Token> {
    for fd in [&from, &to] {
        let flags = fcntl_getfl(fd).call("F_GETFL of a stream")?;
        fcntl_setfl(fd, flags | OFlags::NONBLOCK).call("F_SETFL of a stream")?;
    }
    let is_pipe =
        |fd: &OwnedFd| fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo);
    let pipes = is_pipe(&from) && is_pipe(&to);
    let kept =
        open.is_some() && is_pipe(&to) && fcntl_getfl(&to).is_ok_and(|f| f & OFlags::RWMODE == OFlags::RDWR);
    let (from, to) = (Arc::new(from), Arc::new(to));
    let source = Arc::clone(&from);
    let counted = open.map(Open::one_more);
    if let Some(open) = open.filter(|_| kept) {
        open.fifos().push(Arc::downgrade(&to));
    }
    let mut stream =
        Stream { from, to, pipes, held: Vec::new(), deaf: false, full: false, kept, late: None, counted };
    watches.add(source, EventFlags::IN, Box::new(move || stream.turn()))
}

impl Stream {
    fn turn(&mut self) -> Next {
        if self.late.is_some() {
            return self.end();
        }
        for _ in 0..ROUNDS {
            match self.step() {
                Step::Moved => self.counted.iter().for_each(Counted::goes_on),
                Step::Empty => return self.wait(false, false),
                Step::Full => return self.wait(true, true),
                // Not while `to` is waited for: that descriptor reads, too, and would be taken for the reader. What he has to
                // read is seen in the next turn.
                Step::End if self.full => return self.wait(false, true),
                Step::End => return self.end(),
            }
        }
        let full = self.full || !self.held.is_empty();
        let more = full || is_ready(&self.from, PollFlags::IN);
        self.wait(full, more)
    }

    /// All is said. The reader may have gone, and another be about to come; or he comes later than `reader::awaited` waits: he
    /// would find nothing, and wait for ever for somebody who writes. One who is there has to have read all: a client of
    /// containerd's that has opened its end in the kernel, and has not come so far itself, gives it up when the process is
    /// deleted.
    fn end(&mut self) -> Next {
        match self.linger() {
            Ok(next) => next,
            Err(_) => Next::Nothing,
        }
    }

    fn linger(&mut self) -> rustix::io::Result<Next> {
        if !self.kept {
            return Ok(Next::Nothing);
        }
        let gone = match &self.late {
            Some(late) => late.look()?,
            None => {
                let path = format!("/proc/self/fd/{}", self.to.as_raw_fd());
                // As somebody who only writes: so it shows who reads.
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let writer = Arc::new(rustix::fs::open(path.as_str(), flags, Mode::empty())?);
                let open = self.counted.as_ref().map(|counted| Arc::clone(&counted.of));
                let _locked = open.as_ref().map(|open| open.fifos());
                self.to = writer;
                false
            }
        };
        if gone || reader::has_all(&self.to) {
            return Ok(Next::Nothing);
        }
        let next = match &self.late {
            Some(_) => Next::Same,
            None => {
                let late = self.late.insert(Late::new(&self.to)?);
                // He may have come, or read, before it was watched.
                if reader::has_all(&self.to) {
                    return Ok(Next::Nothing);
                }
                Next::Other(Arc::clone(&late.either), EventFlags::IN)
            }
        };
        match &mut self.counted {
            Some(counted) if reader::is_there(&self.to) => {
                counted.is_behind(true);
                counted.goes_on();
            }
            // Who deletes the process does not wait for a reader.
            counted => *counted = None,
        }
        Ok(next)
    }

    fn wait(&mut self, full: bool, behind: bool) -> Next {
        if let Some(counted) = &mut self.counted {
            counted.is_behind(behind);
        }
        if self.full == full {
            return Next::Same;
        }
        self.full = full;
        match full {
            true => Next::Other(Arc::clone(&self.to), EventFlags::OUT),
            false => Next::Other(Arc::clone(&self.from), EventFlags::IN),
        }
    }

    fn is_output(&self) -> bool {
        self.counted.is_some()
    }

    fn step(&mut self) -> Step {
        if self.pipes && !self.deaf { self.splice() } else { self.copy() }
    }

    fn splice(&mut self) -> Step {
        match splice(&self.from, None, &self.to, None, PIPE, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(0) => Step::End,
            Ok(_) | Err(Errno::INTR) => Step::Moved,
            // Of which of the two it does not say.
            Err(Errno::AGAIN) => match is_ready(&self.to, PollFlags::OUT) {
                true => Step::Empty,
                false => Step::Full,
            },
            Err(Errno::PIPE) => self.unread(),
            Err(_) => {
                self.pipes = false;
                Step::Moved
            }
        }
    }

    fn unread(&mut self) -> Step {
        if !self.is_output() {
            return Step::End;
        }
        self.deaf = true;
        self.held.clear();
        Step::Moved
    }

    fn copy(&mut self) -> Step {
        if !self.held.is_empty() {
            return match rustix::io::write(&self.to, &self.held) {
                Ok(count) => {
                    self.held.drain(..count);
                    if self.held.is_empty() {
                        self.held = Vec::new();
                    }
                    Step::Moved
                }
                Err(Errno::INTR) => Step::Moved,
                Err(Errno::AGAIN) => Step::Full,
                Err(_) => self.unread(),
            };
        }
        let mut bytes = [0; CHUNK];
        match rustix::io::read(&self.from, &mut bytes) {
            Ok(0) => Step::End,
            Ok(_) if self.deaf => Step::Moved,
            Ok(count) => {
                self.held.extend_from_slice(&bytes[..count]);
                Step::Moved
            }
            Err(Errno::INTR) => Step::Moved,
            Err(Errno::AGAIN) => Step::Empty,
            // EIO: the last process has closed its terminal.
            Err(_) => Step::End,
        }
    }
}

/// Whether it is, or is at its end.
fn is_ready(fd: &OwnedFd, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    !matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn all_bytes_arrive_in_order_through_pipes_that_are_full() {
        let watches = Arc::new(Watches::new().unwrap());
        let (from, writer) = pipe();
        let (reader, to) = pipe();
        let open = Arc::new(Open::default());
        join(&watches, from, to, Some(&open)).unwrap();
        let (turning, counting) = (Arc::clone(&watches), Arc::clone(&open));
        let turner = std::thread::spawn(move || {
            while counting.counts().open > 0 {
                turning.turn().unwrap();
            }
        });
        let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let feeder = std::thread::spawn(move || {
            use std::io::Write;
            std::fs::File::from(writer).write_all(&sent).unwrap();
        });
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(reader), &mut got).unwrap();
        feeder.join().unwrap();
        turner.join().unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
        open.wait(Duration::ZERO);
    }

    #[test]
    fn output_that_nobody_reads_does_not_stop_who_writes() {
        let watches = Watches::new().unwrap();
        let (from, writer) = pipe();
        let (reader, to) = pipe();
        drop(reader);
        let open = Arc::new(Open::default());
        join(&watches, from, to, Some(&open)).unwrap();
        for _ in 0..64 {
            rustix::io::write(&writer, &[7; 4096]).unwrap();
            watches.turn().unwrap();
        }
        assert_eq!(open.counts().open, 1);
        drop(writer);
        watches.turn().unwrap();
        assert_eq!(open.counts().open, 0);
    }

    #[test]
    fn output_is_at_its_end_when_its_reader_has_it() {
        let watches = Watches::new().unwrap();
        let (from, writer) = pipe();
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        let opened = |flags| rustix::fs::open(&fifo, flags | OFlags::NONBLOCK, Mode::empty()).unwrap();
        let (reader, to) = (opened(OFlags::RDONLY), opened(OFlags::RDWR));
        let open = Arc::new(Open::default());
        join(&watches, from, to, Some(&open)).unwrap();
        rustix::io::write(&writer, b"said").unwrap();
        drop(writer);
        watches.turn().unwrap();
        assert_eq!(open.counts().open, 1);
        assert!(open.is_behind());
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]), Ok(4));
        watches.turn().unwrap();
        assert_eq!(open.counts().open, 0);
        assert!(!open.is_behind());
        // Nobody writes any more.
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]), Ok(0));
    }

    #[test]
    fn input_that_nobody_reads_is_let_go_of() {
        let watches = Watches::new().unwrap();
        let (from, writer) = pipe();
        let (reader, to) = pipe();
        drop(reader);
        join(&watches, from, to, None).unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        watches.turn().unwrap();
        assert_eq!(rustix::io::write(&writer, b"x"), Err(Errno::PIPE));
    }
}
