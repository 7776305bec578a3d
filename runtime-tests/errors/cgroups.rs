//! Limits, paths and trees of cgroup v2 that the kernel does not take.

use super::scene::{Beside, Scene, read_only};
use super::{Case, Told, case, told};
use crate::runtime::Said;
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const PART: &str = "cgroups";

/// A cgroup that a case needs goes with it.
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: PathBuf) -> Cgroup {
        fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        Cgroup(path)
    }

    fn below(&self, name: &str) -> Cgroup {
        Cgroup::new(self.0.join(name))
    }

    pub(super) fn write(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|e| panic!("write {file}: {e}"));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A parent for the container's cgroup, below the root of the hierarchy.
fn parent(s: &Scene) -> (Cgroup, String) {
    let name = format!("parent-{}", s.id);
    let path = Path::new("/sys/fs/cgroup").join(&name);
    (Cgroup::new(path), format!("/{name}/{}", s.id))
}

fn limit(name: &'static str, at: &'static str, value: Value, told: Told) -> Case {
    case(PART, name, told, move |s| s.put(at, value.clone()).create())
}

/// Without controllers in the root a limit names the controller that it needs.
fn missing(name: &'static str, at: &'static str, value: Value, controller: &'static str) -> Case {
    limit(name, at, value, told("host", at, &[controller, "controller"]))
}

/// A container whose parent has been prepared so.
pub(super) fn in_parent(s: &mut Scene, prepare: impl Fn(&Cgroup)) -> Said {
    let (parent, path) = parent(s);
    prepare(&parent);
    s.put("/linux/cgroupsPath", json!(path)).create()
}

/// A socket that takes every connection and says nothing.
fn listening(path: &str) -> UnixListener {
    let folder = Path::new(path).parent().expect("a folder");
    fs::create_dir_all(folder).unwrap_or_else(|e| panic!("mkdir {}: {e}", folder.display()));
    UnixListener::bind(path).unwrap_or_else(|e| panic!("bind {path}: {e}"))
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        missing(
            "a memory limit without the memory controller",
            "/linux/resources/memory/limit",
            json!(64 << 20),
            "memory",
        ),
        missing(
            "a limit of processes without the pids controller",
            "/linux/resources/pids/limit",
            json!(100),
            "pids",
        ),
        missing("a cpu quota without the cpu controller", "/linux/resources/cpu/quota", json!(50_000), "cpu"),
        missing(
            "processors without the cpuset controller",
            "/linux/resources/cpu/cpus",
            json!("0"),
            "cpuset",
        ),
        missing(
            "an io weight without the io controller",
            "/linux/resources/blockIO/weight",
            json!(100),
            "io",
        ),
        limit(
            "a file of cgroup v2 that the kernel has not",
            "/linux/resources/unified",
            json!({ "memory.nosuch": "1" }),
            told("host", "/linux/resources/unified/memory.nosuch", &["memory.nosuch"]),
        ),
        limit(
            "a file of cgroup v2 by a path",
            "/linux/resources/unified",
            json!({ "../cgroup.procs": "1" }),
            told("config", "/linux/resources/unified/..~1cgroup.procs", &["cgroup.procs"]),
        ),
        limit(
            "a page size that the machine has not",
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "3MB", "limit": 1 }]),
            told("host", "/linux/resources/hugepageLimits/0/limit", &["3MB"]),
        ),
        case(PART, "a cgroup that has processes", told("system", "/linux/cgroupsPath", &["process"]), |s| {
            let (top, path) = parent(s);
            let taken = top.below(&s.id);
            let beside = Beside::start("sleep", &["1000"]);
            taken.write("cgroup.procs", &beside.pid().to_string());
            let said = s.put("/linux/cgroupsPath", json!(path)).create();
            drop(beside);
            said
        }),
        case(
            PART,
            "a parent that allows no descendants",
            told("system", "/linux/cgroupsPath", &["cgroup.max.descendants"]),
            |s| in_parent(s, |parent| parent.write("cgroup.max.descendants", "0")),
        ),
        case(
            PART,
            "a parent that allows no depth",
            told("system", "/linux/cgroupsPath", &["cgroup.max.depth"]),
            |s| in_parent(s, |parent| parent.write("cgroup.max.depth", "0")),
        ),
        case(
            PART,
            "cgroups that are mounted read-only",
            told("system", "/linux/cgroupsPath", &["cgroup v2 hierarchy", "read-only file system"]),
            |s| {
                read_only("/sys/fs/cgroup");
                s.create()
            },
        ),
        case(PART, "no cgroup v2 on the machine", told("host", "", &["cgroup2", "mount"]), |s| {
            umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).expect("umount");
            s.create()
        }),
        case(
            PART,
            "systemd's driver and a path",
            told("config", "/linux/cgroupsPath", &["slice:prefix:name"]),
            |s| s.option("--systemd-cgroup").put("/linux/cgroupsPath", json!("/a/b")).create(),
        ),
        case(PART, "systemd's driver on a machine without systemd", told("host", "", &["systemd"]), |s| {
            s.option("--systemd-cgroup").put("/linux/cgroupsPath", json!("system.slice:web:ID")).create()
        }),
        case(
            PART,
            "systemd's driver and a systemd that never answers",
            told(
                "host",
                "",
                &["/run/systemd/private", "does not answer within 30 seconds", "--systemd-cgroup"],
            ),
            |s| {
                let _silent = listening("/run/systemd/private");
                s.option("--systemd-cgroup").put("/linux/cgroupsPath", json!("system.slice:web:ID"));
                s.patient(50).create()
            },
        ),
        case(
            PART,
            "systemd's driver and a bus that never answers",
            told("host", "", &["/run/bus", "does not answer within 30 seconds", "--systemd-cgroup"]),
            |s| {
                let _silent = listening("/run/bus");
                s.through(&["env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/bus"]);
                s.option("--systemd-cgroup").put("/linux/cgroupsPath", json!("system.slice:web:ID"));
                s.patient(50).create()
            },
        ),
    ]
}
