//! The mount calls that work on fds, pivot_root and namespaces.
#![allow(unsafe_code)]

use super::{AT_FDCWD, Fd, Result, done, file::AT_EMPTY_PATH, n, numbers::*, open, p};
use core::ffi::CStr;

const AT_RECURSIVE: usize = 0x8000;
const OPEN_TREE_CLONE: usize = 1;

/// mount attribute: read-only.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// mount attributes: read-only, nosuid, nodev, noexec.
pub const MOUNT_ATTR_INERT: u32 = 0xf;

/// fsopen(2).
pub fn fsopen(kind: &CStr) -> Result<Fd> {
    const FSOPEN_CLOEXEC: usize = 1;
    // SAFETY: kind ends with NUL.
    unsafe { open(FSOPEN, [p(kind), FSOPEN_CLOEXEC, 0, 0, 0, 0]) }
}

/// fsconfig(2), FSCONFIG_SET_FLAG.
pub fn fs_flag(fs: i32, key: &CStr) -> Result<()> {
    // SAFETY: key ends with NUL.
    unsafe { done(FSCONFIG, [n(fs), 0, p(key), 0, 0, 0]) }
}

/// fsconfig(2), FSCONFIG_SET_STRING.
pub fn fs_string(fs: i32, key: &CStr, value: &CStr) -> Result<()> {
    // SAFETY: both texts end with NUL.
    unsafe { done(FSCONFIG, [n(fs), 1, p(key), p(value), 0, 0]) }
}

/// fsconfig(2), FSCONFIG_CMD_CREATE, then fsmount(2).
pub fn fsmount(fs: i32, attributes: u32) -> Result<Fd> {
    const FSMOUNT_CLOEXEC: usize = 1;
    // SAFETY: the command takes no pointers.
    unsafe { done(FSCONFIG, [n(fs), 6, 0, 0, 0, 0]) }?;
    // SAFETY: no pointer.
    unsafe { open(FSMOUNT, [n(fs), FSMOUNT_CLOEXEC, attributes as usize, 0, 0, 0]) }
}

/// open_tree(2) with OPEN_TREE_CLONE of what `fd` names.
pub fn clone_tree(fd: i32, recursive: bool) -> Result<Fd> {
    let flags = OPEN_TREE_CLONE | O_CLOEXEC as usize | AT_EMPTY_PATH | recursion(recursive);
    // SAFETY: the text ends with NUL.
    unsafe { open(OPEN_TREE, [n(fd), p(c""), flags, 0, 0, 0]) }
}

fn recursion(recursive: bool) -> usize {
    if recursive { AT_RECURSIVE } else { 0 }
}

/// move_mount(2) of one fd onto another.
pub fn move_mount(mount: i32, target: i32) -> Result<()> {
    const EMPTY_PATHS: usize = 0x04 | 0x40;
    // SAFETY: the texts end with NUL.
    unsafe { done(MOVE_MOUNT, [n(mount), p(c""), n(target), p(c""), EMPTY_PATHS, 0]) }
}

/// move_mount(2) onto a path of the machine: for the root itself, before anything of the container is there.
pub fn move_onto_path(mount: i32, path: &CStr) -> Result<()> {
    const F_EMPTY_PATH_T_SYMLINKS: usize = 0x04 | 0x10;
    // SAFETY: the texts end with NUL.
    unsafe { done(MOVE_MOUNT, [n(mount), p(c""), n(AT_FDCWD), p(path), F_EMPTY_PATH_T_SYMLINKS, 0]) }
}

/// struct mount_attr without its userns_fd.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

fn mount_setattr(fd: i32, path: &CStr, flags: usize, to: Attributes) -> Result<()> {
    let attr = [to.set, to.clear, to.propagation, 0];
    // SAFETY: path ends with NUL; attr is struct mount_attr, 32 bytes.
    unsafe { done(MOUNT_SETATTR, [n(fd), p(path), flags, attr.as_ptr() as usize, 32, 0]) }
}

/// mount_setattr(2) of the mount that `fd` names.
pub fn set_attributes(mount: i32, to: Attributes, recursive: bool) -> Result<()> {
    mount_setattr(mount, c"", AT_EMPTY_PATH | recursion(recursive), to)
}

/// mount_setattr(2) of the propagation of `/` and all below.
pub fn set_propagation_of_slash(propagation: u64) -> Result<()> {
    mount_setattr(AT_FDCWD, c"/", AT_RECURSIVE, Attributes { propagation, ..Attributes::default() })
}

/// pivot_root(".", ".").
pub fn pivot_here() -> Result<()> {
    // SAFETY: the texts end with NUL.
    unsafe { done(PIVOT_ROOT, [p(c"."), p(c"."), 0, 0, 0, 0]) }
}

/// umount2(".", MNT_DETACH).
pub fn detach_here() -> Result<()> {
    detach(c".")
}

/// umount2(MNT_DETACH).
pub fn detach(path: &CStr) -> Result<()> {
    const MNT_DETACH: usize = 2;
    // SAFETY: the text ends with NUL.
    unsafe { done(UMOUNT2, [p(path), MNT_DETACH, 0, 0, 0, 0]) }
}

/// chroot(".").
pub fn chroot_here() -> Result<()> {
    // SAFETY: the text ends with NUL.
    unsafe { done(CHROOT, [p(c"."), 0, 0, 0, 0, 0]) }
}

/// setns(2).
pub fn setns(fd: i32, kinds: u32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(SETNS, [n(fd), kinds as usize, 0, 0, 0, 0]) }
}

/// unshare(2).
pub fn unshare(kinds: u32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(UNSHARE, [kinds as usize, 0, 0, 0, 0, 0]) }
}
