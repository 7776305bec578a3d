//! What holds for every string, path and list of a config. Uses: fault.

use std::fmt::Arguments;
use std::path::Path;

use super::super::fault::{Fault, Quoted};

/// The outcome of a check.
pub type Checked = Result<(), Fault>;

/// PATH_MAX, which counts the NUL.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

/// A string that reaches the kernel or a file.
pub fn string(text: &str, at: Arguments<'_>) -> Checked {
    if text.contains('\0') {
        return Err(Fault::new(at, "a string may not contain a NUL character"));
    }
    Ok(())
}

/// A string with at most `max` bytes.
pub fn bounded(text: &str, max: usize, at: Arguments<'_>) -> Checked {
    if text.len() > max {
        let long = text.len();
        return Err(Fault::new(at, format_args!("is {long} bytes long, at most {max} are allowed")));
    }
    string(text, at)
}

/// A path the kernel can take.
pub fn path(path: &Path, at: Arguments<'_>) -> Checked {
    let Some(text) = path.to_str() else {
        return Err(Fault::new(at, "is not UTF-8"));
    };
    if text.is_empty() {
        return Err(Fault::new(at, "a path may not be empty"));
    }
    if text.len() >= PATH_MAX {
        let long = text.len();
        return Err(Fault::new(
            at,
            format_args!("file name too long: {long} bytes, a path has less than {PATH_MAX}"),
        ));
    }
    // No component can be too long where the whole is not.
    if text.len() > NAME_MAX
        && let Some(name) = text.split('/').find(|name| name.len() > NAME_MAX)
    {
        let (name, long) = (Quoted(name), name.len());
        return Err(Fault::new(
            at,
            format_args!("file name too long: {name} has {long} bytes, at most {NAME_MAX} are allowed"),
        ));
    }
    string(text, at)
}

/// A path that begins at the root.
pub fn absolute(found: &Path, at: Arguments<'_>) -> Checked {
    path(found, at)?;
    if !found.is_absolute() {
        let shown = found.to_string_lossy();
        return Err(Fault::new(at, format_args!("must be an absolute path, {} is not", Quoted(&shown))));
    }
    Ok(())
}

/// A list with at most `max` entries.
pub fn count(found: usize, max: usize, at: Arguments<'_>) -> Checked {
    if found > max {
        return Err(Fault::new(at, format_args!("has {found} entries, at most {max} are allowed")));
    }
    Ok(())
}
