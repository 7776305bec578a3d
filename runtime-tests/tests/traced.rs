//! A container whose first process traces whatever appears in its pid namespace (CVE-2016-9962): none of the processes
//! that exec puts there ever has what the container has not.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{give, user_namespace};
use runtime_tests::machine::own_mount_namespace;
use runtime_tests::programs::compile;
use runtime_tests::runtime::{Lines, Runtime, Said, said};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A container that traces, with few capabilities; among them the one for it.
struct Tracing {
    runtime: Runtime,
    bundle: Bundle,
    lines: Lines,
    id: String,
}

fn with_ptrace(config: &mut Value) {
    // The second to look at the fds of another user's processes.
    let caps = json!(["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    config["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
}

impl Tracing {
    fn new(name: &str, change: fn(&mut Value)) -> Tracing {
        let runtime = Runtime::new();
        let bundle = Bundle::new(name, &["/bin/attach", "/seen"]).with(|config| {
            config["root"]["readonly"] = json!(false);
            with_ptrace(config);
            change(config);
        });
        compile("attach", &bundle.root().join("bin/attach"));
        if bundle.config["linux"]["uidMappings"].is_array() {
            give(&bundle.root());
        }
        let id = format!("{name}-{}", std::process::id());
        let mut lines = runtime.detached(&bundle, &id);
        assert_eq!(lines.line(), "watching");
        Tracing { runtime, bundle, lines, id }
    }

    /// A command of the runtime, which a tracer that forgets somebody must not hold for ever.
    fn say(&self, words: &[&str]) -> Said {
        let command = self.runtime.command(words);
        let mut limited = Command::new("timeout");
        limited.args(["--signal=KILL", "30"]).arg(command.get_program()).args(command.get_args());
        let said = said(&limited.stdin(std::process::Stdio::null()).output().expect("timeout"));
        assert_ne!(said.status, 137, "{words:?} does not end");
        said
    }

    /// Ends it: a line for each state in which a process was seen, its own first; and how many were traced.
    fn end(mut self) -> (Vec<String>, u32) {
        kill(Pid::from_raw(self.runtime.pid(&self.id)), Signal::SIGTERM).expect("kill");
        let last = self.lines.line();
        let words: Vec<&str> = last.split(' ').collect();
        let ["attached", attached, "refused", refused] = words[..] else { panic!("{last}") };
        println!("{}: traced {attached}, could not trace {refused}", self.id);
        self.runtime.wait_for_end(&self.id);
        let text = fs::read_to_string(self.bundle.root().join("seen")).expect("what was seen");
        (text.lines().map(String::from).collect(), attached.parse().expect("a number"))
    }
}

fn value<'a>(line: &'a str, name: &str) -> &'a str {
    let word = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// What the process of `line` has and that of `own` has not.
fn beyond(runtime: &Path, own: &str, line: &str) -> Vec<String> {
    let mask = |line: &str, set: &str| u64::from_str_radix(value(line, set), 16).expect("a mask");
    let mut found = Vec::new();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let more = mask(line, set) & !mask(own, "CapBnd");
        if more != 0 {
            found.push(format!("{set} has {more:#x} more"));
        }
    }
    for (name, good) in [("namespaces", ""), ("root", "own"), ("cwd", "own"), ("fds", "")] {
        if value(line, name) != good {
            found.push(format!("{name}: {}", value(line, name)));
        }
    }
    // Its memory is the runtime's (CLONE_VM): who traces it writes to a process of the machine.
    if Path::new(value(line, "exe")) == runtime {
        found.push("it runs the runtime's own program".into());
    }
    found
}

/// No process of those seen had anything that the tracer has not.
fn nothing_beyond(runtime: &Path, seen: &[String]) {
    let own = &seen[0];
    let beyond = |line| beyond(runtime, own, line);
    assert!(beyond(own).is_empty(), "the measure itself: {own}");
    let states: BTreeMap<&str, usize> = seen.iter().fold(BTreeMap::new(), |mut states, line| {
        *states.entry(value(line, "exe")).or_default() += 1;
        states
    });
    println!("states by program: {states:?}");
    let found: Vec<_> = seen.iter().map(|line| (line, beyond(line))).filter(|(_, b)| !b.is_empty()).collect();
    // Each kind once, a few of them.
    let kinds: BTreeMap<String, &String> = found.iter().map(|(line, b)| (b.join(", "), *line)).collect();
    let told: Vec<String> = kinds.iter().rev().take(6).map(|(b, line)| format!("{b}\n  {line}")).collect();
    assert!(found.is_empty(), "{} states have what the container has not:\n{}", found.len(), told.join("\n"));
}

#[test]
fn a_process_that_exec_starts_has_nothing_at_any_moment_that_the_container_has_not() {
    own_mount_namespace();
    let tracing = Tracing::new("traced-exec", |_| {});
    let (mut worked, mut refused) = (0, Vec::new());
    for i in 0..200 {
        let user = if i % 2 == 0 { "0:0" } else { "33:33" };
        // The tracer is sure to meet the longer ones, if only after their execve.
        let command: &[&str] = if i % 4 < 2 { &["true"] } else { &["sleep", "0.02"] };
        let said = tracing.say(&[&["exec", "--user", user, &tracing.id], command].concat());
        match said.status {
            0 => worked += 1,
            _ => refused.push(said),
        }
    }
    println!("{worked} execs worked, {} were refused", refused.len());
    for said in &refused {
        assert_eq!((said.status, said.err.lines().count()), (255, 1), "{}{}", said.out, said.err);
    }
    let runtime = tracing.runtime.binary().to_path_buf();
    let (seen, traced) = tracing.end();
    nothing_beyond(&runtime, &seen);
    // Else the tracer was too slow to show anything.
    assert!(traced >= 50, "{traced}");
    assert!(worked >= 100, "{worked} worked, the others: {refused:?}");
}

/// Thirty containers that join the namespaces of `kinds` of the one that traces.
fn guests(tracing: &Tracing, kinds: &[&str]) {
    let pid = tracing.runtime.pid(&tracing.id);
    let guest = Bundle::new("traced-guest", &["sleep", "0.02"]).with(|config| {
        with_ptrace(config);
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != "pid");
        for kind in kinds {
            namespaces.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{kind}")}));
        }
    });
    give(&guest.root());
    let bundle = guest.path().to_str().expect("UTF-8");
    let id = format!("{}-guest", tracing.id);
    for i in 0..30 {
        if i % 3 < 2 {
            let ran = tracing.say(&["run", "--bundle", bundle, &id]);
            assert_eq!((ran.status, ran.err.as_str()), (0, ""));
        } else {
            tracing.runtime.created(&guest, &id);
            for words in [&["start"] as &[&str], &["delete", "--force"]] {
                let said = tracing.say(&[words, &[id.as_str()]].concat());
                assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}");
            }
        }
    }
}

#[test]
fn a_container_that_joins_its_pid_namespace_shows_it_no_process_with_the_runtimes_memory() {
    own_mount_namespace();
    let tracing = Tracing::new("traced-pod", |_| {});
    guests(&tracing, &["pid"]);
    let runtime = tracing.runtime.binary().to_path_buf();
    let (seen, traced) = tracing.end();
    let runs = seen.iter().filter(|line| Path::new(value(line, "exe")) == runtime).collect::<Vec<_>>();
    assert!(runs.is_empty(), "{} states of the runtime's own program, such as {}", runs.len(), runs[0]);
    // What sets up inside is told of in docs/security.md; here it shows that the tracer was fast enough.
    let init = seen.iter().filter(|line| value(line, "exe").starts_with("/memfd:")).count();
    println!("{init} states of init");
    assert!(traced >= 15 && init >= 100, "{traced} traced, {init} states of init");
}

#[test]
fn a_container_that_joins_its_pid_and_user_namespaces_cannot_be_traced_before_its_own_program_runs() {
    own_mount_namespace();
    let tracing = Tracing::new("traced-user-pod", user_namespace);
    guests(&tracing, &["user", "pid"]);
    let (seen, traced) = tracing.end();
    let early = seen.iter().filter(|line| !value(line, "exe").starts_with("/bin/")).collect::<Vec<_>>();
    assert!(early.is_empty(), "{} states before the program, such as {}", early.len(), early[0]);
    assert!(traced >= 15, "{traced}");
}
