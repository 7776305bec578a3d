//! The bounding set, one capability at a time, and the one capability that most of a start takes.
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

const VERSION_3: u32 = 0x2008_0522;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether CAP_SYS_ADMIN is in this thread's effective set.
pub fn is_admin() -> bool {
    let header: [u32; 2] = [VERSION_3, 0];
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: capget of version 3 reads a header of two words and fills two structs of three words each.
    let done = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    done == 0 && sets[0][0] & 1 << CAP_SYS_ADMIN != 0
}
