//! What a test asks inside a container: a script and what it prints, mountinfo in fields, and a mount namespace of the
//! test's own. Uses bundle and runtime.

use crate::bundle::Bundle;
use crate::runtime::{Runtime, Said};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

/// A bundle that runs `script` in a shell, its config changed by `change`.
pub fn shell(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
    Bundle::new(name, &["sh", "-c", script]).with(change)
}

/// What `script` prints in a container whose config was changed by `change`; it must succeed.
pub fn inside(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let said = try_inside(name, script, change);
    assert_eq!(said.status, 0, "{script}: {}{}", said.out, said.err);
    said.out
}

/// What `script` prints in a container, however it ends.
pub fn try_inside(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Said {
    Runtime::new().run(&shell(name, script, change), name)
}

/// The value after `key` and a colon in lines as those of /proc/self/status.
pub fn field<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
}

/// A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The folder of the file system that is mounted.
    pub root: String,
    /// Where.
    pub target: String,
    /// Attributes of the mount.
    pub options: Vec<String>,
    /// `shared:1`, `master:2`, `unbindable`; none for a private mount.
    pub propagation: Vec<String>,
    /// Type of the file system.
    pub kind: String,
    /// What it was made from.
    pub source: String,
    /// Options of the file system.
    pub superblock: Vec<String>,
}

impl Mounted {
    /// All lines of mountinfo in `text`, among which may be others.
    pub fn all(text: &str) -> Vec<Mounted> {
        let list = |text: &str| text.split(',').map(String::from).collect();
        text.lines()
            .filter_map(|line| line.split_once(" - "))
            .map(|(mount, fs)| {
                let mount: Vec<&str> = mount.split(' ').collect();
                let fs: Vec<&str> = fs.split(' ').collect();
                Mounted {
                    root: mount[3].into(),
                    target: mount[4].into(),
                    options: list(mount[5]),
                    propagation: mount[6..].iter().map(|s| s.to_string()).collect(),
                    kind: fs[0].into(),
                    source: fs[1].into(),
                    superblock: list(fs[2]),
                }
            })
            .collect()
    }

    /// The topmost mount on `target` in `text`.
    pub fn on(text: &str, target: &str) -> Mounted {
        let found = Mounted::all(text).into_iter().rfind(|m| m.target == target);
        found.unwrap_or_else(|| panic!("nothing is mounted on {target}: {text}"))
    }

    /// The mount has this attribute.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// Moves this thread, and all that it starts, to a mount namespace of its own: nothing that it mounts reaches the machine.
pub fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare -m");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("mount --make-rprivate /");
}

/// A process with this number runs: a zombie that nobody has waited for does not.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The machine's id of root in the user namespaces of tests.
pub const FIRST_ID: u32 = 100_000;

/// A new user namespace of 65536 ids from `FIRST_ID` on.
pub fn user_namespace(config: &mut Value) {
    let map = json!([{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]);
    config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

/// Gives a tree to root of such a user namespace, as engines do.
pub fn give(path: &Path) {
    lchown(path, Some(FIRST_ID), Some(FIRST_ID)).expect("lchown");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("read_dir") {
            give(&entry.expect("entry").path());
        }
    }
}

/// As `shell`, in such a user namespace, with a root that is its own.
pub fn owned(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = shell(name, script, |c| {
        user_namespace(c);
        change(c);
    });
    give(&bundle.root());
    bundle
}

/// As `inside`, in such a user namespace, with a root that is its own.
pub fn inside_owned(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let said = Runtime::new().run(&owned(name, script, change), name);
    assert_eq!(said.status, 0, "{script}: {}{}", said.out, said.err);
    said.out
}
