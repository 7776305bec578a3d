//! update: every option in force in its file, pairs that stay together, and a failure half-way that changes nothing.

use crate::limits::{cgroup, limited, read};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::Runtime;
use runtime_tests::trace::{Victim, trace};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Instant;

fn sleeping(runtime: &Runtime, id: &str, resources: Value) -> Bundle {
    let bundle = limited(id, &["sleep", "1000"], resources);
    runtime.created(&bundle, id);
    runtime.ok(["start", id]);
    bundle
}

/// The disk that /var/tmp lies on, as `8:0`.
fn disk() -> String {
    let device = fs::metadata("/var/tmp").expect("stat /var/tmp").dev();
    format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

#[test]
fn every_option_is_in_force_in_its_file() {
    let runtime = Runtime::new();
    let _bundle = sleeping(&runtime, "options", json!({}));
    let disk = disk();
    let io_max = format!("{disk} rbps=1m wiops=max");
    let io_said = format!("{disk} rbps=1048576 wbps=max riops=max wiops=max");
    for (options, file, value) in [
        (&["--memory", "64m"][..], "memory.max", "67108864"),
        (&["--memory", "64m", "--memory-swap", "96m"], "memory.swap.max", "33554432"),
        // memory+swap stays 96 MiB.
        (&["--memory", "80m"], "memory.swap.max", "16777216"),
        (&["--memory-swap", "100m"], "memory.swap.max", "20971520"),
        (&["--memory-swap", "-1"], "memory.swap.max", "max"),
        (&["--memory", "-1"], "memory.max", "max"),
        (&["--memory-reservation", "8m"], "memory.low", "8388608"),
        (&["--memory-low", "4m"], "memory.low", "4194304"),
        (&["--memory-min", "2m"], "memory.min", "2097152"),
        (&["--memory-high", "32m"], "memory.high", "33554432"),
        (&["--memory-high", "max"], "memory.high", "max"),
        (&["--oom-group", "true"], "memory.oom.group", "1"),
        (&["--cpu-quota", "20000"], "cpu.max", "20000 100000"),
        (&["--cpu-period", "50000"], "cpu.max", "20000 50000"),
        (&["--cpu-quota", "10000"], "cpu.max", "10000 50000"),
        (&["--cpu-burst", "5000"], "cpu.max.burst", "5000"),
        (&["--cpu-quota", "1000", "--cpu-burst", "500"], "cpu.max", "1000 50000"),
        (&["--cpu-quota", "-1", "--cpu-burst", "0"], "cpu.max", "max 50000"),
        (&["--cpu-share", "2048"], "cpu.weight", "174"),
        (&["--cpu-weight", "55"], "cpu.weight", "55"),
        (&["--cpu-idle", "1"], "cpu.idle", "1"),
        (&["--cpu-idle", "0", "--cpu-share", "512"], "cpu.weight", "59"),
        (&["--pids-limit", "77"], "pids.max", "77"),
        (&["--pids-limit", "-1"], "pids.max", "max"),
        (&["--io-max", &io_max], "io.max", &io_said),
    ] {
        let said = runtime.say([&["update"], options, &["options"]].concat());
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{options:?}");
        assert_eq!(read("options", file).trim(), value, "{options:?}");
    }
}

#[test]
fn limits_that_were_set_before_the_failing_one_are_put_back() {
    let runtime = Runtime::new();
    let disk = disk();
    let _bundle = sleeping(
        &runtime,
        "back",
        json!({"pids": {"limit": 50}, "memory": {"limit": 67_108_864, "swap": 100_663_296},
               "cpu": {"quota": 20_000, "period": 50_000, "burst": 10_000, "shares": 2048}}),
    );
    let files = [
        "pids.max",
        "memory.max",
        "memory.swap.max",
        "cpu.max",
        "cpu.max.burst",
        "cpu.weight",
        "cpu.idle",
        "io.max",
    ];
    let all = || files.map(|file| read("back", file));
    let before = all();
    let device = format!("{disk} wbps=1m");
    for options in [
        &[
            "--pids-limit",
            "9",
            "--memory",
            "32m",
            "--cpu-quota",
            "5000",
            "--cpu-burst",
            "1000",
            "--cpu-weight",
            "0",
        ][..],
        &["--cpu-idle", "1", "--io-max", &device, "--memory-high", "32m", "--io-max", "0:0 rbps=1"],
        &["--pids-limit", "9", "--memory", "32m", "--oom-group", "1", "--cpuset-mems", "4000"],
    ] {
        let said = runtime.say([&["update"], options, &["back"]].concat());
        assert_eq!(said.status, 1, "{options:?}");
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert_eq!(all(), before, "{options:?}: {}", said.err);
    }
    let said = runtime.say(["update", "--pids-limit", "9", "--cpu-weight", "0", "back"]);
    assert!(said.err.contains("(all limits are as they were)"), "{}", said.err);
}

#[test]
fn a_value_that_the_kernel_refuses_is_told_with_what_stands_in_its_way() {
    let runtime = Runtime::new();
    let _bundle = sleeping(
        &runtime,
        "hinted",
        json!({"cpu": {"quota": 20_000, "period": 50_000, "burst": 10_000, "idle": 1}}),
    );
    for (options, words) in [
        (&["--cpu-share", "512"][..], "the cgroup is idle, and has no weight"),
        (&["--cpu-quota", "5000"], "the burst in force, 10000, may not exceed the quota"),
        (&["--cpu-quota", "999", "--cpu-burst", "0"], "a quota at least 1000"),
        (&["--cpu-burst", "20001"], "a burst may not exceed the quota"),
        (&["--cpu-idle", "0", "--cpu-weight", "10001"], "a weight is 1 to 10000"),
    ] {
        let said = runtime.say([&["update"], options, &["hinted"]].concat());
        assert!(said.status == 1 && said.err.contains(words), "{options:?}: {}", said.err);
        assert!(said.err.contains("all limits are as they were"), "{options:?}: {}", said.err);
    }
}

#[test]
fn pids_max_changes_while_the_payload_forks() {
    let runtime = Runtime::new();
    let _bundle = sleeping(&runtime, "live", json!({"pids": {"limit": 2}}));
    let two = || runtime.say(["exec", "live", "sh", "-c", "sleep 0 & wait $! && echo forked"]);
    assert!(!two().out.contains("forked"));
    runtime.ok(["update", "--pids-limit", "20", "live"]);
    assert!(two().out.contains("forked"));
}

#[test]
fn io_max_slows_writes_down_as_measured() {
    let runtime = Runtime::new();
    let folder = std::path::Path::new("/var/tmp").join(format!("rcrun-io-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder on the disk");
    let bundle = limited("slow", &["sleep", "1000"], json!({})).with(|config| {
        let mount = json!({"destination": "/tmp", "type": "bind", "source": folder, "options": ["bind"]});
        config["mounts"].as_array_mut().expect("mounts").push(mount);
    });
    runtime.created(&bundle, "slow");
    runtime.ok(["start", "slow"]);
    runtime.ok(["update", "--io-max", &format!("{} wbps=1m", disk()), "slow"]);
    let began = Instant::now();
    runtime.ok(["exec", "slow", "dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=4", "conv=fsync"]);
    let took = began.elapsed().as_secs_f64();
    assert!(took >= 2.5, "4 MiB at 1 MiB a second took {took} s");
    assert!(read("slow", "io.stat").contains("wbytes="), "{}", read("slow", "io.stat"));
    runtime.ok(["delete", "--force", "slow"]);
    assert!(!cgroup("slow").exists());
    fs::remove_dir_all(&folder).expect("remove the folder");
}

#[test]
fn statistics_have_what_each_controller_counts() {
    let runtime = Runtime::new();
    let _bundle =
        sleeping(&runtime, "counted-all", json!({"pids": {"limit": 9}, "memory": {"limit": 67_108_864}}));
    let line = runtime.ok(["events", "--stats", "counted-all"]).out;
    let data = serde_json::from_str::<Value>(&line).expect("JSON")["data"].clone();
    assert_eq!((&data["pids"]["current"], &data["pids"]["limit"]), (&json!(1), &json!(9)), "{data}");
    let memory = &data["memory"];
    assert_eq!(memory["usage"]["limit"], 67_108_864, "{memory}");
    assert!(memory["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "{memory}");
    assert!(memory["raw"]["anon"].is_u64(), "{memory}");
    assert_eq!(memory["swap"]["limit"].as_u64(), Some(u64::MAX), "{memory}");
}

/// With the kernel's log as /dev/log1, which no list of default devices has.
fn with_log(runtime: &Runtime, id: &str, resources: Value) -> Bundle {
    let bundle = limited(id, &["sleep", "1000"], resources).with(|config| {
        config["linux"]["devices"] = json!([{"path": "/dev/log1", "type": "c", "major": 1, "minor": 11}]);
    });
    runtime.created(&bundle, id);
    runtime.ok(["start", id]);
    bundle
}

fn log_rules(allow: bool) -> Value {
    json!([{"allow": false, "access": "rwm"},
           {"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "w"}])
}

fn log_opens(runtime: &Runtime, id: &str) -> bool {
    let said = runtime.say(["exec", id, "sh", "-c", ": > /dev/log1"]);
    assert!(said.status == 0 || said.err.contains("Operation not permitted"), "{}", said.err);
    said.status == 0
}

#[test]
fn an_update_that_was_killed_half_way_is_completed_by_the_same_again() {
    let runtime = Runtime::new();
    let _bundle = with_log(&runtime, "cut", json!({"pids": {"limit": 50}, "memory": {"limit": 64 << 20}}));
    let all = || ["pids.max", "memory.max", "cpu.max", "memory.high"].map(|file| read("cut", file));
    let resources = |turn: u64| {
        json!({"pids": {"limit": 9 + turn}, "memory": {"limit": (32 + turn) << 20}, "cpu": {"quota": 10_000 + turn},
               "devices": log_rules(turn.is_multiple_of(2)),
               "unified": {"memory.high": (24 << 20).to_string()}})
    };
    let file = Folder::new("cut");
    let file = file.path().join("resources");
    let path = file.to_str().expect("UTF-8");
    let mut killed = 0;
    for turn in 0.. {
        let resources = resources(turn);
        fs::write(&file, resources.to_string()).expect("write");
        let mut command = runtime.command(["update", "--resources", path, "cut"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let traced = trace(&command, Victim::Command, 20 + 31 * turn as u32);
        let place = format!("turn {turn}, killed at {:?}", traced.killed_at);
        runtime.ok(["update", "--resources", path, "cut"]);
        let expected = [
            resources["pids"]["limit"].to_string(),
            resources["memory"]["limit"].to_string(),
            format!("{} 100000", resources["cpu"]["quota"]),
            (24 << 20).to_string(),
        ];
        assert_eq!(all().map(|value| value.trim().to_string()), expected, "{place}");
        assert_eq!(log_opens(&runtime, "cut"), turn.is_multiple_of(2), "{place}");
        if traced.killed_at.is_none() {
            break;
        }
        killed += 1;
    }
    assert!(killed > 5, "only {killed} points");
}

#[test]
fn device_rules_of_a_running_container_outlive_a_daemon_reload() {
    let runtime = Runtime::new();
    let _bundle = with_log(&runtime, "reloaded", json!({}));
    for allow in [false, true] {
        let rules = json!({"devices": log_rules(allow)}).to_string();
        let said = runtime.say_with_input(["update", "--resources", "-", "reloaded"], &rules);
        assert_eq!((said.status, said.err.as_str()), (0, ""));
        assert_eq!(log_opens(&runtime, "reloaded"), allow);
        assert!(Command::new("systemctl").arg("daemon-reload").status().expect("systemctl").success());
        assert_eq!(log_opens(&runtime, "reloaded"), allow, "after a daemon-reload");
    }
}
