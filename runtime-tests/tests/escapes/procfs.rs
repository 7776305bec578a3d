//! /proc and /sys of an attacker: links, other file systems in their place, and a decoy that takes it after the mounts.

use crate::victim::{Canary, Loot, clear, holds, holds_where_runc_falls, ran};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::Mounted;
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// What the mounts of a container come to that has started: proc on /proc and sysfs on /sys, none over a part of /proc
/// but what the config masks.
fn covered(out: &str) -> Loot {
    for (at, kind) in [("/proc", "proc"), ("/sys", "sysfs")] {
        let top = Mounted::all(out).into_iter().rfind(|m| m.target == at).map(|m| m.kind);
        if top.as_deref() != Some(kind) {
            return Some(format!("{at} is {top:?}"));
        }
    }
    let attributes = ["/proc/self", "/proc/thread-self", "/proc/1", "/proc/sys/kernel"];
    let all = Mounted::all(out).into_iter();
    let over = all.filter(|m| attributes.iter().any(|a| Path::new(&m.target).starts_with(a)));
    over.map(|m| format!("{} is mounted on {}", m.kind, m.target)).next()
}

fn started(runtime: &Runtime, put: impl Fn(&Bundle), change: impl Fn(&mut Value)) -> Loot {
    let canary = Canary::new();
    let bundle = Bundle::new("cve-proc", &["cat", "/proc/self/mountinfo"]).with(|config| {
        config["root"]["readonly"] = json!(false);
        change(config);
    });
    put(&bundle);
    ran(runtime, &bundle, "proc").and_then(|out| covered(&out)).or_else(|| canary.harmed())
}

#[test]
fn cve_2019_16884_nothing_but_a_procfs_covers_proc_or_a_part_of_it() {
    holds_where_runc_falls(|runtime| {
        let fake = Folder::new("fake");
        fs::create_dir_all(fake.path().join("self/attr")).expect("a decoy");
        fs::write(fake.path().join("self/attr/exec"), "").expect("a decoy");
        let places = [
            "/proc",
            "/proc/",
            "//proc/.",
            "/tmp/../proc",
            "/proc/self/attr",
            "/proc/1/attr",
            "/proc/sys/kernel",
        ];
        let mut all = places.iter().flat_map(|at| [true, false].map(|bind| (at, bind)));
        all.find_map(|(at, bind)| {
            started(runtime, |_| {}, |config| {
                config["mounts"].as_array_mut().expect("mounts").push(match bind {
                    true => json!({"destination": at, "type": "bind", "source": fake.path(), "options": ["bind"]}),
                    false => json!({"destination": at, "type": "tmpfs", "source": "tmpfs"}),
                });
            })
            .map(|loot| format!("{at}: {loot}"))
        })
    });
}

/// The image's own links to proc are in the way of the mount as well.
#[test]
fn cve_2019_19921_a_shared_volume_on_proc_is_refused_in_both_containers() {
    holds(|runtime| {
        let volume = Folder::new("volume");
        fs::create_dir_all(volume.path().join("self/attr")).expect("a decoy");
        // The second container would write to what the first one has as /proc.
        (0..2).find_map(|_| {
            started(
                runtime,
                |bundle| {
                    clear(&bundle.root().join("proc"));
                    symlink("/volume/decoy", bundle.root().join("proc")).expect("a link");
                },
                |config| {
                    let mounts = config["mounts"].as_array_mut().expect("mounts");
                    mounts.insert(0, json!({"destination": "/volume", "type": "bind", "source": volume.path(), "options": ["bind"]}));
                },
            )
        })
    });
}

fn linked(runtime: &Runtime, name: &str) -> Loot {
    ["/tmp", "tmp", "/tmp/new", "/", "."].iter().find_map(|to| {
        let put = |bundle: &Bundle| {
            clear(&bundle.root().join(name));
            symlink(to, bundle.root().join(name)).expect("a link");
        };
        started(runtime, put, |_| {}).map(|loot| format!("/{name} -> {to}: {loot}"))
    })
}

#[test]
fn cve_2023_27561_proc_that_is_a_link() {
    holds(|runtime| linked(runtime, "proc"));
}

#[test]
fn cve_2023_28642_sys_that_is_a_link() {
    holds(|runtime| linked(runtime, "sys"));
}

#[test]
fn cve_2025_54867_a_link_in_place_of_proc_that_leads_out() {
    holds(|runtime| {
        ["proc", "sys"].iter().find_map(|name| {
            let canary = Canary::new();
            let put = |bundle: &Bundle| {
                clear(&bundle.root().join(name));
                symlink(canary.path(), bundle.root().join(name)).expect("a link");
            };
            started(runtime, put, |_| {}).or_else(|| canary.harmed())
        })
    });
}

/// Between the mounts and the writes somebody with a hand in the root renames /proc and puts a decoy in its place: here a
/// hook, which comes in that moment for sure.
#[test]
fn cve_2025_52881_no_write_to_proc_goes_to_a_decoy() {
    holds_where_runc_falls(|runtime| {
        let bundle = Bundle::new("cve-decoy", &["cat", "/away/sys/net/ipv4/ip_default_ttl"]).with(|config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
            let line = "cd rootfs && mv proc away && mkdir -p proc/sys/net/ipv4 && \
                        echo decoy > proc/sys/net/ipv4/ip_default_ttl && ln -s ../away/self proc/self";
            config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", line]}]});
        });
        let out = ran(runtime, &bundle, "decoy");
        let decoy =
            fs::read_to_string(bundle.root().join("proc/sys/net/ipv4/ip_default_ttl")).expect("the decoy");
        if decoy != "decoy\n" {
            return Some(format!("the decoy says {decoy:?}"));
        }
        out.filter(|out| out != "77\n").map(|out| format!("the sysctl is {out:?}"))
    });
}
