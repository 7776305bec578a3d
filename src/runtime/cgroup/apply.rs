//! Writes values into a cgroup's control files, and says in words why one could not be written.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::file::{open_cgroup, open_parent, read_value, write_control};
use super::{Cgroup, CgroupPath, Hierarchy, Write};
use crate::error::errno_text;
use crate::{Code, Error, Result};

impl Cgroup {
    /// Makes the writes, in order. After a failure the earlier ones are in force: a new cgroup is removed then.
    pub fn apply(&self, writes: &[Write]) -> Result<()> {
        let mut rest = writes.iter();
        while let Some(write) = rest.next() {
            let Err(errno) = self.write(write) else { continue };
            // The kernel refuses a quota below the burst in force. Where both shrink, the burst must go first.
            if errno == Errno::INVAL
                && write.file == "cpu.max"
                && let Some(burst) = rest.as_slice().first().filter(|next| next.file == "cpu.max.burst")
            {
                rest.next();
                self.write(burst).map_err(|errno| self.explain(burst, errno))?;
                self.write(write).map_err(|errno| self.explain(write, errno))?;
                continue;
            }
            return Err(self.explain(write, errno));
        }
        Ok(())
    }

    fn write(&self, write: &Write) -> std::result::Result<(), Errno> {
        let mut result = write_control(self, &write.file, &write.value);
        if let (Err(Errno::NOENT), Some((file, value))) = (&result, &write.or_else) {
            result = write_control(self, file, value);
        }
        match result {
            Err(Errno::NOENT) if write.missing_ok => Ok(()),
            result => result,
        }
    }

    pub(super) fn explain(&self, write: &Write, errno: Errno) -> Error {
        let Write { file, value, pointer, controller, .. } = write;
        // A removed cgroup has no files at all.
        if errno == Errno::NOENT && read_value(self, "cgroup.controllers").is_ok() {
            return missing(write, || self.why_missing(controller, file));
        }
        let text = errno_text(errno.raw_os_error());
        let why = self.why_refused(file, value, errno).map_or(String::new(), |why| format!(" ({why})"));
        let message = format!(
            "config.json: {pointer}: write {value:?} to {file} of cgroup {}: {text}{why}",
            self.path()
        );
        Error::new(Code::System, message).at(pointer).with_errno(errno.raw_os_error())
    }

    /// What the kernel's errno for a value leaves unsaid: ranges, and what else is in force.
    fn why_refused(&self, file: &str, value: &str, errno: Errno) -> Option<String> {
        match (file, errno) {
            ("cpu.weight", Errno::INVAL) if self.read("cpu.idle").ok().flatten()? == "1" => {
                Some("the cgroup is idle, and has no weight: take that away with it, by cpu.idle 0".into())
            }
            ("cpu.max", Errno::INVAL) => {
                let quota: u64 = value.split(' ').next()?.parse().ok()?;
                match self.read("cpu.max.burst").ok().flatten().and_then(|text| text.parse::<u64>().ok()) {
                    Some(burst) if burst > quota => Some(format!(
                        "the burst in force, {burst}, may not exceed the quota: give a smaller one with it"
                    )),
                    _ => Some("a period has 1000 to 1000000 microseconds, a quota at least 1000".into()),
                }
            }
            ("cpu.max.burst", Errno::INVAL) => Some("a burst may not exceed the quota".into()),
            ("cpu.weight" | "io.weight", Errno::RANGE | Errno::INVAL) => {
                Some("a weight is 1 to 10000".into())
            }
            ("pids.max", Errno::INVAL) => Some("more than the kernel can count to".into()),
            ("io.max", Errno::RANGE) => Some("a rate of 0 cannot be had".into()),
            _ => None,
        }
    }

    /// Why the cgroup has no file of `controller`: found by walking up to where the controller stops.
    fn why_missing(&self, controller: &str, file: &str) -> String {
        let offers = |dir: BorrowedFd<'_>| {
            read_value(dir, "cgroup.controllers")
                .is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
        };
        if controller == "cgroup" || offers(self.as_fd()) {
            return format!("this kernel has no {file}");
        }
        let mut dir = None;
        let mut above: Vec<_> = self.path().names().collect();
        while above.pop().is_some() {
            let parent = match &dir {
                None => open_parent(self),
                Some(dir) => open_parent(dir),
            };
            let Ok(parent) = parent else { break };
            if offers(parent.as_fd()) {
                if let Some(service) = not_delegated(self.path().names(), above.len()) {
                    return format!(
                        "controller {controller:?} is not delegated to this user's systemd ({service}): let root add it to the line Delegate= (such as `Delegate=cpu cpuset io memory pids`) below [Service] in /etc/systemd/system/user@.service.d/delegate.conf, run `systemctl daemon-reload`, and log in anew"
                    );
                }
                return format!(
                    "controller {controller:?} not available: cgroup /{} has it but does not pass it on to its children in cgroup.subtree_control (the kernel refuses that for a cgroup with processes of its own)",
                    above.join("/")
                );
            }
            dir = Some(parent);
        }
        let v1 = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        format!("controller {controller:?} not available: {}", remedy(controller, &v1))
    }
}

/// The limits that `apply` would find no file for, as far as it can be told while there is no cgroup yet: those of
/// controllers that `offered` lacks.
pub fn without_controller<'a>(offered: &str, writes: &'a [Write]) -> impl Iterator<Item = Error> + 'a {
    let v1 = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let offered: Vec<String> = offered.split_whitespace().map(str::to_string).collect();
    let lacks = move |write: &&Write| {
        !write.missing_ok
            && write.controller != "cgroup"
            && !offered.iter().any(|name| *name == write.controller)
    };
    writes.iter().filter(lacks).map(move |write| {
        let controller = &write.controller;
        missing(write, || format!("controller {controller:?} not available: {}", remedy(controller, &v1)))
    })
}

/// The controllers that a cgroup at `path` can have: those of the hierarchy, which rcrun passes on, or of a user those of what
/// is there above it.
pub fn offered(hierarchy: &Hierarchy, path: &CgroupPath, rootless: bool) -> Option<String> {
    let mut above = if rootless { path.relative() } else { "" };
    loop {
        let dir = open_cgroup(hierarchy, if above.is_empty() { "." } else { above });
        match dir.and_then(|dir| read_value(dir, "cgroup.controllers")) {
            Err(Errno::NOENT) if !above.is_empty() => {
                above = above.rsplit_once('/').map_or("", |(above, _)| above);
            }
            other => return other.ok(),
        }
    }
}

/// There is no file for a limit.
fn missing(write: &Write, why: impl FnOnce() -> String) -> Error {
    let Write { file, value, pointer, .. } = write;
    let unified = pointer.strip_prefix("/linux/resources/unified/");
    if unified.is_some() && !file.contains('.') {
        return Error::config(
            pointer,
            format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER"),
        );
    }
    let why = why();
    let message = match unified {
        Some(_) => format!("unified resource {file:?} can't be set: {why}"),
        None => format!("{file} can't be set to {value:?}: {why}"),
    };
    Error::new(Code::Host, format!("config.json: {pointer}: {message}")).at(pointer).with_errno(libc::ENOENT)
}

/// The service of a user's systemd in a cgroup's path, where the controller stops above it: after `offering` names.
fn not_delegated<'a>(names: impl Iterator<Item = &'a str>, offering: usize) -> Option<&'a str> {
    let service = |name: &&str| name.starts_with("user@") && name.ends_with(".service");
    names.skip(offering).find(service)
}

/// Why the whole hierarchy lacks `controller`, from /proc/cgroups (name, hierarchy, cgroups, enabled), and what to do.
fn remedy(controller: &str, proc_cgroups: &str) -> String {
    // v1's name for io. v1's cpuacct is part of cpu.
    let name = if controller == "io" { "blkio" } else { controller };
    let fields = proc_cgroups
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name));
    match fields.as_deref() {
        Some([_, _, _, "0"]) => {
            format!("the kernel command line disables it: take out cgroup_disable={name}")
        }
        Some([_, "0", ..]) => {
            "the cgroup v2 hierarchy that rcrun sees does not offer it: it is not delegated to this part of it".into()
        }
        Some(_) => format!(
            "it is bound to a cgroup v1 hierarchy on this machine: boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1={name}, or unmount the v1 hierarchy"
        ),
        None => "this kernel does not offer it, or not to this part of the hierarchy".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_a_users_systemd_has_not_is_told_from_one_that_it_does_not_pass_on() {
        let path = ["user.slice", "user-7.slice", "user@7.service", "app.slice", "web"];
        for (offering, expected) in
            [(0, Some("user@7.service")), (2, Some("user@7.service")), (3, None), (4, None)]
        {
            assert_eq!(not_delegated(path.into_iter(), offering), expected, "{offering}");
        }
    }

    #[test]
    fn a_missing_controller_comes_with_its_reason_and_remedy() {
        let proc_cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\nblkio\t7\t1\t1\nmemory\t0\t13\t0\npids\t0\t1\t1\n";
        for (controller, expected) in [
            ("cpuset", "cgroup_no_v1=cpuset"),
            ("io", "cgroup_no_v1=blkio"),
            ("memory", "cgroup_disable=memory"),
            ("pids", "not delegated"),
            ("misc", "does not offer it"),
        ] {
            let told = remedy(controller, proc_cgroups);
            assert!(told.contains(expected), "{controller}: {told}");
        }
    }
}
