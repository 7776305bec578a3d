//! The bounding set, one capability at a time.
#![allow(unsafe_code)]

/// Whether capability `cap` is in this process's bounding set; None where the kernel does not know it.
pub fn in_bounding_set(cap: u32) -> Option<bool> {
    // SAFETY: PR_CAPBSET_READ takes an integer and changes nothing.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(cap), 0, 0, 0) } {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
