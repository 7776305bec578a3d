//! What a process has as stdin, stdout and stderr, from what containerd names: FIFOs, files, loggers, nothing. Uses:
//! logger, reader, stream, watch.

use crate::logger::{self, Running, Whose};
use crate::reader;
use crate::stream::{self, Open};
use crate::watch::{Token, Watches};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long those who will read a process's output are waited for, before it is made.
const READERS: Duration = Duration::from_secs(5);

/// What containerd names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Where input comes from; empty for none.
    pub stdin: String,
    /// Where output goes; empty for nowhere.
    pub stdout: String,
    /// The same of errors; a terminal has none.
    pub stderr: String,
    /// All three are a terminal.
    pub terminal: bool,
}

/// The user and group that pipes belong to, so that a process that is not root may open /dev/stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The ends that are not the process's.
#[derive(Debug)]
pub struct Ends {
    stdin: Option<Input>,
    outputs: Vec<Output>,
    open: Arc<Open>,
    logger: Option<Running>,
}

#[derive(Debug)]
struct Input {
    /// The FIFO.
    from: OwnedFd,
    /// To write it, so that it has no end before CloseIO, whoever comes and goes.
    keep: OwnedFd,
    /// None with a terminal.
    to: Option<OwnedFd>,
}

#[derive(Debug)]
struct Output {
    /// None with a terminal.
    from: Option<OwnedFd>,
    to: OwnedFd,
}

/// The streams of a process that runs.
#[derive(Debug, Default)]
pub struct Streams {
    /// Outputs that are not at their end.
    pub open: Arc<Open>,
    outputs: Vec<Token>,
    input: Option<Token>,
    /// Until CloseIO.
    keep: Option<OwnedFd>,
    logger: Option<Running>,
}

/// Opens what `names` names, for `whose` process: what it gets, and the other ends. Waits for those who will read from a FIFO.
pub fn open(
    names: &Names,
    owner: Owner,
    whose: Whose<'_>,
    watches: &Watches,
) -> Result<([Arc<OwnedFd>; 3], Ends)> {
    let null = Arc::new(null()?);
    let mut child = [Arc::clone(&null), Arc::clone(&null), null];
    let mut ends = Ends { stdin: None, outputs: Vec::new(), open: Arc::default(), logger: None };
    if !names.stdin.is_empty() {
        let path = fifo_path(&names.stdin)?;
        // A reader that does not wait for a writer first: then opening to write does not wait for a reader.
        let from = open_file(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let keep = open_file(path, OFlags::WRONLY | OFlags::NONBLOCK)?;
        let to = match names.terminal {
            true => None,
            false => {
                let (theirs, ours) = pipe(owner)?;
                child[0] = Arc::new(theirs);
                Some(ours)
            }
        };
        ends.stdin = Some(Input { from, keep, to });
    }
    if let Some(logger) = logger::parse(&names.stdout) {
        // It takes both.
        let (out, to) = pipe(owner)?;
        let (err, also) = pipe(owner)?;
        ends.logger = Some(logger?.start(whose, out.as_fd(), err.as_fd(), watches, &ends.open)?);
        match names.terminal {
            true => ends.outputs.push(Output { from: None, to }),
            false => (child[1], child[2]) = (Arc::new(to), Arc::new(also)),
        }
        return Ok((child, ends));
    }
    let outputs: &[&String] = if names.terminal { &[&names.stdout] } else { &[&names.stdout, &names.stderr] };
    let latest = Instant::now() + READERS;
    for (number, name) in (1..).zip(outputs).filter(|(_, name)| !name.is_empty()) {
        let to = open_output(name, latest)?;
        let from = match names.terminal {
            true => None,
            false => {
                let (ours, theirs) = pipe(owner)?;
                child[number] = Arc::new(theirs);
                Some(ours)
            }
        };
        ends.outputs.push(Output { from, to });
    }
    Ok((child, ends))
}

impl Ends {
    /// Begins to move bytes; `master` is that of the terminal, where there is one. After an error nothing is moved.
    pub fn join(self, watches: &Watches, master: Option<&OwnedFd>) -> Result<Streams> {
        let mut streams = Streams { open: self.open, logger: self.logger, ..Streams::default() };
        let joined = streams.join(self.outputs, self.stdin, watches, master);
        if joined.is_err() {
            streams.end(watches);
        }
        joined.map(|()| streams)
    }
}

impl Streams {
    fn join(
        &mut self,
        outputs: Vec<Output>,
        stdin: Option<Input>,
        watches: &Watches,
        master: Option<&OwnedFd>,
    ) -> Result<()> {
        let terminal = || -> Result<OwnedFd> {
            let gone = || Error::new(Code::System, "the process has no terminal");
            master.ok_or_else(gone)?.try_clone().call("dup of a terminal")
        };
        for Output { from, to } in outputs {
            let from = from.map_or_else(terminal, Ok)?;
            self.outputs.push(stream::join(watches, from, to, Some(&self.open))?);
        }
        if let Some(Input { from, keep, to }) = stdin {
            let to = to.map_or_else(terminal, Ok)?;
            self.input = Some(stream::join(watches, from, to, None)?);
            self.keep = Some(keep);
        }
        Ok(())
    }

    /// Outputs that have not been let go of: what moves them.
    pub fn outputs(&self) -> Vec<Token> {
        self.outputs.clone()
    }

    /// From now on input ends when whoever feeds it has closed it.
    pub fn close_stdin(&mut self) {
        self.keep = None;
    }

    /// The process has ended: it takes no input.
    pub fn end_input(&mut self, watches: &Watches) {
        self.keep = None;
        if let Some(token) = self.input.take() {
            watches.remove(token);
        }
    }

    /// Lets go of all.
    pub fn end(&mut self, watches: &Watches) {
        self.end_input(watches);
        for token in self.outputs.drain(..) {
            watches.remove(token);
        }
        if let Some(logger) = self.logger.take() {
            logger.end();
        }
    }
}

fn null() -> Result<OwnedFd> {
    open_file(Path::new("/dev/null"), OFlags::RDWR)
}

fn open_file(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::from_raw_mode(0o644))
        .call(format!("open {}", path.display()))
}

/// A pipe that belongs to `owner`: its end to read and its end to write.
fn pipe(owner: Owner) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
    if owner != Owner::default() {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
        rustix::fs::fchown(&reader, Some(uid), Some(gid)).call("fchown of a pipe")?;
    }
    Ok((reader, writer))
}

fn fifo_path(name: &str) -> Result<&Path> {
    match name.split_once("://") {
        None | Some(("fifo", _)) => Ok(Path::new(name.strip_prefix("fifo://").unwrap_or(name))),
        Some((scheme, _)) => {
            Err(Error::new(Code::Unsupported, format!("{scheme}://: stdin can be a FIFO and nothing else")))
        }
    }
}

fn open_output(name: &str, latest: Instant) -> Result<OwnedFd> {
    match name.split_once("://") {
        None | Some(("fifo", _)) => {
            let path = fifo_path(name)?;
            let found = rustix::fs::stat(path).call(format!("stat {}", path.display()))?;
            match FileType::from_raw_mode(found.st_mode) {
                // Open to read it, too: so it never is without a reader, and takes what is written until one comes back.
                FileType::Fifo => reader::awaited(path, latest),
                _ => open_file(path, OFlags::WRONLY | OFlags::APPEND),
            }
        }
        Some(("file", path)) => {
            let path = Path::new(path);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).call(format!("mkdir {}", folder.display()))?;
            }
            open_file(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)
        }
        Some((scheme, _)) => Err(Error::new(
            Code::Unsupported,
            format!("{scheme}://: output can be a FIFO, file://PATH or binary://PATH, and nothing else"),
        )),
    }
}
