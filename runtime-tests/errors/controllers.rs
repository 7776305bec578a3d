//! Limits of controllers that are there: in a machine of our own, for this one may have none.

use super::cgroups::in_parent;
use super::{Case, Told, case, told};
use serde_json::{Value, json};

const PART: &str = "controllers";

fn limit(name: &'static str, at: &'static str, value: Value, told: Told) -> Case {
    case(PART, name, told, move |s| s.put(at, value.clone()).create())
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        limit(
            "a memory limit in which init does not begin",
            "/linux/resources/memory/limit",
            json!(4096),
            told("system", "", &["memory limit too low?"]),
        ),
        case(
            PART,
            "a parent that has no memory for init",
            told("system", "", &["execveat", "memory.max of its cgroup, or of one above"]),
            |s| in_parent(s, |parent| parent.write("memory.max", "4096")),
        ),
        case(
            PART,
            "a parent that allows no process",
            told("system", "", &["clone3", "resource temporarily unavailable", "pids.max of a cgroup above"]),
            |s| in_parent(s, |parent| parent.write("pids.max", "0")),
        ),
        case(
            PART,
            "exec in a container that has all its processes",
            told("system", "", &["resource temporarily unavailable", "pids.max"]).status(255),
            |s| s.put("/linux/resources/pids/limit", json!(1)).up().say(&["exec", "ID", "true"]),
        ),
        limit(
            "a cpu quota below the kernel's least",
            "/linux/resources/cpu/quota",
            json!(1),
            told(
                "system",
                "/linux/resources/cpu/quota",
                &["cpu.max", "invalid argument", "a quota at least 1000"],
            ),
        ),
        limit(
            "a rate for a device that is not there",
            "/linux/resources/blockIO/throttleReadBpsDevice",
            json!([{ "major": 250, "minor": 250, "rate": 1000 }]),
            told(
                "system",
                "/linux/resources/blockIO/throttleReadBpsDevice/0/rate",
                &["io.max", "250:250", "no such device"],
            ),
        ),
        limit(
            "a value that is none, for a file of cgroup v2",
            "/linux/resources/unified",
            json!({ "memory.max": "much" }),
            told("system", "/linux/resources/unified/memory.max", &["memory.max", "invalid argument"]),
        ),
        case(
            PART,
            "a lower memory limit than what is used, to be checked before",
            told("system", "", &["rejecting memory limit 4096", "memory.checkBeforeUpdate"]),
            |s| {
                s.put("/linux/resources/memory", json!({ "limit": 64 << 20, "checkBeforeUpdate": true }));
                s.up().say(&["update", "--memory", "4096", "ID"])
            },
        ),
    ]
}
