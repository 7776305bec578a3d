//! The connection to systemd, opened when something is asked of it: calls, their answers, and the end of a job.
//!
//! systemd listens on a socket of its own, which root reaches without a bus daemon in between (systemctl does that): no
//! name to be had, no match rule, one process to wake up. Where that is not there, the bus.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::value::Value;
use super::wire::{self, FIXED, Message, Method};
use crate::error::CallContext;
use crate::unix_socket;
use crate::{Code, Error, Result};

/// How long an answer or a job may take (runc waits as long).
const PATIENCE: Duration = Duration::from_secs(30);

const BUS: Method = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

const SYSTEMD: &str = "org.freedesktop.systemd1";

const MATCH: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A call that was answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `org.freedesktop.systemd1.UnitExists`
    pub name: String,
    /// In words.
    pub text: String,
}

/// A connection to a manager.
#[derive(Debug)]
pub struct Bus {
    socket: OwnedFd,
    path: PathBuf,
    received: Vec<u8>,
    serial: u32,
    is_bus: bool,
    /// Jobs that ended while something else was waited for.
    removed: Vec<Removed>,
}

/// The end of a job, and who says so.
#[derive(Debug)]
struct Removed {
    job: String,
    result: String,
    sender: String,
}

impl Bus {
    /// Connects to the manager of the system, or to the user's.
    pub fn connect(user: bool) -> Result<Bus> {
        let mut failed: Option<Error> = None;
        // For all of them: where systemd hangs, none answers.
        let deadline = Instant::now() + PATIENCE;
        for address in addresses(user, |name| std::env::var(name).ok()) {
            match Bus::at(&address, deadline) {
                Ok(bus) => return Ok(bus),
                Err(error) => {
                    failed = Some(match failed {
                        None => error,
                        Some(first) => Error::new(Code::System, format!("{first}; {error}")),
                    });
                }
            }
        }
        let nowhere = || {
            let text = "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR says where the user's bus is";
            Error::new(Code::Host, text)
        };
        let error = failed.unwrap_or_else(nowhere);
        Err(Error::new(Code::Host, format!("systemd cannot be reached: {error}")))
    }

    fn at(address: &Address, deadline: Instant) -> Result<Bus> {
        let what = format!("connect to {}", address.path.display());
        let socket = unix_socket::stream_to(&address.path)?;
        let path = address.path.clone();
        let mut bus = Bus {
            socket,
            path,
            received: Vec::new(),
            serial: 0,
            is_bus: address.is_bus,
            removed: Vec::new(),
        };
        // An empty identity: who connects is what the kernel says, as it counts, not as this user namespace does.
        bus.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").map_err(|error| error.context(&what))?;
        bus.authenticated(deadline).map_err(|error| error.context(&what))?;
        if address.is_bus {
            // The bus answers in the order of the calls: nothing of these is waited for.
            bus.post(&BUS, &[])?;
            bus.post(&Method { member: "AddMatch", ..BUS }, &[Value::text(MATCH)])?;
        }
        Ok(bus)
    }

    /// Where it is connected to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn authenticated(&mut self, deadline: Instant) -> Result<()> {
        loop {
            while let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 2);
                match line.split(' ').next() {
                    Some("OK") => return Ok(()),
                    Some("DATA") => {}
                    _ => return Err(Error::new(Code::System, format!("it does not let us in: {line:?}"))),
                }
            }
            self.receive(deadline)?;
        }
    }

    /// Sends a call, and does not wait: its serial.
    pub fn post(&mut self, method: &Method, arguments: &[Value]) -> Result<u32> {
        self.serial += 1;
        self.send(&wire::call(self.serial, method, arguments))?;
        Ok(self.serial)
    }

    /// Waits for the answer to the call of that serial: the texts that it begins with.
    pub fn answer(&mut self, serial: u32) -> Result<std::result::Result<Vec<String>, Refusal>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next(deadline)? {
                Message::Reply(to, texts) if to == serial => return Ok(Ok(texts)),
                Message::Error(to, name, text) if to == serial => return Ok(Err(Refusal { name, text })),
                _ => {}
            }
        }
    }

    /// Sends a call and waits for its answer.
    pub fn call(
        &mut self,
        method: &Method,
        arguments: &[Value],
    ) -> Result<std::result::Result<Vec<String>, Refusal>> {
        let serial = self.post(method, arguments)?;
        self.answer(serial)
    }

    /// Waits until the job at that path is done: how it went.
    pub fn job(&mut self, path: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.removed.iter().any(|removed| removed.job == path) {
                let manager = self.manager()?;
                let counts = |removed: &Removed| manager.as_ref().is_none_or(|name| *name == removed.sender);
                if let Some(at) = self.removed.iter().position(|r| r.job == path && counts(r)) {
                    return Ok(self.removed.swap_remove(at).result);
                }
                self.removed.retain(|removed| removed.job != path);
            }
            self.next(deadline)?;
        }
    }

    /// Whose word about jobs counts, by the unique name: none where there is nobody else at the other end. On a bus anybody may
    /// send anybody a signal that looks like systemd's (the match rule is for what is broadcast). Answers the bus lets through
    /// from who was called alone. Asked when a job is said to have ended, and each time: systemd may come to the bus after us,
    /// and anew.
    fn manager(&mut self) -> Result<Option<String>> {
        if !self.is_bus {
            return Ok(None);
        }
        let owner = Method { member: "GetNameOwner", ..BUS };
        let owner = self.call(&owner, &[Value::text(SYSTEMD)])?;
        // Where nobody has the name nobody's word counts: no sender is called so.
        Ok(Some(owner.ok().and_then(|texts| texts.into_iter().next()).unwrap_or_else(|| "nobody".into())))
    }

    fn next(&mut self, deadline: Instant) -> Result<Message> {
        let garbled = || Error::new(Code::System, "systemd sent what is no message of D-Bus");
        loop {
            if let Some(head) = self.received.first_chunk::<FIXED>() {
                let length = wire::length(head).ok_or_else(garbled)?;
                if let Some(bytes) = self.received.get(..length) {
                    let message = wire::read(bytes).ok_or_else(garbled)?;
                    self.received.drain(..length);
                    if let Message::JobRemoved(job, result, sender) = &message {
                        let (job, result, sender) = (job.clone(), result.clone(), sender.clone());
                        self.removed.push(Removed { job, result, sender });
                    }
                    return Ok(message);
                }
            }
            self.receive(deadline)?;
        }
    }

    fn send(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::call("send to systemd", errno)),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            // Signals that nobody asked for may come without end.
            other if other == Ok(0) || left.is_zero() => {
                let text = format!("systemd does not answer within {} seconds", PATIENCE.as_secs());
                let hint = "`journalctl --boot` may tell why";
                return Err(Error::new(Code::System, text).hint(Some(hint)));
            }
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(Error::call("poll", errno)),
        }
        let mut buffer = [0_u8; 4096];
        match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Error::new(Code::System, "systemd has closed the connection")),
            Ok((length, _)) => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno).call("receive from systemd"),
        }
    }
}

/// Where a manager may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    path: PathBuf,
    is_bus: bool,
}

/// In the order to be tried. What the environment names is named by somebody on purpose, and stands alone.
fn addresses(user: bool, variable: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let bus = |path: PathBuf| Address { path, is_bus: true };
    let direct = |path: PathBuf| Address { path, is_bus: false };
    let set = |name: &str| variable(name).filter(|text| !text.is_empty());
    let name = if user { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" };
    if let Some(text) = set(name) {
        return text.split(';').filter_map(path_of).map(bus).collect();
    }
    if !user {
        return vec![direct("/run/systemd/private".into()), bus("/run/dbus/system_bus_socket".into())];
    }
    let folder = set("XDG_RUNTIME_DIR").map(PathBuf::from);
    folder.map_or(Vec::new(), |at| vec![direct(at.join("systemd/private")), bus(at.join("bus"))])
}

/// The path in `unix:path=/run/user/1000/bus,guid=...`; bytes may be written as `%2d`.
fn path_of(address: &str) -> Option<PathBuf> {
    let keys = address.trim().strip_prefix("unix:")?;
    let path = keys.split(',').find_map(|pair| pair.strip_prefix("path="))?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[2..]).1,
            None => (bytes.push(*first), rest = after).1,
        }
    }
    Some(Path::new(std::str::from_utf8(&bytes).ok()?).to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::super::wire::tests::{error, job_removed, job_removed_by, reply};
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses_are_tried_in_their_order() {
        let direct = |path: &str| Address { path: path.into(), is_bus: false };
        let bus = |path: &str| Address { path: path.into(), is_bus: true };
        let none: [(&str, &str); 0] = [];
        for (user, environment, expected) in [
            (false, &none[..], vec![direct("/run/systemd/private"), bus("/run/dbus/system_bus_socket")]),
            (
                false,
                &[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x%2dy,guid=1;tcp:host=h;unix:path=/z")],
                vec![bus("/x-y"), bus("/z")],
            ),
            (true, &none[..], vec![]),
            (
                true,
                &[("XDG_RUNTIME_DIR", "/run/user/5"), ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x")],
                vec![direct("/run/user/5/systemd/private"), bus("/run/user/5/bus")],
            ),
            (
                true,
                &[("XDG_RUNTIME_DIR", "/run/user/5"), ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/s")],
                vec![bus("/s")],
            ),
        ] {
            let variable = |name: &str| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string())
            };
            assert_eq!(addresses(user, variable), expected, "{environment:?}");
        }
    }

    /// A server that takes whoever comes, reads one call and says `answer`.
    fn serve(answer: Vec<u8>) -> (Address, std::thread::JoinHandle<usize>) {
        serve_as(false, answer)
    }

    fn serve_as(is_bus: bool, answer: Vec<u8>) -> (Address, std::thread::JoinHandle<usize>) {
        let name = format!("rcrun-bus-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let address = Address { path: path.clone(), is_bus };
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            std::fs::remove_file(path).unwrap();
            let mut hello = [0; 29];
            socket.read_exact(&mut hello).unwrap();
            assert_eq!(&hello, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            socket.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
            let mut call = [0; 4096];
            let length = socket.read(&mut call).unwrap();
            // Byte by byte: a message may come in parts.
            answer.iter().for_each(|byte| socket.write_all(&[*byte]).unwrap());
            if is_bus {
                // More is asked on the way.
                socket.read_to_end(&mut Vec::new()).unwrap();
            }
            length
        });
        (address, server)
    }

    #[test]
    fn the_end_of_a_job_may_come_before_the_answer_that_names_it() {
        let answer = [
            job_removed("/job/4", "failed"),
            job_removed("/job/5", "done"),
            reply(7, "", &[]),
            reply(1, "o", &[Value::text("/job/5")]),
        ];
        let (address, server) = serve(answer.concat());
        let mut bus = Bus::at(&address, Instant::now() + PATIENCE).unwrap();
        assert_eq!(bus.call(&BUS, &[]).unwrap(), Ok(vec!["/job/5".to_string()]));
        assert_eq!(bus.job("/job/5").unwrap(), "done");
        assert!(server.join().unwrap() > 0);
        let error = bus.job("/job/6").unwrap_err();
        assert!(error.to_string().contains("systemd has closed the connection"), "{error}");
    }

    #[test]
    fn on_a_bus_only_systemds_own_word_about_a_job_counts() {
        for owners in [
            &[reply(4, "s", &[Value::text(":1.2")]), reply(5, "s", &[Value::text(":1.2")])],
            // systemd has come to the bus after us.
            &[error(4, "org.freedesktop.DBus.Error.NameHasNoOwner"), reply(5, "s", &[Value::text(":1.2")])],
        ] {
            let answer = [
                // Whoever knows our name may send us this, also before the bus has answered.
                job_removed_by(":1.66", "/job/5", "failed"),
                reply(1, "s", &[Value::text(":1.99")]),
                reply(2, "", &[]),
                job_removed_by(":1.66", "/job/5", "failed"),
                job_removed("/job/5", "failed"),
                reply(3, "o", &[Value::text("/job/5")]),
                owners[0].clone(),
                job_removed_by(":1.2", "/job/5", "done"),
                owners[1].clone(),
            ];
            let (address, server) = serve_as(true, answer.concat());
            let mut bus = Bus::at(&address, Instant::now() + PATIENCE).unwrap();
            assert_eq!(bus.call(&BUS, &[]).unwrap(), Ok(vec!["/job/5".to_string()]));
            assert_eq!(bus.job("/job/5").unwrap(), "done");
            drop(bus);
            server.join().unwrap();
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (address, server) = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
        let mut bus = Bus::at(&address, Instant::now() + PATIENCE).unwrap();
        let error = bus.call(&BUS, &[]).unwrap_err();
        assert!(error.to_string().contains("no message of D-Bus"), "{error}");
        server.join().unwrap();
    }
}
