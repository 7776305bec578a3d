//! What an option or argument that names a JSON file leads to: a file, a pipe, or standard input.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rcrun_runtime::error::CallContext;
use rcrun_runtime::spec::{self, MAX_SIZE};
use rcrun_runtime::{Code, Error, Result};

/// The text of the file at `path`.
pub fn of_file(path: &Path) -> Result<Vec<u8>> {
    // A shell's <(...) is a pipe.
    if fs::metadata(path).is_ok_and(|data| data.file_type().is_fifo()) {
        let name = path.display().to_string();
        return bounded(fs::File::open(path).call(format!("open {name}"))?, &name);
    }
    spec::read(path)
}

/// The text on standard input.
pub fn of_stdin() -> Result<Vec<u8>> {
    bounded(std::io::stdin(), "standard input")
}

fn bounded(from: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MAX_SIZE + 1).read_to_end(&mut text).call(format!("read {name}"))?;
    if text.len() as u64 > MAX_SIZE {
        let text = format!("{name} has more than the {} MiB that a config.json may", MAX_SIZE >> 20);
        return Err(Error::new(Code::Config, text));
    }
    Ok(text)
}
