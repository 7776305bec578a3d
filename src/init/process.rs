//! Steps that change the process itself: identity, capabilities, directory, session, names; and finding the executable.

use crate::{
    in_root::Root,
    sys::{
        AT_FDCWD, Failure, Fd, Result,
        errno::{EACCES, EBADF, EINVAL, EISDIR, ENOENT, ENOSYS, ENOTDIR, EPERM, EROFS},
        file::{self, S_IFCHR, S_IFDIR, S_IFREG},
        numbers::{O_DIRECTORY, O_PATH, STATX},
        process::{self, Capabilities},
        socket,
    },
};
use core::ffi::CStr;

/// Dumpable again after each change of credentials, if fs.suid_dumpable says so: prctl(2).
fn hide_from_ptrace() -> Result<()> {
    process::not_dumpable()
}

/// User and group 0 of a new user namespace, without the sets that only carried capabilities over the exec of init.
pub fn become_root() -> Result<()> {
    process::set_gid(0)?;
    process::set_uid(0)?;
    process::clear_ambient()?;
    let now = process::capabilities()?;
    process::set_capabilities(Capabilities { inheritable: 0, ..now })?;
    hide_from_ptrace()
}

/// setgroups, setresgid, setresuid, keeping capabilities. Without `groups`, supplementary groups stay.
pub fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> Result<()> {
    process::keep_capabilities(true)?;
    if let Some(groups) = groups {
        process::set_groups(groups)?;
    }
    process::set_gid(gid)?;
    process::set_uid(uid)?;
    process::keep_capabilities(false)?;
    hide_from_ptrace()
}

/// capset(2).
pub fn set_capabilities(to: Capabilities) -> Result<()> {
    process::set_capabilities(to)?;
    hide_from_ptrace()
}

/// PR_CAPBSET_DROP of all but `keep`. The detail of a failure is the capability.
pub fn set_bounding(keep: u64, last: u32) -> Result<()> {
    (0..=last.min(63))
        .filter(|c| keep & (1 << c) == 0)
        .try_for_each(|c| process::drop_from_bounding_set(c).map_err(|f| f.with(c.into())))
}

/// The ambient set. The detail of a failure is the capability.
pub fn set_ambient(set: u64) -> Result<()> {
    process::clear_ambient()?;
    (0..64)
        .filter(|c| set & (1 << c) != 0)
        .try_for_each(|c| process::raise_ambient(c).map_err(|f| f.with(c.into())))
}

/// A new session keyring that its owner can search, as keyctl(1) gives it.
pub fn join_keyring(name: &CStr) -> Result<()> {
    // KEYCTL_JOIN_SESSION_KEYRING gives all to the possessor, view, read and link to the user; search comes with it here.
    const POSSESSOR_ALL_USER_VIEW_READ_SEARCH_LINK: u32 = 0x3f1b_0000;
    match process::join_session_keyring(name) {
        // A kernel without keys has none to keep apart.
        Err(Failure { errno: ENOSYS, .. }) => Ok(()),
        Err(failure) => Err(failure),
        Ok(key) => process::set_key_permissions(key, POSSESSOR_ALL_USER_VIEW_READ_SEARCH_LINK),
    }
}

/// set_mempolicy(2); without nodes it wants no mask.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    let used = nodes.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    process::set_memory_policy(mode, &nodes[..used])
}

/// fchown(2) where the file allows it: pipes of others, sockets and read-only file systems do not.
pub fn own(fd: i32, uid: u32) -> Result<()> {
    const UNCHANGED: u32 = u32::MAX;
    match file::chown_fd(fd, uid, UNCHANGED) {
        Err(Failure { errno: EINVAL | EPERM | EROFS, .. }) => Ok(()),
        outcome => outcome,
    }
}

/// Gives stdin, stdout and stderr to `uid`, but never the null device, which is everybody's.
pub fn own_stdio(uid: u32) -> Result<()> {
    for fd in 0..3 {
        match file::stat_fd(fd) {
            Err(Failure { errno: EBADF, .. }) => {}
            Err(failure) => return Err(failure.with(fd as u64)),
            Ok(stat) if stat.uid == uid || stat.is_device(S_IFCHR, 1, 3) => {}
            Ok(_) => own(fd, uid).map_err(|f| f.with(fd as u64))?,
        }
    }
    Ok(())
}

/// Goes to `path`. False where `early` and the user's own permissions are needed.
pub fn change_directory(root: &Root, path: &CStr, early: bool) -> Result<bool> {
    let gone = root
        .open(path, O_PATH | O_DIRECTORY, false)
        .and_then(|directory: Fd| process::fchdir(directory.raw()));
    match gone {
        Err(Failure { errno: EACCES | EPERM, .. }) if early => return Ok(false),
        outcome => outcome?,
    }
    if process::first_of_cwd()? != b'/' {
        return Err(Failure::found(ENOENT));
    }
    Ok(true)
}

/// The first candidate that is a file the user may execute; else the first reason but absence. The detail of a failure
/// is the candidate.
pub fn find_executable<'a>(candidates: impl Iterator<Item = &'a CStr>) -> Result<usize> {
    let (mut reason, mut missing) = (None, None);
    for (i, path) in candidates.enumerate() {
        let failure = match file::stat_path(AT_FDCWD, path) {
            Ok(stat) => match (stat.kind(), file::may_execute(path)) {
                (S_IFREG, Ok(())) => return Ok(i),
                (S_IFDIR, _) => Failure { call: STATX, errno: EISDIR, detail: 0 },
                (_, Err(failure)) => failure,
                (_, Ok(())) => Failure { call: STATX, errno: EACCES, detail: 0 },
            },
            Err(failure @ Failure { errno: ENOENT | ENOTDIR, .. }) => {
                missing = missing.or(Some(failure));
                continue;
            }
            Err(failure) => failure,
        };
        reason = reason.or(Some(failure.with(i as u64)));
    }
    Err(reason.or(missing).unwrap_or(Failure { call: STATX, errno: ENOENT, detail: 0 }))
}

/// Brings up `lo`.
pub fn bring_up_loopback() -> Result<()> {
    const SIOCGIFFLAGS: u32 = 0x8913;
    const SIOCSIFFLAGS: u32 = 0x8914;
    const IFF_UP: u8 = 1;
    let socket = socket::datagram()?;
    // struct ifreq: 16 bytes of name, then the flags.
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    file::ioctl_bytes(socket.raw(), SIOCGIFFLAGS, &mut request)?;
    request[16] |= IFF_UP;
    file::ioctl_bytes(socket.raw(), SIOCSIFFLAGS, &mut request)
}
