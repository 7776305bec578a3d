//! Bytes as a container's state.json: what a crash, a full disk or another version may have left. Uses: rcrun_runtime's
//! container, sentence.
//!
//! What holds: it is read, or refused by a sentence that names the file; what is read is written as what is read as the
//! same; the container is listed whatever it says, as stopped unless a process is there that it names; no look at it changes a
//! thing.

use std::fs;
use std::path::Path;

use rcrun_runtime::container::{self, Listed, State, StateRoot, Status};
use rcrun_runtime::spec::id::ContainerId;

use crate::sentence;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    thread_local!(static ROOT: tempfile::TempDir = {
        let root = tempfile::tempdir().expect("a scratch folder");
        fs::create_dir(root.path().join("web")).expect("mkdir");
        root
    });
    ROOT.with(|root| is_looked_at(input, root.path()));
}

fn is_looked_at(input: &[u8], top: &Path) {
    let file = top.join("web/state.json");
    fs::write(&file, input).expect("write");
    let root = StateRoot::new(top);
    let id: ContainerId = "web".parse().expect("an id");
    let opened = root.open(&id).expect("the folder is there");
    match opened.state() {
        Err(error) => {
            sentence::is_one(&error);
            assert!(error.to_string().contains("state.json"), "{error}");
        }
        Ok(state) => {
            let state = state.expect("the file is there");
            let text = serde_json::to_vec(&state).expect("a state can be written");
            let again: State = serde_json::from_slice(&text).expect("what was written can be read");
            let once_more = serde_json::to_vec(&again).expect("a state can be written");
            assert_eq!(text, once_more);
            let read = Listed::read(&opened, id.clone()).expect("what can be read can be listed");
            let there = state.process.as_ref().is_some_and(container::Process::is_alive);
            assert_eq!(read.status == Status::Stopped, !there, "{read:?}");
            assert_eq!(read.pid() == 0, !there, "{read:?}");
            let _ = read.end();
        }
    }
    let all = container::list(&root).expect("the folder can be read");
    assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["web"]);
    assert_eq!(fs::read(&file).expect("read"), input, "a look has changed the file");
    assert_eq!(fs::read_dir(top.join("web")).expect("readdir").count(), 1, "a look has made a file");
}
