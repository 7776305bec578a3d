//! What is there: processes, mounts, cgroups, network namespaces, sockets, state folders, descriptors, threads. Each is a
//! line; what is there later and was not before was left behind. Uses place.

use crate::place::{NAMESPACE, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How often is looked again before what is left is taken for that; `ctr` is asked meanwhile, which takes its time.
const LOOKS: usize = 300;

/// Where containerd makes bundles.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/endurance";

/// Folders of which every entry counts.
const FOLDERS: [&str; 5] =
    ["/run/containerd/s", "/run/containerd/rcrun/endurance", BUNDLES, "/run/rcrun", "/sys/fs/cgroup"];

/// All of that: lines, and how many threads the pod's shim has.
pub struct Left(BTreeSet<String>, usize);

impl Left {
    /// What is there now.
    pub fn look(place: &Place) -> Result<Left, String> {
        let (mut all, mut threads) = (BTreeSet::new(), 0);
        for words in [["task", "ls", "-q"], ["container", "ls", "-q"]] {
            let done = place.ctr(&words);
            if done.said.status != 0 {
                return Err(format!("ctr {words:?}: {}", done.said.err));
            }
            all.extend(done.said.out.lines().map(|id| format!("{} {id}", words[0])));
        }
        let mounts = runtime_tests::machine::mounts();
        all.extend(mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|at| format!("mount {at}")));
        for folder in FOLDERS {
            files(Path::new(folder), &mut all);
        }
        let containerd = place.containerd_pid();
        for pid in processes() {
            if let Ok(net) = fs::read_link(format!("/proc/{pid}/ns/net")) {
                all.insert(format!("network namespace {}", net.display()));
            }
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if pid == containerd {
                descriptors("containerd", pid, &mut all);
            } else if pid != std::process::id() as i32 {
                all.insert(format!("process {pid} {words}"));
            }
            if pid == place.pod_shim {
                descriptors("the pod's shim", pid, &mut all);
                threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            }
        }
        Ok(Left(all, threads))
    }

    /// This, and the descriptors that containerd has now.
    pub fn with_containerd(&self, place: &Place) -> Result<Left, String> {
        let mut now = Left::look(place)?.0;
        now.retain(|line| line.contains(" of containerd: "));
        Ok(Left(self.0.union(&now).cloned().collect(), self.1))
    }

    /// Nothing is there but this; what is about to end has ended before it is taken for something that stays.
    pub fn is_all(&self, place: &Place) -> Result<(), String> {
        // A shim that is killed while it ends, when containerd has forgotten it, leaves the name of its socket: nobody listens
        // there, and the next shim of that name takes it.
        for id in place.hit() {
            let path = socket_of(&id)?;
            if path.exists() && UnixStream::connect(&path).is_err() {
                fs::remove_file(&path).map_err(|e| format!("unlink {}: {e}", path.display()))?;
            }
        }
        // containerd gives a bundle a hidden name and then removes it: killed between the two, it never looks there again.
        for bundle in hidden(Path::new(BUNDLES)) {
            match fs::remove_dir_all(&bundle) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(format!("remove {}: {e}", bundle.display()));
                }
                _ => {}
            }
        }
        let mut extra = Vec::new();
        for _ in 0..LOOKS {
            let now = Left::look(place)?;
            extra = now.0.difference(&self.0).cloned().collect();
            if now.1 > self.1 {
                extra.push(format!("{} threads of the pod's shim, which had {}", now.1, self.1));
            }
            let lost: Vec<&String> =
                self.0.difference(&now.0).filter(|line| !line.contains(" of ")).collect();
            if !lost.is_empty() {
                return Err(format!("this is no more: {lost:#?}"));
            }
            if extra.is_empty() {
                return Ok(());
            }
        }
        Err(format!("this was left behind:\n  {}\n--- containerd\n{}", extra.join("\n  "), place.log(20)))
    }
}

/// Where the shim of a container listens.
fn socket_of(id: &str) -> Result<PathBuf, String> {
    let text = format!("printf %s /run/containerd/containerd.sock/{NAMESPACE}/{id} | sha256sum");
    let sum = Command::new("sh").args(["-c", &text]).output().map_err(|e| format!("sha256sum: {e}"))?;
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    Ok(Path::new("/run/containerd/s").join(sum.split_whitespace().next().unwrap_or_default()))
}

fn hidden(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".")).map(|entry| entry.path())
}

/// In a cgroup only folders: its files come with it.
fn files(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let cgroup = folder.starts_with("/sys/fs/cgroup");
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !cgroup || is_folder {
            all.insert(format!("file {}", entry.path().display()));
        }
        if cgroup && is_folder {
            files(&entry.path(), all);
        }
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Which number a descriptor has is chance: counted by what they are of.
fn descriptors(whose: &str, pid: i32, all: &mut BTreeSet<String>) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let link = link.display().to_string();
        // Of sockets, pipes and namespaces the number is chance too.
        let kind = link.split(":[").next().unwrap_or(&link).to_string();
        let count = kinds.entry(kind.clone()).or_default();
        *count += 1;
        all.insert(format!("descriptor {count} of {whose}: {kind}"));
    }
}

/// What a process has in memory.
pub struct Memory {
    /// Its share of all, as PSS counts.
    all_kib: u64,
    /// What is its own: written pages, and those of files without a name.
    pub own_kib: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB of its own, {} KiB in all (PSS)", self.own_kib, self.all_kib)
    }
}

/// Of this process.
pub fn memory(pid: i32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .ok_or(format!("{path} without {name}"))
    };
    Ok(Memory { all_kib: of("Pss:")?, own_kib: of("Pss_Anon:")? + of("Pss_Shmem:")? })
}
