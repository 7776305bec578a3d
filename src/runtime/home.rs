//! HOME of a user, from the container's own /etc/passwd: engines bind-mount it, so only the finished root knows.

use crate::prepare::{read_in_root, read_whole};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// A passwd larger than this is not read.
const PASSWD_MAX: usize = 1 << 20;

/// The home folder of `uid` in the root of process `pid`; `/` where there is none, as login(1) and runc do.
pub fn of(pid: i32, uid: u32) -> String {
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
        read_in_root(root.as_fd(), "etc/passwd", PASSWD_MAX)
    };
    let passwd = open().unwrap_or_default();
    entry(&passwd, uid).unwrap_or_else(|| "/".to_string())
}

/// A root that is not built yet.
pub enum Root<'a> {
    /// A folder of the machine.
    Folder(&'a Path),
    /// A tree that is mounted nowhere.
    Tree(BorrowedFd<'a>),
}

/// The same from the root before it is built; None where only the finished root can tell: something is mounted over the
/// file, or a symlink leads to it.
pub fn before_mounts(root: Root<'_>, uid: u32, mounted: &[&str]) -> Option<String> {
    if mounted.iter().any(|path| path.is_empty() || "etc/passwd".strip_prefix(path).is_some_and(ends_a_name))
    {
        return None;
    }
    let opened;
    let root = match root {
        Root::Folder(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            opened = rustix::fs::open(path, flags, Mode::empty()).ok()?;
            opened.as_fd()
        }
        Root::Tree(tree) => tree,
    };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, "etc/passwd", flags, Mode::empty(), how) {
        Ok(found) => {
            let passwd = read_whole(found.as_fd(), PASSWD_MAX).unwrap_or_default();
            Some(entry(&passwd, uid).unwrap_or_else(|| "/".to_string()))
        }
        Err(rustix::io::Errno::NOENT) => Some("/".to_string()),
        Err(_) => None,
    }
}

fn ends_a_name(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// The home of the first entry of `uid`; nothing that execve could not take as a variable.
fn entry(passwd: &[u8], uid: u32) -> Option<String> {
    let text = String::from_utf8_lossy(passwd);
    let home = text.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let id: u32 = fields.next()?.parse().ok()?;
        let home = fields.nth(2)?;
        (id == uid).then(|| home.to_string())
    })?;
    (home.starts_with('/') && home.len() < 4000 && !home.contains('\0')).then_some(home)
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn home_comes_from_the_first_entry_of_the_uid_and_only_if_it_can_be_a_path() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/false\nweb2:x:33:33::/two:/bin/sh\nodd:x:7:7::relative:/bin/sh\nshort:x:8\n";
        for (uid, home) in [(0, Some("/root")), (33, Some("/srv/web")), (7, None), (8, None), (1000, None)] {
            assert_eq!(entry(passwd, uid).as_deref(), home, "uid {uid}");
        }
    }
}
