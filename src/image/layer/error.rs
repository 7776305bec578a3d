//! Why a layer could not be unpacked or written: one sentence, and a class for those who branch.
//! Uses: errno.

use std::fmt;
use std::io;

use crate::errno::words;

/// Shorthand for results of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The archive is no tar, is cut short, or says what no layer may say.
    Archive,
    /// The archive asks for more than [`Limits`](super::Limits) allow.
    Limit,
    /// What the caller gave failed, the stream or the layers below: what it said is the `source`.
    Stream,
    /// A system call on the tree failed.
    System,
}

/// A failure in words.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<io::Error>,
}

impl Error {
    /// What the archive says is wrong.
    pub(super) fn archive(message: impl Into<String>) -> Self {
        Error { kind: Kind::Archive, message: message.into(), source: None }
    }

    /// The archive asks for too much.
    pub(super) fn limit(message: impl Into<String>) -> Self {
        Error { kind: Kind::Limit, message: message.into(), source: None }
    }

    /// The stream failed while `what` was done.
    pub(super) fn stream(what: &str, source: io::Error) -> Self {
        Error { kind: Kind::Stream, message: format!("{what}: {}", words(&source)), source: Some(source) }
    }

    /// `call` failed.
    pub(super) fn call(call: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Error { kind: Kind::System, message: format!("{call}: {}", words(&source)), source: Some(source) }
    }

    /// Puts what it is about in front of the sentence.
    pub(super) fn of(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The class.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno, where a system call failed.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// What the caller's stream or layers said, where that is what failed: a caller finds its own error in it.
    pub fn into_stream(self) -> Option<io::Error> {
        if self.kind == Kind::Stream { self.source } else { None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// Names the failed call.
pub(super) trait Call<T> {
    /// `call` as it would be typed: `mkdirat`, `open of the lower layer`.
    fn call(self, call: impl fmt::Display) -> Result<T>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call(self, call: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::call(call, e))
    }
}

/// Bytes of an archive, fit for a terminal and a log: escaped, and cut where they are long.
pub(super) struct Shown<'a>(pub &'a [u8]);

/// More of a name tells a reader nothing.
const SHOWN: usize = 160;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.len().min(SHOWN)];
        match std::str::from_utf8(cut) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text)?,
            _ => write!(f, "{}", cut.escape_ascii())?,
        }
        if self.0.len() > SHOWN { write!(f, "... ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}
