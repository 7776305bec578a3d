//! The socket on which init waits for `start`. Uses: state's name for it.

use super::state::START_SOCKET;
use crate::Result;
use crate::error::CallContext;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Makes it, in the container's folder, reached by a short path whatever --root is
/// (sun_path takes 107 bytes, unix(7)).
pub(super) fn listen(folder: &Path) -> Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .call("socket for start")?;
    let (_folder, address) = address(folder)?;
    // What the file gets at bind: whoever may write to it may start the container.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).call("fchmod of the start socket")?;
    rustix::net::bind(&socket, &address).call("bind of the start socket")?;
    rustix::net::listen(&socket, 8).call("listen on the start socket")?;
    Ok(socket)
}

/// The address of the start socket; it is valid as long as the fd is open.
pub(super) fn address(folder: &Path) -> Result<(OwnedFd, SocketAddrUnix)> {
    let fd = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .call(format!("open {}", folder.display()))?;
    let path = format!("/proc/self/fd/{}/{START_SOCKET}", fd.as_raw_fd());
    let address = SocketAddrUnix::new(path.as_str()).call("address of the start socket")?;
    Ok((fd, address))
}
