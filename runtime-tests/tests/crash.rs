//! Whoever is killed, wherever: a create or run before each of its own system calls and of its init's, an init before each
//! of its own. What is left is nothing, or a container that `delete --force` clears; `list` never fails.

use runtime_tests::bundle::Bundle;
use runtime_tests::machine::{cgroup2, mounts, own_mount_namespace};
use runtime_tests::runtime::Runtime;
use runtime_tests::trace::{Victim, trace};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// A bundle whose start has all kinds of steps: among them a user namespace, hooks on both sides, masks and a copy.
fn demanding(name: &str) -> Bundle {
    Bundle::new(name, &["sleep", "1000"]).with(|config| {
        let linux = &mut config["linux"];
        linux["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        let all = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
        (linux["uidMappings"], linux["gidMappings"]) = (all.clone(), all);
        linux["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        linux["maskedPaths"] = json!(["/proc/keys", "/sys/firmware"]);
        let hook = json!([{"path": "/bin/true"}]);
        config["hooks"] = json!({"createRuntime": hook, "createContainer": hook, "poststart": hook});
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(
            json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
        );
        mounts.push(
            json!({"destination": "/mnt", "type": "bind", "source": "/bin", "options": ["rbind", "ro"]}),
        );
    })
}

/// The same with hooks that do little: each system call of theirs is a stop.
fn demanding_with_short_hooks(name: &str) -> Bundle {
    let bundle = demanding(name);
    let busybox = bundle.root().join("bin/true");
    bundle.with(|config| {
        for hooks in config["hooks"].as_object_mut().expect("hooks").values_mut() {
            hooks[0]["path"] = json!(busybox);
        }
    })
}

fn plain(name: &str) -> Bundle {
    Bundle::new(name, &["sleep", "1000"])
}

/// Kills `victim` at every `stride`th of its stops during `verb`, and looks at what is left each time.
fn kill_everywhere(name: &str, make: fn(&str) -> Bundle, verb: &[&str], victim: Victim, stride: usize) {
    own_mount_namespace();
    let runtime = Runtime::new();
    let parent = format!("rcrun-crash-{}-{name}", std::process::id());
    let bundle = make(name).with(|config| config["linux"]["cgroupsPath"] = json!(format!("/{parent}/box")));
    let site = Site {
        cgroups: cgroup2().join(&parent),
        mounts: mounts(),
        command: [
            verb.iter().map(OsStr::new).collect(),
            vec![OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new("box")],
        ]
        .concat()
        .into_iter()
        .map(Into::into)
        .collect(),
        runtime,
    };
    let began = std::time::Instant::now();
    let (mut points, mut committed, mut at) = (0, 0, 0);
    // The stops of two processes interleave differently each time: it is over when the command came through unharmed.
    while site.kill_at(victim, at, &mut committed) {
        points += 1;
        at += stride as u32;
    }
    let _ = fs::remove_dir(&site.cgroups);
    println!("{name}: {points} points, {committed} left a container, {:?}", began.elapsed());
    assert!(points > 50, "only {points} points: was anything traced?");
}

struct Site {
    runtime: Runtime,
    command: Vec<std::ffi::OsString>,
    cgroups: std::path::PathBuf,
    mounts: String,
}

impl Site {
    /// One life; false when there were not so many stops.
    fn kill_at(&self, victim: Victim, at: u32, committed: &mut u32) -> bool {
        let mut traced = trace(&self.runtime.command(&self.command), victim, at);
        let place = format!("{victim:?} killed at stop {at}, system call {:?}", traced.killed_at);
        let mut status = self.listed(&place);
        if status == Some("creating") {
            // A child between clone and exec of init still holds the lock of the command that was killed.
            assert!(traced.all_end(), "{place}: a process goes on");
            status = self.listed(&place);
        }
        match status {
            Some("created" | "running") => {
                *committed += 1;
                traced.let_go();
            }
            Some("creating") => panic!("{place}: nobody creates it any more"),
            _ => assert!(traced.all_end(), "{place}: {status:?}, and a process goes on"),
        }
        // A command that could still say that it failed has left nothing, whatever became of its init.
        if traced.status == 1 {
            assert_eq!(status, None, "{place}: the command failed and left a container");
            self.nothing_is_left(&place);
        }
        if traced.killed_at.is_none() {
            assert_eq!(traced.status, 0, "{place}: nobody was killed");
        }
        let deleted = self.runtime.say(["delete", "--force", "box"]);
        assert_eq!(deleted.status, 0, "{place}: delete --force: {}", deleted.err);
        assert_eq!(self.runtime.ok(["list", "-q"]).out, "", "{place}");
        self.nothing_is_left(&place);
        traced.killed_at.is_some()
    }

    /// The container's status as `list` shows it, which has to succeed.
    fn listed(&self, place: &str) -> Option<&'static str> {
        let listed = self.runtime.ok(["list"]).out;
        listed.lines().skip(1).find(|l| l.starts_with("box ")).map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let known = ["creating", "created", "running", "stopped"];
            known
                .into_iter()
                .find(|k| words.contains(k))
                .unwrap_or_else(|| panic!("{place}: list says {line}"))
        })
    }

    fn nothing_is_left(&self, place: &str) {
        let names = |folder: &Path| -> Vec<_> {
            fs::read_dir(folder).into_iter().flatten().map(|e| e.expect("an entry").file_name()).collect()
        };
        assert!(names(self.runtime.root()).is_empty(), "{place}: {:?}", names(self.runtime.root()));
        // A cgroup that is gone held no process.
        assert!(!self.cgroups.join("box").exists(), "{place}: the cgroup is left");
        assert_eq!(mounts(), self.mounts, "{place}: a mount is left");
    }
}

#[test]
fn create_killed_at_any_system_call_leaves_nothing_that_delete_does_not_clear() {
    kill_everywhere("create", plain, &["create"], Victim::Command, 2);
}

#[test]
fn detached_run_killed_at_any_system_call_leaves_nothing_that_delete_does_not_clear() {
    kill_everywhere("run", demanding_with_short_hooks, &["run", "--detach"], Victim::Command, 7);
}

#[test]
fn create_whose_init_is_killed_at_any_system_call_fails_and_leaves_nothing() {
    kill_everywhere("init", plain, &["create"], Victim::Init, 2);
}

#[test]
fn detached_run_whose_init_is_killed_at_any_system_call_leaves_nothing_that_delete_does_not_clear() {
    kill_everywhere("init-run", demanding, &["run", "--detach"], Victim::Init, 2);
}
