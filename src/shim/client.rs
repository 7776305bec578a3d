//! A connection to a ttrpc server, for one call at a time. (The client of the ttrpc crate looks at its socket 100 times a
//! second for as long as it is connected: docs/adr/0015.) Uses: wire.

use crate::wire::{self, HEADER, Header, MESSAGE_MAX};
use containerd_shim_protos::protobuf::Message;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use ttrpc::{Code, Request, Response};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The connection.
pub struct Client {
    socket: UnixStream,
    stream: u32,
}

/// Why a call has failed.
#[derive(Debug)]
pub enum Failure {
    /// The connection is of no use any more.
    Connection(io::Error),
    /// The server has answered that it cannot.
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Connection(error)
    }
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &str) -> io::Result<Client> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Client { socket, stream: 1 })
    }

    /// Calls `method` of `service`; the answer's payload.
    pub fn call(&mut self, service: &str, method: &str, message: &impl Message) -> Result<Vec<u8>, Failure> {
        let mut request = Request::new();
        request.service = service.to_string();
        request.method = method.to_string();
        request.timeout_nano = TIMEOUT.as_nanos() as i64;
        request.payload = message.write_to_bytes().map_err(io::Error::other)?;
        let body = request.write_to_bytes().map_err(io::Error::other)?;
        let stream = self.stream;
        // Clients take odd numbers.
        self.stream = stream.wrapping_add(2);
        self.socket.write_all(&wire::frame(wire::REQUEST, stream, &body))?;
        loop {
            let mut header = [0; HEADER];
            self.socket.read_exact(&mut header)?;
            let header = Header::parse(&header);
            let length = header.length;
            if length > MESSAGE_MAX {
                return Err(io::Error::other(format!("an answer of {length} bytes")).into());
            }
            let mut body = vec![0; length];
            self.socket.read_exact(&mut body)?;
            // An answer to a call that was given up.
            if header.stream != stream || header.kind != wire::RESPONSE {
                continue;
            }
            let response = Response::parse_from_bytes(&body).map_err(io::Error::other)?;
            return match response.status.as_ref() {
                Some(status) if status.code() != Code::OK => Err(Failure::Refused(status.message.clone())),
                _ => Ok(response.payload),
            };
        }
    }
}
