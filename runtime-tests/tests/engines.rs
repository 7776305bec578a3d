//! What engines rely on: texts that they look for, JSON that they read, files and sockets that they hand over.
//! Docker, containerd, podman with conmon, CRI-O and BuildKit, as told in the reference on engines.

use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::programs;
use runtime_tests::runtime::{Lines, Runtime, readable, said};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

const STAY: [&str; 3] = ["sh", "-c", "echo up; exec sleep 1000"];

#[test]
fn a_command_that_cannot_be_executed_is_told_in_the_words_that_engines_know() {
    let runtime = Runtime::new();
    for (command, phrase) in [
        // Docker: exit status 127.
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "no such file or directory"),
        ("/etc/nope/nope", "no such file or directory"),
        ("./nope", "no such file or directory"),
        ("/etc/dangling", "no such file or directory"),
        // 126.
        ("/etc/passwd", "permission denied"),
        ("/etc", "is a directory: permission denied"),
        ("/etc/passwd/x", "not a directory"),
    ] {
        let bundle = Bundle::new("command", &[command]);
        std::os::unix::fs::symlink("/nowhere", bundle.root().join("etc/dangling")).expect("symlink");
        let words =
            [OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new("command")];
        for verb in ["create", "run"] {
            let said = runtime.say([OsStr::new(verb)].iter().chain(&words[1..]));
            assert_eq!((said.status, said.out.as_str()), (1, ""), "{verb} {command}");
            assert!(said.err.contains(phrase), "{verb} {command}: {}", said.err);
            assert_eq!(said.err.lines().count(), 1, "{verb} {command}: {}", said.err);
            assert_eq!(runtime.ok(["list", "-q"]).out, "", "{verb} {command}");
        }
    }
}

#[test]
fn start_tells_a_failing_execve_to_its_caller() {
    let runtime = Runtime::new();
    type Change = fn(&Path);
    let table: [(&str, Change, &str); 5] = [
        ("gone", |p| fs::remove_file(p).expect("remove"), "no such file or directory"),
        ("no format", |p| programs::write(p, "\x01\x02\x03 nothing", 0o755), "exec format error"),
        (
            "an interpreter that is gone",
            |p| programs::write(p, "#!/bin/gone\n", 0o755),
            "no such file or directory",
        ),
        (
            "no longer executable",
            |p| fs::set_permissions(p, fs::Permissions::from_mode(0o644)).expect("chmod"),
            "permission denied",
        ),
        (
            "a folder now",
            |p| {
                fs::remove_file(p).expect("remove");
                fs::create_dir(p).expect("mkdir");
            },
            "permission denied",
        ),
    ];
    for (name, change, phrase) in table {
        let bundle = Bundle::new("execve", &["/bin/mine"]);
        let path = bundle.root().join("bin/mine");
        programs::copy(&bundle.root().join("bin/busybox"), &path);
        runtime.created(&bundle, "execve");
        change(&path);
        let said = runtime.say(["start", "execve"]);
        assert_eq!((said.status, said.err.lines().count()), (1, 1), "{name}: {}", said.err);
        assert!(said.err.contains(phrase) && said.err.contains("/bin/mine"), "{name}: {}", said.err);
        runtime.wait_for_end("execve");
        assert_eq!(runtime.status("execve"), "stopped", "{name}");
        runtime.ok(["delete", "execve"]);
    }
}

#[test]
fn run_and_exec_tell_a_program_of_no_format() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("format", &["/etc/garbage"]);
    programs::write(&bundle.root().join("etc/garbage"), "\x01\x02\x03", 0o755);
    let said = runtime.run(&bundle, "format");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("exec format error"), "{}", said.err);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
    let bundle = bundle.with(|config| config["process"]["args"] = json!(STAY));
    assert_eq!(runtime.detached(&bundle, "format").line(), "up");
    let said = runtime.say(["exec", "format", "/etc/garbage"]);
    assert_eq!(said.status, 255);
    assert!(said.err.contains("exec format error"), "{}", said.err);
}

#[test]
fn state_is_the_json_that_engines_read() {
    let runtime = Runtime::new();
    let bundle =
        Bundle::new("state", &STAY).with(|config| config["annotations"] = json!({"b.x": "2", "a": "1"}));
    runtime.created(&bundle, "state");
    let text = runtime.ok(["state", "state"]).out;
    let order = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"];
    let mut rest = text.as_str();
    for key in order {
        let at =
            rest.find(&format!("\n  \"{key}\": ")).unwrap_or_else(|| panic!("{key} is not in order: {text}"));
        rest = &rest[at + 1..];
    }
    let state = runtime.state("state");
    assert_eq!(state.as_object().expect("object").len(), order.len(), "{text}");
    assert_eq!(state["ociVersion"], "1.0.2");
    assert_eq!(state["id"], "state");
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle.path().to_str().expect("UTF-8"));
    assert_eq!(state["rootfs"], bundle.root().to_str().expect("UTF-8"));
    assert_eq!(state["annotations"], json!({"a": "1", "b.x": "2"}));
    let created = state["created"].as_str().expect("text");
    assert!(
        created.ends_with('Z') && created.as_bytes()[10] == b'T' && created.starts_with("20"),
        "{created}"
    );
    let pid = state["pid"].as_i64().expect("a pid");
    let exe = fs::read_link(format!("/proc/{pid}/exe")).expect("it lives");
    assert!(exe.to_string_lossy().contains("memfd:"), "{}", exe.display());
}

#[test]
fn list_is_runcs_table_or_a_list_of_states() {
    let runtime = Runtime::new();
    assert_eq!(
        runtime.ok(["list"]).out,
        "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    );
    assert_eq!(runtime.ok(["list", "--format", "json"]).out.trim(), "[]");
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
    let bundle = Bundle::new("list", &STAY);
    runtime.created(&bundle, "list-b");
    assert_eq!(runtime.detached(&bundle, "list-a").line(), "up");
    assert_eq!(runtime.ok(["list", "-q"]).out, "list-a\nlist-b\n");
    let text = runtime.ok(["list"]).out;
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for (row, id, status) in [(&rows[1], "list-a", "running"), (&rows[2], "list-b", "created")] {
        let pid = runtime.pid(id).to_string();
        assert_eq!(row[..4], [id, &pid, status, bundle.path().to_str().expect("UTF-8")]);
        assert_eq!(row[5], "root");
    }
    for words in
        [&["list", "-f", "json"] as &[&str], &["list", "--format=json"], &["list", "-format", "json"]]
    {
        let list: Vec<Value> = serde_json::from_str(&runtime.ok(words).out).expect("a list");
        assert_eq!(list.len(), 2);
        assert_eq!(list[0]["id"], "list-a");
        assert_eq!(list[0]["owner"], "root");
        for key in ["ociVersion", "pid", "status", "bundle", "rootfs", "created"] {
            assert!(!list[0][key].is_null(), "{key}");
        }
    }
    assert_eq!(runtime.say(["list", "--format", "yaml"]).status, 1);
}

#[test]
fn ps_is_a_list_of_pids_or_the_lines_of_ps() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("ps", &["sh", "-c", "sleep 1000 & echo up; wait"]);
    assert_eq!(runtime.detached(&bundle, "ps-box").line(), "up");
    let pid = runtime.pid("ps-box");
    let pids: Vec<i32> =
        serde_json::from_str(&runtime.ok(["ps", "--format", "json", "ps-box"]).out).expect("pids");
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&pid));
    let text = runtime.ok(["ps", "ps-box"]).out;
    assert!(text.starts_with("UID"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    // What follows the id belongs to ps(1).
    let text = runtime.ok(["ps", "ps-box", "-e", "-o", "pid,comm"]).out;
    assert_eq!(
        text.lines().next().map(str::split_whitespace).map(Iterator::collect),
        Some(vec!["PID", "COMMAND"])
    );
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn options_are_accepted_after_the_id_and_with_one_dash() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("words", &STAY);
    let path = bundle.path().to_str().expect("UTF-8");
    for words in [
        vec!["create", "words", "--bundle", path],
        vec!["create", "words", "-b", path],
        vec!["create", "-bundle", path, "words"],
        vec!["create", "-bundle", path, "-no-pivot", "words"],
        vec!["create", "--no-new-keyring", "words", &format!("--bundle={path}")],
        vec!["run", "-d", "words", &format!("-bundle={path}")],
        vec!["run", "words", "-detach", "-b", path],
    ] {
        let said = runtime.without_pipes(&mut runtime.command(&words));
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}");
        runtime.ok(["delete", "words", "--force"]);
    }
    // The default bundle is the folder that one is in.
    let said = runtime.without_pipes(runtime.command(["create", "words"]).current_dir(path));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    runtime.ok(["kill", "words", "KILL", "--all"]);
    runtime.ok(["delete", "-force", "words"]);
    for words in [
        &["create"] as &[&str],
        &["create", "a", "b"],
        &["state"],
        &["state", "a", "b"],
        &["kill"],
        &["--nope"],
    ] {
        let said = runtime.say(words);
        assert_eq!((said.status, said.err.lines().count()), (1, 1), "{words:?}: {}", said.err);
    }
}

#[test]
fn the_log_of_a_failing_command_is_one_json_object() {
    let runtime = Runtime::new();
    let folder = Folder::new("log");
    let log = folder.path().join("log.json");
    let bundle = Bundle::new("log", &["nope"]);
    for (words, status) in [
        (vec!["create".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), "log".as_ref()], 1),
        (vec!["run".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), "log".as_ref()], 1),
        (vec![OsStr::new("start"), OsStr::new("log")], 1),
        (vec![OsStr::new("kill"), OsStr::new("log"), OsStr::new("KILL")], 1),
        (vec![OsStr::new("exec"), OsStr::new("log"), OsStr::new("true")], 255),
    ] {
        let globals = [OsStr::new("--log"), log.as_os_str(), OsStr::new("--log-format"), OsStr::new("json")];
        let said = runtime.say(globals.iter().chain(&words));
        assert_eq!(said.status, status, "{words:?}");
        let text = fs::read_to_string(&log).expect("the log");
        let object: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words:?}: {e}: {text}"));
        assert_eq!(object["level"], "error", "{text}");
        assert_eq!(said.err.trim_end(), object["msg"].as_str().expect("msg"), "{words:?}");
        assert!(object["time"].as_str().is_some_and(|t| t.contains('T')), "{text}");
        fs::remove_file(&log).expect("remove");
    }
    // A success writes nothing, and the next failure is appended.
    let words = [OsStr::new("--log"), log.as_os_str(), OsStr::new("--log-format=json"), OsStr::new("list")];
    runtime.ok(words);
    assert_eq!(fs::read_to_string(&log).expect("the log"), "");
    for _ in 0..2 {
        runtime.say([
            OsStr::new("--log"),
            log.as_os_str(),
            "--log-format=json".as_ref(),
            "start".as_ref(),
            "x".as_ref(),
        ]);
    }
    let text = fs::read_to_string(&log).expect("the log");
    assert_eq!(text.lines().filter(|l| serde_json::from_str::<Value>(l).is_ok()).count(), 2, "{text}");
}

#[test]
fn version_and_features_say_nothing_on_standard_error() {
    let runtime = Runtime::new();
    let said = runtime.ok(["--version"]);
    assert_eq!(said.err, "");
    let lines: Vec<&str> = said.out.lines().collect();
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(words[1], "version");
    assert!(
        lines.iter().any(|l| l.starts_with("commit: ")) && lines.iter().any(|l| l.starts_with("spec: ")),
        "{lines:?}"
    );
    let said = runtime.ok(["features"]);
    assert_eq!(said.err, "");
    let features: Value = serde_json::from_str(&said.out).expect("features is JSON");
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].is_string(), "{key}");
    }
    let has = |pointer: &str, word: &str| {
        features.pointer(pointer).and_then(Value::as_array).is_some_and(|a| a.iter().any(|v| v == word))
    };
    assert!(has("/mountOptions", "rro"), "Docker decides recursive read-only mounts by it");
    assert!(has("/linux/namespaces", "cgroup") && has("/linux/capabilities", "CAP_SYS_ADMIN"));
    assert!(has("/hooks", "createRuntime"));
    assert!(
        features.pointer("/linux/mountExtensions/idmap/enabled").is_some_and(Value::is_boolean),
        "CRI-O reads it"
    );
}

#[test]
fn spec_writes_a_config_that_runs_and_never_over_another() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("spec", &["true"]);
    let config = bundle.path().join("config.json");
    let said = runtime.say(["spec".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str()]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("exists"), "{}", said.err);
    fs::remove_file(&config).expect("remove");
    let said = runtime.ok(["spec".as_ref(), "-b".as_ref(), bundle.path().as_os_str()]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    let mut written: Value = serde_json::from_slice(&fs::read(&config).expect("config")).expect("JSON");
    assert_eq!(written["process"]["args"], json!(["sh"]));
    assert_eq!(written["process"]["terminal"], true);
    written["process"]["terminal"] = false.into();
    written["process"]["args"] = json!(["sh", "-c", "exit 12"]);
    fs::write(&config, written.to_string()).expect("write");
    let said = runtime.run(&bundle, "spec");
    assert_eq!((said.status, said.err.as_str()), (12, ""));
}

#[test]
fn plan_tells_what_would_be_done_and_does_nothing() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("plan", &["/no/such/command"]);
    let said = runtime.ok(["plan".as_ref(), bundle.path().as_os_str()]);
    assert_eq!(said.err, "");
    assert!(said.out.contains("pivot_root") && said.out.contains("/hostname"), "{}", said.out);
    let said = runtime.ok(["plan".as_ref(), "--format".as_ref(), "json".as_ref(), bundle.path().as_os_str()]);
    let plan: Value = serde_json::from_str(&said.out).expect("JSON");
    assert!(plan["steps"].as_array().is_some_and(|steps| steps.len() > 20));
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn the_pid_file_appears_whole_and_not_at_all_when_create_fails() {
    let runtime = Runtime::new();
    let folder = Folder::new("pidfile");
    let path = folder.path().join("init.pid");
    let text = path.to_str().expect("UTF-8");
    let bundle = Bundle::new("pidfile", &["nope"]);
    let said = runtime.create_with(&bundle, "pidfile", &["--pid-file", text]);
    assert_eq!(said.status, 1);
    let bundle = bundle.with(|config| config["process"]["args"] = json!(STAY));
    let said = runtime.create_with(&bundle, "pidfile", &["--pid-file", text]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(&path).expect("pid file"), runtime.pid("pidfile").to_string());
    runtime.ok(["delete", "-f", "pidfile"]);
    // One that is there already is replaced, also where it is a link.
    fs::remove_file(&path).expect("remove");
    let other = folder.path().join("other");
    fs::write(&other, "old").expect("write");
    std::os::unix::fs::symlink(&other, &path).expect("symlink");
    let said = runtime.create_with(&bundle, "pidfile", &["--pid-file", text]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(&path).expect("pid file"), runtime.pid("pidfile").to_string());
    assert_eq!(fs::read_to_string(&other).expect("other"), "old");
}

#[test]
fn a_run_that_fails_after_its_pid_file_was_written_removes_it_and_no_other() {
    let runtime = Runtime::new();
    let folder = Folder::new("pidfile");
    let path = folder.path().join("init.pid");
    for (what, hooks, args) in [
        ("a startContainer hook", json!({"startContainer": [{"path": "/bin/false"}]}), json!(STAY)),
        ("a poststart hook", json!({"poststart": [{"path": "/bin/false"}]}), json!(STAY)),
        ("execve", json!({}), json!(["/bin/text"])),
    ] {
        let bundle = Bundle::new("pidgone", &STAY).with(|config| {
            config["hooks"] = hooks;
            config["process"]["args"] = args;
        });
        programs::write(&bundle.root().join("bin/text"), "no program\n", 0o755);
        let mut command = runtime.command(["run", "--detach", "--pid-file"]);
        command.arg(&path).arg("--bundle").arg(bundle.path()).arg("pidgone");
        let said = runtime.without_pipes(&mut command);
        assert_eq!(said.status, 1, "{what}: {}", said.err);
        assert!(!path.exists(), "{what}: the pid file tells conmon that it runs");
    }
    // Refused before anything is made: what was there belongs to another.
    fs::write(&path, "1").expect("write");
    let bundle = Bundle::new("pidgone", &[""]);
    let said = runtime.create_with(&bundle, "pidgone", &["--pid-file", path.to_str().expect("UTF-8")]);
    assert_eq!(said.status, 1);
    assert_eq!(fs::read_to_string(&path).expect("pid file"), "1");
}

#[test]
fn preserved_and_listening_descriptors_keep_their_order() {
    let runtime = Runtime::new();
    let folder = Folder::new("fds");
    for name in ["a", "b", "c"] {
        fs::write(folder.path().join(name), format!("{name}\n")).expect("write");
    }
    let script = "cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l";
    let bundle = Bundle::new("fds", &["sh", "-c", script]);
    let shell = |activation: &str, options: &str| {
        let line = format!(
            "cd \"$1\"; {activation} exec \"$2\" --root \"$3\" run --bundle \"$4\" {options} fds 3<a 4<b 5<c",
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line, "sh"]).arg(folder.path()).arg(runtime.binary()).arg(runtime.root());
        said(&command.arg(bundle.path()).output().expect("sh"))
    };
    // ls has three streams and the folder beside what it inherits.
    let said = shell("", "--preserve-fds 2");
    assert_eq!(said.out, "a\nb\n\n6\n", "{}", said.err);
    let said = shell("export LISTEN_FDS=1 LISTEN_PID=$$;", "--preserve-fds 1");
    assert_eq!(said.out, "a\nb\n1 1\n6\n", "{}", said.err);
    let said = shell("export LISTEN_FDS=2 LISTEN_PID=$$;", "");
    assert_eq!(said.out, "a\nb\n2 1\n6\n", "{}", said.err);
    // Meant for somebody else: not passed, and the variables of rcrun are never the container's.
    let said = shell("export LISTEN_FDS=2 LISTEN_PID=1;", "--preserve-fds 2");
    assert_eq!(said.out, "a\nb\n\n6\n", "{}", said.err);
    // With nothing asked for, nothing is inherited.
    let said = shell("", "");
    assert!(said.out.ends_with("\n4\n"), "{:?} {}", said.out, said.err);
    // One more than there is.
    let said = shell("", "--preserve-fds 20");
    assert_eq!((said.status, said.err.lines().count()), (1, 1), "{}", said.err);
    assert!(said.err.contains("preserved-fd"), "{}", said.err);
}

#[test]
fn exec_passes_descriptors_too() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("execfds", &STAY);
    assert_eq!(runtime.detached(&bundle, "execfds").line(), "up");
    let line = "exec \"$1\" --root \"$2\" exec --preserve-fds 1 execfds sh -c 'cat <&3; ls /proc/self/fd | wc -l' 3<\"$3\" 4</dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]).arg(runtime.binary()).arg(runtime.root());
    let said = said(&command.arg(bundle.root().join("etc/passwd")).output().expect("sh"));
    assert!(said.out.starts_with("root:x:0") && said.out.ends_with("\n5\n"), "{} {}", said.out, said.err);
}

#[test]
fn notify_socket_hears_ready_and_main_pid_when_run_detached() {
    let runtime = Runtime::new();
    let folder = Folder::new("notify");
    let host = UnixDatagram::bind(folder.path().join("host")).expect("bind");
    let bundle = Bundle::new(
        "notify",
        &[
            "sh",
            "-c",
            "echo $NOTIFY_SOCKET; ls -d /run/notify/notify.sock; touch /run/notify/x; exec sleep 1000",
        ],
    );
    fs::create_dir_all(bundle.root().join("run/notify")).expect("mkdir");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let mut command = runtime.command(["run", "-d", "--bundle"]);
    command.arg(bundle.path()).arg("notify").env("NOTIFY_SOCKET", folder.path().join("host"));
    let mut child = command.stdout(writer.try_clone().expect("dup")).stderr(writer).spawn().expect("spawn");
    drop(command);
    let mut lines = Lines::of(reader.into());
    assert_eq!(lines.line(), "/run/notify/notify.sock");
    assert_eq!(lines.line(), "/run/notify/notify.sock");
    assert!(lines.line().contains("Read-only"), "the folder is mounted read-only");
    assert!(child.try_wait().expect("wait").is_none(), "run -d waits for READY");
    let pid = runtime.pid("notify");
    // As the payload would: from its side of the mount. Only READY is passed on.
    let payload = UnixDatagram::unbound().expect("socket");
    let inside = format!("/proc/{pid}/root/run/notify/notify.sock");
    payload.send_to(b"STATUS=evil\nMAINPID=1\nREADY=1", &inside).expect("send");
    assert_eq!(hear(&host), "READY=1\n");
    assert_eq!(hear(&host), format!("MAINPID={pid}\n"));
    assert_eq!(hear(&host), "BARRIER=1");
    // The barrier's descriptor was not taken by our recv, and so is closed: run -d returns.
    assert!(child.wait().expect("wait").success());
    assert_eq!(runtime.status("notify"), "running");
}

#[test]
fn notify_socket_is_not_named_where_it_cannot_be_mounted() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("no-notify", &["sh", "-c", "echo \"<$NOTIFY_SOCKET>\""]).with(|config| {
        config["root"]["readonly"] = json!(false);
        config["mounts"] = json!([]);
        let linux = config["linux"].as_object_mut().expect("an object");
        linux.remove("maskedPaths");
        linux.remove("readonlyPaths");
        linux["namespaces"].as_array_mut().expect("a list").retain(|n| n["type"] != "mount");
    });
    let mut command = runtime.command(["run", "--bundle"]);
    command.arg(bundle.path()).arg("no-notify").env("NOTIFY_SOCKET", bundle.path().join("host"));
    let said = said(&command.output().expect("execute"));
    assert_eq!((said.status, said.out.as_str()), (0, "<>\n"), "{}", said.err);
    assert!(said.err.contains("NOTIFY_SOCKET: without a mount namespace"), "{}", said.err);
}

#[test]
fn notify_socket_of_create_is_waited_for_by_start() {
    let runtime = Runtime::new();
    let folder = Folder::new("notify");
    let host = UnixDatagram::bind(folder.path().join("host")).expect("bind");
    let bundle = Bundle::new("notify", &["sh", "-c", "echo $NOTIFY_SOCKET; exec sleep 1000"]);
    fs::create_dir_all(bundle.root().join("run/notify")).expect("mkdir");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let mut create = runtime.command(["create", "--bundle"]);
    create
        .arg(bundle.path())
        .arg("notify-start")
        .env("NOTIFY_SOCKET", folder.path().join("host"))
        .stdout(writer);
    assert!(create.status().expect("execute").success());
    drop(create);
    let mut child = runtime
        .command(["start", "notify-start"])
        .env("NOTIFY_SOCKET", folder.path().join("host"))
        .spawn()
        .expect("spawn");
    assert_eq!(Lines::of(reader.into()).line(), "/run/notify/notify.sock");
    assert!(child.try_wait().expect("wait").is_none(), "start waits for READY");
    let pid = runtime.pid("notify-start");
    let payload = UnixDatagram::unbound().expect("socket");
    payload.send_to(b"READY=1", format!("/proc/{pid}/root/run/notify/notify.sock")).expect("send");
    assert_eq!(hear(&host), "READY=1\n");
    assert_eq!(hear(&host), format!("MAINPID={pid}\n"));
    assert_eq!(hear(&host), "BARRIER=1");
    assert!(child.wait().expect("wait").success());
}

fn hear(host: &UnixDatagram) -> String {
    assert!(readable(host.as_fd()), "nothing is sent to NOTIFY_SOCKET");
    let mut bytes = [0; 256];
    let n = host.recv(&mut bytes).expect("recv");
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

#[test]
fn what_the_container_writes_is_nobody_elses_to_hold() {
    let runtime = Runtime::new();
    // conmon and containerd wait for the end of file of these pipes.
    let bundle = Bundle::new("pipes", &["cat"]);
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (stdin, mut input) = std::io::pipe().expect("pipe");
    let mut command = runtime.command(["create", "--bundle"]);
    command.arg(bundle.path()).arg("pipes").stdin(stdin).stdout(writer).stderr(Stdio::null());
    assert!(command.status().expect("execute").success());
    drop(command);
    runtime.ok(["start", "pipes"]);
    input.write_all(b"through\n").expect("write");
    drop(input);
    let mut text = String::new();
    assert!(readable(reader.as_fd()));
    let mut reader = reader;
    reader.read_to_string(&mut text).expect("read");
    assert_eq!(text, "through\n");
    runtime.wait_for_end("pipes");
    assert_eq!(runtime.status("pipes"), "stopped");
}

#[test]
fn delete_force_after_the_bundle_is_gone_works() {
    let runtime = Runtime::new();
    // Executes nothing after its word: the root goes away under it.
    let script = "mkfifo /dev/shm/f && exec 3<>/dev/shm/f && echo up && read word <&3";
    let bundle = Bundle::new("gone", &["sh", "-c", script]);
    assert_eq!(runtime.detached(&bundle, "gone").line(), "up");
    drop(bundle);
    assert_eq!(runtime.status("gone"), "running");
    runtime.ok(["delete", "--force", "gone"]);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}
