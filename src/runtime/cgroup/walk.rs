//! Goes through a cgroup and all below it. The container may have made those, as deep as it likes: the way is kept as
//! names, with two open directories at a time and no recursion.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use super::Cgroup;
use super::file::open_parent;
use crate::{Error, Result};

/// Calls `enter` with each cgroup before those below it, and `leave` with a cgroup's parent and its name when
/// all below it is done (not for `top` itself). What vanishes meanwhile is passed over.
pub(super) fn walk(
    top: &Cgroup,
    enter: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    leave: &mut dyn FnMut(BorrowedFd<'_>, &CStr) -> Result<()>,
) -> Result<()> {
    let fail = |errno| Error::call(format!("list cgroup {}", top.path()), errno);
    enter(top.as_fd())?;
    // A description of its own: reading a directory moves its position.
    let mut here = match open_child(top.as_fd(), c".") {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fail(errno)),
    };
    // For each level what is still to be entered; for each but the top its name.
    let mut pending = vec![children(&here).map_err(fail)?];
    let mut names: Vec<CString> = Vec::new();
    while let Some(siblings) = pending.last_mut() {
        if let Some(name) = siblings.pop() {
            match open_child(here.as_fd(), &name) {
                Ok(child) => {
                    enter(child.as_fd())?;
                    pending.push(children(&child).map_err(fail)?);
                    names.push(name);
                    here = child;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(fail(errno)),
            }
            continue;
        }
        pending.pop();
        let Some(name) = names.pop() else { break };
        here = open_parent(&here).map_err(fail)?;
        leave(here.as_fd(), &name)?;
    }
    Ok(())
}

fn open_child(dir: BorrowedFd<'_>, name: &CStr) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn children(dir: &OwnedFd) -> std::result::Result<Vec<CString>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if entry.file_type() == FileType::Directory => {
                if entry.file_name() != c"." && entry.file_name() != c".." {
                    names.push(entry.file_name().to_owned());
                }
            }
            Ok(_) => {}
            // Removed while it is listed.
            Err(Errno::NOENT | Errno::NODEV) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(names)
}
