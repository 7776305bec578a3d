//! Capabilities that a container's program was not given: by inheritable sets and file capabilities.

use crate::victim::{Loot, holds, id, is_runc};
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::field;
use runtime_tests::programs;
use runtime_tests::runtime::{Runtime, Said};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::json;
use std::fs;

/// CAP_KILL, CAP_NET_BIND_SERVICE and CAP_SYS_ADMIN as inheritable ones of a file, with the effective bit (capabilities(7),
/// struct vfs_cap_data of version 2).
fn inheritable() -> [u8; 20] {
    let caps: u32 = 1 << 5 | 1 << 10 | 1 << 21;
    let mut data = [0; 20];
    data[..4].copy_from_slice(&(0x0200_0000_u32 | 1).to_le_bytes());
    data[8..12].copy_from_slice(&caps.to_le_bytes());
    data
}

/// A user's program with that file has nothing, and root has nothing to hand down.
fn raised(said: &Said, way: &str) -> Loot {
    if !said.out.contains("CapInh") {
        return None;
    }
    let set = |name: &str| u64::from_str_radix(field(&said.out, name), 16).expect("a mask");
    let sets =
        ["CapInh", "CapAmb"].iter().chain(if way.contains("user") { &["CapEff", "CapPrm"][..] } else { &[] });
    let full: Vec<_> =
        sets.filter(|name| set(name) != 0).map(|name| format!("{name} {:x}", set(name))).collect();
    (!full.is_empty()).then(|| format!("{way}: {}", full.join(", ")))
}

#[test]
fn cve_2022_24769_no_file_raises_capabilities_by_inheritable_ones() {
    holds(|runtime: &Runtime| {
        let id = id("24769");
        let bundle = |args: &[&str], uid: u32| {
            let bundle = Bundle::new("cve-caps", args).with(|config| {
                config["process"]["noNewPrivileges"] = json!(false);
                config["process"]["user"] = json!({"uid": uid, "gid": uid});
            });
            let busybox = bundle.root().join("bin/busybox");
            let tool = bundle.root().join("bin/tool");
            programs::copy(&busybox, &tool);
            fs::rename(&tool, bundle.root().join("bin/grep")).expect("rename");
            let grep = bundle.root().join("bin/grep");
            setxattr(&grep, "security.capability", &inheritable(), XattrFlags::empty()).expect("setxattr");
            bundle
        };
        let look = ["grep", "Cap", "/proc/self/status"];
        let running = bundle(&["sleep", "1000"], 0);
        runtime.create(&running, &id);
        runtime.ok(["start", &id]);
        let exec = |options: &[&str]| runtime.say([&["exec"], options, &[id.as_str()], &look].concat());
        let process = running.path().join("process.json");
        let mut config = running.config["process"].clone();
        config["args"] = json!(look);
        config["user"] = json!({"uid": 33, "gid": 33});
        fs::write(&process, config.to_string()).expect("process.json");
        let ways = [
            ("run of root", runtime.run(&bundle(&look, 0), &format!("{id}-run"))),
            ("run of a user", runtime.run(&bundle(&look, 33), &format!("{id}-run"))),
            ("exec of root", exec(&[])),
            ("exec of a user", exec(&["--user", "33"])),
            ("exec of root with --cap", exec(&["--cap", "CAP_SYS_ADMIN"])),
            ("exec of a file's user", exec(&["--process", process.to_str().expect("UTF-8")])),
        ];
        runtime.ok(["delete", "--force", &id]);
        let worked = ways.iter().filter(|(_, said)| said.out.contains("CapInh")).count();
        assert!(is_runc(runtime) || worked >= 3, "{ways:?}");
        ways.iter().find_map(|(way, said)| raised(said, way))
    });
}
