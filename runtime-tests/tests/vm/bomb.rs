//! A fork bomb of 1,000 processes is frozen, thawed and ended, and sooner than by runc on the same machine.

use crate::limits::limited;
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

fn best(times: &[Duration]) -> Duration {
    times.iter().copied().min().expect("a time")
}

/// The best of several: what else the machine does only ever adds.
#[test]
fn a_thousand_processes_are_frozen_thawed_and_ended_sooner_than_by_runc() {
    let runtimes = [Runtime::new(), Runtime::of(PathBuf::from("/usr/sbin/runc"))];
    let mut times = [const { [const { Vec::new() }; 3] }; 2];
    for round in 0..2 {
        let ids = [format!("bomb{round}"), format!("runc-bomb{round}")];
        let bombs = [bomb(&ids[0]), bomb(&ids[1])];
        for i in 0..2 {
            assert_eq!(runtimes[i].detached(&bombs[i], &ids[i]).line(), "all");
        }
        for _ in 0..5 {
            for (i, runtime) in runtimes.iter().enumerate() {
                times[i][0].push(took(runtime, &["pause", &ids[i]]));
                assert_eq!(runtime.status(&ids[i]), "paused");
                times[i][1].push(took(runtime, &["resume", &ids[i]]));
                assert_eq!(runtime.status(&ids[i]), "running");
            }
        }
        for (i, runtime) in runtimes.iter().enumerate() {
            times[i][2].push(took(runtime, &["delete", "--force", &ids[i]]));
        }
    }
    for (verb, name) in ["pause", "resume", "delete"].into_iter().enumerate() {
        let [ours, its] = [0, 1].map(|i| best(&times[i][verb]));
        println!("{name}: rcrun {ours:?}, runc {its:?}");
        assert!(ours < its, "{name}: rcrun {ours:?}, runc {its:?}: {times:?}");
    }
}
