//! Paths resolved within a folder, by openat2(2). Uses: nothing else of rcrun.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::path::Arg;
use std::os::fd::{AsFd, OwnedFd};

/// EAGAIN: something was renamed or mounted, anywhere on the machine, while the kernel went through a `..` (openat2(2)). A
/// machine that is busy with either gives it now and then; nothing gives it so often in a row.
const TRIES: usize = 128;

/// Opens `path` from `folder` on, as `resolve` says.
pub fn open_within(
    folder: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match rustix::fs::openat2(folder.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if left > 0 => {}
            opened => return opened,
        }
    }
}

/// Opens `path` as a process sees it whose root is `folder`: nothing leads out of it.
pub fn open_in_root(folder: impl AsFd, path: impl Arg + Copy, flags: OFlags) -> Result<OwnedFd> {
    open_within(folder, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_path_with_dots_is_found_while_others_rename() {
        let folder = scratch::Folder::new("resolve");
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        let top = rustix::fs::open(folder.path(), OFlags::PATH, Mode::empty()).unwrap();
        let renamed = [folder.path().join("x"), folder.path().join("y")];
        std::fs::create_dir(&renamed[0]).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(&renamed[0], &renamed[1]).unwrap();
                    std::fs::rename(&renamed[1], &renamed[0]).unwrap();
                }
            });
            let path = "a/../b/../a";
            let opened = (0..2_000).map(|_| open_in_root(&top, path, OFlags::PATH).err());
            let errors: Vec<Errno> = opened.flatten().collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(errors, []);
        });
    }
}
