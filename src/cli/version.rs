//! `rcrun --version`: engines read `<name> version X` on the first line, then `commit:` and `spec:`.
//! Nothing may go to standard error with it: CRI-O reads both as one. Uses: output.

use crate::ExitCode;

use rcrun_runtime::Result;
use rcrun_runtime::features::SPEC;

use crate::output;

/// The commit that this program was built from, or `unknown`.
pub const COMMIT: &str = env!("RCRUN_COMMIT");

/// Prints the version.
#[inline(never)]
pub fn run() -> Result<ExitCode> {
    output::print(text())?;
    Ok(ExitCode::SUCCESS)
}

fn text() -> String {
    format!("rcrun version {}\ncommit: {COMMIT}\nspec: {SPEC}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What moby's parseRuntimeVersion does with the text.
    fn parsed(text: &str) -> (String, String, String) {
        let (mut name, mut version, mut commit) = Default::default();
        for line in text.trim().lines() {
            if line.contains("version") {
                let parts: Vec<&str> = line.split("version").collect();
                name = parts[0].trim().to_string();
                version = parts[parts.len() - 1].trim().to_string();
            } else if let Some(rest) = line.strip_prefix("commit:") {
                commit = rest.trim().to_string();
            }
        }
        (name, version, commit)
    }

    #[test]
    fn docker_can_read_the_version() {
        let (name, version, commit) = parsed(&text());
        assert_eq!(name, "rcrun");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert!(commit == "unknown" || commit.chars().all(|c| c.is_ascii_hexdigit()), "{commit}");
        assert!(!commit.is_empty());
    }
}
