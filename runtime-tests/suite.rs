//! The machine as other people's suites see it: namespaces that look like a host with cgroup v2 only, and leave nothing
//! behind. May use system calls; knows nothing of tests.
//!
//! The driver runs itself again as PID 1 of a PID namespace, so that whatever a test leaves running dies with
//! one signal, and with the driver. Mounts are private; the machine's own are never touched. There is no cgroup
//! namespace: a runtime must find a real root cgroup.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, close};

const CGROUPS: &str = "/sys/fs/cgroup";
const LOCK: &str = "/run/lock/rcrun-conformance.lock";
const INSIDE: &str = "RCRUN_SUITE_INSIDE";

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// Killed because its time was over.
    TimedOut,
    /// By a signal.
    Signal(i32),
}

/// Which cgroups below the root are a suite's own.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Names that its tests write into their configs: nothing else on the machine may have them.
    pub fixed: &'static [&'static str],
    /// Names that only its containers have, and perhaps somebody else's, which have processes then.
    pub containers: fn(&str) -> bool,
}

/// Whether this is already the process inside the namespaces.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the same command line again, inside new namespaces. Returns whether it succeeded.
pub fn enter() -> Result<bool, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("containers and their namespaces need root: run this as root".into());
    }
    close_inherited()?;
    let own = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    // PID 1 of a namespace does not see Ctrl-C, and unshare holds it back while it waits: both have to die with us.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--mount-proc"])
        .args(["--kill-child=KILL", "--propagation", "private", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .map_err(|e| format!("setpriv (package util-linux) does not start: {e}"))?;
    Ok(status.success())
}

/// The private namespaces, set up.
pub struct Host {
    _lock: Flock<fs::File>,
    names: Names,
    before: BTreeSet<String>,
    record: PathBuf,
}

impl Host {
    /// Makes the mounts of this process's own mount namespace those of a host with cgroup v2 only. The file
    /// `record` holds, while a run lasts, the cgroups that were there before it: if one was killed, the next
    /// one removes what it left.
    pub fn set_up(record: &Path, names: Names) -> Result<Host, String> {
        if std::process::id() != 1 {
            return Err(format!("{INSIDE} is set, but this is not PID 1 of a namespace of its own"));
        }
        // Two runs on one machine would meet in the same cgroups.
        fs::create_dir_all("/run/lock").map_err(|e| format!("mkdir /run/lock: {e}"))?;
        let file = fs::File::create(LOCK).map_err(|e| format!("open {LOCK}: {e}"))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, _)) => {
                println!("waiting for another run of the suite on this machine");
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| format!("flock {LOCK}: {e}"))?
            }
        };
        let on_cgroup2 = || statfs(CGROUPS).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC);
        if !on_cgroup2() {
            // v1 hierarchies and a tmpfs, in whatever number of layers; the last call finds no mount.
            while umount2(CGROUPS, MntFlags::MNT_DETACH).is_ok() {}
            // No options: nsdelegate and the like would change the hierarchy for the whole machine.
            mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), None::<&str>)
                .map_err(|e| format!("mount cgroup2 on {CGROUPS}: {e}"))?;
        }
        // systemd makes a host's mounts shared, and propagation tests want to see that.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
            .map_err(|e| format!("make / shared: {e}"))?;
        if let Ok(text) = fs::read_to_string(record) {
            let known: BTreeSet<String> = text.lines().map(str::to_string).collect();
            for name in cgroups()?.difference(&known).filter(|name| (names.containers)(name)) {
                // One that has a process is somebody else's, since the killed run's are all dead: rmdir refuses.
                let _ = remove_cgroup(&Path::new(CGROUPS).join(name));
            }
        }
        let before = cgroups()?;
        let text: String = before.iter().map(|name| format!("{name}\n")).collect();
        fs::write(record, text).map_err(|e| format!("write {}: {e}", record.display()))?;
        let mut host = Host { _lock: lock, names, before, record: record.into() };
        for name in names.fixed {
            if host.before.remove(*name) {
                remove_cgroup(&Path::new(CGROUPS).join(name)).map_err(|e| {
                    format!(
                        "{e}: a cgroup of that name is in use on this machine, and the suite needs the name"
                    )
                })?;
            }
        }
        Ok(host)
    }

    /// An empty /run, where runtimes keep their state, and an empty folder for bundles.
    pub fn fresh(&self, scratch: &Path) -> Result<(), String> {
        for at in [Path::new("/run"), scratch] {
            mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                .map_err(|e| format!("mount a tmpfs on {}: {e}", at.display()))?;
        }
        Ok(())
    }

    /// Ends every process, mount and cgroup that a test has left. Returns the cgroups' names.
    pub fn sweep(&self, scratch: &Path) -> Result<Vec<String>, String> {
        // From PID 1: everything in this PID namespace but itself.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        while wait().is_ok() {}
        for at in [scratch, Path::new("/run")] {
            umount2(at, MntFlags::MNT_DETACH).map_err(|e| format!("umount {}: {e}", at.display()))?;
        }
        let mut removed = Vec::new();
        for name in cgroups()?.difference(&self.before) {
            let container = (self.names.containers)(name);
            if container || self.names.fixed.contains(&name.as_str()) {
                match remove_cgroup(&Path::new(CGROUPS).join(name)) {
                    Ok(()) => removed.push(name.clone()),
                    // Not ours: our processes are all dead. Somebody else's container of such a name.
                    Err(_) if container => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(removed)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.record);
    }
}

/// Waits for a child, and buries the orphans that come to PID 1 meanwhile.
pub fn wait_for(child: u32) -> Result<Ended, String> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid.as_raw() as u32 == child => {
                return Ok(Ended::Exit(status));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() as u32 == child => {
                return Ok(Ended::Signal(signal as i32));
            }
            Ok(_) => {}
            Err(e) => return Err(format!("wait for process {child}: {e}")),
        }
    }
}

/// Whether the capability bounding set holds every capability that this kernel knows.
pub fn all_capabilities() -> Result<bool, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"));
    let last: u32 = read("/proc/sys/kernel/cap_last_cap")?.trim().parse().map_err(|e| format!("{e}"))?;
    let status = read("/proc/self/status")?;
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap_or("").trim();
    let bounding = u64::from_str_radix(bounding, 16).map_err(|e| format!("CapBnd {bounding}: {e}"))?;
    Ok(bounding == u64::MAX >> (63 - last))
}

/// A test counts the descriptors that its container sees; a caller's shell may have leaked some to us.
fn close_inherited() -> Result<(), String> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .map_err(|e| format!("read /proc/self/fd: {e}"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The listing's own descriptor is closed by now: EBADF.
        let _ = close(fd);
    }
    Ok(())
}

fn cgroups() -> Result<BTreeSet<String>, String> {
    let entries = fs::read_dir(CGROUPS).map_err(|e| format!("read {CGROUPS}: {e}"))?;
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

/// Removes a cgroup and those below it. Fails if one has a process.
fn remove_cgroup(path: &Path) -> Result<(), String> {
    let entries = fs::read_dir(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(format!("rmdir {}: {e}", path.display())),
        _ => Ok(()),
    }
}

/// Whether a name is a uuid.
pub fn is_uuid(name: &str) -> bool {
    let groups: Vec<usize> = name.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && name.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::is_uuid;

    #[test]
    fn only_uuids_are_taken_for_the_suites_containers() {
        assert!(is_uuid("0a1b2c3d-0000-4000-8000-00000000abcd"));
        for name in
            ["", "docker", "system.slice", "0a1b2c3d-0000-4000-8000", "0a1b2c3g-0000-4000-8000-00000000abcd"]
        {
            assert!(!is_uuid(name), "{name}");
        }
    }
}
