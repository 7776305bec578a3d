//! Signal numbers: rustix names only those below the real-time ones.
#![allow(unsafe_code)]

use rustix::process::Signal;

/// The signal with number `n`, real-time ones included; None outside of 1 to 64.
pub fn from_number(n: i32) -> Option<Signal> {
    if !(1..=64).contains(&n) {
        return None;
    }
    // SAFETY: the kernel takes 1 to 64, and the signal is only ever sent, never given to a handler of this process.
    Some(unsafe { Signal::from_raw_unchecked(n) })
}
