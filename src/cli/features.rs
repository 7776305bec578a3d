//! `rcrun features`: what this rcrun supports, as JSON. Nothing may go to standard error with it: CRI-O reads both as one.
//! Uses: output, version.

use crate::{ExitCode, output, version};
use rcrun_runtime::{Result, features};

/// `rcrun features`.
#[inline(never)]
pub fn run() -> Result<ExitCode> {
    output::pretty(&features::document(Some(version::COMMIT)))?;
    Ok(ExitCode::SUCCESS)
}
