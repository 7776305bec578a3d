//! A fault found in a JSON document, before the name of the document is put to it.
//! Uses: error.

use std::fmt;

use crate::error::{Code, Error};

/// What is wrong, at which JSON pointer.
#[derive(Debug)]
pub(super) struct Fault {
    pointer: String,
    message: String,
    code: Code,
}

impl Fault {
    /// The value at `pointer` is not what the spec asks for.
    pub fn new(pointer: impl fmt::Display, message: impl fmt::Display) -> Fault {
        Fault { pointer: pointer.to_string(), message: message.to_string(), code: Code::Config }
    }

    /// The value at `pointer` asks for something rcrun does not do.
    pub fn unsupported(pointer: impl fmt::Display, message: impl fmt::Display) -> Fault {
        Fault { code: Code::Unsupported, ..Fault::new(pointer, message) }
    }

    /// The sentence, with the document's name before it.
    pub fn in_file(self, file: &str) -> Error {
        // The document as a whole has the empty pointer.
        let place = if self.pointer.is_empty() { "" } else { ": " };
        let text = format!("{file}{place}{}: {}", self.pointer, self.message);
        Error::new(self.code, text).at(self.pointer)
    }
}

/// Text of the config inside a sentence: in quotes, escaped, and cut where it is long, since a
/// config may hold megabytes in one string and the sentence goes to logs.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}... ({} bytes)", &self.0[..end], self.0.len()),
        }
    }
}

/// One token of a JSON pointer (RFC 6901), with `~` and `/` escaped.
pub(super) struct Token<'a>(pub &'a str);

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(256) {
            match c {
                '~' => f.write_str("~0")?,
                '/' => f.write_str("~1")?,
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}
