//! Calls on files and directories. Whatever takes a name takes the fd of its directory first.
#![allow(unsafe_code)]

use super::{Fd, Result, call, done, n, numbers::*, open, p};
use core::ffi::CStr;

/// Bytes of the longest path with its NUL.
pub const PATH_MAX: usize = 4096;
/// openat2: absolute paths and `..` stay below the directory.
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// openat2: refuse what leaves the directory.
pub const RESOLVE_BENEATH: u64 = 0x08;
/// openat2: follow no symbolic link.
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
/// openat2: follow no link of procfs.
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// openat2: cross no mount.
pub const RESOLVE_NO_XDEV: u64 = 0x01;

pub(super) const AT_EMPTY_PATH: usize = 0x1000;
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const AT_EACCESS: usize = 0x200;

/// Bits of a mode that say what it is.
pub const S_IFMT: u32 = 0o170000;
/// FIFO.
pub const S_IFIFO: u32 = 0o010000;
/// Character device.
pub const S_IFCHR: u32 = 0o020000;
/// Directory.
pub const S_IFDIR: u32 = 0o040000;
/// Block device.
pub const S_IFBLK: u32 = 0o060000;
/// Regular file.
pub const S_IFREG: u32 = 0o100000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120000;

/// statfs(2) of procfs.
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// statfs(2) of devpts.
pub const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// A time of statx(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    seconds: i64,
    nanoseconds: u32,
    _pad: i32,
}

/// struct statx: the same on all architectures, which struct stat is not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    pub uid: u32,
    pub gid: u32,
    mode: u16,
    _pad: u16,
    pub inode: u64,
    pub size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: Time,
    btime: Time,
    ctime: Time,
    mtime: Time,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    mount: u64,
    rest: [u64; 13],
}

impl Statx {
    /// S_IFREG and the like.
    pub fn kind(&self) -> u32 {
        u32::from(self.mode) & S_IFMT
    }

    /// Permission bits with set-user-id, set-group-id and sticky.
    pub fn permissions(&self) -> u32 {
        u32::from(self.mode) & 0o7777
    }

    /// A device of this kind and number.
    pub fn is_device(&self, kind: u32, major: u32, minor: u32) -> bool {
        self.kind() == kind && self.rdev_major == major && self.rdev_minor == minor
    }
}

const STATX_BASIC_STATS: usize = 0x7ff;

fn statx(dir: i32, name: &CStr, flags: usize, mask: usize) -> Result<Statx> {
    let mut out = Statx::default();
    const { assert!(size_of::<Statx>() == 256) };
    // SAFETY: name ends with NUL; out has the 256 bytes of struct statx.
    unsafe { done(STATX, [n(dir), p(name), flags, mask, &raw mut out as usize, 0]) }?;
    Ok(out)
}

/// The mount that an open file lies in.
#[derive(Clone, Copy, Debug)]
pub struct MountOf {
    /// Its id: one that is never used again where the kernel has such (Linux 6.8).
    pub id: u64,
    /// The file is its root.
    pub is_root: bool,
}

/// statx(2) of the mount that an open file lies in (Linux 5.8).
pub fn mount_of(fd: i32) -> Result<MountOf> {
    const STATX_MNT_ID: usize = 0x1000;
    const STATX_MNT_ID_UNIQUE: usize = 0x4000;
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    let stat = statx(fd, c"", AT_EMPTY_PATH, STATX_MNT_ID | STATX_MNT_ID_UNIQUE)?;
    Ok(MountOf { id: stat.mount, is_root: stat.attributes & STATX_ATTR_MOUNT_ROOT != 0 })
}

/// statx(2) of an open file.
pub fn stat_fd(fd: i32) -> Result<Statx> {
    statx(fd, c"", AT_EMPTY_PATH, STATX_BASIC_STATS)
}

/// statx(2) of a name itself.
pub fn stat_name(dir: i32, name: &CStr) -> Result<Statx> {
    statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS)
}

/// statx(2) of what a path leads to.
pub fn stat_path(dir: i32, path: &CStr) -> Result<Statx> {
    statx(dir, path, 0, STATX_BASIC_STATS)
}

/// f_type of fstatfs(2).
pub fn file_system(fd: i32) -> Result<i64> {
    let mut out = [0_i64; 32];
    // SAFETY: out is larger than struct statfs (120 bytes), whose first word is f_type.
    unsafe { done(FSTATFS, [n(fd), out.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    Ok(out[0])
}

/// openat2(2); O_CLOEXEC is added.
pub fn openat2(dir: i32, path: &CStr, flags: u64, resolve: u64) -> Result<Fd> {
    let how = [flags | O_CLOEXEC, 0, resolve];
    // SAFETY: path ends with NUL; how is struct open_how as of Linux 5.6, 24 bytes.
    unsafe { open(OPENAT2, [n(dir), p(path), how.as_ptr() as usize, 24, 0, 0]) }
}

/// openat(2) of one name, never through a link; O_CLOEXEC is added.
pub fn openat(dir: i32, name: &CStr, flags: u64, mode: u32) -> Result<Fd> {
    let flags = (flags | O_CLOEXEC | O_NOFOLLOW) as usize;
    // SAFETY: name ends with NUL.
    unsafe { open(OPENAT, [n(dir), p(name), flags, mode as usize, 0, 0]) }
}

/// mkdirat(2).
pub fn mkdirat(dir: i32, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: name ends with NUL.
    unsafe { done(MKDIRAT, [n(dir), p(name), mode as usize, 0, 0, 0]) }
}

/// mknodat(2).
pub fn mknodat(dir: i32, name: &CStr, mode: u32, major: u32, minor: u32) -> Result<()> {
    // The kernel's new_decode_dev: 12 bits of major between the 8 low and 12 high ones of minor.
    let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    // SAFETY: name ends with NUL.
    unsafe { done(MKNODAT, [n(dir), p(name), mode as usize, device as usize, 0, 0]) }
}

/// symlinkat(2).
pub fn symlinkat(target: &CStr, dir: i32, name: &CStr) -> Result<()> {
    // SAFETY: both texts end with NUL.
    unsafe { done(SYMLINKAT, [p(target), n(dir), p(name), 0, 0, 0]) }
}

/// readlinkat(2): the part of `buffer` that was filled.
pub fn readlinkat<'a>(dir: i32, name: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    // SAFETY: name ends with NUL; buffer is writable for its length.
    let length =
        unsafe { call(READLINKAT, [n(dir), p(name), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0]) }?;
    Ok(&buffer[..length.min(buffer.len())])
}

/// unlinkat(2) of anything but a directory.
pub fn unlinkat(dir: i32, name: &CStr) -> Result<()> {
    // SAFETY: name ends with NUL.
    unsafe { done(UNLINKAT, [n(dir), p(name), 0, 0, 0, 0]) }
}

/// fchownat(2) of an open file, also one opened with O_PATH.
pub fn chown_fd(fd: i32, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the text ends with NUL.
    unsafe { done(FCHOWNAT, [n(fd), p(c""), uid as usize, gid as usize, AT_EMPTY_PATH, 0]) }
}

/// fchownat(2) of a name itself.
pub fn chown_name(dir: i32, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: name ends with NUL.
    unsafe { done(FCHOWNAT, [n(dir), p(name), uid as usize, gid as usize, AT_SYMLINK_NOFOLLOW, 0]) }
}

/// fchmod(2).
pub fn chmod_fd(fd: i32, mode: u32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(FCHMOD, [n(fd), mode as usize, 0, 0, 0, 0]) }
}

/// fchmodat2(2) of what an O_PATH fd names (Linux 6.6).
pub fn chmod_path_fd(fd: i32, mode: u32) -> Result<()> {
    // SAFETY: the text ends with NUL.
    unsafe { done(FCHMODAT2, [n(fd), p(c""), mode as usize, AT_EMPTY_PATH, 0, 0]) }
}

/// fchmodat(2), which follows links: for a directory's own "." and for links of procfs.
pub fn chmod_following(dir: i32, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path ends with NUL.
    unsafe { done(FCHMODAT, [n(dir), p(path), mode as usize, 0, 0, 0]) }
}

fn times(stat: &Statx) -> [i64; 4] {
    let of = |t: &Time| (t.seconds, i64::from(t.nanoseconds));
    let ((access, access_ns), (change, change_ns)) = (of(&stat.atime), of(&stat.mtime));
    [access, access_ns, change, change_ns]
}

/// utimensat(2) of an open file, to the times in `stat`.
pub fn set_times_fd(fd: i32, stat: &Statx) -> Result<()> {
    let times = times(stat);
    // SAFETY: times are two struct timespec; a null path means the fd itself.
    unsafe { done(UTIMENSAT, [n(fd), 0, times.as_ptr() as usize, 0, 0, 0]) }
}

/// utimensat(2) of a name itself, to the times in `stat`.
pub fn set_times_name(dir: i32, name: &CStr, stat: &Statx) -> Result<()> {
    let times = times(stat);
    // SAFETY: name ends with NUL; times are two struct timespec.
    unsafe { done(UTIMENSAT, [n(dir), p(name), times.as_ptr() as usize, AT_SYMLINK_NOFOLLOW, 0, 0]) }
}

/// getdents64(2): the part of `buffer` that was filled; empty at the end.
pub fn getdents(dir: i32, buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: buffer is writable for its length.
    let length = unsafe { call(GETDENTS64, [n(dir), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0]) }?;
    Ok(&buffer[..length.min(buffer.len())])
}

/// sendfile(2) from and to the current offsets: how many bytes.
pub fn sendfile(to: i32, from: i32, most: usize) -> Result<usize> {
    // SAFETY: a null offset means the file's own.
    unsafe { call(SENDFILE, [n(to), n(from), 0, most, 0, 0]) }
}

/// write(2): how many bytes.
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: bytes are readable for their length.
    unsafe { call(WRITE, [n(fd), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }
}

/// read(2).
pub fn read(fd: i32, bytes: &mut [u8]) -> Result<usize> {
    // SAFETY: bytes are writable for their length.
    unsafe { call(READ, [n(fd), bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]) }
}

/// faccessat2(2): may the effective user execute it?
pub fn may_execute(path: &CStr) -> Result<()> {
    const X_OK: usize = 1;
    // SAFETY: path ends with NUL.
    unsafe { done(FACCESSAT2, [n(super::AT_FDCWD), p(path), X_OK, AT_EACCESS, 0, 0]) }
}

/// ioctl(2) with a number.
pub fn ioctl(fd: i32, request: u32, argument: usize) -> Result<usize> {
    // SAFETY: callers in this crate name requests that take a number: TIOCSCTTY, TIOCGPTPEER.
    unsafe { call(IOCTL, [n(fd), request as usize, argument, 0, 0, 0]) }
}

/// ioctl(2) with at most 40 bytes (struct ifreq is the largest) that go in and out.
pub fn ioctl_bytes(fd: i32, request: u32, bytes: &mut [u8; 40]) -> Result<()> {
    // SAFETY: callers in this crate name requests whose structure is at most struct ifreq, 40 bytes.
    unsafe { done(IOCTL, [n(fd), request as usize, bytes.as_mut_ptr() as usize, 0, 0, 0]) }
}

/// dup3(2) without O_CLOEXEC: what the payload is to have.
pub fn dup_onto(fd: i32, number: i32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(DUP3, [n(fd), n(number), 0, 0, 0, 0]) }
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC, from `first` on.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(CLOSE_RANGE, [first as usize, u32::MAX as usize, 4, 0, 0, 0]) }
}
