//! events, and what state tells of a container that has ended.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::{Lines, Runtime};
use serde_json::{Value, json};
use std::process::Stdio;

/// A container that runs as long as its bundle is there.
fn sleeping(runtime: &Runtime, id: &str) -> Bundle {
    let bundle = Bundle::new(id, &["sleep", "1000"]);
    runtime.created(&bundle, id);
    runtime.ok(["start", id]);
    bundle
}

#[test]
fn statistics_have_runcs_shape() {
    let runtime = Runtime::new();
    let _bundle = sleeping(&runtime, "stats");
    let line = runtime.ok(["events", "--stats", "stats"]).out;
    assert_eq!(line.lines().count(), 1);
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("stats")));
    let parts: Vec<_> = event["data"].as_object().expect("data").keys().map(String::as_str).collect();
    assert_eq!(
        parts,
        ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"]
    );
    // Every cgroup of v2 counts time.
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|ns| ns > 0), "{line}");
}

#[test]
fn events_come_at_their_interval_and_end_with_the_container() {
    let runtime = Runtime::new();
    let _bundle = sleeping(&runtime, "stream");
    let mut command = runtime.command(["events", "--interval=100ms", "stream"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("execute the runtime");
    let mut lines = Lines::of(child.stdout.take().expect("a pipe").into());
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.line()).expect("JSON");
        assert_eq!(event["type"], "stats");
    }
    runtime.ok(["kill", "stream", "KILL"]);
    lines.rest();
    assert!(child.wait().expect("wait").success());
    let said = runtime.say(["events", "stream"]);
    assert!(said.status == 1 && said.err.contains("container not running"), "{}", said.err);
}

#[test]
fn an_interval_that_is_none_is_refused() {
    let runtime = Runtime::new();
    for (interval, words) in [("0s", "must be greater than 0"), ("soon", "is no time"), ("5", "is no time")] {
        let said = runtime.say(["events", "--interval", interval, "x"]);
        assert!(said.status == 1 && said.err.contains(words), "{interval}: {}", said.err);
    }
}

#[test]
fn state_tells_how_a_kept_container_has_ended() {
    for (script, status, code, signal) in [
        ("exit 0", "exited", json!(0), json!(null)),
        ("exit 7", "exited", json!(7), json!(null)),
        ("kill -9 $$; kill -TERM $$", "killed", json!(null), json!(9)),
    ] {
        let runtime = Runtime::new();
        // In the machine's pid namespace a first process can kill itself.
        // A kernel that measures time in ticks has not seen what takes less than one.
        let busy = format!("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; {script}");
        let bundle = Bundle::new("kept-end", &["sh", "-c", &busy]).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != "pid");
        });
        let bundle_path = bundle.path().to_string_lossy().into_owned();
        runtime.say(["run", "--keep", "--bundle", &bundle_path, "kept-end"]);
        let end = runtime.state("kept-end")["end"].clone();
        assert_eq!((&end["status"], &end["code"], &end["signal"]), (&json!(status), &code, &signal), "{end}");
        // Of a SIGKILL nobody knows whose it was where no memory controller counts.
        let unknown = end["signal"] == 9 && end.get("oomKills").is_none();
        assert_eq!(end.get("oomKilled"), (!unknown).then_some(&json!(false)), "{end}");
        let time = end["usage"]["cpuUser"].as_u64().zip(end["usage"]["cpuSystem"].as_u64());
        assert!(time.is_some_and(|(user, system)| user + system > 0), "{end}");
    }
}

#[test]
fn of_a_container_that_another_has_waited_for_state_tells_what_its_cgroup_shows() {
    let runtime = Runtime::new();
    let _bundle = sleeping(&runtime, "unknown-end");
    assert_eq!(runtime.state("unknown-end").get("end"), None, "it runs");
    runtime.ok(["kill", "unknown-end", "KILL"]);
    runtime.wait_for_end("unknown-end");
    let end = runtime.state("unknown-end")["end"].clone();
    assert_eq!(
        (&end["status"], end.get("code"), end.get("signal")),
        (&json!("unknown"), None, None),
        "{end}"
    );
    assert!(end["usage"]["cpuUser"].is_u64(), "{end}");
}
