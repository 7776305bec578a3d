//! A container's cgroup (v2): where it is, made and removed, limited, frozen, killed, and which devices it may use.
//!
//! `path`, `resources` and `device` are pure; the rest works on the directory's fd and opens nothing by a path that
//! somebody else could have changed. Nothing sleeps: `cgroup.events` is polled.

mod access;
mod apply;
mod attach;
mod control;
mod delegate;
pub mod device;
mod events;
mod file;
mod freeze;
mod hierarchy;
mod kernel_log;
mod notices;
mod owner;
mod path;
mod processes;
mod reclaim;
mod remove;
pub mod resources;
mod shown;
pub mod stats;
mod update;
mod walk;

#[cfg(test)]
#[path = "kernel_test.rs"]
mod kernel_tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, mkdirat, unlinkat};
use rustix::io::Errno;

pub use access::{Place, place};
pub use apply::{offered, without_controller};
pub use attach::{DeviceProgram, Whose};
pub use device::Policy;
pub use events::Events;
pub use hierarchy::{Hierarchy, line_of_v2};
pub use notices::{Notice, Notices};
pub use path::CgroupPath;
pub use resources::Write;
pub use shown::Shown;
pub use update::Change;

use crate::error::{CallContext, errno_text};
use crate::{Code, Error, Result};
use file::{open_cgroup, read_value, write_control};

/// A container's cgroup, held by its directory's fd: whoever removes and remakes the path, it stays this one.
/// `as_fd` is what CLONE_INTO_CGROUP takes.
#[derive(Debug)]
pub struct Cgroup {
    dir: OwnedFd,
    path: CgroupPath,
    created: usize,
}

impl Cgroup {
    /// Makes the cgroup at `path`, with the missing ones above it, passes every controller of the hierarchy on
    /// to it, and makes sure that `writes` can be applied to its type. An existing one is taken if it is empty and
    /// not frozen, and nobody else is about to use it: it is locked for as long as the returned value lives. After an
    /// error, what was made is removed again.
    pub fn create(hierarchy: &Hierarchy, path: &CgroupPath, writes: &[Write]) -> Result<Cgroup> {
        let (cgroup, fresh) = Cgroup::make_locked(hierarchy, path)?;
        let ready = if fresh { Ok(()) } else { cgroup.check_unused() };
        let ready =
            ready.and_then(|()| cgroup.check_type(writes)).and_then(|()| cgroup.pass_controllers(hierarchy));
        match ready {
            Ok(()) => Ok(cgroup),
            // Nothing was started in it: what is not removed at once was not ours to remove.
            Err(error) if cgroup.created > 0 => Err(match cgroup.abandon(std::time::Duration::ZERO) {
                Ok(()) => error,
                Err(cleanup) => error.attach(&cleanup),
            }),
            Err(error) => Err(error),
        }
    }

    /// The cgroup at `path`, which systemd has made for this container just now. It is locked as after `create`. The
    /// controllers that systemd knows nothing of are passed on to it where `writes` need one.
    pub fn adopt(hierarchy: &Hierarchy, path: &CgroupPath, writes: &[Write]) -> Result<Cgroup> {
        const SYSTEMDS: [&str; 6] = ["cgroup", "cpu", "cpuset", "io", "memory", "pids"];
        let dir = open_cgroup(hierarchy, path.relative()).call(format!("open cgroup {path}"))?;
        let cgroup = Cgroup { dir, path: path.clone(), created: 1 };
        cgroup.lock()?;
        // systemd takes one that is there already. Born in a frozen one, init would never execute, nor this process go on.
        cgroup.check_will_run()?;
        if writes.iter().any(|write| !write.missing_ok && !SYSTEMDS.contains(&&*write.controller)) {
            cgroup.pass_controllers(hierarchy)?;
        }
        Ok(cgroup)
    }

    /// Whether systemd may be asked for a unit whose cgroup will lie at `path`. A frozen one that is there already would
    /// become the unit's, and be removed with it.
    pub fn check_before_unit(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<()> {
        Cgroup::open(hierarchy, path)?.map_or(Ok(()), |cgroup| cgroup.check_will_run())
    }

    /// The cgroup at `path`, or None if there is none.
    pub fn open(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<Option<Cgroup>> {
        match open_cgroup(hierarchy, path.relative()) {
            Ok(dir) => Ok(Some(Cgroup { dir, path: path.clone(), created: 0 })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::call(format!("open cgroup {path}"), errno)),
        }
    }

    /// Where it is below the mount.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// How many directories `create` made, counted from the cgroup itself upwards; 0 if it was there.
    pub fn created(&self) -> usize {
        self.created
    }

    /// How many processes in the cgroup and below it the OOM killer has killed; None without the memory controller,
    /// or when the cgroup is gone.
    pub fn oom_kills(&self) -> Result<Option<u64>> {
        Ok(self.memory_events()?.and_then(|text| notices::oom_kills(&text)))
    }

    /// How often memory.max was reached, in the cgroup and below it; None as with `oom_kills`.
    pub fn memory_max_hits(&self) -> Result<Option<u64>> {
        let text = self.memory_events()?;
        Ok(text.and_then(|text| text.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok())))
    }

    fn memory_events(&self) -> Result<Option<String>> {
        match read_value(self, "memory.events") {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::call(format!("read memory.events of cgroup {}", self.path), errno)),
        }
    }

    /// The same as `make`, and the last one is locked.
    fn make_locked(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<(Cgroup, bool)> {
        for _ in 0..TRIES {
            let (cgroup, fresh) = Cgroup::make(hierarchy, path)?;
            // Whoever was quicker has it, also where it was made here.
            cgroup.lock()?;
            // Whoever had the lock before may have removed it.
            if fresh || cgroup.events()?.is_some() {
                return Ok((cgroup, fresh));
            }
        }
        Err(again_and_again(path))
    }

    /// The directories, and whether the last one is new.
    fn make(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<(Cgroup, bool)> {
        let (above, name) = path.split();
        for _ in 0..TRIES {
            // Usually there, and openat2 goes through all of it in one call.
            let opened = match above {
                "" => open_cgroup(hierarchy, "."),
                _ => open_cgroup(hierarchy, above),
            };
            let (parent, mut made) = match opened {
                Ok(parent) => (parent, Vec::new()),
                Err(Errno::NOENT) => match make_above(hierarchy, path)? {
                    Some(made) => made,
                    None => continue,
                },
                Err(errno) => return Err(Error::call(format!("open cgroup /{above}"), errno)),
            };
            let fresh = match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                // The parent was removed meanwhile, by the end of another container that had made it.
                Err(Errno::NOENT) => continue,
                Err(errno) => {
                    unmake(&mut made);
                    return Err(mkdir_error(path, errno));
                }
            };
            match open_cgroup(&parent, name) {
                Ok(dir) => {
                    let created = if fresh { made.len() + 1 } else { 0 };
                    return Ok((Cgroup { dir, path: path.clone(), created }, fresh));
                }
                Err(Errno::NOENT) => continue,
                Err(errno) => {
                    if fresh {
                        made.push((parent, name.to_string()));
                    }
                    unmake(&mut made);
                    return Err(Error::call(format!("open cgroup {path}"), errno));
                }
            }
        }
        Err(again_and_again(path))
    }

    fn check_unused(&self) -> Result<()> {
        let Some(events) = self.events()? else { return Ok(()) };
        if events.populated {
            let ids = self.processes()?;
            return Err(Error::new(
                Code::System,
                format!(
                    "container's cgroup is not empty: {} process(es) found in cgroup {} (another linux.cgroupsPath makes a new one; cgroup.procs there names them)",
                    ids.len(),
                    self.path
                ),
            ));
        }
        self.check_thawed(events.frozen)
    }

    fn check_will_run(&self) -> Result<()> {
        let freeze = match read_value(self, "cgroup.freeze") {
            Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            freeze => freeze.call(format!("read cgroup.freeze of cgroup {}", self.path))?,
        };
        // `cgroup.events` says frozen only when a process in it is.
        let above = self.events()?.is_some_and(|events| events.frozen);
        self.check_thawed(freeze.trim_end() == "1" || above)
    }

    fn check_thawed(&self, frozen: bool) -> Result<()> {
        if frozen {
            return Err(Error::new(
                Code::System,
                format!("container's cgroup unexpectedly frozen: cgroup {} or one above it", self.path),
            ));
        }
        Ok(())
    }

    /// Below a threaded cgroup a new one is "domain invalid": no process can be in it until it is made threaded,
    /// and then it can have no controller but the threaded ones.
    fn check_type(&self, writes: &[Write]) -> Result<()> {
        let kind =
            read_value(self, "cgroup.type").call(format!("read cgroup.type of cgroup {}", self.path))?;
        let kind = kind.trim_end();
        if matches!(kind, "domain" | "domain threaded") {
            return Ok(());
        }
        if let Some(write) = writes.iter().find(|write| write.needs_domain()) {
            // runc's words.
            let state = match kind {
                "domain invalid" => "an invalid state".to_string(),
                kind => format!("{kind} mode"),
            };
            return Err(Error::new(
                Code::Host,
                format!(
                    "config.json: {}: cannot enter cgroupv2 {:?} with domain controllers -- it is in {state} (a cgroup above it is threaded, so it cannot have controller {:?}: set linux.cgroupsPath to another place)",
                    write.pointer,
                    self.path.as_str(),
                    write.controller
                ),
            )
            .at(&write.pointer));
        }
        match kind {
            "domain invalid" => write_control(self, "cgroup.type", "threaded")
                .call(format!("write threaded to cgroup.type of cgroup {}", self.path)),
            _ => Ok(()),
        }
    }

    /// Passes the controllers of the hierarchy down to this cgroup, all of them: engines read statistics of those
    /// that have no limit. What cannot be passed on is no error here; `apply` tells it when a limit needs it.
    fn pass_controllers(&self, hierarchy: &Hierarchy) -> Result<()> {
        const FILE: &str = "cgroup.controllers";
        let offered = read_value(hierarchy, FILE).call("read cgroup.controllers of the cgroup v2 root")?;
        if offered.trim_end().is_empty() {
            return Ok(());
        }
        let has = |own: &str, name: &str| own.split_whitespace().any(|own| own == name);
        let mine = read_value(self, FILE).call(format!("read {FILE} of cgroup {}", self.path))?;
        if offered.split_whitespace().all(|name| has(&mine, name)) {
            return Ok(());
        }
        let mut dir = open_cgroup(hierarchy, ".").call("open the cgroup v2 root")?;
        let mut available = offered;
        for name in self.path.names() {
            let child = open_cgroup(&dir, name).call(format!("open {name} of cgroup {}", self.path))?;
            let passed_on = read_value(&child, FILE).unwrap_or_default();
            let missing: Vec<_> = available
                .split_whitespace()
                .filter(|name| !has(&passed_on, name))
                .map(|name| format!("+{name}"))
                .collect();
            // All in one write, and where the kernel refuses that because of one of them, each by itself.
            if !missing.is_empty()
                && write_control(&dir, "cgroup.subtree_control", &missing.join(" ")).is_err()
            {
                for one in &missing {
                    // Refused: EBUSY (dir has processes), EACCES (not ours), EOPNOTSUPP (threaded). See above.
                    let _ = write_control(&dir, "cgroup.subtree_control", one);
                }
            }
            available = read_value(&child, FILE).unwrap_or_default();
            dir = child;
        }
        Ok(())
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// How often a cgroup is made that others remove.
const TRIES: usize = 16;

fn again_and_again(path: &CgroupPath) -> Error {
    Error::new(Code::System, format!("cgroup {path}: it or one above it is removed again and again"))
}

/// What was made, as parent and name, from the top.
type Made = Vec<(OwnedFd, String)>;

/// Makes the cgroups above `path` that are missing: the last one, and those made. None when one vanished meanwhile.
fn make_above(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<Option<(OwnedFd, Made)>> {
    let mut made = Made::new();
    let mut dir = open_cgroup(hierarchy, ".").call("open the cgroup v2 root")?;
    let (above, _) = path.split();
    for name in above.split('/') {
        let fresh = match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => {
                // Only what is made from here on is a tail of new ones.
                made.clear();
                false
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => {
                unmake(&mut made);
                return Err(mkdir_error(path, errno));
            }
        };
        let child = match open_cgroup(&dir, name) {
            Ok(child) => child,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => {
                unmake(&mut made);
                return Err(Error::call(format!("open {name} of cgroup {path}"), errno));
            }
        };
        let parent = std::mem::replace(&mut dir, child);
        if fresh {
            made.push((parent, name.to_string()));
        }
    }
    Ok(Some((dir, made)))
}

/// Removes what was made, deepest first. One that somebody uses by now stays.
fn unmake(made: &mut Made) {
    while let Some((parent, name)) = made.pop() {
        if unlinkat(&parent, name.as_str(), AtFlags::REMOVEDIR).is_err() {
            break;
        }
    }
}

fn mkdir_error(path: &CgroupPath, errno: Errno) -> Error {
    let hint = match errno {
        Errno::AGAIN => " (cgroup.max.depth or cgroup.max.descendants of a cgroup above it is reached)",
        Errno::ROFS => " (the cgroup v2 hierarchy is mounted read-only)",
        Errno::ACCESS | Errno::PERM => " (it lies outside of what is delegated to this user)",
        _ => "",
    };
    let number = errno.raw_os_error();
    Error::new(Code::System, format!("mkdir cgroup {path}: {}{hint}", errno_text(number))).with_errno(number)
}
