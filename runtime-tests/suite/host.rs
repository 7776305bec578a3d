//! Where other people's suites run, and leave nothing behind. May use system calls; knows nothing of tests.
//!
//! On somebody's machine: in namespaces that look like a host with cgroup v2 only. The driver runs itself again as PID 1
//! of a PID namespace, so that whatever a test leaves running dies with one signal, and with the driver. Mounts are
//! private; the machine's own are never touched. There is no cgroup namespace: a runtime must find a real root cgroup.
//!
//! In a test machine of our own (see `machines`): on the machine itself, whose systemd would not know the processes of
//! another PID namespace. What a test starts is in a cgroup of the driver's.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::sys::wait::wait;
use nix::unistd::{Pid, close};
use rustix::event::{PollFd, PollFlags, poll};

const CGROUPS: &str = "/sys/fs/cgroup";
const LOCK: &str = "/run/lock/rcrun-conformance.lock";
const INSIDE: &str = "RCRUN_SUITE_INSIDE";

/// Where the programs of a suite run in a machine of our own, with a number. At the root: runtimes put their containers
/// beside it. Another one after each sweep: what clones into a cgroup from one that was ever killed is killed (Linux 6.18).
const OWN: &str = "/sys/fs/cgroup/suite-";

/// Whether this is a machine that `machines` has booted, and will end.
fn in_machine() -> bool {
    let words = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    words.split_whitespace().any(|word| word == "systemd.unit=rcrun-tests.service")
}

/// What kind of machine this is.
pub fn place() -> &'static str {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    match in_machine() {
        false => "native",
        true if processors.contains("User Mode Linux") => "uml",
        true => "qemu",
    }
}

/// Which cgroups below the root are a suite's own.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Names that its tests write into their configs: nothing else on the machine may have them.
    pub fixed: &'static [&'static str],
    /// Names that only its containers have, and perhaps somebody else's, which have processes then.
    pub containers: fn(&str) -> bool,
}

/// Whether a suite can run here: inside the namespaces, or in a machine of our own.
pub fn is_ready() -> bool {
    in_machine() || std::env::var_os(INSIDE).is_some()
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
struct Namespaces {
    _lock: Flock<fs::File>,
    names: Names,
    before: BTreeSet<String>,
    record: PathBuf,
}

/// The place, set up.
pub struct Host(Place);

enum Place {
    Namespaces(Namespaces),
    /// With the cgroups that were there before, and the number of sweeps until now.
    Machine(BTreeSet<PathBuf>, Cell<u32>),
}

impl Host {
    /// On somebody's machine the file `record` holds, while a run lasts, the cgroups that were there before it: if one was
    /// killed, the next one removes what it left.
    pub fn set_up(record: &Path, names: Names) -> Result<Host, String> {
        if !in_machine() {
            return Namespaces::set_up(record, names).map(|namespaces| Host(Place::Namespaces(namespaces)));
        }
        let mut before = BTreeSet::new();
        below(Path::new(CGROUPS), &mut before)?;
        Ok(Host(Place::Machine(before, Cell::new(0))))
    }

    /// A program of the suite, with all that it will start.
    pub fn command(&self, program: &str) -> Command {
        match &self.0 {
            Place::Namespaces(_) => Command::new(program),
            Place::Machine(_, sweeps) => {
                let mut command = Command::new("sh");
                command.args([
                    "-c",
                    "mkdir -p \"$0\" && echo 0 >\"$0/cgroup.procs\" && exec \"$@\"",
                    &format!("{OWN}{}", sweeps.get()),
                    program,
                ]);
                command
            }
        }
    }

    /// An empty folder for bundles, and on somebody's machine an empty /run, where runtimes keep their state.
    pub fn fresh(&self, scratch: &Path) -> Result<(), String> {
        for (at, mode) in [(Path::new("/run"), "mode=755"), (scratch, "mode=1777")] {
            // systemd's sockets are in /run.
            if at != scratch && matches!(self.0, Place::Machine(..)) {
                continue;
            }
            mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(mode))
                .map_err(|e| format!("mount a tmpfs on {}: {e}", at.display()))?;
        }
        Ok(())
    }

    /// Ends every process, mount and cgroup that a test has left.
    pub fn sweep(&self, scratch: &Path) -> Result<(), String> {
        let detach = |at: &Path| {
            umount2(at, MntFlags::MNT_DETACH).map_err(|e| format!("umount {}: {e}", at.display()))
        };
        match &self.0 {
            Place::Namespaces(namespaces) => {
                // From PID 1: everything in this PID namespace but itself.
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
                while wait().is_ok() {}
                detach(scratch)?;
                detach(Path::new("/run"))?;
                namespaces.remove_cgroups()
            }
            Place::Machine(before, sweeps) => {
                sweeps.set(sweeps.get() + 1);
                let mut now = BTreeSet::new();
                below(Path::new(CGROUPS), &mut now)?;
                for left in now.difference(before).filter(|path| is_a_suites(path) && path.exists()) {
                    empty(left)?;
                    remove_cgroup(left)?;
                }
                detach(scratch)
            }
        }
    }
}

/// Whether a cgroup is no unit that systemd keeps.
fn is_a_suites(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let unit = |suffix: &str| name.to_string_lossy().ends_with(suffix);
    name != "init.scope" && ![".slice", ".service", ".mount", ".socket"].into_iter().any(unit)
}

/// All cgroups below this one.
fn below(path: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(path).map_err(|e| format!("read {}: {e}", path.display()))?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.insert(entry.path());
            below(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Kills what is in a cgroup and below, and waits until it is gone. It may vanish meanwhile: systemd removes scopes.
fn empty(path: &Path) -> Result<(), String> {
    let failed = |what: &str, e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(format!("{what} of {}: {e}", path.display())),
    };
    if let Err(e) = fs::write(path.join("cgroup.kill"), "1") {
        return failed("cgroup.kill", e);
    }
    let events = path.join("cgroup.events");
    loop {
        // Opened before it is read: what comes after that makes it ready.
        let file = match fs::File::open(&events) {
            Ok(file) => file,
            Err(e) => return failed("cgroup.events", e),
        };
        match std::io::read_to_string(&file) {
            Ok(text) if text.contains("populated 0") => return Ok(()),
            Ok(_) => {}
            // ENODEV: removed.
            Err(_) => return Ok(()),
        }
        let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)];
        poll(&mut fds, None).map_err(|e| format!("poll {}: {e}", events.display()))?;
    }
}

impl Namespaces {
    /// Makes the mounts of this process's own mount namespace those of a host with cgroup v2 only.
    fn set_up(record: &Path, names: Names) -> Result<Namespaces, String> {
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
        let mut host = Namespaces { _lock: lock, names, before, record: record.into() };
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

    /// Those that a test has left.
    fn remove_cgroups(&self) -> Result<(), String> {
        for name in cgroups()?.difference(&self.before) {
            let container = (self.names.containers)(name);
            if container || self.names.fixed.contains(&name.as_str()) {
                match remove_cgroup(&Path::new(CGROUPS).join(name)) {
                    // Not ours: our processes are all dead. Somebody else's container of such a name.
                    Err(e) if !container => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.record);
    }
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
    use super::{is_a_suites, is_uuid};
    use std::path::Path;

    #[test]
    fn units_of_systemd_stay_and_containers_go() {
        for (path, expected) in [
            ("machine.slice", false),
            ("system.slice/dbus.service", false),
            ("user.slice/user@1000.service/init.scope", false),
            ("machine.slice/runc-test_busybox.scope", true),
            ("test_busybox", true),
        ] {
            assert_eq!(is_a_suites(Path::new(path)), expected, "{path}");
        }
    }

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
