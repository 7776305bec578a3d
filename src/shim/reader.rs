//! Who reads a FIFO that output goes to. Knows no processes.

use crate::log;
use rcrun_runtime::Result;
use rcrun_runtime::error::CallContext;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Whether somebody has the FIFO open to read it, whose writing end `writer` is; we must have it open in no other way.
pub fn is_there(writer: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(writer, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::ERR)
}

/// The same, and he has read all that is in it.
pub fn has_all(writer: &OwnedFd) -> bool {
    is_there(writer) && rustix::io::ioctl_fionread(writer).is_ok_and(|unread| unread == 0)
}

/// Is readable whenever somebody has opened, read or closed the FIFO that `end` is an end of, whoever that was; `seen` takes
/// that back.
pub fn watch(end: impl AsFd) -> rustix::io::Result<OwnedFd> {
    use inotify::WatchFlags;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let path = format!("/proc/self/fd/{}", end.as_fd().as_raw_fd());
    inotify::add_watch(
        &watch,
        path.as_str(),
        WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE,
    )?;
    Ok(watch)
}

/// Takes what a `watch` has to say.
pub fn seen(watch: &OwnedFd) {
    let mut bytes = [0; 512];
    while rustix::io::read(watch, &mut bytes).is_ok_and(|count| count > 0) {}
}

/// Whether `watch` has something to say before `silence` is over; it is taken.
pub fn reads(watch: &OwnedFd, silence: Duration) -> bool {
    let Ok(limit) = Timespec::try_from(silence) else { return false };
    let ready = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&limit)));
    seen(watch);
    ready.is_ok_and(|ready| ready > 0)
}

/// Opens the FIFO at `path` to write it and, so that it is never without a reader, to read it, once somebody else has it open
/// to read, or at `latest`.
///
/// containerd's clients open their ends beside what they ask for, and give them up when the process has ended: what a short
/// one says was lost on a busy machine. runc's shim waits here, too, and without an end.
pub fn awaited(path: &Path, latest: Instant) -> Result<OwnedFd> {
    let open = |flags| rustix::fs::open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let call = || format!("open {}", path.display());
    let writer = match open(OFlags::WRONLY) {
        Err(Errno::NXIO) => {
            // Who waits in open(2) for a writer has opened nothing before there is one: inotify(7) would not tell.
            let both = open(OFlags::RDWR).call(call())?;
            let writer = open(OFlags::WRONLY).call(call())?;
            drop(both);
            // A machine without an instance of inotify left has its containers all the same.
            if let Err(error) = await_reader(&writer, latest) {
                log::warn(format_args!("who reads {} is not waited for: inotify: {error}", path.display()));
            }
            writer
        }
        other => other.call(call())?,
    };
    let both = open(OFlags::RDWR).call(call())?;
    // Not before: the reader would see an end.
    drop(writer);
    Ok(both)
}

fn await_reader(writer: &OwnedFd, latest: Instant) -> rustix::io::Result<()> {
    let watch = watch(writer)?;
    while !is_there(writer) {
        let left = latest.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let left = Timespec::try_from(left).map_err(|_| Errno::OVERFLOW)?;
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&left)) {
            Ok(_) => seen(&watch),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn fifo() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        (folder, path)
    }

    #[test]
    fn a_fifo_is_opened_once_there_is_a_reader_who_then_gets_all() {
        let (_folder, path) = fifo();
        let at = path.clone();
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            // Waits in open(2) until there is a writer.
            std::fs::File::open(at).unwrap().read_to_string(&mut all).unwrap();
            all
        });
        let both = awaited(&path, Instant::now() + Duration::from_secs(3600)).unwrap();
        rustix::io::write(&both, b"said").unwrap();
        drop(both);
        assert_eq!(reader.join().unwrap(), "said");
    }

    #[test]
    fn a_reader_who_is_there_already_is_not_waited_for() {
        let (_folder, path) = fifo();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let _reader = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        awaited(&path, Instant::now() + Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn a_reader_who_does_not_come_is_given_up() {
        let (_folder, path) = fifo();
        let both = awaited(&path, Instant::now() + Duration::from_millis(10)).unwrap();
        rustix::io::write(&both, b"said").unwrap();
    }
}
