//! process: user, groups, umask, capabilities, limits, environment, folder, no_new_privs, oom score, terminal and its size.

use nix::unistd::{Gid, Uid, chown};
use runtime_tests::bundle::Bundle;
use runtime_tests::inside::{field, inside, shell, try_inside};
use runtime_tests::runtime::{Runtime, Said, said};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

fn set_caps(config: &mut Value, sets: Value) {
    config["process"]["capabilities"] = sets;
}

#[test]
fn user_group_and_additional_groups_are_those_of_the_config() {
    for (user, ids) in [
        (json!({"uid": 0, "gid": 0}), "0 0 0 0|0 0 0 0|"),
        (json!({"uid": 33, "gid": 44}), "33 33 33 33|44 44 44 44|"),
        (
            json!({"uid": 33, "gid": 44, "additionalGids": [7, 5, 1000000]}),
            "33 33 33 33|44 44 44 44|5 7 1000000",
        ),
        (json!({"uid": 0, "gid": 0, "additionalGids": [0]}), "0 0 0 0|0 0 0 0|0"),
    ] {
        let status = inside("ids", "cat /proc/self/status", |c| c["process"]["user"] = user.clone());
        let words = |key| field(&status, key).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(format!("{}|{}|{}", words("Uid"), words("Gid"), words("Groups")), ids, "{user}");
    }
}

/// What rcrun says when it is called by somebody who is in the groups 7 and 8.
fn called_in_groups(runtime: &Runtime, words: &[&str]) -> Said {
    let called = runtime.command(words);
    let mut command = Command::new("setpriv");
    command.args(["--groups", "7,8", "--"]).arg(called.get_program()).args(called.get_args());
    said(&command.stdin(Stdio::null()).output().expect("execute setpriv"))
}

#[test]
fn the_groups_of_whoever_calls_are_kept_where_an_annotation_says_so() {
    let runtime = Runtime::new();
    let script = "sed -n 's/^Groups:.//p' /proc/self/status";
    for (value, users, gids, groups) in [
        (None, false, json!([]), ""),
        (Some("0"), false, json!([]), ""),
        (Some("1"), false, json!([]), "7 8"),
        (Some(""), false, json!([]), "7 8"),
        (Some("1"), true, json!([]), "7 8"),
        (Some("1"), false, json!([5]), "7 8"),
    ] {
        let bundle = shell("kept-groups", script, |c| {
            c["process"]["user"] = json!({"uid": 33, "gid": 33, "additionalGids": gids});
            if let Some(value) = value {
                c["annotations"] = json!({"run.oci.keep_original_groups": value});
            }
            if users {
                c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
                for map in ["uidMappings", "gidMappings"] {
                    c["linux"][map] = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
                }
            }
        });
        let path = bundle.path().to_str().expect("UTF-8");
        let said = called_in_groups(&runtime, &["run", "--bundle", path, "kept-groups"]);
        assert_eq!((said.status, said.out.trim()), (0, groups), "{value:?} {}", said.err);
        // What the config asks for and does not get is told.
        let told = said.err.contains("/process/user/additionalGids: no effect");
        assert_eq!(told, value.is_some() && gids != json!([]), "{}", said.err);
    }
}

#[test]
fn an_exec_keeps_the_groups_of_whoever_calls_it_where_the_container_does() {
    let runtime = Runtime::new();
    let bundle = shell("kept-groups-exec", "exec sleep 1000", |c| {
        c["annotations"] = json!({"run.oci.keep_original_groups": "1"});
    });
    runtime.created(&bundle, "kept-groups-exec");
    runtime.ok(["start", "kept-groups-exec"]);
    let script = ["kept-groups-exec", "sed", "-n", "s/^Groups:.//p", "/proc/self/status"];
    let said = called_in_groups(&runtime, &[&["exec"], &script[..]].concat());
    assert_eq!((said.status, said.out.trim(), said.err.as_str()), (0, "7 8", ""));
    let said = called_in_groups(&runtime, &[&["exec", "--additional-gids", "5"], &script[..]].concat());
    assert_eq!((said.status, said.out.trim()), (0, "7 8"));
    assert!(said.err.contains("/user/additionalGids: no effect"), "{}", said.err);
    runtime.ok(["delete", "--force", "kept-groups-exec"]);
}

#[test]
fn umask_is_that_of_the_config_or_022() {
    for (umask, expected) in
        [(json!(null), "0022"), (json!(0), "0000"), (json!(0o077), "0077"), (json!(0o777), "0777")]
    {
        let seen = inside("umask", "umask", |c| {
            if !umask.is_null() {
                c["process"]["user"]["umask"] = umask.clone();
            }
        });
        assert_eq!(seen.trim(), expected, "{umask}");
    }
    // It is the process's, not that of what is made for it.
    let seen = inside("umask2", "stat -c %a /dev/null /dev/shm /dev", |c| {
        c["process"]["user"]["umask"] = json!(0o777)
    });
    assert_eq!(seen, "666\n1777\n755\n");
}

#[test]
fn capability_sets_are_those_of_the_config() {
    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;
    const NET: u64 = 1 << 10;
    let sets = |bounding: Value, effective: Value, permitted: Value, inheritable: Value, ambient: Value| json!({"bounding": bounding, "effective": effective, "permitted": permitted, "inheritable": inheritable, "ambient": ambient});
    let (chown, kill, both) = (json!(["CAP_CHOWN"]), json!(["CAP_KILL"]), json!(["CAP_CHOWN", "CAP_KILL"]));
    let none = json!([]);
    // For root, execve adds the bounding set to what is permitted (capabilities(7)); a user's sets show what was set.
    let rows: [(u32, Value, [u64; 5]); 7] = [
        (0, json!({}), [0, 0, 0, 0, 0]),
        (0, json!(null), [0, 0, 0, 0, 0]),
        (
            0,
            sets(both.clone(), both.clone(), both.clone(), none.clone(), none.clone()),
            [0, CHOWN | KILL, CHOWN | KILL, CHOWN | KILL, 0],
        ),
        (
            0,
            sets(both.clone(), both.clone(), both.clone(), chown.clone(), none.clone()),
            [CHOWN, CHOWN | KILL, CHOWN | KILL, CHOWN | KILL, 0],
        ),
        (
            33,
            sets(both.clone(), both.clone(), both.clone(), none.clone(), none.clone()),
            [0, 0, 0, CHOWN | KILL, 0],
        ),
        (
            33,
            sets(both.clone(), chown.clone(), both.clone(), both.clone(), kill.clone()),
            [CHOWN | KILL, KILL, KILL, CHOWN | KILL, KILL],
        ),
        (
            33,
            sets(
                json!(["CAP_NET_BIND_SERVICE"]),
                none.clone(),
                json!(["CAP_NET_BIND_SERVICE"]),
                json!(["CAP_NET_BIND_SERVICE"]),
                none,
            ),
            [NET, 0, 0, NET, 0],
        ),
    ];
    for (uid, caps, expected) in rows {
        let status = inside("caps", "cat /proc/self/status", |c| {
            c["process"]["user"]["uid"] = json!(uid);
            match caps.is_null() {
                true => drop(c["process"].as_object_mut().expect("process").remove("capabilities")),
                false => set_caps(c, caps.clone()),
            }
        });
        let seen = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .map(|set| u64::from_str_radix(field(&status, set), 16).expect("hexadecimal"));
        assert_eq!(seen, expected, "uid {uid}: {caps}");
    }
}

#[test]
fn an_unknown_capability_is_a_warning() {
    let caps = json!(["CAP_KILL", "CAP_FLY"]);
    let said =
        try_inside("unknowncap", "grep CapBnd /proc/self/status", |c| set_caps(c, json!({"bounding": caps})));
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.contains("0000000000000020"), "{}", said.out);
    assert!(said.err.contains("CAP_FLY"), "{}", said.err);
}

#[test]
fn no_new_privileges_is_as_the_config_says() {
    for (value, expected) in [(json!(true), "1"), (json!(false), "0"), (json!(null), "0")] {
        let status =
            inside("nnp", "cat /proc/self/status", |c| c["process"]["noNewPrivileges"] = value.clone());
        assert_eq!(field(&status, "NoNewPrivs"), expected, "{value}");
    }
}

#[test]
fn every_limit_is_as_the_config_says() {
    let rows = [
        ("RLIMIT_CPU", "Max cpu time", 1000u64, 2000u64),
        ("RLIMIT_FSIZE", "Max file size", 1 << 30, 1 << 31),
        ("RLIMIT_DATA", "Max data size", 1 << 30, 1 << 31),
        ("RLIMIT_STACK", "Max stack size", 1 << 20, 1 << 22),
        ("RLIMIT_CORE", "Max core file size", 0, 4096),
        ("RLIMIT_RSS", "Max resident set", 1 << 30, 1 << 31),
        ("RLIMIT_NPROC", "Max processes", 5000, 6000),
        ("RLIMIT_NOFILE", "Max open files", 99, 100),
        ("RLIMIT_MEMLOCK", "Max locked memory", 4096, 8192),
        ("RLIMIT_AS", "Max address space", 1 << 32, 1 << 33),
        ("RLIMIT_LOCKS", "Max file locks", 10, 20),
        ("RLIMIT_SIGPENDING", "Max pending signals", 11, 21),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", 8192, 16384),
        // Not above what everybody has: raising takes CAP_SYS_RESOURCE, which not every root has.
        ("RLIMIT_NICE", "Max nice priority", 0, 0),
        ("RLIMIT_RTPRIO", "Max realtime priority", 0, 0),
        ("RLIMIT_RTTIME", "Max realtime timeout", 1_000_000, 2_000_000),
    ];
    let seen = inside("limits", "cat /proc/self/limits", |c| {
        c["process"]["rlimits"] = rows
            .iter()
            .map(|(name, _, soft, hard)| json!({"type": name, "soft": soft, "hard": hard}))
            .collect();
    });
    for (name, line, soft, hard) in rows {
        let found =
            seen.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("{line}: {seen}"));
        let words: Vec<&str> = found.split_whitespace().take(2).collect();
        assert_eq!(words, [soft.to_string(), hard.to_string()], "{name}");
    }
    let unlimited = inside("unlimited", "cat /proc/self/limits", |c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX}]);
    });
    assert!(
        unlimited
            .lines()
            .any(|l| l.split_whitespace().eq("Max core file size unlimited unlimited bytes".split(' ')))
    );
}

#[test]
fn environment_and_arguments_arrive_as_they_are() {
    let runtime = Runtime::new();
    let bundle = Bundle::new(
        "env",
        &[
            "sh",
            "-c",
            "tr '\\0' '|' < /proc/self/environ; echo; for a; do echo \"<$a>\"; done",
            "sh",
            "one two",
            "",
            "three\nfour",
            "ü",
        ],
    )
    .with(|c| {
        c["process"]["env"] =
            json!(["PATH=/bin", "A=first", "EMPTY=", "LINE=a\nb", "EQ=x=y", "A=last", "HOME=/given"])
    });
    let said = runtime.run(&bundle, "env");
    let (env, args) = said.out.split_once("|\n").expect("environ");
    let mut env: Vec<&str> =
        env.split('|').filter(|e| !e.starts_with("PWD=") && !e.starts_with("SHLVL=")).collect();
    env.sort();
    assert_eq!(env, ["A=last", "EMPTY=", "EQ=x=y", "HOME=/given", "LINE=a\nb", "PATH=/bin"]);
    assert_eq!(args, "<one two>\n<>\n<three\nfour>\n<ü>\n");
}

#[test]
fn home_comes_from_the_containers_passwd_unless_it_is_given() {
    for (uid, env, expected) in [
        (0, json!(["PATH=/bin"]), "/root"),
        (33, json!(["PATH=/bin"]), "/srv"),
        (44, json!(["PATH=/bin"]), "/"),
        (33, json!(["PATH=/bin", "HOME="]), "/srv"),
        (33, json!(["PATH=/bin", "HOME=/mine"]), "/mine"),
    ] {
        let seen = inside("home", "echo $HOME", |c| {
            c["process"]["user"]["uid"] = json!(uid);
            c["process"]["env"] = env.clone();
        });
        assert_eq!(seen.trim(), expected, "uid {uid} {env}");
    }
}

#[test]
fn the_working_folder_is_made_and_must_be_one() {
    let runtime = Runtime::new();
    let bundle = shell("cwd", "pwd", |c| c["process"]["cwd"] = json!("/not/there/yet"));
    assert_eq!(runtime.run(&bundle, "cwd").out, "/not/there/yet\n");
    assert_eq!(
        fs::metadata(bundle.root().join("not/there/yet")).expect("made").permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(inside("cwd2", "pwd", |c| c["process"]["cwd"] = json!("/root")), "/root\n");
    assert_eq!(inside("cwd3", "pwd", |c| c["process"]["cwd"] = json!("/proc/self")).lines().count(), 1);
    let said = try_inside("cwd4", "pwd", |c| c["process"]["cwd"] = json!("/etc/passwd"));
    assert!(said.status == 1 && said.err.contains("/process/cwd"), "{}", said.err);
}

#[test]
fn a_folder_that_only_root_or_only_the_user_may_enter_can_be_the_working_folder() {
    for (owner, name) in [(0, "roots"), (33, "users")] {
        let runtime = Runtime::new();
        let bundle = shell(name, "pwd", |c| {
            c["process"]["cwd"] = json!("/only");
            c["process"]["user"] = json!({"uid": 33, "gid": 33});
        });
        let only = bundle.root().join("only");
        fs::create_dir(&only).expect("mkdir");
        chown(&only, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).expect("chown");
        fs::set_permissions(&only, fs::Permissions::from_mode(0o700)).expect("chmod");
        let said = runtime.run(&bundle, name);
        assert_eq!((said.status, said.out.as_str()), (0, "/only\n"), "{name}: {}", said.err);
    }
}

#[test]
fn the_oom_score_is_raised_or_left() {
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("oom_score_adj");
    assert_eq!(inside("oom", "cat /proc/self/oom_score_adj", |_| {}), own);
    let seen = inside("oom2", "cat /proc/self/oom_score_adj", |c| c["process"]["oomScoreAdj"] = json!(321));
    assert_eq!(seen, "321\n");
}

#[test]
fn exec_takes_the_processes_fields_and_its_own() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("execs", &["sleep", "1000"]).with(|c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}]);
        c["process"]["env"].as_array_mut().expect("env").push(json!("FROM=config"));
        c["process"]["oomScoreAdj"] = json!(123);
        c["process"]["user"]["umask"] = json!(0o027);
    });
    assert_eq!(runtime.create(&bundle, "execs").status, 0);
    runtime.ok(["start", "execs"]);
    let script = "ulimit -n; echo $FROM $MORE; cat /proc/self/oom_score_adj; umask; pwd; id -u; id -G; grep NoNewPrivs /proc/self/status";
    let seen = runtime.ok([
        "exec",
        "--env",
        "MORE=flag",
        "--cwd",
        "/tmp",
        "--user",
        "33:33",
        "--additional-gids",
        "9",
        "execs",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(seen.out, "77\nconfig flag\n123\n0027\n/tmp\n33\n33 9\nNoNewPrivs:\t1\n");
    let process = bundle.path().join("process.json");
    let caps = json!(["CAP_KILL"]);
    let body = json!({"args": ["sh", "-c", "cat /proc/self/status; echo $A"], "env": ["PATH=/bin", "A=file"], "cwd": "/etc",
                      "user": {"uid": 0, "gid": 0, "umask": 63},
                      "capabilities": {"bounding": caps, "effective": caps, "permitted": caps}, "oomScoreAdj": 200});
    fs::write(&process, body.to_string()).expect("process.json");
    let seen = runtime.ok(["exec", "--process", process.to_str().expect("UTF-8"), "execs"]).out;
    assert_eq!(
        (field(&seen, "CapEff"), field(&seen, "Umask"), field(&seen, "NoNewPrivs")),
        ("0000000000000020", "0077", "0")
    );
    assert!(seen.ends_with("file\n"), "{seen}");
    runtime.ok(["delete", "--force", "execs"]);
}

/// Runs the bundle on a terminal of its own, as script(1) makes one.
fn on_a_terminal(runtime: &Runtime, bundle: &Bundle, id: &str) -> Said {
    let run = runtime.command(["run", "--bundle", bundle.path().to_str().expect("UTF-8"), id]);
    let words: Vec<String> = std::iter::once(run.get_program())
        .chain(run.get_args())
        .map(|word| word.to_str().expect("UTF-8").to_string())
        .collect();
    let output = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script");
    let said = said(&output);
    // script(1) ends its terminal's input, and the terminal echoes that.
    Said { out: said.out.replace("^@", "").replace("^D\u{8}\u{8}", ""), ..said }
}

#[test]
fn a_terminal_is_the_containers_own() {
    let runtime = Runtime::new();
    let script = "tty; stat -c '%t:%T %a' /dev/console; test -t 0 -a -t 1 -a -t 2 && echo all; ls -1 /dev/pts; \
                  cut -d' ' -f7 /proc/self/stat; echo x > /dev/tty";
    let bundle = shell("tty", script, |c| c["process"]["terminal"] = json!(true));
    let said = on_a_terminal(&runtime, &bundle, "tty");
    let lines: Vec<&str> = said.out.lines().map(str::trim_end).collect();
    assert_eq!(said.status, 0, "{}", said.out);
    assert_eq!(lines[0], "/dev/pts/0", "{}", said.out);
    assert_eq!(lines[1].split(' ').next(), Some("88:0"), "{}", said.out);
    assert_eq!(lines[2..5], ["all", "0", "ptmx"], "{}", said.out);
    // tty_nr: device 136:0.
    assert_eq!(lines[5..7], ["34816", "x"], "{}", said.out);
}

#[test]
fn a_terminal_of_a_user_belongs_to_the_user() {
    let runtime = Runtime::new();
    let bundle = shell("ttyuser", "stat -c %u $(tty) /dev/console; echo x > $(tty)", |c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["user"] = json!({"uid": 33, "gid": 33});
    });
    let said = on_a_terminal(&runtime, &bundle, "ttyuser");
    assert!(said.out.replace('\r', "").ends_with("33\n33\nx\n"), "{}", said.out);
}

#[test]
fn a_created_terminal_has_the_size_of_the_config() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("size", &["sleep", "1000"]).with(|c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 43, "width": 132});
    });
    let path = bundle.path().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    // The master stays in this connection's queue: closed, it would hang up the terminal.
    let receiver = std::thread::spawn(move || listener.accept().expect("accept"));
    let console = path.to_str().expect("UTF-8");
    let bundle_path = bundle.path().to_str().expect("UTF-8");
    runtime.ok(["create", "--bundle", bundle_path, "--console-socket", console, "size"]);
    let connection = receiver.join().expect("accept");
    runtime.ok(["start", "size"]);
    assert_eq!(runtime.ok(["exec", "size", "sh", "-c", "stty size < /dev/console"]).out, "43 132\n");
    runtime.ok(["delete", "--force", "size"]);
    drop(connection);
}

#[test]
fn stdio_of_a_user_can_be_opened_again_but_the_null_device_stays_roots() {
    let before = fs::metadata("/dev/null").expect("null").uid();
    let seen = inside("stdio", "echo again > /proc/self/fd/1; echo again > /dev/stdout", |c| {
        c["process"]["user"] = json!({"uid": 33, "gid": 33});
    });
    assert_eq!(seen, "again\nagain\n");
    assert_eq!(fs::metadata("/dev/null").expect("null").uid(), before);
}

#[test]
fn the_session_keyring_is_the_containers_own() {
    let own = fs::read_to_string("/proc/keys").unwrap_or_default();
    let seen = inside("keys", "cat /proc/keys", |c| c["linux"]["maskedPaths"] = json!([]));
    assert!(seen.contains("_ses.keys"), "{seen}");
    assert!(!own.contains("_ses.keys"), "{own}");
}

#[test]
fn a_container_without_a_process_is_created_and_refused_by_start() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("noprocess", &["true"])
        .with(|c| drop(c.as_object_mut().expect("config").remove("process")));
    let created = runtime.create(&bundle, "noprocess");
    assert_eq!(created.status, 0, "{}", created.err);
    assert_eq!(runtime.status("noprocess"), "created");
    let said = runtime.say(["start", "noprocess"]);
    assert!(said.status == 1 && said.err.contains("/process"), "{}", said.err);
    runtime.ok(["delete", "--force", "noprocess"]);
}

#[test]
fn a_command_that_cannot_be_executed_is_told_in_the_engines_words() {
    for (args, words) in [
        (json!(["nothing"]), "exec: \"nothing\": executable file not found in $PATH"),
        (json!(["/nothing"]), "exec: \"/nothing\": stat /nothing: no such file or directory"),
        (json!(["/etc/passwd"]), "permission denied"),
        (json!(["/etc"]), "is a directory: permission denied"),
    ] {
        let said = try_inside("noexec", "", |c| c["process"]["args"] = args.clone());
        assert!(said.status == 1 && said.err.contains(words), "{args}: {}", said.err);
    }
}

#[test]
fn a_filter_blocks_a_system_call_with_and_without_no_new_privileges() {
    for (no_new_privileges, errno, words) in
        [(true, 1, "Operation not permitted"), (false, 30, "Read-only file system")]
    {
        let said = try_inside(
            "filter",
            "mkdir /tmp/x 2>&1; echo alive; grep Seccomp: /proc/self/status; grep CapEff /proc/self/status",
            |c| {
                c["root"]["readonly"] = json!(false);
                c["process"]["noNewPrivileges"] = json!(no_new_privileges);
                c["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]
                });
            },
        );
        assert_eq!(said.status, 0, "{}", said.err);
        assert!(said.out.contains(words) && said.out.contains("alive\nSeccomp:\t2\n"), "{}", said.out);
        // CAP_SYS_ADMIN, kept for the filter's sake, is gone.
        assert_eq!(field(&said.out, "CapEff"), "0000000020000420");
    }
}

#[test]
fn annotations_are_in_the_state() {
    let runtime = Runtime::new();
    let annotations = json!({"org.example.a": "1", "org.example.b": "ü"});
    let bundle = Bundle::new("annotated", &["true"]).with(|c| c["annotations"] = annotations.clone());
    assert_eq!(runtime.create(&bundle, "annotated").status, 0);
    let state: Value = serde_json::from_str(&runtime.ok(["state", "annotated"]).out).expect("JSON");
    assert_eq!(state["annotations"], annotations);
}
