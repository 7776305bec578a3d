//! What the caller and the jailed child say to each other: one packet each, JSON, fds beside it.
//! Uses: digest, error, layer (its options).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::layer::{Form, Limits, Summary};

/// Bytes of a packet: more than 500 layers below have as paths.
const PACKET: usize = 128 << 10;
/// The pipe, the blob, the folder to unpack into, and two of layers.
const FDS: usize = 5;
/// Bytes of a sentence.
const SENTENCE: usize = 4096;

/// The first packet, with a pipe, the blob's file where `kept`, the folder where `unpack`, and two folders of layers
/// where `lower`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) media_type: String,
    pub(super) diff_id: Digest,
    pub(super) form: Form,
    pub(super) rootless: bool,
    pub(super) limits: Limits,
    pub(super) kept: bool,
    pub(super) unpack: bool,
    pub(super) lower: bool,
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// It needs the layers below.
    Lower,
    /// It needs a zstd window above 8 MiB.
    Window,
    /// It is done.
    Done { diff_id: Digest, summary: Summary },
    /// It cannot go on without the layers below, and has read the tar to its end.
    Later { diff_id: Digest },
    /// It failed.
    Failed { code: Code, message: String, errno: Option<i32> },
}

/// What the caller answers to [`Said::Lower`] and [`Said::Window`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Their paths in the store, the topmost first.
    Layers(Vec<String>),
    /// The layers below cannot be had now.
    Later,
    /// It may have the window, until it ends.
    Window,
}

impl Summary {
    /// Fit for a terminal, whoever wrote it.
    pub(super) fn plain(mut self) -> Summary {
        self.notes.truncate(100);
        self.notes.iter_mut().for_each(|note| *note = printable(note));
        self
    }
}

/// A sentence of a child that may be in the hands of whoever made the image.
pub(super) fn printable(sentence: &str) -> String {
    let mut text = String::new();
    for c in sentence.chars() {
        if text.len() >= SENTENCE {
            break;
        }
        text.push(if c.is_control() { '?' } else { c });
    }
    text
}

pub(super) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let text = serde_json::to_vec(message).expect("a message has only strings as keys");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new(Code::System, "the unpacker: too many fds for a message"));
    }
    // A peer that died is told by what it does not answer.
    match rustix::net::sendmsg(socket, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL) {
        Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
        Err(error) => Err(Error::call("the unpacker: sendmsg", error)),
    }
}

/// `None` when the peer is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other.map_err(|e| Error::call("the unpacker: recvmsg", e))?,
        }
    };
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let broken = |why: &str| Error::new(Code::System, format!("the unpacker said what is no message: {why}"));
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(broken("it is too long"));
    }
    match serde_json::from_slice(&text[..received.bytes]) {
        Ok(message) => Ok(Some((message, fds))),
        // Perhaps what a panic prints.
        Err(_) => Err(broken(&printable(&String::from_utf8_lossy(&text[..received.bytes.min(SENTENCE)])))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn a_message_comes_with_its_fds_and_anything_else_is_refused() {
        let pair =
            || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (one, two) = pair();
        send(one.as_fd(), &Answer::Layers(vec!["a".into()]), &[two.as_fd()]).unwrap();
        let (answer, fds) = receive::<Answer>(two.as_fd()).unwrap().unwrap();
        assert!(matches!(answer, Answer::Layers(layers) if layers == ["a"]));
        assert_eq!(fds.len(), 1);
        for text in ["{", "\"Else\"", &" ".repeat(PACKET + 1)] {
            rustix::net::send(&one, text.as_bytes(), SendFlags::empty()).unwrap();
            let error = receive::<Answer>(two.as_fd()).unwrap_err();
            assert!(error.to_string().contains("no message"), "{error}");
        }
        drop(one);
        assert!(receive::<Answer>(two.as_fd()).unwrap().is_none());
        send(two.as_fd(), &Answer::Later, &[]).unwrap();
    }

    #[test]
    fn what_a_child_says_is_cut_and_has_no_control_characters() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a?[2Jb?c");
        assert!(printable(&"x".repeat(10_000)).len() <= SENTENCE + 4);
    }
}
