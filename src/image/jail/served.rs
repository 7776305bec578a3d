//! The jailed child: puts up its walls, unpacks one layer, says what came of it, and ends.
//! Uses: error, layer, unfold, confined, feed, message.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::confined::{self, Places};
use super::feed::Fed;
use super::message::{self, Answer, Request, Said};
use crate::error::{Code, Error, Result};
use crate::layer::Unpack;
use crate::unfold::unfold;

/// Serves the caller at the other end of standard input, and ends the process. Called first of all in main, while there
/// is one thread: what is confined is the thread that calls, and those that it starts.
pub fn serve() -> ! {
    std::process::exit(match served() {
        Ok(()) => 0,
        // Nobody is there to be told.
        Err(_) => 1,
    })
}

fn served() -> Result<()> {
    let socket = confined::own_only_socket()?;
    let Some((request, fds)) = message::receive::<Request>(socket.as_fd())? else { return Ok(()) };
    let said = work(&socket, &request, fds).unwrap_or_else(|error| Said::Failed {
        code: error.code(),
        errno: error.errno(),
        message: error.to_string(),
    });
    message::send(socket.as_fd(), &said, &[])
}

fn work(socket: &OwnedFd, request: &Request, fds: Vec<OwnedFd>) -> Result<Said> {
    let wrong =
        || Error::new(Code::System, "the unpacker: the caller sent another number of fds than it said");
    let mut fds = fds.into_iter();
    let pipe = File::from(fds.next().ok_or_else(wrong)?);
    let kept = if request.kept { Some(fds.next().ok_or_else(wrong)?) } else { None };
    let into = if request.unpack { Some(fds.next().ok_or_else(wrong)?) } else { None };
    let lower = match request.lower {
        true => Some([fds.next().ok_or_else(wrong)?, fds.next().ok_or_else(wrong)?]),
        false => None,
    };
    if fds.next().is_some() {
        return Err(wrong());
    }
    let Places { kept, into, lower } = confined::confine(Places { kept, into, lower })?;
    let blob = Fed::new(pipe, kept.map(File::from));
    let caller = Caller { socket, asks: Mutex::new(()) };
    let open = || below(&caller, lower.as_ref());
    let options =
        Unpack { form: request.form, rootless: request.rootless, limits: request.limits, lower: Some(&open) };
    let into = into.as_ref().map(|into| into.as_fd());
    let (summary, diff_id) =
        unfold(blob, &request.media_type, request.diff_id, into, &options, &|| window(&caller))?;
    Ok(match summary {
        Some(summary) => Said::Done { diff_id, summary },
        None => Said::Later { diff_id },
    })
}

/// Whom the threads of the child ask, one after the other: who asks second waits until the first has its answer.
struct Caller<'a> {
    socket: &'a OwnedFd,
    asks: Mutex<()>,
}

impl Caller<'_> {
    fn ask(&self, question: &Said) -> io::Result<Answer> {
        let _asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        message::send(self.socket.as_fd(), question, &[])?;
        Ok(message::receive::<Answer>(self.socket.as_fd())?.ok_or_else(gone)?.0)
    }
}

fn gone() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// Asks for a wide window.
fn window(caller: &Caller<'_>) -> io::Result<()> {
    match caller.ask(&Said::Window)? {
        Answer::Window => Ok(()),
        _ => Err(gone()),
    }
}

/// Asks for the layers below, and opens them.
fn below(caller: &Caller<'_>, lower: Option<&[OwnedFd; 2]>) -> io::Result<Vec<OwnedFd>> {
    let paths = match caller.ask(&Said::Lower)? {
        Answer::Layers(paths) => paths,
        Answer::Later => return Err(io::ErrorKind::WouldBlock.into()),
        Answer::Window => return Err(gone()),
    };
    let open = |path: &String| {
        let [layers, chains] = lower.ok_or_else(gone)?;
        let (kind, rest) = path.split_once('/').ok_or_else(gone)?;
        let folder = if kind == "chains" { chains } else { layers };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(folder, rest, flags, Mode::empty())?)
    };
    paths.iter().map(open).collect()
}
