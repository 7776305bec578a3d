//! A path found as the container would find it. Uses: nothing else of this crate.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::path::Arg;
use std::os::fd::{AsFd, OwnedFd};

/// openat2(2) gives EAGAIN when something is renamed or mounted anywhere on the machine while it goes through a `..`.
const TRIES: usize = 128;

/// Opens `path` as a process sees it whose root is `root`: nothing leads out of it.
pub fn open_in_root(root: impl AsFd, path: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut left = TRIES;
    loop {
        left -= 1;
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if left > 0 => {}
            opened => return opened,
        }
    }
}
