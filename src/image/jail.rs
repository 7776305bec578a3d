//! The unpacker behind walls: a layer is decompressed and unpacked in a process of its own, this program started anew,
//! that can reach nothing but the folder it unpacks into and, to read, the layers of the store. This file is the side
//! of the caller, `message` what the two say, `feed` how the blob gets across, `served` the child, `confined` its walls.
//! Uses: digest, error, layer (its options), pipeline (the size of a chunk), unfold.
//!
//! ```text
//! caller                                            child
//!   |--- Request, the folder, the feed of the blob --->|  walls go up
//!   |=== the blob, verified while it is read =========>|  decompress, hash, unpack
//!   |<-- Lower -----------------------------------------|  only if the tar needs the layers below
//!   |--- Layers (their paths in the store), or Later -->|
//!   |<-- Window ----------------------------------------|  only if a zstd window is above 8 MiB
//!   |--- Window, when no other child has one ---------->|  and has it until it ends
//!   |<-- Done (summary, diffID) or Failed --------------|  exits
//! ```
//!
//! Nothing that the child says is believed but what it can only harm itself with: what it says of the diffID is all that
//! is known of the tar. Code run by a hostile zstd stream could lie about it, and so put another tree under a diffID that
//! another image has too.

mod confined;
mod feed;
mod message;
mod served;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::layer::{Form, Limits, Summary};
pub(crate) use feed::Feed;
use message::{Answer, Request, Said};
pub use served::serve;

/// How the child is started: as this program, with arguments by which its main function knows to call [`serve`] before
/// it does anything else, while it has one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    arguments: Vec<OsString>,
}

/// What the child is to do.
pub(crate) struct Order<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) diff_id: Digest,
    pub(crate) form: Form,
    pub(crate) rootless: bool,
    pub(crate) limits: Limits,
    /// The copy of the blob that is kept, opened for reading: the child reads it as it grows.
    pub(crate) kept: Option<BorrowedFd<'a>>,
    /// Where it unpacks to; `None` where the tar is only to be hashed.
    pub(crate) into: Option<BorrowedFd<'a>>,
    /// The folders of the store with layers in them, `layers` and `chains`.
    pub(crate) lower: Option<[BorrowedFd<'a>; 2]>,
}

/// A child at work; killed when dropped before it has ended.
pub(crate) struct Inmate {
    child: Child,
    socket: OwnedFd,
}

impl Drop for Inmate {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Jail {
    /// Children are this program with `arguments`.
    pub fn with_arguments(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Jail {
        Jail { arguments: arguments.into_iter().map(Into::into).collect() }
    }

    /// Starts a child, and gives what it is fed by.
    pub(crate) fn start(&self, order: &Order<'_>) -> Result<(Inmate, Feed)> {
        let failed = |call: &'static str| {
            move |e: rustix::io::Errno| Error::call(format_args!("the unpacker: {call}"), e)
        };
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed("socketpair"))?;
        let (blob, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed("pipe"))?;
        let feed = Feed::new(to, order.kept.is_some());
        let child = Command::new("/proc/self/exe")
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Error::call("the unpacker: start of /proc/self/exe", e))?;
        let inmate = Inmate { child, socket: ours };
        let request = Request {
            media_type: order.media_type.to_string(),
            diff_id: order.diff_id,
            form: order.form,
            rootless: order.rootless,
            limits: order.limits,
            kept: order.kept.is_some(),
            unpack: order.into.is_some(),
            lower: order.lower.is_some(),
        };
        let mut fds = vec![blob.as_fd()];
        fds.extend(order.kept);
        fds.extend(order.into);
        fds.extend(order.lower.iter().flatten());
        message::send(inmate.socket.as_fd(), &request, &fds)?;
        Ok((inmate, feed))
    }
}

impl Inmate {
    /// What the child says at last: what was unpacked, and the digest of the tar; `None` when it needs the layers below
    /// and they cannot be had now. `lower` gives, when asked, the paths in the store of the layers below, the topmost
    /// first; `None` where they cannot be had now. `window` waits for the right to a wide zstd window: the child has
    /// ended when this returns.
    pub(crate) fn wait(
        mut self,
        lower: &dyn Fn() -> Result<Option<Vec<String>>>,
        window: &dyn Fn(),
    ) -> Result<(Option<Summary>, Digest)> {
        let mut asked = false;
        let mut windowed = false;
        loop {
            match message::receive::<Said>(self.socket.as_fd())? {
                Some((Said::Lower, _)) if asked => {
                    return Err(Error::new(Code::System, "the unpacker asks for the layers below twice"));
                }
                Some((Said::Lower, _)) => {
                    asked = true;
                    let answer = match lower()? {
                        Some(layers) => Answer::Layers(layers),
                        None => Answer::Later,
                    };
                    message::send(self.socket.as_fd(), &answer, &[])?;
                }
                Some((Said::Window, _)) if windowed => {
                    return Err(Error::new(Code::System, "the unpacker asks for a window twice"));
                }
                Some((Said::Window, _)) => {
                    windowed = true;
                    window();
                    message::send(self.socket.as_fd(), &Answer::Window, &[])?;
                }
                Some((Said::Done { diff_id, summary }, _)) => return Ok((Some(summary.plain()), diff_id)),
                Some((Said::Later { diff_id }, _)) => return Ok((None, diff_id)),
                Some((Said::Failed { code, message, errno }, _)) => {
                    return Err(Error::with_errno(code, message::printable(&message), errno));
                }
                None => {
                    let status = self.child.wait().map_err(|e| Error::call("the unpacker: wait", e))?;
                    return Err(Error::new(
                        Code::System,
                        format!(
                            "the unpacker ended without a word ({status}): it may have run out of memory"
                        ),
                    ));
                }
            }
        }
    }
}
