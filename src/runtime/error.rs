//! One error type: a sentence, a stable code, and the place in config.json it is about.
//! Knows no other module.

pub use rcrun_errno::errno_text;
use std::fmt;
use std::io;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A stable word for a class of failure, written as `code` in the JSON log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command line is wrong.
    Usage,
    /// config.json is not what the spec asks for.
    Config,
    /// A field, verb or flag that rcrun does not support.
    Unsupported,
    /// This machine lacks what the container asks for (kernel, cgroup controller).
    Host,
    /// No container or image of that name.
    NotFound,
    /// A container of that id, or another thing of that name, is there already.
    Exists,
    /// The container's status does not allow the verb.
    Status,
    /// A system call or a step of the plan failed.
    System,
    /// The container's program could not be executed: the errno says why.
    Execute,
    /// A hook failed or ran out of time.
    Hook,
}

/// A class of failure in words, for docs/errors.md.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// The class.
    pub code: Code,
    /// What it is.
    pub what: &'static str,
    /// When it comes.
    pub when: &'static str,
    /// What helps.
    pub remedy: &'static str,
}

impl Code {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Usage => "usage",
            Code::Config => "config",
            Code::Unsupported => "unsupported",
            Code::Host => "host",
            Code::NotFound => "not-found",
            Code::Exists => "exists",
            Code::Status => "status",
            Code::System => "system",
            Code::Execute => "execute",
            Code::Hook => "hook",
        }
    }

    /// Each class with its meaning.
    pub const ALL: [Meaning; 10] = [
        Meaning {
            code: Code::Usage,
            what: "The command line is wrong.",
            when: "a verb, flag or value that rcrun does not take, or two that exclude each other",
            remedy: "`rcrun help VERB` shows what it takes",
        },
        Meaning {
            code: Code::Config,
            what: "config.json is not what the spec asks for.",
            when: "before anything is made: a field is missing, of another type, out of bounds, or at odds with another field",
            remedy: "mend the field that `pointer` names",
        },
        Meaning {
            code: Code::Unsupported,
            what: "A field, verb or flag that rcrun does not support.",
            when: "before anything is made",
            remedy: "leave it out; docs/spec-conformance.md and docs/differences-from-runc.md tell why",
        },
        Meaning {
            code: Code::Host,
            what: "This machine lacks what the container asks for (kernel, cgroup controller).",
            when: "before the container runs",
            remedy: "`rcrun doctor` tells what the machine has, and how to get the rest",
        },
        Meaning {
            code: Code::NotFound,
            what: "No container or image of that name.",
            when: "any verb on a name that is not there; an engine takes the thing for gone",
            remedy: "`rcrun list` and `rcrun images` show those that are, below the same --root",
        },
        Meaning {
            code: Code::Exists,
            what: "A container of that id, or another thing of that name, is there already.",
            when: "create, run, restore; spec",
            remedy: "`rcrun delete ID`, or another name",
        },
        Meaning {
            code: Code::Status,
            what: "The container's status does not allow the verb.",
            when: "start of what runs, exec in what has ended, delete of what has not",
            remedy: "`rcrun state ID` tells the status",
        },
        Meaning {
            code: Code::System,
            what: "A system call or a step of the plan failed.",
            when: "any time; `errno` is the kernel's, and what was made is taken back",
            remedy: "the sentence names call and cause, and what helps where that is known",
        },
        Meaning {
            code: Code::Execute,
            what: "The container's program could not be executed: the errno says why.",
            when: "run, start, exec",
            remedy: "the program, its interpreter, its mode and its architecture, as the sentence says",
        },
        Meaning {
            code: Code::Hook,
            what: "A hook failed or ran out of time.",
            when: "create, start, run, delete; what was made is taken back",
            remedy: "what the hook printed stands in the sentence",
        },
    ];
}

/// A failure in words. `Display` gives the one sentence that engines and people read.
#[derive(Debug)]
pub struct Error {
    code: Code,
    pointer: Option<String>,
    errno: Option<i32>,
    message: String,
    remedy: Option<Box<str>>,
    attached: Vec<String>,
}

impl Error {
    /// A failure of class `code`, told by `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            pointer: None,
            errno: None,
            message: message.into(),
            remedy: None,
            attached: Vec::new(),
        }
    }

    /// A fault in config.json at the JSON pointer `pointer` (`/mounts/3/options/0`).
    pub fn config(pointer: impl Into<String>, message: impl fmt::Display) -> Self {
        let pointer = pointer.into();
        Error::new(Code::Config, format!("config.json: {pointer}: {message}")).at(pointer)
    }

    /// A field at `pointer` that rcrun does not support; `message` says what and why.
    pub fn unsupported(pointer: impl Into<String>, message: impl fmt::Display) -> Self {
        let pointer = pointer.into();
        Error::new(Code::Unsupported, format!("config.json: {pointer}: {message}")).at(pointer)
    }

    /// A failed call: `what` says which, on what (`open /run/x`); the errno follows in words.
    pub fn call(what: impl fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let errno = error.raw_os_error();
        let text = match errno {
            Some(libc::EMFILE) => {
                format!("{} (raise the limit of open files: `ulimit -n`)", errno_text(libc::EMFILE))
            }
            Some(n) => errno_text(n),
            None => error.to_string(),
        };
        Error { errno, ..Error::new(Code::System, format!("{what}: {text}")) }
    }

    /// Sets the JSON pointer that the error is about.
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Sets the class.
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// Tells a fault of the object at `place` of a config.json as one of the document `name`, which is that object alone.
    pub fn in_part(mut self, place: &str, name: &str) -> Self {
        self.message = self.message.replacen(&format!("config.json: {place}/"), &format!("{name}: /"), 1);
        self.pointer = self.pointer.map(|p| p.strip_prefix(place).map(str::to_string).unwrap_or(p));
        self
    }

    /// Records the errno behind a message that spells it already.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.errno = Some(errno);
        self
    }

    /// Puts `what` before the sentence: the container, the field, the step.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds the remedy, where one is known.
    pub fn hint(mut self, remedy: Option<&str>) -> Self {
        if let Some(remedy) = remedy {
            self.remedy = Some(remedy.into());
        }
        self
    }

    /// Attaches an error of the clean-up: told after the first one, never in its place.
    pub fn attach(mut self, other: &Error) -> Self {
        self.attached.push(other.to_string());
        self
    }

    /// The class.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The JSON pointer, where the error is about a field of config.json.
    pub fn pointer(&self) -> Option<&str> {
        self.pointer.as_deref()
    }

    /// The sentence without the remedy, and without what failed while cleaning up.
    pub fn sentence(&self) -> &str {
        &self.message
    }

    /// The remedy, where one is known.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The errno, where a system call failed.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(remedy) = &self.remedy {
            write!(f, " ({remedy})")?;
        }
        for other in &self.attached {
            write!(f, " (and while cleaning up: {other})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds context to results of system calls.
pub trait CallContext<T> {
    /// Names the failed call: `open /run/x`.
    fn call(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> CallContext<T> for std::result::Result<T, E> {
    fn call(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::call(what, e))
    }
}

/// Adds context to results of this crate.
pub trait Context<T> {
    /// Puts `what` before the sentence.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.context(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_meaning_in_the_order_of_the_codes() {
        for (place, meaning) in Code::ALL.iter().enumerate() {
            assert_eq!(meaning.code as usize, place, "{meaning:?}");
        }
        // The last of them: a new one is a line above it.
        assert_eq!(Code::ALL.len(), Code::Hook as usize + 1);
    }

    #[test]
    fn a_clean_up_error_never_replaces_the_first() {
        let first = Error::config("/root/path", "is empty").attach(&Error::new(Code::System, "rmdir: busy"));
        assert_eq!(
            first.to_string(),
            "config.json: /root/path: is empty (and while cleaning up: rmdir: busy)"
        );
        assert_eq!(first.pointer(), Some("/root/path"));
    }
}
