//! A container whose first process traces whatever appears in its pid namespace (CVE-2016-9962): none of the processes
//! that exec puts there ever has what the container has not.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::Bundle;
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
    fn new(name: &str) -> Tracing {
        let runtime = Runtime::new();
        let bundle = Bundle::new(name, &["/bin/attach", "/seen"]).with(|config| {
            config["root"]["readonly"] = json!(false);
            with_ptrace(config);
        });
        compile("attach", &bundle.root().join("bin/attach"));
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
    let tracing = Tracing::new("traced-exec");
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
