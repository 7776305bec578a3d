//! memcpy and the others that LLVM calls without being asked. Written so that LLVM does not see in them what they are,
//! and call them from within themselves: string instructions on x86_64, opaque bytes elsewhere.

/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges, which do not overlap.
    unsafe { forward(to, from, length) };
    to
}

/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges. Forward is right unless `to` begins inside `from`.
    unsafe {
        if (to as usize).wrapping_sub(from as usize) >= length {
            forward(to, from, length);
        } else {
            for i in (0..length).rev() {
                to.add(i).write_volatile(from.add(i).read_volatile());
            }
        }
    }
    to
}

/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the range; the direction flag is clear by the calling convention.
    unsafe {
        core::arch::asm!(
            "rep stosb",
            inout("rcx") length => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..length {
        // SAFETY: the caller vouches for the range.
        unsafe { to.add(i).write_volatile(byte as u8) };
    }
    to
}

/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    for i in 0..length {
        // SAFETY: the caller vouches for both ranges.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// # Safety
/// As bcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    // SAFETY: as for this function.
    unsafe { memcmp(a, b, length) }
}

/// # Safety
/// As strlen(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller vouches for all bytes up to the NUL.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

/// # Safety
/// `from` is readable and `to` writable for `length`, and `to` does not begin inside `from`.
unsafe fn forward(to: *mut u8, from: *const u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for both ranges; the direction flag is clear by the calling convention.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..length {
        // SAFETY: the caller vouches for both ranges.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}
