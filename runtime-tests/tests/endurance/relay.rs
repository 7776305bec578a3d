//! Between the shims and containerd's socket for events: passes on every byte, and notes what containerd has taken.
//!
//! ```text
//! shim --Forward--> relay --Forward--> containerd
//!      <--answer---       <--answer---      (the relay has noted the event before the shim has the answer)
//! ```

use crate::place::{Gone, Place};
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::{Code, Request, Response};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// ttrpc: length and stream as big-endian words, type and flags as bytes.
const HEADER: usize = 10;
const RESPONSE: u8 = 2;
/// More than containerd takes.
const MESSAGE_MAX: usize = 8 << 20;

/// As long as a slow machine may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// An event that containerd has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// Without `/tasks/`.
    topic: String,
    container: String,
    /// Empty for the container's first process.
    exec: String,
    pid: u32,
    /// Of an end.
    status: Option<u32>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Heard {
    all: Mutex<Vec<Event>>,
    more: Condvar,
}

impl Heard {
    /// Waits for the end of an exec.
    pub fn ends(&self, container: &str, exec: &str) -> Result<(), String> {
        let is_it = |e: &Event| e.topic == "exit" && e.container == container && e.exec == exec;
        let untold = |all: &mut Vec<Event>| !all.iter().any(is_it);
        let waited = self.more.wait_timeout_while(self.all.lock().expect("lock"), PATIENCE, untold);
        match waited.expect("lock").1.timed_out() {
            false => Ok(()),
            true => Err(format!("nobody was told that {exec} of {container} has ended")),
        }
    }

    /// Of every container whose shim was not killed, all was told, once and in order.
    pub fn is_whole(&self, place: &Place) -> Result<(), String> {
        let mut of: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for event in self.all.lock().expect("lock").drain(..) {
            let told = of.entry(event.container.clone()).or_default();
            // A containerd that was killed before it had answered hears it once more.
            if told.last() != Some(&event) {
                told.push(event);
            }
        }
        let mut wrong = Vec::new();
        let Gone { hit, ran, statuses } = place.forget_containers();
        for id in ran.iter().filter(|id| !hit.contains(*id)) {
            if !of.get(id).is_some_and(|told| told.iter().any(|e| e.topic == "start")) {
                wrong.push(format!("{id} was started and nobody was told"));
            }
        }
        for (id, exec, status) in statuses.iter().filter(|(id, ..)| !hit.contains(id)) {
            let topics: &[&str] =
                if exec.is_empty() { &["create", "start"] } else { &["exec-added", "exec-started"] };
            for topic in topics {
                let told = of.get(id).into_iter().flatten().any(|e| e.topic == *topic && e.exec == *exec);
                if !told {
                    wrong.push(format!("{id} {exec}: {topic} was not told"));
                }
            }
            let ends = of.get(id).into_iter().flatten().filter(|e| e.topic == "exit" && e.exec == *exec);
            let told: Vec<u32> = ends.filter_map(|e| e.status).collect();
            if told != [*status] {
                wrong.push(format!("{id} {exec} has ended with {status}, and this was told: {told:?}"));
            }
        }
        for (id, told) in of.iter().filter(|(id, _)| !hit.contains(*id)) {
            if let Err(why) = in_order(told) {
                let all: Vec<String> = told.iter().map(|e| format!("{} {}", e.topic, e.exec)).collect();
                wrong.push(format!("{id}: {why}: {}", all.join(", ")));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn note(&self, request: &Request) {
        if let Some(event) = read(request) {
            self.all.lock().expect("lock").push(event);
            self.more.notify_all();
        }
    }
}

/// What containerd's documentation demands of one container that is no more.
fn in_order(told: &[Event]) -> Result<(), String> {
    let place = |topic: &str, exec: &str| -> Result<Option<usize>, String> {
        let mut found = told.iter().enumerate().filter(|(_, e)| e.topic == topic && e.exec == exec);
        let first = found.next().map(|(at, _)| at);
        match found.next() {
            Some(_) => Err(format!("{topic} {exec} was told twice")),
            None => Ok(first),
        }
    };
    let exit = place("exit", "")?;
    match (place("create", "")?, place("start", "")?, exit, place("delete", "")?) {
        (Some(create), start, Some(exit), Some(delete)) => {
            let ordered = start.is_none_or(|start| create < start && start < exit);
            if !(ordered && create < exit && exit < delete) {
                return Err("not in order".into());
            }
        }
        (None, None, None, None) => return Ok(()),
        (create, start, exit, delete) => {
            return Err(format!("create {create:?}, start {start:?}, exit {exit:?}, delete {delete:?}"));
        }
    }
    let execs = told.iter().filter(|e| e.topic == "exec-started");
    for exec in execs {
        let name = exec.exec.as_str();
        match (place("exec-started", name)?, place("exit", name)?) {
            (Some(start), Some(end)) if start < end && Some(end) < exit => {}
            found => return Err(format!("exec {name}: start and exit {found:?}")),
        }
    }
    Ok(())
}

fn read(request: &Request) -> Option<Event> {
    let envelope = ForwardRequest::parse_from_bytes(&request.payload).ok()?.envelope.into_option()?;
    let topic = envelope.topic.strip_prefix("/tasks/")?.to_string();
    let value = &envelope.event.as_ref()?.value;
    let mut status = None;
    let (container, exec, pid) = match topic.as_str() {
        "create" => of(value, |e: events::TaskCreate| (e.container_id, String::new(), e.pid)),
        "start" => of(value, |e: events::TaskStart| (e.container_id, String::new(), e.pid)),
        "delete" => of(value, |e: events::TaskDelete| (e.container_id, e.id, e.pid)),
        "exit" => of(value, |e: events::TaskExit| {
            status = Some(e.exit_status);
            (e.container_id, e.id, e.pid)
        }),
        "exec-added" => of(value, |e: events::TaskExecAdded| (e.container_id, e.exec_id, 0)),
        "exec-started" => of(value, |e: events::TaskExecStarted| (e.container_id, e.exec_id, e.pid)),
        _ => return None,
    }?;
    // The first process goes by the container's name.
    let exec = if exec == container { String::new() } else { exec };
    Some(Event { topic, container, exec, pid, status })
}

fn of<M: Message>(
    value: &[u8],
    tell: impl FnOnce(M) -> (String, String, u32),
) -> Option<(String, String, u32)> {
    M::parse_from_bytes(value).ok().map(tell)
}

/// Listens at `path` for shims, for as long as this process is.
pub fn start(path: &Path, to: PathBuf) -> Result<Arc<Heard>, String> {
    let listener = UnixListener::bind(path).map_err(|e| format!("bind {}: {e}", path.display()))?;
    let heard = Arc::new(Heard::default());
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        for shim in listener.incoming().flatten() {
            // Without a containerd the shim sees its connection closed.
            let Ok(containerd) = UnixStream::connect(&to) else { continue };
            pass(shim, containerd, &all);
        }
    });
    Ok(heard)
}

/// Requests that wait for their answers, by stream.
type Asked = Arc<Mutex<BTreeMap<u32, Request>>>;

fn pass(shim: UnixStream, containerd: UnixStream, heard: &Arc<Heard>) {
    let (Ok(from_shim), Ok(from_containerd)) = (shim.try_clone(), containerd.try_clone()) else { return };
    let asked = Asked::default();
    let (waiting, heard) = (Arc::clone(&asked), Arc::clone(heard));
    std::thread::spawn(move || {
        copy(from_shim, containerd, |stream, _, body| {
            if let Ok(request) = Request::parse_from_bytes(body) {
                asked.lock().expect("lock").insert(stream, request);
            }
        });
    });
    std::thread::spawn(move || {
        copy(from_containerd, shim, |stream, kind, body| {
            let taken = Response::parse_from_bytes(body)
                .is_ok_and(|answer| answer.status.as_ref().is_none_or(|status| status.code() == Code::OK));
            let request = waiting.lock().expect("lock").remove(&stream);
            if let (RESPONSE, true, Some(request)) = (kind, taken, request) {
                heard.note(&request);
            }
        });
    });
}

/// Message by message, until one side has gone; then neither has the other.
fn copy(mut from: UnixStream, mut to: UnixStream, mut see: impl FnMut(u32, u8, &[u8])) {
    let mut message = vec![0; HEADER];
    loop {
        message.resize(HEADER, 0);
        if from.read_exact(&mut message).is_err() {
            break;
        }
        let word =
            |at: usize| u32::from_be_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
        let (length, stream, kind) = (word(0) as usize, word(4), message[8]);
        if length > MESSAGE_MAX {
            break;
        }
        message.resize(HEADER + length, 0);
        if from.read_exact(&mut message[HEADER..]).is_err() {
            break;
        }
        see(stream, kind, &message[HEADER..]);
        if to.write_all(&message).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
