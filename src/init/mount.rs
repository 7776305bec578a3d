//! Steps that make the tree: mounts, what they are put on, nodes, links, masks, and the change of root.

use crate::{
    in_root::{Root, open_name},
    sys::{
        AT_FDCWD, Failure, Fd, Result,
        errno::{EACCES, EEXIST, EINVAL, EIO, ENOENT, ENOSYS, ENOTDIR, EPERM, ESTALE},
        file::{self, S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT, Statx},
        mount::{self, Attributes, MOUNT_ATTR_INERT, MOUNT_ATTR_RDONLY},
        numbers::{O_DIRECTORY, O_PATH, O_RDONLY, O_WRONLY},
        process,
    },
};
use core::ffi::CStr;

const CLONE_NEWNS: u32 = 0x2_0000;

/// This process' mount namespace, which must be another one than that of `host`.
pub fn own_namespace(host: &Fd) -> Result<Fd> {
    let own = file::openat2(AT_FDCWD, c"/proc/self/ns/mnt", O_RDONLY, 0)?;
    differs(host, file::stat_fd(own.raw())?)?;
    Ok(own)
}

/// Sets the propagation of all mounts of the namespace, also of those that a chroot(2) of the caller's hides: pivot_root(2)
/// exchanges what `/` is to this process, and a chroot's mount is not the namespace's root. That, setns(2) shows: to `exec`,
/// and to a payload that joins its own namespace. Whether there is such a chroot; paths are still those that it shows.
pub fn set_propagation(namespace: Option<&Fd>, propagation: u64) -> Result<bool> {
    let Some(namespace) = namespace else {
        return mount::set_propagation_of_slash(propagation).map(|()| false);
    };
    let shown = slash()?;
    match mount::setns(namespace.raw(), CLONE_NEWNS) {
        // It takes CAP_SYS_CHROOT, which pivot_root(2) does not.
        Err(Failure { errno: EPERM, .. }) => {
            return mount::set_propagation_of_slash(propagation).map(|()| false);
        }
        joined => joined?,
    }
    mount::set_propagation_of_slash(propagation)?;
    let (before, now) = (file::mount_of(shown.raw())?, file::mount_of(slash()?.raw())?);
    if before.is_root && before.id == now.id {
        return Ok(false);
    }
    chroot(&shown).map(|()| true)
}

/// Joins the namespace that this process is in: `/` is its root then.
pub fn leave_chroot(namespace: &Fd) -> Result<()> {
    mount::setns(namespace.raw(), CLONE_NEWNS)
}

fn differs(host: &Fd, ours: Statx) -> Result<()> {
    let theirs = file::stat_fd(host.raw())?;
    let number = |stat: &Statx| (stat.dev_major, stat.dev_minor, stat.inode);
    if number(&theirs) == number(&ours) { Err(Failure::found(EEXIST)) } else { Ok(()) }
}

/// The same of the namespace that was joined, where /proc is the container's: `proc` is not.
pub fn check_joined_namespace(host: &Fd, proc: i32) -> Result<()> {
    differs(host, file::stat_path(proc, c"self/ns/mnt")?)
}

/// Takes away the mount whose root lies at `path`. With an id it is that mount or none; without, no link leads there.
pub fn unmount(root: &Root, path: &CStr, id: u64, proc: i32) -> Result<()> {
    let there = root.open(path, O_PATH, id == 0)?;
    let found = file::mount_of(there.raw())?;
    if !found.is_root {
        return Err(Failure::found(EINVAL));
    }
    if id != 0 && found.id != id {
        return Err(Failure::found(ESTALE).with(found.id));
    }
    let link = own_link(b"self/fd/", &there)?;
    process::fchdir(proc)?;
    let outcome = mount::detach(link.c());
    process::fchdir(root.raw())?;
    outcome
}

/// Attaches the root's tree where the machine knows it, or on `/` where that path may not be searched.
pub fn attach_root(tree: Fd, path: &CStr) -> Result<Root> {
    match mount::move_onto_path(tree.raw(), path) {
        Err(Failure { errno: EACCES, .. }) => mount::move_onto_path(tree.raw(), c"/")?,
        outcome => outcome?,
    }
    Ok(Root::new(tree))
}

/// `/` of this mount namespace.
pub fn slash() -> Result<Root> {
    file::openat(AT_FDCWD, c"/", O_PATH | O_DIRECTORY, 0).map(Root::new)
}

/// What a tree of `like`'s kind is put on.
pub fn mount_point(root: &Root, path: &CStr, like: i32) -> Result<Fd> {
    if file::stat_fd(like)?.kind() == S_IFDIR { root.directory(path, 0o755) } else { root.file(path) }
}

/// What lies at `path`, or None where there is nothing.
pub fn existing(root: &Root, path: &CStr, flags: u64, plain: bool) -> Result<Option<Fd>> {
    match root.open(path, flags, plain) {
        Ok(fd) => Ok(Some(fd)),
        Err(Failure { errno: ENOENT | ENOTDIR, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// An existing directory to read, or None where there is nothing.
pub fn existing_directory(root: &Root, path: &CStr) -> Result<Option<Fd>> {
    existing(root, path, O_DIRECTORY, false)
}

/// Clones what lies at `path`.
pub fn clone(root: &Root, path: &CStr, recursive: bool) -> Result<Fd> {
    mount::clone_tree(root.open(path, O_PATH, false)?.raw(), recursive)
}

/// Attaches `tree` on `target`. The kernel's word for a file on a folder, or a folder on a file, is EINVAL, which may mean
/// a dozen other things: Docker knows the word that mount(2) has for it.
pub fn attach(tree: i32, target: i32) -> Result<()> {
    let is_directory = |fd: i32| Ok(file::stat_fd(fd)?.kind() == S_IFDIR);
    match mount::move_mount(tree, target) {
        Err(failure) if failure.errno == EINVAL && is_directory(tree)? != is_directory(target)? => {
            Err(Failure { errno: ENOTDIR, ..failure })
        }
        other => other,
    }
}

/// Gives the root of `mount` the mode of the directory at `path`.
pub fn inherit_mode(root: &Root, mount: i32, path: &CStr) -> Result<()> {
    let Some(directory) = existing(root, path, O_PATH | O_DIRECTORY, false)? else { return Ok(()) };
    let mode = file::stat_fd(directory.raw())?.permissions();
    // A mount's fd is one of O_PATH, which fchmod refuses.
    file::chmod_following(mount, c".", mode)
}

/// Binds `target` onto itself, read-only with all below.
pub fn read_only(target: Fd) -> Result<()> {
    let tree = mount::clone_tree(target.raw(), true)?;
    mount::set_attributes(tree.raw(), Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() }, true)?;
    mount::move_mount(tree.raw(), target.raw())
}

/// What masks are cloned from, once the first is mounted.
#[derive(Default)]
pub struct Masks {
    directory: Option<Fd>,
    null: Option<Fd>,
}

impl Masks {
    /// Hides `target`. `null` gives the clone of the machine's null device, to the first mask that needs it.
    pub fn hide(&mut self, target: Fd, null: impl FnOnce() -> Result<Fd>) -> Result<()> {
        let is_directory = file::stat_fd(target.raw())?.kind() == S_IFDIR;
        let first = if is_directory { &mut self.directory } else { &mut self.null };
        if let Some(first) = first {
            return mount::move_mount(mount::clone_tree(first.raw(), false)?.raw(), target.raw());
        }
        let mask = if is_directory { empty_directory()? } else { checked_null(null()?)? };
        mount::move_mount(mask.raw(), target.raw())?;
        *first = Some(mask);
        Ok(())
    }
}

fn empty_directory() -> Result<Fd> {
    let fs = mount::fsopen(c"tmpfs")?;
    // Room for the root directory and nothing else, should a later remount make it writable.
    for (key, value) in [(c"source", c"tmpfs"), (c"nr_blocks", c"1"), (c"nr_inodes", c"1")] {
        mount::fs_string(fs.raw(), key, value)?;
    }
    mount::fs_flag(fs.raw(), c"ro")?;
    mount::fsmount(fs.raw(), MOUNT_ATTR_INERT)
}

/// Anything else bound over a masked path would unmask it (CVE-2025-31133).
fn checked_null(null: Fd) -> Result<Fd> {
    if file::stat_fd(null.raw())?.is_device(S_IFCHR, 1, 3) { Ok(null) } else { Err(Failure::found(EINVAL)) }
}

/// A node to make.
#[allow(missing_docs)]
pub struct Node {
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Node {
    fn is_like(&self, stat: &Statx) -> bool {
        let kind = self.mode & S_IFMT;
        let has_number = kind == S_IFCHR || kind == S_IFBLK;
        stat.kind() == kind && (!has_number || stat.is_device(kind, self.major, self.minor))
    }

    fn is_owned_as(&self, stat: &Statx) -> bool {
        (stat.uid, stat.gid) == (self.uid, self.gid)
    }

    fn is_open_to(&self, stat: &Statx) -> bool {
        stat.permissions() == self.mode & 0o7777
    }
}

/// Makes a node, or takes over an equal one.
pub fn node(parent: &Fd, name: &CStr, to: &Node) -> Result<()> {
    let made = file::mknodat(parent.raw(), name, to.mode, to.major, to.minor);
    if let Err(failure) = made
        && failure.errno != EEXIST
    {
        return Err(failure);
    }
    let stat = file::stat_name(parent.raw(), name)?;
    if to.is_like(&stat) && to.is_owned_as(&stat) && to.is_open_to(&stat) {
        return Ok(());
    }
    // What is changed is changed by fd: the name may be given to something else at any time.
    let node = open_name(parent, name)?;
    let stat = file::stat_fd(node.raw())?;
    if !to.is_like(&stat) {
        return Err(made.err().unwrap_or(Failure::found(EEXIST)));
    }
    if !to.is_owned_as(&stat) {
        file::chown_fd(node.raw(), to.uid, to.gid)?;
    }
    if !to.is_open_to(&stat) {
        chmod_node(&node, to.mode & 0o7777)?;
    }
    Ok(())
}

fn chmod_node(node: &Fd, mode: u32) -> Result<()> {
    match file::chmod_path_fd(node.raw(), mode) {
        // Before Linux 6.6 the machine's own /proc is the way: nodes are made before the root changes.
        Err(Failure { errno: ENOSYS, .. }) => {}
        outcome => return outcome,
    }
    file::chmod_following(AT_FDCWD, own_link(b"/proc/self/fd/", node)?.c(), mode)
}

/// The link of `fd` in the folder of a procfs.
fn own_link(folder: &[u8], fd: &Fd) -> Result<crate::in_root::Text> {
    let mut path = crate::in_root::Text::of(folder)?;
    let number = fd.raw() as u32;
    let mut divisor = 1;
    while number / divisor >= 10 {
        divisor *= 10;
    }
    while divisor > 0 {
        path.append(&[b'0' + (number / divisor % 10) as u8])?;
        divisor /= 10;
    }
    Ok(path)
}

/// Makes a symbolic link; with `replace`, in the place of a file of another kind or target.
pub fn symlink(parent: &Fd, name: &CStr, target: &CStr, replace: bool) -> Result<()> {
    // One more try than a racer that puts a new file there each time is likely to win.
    let mut left = 8;
    loop {
        match file::symlinkat(target, parent.raw(), name) {
            Err(Failure { errno: EEXIST, .. }) if !replace => return Ok(()),
            Err(Failure { errno: EEXIST, .. }) if left > 0 => left -= 1,
            outcome => return outcome,
        }
        let mut buffer = [0; file::PATH_MAX];
        match file::readlinkat(parent.raw(), name, &mut buffer) {
            Ok(there) if there == target.to_bytes() => return Ok(()),
            _ => match file::unlinkat(parent.raw(), name) {
                Err(Failure { errno: ENOENT, .. }) => {}
                outcome => outcome?,
            },
        }
    }
}

/// pivot_root(2), the last example in NOTES: the old root lies on top of the new one and is detached.
pub fn pivot(root: &Root) -> Result<()> {
    process::fchdir(root.raw())?;
    mount::pivot_here()?;
    mount::detach_here()?;
    process::chdir_slash()
}

/// chroot(2) to the root.
pub fn chroot(root: &Root) -> Result<()> {
    process::fchdir(root.raw())?;
    mount::chroot_here()?;
    process::chdir_slash()
}

/// Moves the root onto `/`, then chroot(2).
pub fn move_root(root: &Root) -> Result<()> {
    process::fchdir(root.raw())?;
    mount::move_onto_path(root.raw(), c"/")?;
    mount::chroot_here()?;
    process::chdir_slash()
}

/// Takes away what is mounted at `path` of the machine, or hides it.
pub fn detach(path: &CStr) -> Result<()> {
    match mount::detach(path) {
        // It is locked: made by a user namespace above.
        Err(Failure { errno: EINVAL | EPERM, .. }) => mount::move_onto_path(empty_directory()?.raw(), path),
        // Somebody has taken it away meanwhile.
        Err(Failure { errno: ENOENT, .. }) => Ok(()),
        outcome => outcome,
    }
}

/// A procfs of our own, mounted nowhere.
pub fn private_proc() -> Result<Fd> {
    let fs = mount::fsopen(c"proc")?;
    mount::fs_string(fs.raw(), c"source", c"proc")?;
    const NOSUID_NODEV_NOEXEC: u32 = 0xe;
    mount::fsmount(fs.raw(), NOSUID_NODEV_NOEXEC)
}

/// Writes `value` to sys/`path` in the procfs, which nothing may be mounted over.
pub fn sysctl(proc: &Fd, path: &CStr, value: &[u8]) -> Result<()> {
    let mut below = crate::in_root::Text::of(b"sys/")?;
    below.append(path.to_bytes())?;
    let resolve = file::RESOLVE_NO_SYMLINKS | file::RESOLVE_NO_MAGICLINKS;
    write_whole(&file::openat2(proc.raw(), below.c(), O_WRONLY, resolve | INSIDE)?, value)
}

/// Writes `value` to self/attr/`name` in the procfs.
pub fn label(proc: i32, name: &CStr, value: &[u8]) -> Result<()> {
    let mut below = crate::in_root::Text::of(b"self/attr/")?;
    below.append(name.to_bytes())?;
    // `self` is a symbolic link, to a number in the same procfs.
    write_whole(&file::openat2(proc, below.c(), O_WRONLY, file::RESOLVE_NO_MAGICLINKS | INSIDE)?, value)
}

/// openat2: stay in the file system of the directory, below it.
const INSIDE: u64 = file::RESOLVE_BENEATH | file::RESOLVE_NO_XDEV;

/// One write: procfs takes a value whole or not at all.
fn write_whole(entry: &Fd, value: &[u8]) -> Result<()> {
    if file::file_system(entry.raw())? != file::PROC_SUPER_MAGIC {
        return Err(Failure::found(EPERM));
    }
    if file::write(entry.raw(), value)? != value.len() {
        return Err(Failure::found(EIO));
    }
    Ok(())
}
