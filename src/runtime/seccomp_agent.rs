//! What a seccomp agent is told: the listener of a filter, with whose it is (config-linux.md, "The Container Process
//! State"). Uses: error, unix_socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use crate::error::{CallContext, Code, Context, Error, Result};
use crate::unix_socket;

/// Hands the `listener` of process `pid`'s filter to the agent that `profile` names: one message on a connection of its
/// own. `state` is the container's, as hooks get it.
pub fn hand_over(profile: &LinuxSeccomp, state: &[u8], pid: i32, listener: BorrowedFd<'_>) -> Result<()> {
    let path = profile.listener_path().as_deref().unwrap_or(Path::new(""));
    let tell = || {
        // runc's words.
        let socket = unix_socket::stream_to(path).context("failed to connect with seccomp agent")?;
        unix_socket::send_with_fd(socket.as_fd(), &message(profile, state, pid)?, listener)
            .call(format!("sendmsg to the seccomp agent at {}", path.display()))
    };
    let at = "/linux/seccomp/listenerPath";
    tell().map_err(|error| error.context(format!("config.json: {at}")).with_code(Code::Host).at(at))
}

fn message(profile: &LinuxSeccomp, state: &[u8], pid: i32) -> Result<Vec<u8>> {
    let state: Value = serde_json::from_slice(state)
        .map_err(|error| Error::new(Code::System, format!("the container's state: {error}")))?;
    let mut message =
        json!({"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid, "state": state});
    if let Some(text) = profile.listener_metadata().as_ref().filter(|text| !text.is_empty()) {
        message["metadata"] = json!(text);
    }
    Ok(message.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_the_specs_fields() {
        let profile = |text| serde_json::from_value(text).unwrap();
        let state = br#"{"ociVersion": "1.0.2", "id": "web", "status": "running", "pid": 7, "bundle": "/b"}"#;
        let plain = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"});
        let said: Value = serde_json::from_slice(&message(&profile(plain), state, 9).unwrap()).unwrap();
        let expected = json!({
            "ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": 9,
            "state": {"ociVersion": "1.0.2", "id": "web", "status": "running", "pid": 7, "bundle": "/b"},
        });
        assert_eq!(said, expected);
        let more =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "listenerMetadata": "a\nb"});
        let said: Value = serde_json::from_slice(&message(&profile(more), state, 9).unwrap()).unwrap();
        assert_eq!(said["metadata"], "a\nb");
    }

    #[test]
    fn an_agent_that_is_not_there_is_named_by_its_path() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nonexistent/agent"});
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = hand_over(&serde_json::from_value(profile).unwrap(), b"{}", 1, file.as_fd()).unwrap_err();
        assert_eq!(error.pointer(), Some("/linux/seccomp/listenerPath"));
        let text = error.to_string();
        assert!(
            text.contains("failed to connect with seccomp agent: connect to /nonexistent/agent: "),
            "{text}"
        );
    }
}
