//! One error type: a sentence that names the image, the blob, the cause and where we know it the remedy, and a class.
//! Uses: errno.

use std::fmt;
use std::io;

use crate::errno::words;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A class of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Code {
    /// The image is not what its format or its digests say.
    Invalid,
    /// The image passes one of the bounds that are set for untrusted input.
    Limit,
    /// Something that this crate does not read: a digest algorithm, a media type, an artifact.
    Unsupported,
    /// No such image or name, or what belongs to an image is not there.
    NotFound,
    /// There is an image, for other platforms.
    Platform,
    /// Several images answer to what was asked for.
    Ambiguous,
    /// The store holds something broken; `fsck` tells what.
    Damaged,
    /// The caller's argument is wrong.
    Usage,
    /// A registry does not let this user do this.
    Denied,
    /// A system call failed, or the network.
    System,
}

/// A failure in words. `Display` gives the one sentence.
#[derive(Debug)]
pub struct Error {
    code: Code,
    errno: Option<i32>,
    message: String,
}

impl Error {
    /// A failure of class `code`, told by `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, errno: None, message: message.into() }
    }

    /// A failure that was told already, with the errno of the call.
    pub(crate) fn with_errno(code: Code, message: impl Into<String>, errno: Option<i32>) -> Self {
        Error { code, errno, message: message.into() }
    }

    /// An image that is not what it says.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(Code::Invalid, message)
    }

    /// A failed call: `what` says which, on what (`open index.json`); the errno follows in words.
    pub fn call(what: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        // Readers of this crate carry their sentence through io::Read as an io::Error: it comes out as it went in.
        let error = match error.downcast::<Error>() {
            Ok(carried) => return carried,
            Err(error) => error,
        };
        Error {
            code: Code::System,
            errno: error.raw_os_error(),
            message: format!("{what}: {}", words(&error)),
        }
    }

    /// The same failure, of `context` (`app.tar: layer 3`).
    pub fn of(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same failure, and what failed after it, or what can be done.
    pub fn and(mut self, more: impl fmt::Display) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The errno of the system call that failed.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

/// Bytes of an error's text: of one that quotes a document, its beginning and its end, where the place stands.
const BEGIN: usize = 2000;
const END: usize = 500;

/// On one line, of bounded length and without orders to a terminal, whatever words of an image are in it.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = without_controls(&self.message);
        if text.len() <= BEGIN + END {
            return f.write_str(&text);
        }
        let boundary = |at: &usize| text.is_char_boundary(*at);
        let begin = (0..=BEGIN).rev().find(boundary).unwrap_or(0);
        let end = (text.len() - END..=text.len()).find(boundary).unwrap_or(text.len());
        write!(f, "{} ... {}", &text[..begin], &text[end..])
    }
}

fn without_controls(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        match c.is_control() {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    text
}

impl std::error::Error for Error {}

/// Lets a reader that verifies fail with its own sentence.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let error = Error::invalid("names a\nb, c\u{7f} and \u{9b}2J\u{fc}").of("x.tar\u{1b}[2J");
        assert_eq!(error.to_string(), "x.tar\\u{1b}[2J: names a\\nb, c\\u{7f} and \\u{9b}2J\u{fc}");
        assert_eq!(Error::invalid("plain").to_string(), "plain");
    }

    #[test]
    fn an_error_has_an_end_however_much_it_quotes() {
        for quoted in ["x", "\u{1b}", "\u{20ac}"] {
            let error = Error::invalid(format!("type {} at line 7", quoted.repeat(1 << 20))).to_string();
            assert!(error.len() <= BEGIN + END + 5, "{} bytes", error.len());
            assert!(error.starts_with("type ") && error.ends_with(" at line 7"), "{error}");
        }
        let just = "x".repeat(BEGIN + END);
        assert_eq!(Error::invalid(just.clone()).to_string(), just);
    }
}
