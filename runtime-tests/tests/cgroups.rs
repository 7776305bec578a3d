//! cgroupsPath and resources as the container's cgroup shows them, whatever controllers the machine has.

use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{Mounted, inside, try_inside};
use runtime_tests::runtime::{Runtime, said};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where cgroup2 is mounted.
fn hierarchy() -> PathBuf {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let found = Mounted::all(&text).into_iter().find(|m| m.kind == "cgroup2");
    PathBuf::from(found.expect("cgroup2 is not mounted").target)
}

/// This process's own cgroup.
fn own() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    text.lines().find_map(|line| line.strip_prefix("0::")).expect("a v2 cgroup").to_string()
}

fn has_controller(name: &str) -> bool {
    let text = fs::read_to_string(hierarchy().join("cgroup.controllers")).expect("cgroup.controllers");
    text.split_whitespace().any(|c| c == name)
}

#[test]
fn the_cgroup_is_where_the_path_says_and_goes_with_the_container() {
    let beside = own()
        .trim_end_matches('/')
        .rsplit_once('/')
        .map(|(parent, _)| parent.to_string())
        .unwrap_or_default();
    for (path, expected) in [
        (json!("/rcrun-fields-absolute"), "/rcrun-fields-absolute".to_string()),
        (json!("/rcrun-fields-a/b/c"), "/rcrun-fields-a/b/c".into()),
        (json!("rcrun-relative/x"), format!("{beside}/rcrun-relative/x")),
        (json!(""), format!("{beside}/cgpath")),
        (json!(null), format!("{beside}/cgpath")),
    ] {
        let runtime = Runtime::new();
        let bundle =
            Bundle::new("cgpath", &["sleep", "1000"]).with(|c| c["linux"]["cgroupsPath"] = path.clone());
        let created = runtime.create(&bundle, "cgpath");
        assert_eq!(created.status, 0, "{path}: {}", created.err);
        let text = fs::read_to_string(format!("/proc/{}/cgroup", runtime.pid("cgpath"))).expect("cgroup");
        assert!(text.lines().any(|line| line == format!("0::{expected}")), "{path}: {text}");
        runtime.ok(["delete", "--force", "cgpath"]);
        let left = hierarchy().join(expected.trim_start_matches('/'));
        assert!(!left.exists(), "{path}: {} is left", left.display());
        // What lies above it may be shared with others by now and is left, as runc leaves it.
        for above in left.ancestors().skip(1).take_while(|a| a.file_name().is_some_and(|n| n != "unified")) {
            let _ = fs::remove_dir(above);
        }
    }
}

#[test]
fn a_path_that_leaves_the_hierarchy_is_refused() {
    for path in ["/../x", "../x", "/a/../../x", "/"] {
        let said = try_inside("cgout", "true", |c| c["linux"]["cgroupsPath"] = json!(path));
        assert!(said.status == 1 && said.err.contains("/linux/cgroupsPath"), "{path}: {}", said.err);
    }
}

#[test]
fn a_cgroup_with_processes_is_refused_and_they_live_on() {
    let runtime = Runtime::new();
    let first = Bundle::new("busy", &["sleep", "1000"])
        .with(|c| c["linux"]["cgroupsPath"] = json!("/rcrun-fields-busy"));
    assert_eq!(runtime.create(&first, "busy").status, 0);
    let second =
        Bundle::new("busy2", &["true"]).with(|c| c["linux"]["cgroupsPath"] = json!("/rcrun-fields-busy"));
    let said = runtime.run(&second, "busy2");
    assert!(said.status == 1 && said.err.contains("cgroup"), "{}", said.err);
    assert_eq!(runtime.status("busy"), "created");
}

/// Field of resources, value, controller, file, content.
fn limits() -> Vec<(&'static str, Value, &'static str, &'static str, &'static str)> {
    vec![
        ("/memory", json!({"limit": 104857600}), "memory", "memory.max", "104857600"),
        ("/memory", json!({"limit": 104857600, "reservation": 52428800}), "memory", "memory.low", "52428800"),
        ("/memory", json!({"limit": 104857600, "swap": 157286400}), "memory", "memory.swap.max", "52428800"),
        ("/cpu", json!({"shares": 2048}), "cpu", "cpu.weight", ""),
        ("/cpu", json!({"quota": 50000, "period": 100000}), "cpu", "cpu.max", "50000 100000"),
        ("/cpu", json!({"cpus": "0"}), "cpuset", "cpuset.cpus", "0"),
        ("/pids", json!({"limit": 42}), "pids", "pids.max", "42"),
        ("/blockIO", json!({"weight": 100}), "io", "io.weight", ""),
        (
            "/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 2097152}]),
            "hugetlb",
            "hugetlb.2MB.max",
            "2097152",
        ),
        ("/rdma", json!({"mlx5_1": {"hcaHandles": 3}}), "rdma", "rdma.max", ""),
        ("/unified", json!({"memory.high": "50000000"}), "memory", "memory.high", ""),
        ("/unified", json!({"pids.max": "7"}), "pids", "pids.max", "7"),
    ]
}

#[test]
fn a_limit_is_written_where_its_controller_is_and_else_refused_by_its_name() {
    for (field, value, controller, file, content) in limits() {
        let runtime = Runtime::new();
        let bundle = Bundle::new("limit", &["sleep", "1000"]).with(|c| {
            c["linux"]["cgroupsPath"] = json!("/rcrun-fields-limit");
            c["linux"]["resources"][field.trim_start_matches('/')] = value.clone();
        });
        let said = runtime.create(&bundle, "limit");
        let path = hierarchy().join("rcrun-fields-limit");
        if has_controller(controller) && path.join(file).exists() {
            assert_eq!(said.status, 0, "{field}: {}", said.err);
            let found = fs::read_to_string(path.join(file)).expect("control file");
            assert!(content.is_empty() || found.trim() == content, "{file}: {found}");
            runtime.ok(["delete", "--force", "limit"]);
        } else {
            assert_eq!(said.status, 1, "{field} {value}");
            for words in [controller, &format!("/linux/resources{field}")] {
                assert!(said.err.contains(words), "{field} {value}: lacks {words}: {}", said.err);
            }
        }
        assert!(!path.exists(), "{field}: the cgroup is left");
    }
}

#[test]
fn unified_writes_any_file_of_the_cgroup() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("unified", &["sleep", "1000"]).with(|c| {
        c["linux"]["cgroupsPath"] = json!("/rcrun-fields-unified");
        c["linux"]["resources"]["unified"] = json!({"cgroup.max.depth": "3", "cgroup.max.descendants": "4"});
    });
    let created = runtime.create(&bundle, "unified");
    assert_eq!(created.status, 0, "{}", created.err);
    let path = hierarchy().join("rcrun-fields-unified");
    for (file, value) in [("cgroup.max.depth", "3\n"), ("cgroup.max.descendants", "4\n")] {
        assert_eq!(fs::read_to_string(path.join(file)).expect("control file"), value, "{file}");
    }
}

#[test]
fn unified_values_that_the_kernel_refuses_or_names_that_are_paths_are_errors() {
    for (name, value) in
        [("cgroup.max.depth", "deep"), ("../escape", "1"), ("no.such.file", "1"), ("a/b", "1")]
    {
        let said =
            try_inside("badunified", "true", |c| c["linux"]["resources"]["unified"] = json!({name: value}));
        assert!(said.status == 1 && said.err.contains("/linux/resources/unified"), "{name}: {}", said.err);
    }
}

#[test]
fn limits_that_mean_no_limit_need_no_controller() {
    let seen = inside("nolimit", "echo started", |c| {
        c["linux"]["resources"]["memory"] = json!({"limit": -1});
        c["linux"]["resources"]["cpu"] = json!({});
        c["linux"]["resources"]["pids"] = json!({"limit": -1});
        c["linux"]["resources"]["blockIO"] = json!({});
        c["linux"]["resources"]["hugepageLimits"] = json!([]);
    });
    assert_eq!(seen, "started\n");
}

#[test]
fn processes_that_outlive_init_go_with_the_container() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("outlive", &["sh", "-c", "sleep 1000 & exit 0"]).with(|c| {
        c["linux"]["namespaces"].as_array_mut().expect("namespaces").retain(|n| n["type"] != "pid");
        c["linux"]["cgroupsPath"] = json!("/rcrun-fields-outlive");
    });
    let said = runtime.run(&bundle, "outlive-run");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(!hierarchy().join("rcrun-fields-outlive").exists());
}

/// Linux 6.18 kills what is cloned into a cgroup by a process whose own cgroup was killed once, by whoever was in it before.
#[test]
fn a_caller_whose_cgroup_was_killed_once_starts_containers() {
    let runtime = Runtime::new();
    let cgroup = hierarchy().join(format!("rcrun-fields-killed-once-{}", std::process::id()));
    fs::create_dir(&cgroup).expect("mkdir");
    let inside = |words: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 >\"$0/cgroup.procs\" && exec \"$@\""]).arg(&cgroup).args(words);
        command
    };
    let mut first =
        inside(&["sh", "-c", "echo in; exec sleep 1000"]).stdout(Stdio::piped()).spawn().expect("spawn");
    let mut line = String::new();
    BufReader::new(first.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "in\n");
    fs::write(cgroup.join("cgroup.kill"), "1").expect("cgroup.kill");
    first.wait().expect("wait");

    let binary = runtime.binary().to_str().expect("UTF-8");
    let root = runtime.root().to_str().expect("UTF-8");
    let say = |words: &[&str]| {
        let all = [&[binary, "--root", root][..], words].concat();
        said(&inside(&all).stdin(Stdio::null()).output().expect("execute"))
    };
    let [id, other] = ["one", "two"].map(|name| format!("killed-once-{name}-{}", std::process::id()));
    let short = Bundle::new("killed-once", &["echo", "up"]);
    let ran = say(&["run", "--bundle", short.path().to_str().expect("UTF-8"), &id]);
    let long = Bundle::new("killed-once-2", &["sleep", "1000"]);
    runtime.created(&long, &other);
    runtime.ok(["start", &other]);
    let executed = say(&["exec", &other, "cat", "/proc/self/cgroup"]);
    runtime.ok(["delete", "--force", &other]);
    fs::remove_dir(&cgroup).expect("rmdir");
    assert_eq!((ran.status, ran.out.as_str()), (0, "up\n"), "{}", ran.err);
    // The root of the container's cgroup namespace is the cgroup itself, whichever way it was born.
    assert_eq!((executed.status, executed.out.lines().last()), (0, Some("0::/")), "{}", executed.err);
}
