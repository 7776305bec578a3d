//! A fork bomb of 1,000 processes is frozen and thawed, and sooner than by runc on the same machine.

use crate::limits::{cgroup, limited};
use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::Runtime;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Each waits for somebody to write to the pipe: a fork and no more, which takes long enough in a slow machine.
const SCRIPT: &str =
    "i=0; while [ $i -lt 1000 ]; do read x </tmp/pipe & i=$((i+1)); done; echo all; exec sleep 10000";

fn bomb(id: &str) -> Bundle {
    let bundle = limited(id, &["sh", "-c", SCRIPT], json!({}));
    nix::unistd::mkfifo(&bundle.root().join("tmp/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    bundle
}

/// How long a verb takes.
fn took(runtime: &Runtime, words: &[&str]) -> Duration {
    let began = Instant::now();
    runtime.ok(words);
    began.elapsed()
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// Medians, alternating. (That the end comes sooner shows where 1,000 exits take
/// less than runc's waits of 100 ms: `sub_cgroups`, on the machine itself.)
#[test]
fn a_thousand_processes_are_frozen_and_thawed_sooner_than_by_runc() {
    let runtimes = [Runtime::new(), Runtime::of(PathBuf::from("/usr/sbin/runc"))];
    let ids = ["bomb", "runc-bomb"];
    let bombs = ids.map(bomb);
    for (i, runtime) in runtimes.iter().enumerate() {
        assert_eq!(runtime.detached(&bombs[i], ids[i]).line(), "all");
    }
    let mut times = [const { [const { Vec::new() }; 2] }; 2];
    let sooner = |times: &[[Vec<Duration>; 2]; 2]| {
        (0..2).all(|verb| median(&times[0][verb]) < median(&times[1][verb]))
    };
    // On a busy machine ten may all have been disturbed.
    for round in 0..40 {
        if round >= 10 && sooner(&times) {
            break;
        }
        for (i, runtime) in runtimes.iter().enumerate() {
            times[i][0].push(took(runtime, &["pause", ids[i]]));
            assert_eq!(runtime.status(ids[i]), "paused");
            times[i][1].push(took(runtime, &["resume", ids[i]]));
            assert_eq!(runtime.status(ids[i]), "running");
        }
    }
    for (verb, name) in ["pause", "resume"].into_iter().enumerate() {
        let [ours, its] = [0, 1].map(|i| median(&times[i][verb]));
        println!("{name}: rcrun {ours:?}, runc {its:?}");
        assert!(ours < its, "{name}: rcrun {ours:?}, runc {its:?}: {times:?}");
    }
    for (runtime, id) in runtimes.iter().zip(ids) {
        runtime.ok(["delete", "--force", id]);
        assert!(!cgroup(id).exists());
    }
}
