//! Landlock rules for paths of the container.

use crate::{
    in_root::Root,
    sys::{
        Result,
        file::{self, S_IFDIR},
        landlock,
        numbers::O_PATH,
    },
};
use core::ffi::CStr;

/// What can be done to a file that is no directory: execute, write, read, truncate, ioctl of a device. The kernel refuses
/// a rule with more (EINVAL).
const OF_FILES: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;

/// Allows `access` at `path` and below it.
pub fn allow(ruleset: i32, root: &Root, path: &CStr, access: u64) -> Result<()> {
    let there = root.open(path, O_PATH, false)?;
    let of_its_kind = match file::stat_fd(there.raw())?.kind() {
        S_IFDIR => access,
        _ => access & OF_FILES,
    };
    landlock::add_path(ruleset, there.raw(), of_its_kind)
}
