//! How the kernel runs the container's processes, as the kernel tells it: execution domain, scheduling policy, I/O
//! priority, memory policy, CPUs; of the first process and of those that exec adds.

use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{field, inside, shell, try_inside};
use runtime_tests::runtime::{Lines, Runtime};
use serde_json::{Value, json};

/// Real-time priority and policy: fields 40 and 41 of proc_pid_stat(5).
const SCHEDULE: &str = "cut -d' ' -f40,41 /proc/$$/stat";
/// With nice before them.
const NICE: &str = "cut -d' ' -f19,40,41 /proc/$$/stat";

#[test]
fn the_execution_domain_is_that_of_the_config() {
    for (domain, expected) in [(Some("LINUX32"), "i686"), (Some("LINUX"), "x86_64"), (None, "x86_64")] {
        if cfg!(not(target_arch = "x86_64")) && domain == Some("LINUX32") {
            continue;
        }
        let seen = inside("domain", "/bin/busybox uname -m", |c| {
            if let Some(domain) = domain {
                c["linux"]["personality"] = json!({ "domain": domain });
            }
        });
        let expected = if expected == "i686" { expected } else { std::env::consts::ARCH };
        assert_eq!(seen.trim(), expected, "{domain:?}");
    }
}

#[test]
fn a_flag_of_the_personality_is_refused() {
    let said = try_inside("domainflag", "true", |c| {
        c["linux"]["personality"] = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] });
    });
    assert_eq!(said.status, 1);
    assert!(said.err.contains("/linux/personality/flags/0"), "{}", said.err);
}

#[test]
fn each_policy_is_that_of_the_config() {
    for (scheduler, script, expected) in [
        (json!({ "policy": "SCHED_OTHER", "nice": 7 }), NICE, "7 0 0"),
        (json!({ "policy": "SCHED_OTHER", "nice": -5 }), NICE, "-5 0 0"),
        (json!({ "policy": "SCHED_OTHER" }), NICE, "0 0 0"),
        (json!({ "policy": "SCHED_BATCH", "nice": 3 }), NICE, "3 0 3"),
        // Their nice is whoever's the test is.
        (json!({ "policy": "SCHED_IDLE" }), SCHEDULE, "0 5"),
        (json!({ "policy": "SCHED_FIFO", "priority": 9 }), SCHEDULE, "9 1"),
        (json!({ "policy": "SCHED_RR", "priority": 1 }), SCHEDULE, "1 2"),
        (
            json!({ "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"],
                    "runtime": 1_000_000, "deadline": 100_000_000, "period": 100_000_000 }),
            SCHEDULE,
            "0 6",
        ),
        (json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"] }), NICE, "0 0 0"),
    ] {
        let seen = inside("policy", script, |c| c["process"]["scheduler"] = scheduler.clone());
        assert_eq!(seen.trim(), expected, "{scheduler}");
    }
}

#[test]
fn a_child_has_the_policy_unless_a_flag_resets_it() {
    for (flags, expected) in [(json!([]), "4 1"), (json!(["SCHED_FLAG_RESET_ON_FORK"]), "0 0")] {
        let seen = inside("onfork", "sh -c 'cut -d\" \" -f40,41 /proc/$$/stat; true'; true", |c| {
            c["process"]["scheduler"] = json!({ "policy": "SCHED_FIFO", "priority": 4, "flags": flags });
        });
        assert_eq!(seen.trim(), expected, "{flags}");
    }
}

#[test]
fn what_the_kernel_refuses_is_told_with_the_field() {
    for (scheduler, words) in [
        (json!({ "policy": "SCHED_ISO" }), "EINVAL"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 100, "deadline": 10, "period": 10 }), "EINVAL"),
    ] {
        let said = try_inside("nopolicy", "true", |c| c["process"]["scheduler"] = scheduler.clone());
        let told = said.err.contains("/process/scheduler") && said.err.contains("sched_setattr");
        assert!(said.status == 1 && told && said.err.contains(words), "{scheduler}: {}", said.err);
    }
}

#[test]
fn the_io_priority_is_that_of_the_config_and_children_have_it() {
    for (class, level, expected) in [
        ("IOPRIO_CLASS_BE", 4, "best-effort: prio 4"),
        ("IOPRIO_CLASS_BE", 0, "best-effort: prio 0"),
        ("IOPRIO_CLASS_RT", 7, "realtime: prio 7"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        let seen = inside("ioprio", "busybox ionice -p $$; busybox ionice", |c| {
            c["process"]["ioPriority"] = json!({ "class": class, "priority": level });
        });
        assert_eq!(seen, format!("{expected}\n{expected}\n"), "{class} {level}");
    }
}

#[test]
fn the_memory_policy_is_that_of_the_config() {
    // The word after the address of a fresh mapping; "default" is what the machine's processes have.
    let script = "cut -d' ' -f2 /proc/self/numa_maps | sort -u | head -1";
    for (policy, expected) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), "bind=static:0"),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), "interleave:0"),
        (
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0-1023", "flags": ["MPOL_F_RELATIVE_NODES"] }),
            "interleave=relative:0",
        ),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), "prefer:0"),
        (json!({ "mode": "MPOL_PREFERRED" }), "local"),
        (json!({ "mode": "MPOL_LOCAL", "nodes": "" }), "local"),
        (json!({ "mode": "MPOL_DEFAULT" }), "default"),
    ] {
        let seen = inside("mempolicy", script, |c| c["linux"]["memoryPolicy"] = policy.clone());
        assert_eq!(seen.trim(), expected, "{policy}");
    }
    let said = try_inside("nonode", "true", |c| {
        c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "1023" });
    });
    assert!(said.status == 1 && said.err.contains("/linux/memoryPolicy"), "{}", said.err);
    assert!(said.err.contains("set_mempolicy"), "{}", said.err);
}

/// A running container whose config was changed.
struct Box {
    runtime: Runtime,
    _bundle: Bundle,
    _lines: Lines,
    id: String,
}

impl Box {
    fn new(change: impl FnOnce(&mut Value)) -> Box {
        let runtime = Runtime::new();
        let bundle = shell("scheduled", "echo up; exec sleep 1000", change);
        let id = format!("sched-{}", runtime.root().file_name().expect("a name").to_string_lossy());
        let mut lines = runtime.detached(&bundle, &id);
        assert_eq!(lines.line(), "up");
        Box { runtime, _bundle: bundle, _lines: lines, id }
    }

    fn exec(&self, script: &str) -> String {
        self.runtime.ok(["exec", &self.id, "sh", "-c", script]).out.trim().to_string()
    }

    /// Of a process.json.
    fn process(&self, script: &str, change: impl FnOnce(&mut Value)) -> runtime_tests::runtime::Said {
        let mut process = json!({ "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"] });
        change(&mut process);
        let file = self._bundle.path().join("process.json");
        std::fs::write(&file, process.to_string()).expect("process.json");
        self.runtime.say(["exec", "--process", file.to_str().expect("UTF-8"), &self.id])
    }
}

#[test]
fn an_exec_is_scheduled_as_the_container_or_as_its_own_process_says() {
    let inside = Box::new(|c| {
        c["process"]["scheduler"] = json!({ "policy": "SCHED_RR", "priority": 3 });
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 2 });
        c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_PREFERRED", "nodes": "0" });
        c["linux"]["personality"] = json!({ "domain": "LINUX32" });
    });
    assert_eq!(inside.exec(SCHEDULE), "3 2");
    assert_eq!(inside.exec("busybox ionice"), "best-effort: prio 2");
    assert_eq!(inside.exec("cut -d' ' -f2 /proc/self/numa_maps | sort -u | head -1"), "prefer:0");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(inside.exec("busybox uname -m"), "i686");
    }
    for (scheduler, expected) in [
        (json!(null), "0 0"),
        (json!({ "policy": "SCHED_BATCH", "nice": 4 }), "0 3"),
        // A fork does not carry these over.
        (json!({ "policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }), "5 1"),
        (
            json!({ "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
                    "runtime": 1_000_000, "deadline": 100_000_000 }),
            "0 6",
        ),
    ] {
        let said = inside.process(SCHEDULE, |p| {
            if !scheduler.is_null() {
                p["scheduler"] = scheduler.clone();
            }
        });
        assert_eq!((said.out.trim(), said.err.as_str()), (expected, ""), "{scheduler}");
    }
    let said =
        inside.process("busybox ionice", |p| p["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE" }));
    assert_eq!((said.out.trim(), said.err.as_str()), ("idle", ""));
    let said = inside.process("true", |p| {
        p["scheduler"] = json!({ "policy": "SCHED_DEADLINE", "runtime": 100, "deadline": 10 });
    });
    assert_eq!(said.status, 255);
    assert!(said.err.contains("/scheduler") && said.err.contains("sched_setattr"), "{}", said.err);
}

#[test]
fn an_exec_runs_on_the_cpus_that_it_is_told_and_the_container_on_all() {
    let cpus = || std::fs::read_to_string("/proc/self/status").expect("status");
    let all = field(&cpus(), "Cpus_allowed_list").to_string();
    let last = all.rsplit([',', '-']).next().expect("a CPU").to_string();
    let first = all.split([',', '-']).next().expect("a CPU").to_string();
    let script = "sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status";
    let inside = Box::new(|c| {
        c["process"]["execCPUAffinity"] = json!({ "initial": first.clone(), "final": last.clone() })
    });
    let own = std::fs::read_to_string(format!("/proc/{}/status", inside.runtime.pid(&inside.id)));
    assert_eq!(field(&own.expect("status of init"), "Cpus_allowed_list"), all);
    assert_eq!(inside.exec(script), last);
    for (affinity, expected) in [
        (json!({ "final": first.clone() }), first.as_str()),
        (json!({ "initial": first.clone() }), first.as_str()),
        (json!({ "initial": last.clone(), "final": "" }), last.as_str()),
        (json!({ "initial": "", "final": format!(" {first} , ") }), first.as_str()),
        (json!({}), all.as_str()),
    ] {
        let said = inside.process(script, |p| p["execCPUAffinity"] = affinity.clone());
        assert_eq!((said.out.trim(), said.err.as_str()), (expected, ""), "{affinity}");
    }
    for (affinity, at) in [
        (json!({ "final": "8191" }), "/execCPUAffinity/final"),
        (json!({ "initial": "8191" }), "/execCPUAffinity/initial"),
        (json!({ "initial": "8192" }), "/execCPUAffinity/initial"),
        (json!({ "final": "1-0" }), "/execCPUAffinity/final"),
        (json!({ "final": "x" }), "/execCPUAffinity/final"),
    ] {
        let said = inside.process("true", |p| p["execCPUAffinity"] = affinity.clone());
        assert!(said.status == 255 && said.err.contains(at), "{affinity}: {}", said.err);
    }
}
