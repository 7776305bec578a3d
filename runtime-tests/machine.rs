//! The machine as a test sees it: a mount namespace of the test's own, and looks at what must stay as it was: files,
//! mounts, cgroups. Uses nix.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Moves the calling thread, and what it starts from now on, into a mount namespace from which nothing reaches the
/// machine's: whatever a broken runtime mounts is gone with the test, and shows in `mounts`.
pub fn own_mount_namespace() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare of the mount namespace");
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("make / private");
}

/// Sees to cgroup v2 where programs look for it, in such a namespace: a machine may have v1 there.
pub fn cgroup2_in_its_place() -> PathBuf {
    let place = PathBuf::from("/sys/fs/cgroup");
    if cgroup2() != place {
        let none = MsFlags::empty();
        mount(Some("cgroup2"), &place, Some("cgroup2"), none, None::<&str>).expect("mount cgroup2");
    }
    place
}

/// All mounts of the calling thread's namespace.
pub fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo")
}

/// What lies below `folder` and is not below one of `without`: kind, mode, owner, times, numbers and contents of
/// everything, `folder` itself too. The time of the last change of an inode tells of any chmod, chown, link or write.
pub fn tree(folder: &Path, without: &[&Path]) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    look(folder, without, &mut found);
    found
}

fn look(path: &Path, without: &[&Path], found: &mut BTreeMap<PathBuf, String>) {
    if without.contains(&path) {
        return;
    }
    let data = path.symlink_metadata().unwrap_or_else(|e| panic!("lstat {}: {e}", path.display()));
    let contents = match data.file_type() {
        kind if kind.is_symlink() => fs::read_link(path).expect("readlink").as_os_str().as_bytes().to_vec(),
        kind if kind.is_file() => fs::read(path).expect("read"),
        _ => Vec::new(),
    };
    let words = format!(
        "mode {:o} owner {}:{} links {} device {} modified {}.{} changed {}.{} holds {}",
        data.mode(),
        data.uid(),
        data.gid(),
        data.nlink(),
        data.rdev(),
        data.mtime(),
        data.mtime_nsec(),
        data.ctime(),
        data.ctime_nsec(),
        String::from_utf8_lossy(&contents),
    );
    found.insert(path.to_path_buf(), words);
    if data.is_dir() {
        for entry in fs::read_dir(path).expect("read a folder") {
            look(&entry.expect("an entry").path(), without, found);
        }
    }
}

/// The folder of cgroup2 on this machine.
pub fn cgroup2() -> PathBuf {
    let mounts = mounts();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup2 is mounted nowhere");
    PathBuf::from(line.split(' ').nth(4).expect("a mount point"))
}
