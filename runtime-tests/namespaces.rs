//! The way into namespaces of our own, by executing ourselves three times: all that engines change (mounts, networks,
//! processes, cgroups, /var, /etc and /run) is gone with the first process of the new pid namespace. Uses nix.
//!
//! ```text
//! outside   makes a cgroup and a folder, waits, removes both
//!  └ inside   enters the namespaces, makes the mounts, enters another root where there is a disk of one
//!     └ first   PID 1: reaps what the engines leave
//!        └ suite   the tests
//! ```

use crate::bundle::Folder;
use crate::machine::cgroup2;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitStatus, wait};
use std::fs;
use std::os::unix::fs::PermissionsExt;
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
    ExitCode::from(u8::try_from(crate::runtime::code(status)).unwrap_or(u8::MAX))
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
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(own).expect("unshare");
    make("none", None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE, None);
    let mut first = stage("first");
    match std::env::var_os("ENGINES_DISK").filter(|disk| !disk.is_empty()) {
        Some(disk) => {
            let given = bring(folder);
            let root = enter_disk(&PathBuf::from(disk), folder);
            first.envs(given);
            system(&root);
            pivot(&root);
        }
        None => {
            system(Path::new("/"));
            for place in ["/var", "/etc"] {
                // An overlay's upper folder cannot lie on an overlay, which /tmp may be.
                let written = folder.join(place.trim_start_matches('/'));
                fs::create_dir(&written).expect("mkdir");
                make("tmpfs", Some("tmpfs"), &written, MsFlags::empty(), None);
                overlay(Path::new(place), Path::new(place), &written);
            }
        }
    }
    // Last: the first process that is started from here is PID 1.
    unshare(CloneFlags::CLONE_NEWPID).expect("unshare of the processes");
    status(first.status().expect("execute myself"))
}

fn make(what: &str, kind: Option<&str>, at: &Path, flags: MsFlags, options: Option<&str>) {
    mount(Some(what), at, kind, flags, options)
        .unwrap_or_else(|e| panic!("mount {what} on {}: {e}", at.display()));
}

/// Writes below `at` go to `folder`.
fn overlay(lower: &Path, at: &Path, folder: &Path) {
    let [upper, work] = ["upper", "work"].map(|name| folder.join(name));
    for made in [&upper, &work] {
        fs::create_dir_all(made).expect("mkdir");
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    make("overlay", Some("overlay"), at, MsFlags::empty(), Some(&options));
}

/// What is the kernel's, and /run.
fn system(root: &Path) {
    let new = |kind: &str, at: &str| make(kind, Some(kind), &root.join(at), MsFlags::empty(), None);
    new("sysfs", "sys");
    // Without options: those of a superblock are the whole machine's.
    new("cgroup2", "sys/fs/cgroup");
    // cgroup v2 gives controllers to children only where no process is: podman wants to.
    let suite = root.join("sys/fs/cgroup/suite");
    fs::create_dir(&suite).expect("mkdir in cgroup2");
    fs::write(suite.join("cgroup.procs"), "0").expect("enter the suite's cgroup");
    // A user's network wants to open it, whoever may open the machine's.
    new("tmpfs", "dev/net");
    let tun = root.join("dev/net/tun");
    mknod(&tun, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200)).expect("mknod");
    fs::set_permissions(&tun, fs::Permissions::from_mode(0o666)).expect("chmod");
    new("tmpfs", "run");
    fs::create_dir(root.join("run/lock")).expect("mkdir /run/lock");
}

/// Copies what the suite is given into the folder, which it sees from another root too; the variables that name it.
fn bring(folder: &Path) -> Vec<(&'static str, PathBuf)> {
    let given = folder.join("given");
    fs::create_dir(&given).expect("mkdir");
    let mut variables = Vec::new();
    for variable in ["RCRUN", "ENGINES_IMAGE"] {
        let Some(from) = std::env::var_os(variable).map(PathBuf::from) else { continue };
        let to = given.join(from.file_name().expect("a file"));
        fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        variables.push((variable, to));
    }
    let shim = "containerd-shim-rcrun-v2";
    if let Some(rcrun) = std::env::var_os("RCRUN") {
        let from = Path::new(&rcrun).with_file_name(shim);
        if from.exists() {
            fs::copy(&from, given.join(shim)).expect("copy the shim");
        }
    }
    variables
}

/// The root on a test machine's disk, which is only read; `folder` is in it where it is outside.
fn enter_disk(disk: &Path, folder: &Path) -> PathBuf {
    let [lower, root] = ["lower", "root"].map(|name| folder.join(name));
    for made in [&lower, &root] {
        fs::create_dir(made).expect("mkdir");
    }
    let image = disk.join("disk.img");
    // A loop device, which is gone with the mount.
    let mut command = Command::new("mount");
    let done = command.args(["-t", "ext4", "-o", "ro,loop"]).args([&image, &lower]).status().expect("mount");
    assert!(done.success(), "{} cannot be mounted", image.display());
    overlay(&lower, &root, &folder.join("written"));
    for place in ["dev", "proc"] {
        make(&format!("/{place}"), None, &root.join(place), MsFlags::MS_BIND | MsFlags::MS_REC, None);
    }
    let inner = root.join(folder.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(&inner).expect("mkdir");
    make(&folder.display().to_string(), None, &inner, MsFlags::MS_BIND, None);
    root
}

fn pivot(root: &Path) {
    std::env::set_current_dir(root).expect("chdir");
    nix::unistd::pivot_root(".", ".").expect("pivot_root");
    umount2(".", MntFlags::MNT_DETACH).expect("umount the old root");
    std::env::set_current_dir("/").expect("chdir");
}

fn first() -> ExitCode {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    assert_eq!(std::process::id(), 1, "the first process of the pid namespace");
    make("proc", Some("proc"), Path::new("/proc"), MsFlags::empty(), None);
    // Where pids begin anew, names that are made of one are not this run's alone.
    let folder = std::env::var_os(FOLDER).expect("the folder");
    let suite = stage("suite").env("TMPDIR", folder).spawn().expect("execute myself").id();
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
