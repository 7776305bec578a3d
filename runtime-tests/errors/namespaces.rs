//! Paths of namespaces that lead elsewhere, and ids that cannot be mapped.

use super::scene::{Beside, Scene};
use super::{Case, case, told};
use crate::runtime::Said;
use serde_json::{Value, json};

const PART: &str = "namespaces";

/// The config's namespaces with the one at `index` (pid, network, ipc, uts, mount, cgroup) joined by this path.
fn joined(s: &mut Scene, index: usize, path: &str) -> Said {
    s.put(&format!("/linux/namespaces/{index}/path"), json!(path)).create()
}

fn user(s: &mut Scene, maps: Value) -> &mut Scene {
    s.with(|config| {
        config["linux"]["namespaces"].as_array_mut().expect("list").push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = maps.clone();
        config["linux"]["gidMappings"] = maps;
    })
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            PART,
            "a network namespace whose path is missing",
            told("system", "/linux/namespaces/1", &["/run/netns/pod", "no such file or directory"]),
            |s| joined(s, 1, "/run/netns/pod"),
        ),
        case(
            PART,
            "a network namespace whose path is a file",
            told(
                "config",
                "/linux/namespaces/1/path",
                &["/mnt/bundle/config.json", "not a network namespace"],
            ),
            |s| joined(s, 1, "/mnt/bundle/config.json"),
        ),
        case(
            PART,
            "a network namespace whose path is that of another kind",
            told("config", "/linux/namespaces/1/path", &["/proc/self/ns/uts", "not a network namespace"]),
            |s| joined(s, 1, "/proc/self/ns/uts"),
        ),
        case(
            PART,
            "a network namespace of a process that has ended",
            told("system", "/linux/namespaces/1", &["ns/net", "no such file or directory"]),
            |s| {
                let ended = Beside::start("true", &[] as &[&str]);
                let path = format!("/proc/{}/ns/net", ended.pid());
                drop(ended);
                joined(s, 1, &path)
            },
        ),
        case(
            PART,
            "a pid namespace whose path is missing",
            told("system", "/linux/namespaces/0", &["/proc/nobody/ns/pid", "no such file or directory"]),
            |s| joined(s, 0, "/proc/nobody/ns/pid"),
        ),
        case(
            PART,
            "a mount namespace whose path is a folder",
            told("config", "/linux/namespaces/4/path", &["/mnt/bundle", "not a mount namespace"]),
            |s| joined(s, 4, "/mnt/bundle"),
        ),
        case(
            PART,
            "a cgroup namespace whose path is that of another kind",
            told("config", "/linux/namespaces/5/path", &["/proc/self/ns/ipc", "not a cgroup namespace"]),
            |s| joined(s, 5, "/proc/self/ns/ipc"),
        ),
        case(
            PART,
            "the runtime's own user namespace",
            told("system", "/linux/namespaces/6", &["/proc/self/ns/user"]),
            |s| {
                s.put("/linux/namespaces/6", json!({ "type": "user", "path": "/proc/self/ns/user" })).create()
            },
        ),
        case(
            PART,
            "a user namespace whose path is missing",
            told("system", "/linux/namespaces/6", &["/run/userns/pod", "no such file or directory"]),
            |s| s.put("/linux/namespaces/6", json!({ "type": "user", "path": "/run/userns/pod" })).create(),
        ),
        case(
            PART,
            "a hostname without a uts namespace",
            told("config", "/hostname", &["UTS namespace"]),
            |s| {
                s.with(|config| drop(config["linux"]["namespaces"].as_array_mut().expect("list").remove(3)))
                    .create()
            },
        ),
        case(
            PART,
            "a user namespace whose maps miss root",
            told("config", "/process/user/uid", &["uid 0", "not mapped"]),
            |s| user(s, json!([{ "containerID": 1000, "hostID": 1000, "size": 1 }])).create(),
        ),
        case(
            PART,
            "a group that is not mapped",
            told("system", "/process/user", &["5000", "has no mapping"]),
            |s| {
                user(s, json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]));
                s.put("/process/user/additionalGids", json!([5000])).create()
            },
        ),
        case(
            PART,
            "a time offset without a time namespace",
            told("config", "/linux/timeOffsets", &["time namespace"]),
            |s| s.put("/linux/timeOffsets", json!({ "boottime": { "secs": 10 } })).create(),
        ),
        case(
            PART,
            "a time offset before the machine's start",
            told("system", "/linux/timeOffsets", &["numerical result out of range"]),
            |s| {
                s.put("/linux/namespaces/6", json!({ "type": "time" }));
                s.put("/linux/timeOffsets", json!({ "boottime": { "secs": -4_000_000_000_i64 } })).create()
            },
        ),
    ]
}
