//! realpath(3) without the C library's heap, which a start needs for nothing else.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `path` without links, `.` and `..`, absolute.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = [MaybeUninit::<u8>::uninit(); libc::PATH_MAX as usize];
    // SAFETY: path ends with NUL, and found has the PATH_MAX bytes that realpath(3) may write.
    let end = unsafe { libc::realpath(path.as_ptr(), found.as_mut_ptr().cast()) };
    if end.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: realpath wrote a text that ends with NUL into found.
    let found = unsafe { CStr::from_ptr(found.as_ptr().cast()) };
    Ok(PathBuf::from(OsStr::from_bytes(found.to_bytes())))
}
