//! SCMP_ACT_NOTIFY: a seccomp agent gets the listener of each filter, and is told whose it is. The agent here lets go of
//! what it gets, and the kernel then answers the calls itself with ENOSYS (seccomp_unotify(2)).

use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::Runtime;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};

/// An agent at a socket.
struct Agent {
    folder: Folder,
    told: Receiver<Value>,
}

impl Agent {
    fn new(name: &str) -> Agent {
        let folder = Folder::new(name);
        let socket = UnixListener::bind(folder.path().join("agent")).expect("bind");
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for connection in socket.incoming() {
                let connection = connection.expect("accept");
                let mut text = [0; 8192];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [IoSliceMut::new(&mut text)];
                let received =
                    recvmsg(&connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("recvmsg");
                let fds: usize = control
                    .drain()
                    .map(|message| match message {
                        RecvAncillaryMessage::ScmRights(fds) => fds.count(),
                        _ => 0,
                    })
                    .sum();
                let mut said: Value = serde_json::from_slice(&text[..received.bytes]).expect("JSON");
                said["came"] = json!(fds);
                if tell.send(said).is_err() {
                    return;
                }
            }
        });
        Agent { folder, told }
    }

    fn bundle(&self, name: &str, args: &[&str], no_new_privileges: bool) -> Bundle {
        let path = self.folder.path().join("agent");
        Bundle::new(name, args).with(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": path,
                "listenerMetadata": "for me",
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
            });
        })
    }

    /// What it is told of a process of container `id`.
    fn hears(&self, id: &str, status: &str) -> Value {
        let said = self.told.recv().expect("an agent");
        assert_eq!(said["fds"], json!(["seccompFd"]));
        assert_eq!(said["came"], 1, "each name of fds is one fd");
        assert_eq!(said["metadata"], "for me");
        assert_eq!(said["ociVersion"], said["state"]["ociVersion"]);
        assert_eq!((&said["state"]["id"], &said["state"]["status"]), (&json!(id), &json!(status)));
        said
    }
}

const MAKES: [&str; 3] = ["sh", "-c", "mkdir /dev/shm/made 2>&1; echo $?"];
const REFUSED: &str = "Function not implemented\n1\n";

#[test]
fn an_agent_gets_the_listener_of_run_and_answers_for_the_kernel() {
    let runtime = Runtime::new();
    let agent = Agent::new("agent-run");
    for no_new_privileges in [false, true] {
        let said = runtime.run(&agent.bundle("agent-run", &MAKES, no_new_privileges), "agent-run");
        assert!(said.status == 0 && said.out.ends_with(REFUSED), "{} {}", said.out, said.err);
        let told = agent.hears("agent-run", "creating");
        assert_eq!(told["pid"], told["state"]["pid"]);
    }
}

#[test]
fn start_and_exec_hand_over_a_listener_each() {
    let runtime = Runtime::new();
    let agent = Agent::new("agent-exec");
    for no_new_privileges in [false, true] {
        let bundle = agent.bundle("agent-exec", &["sleep", "1000"], no_new_privileges);
        runtime.created(&bundle, "agent-exec");
        let pid = runtime.pid("agent-exec");
        runtime.ok(["start", "agent-exec"]);
        assert_eq!(agent.hears("agent-exec", "creating")["pid"], pid);
        let said = runtime.say(["exec", "agent-exec"].iter().chain(&MAKES));
        assert!(said.status == 0 && said.out.ends_with(REFUSED), "{} {}", said.out, said.err);
        let told = agent.hears("agent-exec", "running");
        assert_eq!(told["state"]["pid"], pid);
        assert_ne!(told["pid"], pid, "it is another process");
        runtime.ok(["delete", "--force", "agent-exec"]);
    }
}

#[test]
fn without_an_agent_neither_run_nor_start_succeed() {
    let runtime = Runtime::new();
    let agent = Agent::new("agent-gone");
    let bundle = agent.bundle("agent-gone", &["sleep", "1000"], false).with(|config| {
        config["linux"]["seccomp"]["listenerPath"] = json!("/nonexistent/agent");
    });
    let words =
        "/linux/seccomp/listenerPath: failed to connect with seccomp agent: connect to /nonexistent/agent";
    let said = runtime.run(&bundle, "agent-gone");
    assert!(said.status == 1 && said.err.contains(words), "{}", said.err);
    assert_eq!(runtime.ok(["list", "-q"]).out, "", "it is unmade");
    runtime.created(&bundle, "agent-gone");
    let said = runtime.say(["start", "agent-gone"]);
    assert!(said.status == 1 && said.err.contains(words), "{}", said.err);
    runtime.wait_for_end("agent-gone");
    runtime.ok(["delete", "agent-gone"]);
}
