//! cgroups: where, with which controllers, and what is delegated.

use super::{Finding, told, trial};
use crate::cgroup::{DeviceProgram, Hierarchy, Place, Policy, place};
use crate::host::Caller;
use crate::sys::probe;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Those that config.json and engines set limits of.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

pub(super) fn examine(caller: &Caller) -> Vec<Finding> {
    let root = !caller.is_rootless();
    let hierarchy = Hierarchy::find();
    let mode = trial(
        "cgroups",
        "hierarchy",
        root,
        "containers have cgroups",
        "containers have no cgroups and no limits",
        "boot with systemd.unified_cgroup_hierarchy=1",
    );
    let hierarchy = match hierarchy {
        Ok(hierarchy) => hierarchy,
        Err(_) => return vec![mode.finding(Err("no cgroup v2 is mounted".into()))],
    };
    let pure = hierarchy.path() == Path::new("/sys/fs/cgroup");
    let how = if pure { "cgroup v2" } else { "hybrid: cgroup v2 beside v1" };
    let mut findings = vec![mode.finding(Ok(format!("{how}, on {}", hierarchy.path().display())))];

    let offered = controllers(hierarchy.path());
    let lacking = lacking(&offered);
    findings.push(
        trial(
            "cgroups",
            "controllers",
            false,
            "each limit can be set",
            "a limit of a controller that is not there is refused, by name",
            "v1 has them: boot with systemd.unified_cgroup_hierarchy=1, or cgroup_no_v1=all; or this kernel is built without them",
        )
        .finding(list(&offered, &lacking)),
    );
    findings.push(match root {
        true => devices(),
        false => delegated(&hierarchy),
    });
    if !caller.user_namespace && !root {
        findings.extend(of_users_systemd(&hierarchy.path().join(service(caller.uid))));
    }
    findings.push(born_inside(&hierarchy));
    findings.push(kill(&hierarchy));
    findings
}

fn controllers(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_string).collect()
}

fn lacking(offered: &[String]) -> Vec<&'static str> {
    CONTROLLERS.into_iter().filter(|name| !offered.iter().any(|there| there == name)).collect()
}

fn list(offered: &[String], lacking: &[&str]) -> Result<String, String> {
    let there = if offered.is_empty() { "none".to_string() } else { offered.join(" ") };
    match lacking {
        [] => Ok(there),
        _ => Err(format!("{there}; without {}", lacking.join(" "))),
    }
}

/// What the cgroup above the container's would give it.
fn delegated(hierarchy: &Hierarchy) -> Finding {
    let trial = trial(
        "cgroups",
        "delegation",
        false,
        "a user's containers have cgroups and limits",
        "a user's containers have no cgroup, or lack limits: one that is asked for is refused",
        "call rcrun with --systemd-cgroup, or by `systemd-run --user --scope --property=Delegate=yes`; for more controllers, let root write [Service] and Delegate=cpu cpuset io memory pids to /etc/systemd/system/user@.service.d/delegate.conf",
    );
    let found =
        place(hierarchy, None, "rcrun-doctor").map_err(|e| e.to_string()).and_then(|place| match place {
            Place::Nowhere(why) => Err(why),
            Place::In(path) => {
                let (above, _) = path.split();
                let offered = controllers(&hierarchy.path().join(above));
                list(&offered, &lacking(&offered)).map(|there| format!("{there}, below /{above}"))
            }
        });
    trial.finding(found)
}

/// The cgroup that a user's systemd has (user@.service).
fn service(uid: u32) -> PathBuf {
    format!("user.slice/user-{uid}.slice/user@{uid}.service").into()
}

/// What scopes of the user's own systemd may have; None where he has none.
fn of_users_systemd(folder: &Path) -> Option<Finding> {
    let offered = folder.is_dir().then(|| controllers(folder))?;
    let trial = trial(
        "cgroups",
        "user's systemd",
        false,
        "with --systemd-cgroup each limit can be set",
        "with --systemd-cgroup a limit of a controller that it has not is refused, by name",
        "let root write [Service] and Delegate=cpu cpuset io memory pids to /etc/systemd/system/user@.service.d/delegate.conf, run `systemctl daemon-reload`, and log in anew",
    );
    Some(trial.finding(list(&offered, &lacking(&offered))))
}

fn devices() -> Finding {
    let rules = serde_json::from_str("[{\"allow\":false,\"access\":\"rwm\"}]").unwrap_or_default();
    let rules: Vec<oci_spec::runtime::LinuxDeviceCgroup> = rules;
    let found = Policy::new(&rules, &[]).and_then(|policy| DeviceProgram::load(&policy));
    trial(
        "cgroups",
        "device programs (bpf)",
        true,
        "device rules are enforced",
        "a container with device rules cannot be made",
        "boot a kernel with CONFIG_CGROUP_BPF, and run rcrun with CAP_SYS_ADMIN or CAP_BPF and CAP_NET_ADMIN",
    )
    .finding(found.map(|_| "works".into()).map_err(|e| e.to_string()))
}

fn own(hierarchy: &Hierarchy) -> io::Result<(PathBuf, OwnedFd)> {
    let own = hierarchy.own_path().map_err(|e| io::Error::other(e.to_string()))?;
    let folder = hierarchy.path().join(own.trim_start_matches('/'));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&folder, flags, Mode::empty())?;
    Ok((folder, opened))
}

/// In rcrun's own cgroup: the child is where it would be anyway.
fn born_inside(hierarchy: &Hierarchy) -> Finding {
    let tried = own(hierarchy).and_then(|(_, folder)| probe::clone3(Some(folder.as_fd())));
    let found = match tried {
        Ok(()) => Ok("works".to_string()),
        // The kernel knows it: it has looked whether this user may.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            Ok("is there; not for rcrun's own cgroup".into())
        }
        Err(error) => Err(told(&error)),
    };
    trial(
        "cgroups",
        "CLONE_INTO_CGROUP",
        true,
        "containers are born in their cgroup",
        "no container can have a cgroup",
        "boot Linux 5.7 or later; in a container, its seccomp filter must allow clone3",
    )
    .finding(found)
}

fn kill(hierarchy: &Hierarchy) -> Finding {
    // The root of the hierarchy has no such file.
    let below = fs::read_dir(hierarchy.path()).into_iter().flatten().filter_map(|e| e.ok()).map(|e| e.path());
    let mut folders =
        own(hierarchy).ok().map(|(folder, _)| folder).into_iter().chain(below.filter(|path| path.is_dir()));
    let found = match folders.find(|folder| folder.join("cgroup.kill").exists()) {
        Some(_) => Ok("is there".to_string()),
        None => Err("no cgroup has it".to_string()),
    };
    trial(
        "cgroups",
        "cgroup.kill",
        false,
        "all processes of a container are killed at once",
        "not seen: where there is no cgroup but the root, it cannot be (Linux 5.14 has it)",
        "",
    )
    .finding(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_delegated_to_a_users_systemd_is_told_with_the_file_that_delegates_more() {
        let scratch = crate::scratch::Folder::new("doctor-delegated");
        assert_eq!(service(7), Path::new("user.slice/user-7.slice/user@7.service"));
        assert_eq!(of_users_systemd(&scratch.path().join(service(7))), None);
        for (controllers, found, remedied) in [
            ("cpu memory pids\n", "cpu memory pids; without cpuset io", true),
            ("cpuset cpu io memory pids\n", "cpuset cpu io memory pids", false),
        ] {
            fs::write(scratch.path().join("cgroup.controllers"), controllers).unwrap();
            let finding = of_users_systemd(scratch.path()).unwrap();
            assert_eq!(finding.found, found);
            let told = finding.remedy.is_some_and(|text| text.contains("user@.service.d/delegate.conf"));
            assert_eq!(told, remedied, "{found}");
        }
    }

    #[test]
    fn controllers_that_lack_are_named() {
        let offered = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let told = |text: &str| list(&offered(text), &lacking(&offered(text)));
        assert_eq!(told("cpuset cpu io memory hugetlb pids"), Ok("cpuset cpu io memory hugetlb pids".into()));
        assert_eq!(told("cpu memory pids"), Err("cpu memory pids; without cpuset io".into()));
        assert_eq!(told(""), Err("none; without cpu cpuset io memory pids".into()));
    }
}
