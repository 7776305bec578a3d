//! Who is at the other end of a unix socket that is known by its number only.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

/// The user who has connected the socket with number `fd` (SO_PEERCRED), as he was then.
pub fn uid(fd: RawFd) -> io::Result<u32> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the borrow lives for this one call, which reads an option; what is no unix socket gives an error.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}
