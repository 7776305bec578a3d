//! Verbs that meet a container at a moment which is not theirs.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::{Runtime, said};
use std::process::Stdio;

#[test]
fn a_container_that_is_paused_before_its_start_is_paused_until_resumed() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("paused", &["sleep", "1000"]);
    assert_eq!(runtime.create(&bundle, "paused").status, 0);
    runtime.ok(["pause", "paused"]);
    assert_eq!(runtime.status("paused"), "paused");
    let refused = runtime.say(["start", "paused"]);
    assert_eq!(refused.status, 1);
    assert!(refused.err.contains("cannot start a container in the paused state"), "{}", refused.err);
    let refused = runtime.say(["delete", "paused"]);
    assert!(refused.err.contains("that is not stopped: paused"), "{}", refused.err);
    runtime.ok(["resume", "paused"]);
    assert_eq!(runtime.status("paused"), "created");
    runtime.ok(["start", "paused"]);
    assert_eq!(runtime.status("paused"), "running");
    runtime.ok(["delete", "--force", "paused"]);
}

#[test]
fn exec_into_a_container_that_ends_at_that_moment_says_that_it_is_not_running() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("ending", &["sleep", "1000"]);
    for round in 0..20 {
        let id = format!("ending-{round}");
        assert_eq!(runtime.create(&bundle, &id).status, 0);
        runtime.ok(["start", &id]);
        let mut exec = runtime.command(["exec", &id, "true"]);
        let exec = exec.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("execute the runtime");
        runtime.ok(["kill", &id, "KILL"]);
        let said = said(&exec.wait_with_output().expect("wait for exec"));
        match said.status {
            // It was quicker, or was killed with the container once it ran.
            0 | 137 => assert_eq!(said.err, ""),
            status => assert!(
                status == 255 && said.err.contains("container not running"),
                "exit status {status}: {}",
                said.err
            ),
        }
        runtime.ok(["delete", "--force", &id]);
    }
}

#[test]
fn exec_in_the_foreground_takes_no_console_socket() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("socket", &["sleep", "1000"]);
    assert_eq!(runtime.create(&bundle, "socket").status, 0);
    runtime.ok(["start", "socket"]);
    for (args, words) in [
        (
            &["exec", "--tty", "--console-socket", "/nowhere", "socket", "true"] as &[&str],
            "cannot use console socket if runc will not detach or allocate tty",
        ),
        (
            &["exec", "--detach", "--tty", "socket", "true"],
            "cannot allocate tty if runc will detach without setting console socket",
        ),
    ] {
        let refused = runtime.say(args);
        assert_eq!(refused.status, 255);
        assert!(refused.err.contains(words), "{}", refused.err);
    }
    runtime.ok(["delete", "--force", "socket"]);
}

#[test]
fn what_is_kept_of_a_container_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let runtime = Runtime::new();
    let bundle = Bundle::new("kept", &["sleep", "1000"]);
    // With the least careful umask.
    let mut create = std::process::Command::new("sh");
    let create = create
        .args(["-c", "umask 0; exec \"$0\" --root \"$1\" create --bundle \"$2\" kept"])
        .args([runtime.binary(), runtime.root(), bundle.path()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(create.status().expect("execute sh").success());
    for file in ["state.json", "config.json", "start.sock"] {
        let path = runtime.root().join("kept").join(file);
        let mode = std::fs::symlink_metadata(&path).expect(file).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    runtime.ok(["delete", "--force", "kept"]);
}
