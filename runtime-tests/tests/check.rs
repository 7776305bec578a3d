//! `rcrun check` says what `create` and `start` say, all at once and before: of the configs of the golden plans (`bad_input` has
//! the broken ones), and of what can be wrong with a root and a machine. It changes nothing.

use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::machine::{mounts, own_mount_namespace};
use runtime_tests::programs;
use runtime_tests::runtime::{Runtime, Said, said};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a command of rcrun's without the machine's network: a config may move a device of that name away.
fn alone(runtime: &Runtime, args: &[&OsStr]) -> Said {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "30", "unshare", "--net"]).arg(runtime.binary());
    command.arg("--root").arg(runtime.root()).args(args).stdin(Stdio::null());
    runtime.without_pipes(&mut command)
}

fn report(runtime: &Runtime, bundle: &Path) -> (Said, Value) {
    let words = ["check", "--format", "json"].map(OsStr::new);
    let said = alone(runtime, &[&words[..], &[bundle.as_os_str()]].concat());
    assert_eq!(said.err, "", "{}", said.out);
    let report = serde_json::from_str(&said.out).expect("JSON");
    (said, report)
}

fn of_level<'a>(report: &'a Value, level: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().filter(|finding| finding["level"] == level).collect()
}

/// What `create`, or else `start`, says against the bundle; nothing where both do their work.
fn refusal(runtime: &Runtime, bundle: &Path, id: &str) -> Option<String> {
    let words = ["create", "--bundle"].map(OsStr::new);
    let created = alone(runtime, &[&words[..], &[bundle.as_os_str(), OsStr::new(id)]].concat());
    if created.status != 0 {
        return Some(created.err);
    }
    let started = alone(runtime, &["start", id].map(OsStr::new));
    runtime.ok(["delete", "--force", id]);
    (started.status != 0).then_some(started.err)
}

#[test]
fn check_and_create_are_of_one_mind_about_every_config_of_the_golden_plans() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let plans = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../src/runtime/tests/plans");
    let mut wrong = String::new();
    let mut of_one_mind = [0, 0];
    for entry in fs::read_dir(plans).expect("the plans").flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("config.json")) else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        let bundle = Bundle::new("check-plan", &["true"]);
        // A pid that no process has: whose namespaces would be joined is not for chance to say. And no terminal, which takes
        // an option of `create`.
        let text = text
            .replace("/proc/4711/", "/proc/99999999/")
            .replace("\"terminal\": true", "\"terminal\": false");
        fs::write(bundle.path().join("config.json"), text).expect("write");
        let id = format!("check-{name}-{}", std::process::id());
        let (said, report) = report(&runtime, bundle.path());
        let refused = refusal(&runtime, bundle.path(), &id);
        let errors = of_level(&report, "error");
        of_one_mind[usize::from(refused.is_some())] += 1;
        if (said.status != 0) != refused.is_some() || errors.is_empty() == refused.is_some() {
            wrong += &format!("{name}: check {errors:?}, create and start {refused:?}\n");
        }
    }
    println!("{of_one_mind:?}: of one mind that it starts, and that it does not");
    assert!(wrong.is_empty(), "{wrong}");
    assert!(of_one_mind[0] >= 5 && of_one_mind[1] >= 5, "{of_one_mind:?}");
}

fn put(config: &mut Value, at: &str, value: Value) {
    let (above, name) = at.rsplit_once('/').expect("a pointer");
    match config.pointer_mut(above).unwrap_or_else(|| panic!("{above}")) {
        Value::Array(list) => list.push(value),
        Value::Object(fields) => drop(fields.insert(name.to_string(), value)),
        other => panic!("{above} is {other}"),
    }
}

fn executable(bundle: &Bundle, path: &str, text: &[u8]) {
    programs::write(&bundle.root().join(path), text, 0o755);
}

/// The busybox of the root, as a program for another processor.
fn foreign(bundle: &Bundle) -> Vec<u8> {
    let mut program = fs::read(bundle.root().join("bin/busybox")).expect("busybox");
    program[18..20].copy_from_slice(&22_u16.to_le_bytes());
    program
}

#[test]
fn what_is_wrong_with_a_root_or_a_machine_is_an_error_and_is_refused() {
    let mount = |destination: &str, kind: &str, source: &str, options: Value| json!({"destination": destination, "type": kind, "source": source, "options": options});
    type Make = fn(&Bundle);
    let nothing: Make = |_| {};
    let user_maps =
        |list: &str| (format!("/linux/{list}"), json!([{"containerID": 0, "hostID": 0, "size": 65536}]));
    let (uids, gids) = (user_maps("uidMappings"), user_maps("gidMappings"));
    /// Name, what is put into the config, what is done to the bundle, where the one error is.
    type Row<'a> = (&'a str, Vec<(&'a str, Value)>, Make, &'a str);
    let table: Vec<Row<'_>> = vec![
        ("missing program", vec![("/process/args", json!(["/bin/app"]))], nothing, "/process/args/0"),
        ("program not in PATH", vec![("/process/args", json!(["app"]))], nothing, "/process/args/0"),
        (
            "no PATH",
            vec![("/process/args", json!(["true"])), ("/process/env", json!([]))],
            nothing,
            "/process/env",
        ),
        (
            "program not executable",
            vec![("/process/args", json!(["/bin/data"]))],
            |b| fs::write(b.root().join("bin/data"), "x").expect("write"),
            "/process/args/0",
        ),
        ("program is a folder", vec![("/process/args", json!(["/bin"]))], nothing, "/process/args/0"),
        (
            "text without an interpreter",
            vec![("/process/args", json!(["/bin/text"]))],
            |b| executable(b, "bin/text", b"echo\n"),
            "/process/args/0",
        ),
        (
            "program of another processor",
            vec![("/process/args", json!(["/bin/foreign"]))],
            |b| executable(b, "bin/foreign", &foreign(b)),
            "/process/args/0",
        ),
        (
            "interpreter of a script",
            vec![("/process/args", json!(["/bin/script"]))],
            |b| executable(b, "bin/script", b"#!/usr/bin/python3\n"),
            "/process/args/0",
        ),
        (
            "interpreter of a program",
            vec![("/process/args", json!(["/bin/linked"]))],
            |b| {
                programs::copy(Path::new("/usr/bin/env"), &b.root().join("bin/linked"));
            },
            "/process/args/0",
        ),
        ("cwd is a file", vec![("/process/cwd", json!("/bin/sh"))], nothing, "/process/cwd"),
        ("root missing", vec![("/root/path", json!("nowhere"))], nothing, "/root/path"),
        (
            "root is a link",
            vec![("/root/path", json!("link"))],
            |b| symlink("rootfs", b.path().join("link")).expect("symlink"),
            "/root/path",
        ),
        (
            "source missing",
            vec![("/mounts/-", mount("/a", "bind", "nowhere", json!(["rbind"])))],
            nothing,
            "/mounts/+/source",
        ),
        (
            "file over a folder",
            vec![("/mounts/-", mount("/tmp", "bind", "/bin/sh", json!(["bind"])))],
            nothing,
            "/mounts/+/destination",
        ),
        (
            "folder over a file",
            vec![("/mounts/-", mount("/etc/passwd", "bind", "/etc", json!(["bind"])))],
            nothing,
            "/mounts/+/destination",
        ),
        (
            "file system over a file",
            vec![("/mounts/-", mount("/etc/passwd", "tmpfs", "tmpfs", json!([])))],
            nothing,
            "/mounts/+/destination",
        ),
        (
            "mount below a file",
            vec![("/mounts/-", mount("/etc/passwd/x", "tmpfs", "tmpfs", json!([])))],
            nothing,
            "/mounts/+/destination",
        ),
        (
            "file system that no kernel has",
            vec![("/mounts/-", mount("/a", "tmfs", "x", json!([])))],
            nothing,
            "/mounts/+/type",
        ),
        (
            "namespace of another type",
            vec![(
                "/linux/namespaces",
                json!([{"type": "pid"}, {"type": "mount"}, {"type": "ipc", "path": "/proc/self/ns/net"}, {"type": "uts"}, {"type": "network"}]),
            )],
            nothing,
            "/linux/namespaces/2/path",
        ),
        (
            "sysctl that is not there",
            vec![("/linux/sysctl", json!({"net.core.nothing": "1"}))],
            nothing,
            "/linux/sysctl/net.core.nothing",
        ),
        (
            "sysctl of a device that is not there",
            vec![("/linux/sysctl", json!({"net.ipv4.conf.eth7.forwarding": "1"}))],
            nothing,
            "/linux/sysctl/net.ipv4.conf.eth7.forwarding",
        ),
        (
            "network device",
            vec![("/linux/netDevices", json!({"nowhere0": {}}))],
            nothing,
            "/linux/netDevices/nowhere0",
        ),
        (
            "more files than fs.nr_open",
            vec![("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 1_u64 << 40, "soft": 10}]))],
            nothing,
            "/process/rlimits/0/hard",
        ),
        (
            "limit raised in a user namespace",
            vec![
                ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 1_048_576, "soft": 10}])),
                ("/linux/namespaces/-", json!({"type": "user"})),
                (&uids.0, uids.1.clone()),
                (&gids.0, gids.1.clone()),
            ],
            nothing,
            "/process/rlimits/0/hard",
        ),
        (
            "hook",
            vec![("/hooks", json!({"createRuntime": [{"path": "/nowhere/hook"}]}))],
            nothing,
            "/hooks/createRuntime/0/path",
        ),
        (
            "hook in the root",
            vec![("/hooks", json!({"startContainer": [{"path": "/bin/hook"}]}))],
            nothing,
            "/hooks/startContainer/0/path",
        ),
        (
            "hook that is not executable",
            vec![("/hooks", json!({"prestart": [{"path": "/etc/passwd"}]}))],
            nothing,
            "/hooks/prestart/0/path",
        ),
    ];
    let runtime = Runtime::new();
    let id = format!("check-machine-{}", std::process::id());
    let mut wrong = String::new();
    for (name, changes, make, pointer) in table {
        let bundle = Bundle::new("check-machine", &["/bin/true"]).with(|config| {
            for (at, value) in changes {
                put(config, at, value);
            }
        });
        let last = bundle.config["mounts"].as_array().expect("mounts").len() - 1;
        let pointer = pointer.replace('+', &last.to_string());
        make(&bundle);
        // A limit that others may have raised for this process as well.
        let lowered = "ulimit -H -n 1000000 2>/dev/null; exec \"$@\"";
        let within = |args: &[&OsStr]| {
            let mut command = Command::new("sh");
            command
                .args(["-c", lowered, "sh"])
                .arg(runtime.binary())
                .arg("--root")
                .arg(runtime.root())
                .args(args);
            runtime.without_pipes(command.stdin(Stdio::null()))
        };
        let path = bundle.path().as_os_str();
        let checked = within(&["check".as_ref(), "--format=json".as_ref(), path]);
        let report: Value = serde_json::from_str(&checked.out).expect("JSON");
        let errors = of_level(&report, "error");
        let pointers: Vec<&str> = errors.iter().filter_map(|finding| finding["pointer"].as_str()).collect();
        let ran = within(&["run".as_ref(), "--bundle".as_ref(), path, OsStr::new(&id)]);
        if pointers != [pointer.as_str()] || checked.status != 1 {
            wrong += &format!("{name}: check says {errors:?}, and not {pointer}\n");
        }
        if ran.status == 0 {
            wrong += &format!("{name}: it runs\n");
        }
        if errors.iter().any(|finding| finding["remedy"].as_str().is_none_or(str::is_empty)) {
            wrong += &format!("{name}: no remedy\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_good_bundle_has_no_problems_by_its_name_or_from_inside() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("check-good", &["sh", "-c", "true"]);
    let said = runtime.ok([OsStr::new("check"), bundle.path().as_os_str()]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("no problems\n", ""));
    let output =
        Command::new(runtime.binary()).arg("check").current_dir(bundle.path()).output().expect("check");
    assert_eq!(self::said(&output).out, "no problems\n");
    let root = Command::new(runtime.binary()).arg("check").current_dir("/proc").output().expect("check");
    let root = self::said(&root);
    assert_eq!(root.status, 1);
    assert!(
        root.out.ends_with("\n1 error\n") && root.out.contains("config.json not found in /proc"),
        "{}",
        root.out
    );
}

#[test]
fn what_works_and_was_not_meant_is_a_warning_and_no_failure() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("check-warn", &["true"]).with(|config| {
        config["root"]["readOnly"] = json!(true);
        config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_FLY"]);
        put(config, "/mounts/-", json!({"destination": "/run/a", "type": "tmpfs"}));
        put(config, "/mounts/-", json!({"destination": "/run", "type": "tmpfs"}));
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["opnat"], "action": "SCMP_ACT_ERRNO"}]
        });
        config["process"]["user"] = json!({"uid": 4711, "gid": 0});
        config["process"]["cwd"] = json!("/made");
    });
    let (said, report) = report(&runtime, bundle.path());
    assert_eq!((said.status, &report["errors"]), (0, &json!(0)), "{}", said.out);
    let told = |level: &str| -> Vec<String> {
        let mut all: Vec<String> = of_level(&report, level)
            .iter()
            .map(|f| f["pointer"].as_str().expect("pointer").to_string())
            .collect();
        all.sort();
        all
    };
    let hidden =
        format!("/mounts/{}/destination", bundle.config["mounts"].as_array().expect("mounts").len() - 2);
    let mut expected =
        ["/linux/seccomp/syscalls/0/names/0", &hidden, "/process/capabilities/bounding", "/root/readOnly"];
    expected.sort_unstable();
    assert_eq!(told("warning"), expected);
    assert_eq!(told("note"), ["/process/cwd", "/process/user/uid"]);
}

#[test]
fn a_user_is_told_what_he_could_not_look_at_and_nothing_is_changed() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let bundle = Bundle::new("check-user", &["/bin/true"]);
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(bundle.root().join("bin"), fs::Permissions::from_mode(0o700)).expect("chmod");
    let folder = Folder::new("check-user");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let copy = folder.path().join("rcrun");
    programs::copy(runtime.binary(), &copy);
    let listed = || {
        let words = ["-ld", "--time-style=full-iso"];
        let found = Command::new("find")
            .arg(bundle.path())
            .args(["-exec", "ls"])
            .args(words)
            .args(["{}", "+"])
            .output();
        (found.expect("find").stdout, mounts())
    };
    let before = listed();
    let words = ["--reuid", "4711", "--regid", "4711", "--clear-groups"];
    let output = Command::new("setpriv")
        .args(words)
        .arg(&copy)
        .arg("check")
        .arg(bundle.path())
        .output()
        .expect("check");
    let said = said(&output);
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    assert!(said.out.contains("has no user namespace, and rcrun is not root"), "{}", said.out);
    assert!(
        said.out.contains("/bin/true in the root could not be looked at: permission denied"),
        "{}",
        said.out
    );
    assert!(said.out.ends_with("1 error, 1 note\n"), "{}", said.out);
    assert_eq!(listed(), before);
}

#[test]
fn timings_tell_the_steps_of_a_start_and_add_up() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("timings", &["sleep", "1000"]).with(|config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}]});
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    });
    let json = |err: &str| -> Value {
        let line =
            err.lines().find(|line| line.starts_with("{\"timings\"")).unwrap_or_else(|| panic!("{err}"));
        serde_json::from_str::<Value>(line).expect("JSON")["timings"].clone()
    };
    let rows = |timings: &Value, list: &str| -> Vec<(String, String, u64)> {
        let row = |row: &Value| {
            let text = |key: &str| row[key].as_str().expect(key).to_string();
            (
                text("who"),
                text("pointer") + " " + &text("what"),
                row["nanoseconds"].as_u64().expect("nanoseconds"),
            )
        };
        timings[list].as_array().expect(list).iter().map(row).collect()
    };
    let id = format!("timings-{}", std::process::id());
    let path = bundle.path().as_os_str();
    let word = |text: &'static str| OsStr::new(text);
    let created = runtime.without_pipes(&mut runtime.command([
        word("--log-format=json"),
        word("create"),
        word("--timings"),
        word("--bundle"),
        path,
        OsStr::new(&id),
    ]));
    let started = runtime.say(["--log-format=json", "start", "--timings", id.as_str()]);
    let executed = runtime.say(["--log-format=json", "exec", "--timings", id.as_str(), "true"]);
    for (verb, said, expected) in [
        (
            "create",
            &created,
            vec![
                "read and check config.json",
                "clone3, exec of init",
                "/mounts/0 ",
                "pivot_root",
                "/process ",
            ],
        ),
        ("start", &started, vec!["tell init, until the process is executed"]),
        ("exec", &executed, vec!["clone3, exec of init", "/linux/namespaces ", "/process "]),
    ] {
        assert_eq!(said.status, 0, "{verb}: {}", said.err);
        let timings = json(&said.err);
        let steps = rows(&timings, "steps");
        let sum: u64 = steps.iter().map(|(_, _, nanoseconds)| nanoseconds).sum();
        assert!(sum > 0 && timings["nanoseconds"] == sum, "{verb}: {timings}");
        for what in expected {
            assert!(steps.iter().any(|(_, text, _)| text.contains(what)), "{verb}: no {what} in {steps:#?}");
        }
    }
    let hooks = rows(&json(&created.err), "meanwhile");
    assert!(hooks.iter().any(|(_, text, time)| text.contains("createRuntime") && *time > 0), "{hooks:?}");
    runtime.ok(["delete", "--force", id.as_str()]);
    // The table of a start that fails ends where it has failed, and the error comes last.
    let broken = Bundle::new("timings-fails", &["true"]).with(|config| {
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({"destination": "/etc/passwd/x", "type": "tmpfs", "source": "tmpfs"}));
    });
    let [failed, json_failed] = [&[][..], &["--log-format=json"]].map(|options: &[&str]| {
        let words =
            options.iter().copied().map(OsStr::new).chain(["run", "--timings", "--bundle"].map(OsStr::new));
        runtime.say(words.chain([broken.path().as_os_str(), OsStr::new(&id)]))
    });
    let lines: Vec<&str> = failed.err.lines().collect();
    let at = |what: &str| {
        lines.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{lines:#?}"))
    };
    let order =
        [at("clone3, exec of init"), at(" /mounts/0 "), at("fail, and undo what was made"), at(" total")];
    assert!(failed.status == 1 && order.is_sorted() && order[3] < lines.len() - 1, "{lines:#?}");
    assert!(lines[lines.len() - 1].contains("/etc/passwd/x"), "{lines:#?}");
    let steps = rows(&json(&json_failed.err), "steps");
    let last = steps.iter().rev().find(|(who, _, _)| who == "init").expect("init has begun");
    assert!(last.1.contains("/etc/passwd/x"), "the step that failed comes last: {steps:#?}");
    let missing = runtime.say(["exec", "--timings", "nobody-has-this", "true"]);
    assert!(missing.status == 255 && missing.err.contains("fail, and undo"), "{}", missing.err);
    // A table for people, and nothing where nobody asks.
    let bundle = bundle.with(|config| config["process"]["args"] = json!(["true"]));
    let path = bundle.path().as_os_str();
    let ran = runtime.ok([word("run"), word("--timings"), word("--bundle"), path, OsStr::new(&id)]);
    let last = ran.err.lines().find(|line| line.ends_with("total")).unwrap_or_else(|| panic!("{}", ran.err));
    assert!(last.trim_start().starts_with(|c: char| c.is_ascii_digit()), "{last}");
    assert!(ran.err.contains("  init   /mounts/0 "), "{}", ran.err);
    assert_eq!(runtime.run(&bundle, &id).err, "");
}
