//! `rcrun plan` as a person or a tool runs it: without root, without a root file system, and with nothing done.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A bundle of only a config.json, removed at the end.
struct Bundle(PathBuf);

impl Bundle {
    fn new(name: &str, config: &str) -> Bundle {
        let folder = std::env::temp_dir().join(format!("rcrun-plan-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new folder");
        std::fs::write(folder.join("config.json"), config).expect("config.json is written");
        Bundle(folder)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn plan(bundle: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rcrun"))
        .arg("plan")
        .args(args)
        .arg(bundle)
        .output()
        .expect("rcrun is built")
}

fn config(linux: &str) -> String {
    format!(
        r#"{{"ociVersion": "1.0.2", "root": {{"path": "rootfs"}},
            "process": {{"user": {{"uid": 0, "gid": 0}}, "args": ["true"], "cwd": "/", "noNewPrivileges": true}},
            "linux": {{"namespaces": [{{"type": "mount"}}, {{"type": "pid"}}]{linux}}}}}"#
    )
}

const PROFILE: &str = r#", "seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}]}"#;

#[test]
fn the_filter_is_written_as_many_instructions_as_the_plan_tells() {
    let bundle = Bundle::new("filter", &config(PROFILE));
    let out = bundle.0.join("out.bpf");
    let output = plan(&bundle.0, &["--seccomp-out", out.to_str().expect("UTF-8")]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    let filter = std::fs::read(&out).expect("the filter is written");
    let told = plan(&bundle.0, &["--format", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("a JSON object");
    assert_eq!(told["filterInstructions"].as_u64(), Some(filter.len() as u64 / 8));
    assert_eq!(filter.len() % 8, 0);
    // Every filter of rcrun starts by loading a word of struct seccomp_data: BPF_LD | BPF_W | BPF_ABS, no jump.
    assert_eq!(filter[..4], [0x20, 0, 0, 0]);
}

#[test]
fn without_a_profile_there_is_no_filter_and_no_file() {
    let bundle = Bundle::new("no-filter", &config(""));
    let out = bundle.0.join("out.bpf");
    let output = plan(&bundle.0, &["--seccomp-out", out.to_str().expect("UTF-8")]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "rcrun: config.json: /linux/seccomp: is missing: there is no filter for --seccomp-out\n"
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(!out.exists());
}

#[test]
fn the_text_has_a_numbered_line_for_each_step_of_the_json() {
    let bundle = Bundle::new("text", &config(PROFILE));
    let json = plan(&bundle.0, &["--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("a JSON object");
    let steps = json["steps"].as_array().expect("a list of steps").len();
    let text = plan(&bundle.0, &[]).stdout;
    let text = String::from_utf8(text).expect("UTF-8");
    let numbered = |n: usize| text.lines().any(|line| line.trim_start().starts_with(&format!("{n}  ")));
    assert!(steps > 10 && (1..=steps).all(numbered) && !numbered(steps + 1), "{text}");
}
