//! The server of ttrpc. Connections are read by the thread that waits for everything; each call has a thread while it is at
//! work, and one that waits for something to happen has none (docs/adr/0015). Uses: log, watch, wire.

use crate::log;
use crate::watch::{Next, Watches};
use crate::wire::{self, Arrived, MESSAGE_MAX, Reader};
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result, sys};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use ttrpc::{Request, Response, Status};

/// Does what was asked, and answers, now or later.
pub type Method = Arc<dyn Fn(&[u8], Asker) + Send + Sync>;

/// All methods by service and name: `/containerd.task.v2.Task/Create`.
pub type Methods = HashMap<String, Method>;

/// What is read at once.
const CHUNK: usize = 8192;

/// Who leaves more answers than this has lost his connection: the longest there is, and as much again.
const UNSENT_MAX: usize = 2 * MESSAGE_MAX;

/// The most of what has failed that is told: it may repeat what was asked, and an answer must fit in a message.
const SENTENCE_MAX: usize = 4096;

/// A connection. It belongs to what waits for its bytes, and goes with that.
struct Connection {
    socket: Arc<OwnedFd>,
    /// Answers that have found no room.
    unsent: Mutex<Vec<u8>>,
    watches: Arc<Watches>,
}

/// Who waits for an answer.
#[derive(Clone)]
pub struct Asker {
    connection: Weak<Connection>,
    stream: u32,
}

/// Answers whoever connects to `socket`. Only root may.
pub fn serve(watches: &Arc<Watches>, socket: OwnedFd, methods: Methods) -> Result<()> {
    rustix::io::ioctl_fionbio(&socket, true).call("ioctl FIONBIO")?;
    let (socket, methods) = (Arc::new(socket), Arc::new(methods));
    let (all, listening) = (Arc::clone(watches), Arc::clone(&socket));
    // So that one who cannot be served can be turned away.
    let mut spare = spare();
    let react = Box::new(move || {
        let accept = || accept_with(&listening, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        loop {
            match accept() {
                Ok(socket) => admit(&all, socket, &methods),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return Next::Same,
                Err(errno) => {
                    log::warn(format_args!("a connection is turned away: accept: {errno}"));
                    drop(spare.take());
                    let turned_away = accept().is_ok();
                    spare = self::spare();
                    if !turned_away {
                        return Next::Same;
                    }
                }
            }
        }
    });
    // By edges: who can be neither served nor turned away stands at the door until the next one comes, and this thread does
    // not turn round and round meanwhile.
    watches.add(socket, EventFlags::IN | EventFlags::ET, react).map(drop)
}

fn spare() -> Option<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok()
}

fn admit(watches: &Arc<Watches>, socket: OwnedFd, methods: &Arc<Methods>) {
    // The mode of the socket refuses others before; this holds where somebody has changed that.
    match sys::peer::uid(socket.as_raw_fd()) {
        Ok(0) => {}
        Ok(uid) => return log::warn(format_args!("user {uid} has connected and was refused")),
        Err(error) => return log::warn(format_args!("a connection is refused: {error}")),
    }
    let socket = Arc::new(socket);
    let connection = Arc::new(Connection {
        socket: Arc::clone(&socket),
        unsent: Mutex::default(),
        watches: Arc::clone(watches),
    });
    let (methods, mut reader, mut last) = (Arc::clone(methods), Reader::default(), 0);
    let react = Box::new(move || connection.read(&mut reader, &mut last, &methods));
    if let Err(error) = watches.add(socket, EventFlags::IN, react) {
        log::warn(format_args!("a connection is closed: {error}"));
    }
}

impl Connection {
    /// `last` is the stream of the last call that was begun.
    fn read(self: &Arc<Self>, reader: &mut Reader, last: &mut u32, methods: &Arc<Methods>) -> Next {
        let mut bytes = [0; CHUNK];
        let count = match recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return Next::Same,
            // Whoever has waited here for an answer has gone.
            Ok((0, _)) | Err(_) => return Next::Nothing,
            Ok((count, _)) => count,
        };
        for arrived in reader.take(&bytes[..count]) {
            match arrived {
                Arrived::Request { stream, body } => {
                    let asker = Asker { connection: Arc::downgrade(self), stream };
                    let why = match stream {
                        // Even ones are a server's.
                        _ if stream % 2 == 0 => "is not a client's",
                        // Two calls with one number could not tell their answers apart.
                        _ if stream <= *last => "was used before: numbers go up",
                        _ => {
                            *last = stream;
                            begin(&body, asker, methods);
                            continue;
                        }
                    };
                    asker.refuse(ttrpc::Code::INVALID_ARGUMENT, format!("stream {stream} {why}"));
                }
                Arrived::TooLong { stream, length } => {
                    let text = format!("a message of {length} bytes: {MESSAGE_MAX} are the most");
                    let asker = Asker { connection: Arc::downgrade(self), stream };
                    asker.refuse(ttrpc::Code::RESOURCE_EXHAUSTED, text);
                }
            }
        }
        Next::Same
    }

    /// Nobody waits for a client that reads nothing: what has no room goes when there is some.
    fn send(self: &Arc<Self>, bytes: &[u8]) {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        if unsent.len() + bytes.len() > UNSENT_MAX {
            log::warn("a connection is closed: nobody takes its answers");
            *unsent = Vec::new();
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
            return;
        }
        if !unsent.is_empty() {
            return unsent.extend_from_slice(bytes);
        }
        // Who reads the connection hears of its end.
        let Ok(sent) = self.try_send(bytes) else { return };
        if sent == bytes.len() {
            return;
        }
        unsent.extend_from_slice(&bytes[sent..]);
        let rest = Arc::downgrade(self);
        let react = Box::new(move || rest.upgrade().map_or(Next::Nothing, |rest| rest.send_rest()));
        let added = self
            .socket
            .try_clone()
            .call("dup")
            .and_then(|fd| self.watches.add(Arc::new(fd), EventFlags::OUT, react));
        if let Err(error) = added {
            log::warn(format_args!("an answer is lost: {error}"));
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }

    fn send_rest(&self) -> Next {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        match self.try_send(&unsent) {
            Ok(sent) => drop(unsent.drain(..sent)),
            Err(_) => unsent.clear(),
        }
        if unsent.is_empty() {
            *unsent = Vec::new();
            return Next::Nothing;
        }
        Next::Same
    }

    fn try_send(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match send(&self.socket, &bytes[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(sent)
    }
}

/// A call begins, in a thread of its own.
fn begin(body: &[u8], asker: Asker, methods: &Methods) {
    let request = match Request::parse_from_bytes(body) {
        Ok(request) => request,
        Err(error) => return asker.refuse(ttrpc::Code::INVALID_ARGUMENT, format!("a request: {error}")),
    };
    let name = format!("/{}/{}", request.service, request.method);
    let Some(method) = methods.get(&name).map(Arc::clone) else {
        return asker.refuse(ttrpc::Code::UNIMPLEMENTED, format!("{name}: there is no such method"));
    };
    let answering = asker.clone();
    let work = move || method(&request.payload, answering);
    if let Err(error) = std::thread::Builder::new().name("call".into()).spawn(work) {
        asker.refuse(ttrpc::Code::RESOURCE_EXHAUSTED, format!("{name}: no thread for it: {error}"));
    }
}

impl Asker {
    /// Whether he still waits.
    pub fn is_there(&self) -> bool {
        self.connection.strong_count() > 0
    }

    /// Answers.
    pub fn answer<T: Message>(&self, result: Result<T>) {
        let encoded = result.map_err(|error| (class(error.code()), error.to_string())).and_then(|message| {
            message.write_to_bytes().map_err(|error| (ttrpc::Code::INTERNAL, format!("an answer: {error}")))
        });
        match encoded {
            Ok(payload) if payload.len() > MESSAGE_MAX - CHUNK => {
                let text = format!("an answer of {} bytes is too long for containerd", payload.len());
                self.refuse(ttrpc::Code::RESOURCE_EXHAUSTED, text);
            }
            Ok(payload) => self.send(&Response {
                status: MessageField::some(Status::default()),
                payload,
                ..Response::default()
            }),
            Err((code, text)) => self.refuse(code, text),
        }
    }

    fn refuse(&self, code: ttrpc::Code, mut text: String) {
        if text.len() > SENTENCE_MAX {
            let end = (0..=SENTENCE_MAX).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push_str("...");
        }
        let status = Status { code: EnumOrUnknown::new(code), message: text, ..Status::default() };
        self.send(&Response { status: MessageField::some(status), ..Response::default() });
    }

    fn send(&self, response: &Response) {
        let Some(connection) = self.connection.upgrade() else { return };
        match response.write_to_bytes() {
            Ok(body) => connection.send(&wire::frame(wire::RESPONSE, self.stream, &body)),
            Err(error) => log::warn(format_args!("an answer is lost: {error}")),
        }
    }
}

/// A method that answers when its work is done.
pub fn call<S, Q, A>(state: &Arc<S>, work: fn(&Arc<S>, Q) -> Result<A>) -> Method
where
    S: Send + Sync + 'static,
    Q: Message,
    A: Message,
{
    let state = Arc::clone(state);
    Arc::new(move |payload, asker| asker.answer(asked(payload).and_then(|asked| work(&state, asked))))
}

/// What a request asks.
pub fn asked<Q: Message>(payload: &[u8]) -> Result<Q> {
    Q::parse_from_bytes(payload).map_err(|error| Error::new(Code::Usage, format!("a request: {error}")))
}

/// An error's class, as containerd tells them apart.
fn class(code: Code) -> ttrpc::Code {
    match code {
        Code::NotFound => ttrpc::Code::NOT_FOUND,
        Code::Exists => ttrpc::Code::ALREADY_EXISTS,
        Code::Status => ttrpc::Code::FAILED_PRECONDITION,
        Code::Unsupported => ttrpc::Code::UNIMPLEMENTED,
        Code::Config | Code::Usage => ttrpc::Code::INVALID_ARGUMENT,
        Code::Host | Code::System | Code::Execute | Code::Hook => ttrpc::Code::UNKNOWN,
    }
}
