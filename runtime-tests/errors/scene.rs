//! Where a case happens: a mount namespace with a bundle, a state root and an empty /run in memory, cgroup v2 alone, and what
//! is left of it afterwards. Uses: bundle's config, machine, runtime's words.

use super::{Case, page};
use crate::bundle::{Folder, default_config, fill_root};
use crate::machine::own_mount_namespace;
use crate::programs;
use crate::runtime::{Said, code, readable};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the bundle and the state root lie, in every case: the sentences name the same paths.
const PLACE: &str = "/mnt";
/// The bundle.
pub const BUNDLE: &str = "/mnt/bundle";
/// Its root.
pub const ROOT: &str = "/mnt/bundle/rootfs";
/// The state root.
pub const STATE: &str = "/mnt/state";
/// The log, as engines have one.
const LOG: &str = "/mnt/log/log";
/// What a command may take. A runtime that still waits then is told so.
const SECONDS: u32 = 20;

/// What a runtime said and left.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The exit status; 128 and the signal.
    pub status: i32,
    /// The sentence, with the container's id, process ids and such made the same in every run.
    pub sentence: String,
    /// The same, whole.
    pub whole: String,
    /// The class, where the log has one.
    pub code: String,
    /// The field, where the log has one.
    pub field: String,
    /// What was there afterwards: state, cgroups, mounts, processes.
    pub left: Vec<String>,
    /// How many errors the log holds: engines read one.
    pub errors: usize,
}

/// What a case works with.
#[derive(Debug)]
pub struct Scene {
    runtime: PathBuf,
    /// The container's id.
    pub id: String,
    /// config.json.
    pub config: Value,
    options: Vec<String>,
    wrapper: Vec<String>,
    seconds: u32,
    folder: PathBuf,
    before: String,
    moved: Vec<String>,
}

/// Lets a runtime meet a case.
pub fn meet(case: &Case, runtime: &Path) -> Outcome {
    // The namespace goes with its thread, and what is mounted on this folder with it.
    let folder = Folder::new("errors");
    std::thread::scope(|scope| {
        let done = std::thread::Builder::new().spawn_scoped(scope, || {
            own_mount_namespace();
            let mut scene = Scene::new(runtime, folder.path());
            let said = (case.act)(&mut scene);
            scene.outcome(&said)
        });
        done.expect("a thread").join().unwrap_or_else(|_| panic!("{case:?}"))
    })
}

fn memory(at: &str, options: &str) {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options))
        .unwrap_or_else(|e| panic!("mount a tmpfs on {at}: {e}"));
}

/// cgroup v2, and nothing else, on /sys/fs/cgroup.
fn enter_cgroup2() {
    let at = "/sys/fs/cgroup";
    if !statfs(at).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC) {
        // v1 hierarchies and a tmpfs, in whatever number of layers; the last call finds no mount.
        while umount2(at, MntFlags::MNT_DETACH).is_ok() {}
        mounted("cgroup2", Some("cgroup2"), at, MsFlags::empty(), None);
    }
}

impl Scene {
    fn new(runtime: &Path, folder: &Path) -> Scene {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("web-{}-{number}z", std::process::id());
        // Apart from the place, which may become full or read-only.
        memory(folder.to_str().expect("UTF-8"), "mode=755");
        memory(PLACE, "mode=755");
        memory("/run", "mode=755");
        enter_cgroup2();
        for folder in [BUNDLE, ROOT, STATE, "/mnt/log"] {
            fs::create_dir(folder).unwrap_or_else(|e| panic!("mkdir {folder}: {e}"));
        }
        // Who is not root has a log, too.
        let anybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions("/mnt/log", anybody).expect("chmod /mnt/log");
        fill_root(Path::new(ROOT));
        let scene = Scene {
            runtime: runtime.to_path_buf(),
            id,
            config: default_config(&["true"]),
            options: Vec::new(),
            wrapper: Vec::new(),
            seconds: SECONDS,
            folder: folder.to_path_buf(),
            before: String::new(),
            moved: Vec::new(),
        };
        scene.save();
        scene
    }

    fn save(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("JSON");
        fs::write(Path::new(BUNDLE).join("config.json"), text).expect("write config.json");
    }

    /// Changes the config and writes it.
    pub fn with(&mut self, change: impl FnOnce(&mut Value)) -> &mut Scene {
        change(&mut self.config);
        self.save();
        self
    }

    /// Sets one field; an index one past a list's end appends.
    pub fn put(&mut self, at: &str, value: Value) -> &mut Scene {
        self.with(|config| crate::broken_configs::put(config, at, value))
    }

    /// What the container runs.
    pub fn args(&mut self, args: &[&str]) -> &mut Scene {
        self.put("/process/args", args.into())
    }

    /// A global option of all commands to come.
    pub fn option(&mut self, option: &str) -> &mut Scene {
        self.options.push(option.to_string());
        self
    }

    /// Runs a copy of the runtime that anybody may execute, wherever the runtime itself lies.
    pub fn with_copy(&mut self) -> &mut Scene {
        let copy = self.folder.join(self.runtime.file_name().expect("a file"));
        programs::copy(&self.runtime, &copy);
        self.runtime = copy;
        self
    }

    /// Runs the runtime by this program: `prlimit --nofile=10`.
    pub fn through(&mut self, words: &[&str]) -> &mut Scene {
        self.wrapper = words.iter().map(|word| word.to_string()).collect();
        self
    }

    /// A command may take longer: what it waits for has a limit of its own.
    pub fn patient(&mut self, seconds: u32) -> &mut Scene {
        self.seconds = seconds;
        self
    }

    /// Runs a command with these words to its end. `ID` is the container's.
    pub fn say(&mut self, words: &[&str]) -> Said {
        let words = words.iter().map(|word| word.replace("ID", &self.id));
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &self.seconds.to_string()]).args(&self.wrapper).arg(&self.runtime);
        command.args(["--root", STATE, "--log", LOG, "--log-format", "json"]).args(&self.options).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(BUNDLE);
        // A container that a runtime leaves holds no pipe of the test's.
        let [empty, out, err] = ["empty", "out", "err"].map(|name| self.folder.join(name));
        let file = |path: &Path| File::create(path).expect("a file for what is said");
        // No /dev/null: a case may have taken it away.
        drop(file(&empty));
        command.stdin(File::open(&empty).expect("an empty file")).stdout(file(&out)).stderr(file(&err));
        self.before = mounts_or_none();
        let status = command.status().expect("execute the runtime");
        self.moved = moved(&self.before, &mounts_or_none());
        let read = |path| String::from_utf8_lossy(&fs::read(path).expect("what was said")).into_owned();
        Said { status: code(status), out: read(out), err: read(err) }
    }

    /// Creates the container.
    pub fn create(&mut self) -> Said {
        self.say(&["create", "--bundle", BUNDLE, "ID"])
    }

    /// Runs the container in the foreground.
    pub fn run(&mut self) -> Said {
        self.say(&["run", "--bundle", BUNDLE, "ID"])
    }

    /// Has the container running, for a verb that is to fail.
    pub fn up(&mut self) -> &mut Scene {
        self.args(&["sleep", "1000"]);
        self.ready(&["run", "--detach", "--bundle", BUNDLE, "ID"])
    }

    /// Has the container created.
    pub fn created(&mut self) -> &mut Scene {
        self.ready(&["create", "--bundle", BUNDLE, "ID"])
    }

    /// Has the container there, ended.
    pub fn stopped(&mut self) -> &mut Scene {
        self.up();
        let said = self.say(&["state", "ID"]);
        let state: Value = serde_json::from_str(&said.out).expect("state is JSON");
        let pid = Pid::from_raw(state["pid"].as_i64().expect("a pid") as i32).expect("a process");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
        self.ready(&["kill", "ID", "KILL"]);
        assert!(readable(pidfd.as_fd()), "it does not end");
        self
    }

    /// A command that must succeed before the one that is to fail.
    pub fn ready(&mut self, words: &[&str]) -> &mut Scene {
        let said = self.say(words);
        assert_eq!(said.status, 0, "{words:?}: {}{}", said.out, said.err);
        self
    }

    /// What came of it. A container that was there before goes first.
    fn outcome(&mut self, said: &Said) -> Outcome {
        let log = fs::read_to_string(LOG).unwrap_or_default();
        let lines: Vec<Value> =
            log.lines().chain(said.err.lines()).filter_map(|l| serde_json::from_str(l).ok()).collect();
        let errors: Vec<&Value> = lines.iter().filter(|line| line["level"] == "error").collect();
        let word =
            |key: &str| errors.last().and_then(|line| line[key].as_str()).unwrap_or_default().to_string();
        let text = match word("msg") {
            none if none.is_empty() => said.err.lines().last().unwrap_or_default().to_string(),
            msg => msg,
        };
        let mut outcome = Outcome {
            status: said.status,
            sentence: self.normal(&text),
            whole: text.replace(&self.id, "web"),
            code: word("code"),
            field: word("pointer"),
            left: self.moved.clone(),
            errors: errors.len(),
        };
        // A case may have taken these away.
        if !Path::new("/proc/self/mounts").exists() {
            while umount2("/proc", MntFlags::MNT_DETACH).is_ok() {}
            mounted("proc", Some("proc"), "/proc", MsFlags::empty(), None);
        }
        enter_cgroup2();
        // Once more in the plain way: what a case has changed is no fault of this command.
        self.wrapper.clear();
        self.options.clear();
        let _ = fs::remove_file(LOG);
        if Path::new(STATE).join(&self.id).exists() {
            let gone = self.say(&["delete", "--force", "ID"]);
            if gone.status != 0 {
                outcome.left.push(format!("a container that delete does not take: {}", gone.err));
            }
        }
        outcome.left.extend(self.state_left());
        outcome.left.extend(self.processes_left());
        outcome.left.extend(self.cgroups_left());
        outcome
    }

    fn state_left(&self) -> Vec<String> {
        let entries = fs::read_dir(STATE).into_iter().flatten().flatten();
        entries
            .map(|e| e.file_name())
            .filter(|name| name.to_string_lossy().contains(&self.id))
            .map(|n| format!("state {n:?}"))
            .collect()
    }

    /// Ends processes that are left in the case's mount namespace or in a cgroup of the container's, and tells of those
    /// that do not end by themselves.
    fn processes_left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let own = fs::read_link("/proc/thread-self/ns/mnt").expect("a mount namespace");
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(number) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let is_here = fs::read_link(entry.path().join("ns/mnt")).is_ok_and(|ns| ns == own);
            let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if !is_here && !cgroup.contains(&self.id) {
                continue;
            }
            let Some(pid) = Pid::from_raw(number) else { continue };
            let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // It may be at its end.
            let ended = {
                let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
                let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
                rustix::event::poll(&mut fds, Some(&limit)) == Ok(1)
            };
            if !ended {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                left.push(format!("process {}", name.trim()));
                let _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), rustix::process::Signal::KILL);
                readable(pidfd.as_fd());
            }
        }
        left
    }

    /// Removes cgroups that are left, and tells of them.
    fn cgroups_left(&self) -> Vec<String> {
        fn look(folder: &Path, id: &str, inside: bool, left: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let inside = inside || entry.file_name().to_string_lossy().contains(id);
                look(&entry.path(), id, inside, left);
                if inside {
                    left.push(format!("cgroup {}", entry.path().display()).replace(id, "web"));
                    let _ = fs::remove_dir(entry.path());
                }
            }
        }
        let mut left = Vec::new();
        look(Path::new("/sys/fs/cgroup"), &self.id, false, &mut left);
        left
    }

    /// The same words in every run: no id of this run's, no process ids, no times.
    fn normal(&self, text: &str) -> String {
        let text = text.replace(&self.id, "web").replace(self.folder.to_str().expect("UTF-8"), "/tmp");
        let text = text.replace(self.runtime.to_str().expect("UTF-8"), "RUNTIME");
        page::plain(&text)
    }
}

/// A case may be without a /proc.
fn mounts_or_none() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default()
}

/// The mounts that are there after a command and were not before, and those that are gone.
fn moved(before: &str, after: &str) -> Vec<String> {
    let target = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_string();
    let new = after.lines().filter(|line| !before.lines().any(|known| known == *line));
    let gone = before.lines().filter(|line| !after.lines().any(|now| now == *line));
    new.map(|l| format!("a mount on {}", target(l)))
        .chain(gone.map(|l| format!("no mount on {}", target(l))))
        .collect()
}

/// Mounts for a case, in its own namespace.
pub fn mounted(what: &str, kind: Option<&str>, at: &str, flags: MsFlags, options: Option<&str>) {
    mount(Some(what), at, kind, flags, options).unwrap_or_else(|e| panic!("mount {what} on {at}: {e}"));
}

/// Makes what lies at `at` read-only, for a case.
pub fn read_only(at: &str) {
    mounted(at, None, at, MsFlags::MS_BIND, None);
    mounted(at, None, at, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None);
}

/// An executable file.
pub fn program(at: &str, text: impl AsRef<[u8]>, mode: u32) {
    programs::write(Path::new(at), text, mode);
}

/// A process that a case needs ends with it.
#[derive(Debug)]
pub struct Beside(std::process::Child);

impl Beside {
    /// Starts it.
    pub fn start<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Beside {
        Beside(
            Command::new(program)
                .args(args)
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|e| panic!("{program}: {e}")),
        )
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
