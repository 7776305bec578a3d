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

/// What is asked of a container in its life; init's own calls are counted too, to the payload's execve.
const LIFE: [(&str, &[&str]); 8] = [
    ("run", &["--detach", "--bundle", "BUNDLE"]),
    ("state", &[]),
    ("exec", &[]),
    ("ps", &["--format", "json"]),
    ("pause", &[]),
    ("resume", &[]),
    ("kill", &[]),
    ("delete", &[]),
];
/// Of a container that is created first; init's calls are none of these commands'.
const TWO_STEPS: [(&str, &[&str]); 3] =
    [("create", &["--bundle", "BUNDLE"]), ("start", &[]), ("delete", &["--force"])];

/// What follows the id.
fn after_id(verb: &str) -> &'static [&'static str] {
    match verb {
        "exec" => &["/bin/true"],
        "kill" => &["KILL"],
        _ => &[],
    }
}

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

/// The counts of each command of a life.
fn live(
    runtime: &Runtime,
    bundle: &Bundle,
    life: &[(&'static str, &[&str])],
    id: &str,
) -> Vec<(&'static str, Counts)> {
    let folder = Folder::new("strace");
    let log = folder.path().join("calls");
    let follow: &[&str] = if life[0].0 == "run" { &["-f", "-b", "execve"] } else { &[] };
    let counted = life.iter().map(|(verb, options)| {
        let options = options.iter().map(|option| match *option {
            "BUNDLE" => bundle.path().to_str().expect("UTF-8"),
            option => option,
        });
        let words = [*verb].into_iter().chain(options).chain([id]).chain(after_id(verb).iter().copied());
        let command = runtime.command(words);
        let mut strace = Command::new("strace");
        strace.args(follow).arg("-o").arg(&log).arg(command.get_program()).args(command.get_args());
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

/// Pids have more or fewer digits, and /proc tells them; a line for each of what a load has many of is longer than that.
const DIGITS: u64 = 64;

/// Every command makes the calls that it makes alone, and reads as much, when `put` has put its load on the machine.
fn no_command_does_more_with<L>(name: &str, put: impl FnOnce(&Runtime, &Bundle) -> L) {
    own_mount_namespace();
    let runtime = Runtime::new();
    let bundle = Bundle::new(name, &["sleep", "1000"]);
    let lives = |part: &str| {
        let lead = |number: usize| {
            let id = format!("{name}-{part}-{number}-{}", std::process::id());
            let lives = [&LIFE[..], &TWO_STEPS[..]].map(|life| live(&runtime, &bundle, life, &id));
            lives.into_iter().flatten().collect::<Vec<_>>()
        };
        (0..LIVES).map(lead).collect::<Vec<_>>()
    };
    // The first container of all makes the state root.
    lives("first");
    let alone = lives("lone");
    let load = put(&runtime, &bundle);
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
            let digits = if what == BYTES { DIGITS } else { 0 };
            let (most, least) = (alone.iter().max(), under.iter().min());
            assert!(
                least <= most.map(|most| most + digits).as_ref(),
                "{verb}: {alone:?} {what} alone, {under:?} with {name}"
            );
        }
    }
}

#[test]
fn no_command_does_more_with_40_containers() {
    no_command_does_more_with("containers", |runtime, bundle| {
        for number in 0..40 {
            let id = format!("of-many-{number}-{}", std::process::id());
            let path = bundle.path().to_str().expect("UTF-8");
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
