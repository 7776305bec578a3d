//! linux.namespaces: each of the eight as new, absent, and joined by path; time offsets; what is not there without a mount
//! or a pid namespace.

use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{inside, is_alive, own_mounts, shell, try_inside};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;

/// Name in config.json, file in /proc/PID/ns.
const NAMESPACES: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn namespace(pid: &str, file: &str) -> String {
    let path = format!("/proc/{pid}/ns/{file}");
    fs::read_link(&path).unwrap_or_else(|e| panic!("{path}: {e}")).display().to_string()
}

fn without(config: &mut Value, kind: &str) {
    let list = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    list.retain(|n| n["type"] != kind);
}

fn set(config: &mut Value, kind: &str, path: Option<String>) {
    without(config, kind);
    let entry = match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    };
    config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(entry);
}

/// A config that works without a mount namespace.
fn bare(config: &mut Value) {
    without(config, "mount");
    config["root"]["readonly"] = json!(false);
    config["mounts"] = json!([]);
    config["linux"]["maskedPaths"] = json!([]);
    config["linux"]["readonlyPaths"] = json!([]);
}

#[test]
fn a_new_namespace_is_another_than_the_machines() {
    for (kind, file) in NAMESPACES {
        let seen = inside("new", &format!("readlink /proc/self/ns/{file}"), |c| set(c, kind, None));
        assert_ne!(seen.trim(), namespace("self", file), "{kind}");
    }
}

#[test]
fn an_absent_namespace_is_the_machines() {
    for (kind, file) in NAMESPACES.into_iter().filter(|(kind, _)| *kind != "mount") {
        let seen = inside("absent", &format!("readlink /proc/self/ns/{file}"), |c| {
            without(c, kind);
            if kind == "uts" {
                c.as_object_mut().expect("config").remove("hostname");
            }
        });
        assert_eq!(seen.trim(), namespace("self", file), "{kind}");
    }
}

#[test]
fn a_namespace_with_a_path_is_joined() {
    let runtime = Runtime::new();
    let first = Bundle::new("joined", &["sleep", "1000"]).with(|c| set(c, "time", None));
    assert_eq!(runtime.create(&first, "first").status, 0);
    let pid = runtime.pid("first").to_string();
    for (kind, file) in NAMESPACES.into_iter().filter(|(kind, _)| *kind != "mount") {
        let second = shell("joins", &format!("readlink /proc/self/ns/{file}"), |c| {
            set(c, kind, Some(format!("/proc/{pid}/ns/{file}")));
            if kind == "uts" {
                c.as_object_mut().expect("config").remove("hostname");
            }
        });
        let said = runtime.run(&second, "second");
        assert_eq!(
            (said.status, said.out.trim()),
            (0, namespace(&pid, file).as_str()),
            "{kind}: {}",
            said.err
        );
    }
}

#[test]
fn all_joinable_namespaces_are_joined_at_once() {
    let runtime = Runtime::new();
    let first = Bundle::new("pod", &["sleep", "1000"]).with(|c| set(c, "time", None));
    assert_eq!(runtime.create(&first, "all-first").status, 0);
    let pid = runtime.pid("all-first").to_string();
    let second = shell(
        "member",
        "for n in pid net ipc uts cgroup time; do readlink /proc/self/ns/$n; done; hostname",
        |c| {
            for (kind, file) in NAMESPACES.into_iter().filter(|(kind, _)| *kind != "mount") {
                set(c, kind, Some(format!("/proc/{pid}/ns/{file}")));
            }
            c.as_object_mut().expect("config").remove("hostname");
        },
    );
    let said = runtime.run(&second, "all-second");
    let files = ["pid", "net", "ipc", "uts", "cgroup", "time"];
    let mut expected: Vec<String> = files.iter().map(|file| namespace(&pid, file)).collect();
    expected.push("box".into());
    assert_eq!(
        (said.status, said.out.lines().map(String::from).collect::<Vec<_>>()),
        (0, expected),
        "{}",
        said.err
    );
}

#[test]
fn a_joined_mount_namespace_is_the_one_that_is_changed() {
    own_mounts();
    let runtime = Runtime::new();
    // A namespace that nobody's root is in but this sleeper's: pivot_root moves that too.
    let mut sleeper = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("unshare");
    let mut ready = [0];
    std::io::Read::read_exact(sleeper.stdout.as_mut().expect("stdout"), &mut ready)
        .expect("a line of the sleeper");
    let path = format!("/proc/{}/ns/mnt", sleeper.id());
    let expected = namespace(&sleeper.id().to_string(), "mnt");
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let bundle =
        shell("join-mnt", "readlink /proc/self/ns/mnt; ls /; echo $$", |c| set(c, "mount", Some(path)));
    let said = runtime.run(&bundle, "join-mnt");
    sleeper.kill().expect("kill");
    sleeper.wait().expect("wait");
    let names = format!("{expected}\nbin\ndev\netc\nproc\nroot\nsys\ntmp\n1\n");
    assert_eq!((said.status, said.out), (0, names), "{}", said.err);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"), before);
}

#[test]
fn without_a_mount_namespace_the_root_is_a_chroot_and_nothing_is_mounted() {
    let runtime = Runtime::new();
    let bundle = shell("chroot", "ls / && pwd && cd .. && pwd && ls /proc | wc -l", |c| {
        bare(c);
        c["process"]["cwd"] = json!("/tmp");
    });
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let said = runtime.run(&bundle, "chroot");
    assert_eq!(
        (said.status, said.out.as_str()),
        (0, "bin\ndev\netc\nproc\nroot\nsys\ntmp\n/tmp\n/\n0\n"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"), before);
}

#[test]
fn exec_enters_a_container_without_a_mount_namespace() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("chroot-exec", &["sleep", "1000"]).with(bare);
    assert_eq!(runtime.create(&bundle, "c").status, 0);
    runtime.ok(["start", "c"]);
    assert_eq!(runtime.ok(["exec", "c", "ls", "/"]).out, "bin\ndev\netc\nproc\nroot\nsys\ntmp\n");
    runtime.ok(["delete", "--force", "c"]);
}

#[test]
fn without_a_pid_namespace_the_payload_is_among_the_machines_processes_and_all_die_with_delete() {
    let runtime = Runtime::new();
    let bundle = shell("hostpid", "sleep 1000 & sleep 1001 & wait", |c| without(c, "pid"));
    assert_eq!(runtime.create(&bundle, "hostpid").status, 0);
    runtime.ok(["start", "hostpid"]);
    let pid = runtime.pid("hostpid");
    let own = runtime.ok([
        "exec",
        "hostpid",
        "sh",
        "-c",
        "readlink /proc/self/ns/pid; kill -0 $0",
        &pid.to_string(),
    ]);
    assert_eq!(own.out.trim(), namespace("self", "pid"));
    let listed = runtime.ok(["ps", "--format", "json", "hostpid"]).out;
    let pids: Vec<i32> = serde_json::from_str(&listed).expect("pids");
    assert!(pids.len() >= 3, "{pids:?}");
    runtime.ok(["kill", "hostpid", "KILL"]);
    runtime.ok(["delete", "--force", "hostpid"]);
    for pid in pids {
        assert!(!is_alive(pid), "{pid} is left");
    }
}

#[test]
fn the_hosts_network_is_seen_without_a_network_namespace_and_only_lo_in_a_new_one() {
    let names = |config: fn(&mut Value)| {
        inside("net", "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' ' | sort", config)
    };
    let mut host: Vec<String> = fs::read_to_string("/proc/self/net/dev")
        .expect("net/dev")
        .lines()
        .skip(2)
        .map(|l| l.split(':').next().unwrap_or_default().trim().to_string())
        .collect();
    host.sort();
    assert_eq!(names(|c| without(c, "network")).lines().collect::<Vec<_>>(), host);
    let seen = inside("lo", "ip -o addr show up", |_| {});
    assert!(seen.contains("lo    inet 127.0.0.1/8"), "{seen}");
    assert!(seen.lines().all(|l| l.contains(" lo ")), "{seen}");
}

#[test]
fn without_a_cgroup_namespace_the_containers_own_cgroup_is_bound() {
    let script = "cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/cgroup.procs";
    let seen = inside("owncgroup", script, |c| {
        without(c, "cgroup");
        c["linux"]["cgroupsPath"] = json!("/rcrun-fields-owncgroup");
    });
    assert!(seen.contains("0::/rcrun-fields-owncgroup\n"), "{seen}");
    assert!(seen.contains("\ncgroup.controllers\n") && seen.contains("\n1\n"), "{seen}");
    let seen = inside("newcgroup", "grep ^0: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs", |_| {});
    assert!(seen.starts_with("0::/\n1\n"), "{seen}");
}

#[test]
fn time_offsets_move_the_clocks_of_a_new_time_namespace() {
    let uptime =
        |text: &str| text.split('.').next().unwrap_or_default().trim().parse::<i64>().expect("uptime");
    let before = uptime(&fs::read_to_string("/proc/uptime").expect("uptime"));
    let bundle = Bundle::new("time", &["sleep", "1000"]).with(|c| {
        set(c, "time", None);
        c["linux"]["timeOffsets"] =
            json!({"boottime": {"secs": 86400, "nanosecs": 500}, "monotonic": {"secs": 3600}});
    });
    let runtime = Runtime::new();
    assert_eq!(runtime.create(&bundle, "time").status, 0);
    runtime.ok(["start", "time"]);
    let said = runtime.ok(["exec", "time", "cat", "/proc/uptime", "/proc/self/timens_offsets"]).out;
    let later = uptime(&said) - before;
    assert!((86400..86460).contains(&later), "{said}");
    let words: Vec<&str> = said.lines().skip(1).flat_map(str::split_whitespace).collect();
    assert_eq!(words, ["monotonic", "3600", "0", "boottime", "86400", "500"]);
    runtime.ok(["delete", "--force", "time"]);
}

#[test]
fn a_path_that_is_no_such_namespace_is_refused_by_its_pointer() {
    for (kind, path, words) in [
        ("network", "/proc/self/ns/uts", "is not a network namespace"),
        ("network", "/etc/passwd", "is not a network namespace"),
        ("ipc", "/proc/self/ns/nothing", "no such file or directory"),
        ("uts", "relative", "absolute"),
    ] {
        let said = try_inside("wrong", "true", |c| set(c, kind, Some(path.into())));
        assert_eq!(said.status, 1, "{path}");
        let text = said.err.to_lowercase();
        assert!(text.contains("/linux/namespaces/5") && text.contains(words), "{path}: {}", said.err);
    }
}

#[test]
fn fields_that_need_a_mount_namespace_are_refused_without_one() {
    for (field, value) in [
        ("maskedPaths", json!(["/proc/kcore"])),
        ("readonlyPaths", json!(["/proc/sys"])),
        ("rootfsPropagation", json!("private")),
        ("devices", json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}])),
    ] {
        let said = try_inside("needs", "true", |c| {
            bare(c);
            c["linux"][field] = value;
        });
        assert_eq!(said.status, 1, "{field}");
        assert!(said.err.contains(&format!("/linux/{field}")), "{field}: {}", said.err);
    }
}
