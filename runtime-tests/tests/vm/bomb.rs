//! A fork bomb of 1,000 processes is frozen, thawed and ended, and sooner than by runc on the same machine.

use crate::limits::limited;
use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::{Runtime, readable};
use serde_json::json;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SCRIPT: &str =
    "i=0; while [ $i -lt 1000 ]; do sleep 10000 & i=$((i+1)); done; echo all; exec sleep 10000";

fn bomb(id: &str) -> Bundle {
    limited(id, &["sh", "-c", SCRIPT], json!({}))
}

/// How long pause, resume and delete --force take.
fn times(runtime: &Runtime, id: &str) -> [Duration; 3] {
    let bundle = bomb(id);
    assert_eq!(runtime.detached(&bundle, id).line(), "all");
    let took = |words: &[&str]| {
        let began = Instant::now();
        runtime.ok(words);
        began.elapsed()
    };
    let pid = rustix::process::Pid::from_raw(runtime.pid(id)).expect("a pid");
    let init = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd_open");
    let pause = took(&["pause", id]);
    assert_eq!(runtime.status(id), "paused");
    let resume = took(&["resume", id]);
    assert_eq!(runtime.status(id), "running");
    let delete = took(&["delete", "--force", id]);
    assert!(readable(init.as_fd()));
    [pause, resume, delete]
}

#[test]
fn a_thousand_processes_are_frozen_thawed_and_ended_sooner_than_by_runc() {
    let ours = Runtime::new();
    let runc = Runtime::of(PathBuf::from("/usr/sbin/runc"));
    let mut won = [0; 3];
    let mut shown = String::new();
    for round in 0..3 {
        let mine = times(&ours, &format!("bomb{round}"));
        let its = times(&runc, &format!("runc-bomb{round}"));
        for (verb, (mine, its)) in mine.iter().zip(&its).enumerate() {
            won[verb] += i32::from(mine < its);
        }
        shown += &format!("rcrun {mine:?} runc {its:?}\n");
    }
    println!("{shown}");
    assert!(won.iter().all(|rounds| *rounds >= 2), "pause, resume, delete: {won:?} of 3\n{shown}");
}
