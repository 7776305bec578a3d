//! What user-mode Linux has not: cpusets, huge pages, pressure.

use crate::limits::{limited, read};
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{field, inside};
use runtime_tests::runtime::{Lines, Runtime};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn cpuset_cpus_holds_and_changes_live() {
    let status = inside("pinned", "cat /proc/self/status", |config| {
        config["linux"]["resources"]["cpu"] = json!({"cpus": "1", "mems": "0"});
    });
    assert_eq!(field(&status, "Cpus_allowed_list"), "1");
    let runtime = Runtime::new();
    let bundle = limited("moved", &["sleep", "1000"], json!({"cpu": {"cpus": "1"}}));
    runtime.created(&bundle, "moved");
    runtime.ok(["start", "moved"]);
    runtime.ok(["update", "--cpuset-cpus", "0", "--cpuset-mems", "0", "moved"]);
    let status = fs::read_to_string(format!("/proc/{}/status", runtime.pid("moved"))).expect("status");
    assert_eq!(field(&status, "Cpus_allowed_list"), "0");
    let line = runtime.ok(["events", "--stats", "moved"]).out;
    let data = serde_json::from_str::<Value>(&line).expect("JSON")["data"].clone();
    assert_eq!((&data["cpuset"]["cpus"], &data["cpuset"]["mems"]), (&json!([0]), &json!([0])), "{data}");
    let said = runtime.say(["update", "--pids-limit", "7", "--cpuset-cpus", "4000", "moved"]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert_eq!((read("moved", "pids.max").trim(), read("moved", "cpuset.cpus").trim()), ("max", "0"));
}

#[test]
fn hugetlb_max_refuses_one_page_more() {
    fs::write("/proc/sys/vm/nr_hugepages", "8").expect("nr_hugepages");
    for (limit, given) in [(2 << 20, 1), (6 << 20, 3)] {
        let script =
            "for i in 1 2 3 4; do busybox fallocate -l 2097152 /tmp/$i 2>/dev/null && echo given; done; true";
        let said = inside("huge", script, |config| {
            config["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": limit}]);
            let mount = json!({"destination": "/tmp", "type": "hugetlbfs", "source": "none", "options": ["pagesize=2M"]});
            config["mounts"].as_array_mut().expect("mounts").push(mount);
        });
        assert_eq!(said.lines().count(), given, "with a limit of {limit}: {said}");
    }
}

/// systemd has properties for cpusets, and none for huge pages, whose controller it does not even pass on.
#[test]
fn a_scope_of_systemds_has_cpusets_and_huge_pages_too() {
    fs::write("/proc/sys/vm/nr_hugepages", "8").expect("nr_hugepages");
    let runtime = Runtime::new();
    let script = "for i in 1 2 3 4; do busybox fallocate -l 2097152 /tmp/$i 2>/dev/null && echo given; done; exec sleep 1000";
    let bundle = Bundle::new("scope-all", &["sh", "-c", script]).with(|config| {
        config["linux"]["cgroupsPath"] = json!("rcruntest-a.slice:rt:scope-all");
        config["linux"]["resources"] = json!({"cpu": {"cpus": "1", "mems": "0"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]});
        let mount =
            json!({"destination": "/tmp", "type": "hugetlbfs", "source": "none", "options": ["pagesize=2M"]});
        config["mounts"].as_array_mut().expect("mounts").push(mount);
    });
    let path = bundle.path().to_str().expect("UTF-8");
    let mut run = runtime.command(["--systemd-cgroup", "run", "--bundle", path, "scope-all"]);
    let mut run = run.stdout(Stdio::piped()).spawn().expect("execute the runtime");
    let mut lines = Lines::of(run.stdout.take().expect("a pipe").into());
    assert_eq!([lines.line(), lines.line()], ["given", "given"]);
    let allowed = || {
        let status =
            fs::read_to_string(format!("/proc/{}/status", runtime.pid("scope-all"))).expect("status");
        field(&status, "Cpus_allowed_list").to_string()
    };
    let cgroup = Path::new("/sys/fs/cgroup/rcruntest.slice/rcruntest-a.slice/rt-scope-all.scope");
    let huge = || fs::read_to_string(cgroup.join("hugetlb.2MB.max")).expect("hugetlb.2MB.max");
    for cpu in ["1", "0"] {
        runtime.ok(["update", "--cpuset-cpus", cpu, "scope-all"]);
        for when in ["", "after a daemon-reload"] {
            assert_eq!((allowed().as_str(), huge().trim()), (cpu, "4194304"), "{when}");
            assert!(Command::new("systemctl").arg("daemon-reload").status().expect("systemctl").success());
        }
    }
    runtime.ok(["kill", "scope-all", "KILL"]);
    // Two were given, and no more.
    assert_eq!(lines.rest(), "");
    assert_eq!(run.wait().expect("wait").code(), Some(137));
}

#[test]
fn statistics_have_the_pressure() {
    let runtime = Runtime::new();
    let bundle = limited(
        "pressed",
        &["sh", "-c", "while :; do :; done"],
        json!({"cpu": {"quota": 10_000, "period": 100_000}}),
    );
    runtime.created(&bundle, "pressed");
    runtime.ok(["start", "pressed"]);
    let line = runtime.ok(["events", "--stats", "pressed"]).out;
    let data = serde_json::from_str::<Value>(&line).expect("JSON")["data"].clone();
    for part in ["cpu", "memory", "blkio"] {
        let some = &data[part]["psi"]["some"];
        assert!(some["avg10"].is_f64() && some["total"].is_u64(), "{part}: {data}");
    }
}
