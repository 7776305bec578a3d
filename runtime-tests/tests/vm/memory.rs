//! Memory: what happens above and below each limit, who is told of a kill, and how small a limit may be.

use crate::limits::{EATS_MEMORY, cgroup, counts, limited, read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::{Lines, Runtime};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const MIB: u64 = 1 << 20;

/// A file on the machine's disk: its pages can be read again, and so be reclaimed.
struct OnDisk(PathBuf);

impl OnDisk {
    fn new(name: &str, mib: u64) -> OnDisk {
        let path = Path::new("/var/tmp").join(format!("rcrun-{name}-{}", std::process::id()));
        fs::write(&path, vec![b'x'; (mib * MIB) as usize]).expect("a file on the disk");
        nix::unistd::sync();
        // What is in memory already would be charged to nobody.
        fs::write("/proc/sys/vm/drop_caches", "1").expect("drop_caches");
        OnDisk(path)
    }

    /// Mounted on /tmp/data.
    fn mounted(&self, config: &mut Value) {
        let mount =
            json!({"destination": "/tmp/data", "type": "bind", "source": self.0, "options": ["bind", "ro"]});
        config["mounts"].as_array_mut().expect("mounts").push(mount);
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A bundle that reads `file` through and says so, then sleeps.
fn reads(id: &str, file: &OnDisk, resources: Value) -> Bundle {
    let bundle =
        limited(id, &["sh", "-c", "cat /tmp/data >/dev/null; echo read; exec sleep 1000"], resources);
    fs::write(bundle.root().join("tmp/data"), "").expect("a mount point");
    bundle.with(|config| file.mounted(config))
}

fn current(id: &str) -> u64 {
    read(id, "memory.current").trim().parse().expect("a number")
}

fn kind(line: &str) -> Value {
    serde_json::from_str::<Value>(line).expect("JSON")["type"].clone()
}

/// A container in the foreground that eats memory when its standard input ends, run by these words; its events, of which one
/// has come.
fn watched(runtime: &Runtime, bundle: &Bundle, id: &str, words: &[&str]) -> (Child, Child, Lines) {
    let path = bundle.path().to_str().expect("UTF-8");
    let mut run = runtime.command([words, &["--bundle", path, id]].concat());
    let run = run.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("execute the runtime");
    // Of a container that is being made there are no events.
    let is_running = || {
        let state = runtime.say(["state", id]);
        state.status == 0
            && serde_json::from_str::<Value>(&state.out).expect("state is JSON")["status"] == "running"
    };
    while !is_running() {
        std::thread::yield_now();
    }
    let mut events = runtime.command(["events", "--interval", "100ms", id]);
    let mut events = events.stdout(Stdio::piped()).spawn().expect("execute the runtime");
    let mut lines = Lines::of(events.stdout.take().expect("a pipe").into());
    assert_eq!(kind(&lines.line()), "stats");
    (run, events, lines)
}

fn eats_when_told(id: &str) -> Bundle {
    let resources = json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}});
    limited(id, &["sh", "-c", "read go; exec tail /dev/zero"], resources)
}

#[test]
fn events_tell_of_a_kill_also_when_the_container_is_deleted_before_they_look() {
    let runtime = Runtime::new();
    let bundle = eats_when_told("slow-look");
    for deleted_by_run in [true, false] {
        let words = if deleted_by_run { &["run"][..] } else { &["run", "--keep"] };
        let (mut run, mut events, mut lines) = watched(&runtime, &bundle, "slow-look", words);
        let watcher = Pid::from_raw(events.id().cast_signed());
        kill(watcher, Signal::SIGSTOP).expect("SIGSTOP");
        drop(run.stdin.take());
        assert_eq!(run.wait().expect("wait").code(), Some(137));
        if !deleted_by_run {
            runtime.ok(["delete", "slow-look"]);
        }
        assert!(!cgroup("slow-look").exists());
        kill(watcher, Signal::SIGCONT).expect("SIGCONT");
        let rest = lines.rest();
        assert_eq!(rest.lines().filter(|line| kind(line) == "oom").count(), 1, "{deleted_by_run}: {rest}");
        assert_eq!(events.wait().expect("wait").code(), Some(0));
    }
}

#[test]
fn events_tell_of_a_kill_also_when_systemd_removes_the_scope_before_they_look() {
    let runtime = Runtime::new();
    let bundle = eats_when_told("late-look")
        .with(|config| config["linux"]["cgroupsPath"] = json!("rcruntest-late.slice:rt:late-look"));
    let scope = Path::new("/sys/fs/cgroup/rcruntest.slice/rcruntest-late.slice/rt-late-look.scope");
    let words = ["--systemd-cgroup", "run", "--keep"];
    let (mut run, mut events, mut lines) = watched(&runtime, &bundle, "late-look", &words);
    let both = [run.id(), events.id()].map(|pid| Pid::from_raw(pid.cast_signed()));
    both.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).expect("SIGSTOP"));
    drop(run.stdin.take());
    while scope.exists() {
        std::thread::yield_now();
    }
    both.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).expect("SIGCONT"));
    let rest = lines.rest();
    assert_eq!(rest.lines().filter(|line| kind(line) == "oom").count(), 1, "{rest}");
    assert_eq!(events.wait().expect("wait").code(), Some(0));
    assert_eq!(run.wait().expect("wait").code(), Some(137));
    let end = runtime.state("late-look")["end"].clone();
    assert_eq!((&end["oomKilled"], &end["oomKills"]), (&json!(true), &json!(1)), "{end}");
}

#[test]
fn a_kill_is_told_by_run_by_state_and_by_events_before_the_end() {
    let runtime = Runtime::new();
    let bundle = eats_when_told("told");
    let (mut run, mut events, mut lines) = watched(&runtime, &bundle, "told", &["run", "--keep"]);
    drop(run.stdin.take());
    let rest = lines.rest();
    assert_eq!(rest.lines().filter(|line| kind(line) == "oom").count(), 1, "{rest}");
    assert_eq!(events.wait().expect("wait").code(), Some(0));

    let ended = run.wait_with_output().expect("wait");
    assert_eq!(ended.status.code(), Some(137));
    let warned = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(warned.contains("the OOM killer has ended it"), "{warned}");
    let end = runtime.state("told")["end"].clone();
    assert_eq!(
        (&end["status"], &end["signal"], &end["oomKilled"]),
        (&json!("killed"), &json!(9), &json!(true))
    );
    assert_eq!(end["oomKills"], 1, "{end}");
    let peak = end["usage"]["memoryPeak"].as_u64().expect("memoryPeak");
    assert!((15 * MIB..=16 * MIB).contains(&peak), "{end}");
}

#[test]
fn of_a_kill_that_another_has_waited_for_state_tells_the_count_and_no_status() {
    let runtime = Runtime::new();
    let bundle = limited("untold", &EATS_MEMORY, json!({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}));
    runtime.created(&bundle, "untold");
    runtime.ok(["start", "untold"]);
    runtime.wait_for_end("untold");
    let end = runtime.state("untold")["end"].clone();
    assert_eq!((&end["status"], &end["oomKills"]), (&json!("unknown"), &json!(1)), "{end}");
    assert!(end["usage"]["memoryPeak"].as_u64().is_some_and(|peak| peak >= 15 * MIB), "{end}");
}

#[test]
fn memory_high_reclaims_and_kills_nobody() {
    let file = OnDisk::new("high", 48);
    let runtime = Runtime::new();
    let bundle = reads("high", &file, json!({"unified": {"memory.high": (16 * MIB).to_string()}}));
    assert_eq!(runtime.detached(&bundle, "high").line(), "read");
    let events = counts(&read("high", "memory.events"));
    assert!(events["high"] > 0 && events["oom_kill"] == 0, "{events:?}");
    assert!(current("high") <= 17 * MIB, "{}", current("high"));
}

#[test]
fn memory_low_keeps_what_its_neighbour_wants() {
    let runtime = Runtime::new();
    let parent = Path::new("/sys/fs/cgroup/rcrun-pair");
    for (protection, kept) in [(0_u64, false), (28, true)] {
        let (mine, its) = (OnDisk::new("mine", 24), OnDisk::new("its", 96));
        fs::create_dir(parent).expect("mkdir cgroup");
        fs::write(parent.join("memory.max"), (48 * MIB).to_string()).expect("memory.max");
        let below = |config: &mut Value, name: &str| {
            config["linux"]["cgroupsPath"] = json!(format!("/rcrun-pair/{name}"));
        };
        let mine = reads("mine", &mine, json!({"memory": {"reservation": protection * MIB}}))
            .with(|config| below(config, "mine"));
        let its = reads("its", &its, json!({})).with(|config| below(config, "its"));
        assert_eq!(runtime.detached(&mine, "mine").line(), "read");
        assert_eq!(runtime.detached(&its, "its").line(), "read");
        let stat = fs::read_to_string(parent.join("mine/memory.stat")).expect("memory.stat");
        let left = counts(&stat)["file"];
        assert_eq!(left > 16 * MIB, kept, "{left} bytes are left with memory.low {protection} MiB");
        for id in ["mine", "its"] {
            runtime.ok(["delete", "--force", id]);
        }
        fs::remove_dir(parent).expect("rmdir cgroup");
    }
}

#[test]
fn swap_is_what_memory_swap_leaves_beyond_memory() {
    let swap = Folder::new("swap");
    let file = Path::new("/var/tmp").join(swap.path().file_name().expect("a name"));
    let on = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().expect(program);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let name = file.to_string_lossy().into_owned();
    on("dd", &["if=/dev/zero", &format!("of={name}"), "bs=1M", "count=96"]);
    on("chmod", &["600", &name]);
    on("mkswap", &[&name]);
    on("swapon", &[&name]);
    let script = "x=$(head -c 24000000 /dev/zero | tr '\\0' a); echo ${#x}";
    // The shell holds it more than once on the way.
    for (swap, survives) in [(16, false), (112, true)] {
        let resources = json!({"memory": {"limit": 16 * MIB, "swap": swap * MIB}});
        let said = Runtime::new().run(&limited("swapped", &["sh", "-c", script], resources), "swapped");
        assert_eq!(said.out.contains("24000000"), survives, "swap {swap}: {} {}", said.out, said.err);
    }
    on("swapoff", &[&name]);
    fs::remove_file(&file).expect("unlink");
}

/// Whether a runtime can run a static `true` within so many KiB. The kernel charges a cgroup for more or less beside what is
/// asked for, by what it has at hand: of several tries one counts.
fn starts_within(runtime: &Runtime, kib: u64) -> bool {
    (0..5).any(|_| {
        let id = format!("tiny{kib}");
        let limit = json!({"memory": {"limit": kib << 10, "swap": kib << 10}});
        let said = runtime.run(&limited(&id, &["true"], limit), &id);
        runtime.say(["delete", "--force", &id]);
        said.status == 0
    })
}

#[test]
fn a_container_starts_within_512_kib_and_needs_no_more_than_others() {
    let least = |runtime: &Runtime| (6..=15).map(|n| 1 << n).find(|kib| starts_within(runtime, *kib));
    let ours = least(&Runtime::new()).expect("rcrun starts nothing within 32 MiB");
    assert!(ours <= 512, "rcrun needs {ours} KiB");
    for path in ["/usr/sbin/runc", "/usr/bin/crun"] {
        let its = least(&Runtime::of(PathBuf::from(path))).unwrap_or_else(|| panic!("{path} starts nothing"));
        // Not println, which libtest keeps to itself when all is well.
        writeln!(std::io::stdout(), "\nrcrun starts within {ours} KiB, {path} within {its} KiB")
            .expect("stdout");
        assert!(ours <= its, "rcrun starts within {ours} KiB, {path} within {its} KiB");
    }
}

#[test]
fn a_limit_too_low_for_init_is_told_as_what_it_is() {
    let said =
        Runtime::new().run(&limited("none", &["true"], json!({"memory": {"limit": 16 << 10}})), "none");
    assert!(said.status == 1 && said.err.contains("(memory limit too low?)"), "{}", said.err);
    assert!(!cgroup("none").exists());
}

#[test]
fn a_safe_update_reclaims_first_and_rather_gives_up_than_kills() {
    let file = OnDisk::new("safe", 40);
    let runtime = Runtime::new();
    let limit = json!({"memory": {"limit": 100 * MIB, "swap": 100 * MIB}});
    let bundle = reads("safe", &file, limit.clone());
    assert_eq!(runtime.detached(&bundle, "safe").line(), "read");
    assert!(current("safe") > 32 * MIB, "{}", current("safe"));
    runtime.ok(["update", "--safe", "--memory", "12m", "--memory-swap", "12m", "safe"]);
    assert_eq!(read("safe", "memory.max").trim(), (12 * MIB).to_string());
    assert_eq!(read("safe", "memory.high").trim(), "max");
    assert_eq!(counts(&read("safe", "memory.events"))["oom_kill"], 0);

    // What a program has written in its own memory cannot be read again.
    let script = "x=$(head -c 24000000 /dev/zero | tr '\\0' a); echo ${#x}; sleep 1000; echo ${#x}";
    let bundle = limited("unsafe", &["sh", "-c", script], limit);
    assert_eq!(runtime.detached(&bundle, "unsafe").line(), "24000000");
    let said = runtime.say(["update", "--safe", "--memory", "12m", "--memory-swap", "12m", "unsafe"]);
    assert!(said.status == 1 && said.err.contains("the limit stays what it was"), "{}", said.err);
    for (file, value) in [("memory.max", (100 * MIB).to_string()), ("memory.high", "max".into())] {
        assert_eq!(read("unsafe", file).trim(), value);
    }
    assert_eq!(runtime.status("unsafe"), "running");

    let said = runtime.say_with_input(
        ["update", "-r", "-", "unsafe"],
        &json!({"memory": {"limit": 12 * MIB, "checkBeforeUpdate": true}}).to_string(),
    );
    assert!(said.status == 1 && said.err.contains("rejecting memory limit"), "{}", said.err);
    assert_eq!(read("unsafe", "memory.max").trim(), (100 * MIB).to_string());
}
