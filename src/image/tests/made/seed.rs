//! What tests make, kept for `make fuzz` to begin with: RCRUN_SEEDS names the folder. Knows no other module.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Keeps `input` for the target `target` of fuzz/lib.rs, if anybody asks for it.
pub fn keep(target: &str, input: &[u8]) {
    let Some(folder) = std::env::var_os("RCRUN_SEEDS") else { return };
    let folder = Path::new(&folder).join(target);
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{:016x}", hasher.finish())), input).unwrap();
}
