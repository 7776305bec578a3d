//! Raw system calls: the instruction, the failure that a report carries, and the fd that closes itself. The modules
//! below it wrap each call once, safely. Uses core only; beside main.rs the only place with `unsafe`.
#![allow(unsafe_code)]

pub mod file;
pub mod landlock;
pub mod mount;
pub mod numbers;
pub mod plan;
pub mod process;
pub mod socket;

use core::ffi::CStr;
use rcrun_plan::{record::FOUND_BY_INIT, text::Z};

/// Why a step failed, as it goes into the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Number of the system call, or FOUND_BY_INIT.
    pub call: u16,
    /// Its errno.
    pub errno: i32,
    /// What the step adds.
    pub detail: u64,
}

impl Failure {
    /// What init itself found, in the words of an errno.
    pub fn found(errno: i32) -> Self {
        Failure { call: FOUND_BY_INIT, errno, detail: 0 }
    }

    /// The same failure with the step's own addition.
    pub fn with(self, detail: u64) -> Self {
        Failure { detail, ..self }
    }
}

/// What every wrapper gives.
pub type Result<T> = core::result::Result<T, Failure>;

/// errno values that init looks at or reports.
pub mod errno {
    #![allow(missing_docs)]
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const EINTR: i32 = 4;
    pub const EIO: i32 = 5;
    pub const EBADF: i32 = 9;
    pub const EAGAIN: i32 = 11;
    pub const EACCES: i32 = 13;
    pub const EEXIST: i32 = 17;
    pub const ENODEV: i32 = 19;
    pub const ENOTDIR: i32 = 20;
    pub const EISDIR: i32 = 21;
    pub const EINVAL: i32 = 22;
    pub const EROFS: i32 = 30;
    pub const ENAMETOOLONG: i32 = 36;
    pub const ENOSYS: i32 = 38;
    pub const ELOOP: i32 = 40;
    pub const ENODATA: i32 = 61;
    pub const ESTALE: i32 = 116;
}

/// The current directory, in the place of a directory's fd.
pub const AT_FDCWD: i32 = -100;

/// One system call.
///
/// # Safety
/// Every argument that the kernel takes as a pointer must be valid for what this call reads or writes there.
unsafe fn call(number: u16, args: [usize; 6]) -> Result<usize> {
    // SAFETY: the caller vouches for the pointers; the clobbers are those of the kernel's calling convention.
    let value = unsafe { instruction(usize::from(number), args) };
    if (-4095..0).contains(&value) {
        return Err(Failure { call: number, errno: -(value as i32), detail: 0 });
    }
    Ok(value as usize)
}

#[cfg(target_arch = "x86_64")]
unsafe fn instruction(number: usize, a: [usize; 6]) -> isize {
    let value: isize;
    // SAFETY: syscall clobbers rcx and r11 and nothing else; memory is left as the caller of `call` vouched for.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => value,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    value
}

#[cfg(target_arch = "aarch64")]
unsafe fn instruction(number: usize, a: [usize; 6]) -> isize {
    let value: isize;
    // SAFETY: svc clobbers x0 and nothing else; memory is left as the caller of `call` vouched for.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a[0] => value,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack)
        );
    }
    value
}

/// A number as the kernel takes it.
fn n(fd: i32) -> usize {
    fd as isize as usize
}

/// A text as the kernel takes it.
fn p(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// A step's text as the kernel takes it.
pub fn text(z: Z<'_>) -> &CStr {
    // SAFETY: a Z cannot be made but from bytes that end with the only NUL among them.
    unsafe { CStr::from_bytes_with_nul_unchecked(z.with_nul()) }
}

/// An open file that is closed when it is dropped.
#[derive(Debug)]
pub struct Fd(i32);

impl Fd {
    /// Takes over the number: of a call that just made it, or one that the plan gave to init.
    pub fn own(number: i32) -> Self {
        Fd(number)
    }

    /// Gives the number away: somebody else closes it.
    pub fn into_raw(self) -> i32 {
        core::mem::ManuallyDrop::new(self).0
    }

    /// The number.
    pub fn raw(&self) -> i32 {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: close takes no pointer.
        let _ = unsafe { call(numbers::CLOSE, [n(self.0), 0, 0, 0, 0, 0]) };
    }
}

/// A call that gives a new fd.
///
/// # Safety
/// As for `call`.
unsafe fn open(number: u16, args: [usize; 6]) -> Result<Fd> {
    // SAFETY: the caller vouches for the pointers.
    unsafe { call(number, args) }.map(|fd| Fd(fd as i32))
}

/// A call whose value says nothing.
///
/// # Safety
/// As for `call`.
unsafe fn done(number: u16, args: [usize; 6]) -> Result<()> {
    // SAFETY: the caller vouches for the pointers.
    unsafe { call(number, args) }.map(|_| ())
}
