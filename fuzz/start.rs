//! Bytes as what a created container's init says to `start`, cut into records: a byte says what the next one is. Uses:
//! rcrun_runtime's container and spec, rcrun_plan::record, rustix (the socket), sentence.
//!
//! What holds: a start ends when its peer does, whatever was said, and well only if execve was announced; a failure is a
//! sentence; no process is harmed. Here the process that has the socket is this one, and its program poses as rcrun-init.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rcrun_plan::record::{Kind, REPORT_SIZE, Report};
use rcrun_runtime::container::{self, StateRoot, Status};
use rcrun_runtime::spec::id::ContainerId;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::json;

use crate::sentence;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    let records = records(input);
    for record in &records {
        if let Some(report) = Report::decode(record) {
            let again = report.encode();
            assert_eq!(Report::decode(&again), Some(report));
            // Four bytes that nobody reads.
            assert!(again[..12] == record[..12] && again[16..] == record[16..], "{report:?}");
        }
    }
    thread_local!(static ROOT: tempfile::TempDir = {
        let root = tempfile::tempdir().expect("a scratch folder");
        made(&root.path().join("web"));
        root
    });
    ROOT.with(|root| is_started(&records, root.path()));
}

/// Records of any length, most of them of the right one, and well-formed ones of what the input chooses.
fn records(input: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = input;
    let mut all = Vec::new();
    while let Some((how, more)) = rest.split_first() {
        let length = match how {
            0xff => more.first().copied().unwrap_or_default().into(),
            _ => REPORT_SIZE,
        };
        let (one, after) = more.split_at(length.min(more.len()));
        let mut one = one.to_vec();
        if *how != 0xff {
            one.resize(REPORT_SIZE, 0);
            one[..2].copy_from_slice(&u16::from(how % 9).to_le_bytes());
        }
        all.push(one);
        rest = after;
    }
    all
}

/// A container that waits for its start.
fn made(folder: &Path) {
    fs::create_dir(folder).expect("mkdir");
    let program = fs::metadata("/proc/self/exe").expect("stat");
    let stat = fs::read_to_string("/proc/self/stat").expect("read");
    let fields = stat.rsplit_once(')').expect("a command in parentheses").1;
    let start_time: u64 =
        fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).expect("field 22");
    let state = json!({
        "ociVersion": "1.3.0", "id": "web", "bundle": "/bundle", "rootfs": "/bundle/rootfs", "created": "now", "owner": 0,
        "cgroup": null, "ownPids": true, "hooks": false, "startable": true, "noPivot": false, "keyring": true,
        "process": {"pid": std::process::id(), "start_time": start_time, "init_file": [program.dev(), program.ino()]},
    });
    fs::write(folder.join("state.json"), state.to_string()).expect("write");
    let config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "maskedPaths": ["/proc/kcore"]},
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("write");
}

fn is_started(records: &[Vec<u8>], top: &Path) {
    let path = top.join("web/start.sock");
    let _ = fs::remove_file(&path);
    let listens =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socket");
    rustix::net::bind(&listens, &SocketAddrUnix::new(&path).expect("a short path")).expect("bind");
    rustix::net::listen(&listens, 1).expect("listen");
    let id: ContainerId = "web".parse().expect("an id");
    let web = StateRoot::new(top).open(&id).expect("the folder is there");
    let state = web.state().expect("the state can be read");
    assert_eq!(web.status(state.as_ref()), Status::Created);
    let started = std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = rustix::net::accept(&listens).expect("accept");
            let mut word = [0; 8];
            let _ = rustix::net::recv(&socket, &mut word, RecvFlags::empty());
            // What broke off at an earlier record leaves the rest unheard.
            let _ = records
                .iter()
                .try_for_each(|record| rustix::net::send(&socket, record, SendFlags::NOSIGNAL).map(|_| ()));
        });
        container::start(&web, None)
    });
    // A record without a byte is the end, as on every socket of packets.
    let heard: Vec<&Vec<u8>> = records.iter().take_while(|record| !record.is_empty()).collect();
    // Of a longer one its first bytes.
    let kind =
        |record: &Vec<u8>| Report::decode(&record[..record.len().min(REPORT_SIZE)]).map(|report| report.kind);
    let kinds: Vec<Option<Kind>> = heard.into_iter().map(kind).collect();
    let well = !kinds.is_empty() && kinds.iter().all(|kind| *kind == Some(Kind::Executing));
    match started {
        Ok(_) => assert!(well, "started, of {kinds:?}"),
        Err(error) => {
            sentence::is_one(&error);
            assert!(!well, "{error}, of {kinds:?}");
        }
    }
}
