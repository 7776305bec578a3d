//! hooks: all six in their order, with the state on stdin, in their namespaces; their environment, timeouts and failures.

use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::{is_alive, shell};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A hook that runs `script` in a shell; its $0 is `name`.
fn hook(name: &str, script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script, name], "env": ["PATH=/bin:/usr/bin"]})
}

/// A hook of each kind that appends what `script` prints to a log, which lies in the root: hooks outside reach it there,
/// createContainer too, since it runs before pivot_root, and startContainer reaches it as /log.
fn logging(bundle: Bundle, script: &str) -> Bundle {
    let log = bundle.root().join("log");
    fs::write(&log, "").expect("log");
    bundle.with(|c| {
        c["root"]["readonly"] = json!(false);
        let kinds =
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        for kind in kinds {
            let log = if kind == "startContainer" { Path::new("/log") } else { &log };
            c["hooks"][kind] = (1..=2)
                .map(|n| hook(&format!("{kind}{n}"), &format!("{{ {script}; }} >> {}", log.display())))
                .collect();
        }
    })
}

fn log(bundle: &Bundle) -> String {
    fs::read_to_string(bundle.root().join("log")).expect("log")
}

#[test]
fn all_six_run_in_order_each_at_its_time() {
    let runtime = Runtime::new();
    let bundle = logging(shell("order", "echo payload >> /log; exec sleep 1000", |_| {}), "echo $0");
    let created = runtime.create(&bundle, "order");
    assert_eq!(created.status, 0, "{}", created.err);
    let create = "prestart1\nprestart2\ncreateRuntime1\ncreateRuntime2\ncreateContainer1\ncreateContainer2\n";
    assert_eq!(log(&bundle), create);
    runtime.ok(["start", "order"]);
    // The payload and poststart run at the same time.
    let mut after: Vec<String> = log(&bundle)[create.len()..].lines().map(String::from).collect();
    assert_eq!(after[..2], ["startContainer1", "startContainer2"]);
    after.retain(|line| line != "payload");
    assert_eq!(after[2..], ["poststart1", "poststart2"]);
    runtime.ok(["kill", "order", "KILL"]);
    runtime.ok(["delete", "--force", "order"]);
    assert!(log(&bundle).ends_with("poststop1\npoststop2\n"), "{}", log(&bundle));
}

#[test]
fn run_runs_them_all_too() {
    let runtime = Runtime::new();
    let bundle = logging(shell("runall", "echo payload >> /log", |_| {}), "echo $0");
    let said = runtime.run(&bundle, "runall");
    assert_eq!(said.status, 0, "{}", said.err);
    let text = log(&bundle);
    let mut lines: Vec<&str> = text.lines().collect();
    assert!(lines.contains(&"payload"), "{lines:?}");
    lines.retain(|line| *line != "payload");
    let expected: Vec<String> =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
            .iter()
            .flat_map(|kind| [format!("{kind}1"), format!("{kind}2")])
            .collect();
    assert_eq!(lines, expected);
}

#[test]
fn each_gets_the_state_of_its_time_on_stdin() {
    let runtime = Runtime::new();
    let bundle = logging(Bundle::new("state", &["sleep", "1000"]), "echo \"$0 $(cat)\"")
        .with(|c| c["annotations"] = json!({"org.example.key": "a value", "empty": ""}));
    assert_eq!(runtime.create(&bundle, "hookstate").status, 0);
    let pid = runtime.pid("hookstate");
    runtime.ok(["start", "hookstate"]);
    runtime.ok(["delete", "--force", "hookstate"]);
    let text = log(&bundle);
    let states: Vec<(&str, Value)> = text
        .lines()
        .map(|line| line.split_once(' ').expect("name"))
        .map(|(name, state)| (name, serde_json::from_str(state).expect("JSON")))
        .collect();
    assert_eq!(states.len(), 12, "{text}");
    for (name, state) in states {
        let status = match name.trim_end_matches(['1', '2']) {
            "poststart" => "running",
            "poststop" => "stopped",
            // runtime.md: "creating" or "created" for those of create, "created" for startContainer.
            _ => "created",
        };
        assert_eq!(
            (state["status"].as_str(), state["id"].as_str()),
            (Some(status), Some("hookstate")),
            "{name}"
        );
        assert_eq!(state["ociVersion"], "1.0.2", "{name}");
        assert_eq!(state["bundle"].as_str(), bundle.path().to_str(), "{name}");
        assert_eq!(state["annotations"], json!({"org.example.key": "a value", "empty": ""}), "{name}");
        match status {
            "stopped" => {}
            _ => assert_eq!(state["pid"], pid, "{name}"),
        }
    }
}

#[test]
fn each_runs_in_the_namespaces_of_its_kind_with_the_bundle_or_the_root_as_folder() {
    let runtime = Runtime::new();
    let bundle = logging(
        Bundle::new("spaces", &["sleep", "1000"]),
        "echo $0 $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/uts) $(readlink /proc/self/ns/net) $(readlink /proc/self/ns/ipc) $(pwd)",
    );
    let created = runtime.create(&bundle, "spaces");
    assert_eq!(created.status, 0, "{}", created.err);
    let pid = runtime.pid("spaces").to_string();
    let spaces = |pid: &str| {
        ["mnt", "uts", "net", "ipc"]
            .map(|n| fs::read_link(format!("/proc/{pid}/ns/{n}")).expect("ns").display().to_string())
            .join(" ")
    };
    let (machine, container) = (spaces("self"), spaces(&pid));
    runtime.ok(["start", "spaces"]);
    runtime.ok(["delete", "--force", "spaces"]);
    let folder = bundle.path().display();
    for line in log(&bundle).lines() {
        let (name, rest) = line.split_once(' ').expect("name");
        match name.trim_end_matches(['1', '2']) {
            "createContainer" => {
                assert_eq!(rest, format!("{container} {}", bundle.root().display()), "{line}");
            }
            "startContainer" => assert_eq!(rest, format!("{container} /"), "{line}"),
            _ => assert_eq!(rest, format!("{machine} {folder}"), "{line}"),
        }
    }
}

#[test]
fn start_container_hooks_run_behind_the_containers_filter_and_others_do_not() {
    let runtime = Runtime::new();
    let kills = |kind: &str| {
        shell("behind", "true", |c| {
            let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"});
            c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            c["hooks"][kind] = json!([hook("made", "exec mkdir -p dev/shm/made/below")]);
        })
    };
    let said = runtime.run(&kills("startContainer"), "behind");
    let words = "/hooks/startContainer/0: error running hook /bin/sh: killed by signal 31: bad system call";
    assert!(said.status == 1 && said.err.contains(words), "{} {}", said.status, said.err);
    let said = runtime.run(&kills("createContainer"), "behind");
    assert_eq!(said.status, 0, "{}", said.err);
}

#[test]
fn create_container_hooks_see_the_finished_mounts_under_the_bundles_root() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("sees", &["cat", "/made"]);
    let root = bundle.root();
    let script =
        format!("grep -c ' {}/proc ' /proc/self/mountinfo > {}/made", root.display(), root.display());
    let bundle = bundle.with(|c| c["hooks"] = json!({"createContainer": [hook("x", &script)]}));
    let said = runtime.run(&bundle, "sees");
    assert_eq!((said.status, said.out.as_str()), (0, "1\n"), "{}", said.err);
}

#[test]
fn what_create_runtime_does_to_the_container_is_there_when_it_starts() {
    let runtime = Runtime::new();
    // As engines set up the network: by the pid of the state.
    let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -t $pid -u hostname by-hook";
    let bundle = shell("net", "hostname", |c| c["hooks"] = json!({"createRuntime": [hook("x", script)]}));
    let said = runtime.run(&bundle, "byhook");
    assert_eq!((said.status, said.out.as_str()), (0, "by-hook\n"), "{}", said.err);
}

#[test]
fn environment_and_arguments_are_the_hooks_own() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("hookenv", &["true"]);
    let out = bundle.path().join("out");
    // The shell would change its environment: cat is given it whole.
    let script = format!(
        "tr '\\0' '|' < /proc/self/environ > {}; for a; do echo \"<$a>\" >> {}; done",
        out.display(),
        out.display()
    );
    let bundle = bundle.with(|c| {
        c["process"]["env"].as_array_mut().expect("env").push(json!("OF_PROCESS=1"));
        c["hooks"] = json!({"prestart": [{"path": "/bin/sh", "args": ["name", "-c", script, "zero", "one two", ""],
                                            "env": ["PATH=/bin:/usr/bin", "B=1", "A=x y"]}]});
    });
    let said = runtime.run(&bundle, "hookenv");
    assert_eq!(said.status, 0, "{}", said.err);
    let text = fs::read_to_string(out).expect("out");
    let (env, args) = text.rsplit_once('|').expect("environ");
    assert!(env.contains("B=1") && env.contains("A=x y") && !env.contains("OF_PROCESS"), "{env}");
    assert_eq!(args, "<one two>\n<>\n");
}

#[test]
fn a_failing_hook_of_create_fails_it_and_leaves_nothing() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let runtime = Runtime::new();
        let bundle = Bundle::new("fails", &["sleep", "1000"]);
        let (stopped, after) = (bundle.path().join("stopped"), bundle.path().join("after"));
        let bundle = bundle.with(|c| {
            c["linux"]["cgroupsPath"] = json!("/rcrun-fields-fails");
            c["hooks"][kind] = json!([
                hook("x", "exit 0"),
                hook("x", "echo the reason >&2; exit 3"),
                hook("x", &format!("touch {}", after.display()))
            ]);
            c["hooks"]["poststop"] = json!([hook("x", &format!("touch {}", stopped.display()))]);
        });
        let said = runtime.create(&bundle, "fails");
        assert_eq!(said.status, 1, "{kind}");
        for words in [format!("{kind}/1"), "exit status 3".into(), "the reason".into()] {
            assert!(said.err.contains(&words), "{kind}: {}", said.err);
        }
        assert!(!after.exists(), "{kind}: the first failure is the last hook");
        assert!(stopped.exists(), "{kind}: poststop hooks run when create fails (runtime.md, Lifecycle)");
        assert_eq!(runtime.ok(["list", "-q"]).out, "", "{kind}");
        assert_ne!(runtime.say(["state", "fails"]).status, 0, "{kind}");
        let cgroups = ["/sys/fs/cgroup/rcrun-fields-fails", "/sys/fs/cgroup/unified/rcrun-fields-fails"];
        assert!(cgroups.iter().all(|path| !Path::new(path).exists()), "{kind}");
    }
}

#[test]
fn a_failing_start_container_hook_fails_start() {
    let runtime = Runtime::new();
    let bundle = shell("sc", "touch /started; sleep 1000", |c| {
        c["root"]["readonly"] = json!(false);
        c["hooks"] = json!({"startContainer": [hook("x", "echo why; exit 9")]});
    });
    assert_eq!(runtime.create(&bundle, "sc").status, 0);
    let pid = runtime.pid("sc");
    let said = runtime.say(["start", "sc"]);
    assert!(
        said.status == 1 && said.err.contains("startContainer/0") && said.err.contains("why"),
        "{}",
        said.err
    );
    assert!(!bundle.root().join("started").exists());
    // runtime.md: the container is stopped and goes on at poststop.
    assert_eq!(runtime.status("sc"), "stopped");
    assert!(!is_alive(pid));
    runtime.ok(["delete", "sc"]);
}

#[test]
fn a_failing_poststart_hook_stops_the_container() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("ps", &["sleep", "1000"])
        .with(|c| c["hooks"] = json!({"poststart": [hook("x", "echo why; exit 9")]}));
    assert_eq!(runtime.create(&bundle, "ps").status, 0);
    let pid = runtime.pid("ps");
    let said = runtime.say(["start", "ps"]);
    assert!(said.status == 1 && said.err.contains("poststart/0") && said.err.contains("why"), "{}", said.err);
    assert_eq!(runtime.status("ps"), "stopped");
    assert!(!is_alive(pid));
    runtime.ok(["delete", "ps"]);
}

#[test]
fn a_failing_poststop_hook_is_a_warning_and_the_next_one_runs() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("pstop", &["true"]);
    let second = bundle.path().join("second");
    let bundle = bundle.with(|c| {
        c["hooks"] = json!({"poststop": [hook("x", "echo why; exit 9"), hook("x", &format!("touch {}", second.display()))]});
    });
    assert_eq!(runtime.create(&bundle, "pstop").status, 0);
    let said = runtime.say(["delete", "--force", "pstop"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("poststop/0") && said.err.contains("why"), "{}", said.err);
    assert!(second.exists());
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn a_hook_that_takes_longer_than_its_timeout_is_killed_and_has_failed() {
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let runtime = Runtime::new();
        let bundle = Bundle::new("slow", &["sleep", "1000"]).with(|c| {
            let mut slow = hook("x", "sleep 1001");
            slow["timeout"] = json!(1);
            c["hooks"][kind] = json!([slow]);
        });
        let began = Instant::now();
        let mut said = runtime.create(&bundle, "slow");
        if kind == "startContainer" {
            assert_eq!(said.status, 0, "{}", said.err);
            said = runtime.say(["start", "slow"]);
        }
        assert!(said.status == 1 && said.err.contains(&format!("{kind}/0")), "{kind}: {}", said.err);
        assert!(said.err.contains("within 1 second"), "{kind}: {}", said.err);
        assert!(began.elapsed() < Duration::from_secs(8), "{kind}");
    }
}

#[test]
fn a_hook_that_cannot_be_executed_is_named() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let runtime = Runtime::new();
        let bundle =
            Bundle::new("nohook", &["true"]).with(|c| c["hooks"][kind] = json!([{"path": "/not/there"}]));
        let said = runtime.run(&bundle, "nohook");
        assert!(said.status == 1 && said.err.contains("/not/there"), "{kind}: {}", said.err);
        assert!(said.err.to_lowercase().contains("no such file"), "{kind}: {}", said.err);
        assert_eq!(runtime.ok(["list", "-q"]).out, "", "{kind}");
    }
}

#[test]
fn a_failing_hook_of_start_fails_run_and_leaves_nothing() {
    for kind in ["startContainer", "poststart"] {
        let runtime = Runtime::new();
        let bundle = Bundle::new("runfails", &["sleep", "1000"]);
        let stopped = bundle.path().join("stopped");
        let bundle = bundle.with(|c| {
            c["hooks"][kind] = json!([hook("x", "echo why; exit 9")]);
            c["hooks"]["poststop"] = json!([hook("x", &format!("touch {}", stopped.display()))]);
        });
        let said = runtime.run(&bundle, "runfails");
        assert!(said.status == 1 && said.err.contains(&format!("{kind}/0")), "{kind}: {}", said.err);
        assert!(stopped.exists(), "{kind}");
        assert_eq!(runtime.ok(["list", "-q"]).out, "", "{kind}");
    }
}

#[test]
fn what_hooks_of_every_kind_write_is_in_the_files_of_the_annotations() {
    let runtime = Runtime::new();
    let written = Folder::new("hooks-written");
    let [out, err] = ["out", "err"].map(|name| written.path().join(name));
    let bundle = shell("annotated", "true", |c| {
        for kind in
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        {
            c["hooks"][kind] = json!([hook(kind, "echo $0; echo not $0 >&2")]);
        }
        c["annotations"] = json!({
            "run.oci.hooks.stdout": out.to_str().expect("UTF-8"),
            "run.oci.hooks.stderr": err.to_str().expect("UTF-8"),
        });
    });
    let said = runtime.run(&bundle, "annotated");
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "", ""));
    let kinds = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\npoststop\n";
    assert_eq!(fs::read_to_string(&out).expect("out"), kinds);
    let other: String = kinds.lines().map(|kind| format!("not {kind}\n")).collect();
    assert_eq!(fs::read_to_string(&err).expect("err"), other);

    let bundle = bundle.with(|c| c["annotations"] = json!({"run.oci.hooks.stdout": "/nowhere/out"}));
    let said = runtime.run(&bundle, "annotated");
    assert_eq!(said.status, 1, "{}", said.err);
    let sentence = "/annotations/run.oci.hooks.stdout: open /nowhere/out: no such file or directory";
    assert!(said.err.contains(sentence), "{}", said.err);
    assert_eq!(runtime.ok(["list", "--quiet"]).out, "");
}

#[test]
fn poststop_hooks_run_also_where_their_file_cannot_be_had() {
    let runtime = Runtime::new();
    let written = Folder::new("hooks-gone");
    let (folder, mark) = (written.path().join("folder"), written.path().join("mark"));
    fs::create_dir(&folder).expect("mkdir");
    let bundle = shell("gone", "true", |c| {
        c["hooks"]["prestart"] = json!([hook("prestart", &format!("rm -r {}", folder.display()))]);
        c["hooks"]["poststop"] = json!([hook("poststop", &format!("touch {}", mark.display()))]);
        c["annotations"] = json!({"run.oci.hooks.stdout": folder.join("out").to_str().expect("UTF-8")});
    });
    let said = runtime.run(&bundle, "gone");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("/annotations/run.oci.hooks.stdout: open"), "{}", said.err);
    assert!(mark.exists());
}
