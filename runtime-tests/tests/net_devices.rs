//! linux.netDevices: devices of the runtime's network namespace go into the container's, keep their addresses, and are up.
//! Each test works in a network namespace of its own.

use nix::sched::{CloneFlags, unshare};
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::shell;
use runtime_tests::runtime::{Runtime, Said};
use serde_json::{Value, json};
use std::process::Command;

fn sh(script: &str) -> String {
    let said = Command::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(said.status.success(), "{script}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// This thread, and all that it starts, goes to a network namespace with the pair `out` and `peer`.
fn with_pair() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare -n");
    // busybox leaves the name of the other end to the kernel.
    sh("busybox ip link add out type veth
        busybox ip link set veth0 name peer
        busybox ip link set lo up
        busybox ip link set peer up");
}

fn bundle(name: &str, script: &str, devices: Value) -> Bundle {
    shell(name, script, |c| c["linux"]["netDevices"] = devices.clone())
}

fn run(name: &str, script: &str, devices: Value) -> Said {
    Runtime::new().run(&bundle(name, script, devices), name)
}

#[test]
fn a_device_goes_inside_with_its_permanent_global_addresses_and_is_up() {
    with_pair();
    sh("busybox ip link set out mtu 1400 address 02:00:00:00:00:42 up
        busybox ip addr add 192.0.2.7/24 brd 192.0.2.255 dev out
        busybox ip addr add 198.51.100.1/32 dev out
        busybox ip addr add 169.254.1.1/16 dev out scope link
        busybox ip -6 addr add fd00:1::7/64 dev out");
    let said = run(
        "netdev",
        "ip addr show dev in; ip link show dev out 2>&1; true",
        json!({ "out": { "name": "in" } }),
    );
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{}", said.out);
    for line in [
        "mtu 1400",
        "link/ether 02:00:00:00:00:42",
        "inet 192.0.2.7/24 brd 192.0.2.255 scope global in",
        "inet 198.51.100.1/32 scope global in",
        "inet6 fd00:1::7/64 scope global",
        ",UP",
    ] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    assert!(!said.out.contains("169.254"), "{}", said.out);
    assert!(said.out.contains("can't find device 'out'"), "{}", said.out);
    // It was in the container's namespace, and is gone with it: so is its peer.
    // The kernel clears a namespace some time after its last process; each question is a process.
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while sh("busybox ip link").contains("peer") {
        assert!(std::time::Instant::now() < limit, "the peer is still there");
    }
}

#[test]
fn the_name_is_the_same_or_another_or_made_up_by_the_kernel() {
    for (device, expected) in [
        (json!({}), "out"),
        (json!({ "name": "" }), "out"),
        (json!({ "name": "eth7" }), "eth7"),
        (json!({ "name": "net%d" }), "net0"),
    ] {
        std::thread::spawn(move || {
            with_pair();
            let said = run("netname", "ls /sys/class/net", json!({ "out": device }));
            assert_eq!(
                (said.out.as_str(), said.err.as_str()),
                (format!("{}\n", sorted(expected)).as_str(), ""),
                "{device}"
            );
        })
        .join()
        .expect("the thread");
    }
}

fn sorted(name: &str) -> String {
    let mut names = ["lo", name];
    names.sort();
    names.join("\n")
}

#[test]
fn sysctls_of_the_device_are_set_after_it_has_come() {
    with_pair();
    let bundle = bundle(
        "netsysctl",
        "cat /proc/sys/net/ipv4/conf/eth0/forwarding",
        json!({ "out": { "name": "eth0" } }),
    )
    .with(|c| c["linux"]["sysctl"] = json!({ "net.ipv4.conf.eth0.forwarding": "1" }));
    let said = Runtime::new().run(&bundle, "netsysctl");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("1\n", ""));
}

#[test]
fn two_devices_go_into_a_namespace_that_is_joined_and_stay_there() {
    with_pair();
    let runtime = Runtime::new();
    let first = shell("netpod", "echo up; exec sleep 1000", |_| {});
    let mut lines = runtime.detached(&first, "netpod-one");
    assert_eq!(lines.line(), "up");
    let path = format!("/proc/{}/ns/net", runtime.pid("netpod-one"));
    let join = |name: &str, script: &str, devices: Value| {
        let bundle = bundle(name, script, devices).with(|c| {
            let spaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
            spaces.iter_mut().find(|n| n["type"] == "network").expect("network")["path"] = json!(path);
            c["mounts"].as_array_mut().expect("mounts").retain(|m| m["type"] != "sysfs");
        });
        runtime.run(&bundle, name)
    };
    let script = "ip -o link | wc -l";
    let said = join("netpod-two", script, json!({ "out": { "name": "a" }, "peer": { "name": "b" } }));
    assert_eq!((said.out.trim(), said.err.as_str()), ("3", ""));
    let there = runtime.ok(["exec", "netpod-one", "ip", "-o", "link"]).out;
    assert!(there.contains(" a@b:") && there.contains(" b@a:"), "{there}");
    // The name is taken: nothing is moved.
    sh("busybox ip link add out type veth; busybox ip link set veth0 name peer");
    let said = join("netpod-three", "true", json!({ "out": { "name": "a" } }));
    assert!(said.status == 1 && said.err.contains("/linux/netDevices/out"), "{}", said.err);
    assert!(said.err.contains("is in the container's network namespace already"), "{}", said.err);
    assert!(sh("busybox ip link").contains(" out@peer:"));
    runtime.ok(["delete", "--force", "netpod-one"]);
}

#[test]
fn what_cannot_be_moved_is_told_by_name() {
    with_pair();
    sh("busybox brctl addbr br0");
    for (devices, words) in [
        (json!({ "none0": {} }), "there is no network device none0"),
        (json!({ "br0": {} }), "cannot be moved"),
        (json!({ "out": { "name": "lo" } }), "is in the container's network namespace already"),
    ] {
        let said = run("netno", "true", devices.clone());
        assert!(said.status == 1 && said.err.contains("/linux/netDevices/"), "{devices}: {}", said.err);
        assert!(said.err.contains(words), "{devices}: {}", said.err);
    }
    assert!(sh("busybox ip link").contains(" out@peer:"));
}
