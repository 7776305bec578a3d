//! Standard output: texts and JSON. Uses: nothing of rcrun.

use std::io::{self, Write};

use rcrun_runtime::{Error, Result};
use serde::Serialize;

/// Prints `text` as it is. That the reader has gone (`rcrun list | head -1`) is no failure.
pub fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::call("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as one line of JSON.
pub fn line(value: &impl Serialize) -> Result<()> {
    print(format!("{}\n", encoded(serde_json::to_string(value))?))
}

/// Prints `value` as JSON for people, two spaces a level.
pub fn pretty(value: &impl Serialize) -> Result<()> {
    print(format!("{}\n", encoded(serde_json::to_string_pretty(value))?))
}

fn encoded(text: serde_json::Result<String>) -> Result<String> {
    text.map_err(|error| Error::call("write JSON", io::Error::from(error)))
}
