//! A command does no more on a machine that is full of containers, cgroups and mounts: the same system calls, and as many
//! bytes read. Time is measured by `make bench-load`; what is counted here, no other job on the machine disturbs.

use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::machine::{cgroup2, own_mount_namespace};
use runtime_tests::runtime::Runtime;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A container's life: verbs with their options, and what follows the id. What `run` and `exec` start ends by itself, so that
/// init's own calls are counted too; with `create` it would have to be waited for.
const LIFE: [(&str, &[&str], &[&str]); 10] = [
    ("run", &["--bundle", "TRUE"], &[]),
    ("create", &["--bundle", "SLEEP"], &[]),
    ("start", &[], &[]),
    ("state", &[], &[]),
    ("exec", &[], &["/bin/true"]),
    ("ps", &["--format", "json"], &[]),
    ("pause", &[], &[]),
    ("resume", &[], &[]),
    ("kill", &[], &["KILL"]),
    ("delete", &[], &[]),
];

/// How often each system call was made, and under [`BYTES`] how much the reading ones gave.
type Counts = BTreeMap<String, u64>;

const BYTES: &str = "bytes read";

/// Calls that give the caller something of the machine's.
const READING: [&str; 8] =
    ["read", "pread64", "readv", "getdents64", "recvmsg", "recvfrom", "readlink", "readlinkat"];

/// Counts strace's lines: a pid, a call, its result. A call during which another process's is written has two lines.
fn counts(strace: &str) -> Counts {
    let mut counts = Counts::new();
    for line in strace.lines().filter(|line| !line.ends_with("<unfinished ...>")) {
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let call = line.strip_prefix("<... ").unwrap_or(line);
        let Some((name, rest)) = call.split_once(['(', ' ']) else { continue };
        // What is not a call: `+++ exited`, `--- SIGCHLD`. And at an execve strace lets go, in words of its own.
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.starts_with("execve") {
            continue;
        }
        *counts.entry(name.into()).or_default() += 1;
        let result = rest.rsplit_once(" = ").and_then(|(_, result)| result.split(' ').next());
        if let (true, Some(bytes)) = (READING.contains(&name), result.and_then(|r| r.parse::<u64>().ok())) {
            *counts.entry(BYTES.into()).or_default() += bytes;
        }
    }
    counts
}

#[test]
fn calls_in_one_line_and_in_two_are_counted_once_with_their_bytes() {
    let counts = counts(
        "71 openat(AT_FDCWD, \"/proc/self/mountinfo\", O_RDONLY|O_CLOEXEC) = 3\n\
         71 read(3, \"22 1 0:21 / / rw\"..., 4096) = 1200\n\
         71 read(3,  <unfinished ...>\n\
         72 execve(\"/bin/true\", [\"true\"], 0x7ffd /* 2 vars */ <detached ...>\n\
         71 <... read resumed>\"\", 4096)       = 34\n\
         71 read(4, 0x7ffd, 10) = -1 EAGAIN (Resource temporarily unavailable)\n\
         --- SIGCHLD {si_signo=SIGCHLD} ---\n\
         71 +++ exited with 0 +++\n",
    );
    let counts: Vec<_> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, [(BYTES, 1234), ("openat", 1), ("read", 3)]);
}

/// What the containers run.
struct Bundles {
    quick: Bundle,
    sleep: Bundle,
}

/// The counts of each command of one life.
fn live(runtime: &Runtime, bundles: &Bundles, id: &str) -> Vec<(&'static str, Counts)> {
    let folder = Folder::new("strace");
    let log = folder.path().join("calls");
    let counted = LIFE.iter().map(|(verb, options, rest)| {
        let options = options.iter().map(|option| match *option {
            "TRUE" => bundles.quick.path().to_str().expect("UTF-8"),
            "SLEEP" => bundles.sleep.path().to_str().expect("UTF-8"),
            option => option,
        });
        let words = [*verb].into_iter().chain(options).chain([id]).chain(rest.iter().copied());
        let command = runtime.command(words);
        let mut strace = Command::new("strace");
        strace.args(matches!(*verb, "run" | "exec").then_some("-f"));
        strace.arg("-o").arg(&log).arg(command.get_program()).args(command.get_args());
        let said = runtime.without_pipes(&mut strace);
        assert_eq!(said.status, 0, "{verb}: {}{}", said.out, said.err);
        if *verb == "kill" {
            runtime.wait_for_end(id);
        }
        (*verb, counts(&fs::read_to_string(&log).expect("what strace wrote")))
    });
    counted.collect()
}

/// How often each life is led: who waits for another process reads once or twice, as it happens.
const LIVES: usize = 3;

/// That much more is chance (a record of a signalfd has 128 bytes, pids more or fewer digits) even if it came in all lives.
/// A call for each of what a load has many of, or a name in a list, would be more.
const CALLS_BY_CHANCE: u64 = 2;
const BYTES_BY_CHANCE: u64 = 300;

/// Every command makes the calls that it makes alone, and reads as much, when `put` has put its load on the machine.
fn no_command_does_more_with<L>(name: &str, put: impl FnOnce(&Runtime, &Bundles) -> L) {
    own_mount_namespace();
    let runtime = Runtime::new();
    let bundles = Bundles {
        quick: Bundle::new(name, &["/bin/true"]),
        sleep: Bundle::new(name, &["/bin/sleep", "1000"]),
    };
    let lives = |part: &str| -> Vec<_> {
        let id = |number| format!("{name}-{part}-{number}-{}", std::process::id());
        (0..LIVES).map(|number| live(&runtime, &bundles, &id(number))).collect()
    };
    // The first container of all makes the state root.
    lives("first");
    let alone = lives("lone");
    let load = put(&runtime, &bundles);
    let under = lives("full");
    drop(load);
    for (place, (verb, counted)) in under[0].iter().enumerate() {
        for what in counted.keys() {
            let of = |lives: &[Vec<(_, Counts)>]| -> Vec<u64> {
                lives.iter().map(|life| life[place].1.get(what).copied().unwrap_or_default()).collect()
            };
            let (alone, under) = (of(&alone), of(&under));
            if what == BYTES {
                println!("{verb}: {alone:?} {what} alone, {under:?} with {name}");
            }
            let chance = if what == BYTES { BYTES_BY_CHANCE } else { CALLS_BY_CHANCE };
            let (most, least) = (alone.iter().max(), under.iter().min());
            assert!(
                least <= most.map(|most| most + chance).as_ref(),
                "{verb}: {alone:?} {what} alone, {under:?} with {name}"
            );
        }
    }
}

#[test]
fn no_command_does_more_with_40_containers() {
    no_command_does_more_with("containers", |runtime, bundles| {
        for number in 0..40 {
            let id = format!("of-many-{number}-{}", std::process::id());
            let path = bundles.sleep.path().to_str().expect("UTF-8");
            let mut run = runtime.command(["run", "--detach", "--bundle", path, &id]);
            let said = runtime.without_pipes(&mut run);
            assert_eq!(said.status, 0, "{}", said.err);
        }
    });
}

/// Cgroups that go with the test.
struct Cgroups(PathBuf);

impl Drop for Cgroups {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().filter_map(|e| e.ok()) {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn no_command_does_more_with_3000_cgroups() {
    no_command_does_more_with("cgroups", |_, _| {
        let cgroups = Cgroups(cgroup2().join(format!("many-{}", std::process::id())));
        for number in 0..3000 {
            fs::create_dir_all(cgroups.0.join(number.to_string())).expect("a cgroup");
        }
        cgroups
    });
}

/// Shared, as systemd makes those of a machine. They go with the namespace of this thread.
fn mounts(folder: &Path, number: usize) {
    let nothing = None::<&str>;
    mount(Some("many"), folder, Some("tmpfs"), MsFlags::empty(), nothing).expect("mount a tmpfs");
    mount(nothing, folder, nothing, MsFlags::MS_SHARED, nothing).expect("share it");
    for number in 0..number {
        let target = folder.join(number.to_string());
        fs::create_dir(&target).expect("mkdir");
        mount(Some(&target), &target, nothing, MsFlags::MS_BIND, nothing).expect("bind");
    }
}

#[test]
fn no_command_does_more_with_2000_mounts() {
    no_command_does_more_with("mounts", |_, _| {
        let folder = Folder::new("many-mounts");
        mounts(folder.path(), 2000);
        folder
    });
}
