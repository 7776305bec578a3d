//! What CRIU's log says of a failure: it writes it nowhere else.

use rustix::fs::{Mode, OFlags, openat};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;

/// So much of its end is read.
const MOST: u64 = 64 << 10;

/// The last errors of the log `name` in `folder`, as one text; empty where there are none.
pub fn excerpt(folder: BorrowedFd<'_>, name: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = openat(folder, name, flags, Mode::empty()) else { return String::new() };
    let mut file = std::fs::File::from(fd);
    let length = file.metadata().map_or(0, |data| data.len());
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(MOST)))
        .and_then(|_| file.take(MOST).read_to_end(&mut bytes));
    match read {
        Ok(_) => errors(&String::from_utf8_lossy(&bytes)),
        Err(_) => String::new(),
    }
}

/// `(00.01) Error (criu/x.c:1): it` is told as `it`.
pub(super) fn errors(text: &str) -> String {
    let of = |line: &str| {
        let (_, said) = line.split_once("Error (")?;
        let (_, said) = said.split_once("): ")?;
        // The pid of one of its helpers may stand before.
        Some(said.trim().to_string())
    };
    let empty = |line: &String| line.is_empty() || line.ends_with("ing FAILED.");
    let mut lines: Vec<String> = text.lines().filter_map(of).filter(|line| !empty(line)).collect();
    lines.dedup();
    // What could be done without may have failed before.
    lines.drain(..lines.len().saturating_sub(3));
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_of_a_log_are_told_without_its_ornaments() {
        let log = "\
(00.000100) Version: 4.1.1\n\
(00.005000) Error (criu/util.c:1): rlimit\n\
(00.006000) Error (criu/util.c:2): one\n\
(00.010000) Warn  (criu/x.c:1): nothing\n\
(00.015000) Error (criu/util.c:3): two\n\
(00.020000) Error (criu/mount.c:12): mnt: Mount 7 has no place\n\
(00.020001)     77: Error (criu/mount.c:12): mnt: Mount 7 has no place\n\
(00.030000) Error (criu/cr-dump.c:9): Dumping FAILED.\n";
        assert_eq!(errors(log), "one; two; mnt: Mount 7 has no place");
        assert_eq!(errors("(00.1) all is well\n"), "");
    }
}
