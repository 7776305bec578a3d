//! /dev of an attacker: a link to the machine, a null device that is none, a terminal that is another file.

use crate::victim::{
    Canary, Loot, Round, Stays, at_each_moment, clear, holds, holds_where_runc_falls, id, is_runc, ran,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// Every name that a start makes in /dev, and /dev itself.
const NAMES: [&str; 20] = [
    "",
    "null",
    "zero",
    "full",
    "tty",
    "random",
    "urandom",
    "console",
    "ptmx",
    "pts",
    "pts/ptmx",
    "shm",
    "mqueue",
    "fd",
    "stdin",
    "stdout",
    "stderr",
    "core",
    "extra",
    "folder/node",
];

const LINKS: [fn(&Canary) -> PathBuf; 3] = [Canary::path, Canary::climbing, Canary::dangling];

fn without_dev(config: &mut Value) {
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|m| m["destination"] != "/dev");
}

/// A start with a link to the machine at `name` in /dev: below a mount of its own, or in the image's.
fn linked(runtime: &Runtime, name: &str, to: fn(&Canary) -> PathBuf, mounted: bool) -> Loot {
    let canary = Canary::new();
    let bundle = Bundle::new("cve-dev", &["true"]).with(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["devices"] = json!([
            {"path": "/dev/extra", "type": "c", "major": 1, "minor": 5},
            {"path": "/dev/folder/node", "type": "c", "major": 1, "minor": 3},
        ]);
        if !mounted {
            without_dev(config);
        }
    });
    let place = bundle.root().join("dev").join(name);
    let place = if name.is_empty() { bundle.root().join("dev") } else { place };
    clear(&place);
    symlink(to(&canary), place).expect("a link");
    ran(runtime, &bundle, "dev");
    canary.harmed().map(|loot| format!("/dev/{name}, /dev mounted: {mounted}: {loot}"))
}

#[test]
fn cve_2026_41579_ptmx_and_links_of_a_linked_dev() {
    holds_where_runc_falls(|runtime| {
        let both = [linked(runtime, "", Canary::path, false), linked(runtime, "", Canary::climbing, true)];
        // Either is an escape.
        let fell: Vec<String> = both.into_iter().flatten().collect();
        (!fell.is_empty()).then(|| fell.join(" "))
    });
}

#[test]
fn cve_2026_47766_no_link_at_any_name_in_dev_leads_out() {
    let each = |runtime: &Runtime, names: &[&str]| {
        let mut all = names.iter().flat_map(|name| LINKS.map(|to| (name, to)));
        all.find_map(|(name, to)| {
            linked(runtime, name, to, false).or_else(|| linked(runtime, name, to, true))
        })
    };
    holds_where_runc_falls(|runtime| {
        // runc falls at the first.
        each(runtime, &NAMES)
    });
}

/// The folder above a name is the link, and what it leads to lacks the name.
#[test]
fn cve_2026_88264_no_link_above_a_name_in_dev_leads_out() {
    holds(|runtime| {
        let mut all = ["pts", "folder", "shm"].iter().flat_map(|name| LINKS.map(|to| (name, to)));
        all.find_map(|(name, to)| {
            let canary = Canary::new();
            let bundle = Bundle::new("cve-above", &["true"]).with(|config| {
                config["root"]["readonly"] = json!(false);
                without_dev(config);
                let path = format!("/dev/{name}/new/node");
                config["linux"]["devices"] = json!([{"path": path, "type": "c", "major": 1, "minor": 5}]);
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                mounts.retain(|m| m["destination"] != format!("/dev/{name}"));
                let destination = format!("/dev/{name}/more/new");
                mounts.push(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
            });
            symlink(to(&canary), bundle.root().join("dev").join(name)).expect("a link");
            ran(runtime, &bundle, "above");
            canary.harmed().map(|loot| format!("/dev/{name}: {loot}"))
        })
    });
}

/// What a masked path shows when the image has `put` something else as /dev/null. Told in a file: runc takes a pipe that is
/// standard output for the null device then, and puts the file in its place.
fn masked(runtime: &Runtime, put: impl Fn(&Bundle)) -> Loot {
    let script = "cat /proc/timer_list > /etc/shown; echo mark > /proc/timer_list; echo over > /etc/over";
    let bundle = Bundle::new("cve-null", &["sh", "-c", script]).with(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["maskedPaths"] = json!(["/proc/timer_list"]);
        without_dev(config);
    });
    put(&bundle);
    let went = ran(runtime, &bundle, "null").is_some();
    let read = |name: &str| fs::read_to_string(bundle.root().join("etc").join(name)).unwrap_or_default();
    assert!(is_runc(runtime) || !went || read("over") == "over\n", "the payload has not come to its end");
    let shown = read("shown");
    let shown = (!shown.is_empty()).then(|| format!("a masked path shows {} bytes", shown.len()));
    let marked = || read("fake").contains("mark").then(|| "a masked path is a file of the image".into());
    shown.or_else(marked)
}

#[test]
fn cve_2025_31133_a_null_device_that_is_a_link_to_what_it_masks() {
    holds_where_runc_falls(|runtime| {
        masked(runtime, |bundle| symlink("/proc/timer_list", bundle.root().join("dev/null")).expect("a link"))
    });
}

#[test]
fn cve_2025_62161_a_null_device_that_is_a_file_of_the_image() {
    holds_where_runc_falls(|runtime| {
        masked(runtime, |bundle| {
            fs::write(bundle.root().join("etc/fake"), "of the image").expect("a file");
            symlink("/etc/fake", bundle.root().join("dev/null")).expect("a link");
        })
    });
}

/// Another container with the same volume as /dev exchanges its pts while the terminal is set up.
#[test]
fn cve_2025_52565_a_terminal_is_bound_from_no_other_file() {
    let id = id("console");
    holds_where_runc_falls(|runtime| {
        let sockets = Folder::new("console");
        let socket = sockets.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("bind");
        let build = || {
            let volume = Folder::new("dev");
            for folder in ["pts", "decoy", "shm", "mqueue"] {
                fs::create_dir(volume.path().join(folder)).expect("mkdir");
            }
            symlink("pts/ptmx", volume.path().join("ptmx")).expect("a link");
            let kind = (SFlag::S_IFCHR, Mode::from_bits_truncate(0o666));
            mknod(&volume.path().join("null"), kind.0, kind.1, makedev(1, 3)).expect("mknod");
            for number in 0..4 {
                symlink("/etc/fake", volume.path().join(format!("decoy/{number}"))).expect("a link");
            }
            let bundle = Bundle::new("cve-console", &["true"]).with(|config| {
                config["process"]["terminal"] = json!(true);
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                let dev = mounts.iter_mut().find(|m| m["destination"] == "/dev").expect("/dev");
                *dev = json!({"destination": "/dev", "type": "bind", "source": volume.path(), "options": ["bind"]});
            });
            fs::write(bundle.root().join("etc/fake"), "of the image").expect("a file");
            let pair = (volume.path().join("pts"), volume.path().join("decoy"));
            Round { bundle, canary: Canary::new(), pair, _folders: vec![volume] }
        };
        let verb = ["create", "--console-socket", socket.to_str().expect("UTF-8")];
        at_each_moment(runtime, (&id, &verb, "/dev/pts"), Stays::ForOneCall, build, |round| {
            let state = runtime.say(["state", &id]);
            let mounts = (state.status == 0).then(|| {
                let state: Value = serde_json::from_str(&state.out).expect("JSON");
                // It may have ended meanwhile.
                fs::read_to_string(format!("/proc/{}/mountinfo", state["pid"])).unwrap_or_default()
            });
            // The terminal that was handed over is kept until here: its end would end the container.
            listener.set_nonblocking(true).expect("a listener");
            while listener.accept().is_ok() {}
            let mounts = mounts.unwrap_or_default();
            let console = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/dev/console"));
            let other = console.filter(|line| !line.contains(" - devpts "));
            other.map(|line| format!("the console is {line}")).or_else(|| round.canary.harmed())
        })
    });
}
