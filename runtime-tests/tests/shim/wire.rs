//! Clients that do not speak as they should, at the shim's socket: each gets the answer that a server of Go gives, and the
//! others hear nothing of it. The client is one of bytes.

use crate::harness::{Living, PATIENCE, Place, Shim, all_here};
use containerd_shim_protos::api::ConnectRequest;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{self, Code};
use runtime_tests::bundle::Bundle;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 3;
const LONGEST: usize = 4 << 20;
const TASK: &str = "containerd.task.v2.Task";

/// A shim without containers, and its process.
struct Served {
    place: Place,
    _bundle: Bundle,
    shim: Shim,
    pid: i32,
}

impl Served {
    fn new(name: &str) -> Served {
        let place = Place::new(name);
        let bundle = Bundle::new(name, &["true"]);
        let shim = place.shim(&bundle, name);
        let all = all_here();
        assert_eq!(all.len(), 1, "the processes of this place: {all:?}");
        Served { place, _bundle: bundle, shim, pid: all[0] }
    }

    fn connect(&self) -> Raw {
        Raw::at(&self.shim.socket())
    }

    fn count(&self, what: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{what}", self.pid)).expect(what).count()
    }

    /// No event tells of a thread's end, or of a file that another process closes.
    fn comes_to(&self, what: &str, most: usize) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.count(what) > most {
            assert!(std::time::Instant::now() < deadline, "{} in {what}, and not {most}", self.count(what));
            std::thread::yield_now();
        }
    }

    fn ends(self) {
        let living = Living::of(self.pid);
        self.shim.shut_down();
        living.ends();
        drop(self.place);
    }
}

/// A connection of bytes.
struct Raw(UnixStream);

impl Raw {
    fn at(socket: &Path) -> Raw {
        let socket = UnixStream::connect(socket).expect("connect to the shim");
        socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        socket.set_write_timeout(Some(PATIENCE)).expect("SO_SNDTIMEO");
        Raw(socket)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("write");
    }

    /// The stream, the code and the words of the next answer.
    fn answer(&mut self) -> (u32, Code, String) {
        self.try_answer().expect("an answer")
    }

    fn try_answer(&mut self) -> std::io::Result<(u32, Code, String)> {
        let mut header = [0; 10];
        self.0.read_exact(&mut header)?;
        let header = ttrpc::MessageHeader::from(header);
        assert_eq!(header.type_, RESPONSE);
        let mut body = vec![0; header.length as usize];
        self.0.read_exact(&mut body)?;
        let answer = ttrpc::Response::parse_from_bytes(&body).expect("an answer");
        Ok((header.stream_id, answer.status.code(), answer.status.message.clone()))
    }

    /// A call that each server of tasks answers, here with an error: there are no containers.
    fn is_served(&mut self, stream: u32) {
        self.write(&asks(stream, TASK, "Connect"));
        let (answered, code, text) = self.answer();
        assert_eq!((answered, code), (stream, Code::NOT_FOUND), "{text}");
    }
}

fn frame(stream: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from((body.len() as u32).to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend(body);
    bytes
}

fn asks(stream: u32, service: &str, method: &str) -> Vec<u8> {
    let mut request = ttrpc::Request::new();
    request.service = service.into();
    request.method = method.into();
    let connect = ConnectRequest { id: "nobody".into(), ..ConnectRequest::default() };
    request.payload = connect.write_to_bytes().expect("encode");
    frame(stream, REQUEST, &request.write_to_bytes().expect("encode"))
}

#[test]
fn what_cannot_be_done_is_answered_in_gos_codes_and_the_connection_stays() {
    let served = Served::new("shim-wire-codes");
    let mut raw = served.connect();
    let too_long = frame(9, REQUEST, &vec![0; LONGEST + 1]);
    let table = [
        (1, asks(1, "containerd.task.v9.Task", "Connect"), Code::UNIMPLEMENTED),
        (3, asks(3, TASK, "Dance"), Code::UNIMPLEMENTED),
        // All of what an answer would repeat does not fit in a message.
        (5, asks(5, TASK, &"é".repeat(LONGEST / 2 - 100)), Code::UNIMPLEMENTED),
        (7, frame(7, REQUEST, b"\xff\xff\xff no protobuf"), Code::INVALID_ARGUMENT),
        (9, too_long, Code::RESOURCE_EXHAUSTED),
        // Odd streams are a client's.
        (20, asks(20, TASK, "Connect"), Code::INVALID_ARGUMENT),
        // A stream is a call's alone, and numbers go up.
        (21, asks(21, TASK, "Connect"), Code::NOT_FOUND),
        (21, asks(21, TASK, "Connect"), Code::INVALID_ARGUMENT),
        (19, asks(19, TASK, "Connect"), Code::INVALID_ARGUMENT),
        (23, asks(23, TASK, "Connect"), Code::NOT_FOUND),
    ];
    let mut other = served.connect();
    for (at, (stream, bytes, expected)) in table.into_iter().enumerate() {
        raw.write(&bytes);
        let (answered, code, text) = raw.answer();
        assert_eq!((answered, code), (stream, expected), "{text:.200}");
        assert!(text.len() < 5000, "{} bytes", text.len());
        // Each connection has numbers of its own.
        other.is_served(101 + 2 * at as u32);
    }
    raw.is_served(25);
    // What is no request is passed over.
    for kind in [0, RESPONSE, DATA, 0xff] {
        raw.write(&frame(201, kind, b"something"));
    }
    raw.is_served(203);
    served.ends();
}

#[test]
fn who_says_half_or_nonsense_keeps_nobody_waiting_and_is_forgotten_when_he_goes() {
    let served = Served::new("shim-wire-half");
    let mut other = served.connect();
    other.is_served(1);
    let before = served.count("fd");
    let whole = asks(1, TASK, "Connect");
    let long = frame(1, REQUEST, &vec![0; LONGEST]);
    let halves = [
        // A header alone, and part of one.
        frame(1, REQUEST, &[0; 64])[..10].to_vec(),
        whole[..3].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        long[..LONGEST / 2].to_vec(),
        // A length of 4 GiB, which is answered; what follows is passed over.
        vec![0xff; 100_000],
        b"GET / HTTP/1.1\r\nHost: shim\r\n\r\n".to_vec(),
    ];
    let open: Vec<Raw> = halves
        .iter()
        .map(|half| {
            let mut raw = served.connect();
            raw.write(half);
            raw
        })
        .collect();
    other.is_served(3);
    assert!(served.count("fd") >= before + open.len());
    served.comes_to("task", 2);
    drop(open);
    served.comes_to("fd", before);
    other.is_served(5);
    served.ends();
}

#[test]
fn who_takes_no_answers_loses_his_connection_and_others_are_served() {
    let served = Served::new("shim-wire-slow");
    let mut other = served.connect();
    let question = |number: u32| asks(2 * number + 1, TASK, &"x".repeat(4000));
    // One who is slow gets all his answers: 4 MB of them.
    let mut slow = served.connect();
    let count = 1000;
    (0..count).for_each(|number| slow.write(&question(number)));
    other.is_served(1);
    for number in 0..count {
        assert_eq!(slow.answer().0, 2 * number + 1);
    }
    slow.is_served(2 * count + 1);
    // One who takes none: some are on the way, 8 MiB wait.
    let mut deaf = served.connect();
    let taken = (0..10_000).take_while(|number| deaf.0.write_all(&question(*number)).is_ok()).count();
    assert!((2000..5000).contains(&taken), "{taken} answers were kept for one who takes none");
    other.is_served(3);
    slow.is_served(2 * count + 3);
    served.ends();
}

#[test]
fn a_shim_without_descriptors_turns_away_who_comes_and_serves_again_later() {
    let served = Served::new("shim-wire-full");
    let mut first = served.connect();
    first.is_served(1);
    // No event tells that a descriptor of the moment is closed again.
    served.comes_to("task", 2);
    let own = served.count("fd") as u64;
    let pid = Some(rustix::process::Pid::from_raw(served.pid).expect("a pid"));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(own + 5), maximum: limit.maximum };
    let usual = rustix::process::prlimit(pid, rustix::process::Resource::Nofile, few).expect("prlimit");
    let all: Vec<Raw> = (0..40).map(|_| served.connect()).collect();
    // Each is served or hears that he is not: nobody stands at the door.
    let mut let_in = Vec::new();
    for mut raw in all {
        let asked = raw.0.write_all(&asks(1, TASK, "Connect"));
        match asked.and_then(|()| raw.try_answer()) {
            Ok((_, code, text)) => {
                assert_eq!(code, Code::NOT_FOUND, "{text}");
                let_in.push(raw);
            }
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "he waits: {error}"),
        }
    }
    assert!((1..30).contains(&let_in.len()), "{} were let in", let_in.len());
    first.is_served(3);
    drop(let_in);
    served.comes_to("fd", own as usize);
    served.connect().is_served(1);
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, usual).expect("prlimit");
    served.ends();
}

#[test]
fn hundreds_of_connections_are_served_without_a_thread_each() {
    let served = Served::new("shim-wire-many");
    // Who has come before it is at the door no more when it is served.
    let mut first = served.connect();
    first.is_served(1);
    let before = served.count("fd");
    let mut all: Vec<Raw> = (0..300).map(|_| served.connect()).collect();
    all.iter_mut().for_each(|raw| raw.write(&asks(1, TASK, "Connect")));
    for raw in &mut all {
        let (stream, code, text) = raw.answer();
        assert_eq!((stream, code), (1, Code::NOT_FOUND), "{text}");
    }
    served.comes_to("task", 2);
    drop(all);
    served.comes_to("fd", before);
    first.is_served(3);
    served.ends();
}
