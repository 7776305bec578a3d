//! The way into namespaces of our own, by executing ourselves three times: all that engines change (mounts, networks,
//! processes, cgroups, /var, /etc and /run) is gone with the first process of the new pid namespace. Uses nix.
//!
//! ```text
//! outside   makes a cgroup and a folder, waits, removes both
//!  └ inside   enters the namespaces, makes the mounts
//!     └ first   PID 1: reaps what the engines leave
//!        └ suite   the tests
//! ```

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};
use runtime_tests::bundle::Folder;
use runtime_tests::machine::cgroup2;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const STAGE: &str = "RCRUN_ENGINES_STAGE";
const FOLDER: &str = "RCRUN_ENGINES_FOLDER";
const CGROUP: &str = "RCRUN_ENGINES_CGROUP";

/// Where the suite may write, once it is inside; before that, the status with which this process ends.
pub fn enter() -> Result<PathBuf, ExitCode> {
    let folder = || PathBuf::from(std::env::var_os(FOLDER).expect("the folder"));
    match std::env::var(STAGE).as_deref() {
        Err(_) => Err(outside()),
        Ok("inside") => Err(inside(&folder())),
        Ok("first") => Err(first()),
        Ok(_) => Ok(folder()),
    }
}

fn stage(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(STAGE, name);
    command
}

fn status(status: std::process::ExitStatus) -> ExitCode {
    ExitCode::from(u8::try_from(runtime_tests::runtime::code(status)).unwrap_or(u8::MAX))
}

fn outside() -> ExitCode {
    assert!(nix::unistd::geteuid().is_root(), "engines run as root");
    let cgroup = cgroup2().join(format!("rcrun-engines-{}", std::process::id()));
    fs::create_dir(&cgroup).expect("mkdir in cgroup2");
    let folder = Folder::new("engines");
    let mut inside = stage("inside");
    let ended = inside.env(FOLDER, folder.path()).env(CGROUP, &cgroup).status().expect("execute myself");
    remove_cgroup(&cgroup);
    status(ended)
}

// rmdir(2) from the leaves; the kernel's files in them are no files to remove.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    if let Err(e) = fs::remove_dir(path) {
        eprintln!("rmdir {}: {e}", path.display());
    }
}

fn inside(folder: &Path) -> ExitCode {
    // Of somebody who stops the test: nothing stays behind.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let cgroup = PathBuf::from(std::env::var_os(CGROUP).expect("the cgroup"));
    // The new cgroup namespace begins here.
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("enter the cgroup");
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(own).expect("unshare");
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("make / private");
    let new = |kind: &str, at: &str| {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), nothing)
            .unwrap_or_else(|e| panic!("mount {kind} on {at}: {e}"));
    };
    new("sysfs", "/sys");
    // Without options: those of a superblock are the whole machine's.
    new("cgroup2", "/sys/fs/cgroup");
    // cgroup v2 gives controllers to children only where no process is: podman wants to.
    fs::create_dir("/sys/fs/cgroup/suite").expect("mkdir in cgroup2");
    fs::write("/sys/fs/cgroup/suite/cgroup.procs", "0").expect("enter the suite's cgroup");
    new("tmpfs", "/run");
    fs::create_dir("/run/lock").expect("mkdir /run/lock");
    for place in ["/var", "/etc"] {
        let [upper, work] =
            ["upper", "work"].map(|name| folder.join(place.trim_start_matches('/')).join(name));
        for made in [&upper, &work] {
            fs::create_dir_all(made).expect("mkdir");
        }
        let options = format!("lowerdir={place},upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .unwrap_or_else(|e| panic!("mount an overlay on {place}: {e}"));
    }
    status(stage("first").status().expect("execute myself"))
}

fn first() -> ExitCode {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    assert_eq!(std::process::id(), 1, "the first process of the pid namespace");
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).expect("mount /proc");
    let suite = stage("suite").spawn().expect("execute myself").id();
    loop {
        match wait().expect("a child") {
            WaitStatus::Exited(pid, code) if pid.as_raw() as u32 == suite => {
                return ExitCode::from(code as u8);
            }
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw() as u32 == suite => {
                eprintln!("the suite was ended by {signal}");
                return ExitCode::FAILURE;
            }
            _ => {}
        }
    }
}
