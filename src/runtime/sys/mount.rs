//! mount_setattr(2), which neither nix nor rustix wraps.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The call that gives a mount an id map, as errors name it.
pub const SET_ID_MAP: &str = "mount_setattr MOUNT_ATTR_IDMAP";

/// What mount_setattr(2) changes: struct mount_attr.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MountAttributes {
    /// MOUNT_ATTR_* bits to set.
    pub set: u64,
    /// MOUNT_ATTR_* bits to clear.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE or 0.
    pub propagation: u64,
    /// User namespace for MOUNT_ATTR_IDMAP.
    pub user_namespace: u64,
}

/// Changes the mount that `fd` refers to, and with `recursive` all below it.
pub fn set_attributes(fd: BorrowedFd<'_>, recursive: bool, attributes: &MountAttributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string, `attributes` is a live struct mount_attr of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether this process may clone the mounts of its mount namespace: root there owns that mount namespace.
pub fn may_clone() -> bool {
    use rustix::mount::OpenTreeFlags;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // EINVAL: unbindable, or with mounts below that cannot be left out; the right to ask is checked first.
    !matches!(rustix::mount::open_tree(rustix::fs::CWD, "/", flags), Err(rustix::io::Errno::PERM))
}
