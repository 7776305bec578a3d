//! update, with limits that every cgroup has, whatever controllers the machine offers: all or nothing, shown before it is
//! done, from a file and from standard input, and device rules of a container that runs.

use runtime_tests::bundle::Bundle;
use runtime_tests::machine::cgroup2;
use runtime_tests::runtime::{Runtime, Said};
use serde_json::{Value, json};
use std::fs;

/// A running container in a cgroup of its own name.
fn running(runtime: &Runtime, id: &str) -> Bundle {
    let bundle = Bundle::new(id, &["sleep", "1000"])
        .with(|config| config["linux"]["cgroupsPath"] = json!(format!("/rcrun-{id}")));
    runtime.created(&bundle, id);
    runtime.ok(["start", id]);
    bundle
}

fn read(id: &str, file: &str) -> String {
    let path = cgroup2().join(format!("rcrun-{id}")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim_end().to_string()
}

/// `update --resources -`
fn update(runtime: &Runtime, id: &str, options: &[&str], resources: &Value) -> Said {
    let words = [&["update", "--resources", "-"], options, &[id]].concat();
    runtime.say_with_input(words, &resources.to_string())
}

#[test]
fn limits_come_from_standard_input_and_from_a_file() {
    let runtime = Runtime::new();
    let _bundle = running(&runtime, "update-sources");
    let said = update(&runtime, "update-sources", &[], &json!({"unified": {"cgroup.max.depth": "7"}}));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert_eq!(read("update-sources", "cgroup.max.depth"), "7");
    let file = runtime.root().join("limits.json");
    fs::write(&file, json!({"unified": {"cgroup.max.descendants": "9"}}).to_string()).expect("limits.json");
    runtime.ok(["update".into(), format!("--resources={}", file.display()), "update-sources".to_string()]);
    assert_eq!(read("update-sources", "cgroup.max.descendants"), "9");
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    let runtime = Runtime::new();
    let _bundle = running(&runtime, "update-nothing");
    let first = json!({"unified": {"cgroup.max.depth": "7", "cgroup.max.descendants": "9"}});
    assert_eq!(update(&runtime, "update-nothing", &[], &first).status, 0);
    // The files are written in the order of their names: the first is in force when the second is refused.
    for (second, words) in [
        (json!({"cgroup.max.depth": "3", "cgroup.max.descendants": "many"}), "all limits are as they were"),
        (json!({"cgroup.max.depth": "3", "no.such.file": "1"}), "/unified/no.such.file"),
        (json!({"cgroup.max.depth": "3", "cgroup.procs": "1"}), "is no limit"),
    ] {
        let said = update(&runtime, "update-nothing", &[], &json!({"unified": second}));
        assert!(said.status == 1 && said.err.contains(words), "{second}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert_eq!(read("update-nothing", "cgroup.max.depth"), "7", "{second}");
        assert_eq!(read("update-nothing", "cgroup.max.descendants"), "9", "{second}");
    }
}

#[test]
fn a_dry_run_shows_file_old_and_new_and_changes_nothing() {
    let runtime = Runtime::new();
    let _bundle = running(&runtime, "update-dry");
    let wanted = json!({"unified": {"cgroup.max.depth": "7", "cgroup.max.descendants": "9"}});
    let said = update(&runtime, "update-dry", &["--dry-run"], &wanted);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let expected = "\
FILE                     OLD   NEW
cgroup.max.depth         max   7
cgroup.max.descendants   max   9
";
    assert_eq!(said.out, expected);
    assert_eq!(read("update-dry", "cgroup.max.depth"), "max");
}

#[test]
fn a_wrong_request_is_refused_by_name() {
    let runtime = Runtime::new();
    let _bundle = running(&runtime, "update-wrong");
    for (resources, words) in [
        (json!({"memory": {"limit": "lots"}}), "resources: /memory/limit"),
        (json!({"memory": {"limit": 300, "swap": 100}}), "resources: /memory/swap: memory+swap limit 100"),
        (json!({"cpu": {"realtimeRuntime": 5}}), "resources: /cpu/realtimeRuntime"),
        (json!({"devices": [{"allow": true, "access": "xyz"}]}), "resources: /devices/0/access"),
        (json!([1]), "resources: "),
    ] {
        let said = update(&runtime, "update-wrong", &[], &resources);
        assert!(said.status == 1 && said.err.contains(words), "{resources}: {}", said.err);
    }
    for (options, words) in [
        (&["--memory", "much"][..], "--memory \"much\""),
        (&["--l3-cache-schema", "L3:0=f"], "update update-wrong: resctrl is not mounted"),
        (&["--pids-limit", "9", "--mem-bw-schema", "MB:0=1"], "update update-wrong: resctrl is not mounted"),
        (&[], "nothing is to be changed"),
    ] {
        let said = runtime.say([&["update"], options, &["update-wrong"]].concat());
        assert!(said.status == 1 && said.err.contains(words), "{options:?}: {}", said.err);
    }
    let said = runtime.say(["update", "--pids-limit", "5", "no-such-container"]);
    assert!(said.status == 1 && said.err.contains("does not exist"), "{}", said.err);
}

#[test]
fn a_container_that_has_ended_is_not_updated() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("update-ended", &["true"]);
    runtime.created(&bundle, "update-ended");
    runtime.ok(["start", "update-ended"]);
    runtime.wait_for_end("update-ended");
    let said = runtime.say(["update", "--pids-limit", "5", "update-ended"]);
    assert!(said.status == 1 && said.err.contains("container not running"), "{}", said.err);
}

#[test]
fn device_rules_of_a_running_container_are_exchanged() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("update-devices", &["sleep", "1000"]).with(|config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/box", "type": "c", "major": 10, "minor": 229, "fileMode": 438}]);
    });
    runtime.created(&bundle, "update-devices");
    runtime.ok(["start", "update-devices"]);
    let opens = || runtime.say(["exec", "update-devices", "sh", "-c", ": </dev/box"]);
    let denied = |said: &Said| said.status != 0 && said.err.contains("Operation not permitted");
    assert!(denied(&opens()), "denied by the config");

    let deny = json!({"allow": false, "access": "rwm"});
    let allow = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    let said = update(&runtime, "update-devices", &[], &json!({"devices": [deny, allow]}));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let now = opens();
    assert!(!denied(&now), "{}", now.err);

    // An engine that repeats the list it knows, beside a limit, takes nothing away that others have added.
    let repeated = json!({"devices": [deny], "unified": {"cgroup.max.depth": "7"}});
    let said = update(&runtime, "update-devices", &[], &repeated);
    assert!(said.status == 0 && said.err.contains("lacks 1 of the rules in force"), "{}", said.err);
    assert!(!denied(&opens()));

    // A rule that the program's compiler refuses changes no limit either.
    let broken = json!({"devices": [deny, {"allow": true, "type": "c", "major": -7, "access": "rw"}],
                        "unified": {"cgroup.max.depth": "3"}});
    let said = update(&runtime, "update-devices", &[], &broken);
    assert!(said.status == 1 && said.err.contains("/devices/1/major"), "{}", said.err);

    let said = update(&runtime, "update-devices", &[], &json!({"devices": [deny]}));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert!(denied(&opens()), "denied again");
}
