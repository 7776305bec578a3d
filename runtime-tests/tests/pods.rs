//! Containers that share namespaces as those of a pod do: a user namespace joined together with others, and a new one beside
//! namespaces of the machine's side.

use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{Mounted, field, owned};
use runtime_tests::runtime::Runtime;
use serde_json::json;
use std::fs;

#[test]
fn a_pod_shares_user_network_ipc_and_uts_namespaces_and_has_mounts_and_pids_apart() {
    let runtime = Runtime::new();
    let first = owned("pod", "exec sleep 1000", |_| {});
    let created = runtime.create(&first, "pod-first");
    assert_eq!(created.status, 0, "{}", created.err);
    let pid = runtime.pid("pod-first");
    let script = "for n in user net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; hostname; id -u; \
                  stat -c %u /bin/busybox; ip -o addr show up | grep -c 127.0.0.1; echo x > /dev/null; grep ^Cap /proc/self/status; \
                  cat /proc/self/mountinfo";
    let second = owned("member", script, |c| {
        let at = |file: &str| format!("/proc/{pid}/ns/{file}");
        c["linux"]["namespaces"] = json!([
            {"type": "pid"}, {"type": "mount"}, {"type": "cgroup"}, {"type": "user", "path": at("user")},
            {"type": "network", "path": at("net")}, {"type": "ipc", "path": at("ipc")}, {"type": "uts", "path": at("uts")}]);
        c.as_object_mut().expect("config").remove("hostname");
    });
    let said = runtime.run(&second, "pod-second");
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    let of_first =
        |file: &str| fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("ns").display().to_string();
    for (i, file) in ["user", "net", "ipc", "uts"].into_iter().enumerate() {
        assert_eq!(lines[i], of_first(file), "{file}");
    }
    for (i, file) in [(4, "pid"), (5, "mnt")] {
        assert_ne!(lines[i], of_first(file), "{file}");
    }
    assert_eq!(lines[6..10], ["box", "0", "0", "1"]);
    assert_eq!(
        (field(&said.out, "CapInh"), field(&said.out, "CapEff")),
        ("0000000000000000", "0000000020000420")
    );
    let mounts = said.out.split_once("CapAmb:").expect("status").1.split_once('\n').expect("a line").1;
    for (target, kind) in
        [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/mqueue", "mqueue"), ("/sys/fs/cgroup", "cgroup2")]
    {
        assert_eq!(Mounted::on(mounts, target).kind, kind);
    }
}

#[test]
fn a_joined_user_namespace_can_be_entered_by_exec_again() {
    let runtime = Runtime::new();
    let first = owned("pod2", "exec sleep 1000", |_| {});
    assert_eq!(runtime.create(&first, "again-first").status, 0);
    let pid = runtime.pid("again-first");
    let second = owned("member2", "exec sleep 1000", |c| {
        for namespace in c["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            let file = match namespace["type"].as_str() {
                Some("user") => "user",
                Some("network") => "net",
                Some("pid") => "pid",
                _ => continue,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
    });
    let created = runtime.create(&second, "again-second");
    assert_eq!(created.status, 0, "{}", created.err);
    runtime.ok(["start", "again-second"]);
    let said =
        runtime.ok(["exec", "again-second", "sh", "-c", "id -u; hostname; readlink /proc/self/ns/pid"]);
    let pids = fs::read_link(format!("/proc/{pid}/ns/pid")).expect("ns").display().to_string();
    assert_eq!(said.out, format!("0\nbox\n{pids}\n"));
}

#[test]
fn a_member_that_joins_a_user_namespace_may_have_a_cgroup_of_its_own() {
    let runtime = Runtime::new();
    // As of Docker with --userns-remap.
    let writable = |c: &mut serde_json::Value| {
        let mounts = c["mounts"].as_array_mut().expect("mounts");
        let cgroup = mounts.iter_mut().find(|m| m["type"] == "cgroup").expect("a cgroup mount");
        cgroup["options"] = json!(["nosuid", "noexec", "nodev"]);
    };
    let first = owned("owns", "exec sleep 1000", writable);
    runtime.created(&first, "owns-first");
    let pid = runtime.pid("owns-first");
    let second = owned("owns", "stat -c %u /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/own", |c| {
        writable(c);
        for namespace in c["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            let file = match namespace["type"].as_str() {
                Some("user") => "user",
                Some("network") => "net",
                _ => continue,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
    });
    let said = runtime.run(&second, "owns-second");
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "0\n", ""));
}

#[test]
fn all_that_join_a_pid_namespace_start_however_busy_the_machine_is() {
    let runtime = Runtime::new();
    let first = Bundle::new("busy", &["sleep", "1000"]);
    runtime.created(&first, "busy-first");
    let pid = runtime.pid("busy-first");
    // The mount is what the newborn asks for as soon as it is made, perhaps sooner than rcrun hears that it was made.
    let joins = Bundle::new("joins", &["true"]).with(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
        let pids = namespaces.iter_mut().find(|n| n["type"] == "pid").expect("a pid namespace");
        pids["path"] = json!(format!("/proc/{pid}/ns/pid"));
        let mounts = c["mounts"].as_array_mut().expect("mounts");
        mounts
            .insert(0, json!({"destination": "/tmp", "type": "bind", "source": "/usr", "options": ["bind"]}));
    });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (runtime, joins) = (&runtime, &joins);
            scope.spawn(move || {
                for number in 0..16 {
                    let said = runtime.run(joins, &format!("busy-{thread}-{number}"));
                    assert_eq!((said.status, said.err.as_str()), (0, ""), "{thread} {number}");
                }
            });
        }
    });
}

#[test]
fn a_new_user_namespace_joins_the_network_ipc_and_uts_namespaces_of_the_machines_side() {
    let runtime = Runtime::new();
    let first = Bundle::new("plain", &["sleep", "1000"]);
    assert_eq!(runtime.create(&first, "plain-first").status, 0);
    let pid = runtime.pid("plain-first");
    let script = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; cat /proc/self/uid_map; cat /proc/self/mountinfo";
    let second = owned("joinsplain", script, |c| {
        c.as_object_mut().expect("config").remove("hostname");
        for namespace in c["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            let file = match namespace["type"].as_str() {
                Some("network") => "net",
                Some("ipc") => "ipc",
                Some("uts") => "uts",
                Some("pid") => "pid",
                _ => continue,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
        // mqueue of an ipc namespace that is not owned could only be the machine's; a procfs of a pid namespace that is not
        // owned is refused by the kernel, so the machine's is bound.
        let mounts = c["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"] != "/dev/mqueue");
        mounts[0] = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    });
    let said = runtime.run(&second, "plain-second");
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    for (line, file) in lines.iter().zip(["net", "ipc", "uts"]) {
        let expected = fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("ns").display().to_string();
        assert_eq!(**line, expected, "{file}");
    }
    assert_eq!(lines[4].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"], "{}", said.out);
    assert_eq!(Mounted::on(&said.out, "/sys").kind, "sysfs");
}

#[test]
fn when_the_owner_of_a_joined_pid_namespace_dies_its_members_are_stopped_and_can_be_deleted() {
    let runtime = Runtime::new();
    let first = Bundle::new("owner", &["sleep", "1000"]);
    assert_eq!(runtime.create(&first, "pid-owner").status, 0);
    runtime.ok(["start", "pid-owner"]);
    let pid = runtime.pid("pid-owner");
    let second = Bundle::new("guest", &["sh", "-c", "sleep 1000 & sleep 1001"]).with(|c| {
        c["linux"]["namespaces"][0] = json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")});
    });
    let created = runtime.create(&second, "pid-guest");
    assert_eq!(created.status, 0, "{}", created.err);
    runtime.ok(["start", "pid-guest"]);
    let inside = runtime
        .ok(["exec", "pid-guest", "sh", "-c", "echo $(($$ > 1)); cat /proc/1/cmdline | tr '\\0' ' '"])
        .out;
    assert_eq!(inside, "1\nsleep 1000 ");
    runtime.ok(["delete", "--force", "pid-owner"]);
    assert_eq!(runtime.status("pid-guest"), "stopped");
    runtime.ok(["delete", "pid-guest"]);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn a_guest_of_a_pid_namespace_dies_alone_and_whole() {
    let runtime = Runtime::new();
    let first = Bundle::new("host", &["sleep", "1000"]);
    assert_eq!(runtime.create(&first, "pid-host").status, 0);
    runtime.ok(["start", "pid-host"]);
    let pid = runtime.pid("pid-host");
    let second = Bundle::new("visitor", &["sh", "-c", "sleep 1000 & sleep 1001"]).with(|c| {
        c["linux"]["namespaces"][0] = json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")});
    });
    assert_eq!(runtime.create(&second, "pid-visitor").status, 0);
    runtime.ok(["start", "pid-visitor"]);
    runtime.ok(["delete", "--force", "pid-visitor"]);
    let listed = runtime.ok(["exec", "pid-host", "ps"]).out;
    assert!(listed.contains("sleep 1000") && !listed.contains("1001"), "{listed}");
    assert_eq!(runtime.status("pid-host"), "running");
    runtime.ok(["delete", "--force", "pid-host"]);
}
