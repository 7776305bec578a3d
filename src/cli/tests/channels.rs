//! What the binary says on which channel, and with which exit status, where no container is needed.

use std::process::{Command, Output};

fn rcrun(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rcrun")).args(args).output().expect("rcrun is built")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn version_and_help_say_nothing_on_standard_error() {
    for args in [&["--version"] as &[&str], &["-v"], &[], &["help"], &["help", "run"], &["create", "--help"]]
    {
        let output = rcrun(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert!(output.stdout.ends_with(b"\n"), "{args:?}");
    }
    assert!(text(&rcrun(&["--version"]).stdout).starts_with("rcrun version "));
}

#[test]
fn a_usage_error_is_one_line_and_status_1_also_for_exec() {
    for (args, expected) in [
        (&["create", "--bundle"] as &[&str], "rcrun: create: flag needs an argument: --bundle\n"),
        (&["exec", "--user"], "rcrun: exec: flag needs an argument: --user\n"),
        (&["nope"], "rcrun: No help topic for 'nope': `rcrun help` lists the commands\n"),
        (
            &["restore", "--lsm-mount-context"],
            "rcrun: restore: flag needs an argument: --lsm-mount-context\n",
        ),
    ] {
        let output = rcrun(args);
        assert_eq!(text(&output.stderr), expected);
        assert_eq!(text(&output.stdout), "");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
}

#[test]
fn with_a_log_the_error_stands_there_once_and_bare_on_standard_error() {
    let path = std::env::temp_dir().join(format!("rcrun-channels-{}", std::process::id()));
    let log = path.to_str().expect("UTF-8");
    let output = rcrun(&["--log", log, "--log-format", "json", "nope"]);
    let lines = std::fs::read_to_string(&path).expect("the log is written");
    std::fs::remove_file(&path).expect("the log is there");
    let object: serde_json::Value = serde_json::from_str(&lines).expect("one JSON object");
    assert_eq!(object["level"], "error");
    assert_eq!(object["code"], "usage");
    assert_eq!(text(&output.stderr), format!("{}\n", object["msg"].as_str().expect("a sentence")));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_log_that_cannot_be_opened_is_told_on_standard_error() {
    let output = rcrun(&["--log", "/nowhere/log", "start", "x"]);
    assert_eq!(text(&output.stderr), "rcrun: open the log /nowhere/log: no such file or directory\n");
    assert_eq!(output.status.code(), Some(1));
}
