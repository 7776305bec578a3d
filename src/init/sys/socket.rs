//! The socket calls: records to the parent and answers from it, and the one socket that network devices are set with.
#![allow(unsafe_code)]

use super::{Fd, Result, call, done, n, numbers::*, open};

const MSG_NOSIGNAL: usize = 0x4000;
const SOCK_CLOEXEC: usize = 0o2000000;

/// sendto(2) with MSG_NOSIGNAL on a connected socket.
pub fn send(socket: i32, record: &[u8]) -> Result<()> {
    // SAFETY: record is readable for its length; no address is given.
    unsafe { done(SENDTO, [n(socket), record.as_ptr() as usize, record.len(), MSG_NOSIGNAL, 0, 0]) }
}

#[repr(C)]
struct Vector {
    base: *const u8,
    length: usize,
}

/// struct cmsghdr of one fd, padded as CMSG_SPACE does.
#[repr(C)]
struct Rights {
    length: usize,
    level: i32,
    kind: i32,
    fd: i32,
    _pad: i32,
}

#[repr(C)]
struct Message {
    name: *const u8,
    name_length: u32,
    _pad: u32,
    vectors: *const Vector,
    vector_count: usize,
    control: *const Rights,
    control_length: usize,
    flags: i32,
    _pad2: u32,
}

/// sendmsg(2) with one fd as SCM_RIGHTS.
pub fn send_with_fd(socket: i32, record: &[u8], fd: i32) -> Result<()> {
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    let vector = Vector { base: record.as_ptr(), length: record.len() };
    let rights = Rights { length: 20, level: SOL_SOCKET, kind: SCM_RIGHTS, fd, _pad: 0 };
    let message = Message {
        name: core::ptr::null(),
        name_length: 0,
        _pad: 0,
        vectors: &raw const vector,
        vector_count: 1,
        control: &raw const rights,
        control_length: size_of::<Rights>(),
        flags: 0,
        _pad2: 0,
    };
    // SAFETY: message is struct msghdr of a 64-bit kernel, and all it points to is alive.
    unsafe { done(SENDMSG, [n(socket), &raw const message as usize, MSG_NOSIGNAL, 0, 0, 0]) }
}

/// recvfrom(2): how many bytes of `buffer` were filled; 0 at end of file.
pub fn receive(socket: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: buffer is writable for its length; no address is asked for.
    unsafe { call(RECVFROM, [n(socket), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0]) }
}

/// recvmsg(2) of one byte and one fd, close-on-exec. None at end of file, or when no fd came.
pub fn receive_with_fd(socket: i32) -> Result<Option<Fd>> {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    let mut byte = [0u8; 1];
    let vector = Vector { base: byte.as_mut_ptr(), length: byte.len() };
    let mut rights = Rights { length: 0, level: 0, kind: 0, fd: -1, _pad: 0 };
    let mut message = Message {
        name: core::ptr::null(),
        name_length: 0,
        _pad: 0,
        vectors: &raw const vector,
        vector_count: 1,
        control: &raw mut rights,
        control_length: size_of::<Rights>(),
        flags: 0,
        _pad2: 0,
    };
    // SAFETY: message is struct msghdr of a 64-bit kernel; what the kernel writes to is alive and was borrowed mutably.
    let length = unsafe { call(RECVMSG, [n(socket), &raw mut message as usize, MSG_CMSG_CLOEXEC, 0, 0, 0]) }?;
    let came = length > 0 && message.control_length >= 20 && rights.fd >= 0;
    Ok(came.then(|| Fd::own(rights.fd)))
}

/// accept4(2) with SOCK_CLOEXEC.
pub fn accept(socket: i32) -> Result<Fd> {
    // SAFETY: no address is asked for.
    unsafe { open(ACCEPT4, [n(socket), 0, 0, SOCK_CLOEXEC, 0, 0]) }
}

/// socket(2): a datagram socket of AF_UNIX, which every kernel has; the ioctls of network devices work on any socket.
pub fn datagram() -> Result<Fd> {
    const AF_UNIX: usize = 1;
    const SOCK_DGRAM: usize = 2;
    // SAFETY: no pointer.
    unsafe { open(SOCKET, [AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0, 0]) }
}
