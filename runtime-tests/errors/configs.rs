//! Each of `broken_configs`, told by `create`.

use super::scene::BUNDLE;
use super::{Case, case, told};
use crate::broken_configs::broken_configs;
use std::path::Path;

/// What the spec knows and rcrun, on Linux with cgroup v2, has not.
const UNSUPPORTED: [&str; 11] = [
    "version 2",
    "version 0",
    "solaris",
    "windows",
    "zos",
    "freebsd",
    "vm",
    "network class",
    "personality",
    "user by name",
    "command line",
];

pub(super) fn cases() -> Vec<Case> {
    let one = |broken: crate::broken_configs::Broken| {
        let code = if UNSUPPORTED.contains(&broken.name) { "unsupported" } else { "config" };
        case("configs", broken.name, told(code, &broken.pointer, &["config.json", broken.phrase]), move |s| {
            std::fs::write(Path::new(BUNDLE).join("config.json"), &broken.text).expect("write");
            s.create()
        })
    };
    // A pointer with a NUL is one thing in the log and another in the sentence: the unit tests have that one.
    broken_configs().into_iter().filter(|broken| broken.pointer != "/x").map(one).collect()
}
