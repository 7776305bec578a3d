//! Restored processes held against config.json before they run: images come from anywhere, and what they say of privileges
//! is nobody's word.

use super::external::Inside;
use crate::cgroup::{CgroupPath, line_of_v2};
use crate::compile;
use crate::error::CallContext;
use crate::spec::{Namespace, Spec};
use crate::{Code, Error, Result};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// The names below /proc/PID/ns.
const NAMESPACES: [(LinuxNamespaceType, &str, &str); 7] = [
    (LinuxNamespaceType::Mount, "mnt", "mount"),
    (LinuxNamespaceType::Pid, "pid", "pid"),
    (LinuxNamespaceType::Network, "net", "network"),
    (LinuxNamespaceType::Ipc, "ipc", "ipc"),
    (LinuxNamespaceType::Uts, "uts", "uts"),
    (LinuxNamespaceType::User, "user", "user"),
    (LinuxNamespaceType::Cgroup, "cgroup", "cgroup"),
];

/// Fails where a process of the tree below `init` is somewhere else than config.json says. They have no privileges yet.
pub(super) fn places(init: i32, inside: &Inside, spec: &Spec, cgroup: Option<&CgroupPath>) -> Result<()> {
    for pid in tree(init)? {
        namespaces(pid, spec)?;
        if !may(spec, CAP_SYS_ADMIN) {
            mounts(pid, init, inside, spec)?;
        }
        if let Some(cgroup) = cgroup {
            place(pid, cgroup)?;
        }
    }
    maps(init, spec)
}

/// Only mounts of the one namespace that is held against config.json, from its root on.
fn mounts(pid: i32, init: i32, inside: &Inside, spec: &Spec) -> Result<()> {
    if inode(&format!("/proc/{pid}/ns/mnt"))? != inode(&format!("/proc/{init}/ns/mnt"))? {
        return Err(more("a process has a mount namespace of its own"));
    }
    if may(spec, CAP_SYS_CHROOT) {
        return Ok(());
    }
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path.as_str(), flags, Mode::empty()).call(format!("open {path}"))?;
    match inside.begins_at(&root) {
        true => Ok(()),
        false => Err(more("a process has a root of its own")),
    }
}

/// Fails where a process of the tree below `init` may do more than config.json says. They stand still.
pub(super) fn privileges(init: i32, spec: &Spec) -> Result<()> {
    for pid in tree(init)? {
        for thread in threads(pid)? {
            credentials(pid, thread, spec)?;
        }
    }
    Ok(())
}

/// Who has it may mount for himself.
pub(super) const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_CHROOT: u64 = 1 << 18;

/// config.json gives all of `capabilities`.
pub(super) fn may(spec: &Spec, capabilities: u64) -> bool {
    let given = spec.process().as_ref().map_or(0, compile::given_capabilities);
    given & capabilities == capabilities
}

pub(super) fn more(what: impl std::fmt::Display) -> Error {
    Error::new(
        Code::Config,
        format!(
            "the images give more than config.json: {what}: restore what was checkpointed with this config.json"
        ),
    )
}

/// Each process with all below it. Nothing is born or ends meanwhile.
fn tree(init: i32) -> Result<Vec<i32>> {
    let mut all = vec![init];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        for thread in threads(pid)? {
            let path = format!("/proc/{pid}/task/{thread}/children");
            let text = std::fs::read_to_string(&path).call(format!("read {path}"))?;
            all.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<i32>().ok()));
        }
    }
    Ok(all)
}

fn threads(pid: i32) -> Result<Vec<i32>> {
    let path = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&path).call(format!("open {path}"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// What /proc/PID/status says after `name:`.
fn word<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn credentials(pid: i32, thread: i32, spec: &Spec) -> Result<()> {
    let Some(process) = spec.process() else { return Ok(()) };
    let path = format!("/proc/{pid}/task/{thread}/status");
    let status = std::fs::read_to_string(&path).call(format!("read {path}"))?;
    let given = compile::given_capabilities(process);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let held = word(&status, set).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let held = held.ok_or_else(|| Error::new(Code::System, format!("{path} has no {set}")))?;
        if let Some(cap) = compile::CAPABILITIES.iter().enumerate().find(|(n, _)| held & !given & 1 << n != 0)
        {
            return Err(more(format!(
                "a process has CAP_{}, which /process/capabilities does not name",
                cap.1
            )));
        }
    }
    if process.no_new_privileges() == Some(true) && word(&status, "NoNewPrivs") == Some("0") {
        return Err(more("a process can gain privileges, against /process/noNewPrivileges"));
    }
    let filter = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
    if filter && word(&status, "Seccomp") != Some("2") {
        return Err(more("a process has no filter of system calls, against /linux/seccomp"));
    }
    Ok(())
}

fn inode(path: &str) -> Result<(u64, u64)> {
    let stat = rustix::fs::stat(path).call(format!("stat {path}"))?;
    Ok((stat.st_dev, stat.st_ino))
}

fn namespaces(pid: i32, spec: &Spec) -> Result<()> {
    for (kind, file, name) in NAMESPACES {
        let its = inode(&format!("/proc/{pid}/ns/{file}"))?;
        let own = inode(&format!("/proc/self/ns/{file}"))?;
        match spec.namespace(kind) {
            Namespace::New if its == own => {
                return Err(more(format!("a process is in the machine's own {name} namespace")));
            }
            Namespace::Join(path) if its != inode(&path.to_string_lossy())? => {
                return Err(more(format!(
                    "the {name} namespace of a process is not that of {}",
                    path.display()
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn place(pid: i32, cgroup: &CgroupPath) -> Result<()> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).call(format!("read {path}"))?;
    let its = line_of_v2(&text).unwrap_or_default();
    match Path::new(its).starts_with(cgroup.as_str()) {
        true => Ok(()),
        false => Err(more(format!("a process is in cgroup {its}, and not in {cgroup}"))),
    }
}

fn maps(init: i32, spec: &Spec) -> Result<()> {
    if spec.namespace(LinuxNamespaceType::User) != Namespace::New {
        return Ok(());
    }
    let linux = spec.linux().as_ref();
    for (file, field, wanted) in [
        ("uid_map", "uidMappings", linux.and_then(|l| l.uid_mappings().as_ref())),
        ("gid_map", "gidMappings", linux.and_then(|l| l.gid_mappings().as_ref())),
    ] {
        let path = format!("/proc/{init}/{file}");
        let text = std::fs::read_to_string(&path).call(format!("read {path}"))?;
        let mut its: Vec<Vec<u32>> = text
            .lines()
            .map(|line| line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect())
            .collect();
        let mut wanted: Vec<Vec<u32>> =
            wanted.into_iter().flatten().map(|m| vec![m.container_id(), m.host_id(), m.size()]).collect();
        its.sort();
        wanted.sort();
        if its != wanted {
            return Err(more(format!("its user namespace has other ids than /linux/{field}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_status_file_is_that_of_its_line() {
        let status =
            "Name:\tsh\nCapInh:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(word(status, "Seccomp"), Some("2"));
        assert_eq!(word(status, "CapInh"), Some("0000000000000000"));
        assert_eq!(word(status, "Cap"), None);
    }

    #[test]
    fn the_tree_of_a_process_has_its_children() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let found = tree(std::process::id() as i32).unwrap();
        let there = found.contains(&(child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(there, "{found:?}");
    }
}
