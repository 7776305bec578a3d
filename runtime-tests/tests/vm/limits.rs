//! Limits take effect: as the kernel counts it from outside, as the payload sees it from inside.

use runtime_tests::bundle::Bundle;
use runtime_tests::inside::inside;
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The cgroup that `limited` gives to this container.
pub(super) fn cgroup(id: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(format!("rcrun-{id}"))
}

/// A bundle that runs `args` in `cgroup(id)` with these resources.
pub(super) fn limited(id: &str, args: &[&str], resources: Value) -> Bundle {
    Bundle::new(id, args).with(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("/rcrun-{id}"));
        config["linux"]["resources"] = resources;
    })
}

/// A flat-keyed control file: `oom_kill 1` and so on.
pub(super) fn counts(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(key, value)| (key.to_string(), value.parse().expect("a number"))).collect()
}

pub(super) fn read(id: &str, file: &str) -> String {
    let path = cgroup(id).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// busybox's tail keeps what it reads until a line ends, and in /dev/zero none does.
pub(super) const EATS_MEMORY: [&str; 2] = ["tail", "/dev/zero"];

#[test]
fn memory_max_kills_a_payload_that_wants_more() {
    let said =
        Runtime::new().run(&limited("eater", &EATS_MEMORY, json!({"memory": {"limit": 16 << 20}})), "eater");
    assert_eq!(said.status, 137, "{}{}", said.out, said.err);
}

#[test]
fn a_kill_by_memory_max_is_counted_in_the_cgroup() {
    let runtime = Runtime::new();
    let bundle = limited("counted", &EATS_MEMORY, json!({"memory": {"limit": 16 << 20}}));
    runtime.created(&bundle, "counted");
    assert_eq!(counts(&read("counted", "memory.events"))["oom_kill"], 0);
    runtime.ok(["start", "counted"]);
    runtime.wait_for_end("counted");
    assert_eq!(counts(&read("counted", "memory.events"))["oom_kill"], 1);
    runtime.ok(["delete", "counted"]);
    assert!(!cgroup("counted").exists());
}

#[test]
fn pids_max_refuses_one_process_more() {
    let runtime = Runtime::new();
    // The shell says which of its children could not be made, and its end ends them all.
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all are there; sleep 1000";
    let bundle = limited("forks", &["sh", "-c", script], json!({"pids": {"limit": 5}}));
    let mut out = runtime.detached(&bundle, "forks");
    let said = out.rest();
    assert!(!said.contains("all are there"), "{said}");
    runtime.wait_for_end("forks");
    assert!(counts(&read("forks", "pids.events"))["max"] >= 1);
}

#[test]
fn cpu_max_leaves_a_busy_loop_its_share_as_the_payload_itself_sees() {
    let script = "busybox timeout 3 sh -c 'while :; do :; done'; cat /sys/fs/cgroup/cpu.stat";
    let said = inside("busy-loop", script, |config| {
        config["linux"]["resources"]["cpu"] = json!({"quota": 10_000, "period": 100_000});
    });
    let stat = counts(&said);
    assert!(stat["nr_throttled"] >= 10, "{said}");
    // 10 ms a period, the one that has begun too; half more, for what processors have been handed in advance.
    let share = (stat["nr_periods"] + 1) * 10_000;
    assert!((share / 4..share * 3 / 2).contains(&stat["usage_usec"]), "{said}");
}
