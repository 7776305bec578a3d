//! Owners, modes, extended attributes and times of what was just made, in the order that the kernel forces: a chown
//! clears set-id bits and file capabilities, and everything changes times.
//! Uses: rustix, error, notes, tar.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::Form;
use super::error::{Call, Error, Result, Shown};
use super::notes::{Notes, Sort};
use super::tar::{Entry, Kind, Time};

/// What makes files in this process: which attributes a new file has before anything is set.
#[derive(Debug)]
pub struct Attributes {
    form: Form,
    rootless: bool,
    /// Whether owners can be changed at all.
    chown: bool,
    uid: u32,
    gid: u32,
    umask: u32,
}

/// The folder that something was made in, as far as it shapes new files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Birthplace {
    /// With its set-group-id bit, what is made in it gets its group.
    pub group: Option<u32>,
    /// With a default ACL, what is made in it gets an ACL.
    pub acl: bool,
}

/// All bits that chmod(2) sets.
const BITS: u32 = 0o7777;

/// The ACL of a file.
pub const ACCESS_ACL: &str = "system.posix_acl_access";
/// The ACL that a folder gives to what is made in it.
pub const DEFAULT_ACL: &str = "system.posix_acl_default";

impl Attributes {
    /// As this thread makes files.
    pub fn new(form: Form, rootless: bool) -> Self {
        let uid = rustix::process::geteuid();
        Attributes {
            form,
            rootless,
            chown: !rootless || uid.is_root(),
            uid: uid.as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask(),
        }
    }

    /// Whether device nodes are out of reach.
    pub fn rootless(&self) -> bool {
        self.rootless
    }

    /// The mode to create with. Set-id bits wait until the owner is right.
    pub fn birth_mode(&self, mode: u32) -> Mode {
        Mode::from_raw_mode(mode & 0o1777)
    }

    fn owner_differs(&self, entry: &Entry, place: Birthplace, notes: &Notes) -> bool {
        let differs = entry.uid != self.uid || entry.gid != place.group.unwrap_or(self.gid);
        if differs && !self.chown {
            notes.add(Sort::Owner, || Shown(&entry.path).to_string());
        }
        differs && self.chown
    }

    /// Whether a file created with `mode` in `place` needs chmod(2).
    fn mode_differs(&self, mode: u32, place: Birthplace, directory: bool) -> bool {
        mode & (self.umask | 0o6000) != 0 || place.acl || (directory && place.group.is_some())
    }

    /// Finishes a new file, folder, FIFO or device open as `fd`, but for its times.
    pub fn finish_fd(
        &self,
        fd: BorrowedFd<'_>,
        entry: &Entry,
        place: Birthplace,
        notes: &Notes,
    ) -> Result<()> {
        if self.owner_differs(entry, place, notes) {
            self.fchown(fd, entry.uid, entry.gid, || Shown(&entry.path).to_string(), notes)?;
        }
        let directory = entry.kind == Kind::Directory;
        if place.acl {
            for name in [ACCESS_ACL, DEFAULT_ACL] {
                remove_xattr(fd, name)?;
            }
        }
        if self.mode_differs(entry.mode, place, directory) {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).call("fchmod")?;
        }
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        // Who is not root sets user.* only on what is open for writing to its owner.
        let closed = entry.mode & 0o200 == 0;
        if closed {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode | 0o200)).call("fchmod")?;
        }
        self.xattrs(entry, notes, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
        if closed {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).call("fchmod")?;
        }
        Ok(())
    }

    /// Makes a folder that was just made in `place`, and of which no archive tells, one of root's with mode 0755.
    pub fn bare(&self, fd: BorrowedFd<'_>, place: Birthplace) -> Result<()> {
        if place.acl {
            for name in [ACCESS_ACL, DEFAULT_ACL] {
                remove_xattr(fd, name)?;
            }
        }
        if self.chown && (self.uid, place.group.unwrap_or(self.gid)) != (0, 0) {
            rustix::fs::fchown(fd, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).call("fchown to 0:0")?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(0o755)).call("fchmod")
    }

    /// Makes the attributes of a folder that was there before those of `entry`, but for its times.
    pub fn replace(&self, fd: BorrowedFd<'_>, entry: &Entry, notes: &Notes) -> Result<()> {
        let now = rustix::fs::fstat(fd).call("fstat")?;
        if (now.st_uid, now.st_gid) != (entry.uid, entry.gid) {
            if self.chown {
                self.fchown(fd, entry.uid, entry.gid, || Shown(&entry.path).to_string(), notes)?;
            } else {
                notes.add(Sort::Owner, || Shown(&entry.path).to_string());
            }
        }
        for name in list_xattrs(fd)? {
            if self.plain_name(&name).is_some() && !forbidden(&name) {
                remove_xattr(fd, &name[..])?;
            }
        }
        // After the ACL, which is a mode too.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).call("fchmod")?;
        self.xattrs(entry, notes, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))
    }

    /// Finishes what cannot be opened: a symbolic link, a FIFO, a device. `name` was just made in `dir`.
    pub fn finish_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        place: Birthplace,
        notes: &Notes,
    ) -> Result<()> {
        if self.owner_differs(entry, place, notes) {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let done = rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            let other =
                || rustix::fs::chownat(dir, name, None, Some(Gid::from_raw(1)), AtFlags::SYMLINK_NOFOLLOW);
            self.or_noted(done, other, (entry.uid, entry.gid), || Shown(&entry.path).to_string(), notes)?;
        }
        let link = entry.kind == Kind::Symlink;
        if !link && place.acl {
            let path = magic(dir, name)?;
            forgive(rustix::fs::removexattr(&path.1, ACCESS_ACL)).call("removexattr")?;
        }
        if !link && self.mode_differs(entry.mode, place, false) {
            // Not a symbolic link: this process made it, and nobody else is in the tree.
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .call("fchmodat")?;
        }
        if !entry.xattrs.is_empty() {
            // Kernels before 6.13 have no setxattrat(2). The magic link leads to the inode that the fd has, be it a
            // symbolic link, and no further.
            let path = magic(dir, name)?;
            self.xattrs(entry, notes, |name, value| {
                rustix::fs::setxattr(&path.1, name, value, XattrFlags::empty())
            })?;
        }
        let times = timestamps(entry.atime.unwrap_or(entry.mtime), entry.mtime);
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).call("utimensat")
    }

    /// The name that an image calls `name`, which stands in a layer of this form, by; `None` for overlayfs's own.
    pub fn plain_name(&self, name: &[u8]) -> Option<Vec<u8>> {
        let Some(private) = self.form.private() else { return Some(name.to_vec()) };
        match name.strip_prefix(private.as_bytes()) {
            None => Some(name.to_vec()),
            Some(rest) => Some([private.as_bytes(), rest.strip_prefix(b"overlay.")?].concat()),
        }
    }

    /// The attributes `all` as an image has them, in order, without those that stay here.
    pub fn plain(&self, all: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = Vec::new();
        for (name, value) in all {
            if let Some(own) = self.form.private().and_then(|p| name.strip_prefix(p.as_bytes()))
                && matches!(own, b"redirect" | b"metacopy")
            {
                return Err(Error::archive(format!(
                    "{} says that the overlay was mounted with redirect_dir or metacopy, of which a layer knows nothing",
                    Shown(name)
                )));
            }
            let plain = self.plain_name(name).filter(|name| !forbidden(name));
            found.extend(plain.map(|name| (name, value.clone())));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Gives `to` what `from`, in a layer below, has: owner, mode, extended attributes. Not its times.
    pub fn copy(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, notes: &Notes) -> Result<()> {
        let stat = rustix::fs::fstat(from).call("fstat of the lower layer")?;
        if self.chown {
            // What is below was unpacked under the same maps.
            rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
                .map_err(|e| self.unmapped(e, stat.st_uid, stat.st_gid))?;
        }
        for name in [ACCESS_ACL, DEFAULT_ACL] {
            remove_xattr(to, name)?;
        }
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & BITS)).call("fchmod")?;
        for name in list_xattrs(from)? {
            if forbidden(&name) || self.plain_name(&name).is_none() {
                continue;
            }
            let Some(value) = get_xattr(from, &name)? else { continue };
            self.set(
                &name,
                &value,
                &mut |name, value| rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()),
                notes,
                || Shown(&name).to_string(),
            )?;
        }
        Ok(())
    }

    fn fchown(
        &self,
        fd: BorrowedFd<'_>,
        uid: u32,
        gid: u32,
        what: impl FnOnce() -> String,
        notes: &Notes,
    ) -> Result<()> {
        let done = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let other = || rustix::fs::fchown(fd, None, Some(Gid::from_raw(1)));
        self.or_noted(done, other, (uid, gid), what, notes)
    }

    /// What came of a chown: in a user namespace that has root alone, which is one of a user without ranges, all files are
    /// root's, and it is noted. `other` tells: it gives the file to another group, which none but an error follows.
    fn or_noted(
        &self,
        done: rustix::io::Result<()>,
        other: impl FnOnce() -> rustix::io::Result<()>,
        (uid, gid): (u32, u32),
        what: impl FnOnce() -> String,
        notes: &Notes,
    ) -> Result<()> {
        match done {
            Err(Errno::INVAL) if self.rootless && other() == Err(Errno::INVAL) => {
                notes.add(Sort::Unmapped, what);
                Ok(())
            }
            done => done.map_err(|e| self.unmapped(e, uid, gid)),
        }
    }

    fn unmapped(&self, errno: Errno, uid: u32, gid: u32) -> Error {
        let remedy = match errno {
            Errno::INVAL if self.rootless => " (the user namespace does not map it)",
            _ => "",
        };
        Error::call(format_args!("chown to {uid}:{gid}{remedy}"), errno)
    }

    fn xattrs(
        &self,
        entry: &Entry,
        notes: &Notes,
        mut set: impl FnMut(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<()> {
        for (name, value) in &entry.xattrs {
            let told = || format!("{}: {}", Shown(&entry.path), Shown(name));
            if forbidden(name)
                || (self.form == Form::Flat
                    && [Form::Overlay, Form::UserOverlay].iter().any(|f| {
                        // A flat tree may be made a layer of an overlay, to which these speak.
                        f.private().is_some_and(|p| name.starts_with(p.as_bytes()))
                    }))
            {
                notes.add(Sort::Forbidden, told);
                continue;
            }
            match self.form.private().and_then(|p| Some((p, name.strip_prefix(p.as_bytes())?))) {
                // overlayfs shows `trusted.overlay.overlay.x` of a layer as `trusted.overlay.x`, and obeys it not.
                Some((private, rest)) => {
                    let escaped = [private.as_bytes(), b"overlay.", rest].concat();
                    self.set(&escaped, value, &mut set, notes, told)?;
                }
                None => self.set(name, value, &mut set, notes, told)?,
            }
        }
        Ok(())
    }

    fn set(
        &self,
        name: &[u8],
        value: &[u8],
        set: &mut impl FnMut(&[u8], &[u8]) -> rustix::io::Result<()>,
        notes: &Notes,
        told: impl FnOnce() -> String,
    ) -> Result<()> {
        match set(name, value) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => {
                notes.add(Sort::Unsupported, told);
                Ok(())
            }
            // user.* exists for files and folders only; the rest needs capabilities that a user namespace has not.
            Err(Errno::PERM) if self.rootless || name.starts_with(b"user.") => {
                notes.add(Sort::Refused, told);
                Ok(())
            }
            Err(e) => Err(Error::call(format_args!("setxattr {}", Shown(name)), e)),
        }
    }
}

/// Labels belong to the machine: the policy of the host says what they are, not an image.
pub fn forbidden(name: &[u8]) -> bool {
    matches!(name, b"security.selinux" | b"system.nfs4_acl")
}

/// The umask of this thread, without changing it: that would be seen by every thread. Without /proc, the umask that
/// forgets nothing.
fn umask() -> u32 {
    let told = std::fs::read_to_string("/proc/thread-self/status").ok();
    let line = told.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Umask:")));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o777)
}

/// An O_PATH fd of `name` and the path that leads to exactly that inode.
fn magic(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(rustix::fd::OwnedFd, String)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).call("openat")?;
    let path = magic_path(fd.as_fd());
    Ok((fd, path))
}

/// The path that leads to the inode of `fd`.
pub fn magic_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn forgive(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn remove_xattr(fd: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<()> {
    forgive(rustix::fs::fremovexattr(fd, name)).call("fremovexattr")
}

/// The names of all extended attributes of `fd`.
pub fn list_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    names(|buffer| rustix::fs::flistxattr(fd, buffer))
}

/// The names that `list` tells, in their order.
pub fn names(mut list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 1024];
    let len = loop {
        match list(&mut buffer) {
            Ok(len) => break len,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer = vec![0; 64 << 10],
            Err(e) => return Err(Error::call("listxattr", e)),
        }
    };
    Ok(buffer[..len].split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// All extended attributes of `fd`.
pub fn xattrs_of(fd: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in list_xattrs(fd)? {
        found.extend(get_xattr(fd, &name)?.map(|value| (name, value)));
    }
    Ok(found)
}

/// The same of an O_PATH fd.
pub fn xattrs_of_path(fd: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let magic = magic_path(fd);
    let mut found = Vec::new();
    for name in names(|buffer| rustix::fs::listxattr(&magic, buffer))? {
        let get = |buffer: &mut [u8]| rustix::fs::getxattr(&magic, &name[..], buffer);
        let value = value(&name, get)?;
        found.extend(value.map(|value| (name, value)));
    }
    Ok(found)
}

/// The value of an extended attribute of `fd`.
pub fn get_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    value(name, |buffer| rustix::fs::fgetxattr(fd, name, buffer))
}

/// The value that `get` tells of `name`.
pub fn value(
    name: &[u8],
    mut get: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    let len = loop {
        match get(&mut buffer) {
            Ok(len) => break len,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer = vec![0; 64 << 10],
            Err(e) => return Err(Error::call(format_args!("getxattr {}", Shown(name)), e)),
        }
    };
    buffer.truncate(len);
    Ok(Some(buffer))
}

/// Both times for utimensat(2). What the file system cannot hold, the kernel clamps.
pub fn timestamps(atime: Time, mtime: Time) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: spec(atime), last_modification: spec(mtime) }
}
