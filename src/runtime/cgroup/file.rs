//! Opening, reading and writing a cgroup's control files, always relative to its directory's fd.

use std::os::fd::{AsFd, OwnedFd};

use crate::resolve::open_within;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat};
use rustix::io::{Errno, read, write};

/// cgroupfs has neither symlinks nor sub-mounts of its own: either would be somebody's trap.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Opens the control file `name` of the cgroup that `dir` is.
pub(super) fn open_control(dir: impl AsFd, name: &str, access: OFlags) -> Result<OwnedFd, Errno> {
    openat(dir, name, access | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the cgroup at `relative` below `dir`. O_RDONLY, not O_PATH: its entries are listed when it is removed,
/// and CLONE_INTO_CGROUP and BPF_PROG_ATTACH take either.
pub(super) fn open_cgroup(dir: impl AsFd, relative: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    open_within(dir, relative, flags, BENEATH)
}

/// Opens the cgroup above `dir`.
pub(super) fn open_parent(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(dir, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// What the control file `name` says. For files that the kernel prints in one go: one read has it all.
pub(super) fn read_value(dir: impl AsFd, name: &str) -> Result<String, Errno> {
    let file = open_control(dir, name, OFlags::RDONLY)?;
    let mut buffer = [0_u8; 4096];
    loop {
        match read(&file, &mut buffer) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
}

/// The whole of the control file `name`, which is a list (`cgroup.procs`) and may come in several reads.
pub(super) fn read_list(dir: impl AsFd, name: &str) -> Result<String, Errno> {
    let file = open_control(dir, name, OFlags::RDONLY)?;
    let mut text = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        match read(&file, &mut buffer) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes `value` to the control file `name`, in one write as the kernel wants it.
pub(super) fn write_control(dir: impl AsFd, name: &str, value: &str) -> Result<(), Errno> {
    let file = open_control(dir, name, OFlags::WRONLY)?;
    loop {
        match write(&file, value.as_bytes()) {
            Ok(length) if length == value.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
}
