//! Events to containerd, in the order in which they have happened. A thread sends them, so that nobody waits for
//! containerd. Uses: client, log.

use crate::client::{Client, Failure};
use crate::log;
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::topics;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// While containerd is away events are kept; no more than these, the oldest go.
const KEPT: usize = 2048;

/// And no longer than this: when it is back it asks how its tasks are.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pause after a failure; twice as long after each further one, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where events are put.
#[derive(Clone)]
pub struct Events {
    namespace: String,
    sender: Sender<Sent>,
}

enum Sent {
    Event(Box<Envelope>, Instant),
    /// Answer when all is sent.
    Finish(Sender<()>),
}

impl Events {
    /// Events for the containerd that listens for them at `address`.
    pub fn new(namespace: &str, address: &str) -> std::io::Result<Events> {
        let (sender, receiver) = channel();
        let path = address.strip_prefix("unix://").unwrap_or(address).to_string();
        std::thread::Builder::new().name("events".into()).spawn(move || send(&path, &receiver))?;
        Ok(Events { namespace: namespace.to_string(), sender })
    }

    /// Something that has happened.
    pub fn tell(&self, event: impl Told) {
        let mut envelope = Envelope::new();
        envelope.timestamp = MessageField::some(Timestamp::from(SystemTime::now()));
        envelope.namespace = self.namespace.clone();
        envelope.topic = event.topic().to_string();
        envelope.event = MessageField::some(any(event.name(), &event));
        // The thread ends with the process.
        let _ = self.sender.send(Sent::Event(Box::new(envelope), Instant::now()));
    }

    /// Waits until all are sent, or too old. Who has ended the last container may be a containerd that does not take events
    /// yet: it clears up before it serves.
    pub fn finish(&self) {
        let (sender, receiver) = channel();
        if self.sender.send(Sent::Finish(sender)).is_ok() {
            let _ = receiver.recv();
        }
    }
}

/// A message with the name of its type, as containerd finds it. (The message knows it, too; but to ask it takes all that
/// protobuf has for messages of unknown types, a megabyte and more.)
pub fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: name.to_string(), value: message.write_to_bytes().unwrap_or_default(), ..Any::default() }
}

fn send(path: &str, receiver: &Receiver<Sent>) {
    let mut client: Option<Client> = None;
    let mut waiting: VecDeque<(Box<Envelope>, Instant)> = VecDeque::new();
    let (mut pause, mut finish) = (None, None);
    loop {
        let next = match pause {
            // Containerd is away: nothing tells when it is back.
            Some(pause) => receiver.recv_timeout(pause),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Sent::Event(envelope, at)) => waiting.push_back((envelope, at)),
            Ok(Sent::Finish(answer)) => finish = Some(answer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while waiting.len() > KEPT {
            waiting.pop_front();
        }
        while let Some((envelope, _)) = waiting.front() {
            match forward(&mut client, path, envelope) {
                Ok(()) => pause = None,
                Err(Failure::Refused(why)) => {
                    log::warn(format_args!("containerd refuses the event {}: {why}", envelope.topic));
                    pause = None;
                }
                Err(Failure::Connection(error)) => {
                    client = None;
                    let all = waiting.len();
                    // At once: each try may take as long as a containerd that hangs lets it.
                    waiting.retain(|(_, at)| at.elapsed() < PATIENCE);
                    let lost = all - waiting.len();
                    if lost > 0 {
                        log::warn(format_args!("{lost} events could not be sent: {error}"));
                    }
                    pause = Some(pause.map_or(FIRST_PAUSE, |p: Duration| (p * 2).min(LONGEST_PAUSE)));
                    break;
                }
            }
            waiting.pop_front();
        }
        if waiting.is_empty() {
            pause = None;
            if let Some(answer) = finish.take() {
                let _: Result<(), _> = Sender::send(&answer, ());
            }
        }
    }
}

fn forward(client: &mut Option<Client>, path: &str, envelope: &Envelope) -> Result<(), Failure> {
    let mut request = ForwardRequest::new();
    request.envelope = MessageField::some(envelope.clone());
    // A connection may have been closed since it was last used: a second one tells whether containerd is away.
    if let Some(connected) = client {
        match connected.call(SERVICE, "Forward", &request) {
            Err(Failure::Connection(_)) => *client = None,
            other => return other.map(drop),
        }
    }
    let connected = client.insert(Client::connect(path)?);
    connected.call(SERVICE, "Forward", &request).map(drop)
}

/// An event, and what it is called.
pub trait Told: Message {
    /// The name of its type.
    fn name(&self) -> &'static str;
    /// The topic that it is told under.
    fn topic(&self) -> &'static str;
}

macro_rules! told {
    ($($event:ident $topic:ident)*) => {
        $(impl Told for events::$event {
            fn name(&self) -> &'static str {
                concat!("containerd.events.", stringify!($event))
            }
            fn topic(&self) -> &'static str {
                topics::$topic
            }
        })*

        #[cfg(test)]
        const NAMES: &[(&str, fn() -> String)] = &[$((concat!("containerd.events.", stringify!($event)), || {
            use containerd_shim_protos::protobuf::MessageFull;
            events::$event::descriptor().full_name().to_string()
        })),*];
    };
}

told! {
    TaskCreate TASK_CREATE_EVENT_TOPIC
    TaskStart TASK_START_EVENT_TOPIC
    TaskExit TASK_EXIT_EVENT_TOPIC
    TaskDelete TASK_DELETE_EVENT_TOPIC
    TaskOOM TASK_OOM_EVENT_TOPIC
    TaskPaused TASK_PAUSED_EVENT_TOPIC
    TaskResumed TASK_RESUMED_EVENT_TOPIC
    TaskCheckpointed TASK_CHECKPOINTED_EVENT_TOPIC
    TaskExecAdded TASK_EXEC_ADDED_EVENT_TOPIC
    TaskExecStarted TASK_EXEC_STARTED_EVENT_TOPIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_called_what_protobuf_calls_them() {
        for (name, own) in NAMES {
            assert_eq!(*name, own());
        }
    }
}
