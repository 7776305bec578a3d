//! Descriptors that this process was started with and only knows by number.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// Duplicates descriptor `number`, close-on-exec; EBADF where it is not open.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the borrow lives for this one call, which only duplicates; a number that is not open gives
    // EBADF, and one that is owned elsewhere in the process stays its owner's.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    // Numbers from 3 on: it must not take the place of a closed stdio.
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}

/// Whether descriptor `number` is open.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of a number, whoever owns it.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Closes every descriptor after stdio. To be called first of all: what is open then belongs to nobody in this process.
pub fn close() -> io::Result<()> {
    // SAFETY: the caller has opened nothing yet, so that no owner of a number is deceived.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes every descriptor from `first` on close-on-exec: what an engine left open for this process by
/// accident reaches no hook and no container.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC closes nothing; it sets a flag on numbers, whoever owns them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
