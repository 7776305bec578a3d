//! Unix sockets by a path of any length, and one descriptor sent over one. Used by terminal and notify_socket.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, connect, sendmsg, socket_with,
};

use crate::error::{CallContext, Result};

/// sun_path, with the null that ends it.
const SUN_PATH: usize = 108;

/// A stream socket connected to the one at `path`.
pub fn stream_to(path: &Path) -> Result<OwnedFd> {
    let socket = new(SocketType::STREAM, SocketFlags::CLOEXEC)?;
    connect_to(&socket, path)?;
    Ok(socket)
}

/// A datagram socket connected to `address`: a path, or `@name` in the abstract namespace.
pub fn datagram_to(address: &str) -> Result<OwnedFd> {
    let socket = new(SocketType::DGRAM, SocketFlags::CLOEXEC)?;
    match address.strip_prefix('@') {
        Some(name) => {
            let what = format!("connect to the abstract socket {address}");
            let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).call(&what)?;
            retry_on_intr(|| connect(&socket, &name)).call(&what)?;
        }
        None => connect_to(&socket, Path::new(address))?,
    }
    Ok(socket)
}

/// A non-blocking datagram socket bound to the new file `name` in `directory`.
pub fn datagram_at(directory: &Path, name: &str) -> Result<OwnedFd> {
    let path = directory.join(name);
    let what = format!("bind {}", path.display());
    let socket = new(SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let (short, _held) = if fits(&path) {
        (path, None)
    } else {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = openat(CWD, directory, flags, Mode::empty()).call(&what)?;
        (by_descriptor(&held).join(name), Some(held))
    };
    bind(&socket, &SocketAddrUnix::new(&short).call(&what)?).call(&what)?;
    Ok(socket)
}

/// Sends `data` and `fd` in one message.
pub fn send_with_fd(socket: BorrowedFd<'_>, data: &[u8], fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    let data = [IoSlice::new(data)];
    let sent = retry_on_intr(|| sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL))?;
    if sent == data[0].len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

fn new(kind: SocketType, flags: SocketFlags) -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, kind, flags, None).call("socket AF_UNIX")
}

fn connect_to(socket: &OwnedFd, path: &Path) -> Result<()> {
    let what = format!("connect to {}", path.display());
    let (short, _held) = if fits(path) {
        (path.to_path_buf(), None)
    } else {
        // connect(2) follows a magic link to the socket's inode like any path.
        let held = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).call(&what)?;
        (by_descriptor(&held), Some(held))
    };
    let address = SocketAddrUnix::new(&short).call(&what)?;
    retry_on_intr(|| connect(socket, &address)).call(&what)
}

fn fits(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() < SUN_PATH
}

fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn sockets_are_found_by_paths_longer_than_sun_path() {
        let base = crate::scratch::Folder::new("long-socket");
        for length in [10, 107, 108, 200] {
            let folder = base.path().join("d".repeat(length));
            std::fs::create_dir(&folder).unwrap();
            let bound = UnixDatagram::from(datagram_at(&folder, "s").unwrap());
            let sender = UnixDatagram::from(datagram_to(folder.join("s").to_str().unwrap()).unwrap());
            sender.send(b"hello").unwrap();
            let mut data = [0; 16];
            assert_eq!(bound.recv(&mut data).unwrap(), 5, "a folder of {length} characters");
        }
    }

    #[test]
    fn a_missing_socket_is_named_in_the_error() {
        let error = stream_to(Path::new("/nowhere/console.sock")).unwrap_err();
        assert_eq!(
            error.to_string().to_lowercase(),
            "connect to /nowhere/console.sock: no such file or directory"
        );
    }
}
