//! exec from outside: what its process gets, what it leaves, and how its failure is told.

use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::{Lines, Runtime, Said, code, said};
use serde_json::json;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Stdio;

/// A runtime with one running container, `box`.
struct Inside {
    runtime: Runtime,
    _bundle: Bundle,
    /// The payload's output.
    _lines: Lines,
    id: String,
}

impl Inside {
    fn new() -> Inside {
        Inside::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut serde_json::Value)) -> Inside {
        let runtime = Runtime::new();
        let bundle = Bundle::new("exec", &["sh", "-c", "echo up; exec sleep 1000"]).with(change);
        // The state root's name is unique on the machine, and so is the cgroup that is named after the id.
        let id = format!("exec-{}", runtime.root().file_name().expect("a name").to_string_lossy());
        let mut lines = runtime.detached(&bundle, &id);
        assert_eq!(lines.line(), "up");
        Inside { runtime, _bundle: bundle, _lines: lines, id }
    }

    fn exec(&self, options: &[&str], command: &[&str]) -> Said {
        self.runtime.say(["exec"].iter().chain(options).chain([&self.id.as_str()]).chain(command))
    }

    /// What a shell script says; it must succeed.
    fn says(&self, options: &[&str], script: &str) -> String {
        let said = self.exec(options, &["sh", "-c", script]);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{options:?} {script}");
        said.out.trim_end().to_string()
    }
}

#[test]
fn the_exit_status_of_exec_is_the_commands_or_128_and_its_signal_or_255() {
    let inside = Inside::new();
    for (script, status) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let said = inside.exec(&[], &["sh", "-c", script]);
        assert_eq!((said.status, said.err.as_str()), (status, ""), "{script}");
    }
    for (command, phrase) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/bin/nope", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
        ("/etc", "is a directory: permission denied"),
    ] {
        let said = inside.exec(&[], &[command]);
        assert_eq!((said.status, said.out.as_str()), (255, ""), "{command}");
        assert!(said.err.contains(phrase), "{command}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{command}: {}", said.err);
    }
}

#[test]
fn exec_joins_every_namespace_and_the_cgroup_of_the_container() {
    let inside = Inside::new();
    let pid = inside.runtime.pid(&inside.id);
    for name in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let own = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("namespace");
        assert_eq!(
            inside.says(&[], &format!("readlink /proc/self/ns/{name}")),
            own.to_string_lossy(),
            "{name}"
        );
    }
    assert_eq!(inside.says(&[], "hostname; pwd; cat /proc/self/cgroup | tail -n 1"), "box\n/\n0::/");
}

#[test]
fn user_env_cwd_and_groups_are_those_of_the_command_line() {
    let inside = Inside::new();
    for (options, script, expected) in [
        (&["--user", "33"] as &[&str], "id -u; id -g; echo $HOME", "33\n0\n/srv"),
        (&["--user", "33:44"], "id -u; id -g", "33\n44"),
        (&["-u", "4711:4712"], "id -u; id -g; echo $HOME", "4711\n4712\n/"),
        (&["--user=0:0"], "id -u; echo $HOME", "0\n/root"),
        (&["--env", "A=1", "-e", "B=x y", "--env=A=2"], "echo $A $B", "2 x y"),
        (&["--env", "EMPTY=", "--env", "EQ=a=b"], "echo \"[$EMPTY]$EQ\"", "[]a=b"),
        (&["--cwd", "/tmp"], "pwd", "/tmp"),
        (&["--cwd=/proc/1"], "pwd", "/proc/1"),
        (&["--additional-gids", "100", "-g", "200"], "sed -n 's/^Groups:.//p' /proc/self/status", "100 200"),
        (&["-u", "33", "-g", "7"], "id -u; sed -n 's/^Groups:.//p' /proc/self/status", "33\n7"),
        (&["-user", "33"], "id -u", "33"),
        (&["-cwd=/etc"], "pwd", "/etc"),
        (&["--no-new-privs"], "grep NoNewPrivs /proc/self/status | cut -f 2", "1"),
    ] {
        assert_eq!(inside.says(options, script).trim_end(), expected, "{options:?}");
    }
}

#[test]
fn what_follows_the_id_is_the_commands() {
    let inside = Inside::new();
    let said = inside.exec(&[], &["echo", "--user", "-d", "--", "-t"]);
    assert_eq!((said.status, said.out.as_str()), (0, "--user -d -- -t\n"), "{}", said.err);
    let said = inside.exec(&[], &["ls", "-d", "/etc"]);
    assert_eq!((said.status, said.out.as_str()), (0, "/etc\n"), "{}", said.err);
}

#[test]
fn added_capabilities_never_become_inheritable() {
    let inside = Inside::with(|config| config["process"]["noNewPrivileges"] = false.into());
    let sets = |options: &[&str]| {
        let text = inside.says(options, "grep ^Cap /proc/self/status");
        let mask = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).expect(name);
            u64::from_str_radix(line.rsplit('\t').next().expect("a mask"), 16).expect("hex")
        };
        [mask("CapInh"), mask("CapPrm"), mask("CapEff"), mask("CapBnd"), mask("CapAmb")]
    };
    // CAP_AUDIT_WRITE 29, CAP_KILL 5, CAP_NET_BIND_SERVICE 10; CAP_SYS_ADMIN 21, CAP_NET_RAW 13.
    let base = 1 << 29 | 1 << 5 | 1 << 10;
    assert_eq!(sets(&[]), [0, base, base, base, 0]);
    let more = base | 1 << 21 | 1 << 13;
    for options in [
        &["--cap", "CAP_SYS_ADMIN", "--cap", "CAP_NET_RAW"] as &[&str],
        &["-c", "sys_admin", "--cap=cap_net_raw"],
    ] {
        assert_eq!(sets(options), [0, more, more, more, 0], "{options:?}");
    }
    // As another user they are in the bounding set only.
    assert_eq!(sets(&["-u", "33", "--cap", "CAP_SYS_ADMIN"])[0], 0);
    let said = inside.exec(&["--cap", "CAP_NOPE"], &["true"]);
    assert_eq!(said.status, 255);
    assert!(said.err.contains("CAP_NOPE"), "{}", said.err);
}

#[test]
fn standard_input_of_exec_reaches_the_command() {
    let inside = Inside::new();
    let mut child = inside
        .runtime
        .command(["exec", &inside.id, "sh", "-c", "cat; echo end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    child.stdin.take().expect("piped").write_all(b"some\n").expect("write");
    let said = said(&child.wait_with_output().expect("wait"));
    assert_eq!((said.status, said.out.as_str()), (0, "some\nend\n"));
}

#[test]
fn a_process_file_is_used_as_it_is() {
    let inside = Inside::new();
    let folder = Folder::new("process");
    let path = folder.path().join("process.json");
    let process = json!({
        "user": {"uid": 33, "gid": 34, "additionalGids": [7], "umask": 0o027},
        "args": ["sh", "-c", "id -u; id -g; pwd; echo $A; umask; ulimit -n; exit 3"],
        "env": ["PATH=/bin", "A=1", "A=2"],
        "cwd": "/tmp",
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 99, "soft": 88}]
    });
    std::fs::write(&path, process.to_string()).expect("write");
    let path = path.to_str().expect("UTF-8");
    let pid_file = folder.path().join("pid");
    let said = inside.exec(&["--process", path, "--pid-file", pid_file.to_str().expect("UTF-8")], &[]);
    assert_eq!((said.status, said.out.as_str()), (3, "33\n34\n/tmp\n2\n0027\n88\n"), "{}", said.err);
    assert!(pid_file.exists(), "the process ran: its status is its own");
}

#[test]
fn a_process_may_come_from_a_pipe_without_a_user_and_beside_a_tty() {
    let inside = Inside::new();
    let (reader, mut writer) = std::io::pipe().expect("pipe");
    let process = json!({"args": ["sh", "-c", "id -u; tty"], "env": ["PATH=/bin"], "cwd": "/"});
    writer.write_all(process.to_string().as_bytes()).expect("write");
    drop(writer);
    let path = format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd());
    let said = inside.exec(&["--tty", "--process", &path], &[]);
    assert_eq!((said.status, said.out.as_str()), (1, "0\nnot a tty\n"), "{}", said.err);
}

#[test]
fn a_detached_exec_returns_while_its_command_runs() {
    let inside = Inside::new();
    let folder = Folder::new("detached");
    let pid_file = folder.path().join("pid");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let mut command = inside.runtime.command(["exec", "--detach", "--pid-file"]);
    command.arg(&pid_file).args([&inside.id, "sh", "-c", "echo up; exec sleep 1000"]).stdout(writer);
    assert_eq!(code(command.status().expect("execute")), 0);
    drop(command);
    assert_eq!(Lines::of(reader.into()).line(), "up");
    let pid: i32 = std::fs::read_to_string(&pid_file).expect("pid file").parse().expect("a bare pid");
    let pids: Vec<i32> =
        serde_json::from_str(&inside.runtime.ok(["ps", "--format", "json", &inside.id]).out).expect("pids");
    assert!(pids.contains(&pid), "{pid} is not among {pids:?}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_failing_exec_writes_no_pid_file() {
    let inside = Inside::new();
    let folder = Folder::new("nopid");
    for (options, command) in [
        (&[] as &[&str], &["nope"] as &[&str]),
        (&["-d"], &["/etc/passwd"]),
        (&["--cwd", "/nowhere"], &["true"]),
        (&["-d", "-t"], &["true"]),
        (&["--cgroup", "nowhere"], &["true"]),
        (&["--cgroup", "../.."], &["true"]),
    ] {
        let pid_file = folder.path().join("pid");
        let path = pid_file.to_str().expect("UTF-8");
        let options: Vec<&str> = ["--pid-file", path].into_iter().chain(options.iter().copied()).collect();
        let said = inside.exec(&options, command);
        assert_eq!((said.status, said.err.lines().count()), (255, 1), "{options:?}: {}", said.err);
        assert!(!pid_file.exists(), "{options:?}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0, "{options:?}");
    }
    let pids = inside.runtime.ok(["ps", "--format", "json", &inside.id]).out;
    assert_eq!(pids.matches(',').count(), 0, "a process is left: {pids}");
}

#[test]
fn exec_waits_in_a_paused_container_only_when_asked_to() {
    let inside = Inside::new();
    inside.runtime.ok(["pause", &inside.id]);
    let refused = inside.exec(&[], &["true"]);
    assert_eq!(refused.status, 255);
    assert!(refused.err.contains("paused"), "{}", refused.err);
    let child = inside
        .runtime
        .command(["exec", "--ignore-paused", &inside.id, "echo", "thawed"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    inside.runtime.ok(["resume", &inside.id]);
    let said = said(&child.wait_with_output().expect("wait"));
    assert_eq!((said.status, said.out.as_str()), (0, "thawed\n"), "{}", said.err);
}

#[test]
fn exec_runs_in_a_cgroup_below_the_containers() {
    let inside = Inside::new();
    let pid = inside.runtime.pid(&inside.id);
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    let own = text.lines().find_map(|l| l.strip_prefix("0::/")).expect("cgroup2").to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mount = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2")).expect("a cgroup2 mount");
    let folder = std::path::Path::new(mount.split(' ').nth(1).expect("a path")).join(&own).join("below");
    std::fs::create_dir(&folder).expect("mkdir");
    for option in ["below", "/below"] {
        let text = inside.says(&["--cgroup", option], "tail -n 1 /proc/self/cgroup");
        assert_eq!(text, "0::/below", "{option}");
    }
    // Delete removes it with the rest.
    inside.runtime.ok(["delete", "--force", &inside.id]);
    assert!(!folder.exists());
}

#[test]
fn exec_in_a_container_that_does_not_run_is_refused() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("norun", &["true"]);
    runtime.detached(&bundle, "norun").rest();
    runtime.wait_for_end("norun");
    let said = runtime.say(["exec", "norun", "true"]);
    assert_eq!(said.status, 255);
    assert!(said.err.contains("container not running"), "{}", said.err);
}

#[test]
fn exec_works_in_a_created_container_as_with_runc() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("early", &["true"]);
    runtime.created(&bundle, "execearly");
    let said = runtime.say(["exec", "execearly", "hostname"]);
    assert_eq!((said.status, said.out.as_str()), (0, "box\n"), "{}", said.err);
    assert_eq!(runtime.status("execearly"), "created");
}

#[test]
fn orphans_of_exec_do_not_disturb_it() {
    let inside = Inside::new();
    let script = "i=0; while [ $i -lt 30 ]; do (sh -c 'sleep 0.01 & exit 0' &) ; i=$((i+1)); done; exit 9";
    let said = inside.exec(&[], &["sh", "-c", script]);
    assert_eq!((said.status, said.err.as_str()), (9, ""));
}

#[test]
fn twenty_execs_at_once() {
    let inside = Inside::new();
    std::thread::scope(|scope| {
        for i in 0..20 {
            let inside = &inside;
            scope.spawn(move || {
                let text = format!("echo {i}; exit {i}");
                let said = inside.exec(&[], &["sh", "-c", &text]);
                assert_eq!((said.status, said.out), (i, format!("{i}\n")), "{}", said.err);
            });
        }
    });
}

#[test]
fn a_failure_is_told_by_its_reason_however_fast_init_ends() {
    let inside = Inside::new();
    for _ in 0..100 {
        let said = inside.exec(&["--cwd", "/nowhere"], &["true"]);
        assert_eq!(said.status, 255);
        assert!(said.err.contains("/nowhere: openat2: no such file or directory"), "{}", said.err);
    }
}

#[test]
fn every_other_field_of_a_process_file_counts_too() {
    let inside = Inside::new();
    let folder = Folder::new("process-fields");
    let path = folder.path().join("process.json");
    // The capability is bit 5.
    let kill = json!(["CAP_KILL"]);
    let script = "sed -n -E 's/^(CapEff|CapBnd|NoNewPrivs):.0*//p' /proc/self/status; cat /proc/self/oom_score_adj; \
                  cut -d ' ' -f 18,19 /proc/self/stat; stty size";
    let process = json!({
        "terminal": true,
        "consoleSize": {"height": 31, "width": 91},
        "user": {"uid": 0, "gid": 0},
        "args": ["sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {"bounding": kill, "effective": kill, "permitted": kill},
        "noNewPrivileges": true,
        "oomScoreAdj": 321,
        "scheduler": {"policy": "SCHED_OTHER", "nice": 7},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
        "execCPUAffinity": {"initial": "0", "final": "0"}
    });
    std::fs::write(&path, process.to_string()).expect("write");
    let said = inside.exec(&["--process", path.to_str().expect("UTF-8")], &[]);
    let lines: Vec<&str> = said.out.lines().map(|line| line.trim_end_matches('\r')).collect();
    assert_eq!((said.status, lines), (0, vec!["20", "20", "1", "321", "27 7", "31 91"]), "{}", said.err);
}
