//! Paths inside a container, by their letters alone. Pure.

use std::path::Path;

/// `path` as one below the root: without `.` and doubled slashes, and `..` stops at the root. The root is empty.
pub(crate) fn below_root(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap_or_default().split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}
