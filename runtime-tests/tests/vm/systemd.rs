//! The systemd driver: a container's cgroup is a scope that systemd made, knows the limits of, and forgets at the end.

use crate::limits::EATS_MEMORY;
use crate::user::User;
use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::{Runtime, Said, said};
use runtime_tests::trace::{Victim, trace};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BY_SYSTEMD: &str = "--systemd-cgroup";

/// A bundle whose unit is `rt-ID.scope` in `rcruntest-a.slice`.
fn bundle(id: &str, args: &[&str], resources: Value) -> Bundle {
    Bundle::new(id, args).with(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("rcruntest-a.slice:rt:{id}"));
        config["linux"]["resources"] = resources;
    })
}

fn unit(id: &str) -> String {
    format!("rt-{id}.scope")
}

fn cgroup(id: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup/rcruntest.slice/rcruntest-a.slice").join(unit(id))
}

fn read(id: &str, file: &str) -> String {
    let path = cgroup(id).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim_end().to_string()
}

fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().expect("execute systemctl");
    said(&output).out
}

/// One property of a container's unit, as systemd says it.
fn property(id: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, &unit(id)]).trim_end().to_string()
}

/// systemd knows no such unit. It collects one after its last process has gone, which is not at once.
fn nothing_is_left(id: &str) {
    let began = Instant::now();
    loop {
        let units = systemctl(&["list-units", "--all", "--plain", "--no-legend", &unit(id)]);
        if units.trim().is_empty() {
            break;
        }
        if began.elapsed() > Duration::from_secs(20) {
            let processes = fs::read_to_string(cgroup(id).join("cgroup.procs")).unwrap_or_default();
            let told = processes
                .lines()
                .map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default());
            panic!("{units}{processes}{}", told.collect::<String>());
        }
    }
    assert!(!cgroup(id).exists(), "{}", cgroup(id).display());
}

fn create(runtime: &Runtime, bundle: &Bundle, id: &str) -> Said {
    let mut command = runtime.command([BY_SYSTEMD, "create", "--bundle"]);
    command.arg(bundle.path()).arg(id);
    runtime.without_pipes(&mut command)
}

fn running(runtime: &Runtime, id: &str, args: &[&str], resources: Value) -> Bundle {
    let bundle = bundle(id, args, resources);
    let said = create(runtime, &bundle, id);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    runtime.ok(["start", id]);
    bundle
}

fn run(runtime: &Runtime, bundle: &Bundle, id: &str) -> Said {
    let mut command = runtime.command([BY_SYSTEMD, "run", "--bundle"]);
    command.arg(bundle.path()).arg(id);
    said(&command.output().expect("execute the runtime"))
}

#[test]
fn limits_are_in_force_and_systemd_knows_them() {
    let runtime = Runtime::new();
    let _bundle = running(
        &runtime,
        "known",
        &["sleep", "1000"],
        json!({"memory": {"limit": 64 << 20, "reservation": 8 << 20, "swap": 96 << 20}, "pids": {"limit": 20},
               "cpu": {"quota": 33_333, "period": 100_000, "shares": 2048},
               "unified": {"memory.high": "48M", "memory.oom.group": "1"}}),
    );
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.low", "8388608"),
        ("memory.swap.max", "33554432"),
        ("memory.high", "50331648"),
        ("memory.oom.group", "1"),
        ("pids.max", "20"),
        ("cpu.max", "33333 100000"),
        ("cpu.weight", "174"),
    ] {
        assert_eq!(read("known", file), value, "{file}");
    }
    for (name, value) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "8388608"),
        ("MemorySwapMax", "33554432"),
        ("MemoryHigh", "50331648"),
        ("TasksMax", "20"),
        // Whole percent, rounded up.
        ("CPUQuotaPerSecUSec", "340ms"),
        ("CPUWeight", "174"),
        ("Delegate", "yes"),
        ("Slice", "rcruntest-a.slice"),
        ("DevicePolicy", "strict"),
        ("ControlGroup", "/rcruntest.slice/rcruntest-a.slice/rt-known.scope"),
    ] {
        assert_eq!(property("known", name), value, "{name}");
    }
    // Nobody but the container is in it.
    assert_eq!(read("known", "cgroup.procs"), runtime.pid("known").to_string());
    systemctl(&["daemon-reload"]);
    assert_eq!(
        (read("known", "memory.max").as_str(), read("known", "pids.max").as_str()),
        ("67108864", "20")
    );
    runtime.ok(["delete", "--force", "known"]);
    nothing_is_left("known");
}

#[test]
fn annotations_are_properties_of_the_unit() {
    let runtime = Runtime::new();
    let bundle = bundle("noted", &["sleep", "1000"], json!({})).with(|config| {
        config["annotations"] = json!({
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.KillSignal": "10",
            "org.systemd.property.After": "['basic.target']",
            "org.systemd.property.CollectMode": "'inactive'",
        });
    });
    assert_eq!(create(&runtime, &bundle, "noted").status, 0);
    assert_eq!(property("noted", "TimeoutStopUSec"), "7s");
    assert_eq!(property("noted", "KillSignal"), "10");
    assert!(property("noted", "After").contains("basic.target"));
    assert_eq!(property("noted", "CollectMode"), "inactive");
    runtime.ok(["delete", "--force", "noted"]);
    nothing_is_left("noted");
    let bundle = bundle.with(|config| config["annotations"] = json!({"org.systemd.property.Nothing": "1"}));
    let said = create(&runtime, &bundle, "noted");
    assert_eq!(said.status, 1);
    assert!(
        said.err.contains("start unit rt-noted.scope of systemd: Cannot set property Nothing"),
        "{}",
        said.err
    );
    nothing_is_left("noted");
}

#[test]
fn exec_is_in_the_unit_and_kill_pause_and_ps_are_of_all_in_it() {
    let runtime = Runtime::new();
    let _bundle = running(&runtime, "joined", &["sleep", "1000"], json!({}));
    let mut command = runtime.command(["exec", "--detach", "joined", "sleep", "1000"]);
    assert_eq!(runtime.without_pipes(&mut command).status, 0);
    assert_eq!(read("joined", "cgroup.procs").lines().count(), 2);
    assert_eq!(property("joined", "TasksCurrent"), "2");
    assert_eq!(runtime.ok(["ps", "--format", "json", "joined"]).out.matches(',').count(), 1);
    runtime.ok(["pause", "joined"]);
    assert_eq!(runtime.status("joined"), "paused");
    runtime.ok(["resume", "joined"]);
    runtime.ok(["kill", "joined", "KILL"]);
    runtime.wait_for_end("joined");
    assert_eq!(runtime.status("joined"), "stopped");
    // systemd removes the cgroup of an empty scope, before delete or with it.
    runtime.ok(["delete", "joined"]);
    nothing_is_left("joined");
}

/// For writing: reading /dev/kmsg may want CAP_SYSLOG.
fn opens(runtime: &Runtime, id: &str, node: &str) -> bool {
    let said = runtime.say(["exec", id, "sh", "-c", &format!(": > {node}")]);
    assert!(said.status == 0 || said.err.contains("Operation not permitted"), "{node}: {}", said.err);
    said.status == 0
}

#[test]
fn the_device_policy_survives_a_daemon_reload() {
    let runtime = Runtime::new();
    let deny = json!({"allow": false, "access": "rwm"});
    let kmsg = |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "w"});
    let bundle = bundle("devices", &["sleep", "1000"], json!({"devices": [deny, kmsg(true)]}));
    let bundle = bundle.with(|config| {
        config["linux"]["devices"] = json!([{"path": "/dev/log1", "type": "c", "major": 1, "minor": 11}]);
    });
    assert_eq!(create(&runtime, &bundle, "devices").status, 0);
    runtime.ok(["start", "devices"]);
    let check = |what: &str, expected: bool| {
        for when in ["", "reloaded"] {
            let both = ["/dev/log1", "/dev/null"].map(|node| opens(&runtime, "devices", node));
            assert_eq!(both, [expected, true], "{what} {when}");
            systemctl(&["daemon-reload"]);
        }
    };
    check("as made", true);
    for (what, rules, expected) in [
        ("denied", json!([deny]), false),
        // systemd can say the first, and only rcrun's program the second.
        (
            "taken out",
            json!([deny, {"allow": true, "type": "c", "major": 1, "access": "w"}, kmsg(false)]),
            false,
        ),
        ("one minor of all", json!([deny, {"allow": true, "type": "c", "minor": 11, "access": "w"}]), true),
        ("all but one", json!([{"allow": true, "access": "rwm"}, kmsg(false)]), false),
        ("all", json!([{"allow": true, "access": "rwm"}]), true),
        ("as made, again", json!([deny, kmsg(true)]), true),
    ] {
        let rules = json!({"devices": rules}).to_string();
        let said = runtime.say_with_input(["update", "--resources", "-", "devices"], &rules);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{what}");
        check(what, expected);
    }
}

#[test]
fn update_changes_the_files_and_what_systemd_knows_or_neither() {
    let runtime = Runtime::new();
    let _bundle = running(
        &runtime,
        "changed",
        &["sleep", "1000"],
        json!({"pids": {"limit": 50}, "memory": {"limit": 64 << 20}, "cpu": {"quota": 20_000, "period": 50_000}}),
    );
    let all = || {
        let files = ["pids.max", "memory.max", "cpu.max", "cpu.weight"].map(|file| read("changed", file));
        let names = ["TasksMax", "MemoryMax", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "CPUWeight"];
        (files, names.map(|name| property("changed", name)))
    };
    let before = all();
    for options in [
        &["--pids-limit", "9", "--memory", "32m", "--cpu-weight", "0"][..],
        // The kernel takes it, systemd does not: its smallest TasksMax is 1.
        &["--memory", "32m", "--cpu-quota", "10000", "--pids-limit", "0", "--cpu-burst", "99999999"],
    ] {
        let said = runtime.say([&["update"], options, &["changed"]].concat());
        assert_eq!(said.status, 1, "{options:?}");
        assert_eq!(all(), before, "{options:?}: {}", said.err);
    }
    runtime.ok(["update", "--pids-limit", "9", "--memory", "32m", "--cpu-quota", "12345", "changed"]);
    let (files, properties) = all();
    assert_eq!(files, ["9", "33554432", "12345 50000", "100"].map(str::to_string));
    assert_eq!(properties[..4], ["9", "33554432", "250ms", "50ms"].map(str::to_string));
    // A second update makes systemd write all it knows of a controller again.
    runtime.ok(["update", "--memory-high", "16m", "changed"]);
    assert_eq!(read("changed", "memory.max"), "33554432");
    assert_eq!(property("changed", "MemoryHigh"), "16777216");
    // Where systemd is out of reach nothing is changed.
    let before = all();
    let mut command = runtime.command(["update", "--pids-limit", "5", "changed"]);
    let said = said(&command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere").output().expect("execute"));
    assert_eq!(said.status, 1);
    assert!(said.err.contains("systemd cannot be reached: connect to /nowhere"), "{}", said.err);
    assert_eq!(all(), before);
}

#[test]
fn a_start_that_fails_leaves_no_unit() {
    let runtime = Runtime::new();
    let bundle = bundle("failing", &["/no/such/program"], json!({}));
    let said = run(&runtime, &bundle, "failing");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("no such file or directory"), "{}", said.err);
    nothing_is_left("failing");
    let bundle = bundle.with(|config| {
        config["process"]["args"] = json!(["true"]);
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
    });
    assert_eq!(run(&runtime, &bundle, "failing").status, 1);
    nothing_is_left("failing");
    let bundle = bundle.with(|config| {
        config["hooks"] = json!({});
        config["linux"]["resources"] = json!({"unified": {"hugetlb.77kB.max": "5"}});
    });
    assert_eq!(run(&runtime, &bundle, "failing").status, 1);
    nothing_is_left("failing");
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn a_run_in_the_foreground_leaves_no_unit_however_it_ends() {
    let runtime = Runtime::new();
    let bundle = bundle("short", &["sh", "-c", "exit 7"], json!({"pids": {"limit": 1}}));
    for _ in 0..5 {
        let said = run(&runtime, &bundle, "short");
        assert_eq!((said.status, said.err.as_str()), (7, ""));
        nothing_is_left("short");
    }
    let eater = super::systemd::bundle("eater", &EATS_MEMORY, json!({"memory": {"limit": 16 << 20}}));
    assert_eq!(run(&runtime, &eater, "eater").status, 137);
    nothing_is_left("eater");
}

/// systemd removes the cgroup of an empty scope, and with it the figures: what was not seen before that is not told.
#[test]
fn of_a_scope_that_is_gone_state_tells_what_was_seen_and_nothing_that_is_not_so() {
    let runtime = Runtime::new();
    let resources = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    let eater = bundle("kept", &EATS_MEMORY, resources);
    let path = eater.path().to_str().expect("UTF-8");
    let (mut killer, mut usage) = (0, 0);
    for _ in 0..10 {
        let said = runtime.say([BY_SYSTEMD, "run", "--keep", "--bundle", path, "kept"]);
        assert_eq!(said.status, 137, "{}", said.err);
        let end = runtime.state("kept")["end"].clone();
        assert_eq!((&end["status"], &end["signal"]), (&json!("killed"), &json!(9)), "{end}");
        match end.get("oomKilled") {
            Some(told) => assert_eq!((told, &end["oomKills"]), (&json!(true), &json!(1)), "{end}"),
            None => assert_eq!(end.get("oomKills"), None, "{end}"),
        }
        if let Some(used) = end.get("usage") {
            let time = used["cpuUser"].as_u64().zip(used["cpuSystem"].as_u64());
            assert!(time.is_some_and(|(user, system)| user + system > 0), "{end}");
            assert!(used["memoryPeak"].as_u64() >= Some(15 << 20), "{end}");
        }
        killer += u32::from(end.get("oomKilled").is_some());
        usage += u32::from(end.get("usage").is_some());
        runtime.ok(["delete", "kept"]);
        nothing_is_left("kept");
    }
    // How often it is seen is a matter of who is woken first.
    println!("of 10 the OOM killer was seen {killer} times, the usage {usage} times");
}

#[test]
fn io_max_slows_writes_down_in_a_scope_too_also_after_a_daemon_reload() {
    let runtime = Runtime::new();
    let folder = Path::new("/var/tmp").join(format!("rcrun-scope-io-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder on the disk");
    let device = fs::metadata(&folder).expect("stat").dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let limit = json!([{"major": major, "minor": minor, "rate": 1 << 20}]);
    let resources = json!({"blockIO": {"throttleWriteBpsDevice": limit}});
    let bundle = bundle("slowed", &["sleep", "1000"], resources).with(|config| {
        let mount = json!({"destination": "/tmp", "type": "bind", "source": folder, "options": ["bind"]});
        config["mounts"].as_array_mut().expect("mounts").push(mount);
    });
    assert_eq!(create(&runtime, &bundle, "slowed").status, 0);
    runtime.ok(["start", "slowed"]);
    let takes = |mib: &str| {
        let count = format!("count={mib}");
        let began = Instant::now();
        runtime.ok(["exec", "slowed", "dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", &count, "conv=fsync"]);
        began.elapsed().as_secs_f64()
    };
    for (when, options, rate) in
        [("as made", None, "wbps=1048576"), ("updated", Some("wbps=2m"), "wbps=2097152")]
    {
        if let Some(options) = options {
            runtime.ok(["update", "--io-max", &format!("{major}:{minor} {options}"), "slowed"]);
        }
        for reloaded in [false, true] {
            assert!(read("slowed", "io.max").contains(rate), "{when}: {}", read("slowed", "io.max"));
            let took = takes("4");
            let least = if options.is_some() { 1.25 } else { 2.5 };
            assert!(took >= least, "{when}, reloaded {reloaded}: 4 MiB with {rate} took {took} s");
            systemctl(&["daemon-reload"]);
        }
    }
    runtime.ok(["delete", "--force", "slowed"]);
    nothing_is_left("slowed");
    fs::remove_dir_all(&folder).expect("remove the folder");
}

#[test]
fn room_for_one_process_is_room_for_init() {
    let runtime = Runtime::new();
    let _bundle = running(&runtime, "single", &["sleep", "1000"], json!({"pids": {"limit": 1}}));
    assert_eq!((read("single", "pids.max"), property("single", "TasksMax")), ("1".into(), "1".into()));
}

#[test]
fn a_unit_in_use_is_refused_and_one_that_failed_is_reset() {
    let runtime = Runtime::new();
    let _bundle = running(&runtime, "taken", &["sleep", "1000"], json!({}));
    let other = bundle("taken", &["sleep", "1000"], json!({}));
    let said = create(&runtime, &other, "intruder");
    assert_eq!(said.status, 1);
    assert!(
        said.err.contains("start unit rt-taken.scope of systemd: Unit rt-taken.scope was already loaded"),
        "{}",
        said.err
    );
    assert_eq!(runtime.ok(["list", "-q"]).out, "taken\n");
    assert_eq!(runtime.status("taken"), "running");
    runtime.ok(["delete", "--force", "taken"]);
    nothing_is_left("taken");

    let scope = format!("--unit={}", unit("left"));
    let mut command = Command::new("systemd-run");
    command.args(["--scope", &scope, "--property=RuntimeMaxSec=1", "sleep", "60"]);
    assert!(!command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("systemd-run").success());
    assert_eq!(property("left", "ActiveState"), "failed");
    let _bundle = running(&runtime, "left", &["sleep", "1000"], json!({}));
    assert_eq!(property("left", "ActiveState"), "active");
}

#[test]
fn a_frozen_cgroup_at_the_place_of_a_scope_is_refused_and_not_waited_for() {
    let runtime = Runtime::new();
    let bundle = bundle("frozen", &["true"], json!({}));
    let place = cgroup("frozen");
    fs::create_dir_all(&place).expect("mkdir");
    fs::write(place.join("cgroup.freeze"), "1").expect("freeze");
    // It is somebody's, and stays as it is: no scope is made of it.
    for _ in 0..2 {
        let said = create(&runtime, &bundle, "frozen");
        assert!(said.status == 1 && said.err.contains("unexpectedly frozen"), "{}", said.err);
        assert_eq!(runtime.ok(["list", "-q"]).out, "");
    }
    fs::remove_dir(&place).expect("rmdir");
    nothing_is_left("frozen");
}

#[test]
fn what_nobody_can_tell_systemd_is_cleared_all_the_same() {
    let runtime = Runtime::new();
    // Without a pid namespace the second process outlives the first, and the scope with it.
    let bundle = bundle("alone", &["sleep", "1000"], json!({})).with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    assert_eq!(create(&runtime, &bundle, "alone").status, 0);
    runtime.ok(["start", "alone"]);
    assert_eq!(
        runtime.without_pipes(&mut runtime.command(["exec", "-d", "alone", "sleep", "1000"])).status,
        0
    );
    let without = |args: &[&str]| {
        let mut command = runtime.command(args);
        said(&command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere").output().expect("execute"))
    };
    assert_eq!(runtime.status("alone"), "running");
    let said = without(&["delete", "--force", "alone"]);
    assert_eq!(said.status, 0);
    assert!(said.err.contains("systemd cannot be reached"), "{}", said.err);
    nothing_is_left("alone");
    let path = bundle.path().to_str().expect("a path");
    let said = without(&[BY_SYSTEMD, "create", "--bundle", path, "alone"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("without --systemd-cgroup rcrun makes cgroups itself"), "{}", said.err);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn whoever_is_killed_delete_clears_container_and_unit() {
    let runtime = Runtime::new();
    let bundle = bundle("crash", &["sleep", "1000"], json!({"pids": {"limit": 20}}));
    let mut killed = 0;
    for at in (0..).step_by(37) {
        let mut command = runtime.command([BY_SYSTEMD, "create", "--bundle"]);
        command.arg(bundle.path()).arg("crash").stdout(Stdio::null()).stderr(Stdio::null());
        let mut traced = trace(&command, Victim::Command, at);
        let place = format!("killed at stop {at}, {:?}", traced.killed_at);
        let unharmed = traced.killed_at.is_none();
        match runtime.ok(["list", "-q"]).out.as_str() {
            "crash\n" if runtime.status("crash") == "created" => traced.let_go(),
            _ => assert!(traced.all_end(), "{place}: a process goes on"),
        }
        let deleted = runtime.say(["delete", "--force", "crash"]);
        assert_eq!((deleted.status, deleted.err.as_str()), (0, ""), "{place}");
        println!("{place}");
        nothing_is_left("crash");
        if unharmed {
            break;
        }
        killed += 1;
    }
    assert!(killed > 5, "only {killed} points");
}

/// From a shell that the user's manager knows nothing of, by himself, and as podman calls a runtime: in a user namespace.
#[test]
fn a_users_container_is_a_scope_of_the_users_manager() {
    const SCRIPT: &str = r#"
set -e
rcrun=$1 place=$2
"$rcrun" --systemd-cgroup run -d --bundle "$place" mine </dev/null >"$place/out" 2>&1 || { cat "$place/out"; exit 1; }
cat /proc/$("$rcrun" ps -f json mine | tr -d '[]')/cgroup
"$rcrun" exec mine cat /proc/self/cgroup
"$rcrun" update --memory 32m mine
systemctl --user show --property=MemoryMax,Slice rt-mine.scope
"$rcrun" pause mine
"$rcrun" resume mine
"$rcrun" delete --force mine
"$rcrun" list -q
timeout 20 sh -c 'while systemctl --user list-units --all --plain --no-legend rt-mine.scope | grep -q .; do :; done'
"#;
    let user = User::new("scoped", true);
    let ranges = fs::read_to_string("/etc/subuid").expect("ranges");
    let own = ranges.lines().find(|line| line.starts_with("scoped:")).expect("a range");
    let first: u32 = own.split(':').nth(1).expect("its first").parse().expect("an id");
    let podmans = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"];
    for (wrapper, ids) in [(&[][..], [user.uid, first]), (&podmans, [0, 1])] {
        let bundle = user.bundle("scoped", "exec sleep 1000", |config| {
            let map = json!([{"containerID": 0, "hostID": ids[0], "size": 1},
                             {"containerID": 1, "hostID": ids[1], "size": 99}]);
            let linux = &mut config["linux"];
            (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
            linux["cgroupsPath"] = json!("rcruntest-a.slice:rt:mine");
            linux["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}});
        });
        let rcrun = user.rcrun();
        let [rcrun, place] = [&rcrun, bundle.path()].map(|path| path.to_str().expect("UTF-8"));
        let words = [wrapper, &["sh", "-c", SCRIPT, "sh", rcrun, place]].concat();
        let said = said(&user.program(&words).output().expect("execute"));
        let service = format!("/user.slice/user-{0}.slice/user@{0}.service", user.uid);
        let expected = format!(
            "0::{service}/rcruntest.slice/rcruntest-a.slice/rt-mine.scope\n\
             0::/\nSlice=rcruntest-a.slice\nMemoryMax=33554432\n"
        );
        assert_eq!((said.status, said.out), (0, expected), "{wrapper:?}: {}", said.err);
    }
}

#[test]
fn doctor_tells_which_manager_would_be_asked() {
    let systemd = |said: Said| {
        let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.err));
        let findings = report["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["name"] == "systemd").expect("systemd");
        [&finding["state"], &finding["found"]].map(|field| field.as_str().expect("a text").to_string())
    };
    let root = systemd(Runtime::new().say(["doctor", "--format", "json"]));
    assert_eq!(root, ["ok", "answers on /run/systemd/private"]);
    let user = User::new("asked", true);
    let rcrun = user.rcrun();
    let mut command = user.program(&[rcrun.to_str().expect("UTF-8"), "doctor", "--format", "json"]);
    let his = systemd(said(&command.output().expect("execute rcrun")));
    assert_eq!(his, ["ok".to_string(), format!("answers on /run/user/{}/bus", user.uid)]);
    let nowhere = systemd(said(
        &command
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env_remove("XDG_RUNTIME_DIR")
            .output()
            .expect("again"),
    ));
    assert_eq!(nowhere[0], "without", "{}", nowhere[1]);
}
