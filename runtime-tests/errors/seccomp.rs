//! Profiles that cannot be compiled, and agents that do not answer.

use super::scene::Scene;
use super::{Case, case, told};
use crate::runtime::Said;
use serde_json::{Value, json};

const PART: &str = "seccomp";
const FIELD: &str = "/linux/seccomp";

fn profile(s: &mut Scene, profile: Value) -> Said {
    s.put(FIELD, profile).create()
}

/// A profile with an agent, who is told when the program is to be executed.
fn agent(s: &mut Scene, profile: Value) -> Said {
    s.put(FIELD, profile).run()
}

/// A profile that allows all but this.
fn rule(s: &mut Scene, rule: Value) -> Said {
    profile(s, json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }))
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            PART,
            "an action that nobody knows",
            told("config", "/linux/seccomp/syscalls/0/action", &["SCMP_ACT_DENY"]),
            |s| rule(s, json!({ "names": ["mkdir"], "action": "SCMP_ACT_DENY" })),
        ),
        case(
            PART,
            "an architecture that nobody knows",
            told("config", "/linux/seccomp/architectures/0", &["SCMP_ARCH_VAX"]),
            |s| profile(s, json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"] })),
        ),
        case(
            PART,
            "an operator that nobody knows",
            told("config", "/linux/seccomp/syscalls/0/args/0/op", &["SCMP_CMP_IS"]),
            |s| {
                rule(
                    s,
                    json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_IS" }] }),
                )
            },
        ),
        case(
            PART,
            "a seventh argument",
            told("config", "/linux/seccomp/syscalls/0/args/0/index", &["6"]),
            |s| {
                rule(
                    s,
                    json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }] }),
                )
            },
        ),
        case(
            PART,
            "a rule without names",
            told("config", "/linux/seccomp/syscalls/0/names", &["name"]),
            |s| rule(s, json!({ "names": [], "action": "SCMP_ACT_ERRNO" })),
        ),
        case(
            PART,
            "a rule without an action",
            told("config", "/linux/seccomp/syscalls/0/action", &["required"]),
            |s| rule(s, json!({ "names": ["mkdir"] })),
        ),
        case(
            PART,
            "an errno for an action that returns none",
            told("config", "/linux/seccomp/syscalls/0/errnoRet", &["SCMP_ACT_KILL"]),
            |s| rule(s, json!({ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1 })),
        ),
        case(PART, "no default action", told("config", "/linux/seccomp/defaultAction", &["required"]), |s| {
            profile(s, json!({ "syscalls": [] }))
        }),
        case(
            PART,
            "a flag of the filter that nobody knows",
            told("config", "/linux/seccomp/flags/0", &["SECCOMP_FILTER_FLAG_X"]),
            |s| profile(s, json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"] })),
        ),
        case(
            PART,
            "an agent for all calls",
            told("config", "/linux/seccomp/defaultAction", &["SCMP_ACT_NOTIFY"]),
            |s| profile(s, json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/agent.sock" })),
        ),
        case(
            PART,
            "an agent for the call that tells the agent",
            told("config", "/linux/seccomp/syscalls/0/action", &["write", "SCMP_ACT_NOTIFY"]),
            |s| {
                profile(
                    s,
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
                "syscalls": [{ "names": ["write"], "action": "SCMP_ACT_NOTIFY" }] }),
                )
            },
        ),
        case(
            PART,
            "a rule for an agent, and no agent",
            told(
                "config",
                "/linux/seccomp/syscalls/0/action",
                &["SCMP_ACT_NOTIFY", "/linux/seccomp/listenerPath"],
            ),
            |s| rule(s, json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" })),
        ),
        case(
            PART,
            "an agent that is not there",
            told("host", "/linux/seccomp/listenerPath", &["/run/agent.sock", "no such file or directory"]),
            |s| {
                agent(
                    s,
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
                )
            },
        ),
        case(
            PART,
            "an agent whose socket nobody serves",
            told("host", "/linux/seccomp/listenerPath", &["/run/agent.sock", "connection refused"]),
            |s| {
                drop(std::os::unix::net::UnixListener::bind("/run/agent.sock").expect("bind"));
                agent(
                    s,
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
                )
            },
        ),
        case(
            PART,
            "an agent whose socket is a file",
            told("host", "/linux/seccomp/listenerPath", &["/run/agent.sock", "connection refused"]),
            |s| {
                std::fs::write("/run/agent.sock", "").expect("write");
                agent(
                    s,
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
                )
            },
        ),
        case(
            PART,
            "a filter that refuses the execution itself",
            told("execute", "/process/args/0", &["exec /bin/true:", "operation not permitted", "seccomp"]),
            |s| {
                s.put(FIELD, json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["execve", "execveat"], "action": "SCMP_ACT_ERRNO" }] }));
                s.args(&["/bin/true"]).run()
            },
        ),
    ]
}
