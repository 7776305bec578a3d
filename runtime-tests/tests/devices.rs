//! linux.devices and linux.resources.devices: nodes, their modes and owners, what every container has in /dev, and what
//! the cgroup's device program lets pass.

use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{Mounted, inside, shell, try_inside};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

fn devices(config: &mut Value, devices: Value) {
    config["linux"]["devices"] = devices;
}

fn rules(config: &mut Value, rules: Value) {
    config["linux"]["resources"]["devices"] = rules;
}

#[test]
fn every_container_has_the_default_devices_and_links() {
    let names = "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty";
    let seen = inside(
        "default-devices",
        &format!(
            "stat -c '%n %F %t:%T %a %u:%g' {names}; for l in fd stdin stdout stderr core ptmx; do readlink /dev/$l; done"
        ),
        |_| {},
    );
    let expected = [
        "/dev/null character special file 1:3 666 0:0",
        "/dev/zero character special file 1:5 666 0:0",
        "/dev/full character special file 1:7 666 0:0",
        "/dev/random character special file 1:8 666 0:0",
        "/dev/urandom character special file 1:9 666 0:0",
        "/dev/tty character special file 5:0 666 0:0",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "/proc/kcore",
        "pts/ptmx",
    ];
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_default_devices_can_be_used_whatever_the_rules_say() {
    let script = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c && head -c 4 /dev/random | wc -c; \
                  echo x 2>/dev/null > /dev/full || echo full; exec 3<>/dev/ptmx && echo ptmx";
    let seen = inside("used", script, |c| rules(c, json!([{"allow": false, "access": "rwm"}])));
    assert_eq!(seen, "4\n4\n4\nfull\nptmx\n");
}

#[test]
fn devices_have_the_type_numbers_mode_and_owner_of_the_config() {
    let rows = [
        (
            json!({"path": "/dev/c", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 3, "gid": 4}),
            "character special file a:e5 600 3:4",
        ),
        (
            json!({"path": "/dev/u", "type": "u", "major": 1, "minor": 3, "fileMode": 0o4711}),
            "character special file 1:3 4711 0:0",
        ),
        (
            json!({"path": "/dev/b", "type": "b", "major": 7, "minor": 300, "fileMode": 0o640, "uid": 0, "gid": 6}),
            "block special file 7:12c 640 0:6",
        ),
        (json!({"path": "/dev/p", "type": "p", "fileMode": 0o622, "uid": 8, "gid": 9}), "fifo 0:0 622 8:9"),
        (
            json!({"path": "/dev/bare", "type": "c", "major": 1, "minor": 7}),
            "character special file 1:7 666 0:0",
        ),
        // Docker writes st_mode, with the type of the file.
        (
            json!({"path": "/dev/typed", "type": "c", "major": 1, "minor": 7, "fileMode": 0o020644}),
            "character special file 1:7 644 0:0",
        ),
        (
            json!({"path": "/dev/below/made/c", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666}),
            "character special file 1:7 666 0:0",
        ),
        (
            json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 5}),
            "character special file 1:3 600 5:5",
        ),
        (
            json!({"path": "/elsewhere", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}),
            "character special file 1:5 666 0:0",
        ),
    ];
    let paths: Vec<&str> = rows.iter().map(|(d, _)| d["path"].as_str().expect("path")).collect();
    let seen = inside("nodes", &format!("stat -c '%F %t:%T %a %u:%g' {}", paths.join(" ")), |c| {
        devices(c, rows.iter().map(|(device, _)| device.clone()).collect());
    });
    for (line, (device, expected)) in seen.lines().zip(&rows) {
        assert_eq!(line, *expected, "{device}");
    }
    assert_eq!(seen.lines().count(), rows.len());
}

#[test]
fn a_node_of_the_image_is_taken_over_only_if_it_is_the_same_device() {
    for (minor, ok) in [(3, true), (5, false)] {
        let runtime = Runtime::new();
        let bundle = shell("taken", "stat -c '%t:%T %a' /opt", |c| {
            devices(c, json!([{"path": "/opt", "type": "c", "major": 1, "minor": minor, "fileMode": 0o640}]));
        });
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        mknod(&bundle.root().join("opt"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).expect("mknod");
        let said = runtime.run(&bundle, "taken");
        match ok {
            true => assert_eq!(said.out, "1:3 640\n", "{}", said.err),
            false => assert!(said.status == 1 && said.err.contains("/linux/devices/0"), "{}", said.err),
        }
    }
}

#[test]
fn what_lies_in_an_images_dev_is_not_followed() {
    let runtime = Runtime::new();
    let bundle = shell("imagedev", "stat -c '%F %t:%T' /dev/null; readlink /dev/ptmx", |c| {
        // No /dev of its own: that of the image is used.
        c["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|m| !m["destination"].as_str().expect("text").starts_with("/dev"));
        c["root"]["readonly"] = json!(false);
    });
    let dev = bundle.root().join("dev");
    fs::write(dev.join("ptmx"), "a file").expect("ptmx");
    let said = runtime.run(&bundle, "imagedev");
    assert_eq!(said.out, "character special file 1:3\npts/ptmx\n", "{}", said.err);
    fs::remove_file(dev.join("null")).expect("unlink");
    symlink("/etc/passwd", dev.join("null")).expect("symlink");
    let said = runtime.run(&bundle, "imagedev");
    assert!(said.status == 1 && said.err.contains("/dev/null"), "{}{}", said.out, said.err);
}

#[test]
fn the_device_cgroup_lets_pass_what_the_last_rule_allows() {
    let script = "(: < /dev/kmsg) 2>/dev/null && echo read; (: > /dev/kmsg) 2>/dev/null && echo write; mknod /tmp/n c 1 11 && echo made";
    let deny = json!({"allow": false, "access": "rwm"});
    let allow = |access: &str| json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": access});
    // mknod of any device is allowed, as with runc; using it is not.
    for (list, expected) in [
        (json!([deny]), "made"),
        (json!([deny, allow("r")]), "read made"),
        (json!([deny, allow("w")]), "write made"),
        (json!([deny, allow("m")]), "made"),
        (json!([deny, allow("rwm")]), "read write made"),
        (json!([deny, {"allow": true, "type": "c", "major": 1, "access": "rw"}]), "read write made"),
        (json!([deny, {"allow": true, "type": "c", "access": "r"}]), "read made"),
        (json!([deny, {"allow": true, "type": "b", "access": "rwm"}]), "made"),
        (json!([deny, {"allow": true, "type": "c", "major": -1, "minor": 11, "access": "r"}]), "read made"),
        (json!([deny, {"allow": true, "access": "rwm"}]), "read write made"),
        (
            json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"}]),
            "read made",
        ),
        (json!([deny, allow("rwm"), deny]), "made"),
        (json!([]), "made"),
    ] {
        let seen = inside("rules", script, |c| {
            devices(c, json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]));
            rules(c, list.clone());
            c["root"]["readonly"] = json!(false);
            let caps = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
            c["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
        });
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{list}");
    }
}

#[test]
fn a_device_of_the_config_is_not_allowed_by_being_there() {
    let runtime = Runtime::new();
    let node = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}]);
    let bundle = Bundle::new("kmsg", &["dd", "if=/dev/kmsg", "of=/dev/null", "bs=1", "count=1"]).with(|c| {
        devices(c, node);
        rules(c, json!([{"allow": false, "access": "rwm"}]));
    });
    let said = runtime.run(&bundle, "kmsg");
    assert!(said.status != 0 && said.err.contains("Operation not permitted"), "{}{}", said.status, said.err);
}

#[test]
fn dev_bound_from_the_machine_is_left_alone() {
    let seen = inside("binddev", "cat /proc/self/mountinfo", |c| {
        c["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|m| !m["destination"].as_str().expect("text").starts_with("/dev"));
        c["mounts"].as_array_mut().expect("mounts").push(
            json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rslave"]}),
        );
    });
    assert_eq!(Mounted::on(&seen, "/dev").root, "/");
}

#[test]
fn devices_that_cannot_be_are_refused_by_their_pointer() {
    for (device, pointer) in [
        (json!({"path": "/dev/x", "type": "a"}), "/linux/devices/0"),
        (json!({"path": "relative", "type": "c", "major": 1, "minor": 3}), "/linux/devices/0/path"),
        (json!({"path": "/dev/x", "type": "c", "major": 70_000, "minor": 3}), "/linux/devices/0/major"),
        (json!({"path": "/dev/x", "type": "c", "major": 1, "minor": -3}), "/linux/devices/0/minor"),
        (json!({"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}), "/linux/devices/0"),
    ] {
        let said = try_inside("cannot", "true", |c| devices(c, json!([device])));
        assert!(said.status == 1 && said.err.contains(pointer), "{device}: {}", said.err);
    }
}
