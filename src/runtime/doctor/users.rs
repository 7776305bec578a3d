//! User namespaces, ranges of ids, and the programs and sockets of others that a user or an engine leans on.

use super::{Finding, program, told, trial};
use crate::host::Caller;
use crate::subids::ranges;
use crate::sys::probe;
use crate::systemd;
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub(super) fn examine(caller: &Caller) -> Vec<Finding> {
    let user = caller.is_rootless();
    let mut findings = vec![namespaces(user)];
    if user {
        let ranges = ["/etc/subuid", "/etc/subgid"].map(|file| fs::read_to_string(file).unwrap_or_default());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        findings.push(
            trial(
                "users",
                "ranges of ids",
                false,
                "containers have many users",
                "a container has one user, root, which is the caller: images with other users need more",
                "let root call `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`",
            )
            .finding(own_ranges(&ranges, &passwd, caller.uid)),
        );
        findings.push(
            trial(
                "users",
                "newuidmap, newgidmap",
                false,
                "ranges can be mapped",
                "no range can be mapped",
                "install them set-uid root (on Debian: apt-get install uidmap)",
            )
            .finding(tools()),
        );
    }
    findings.push(bus(caller));
    findings.push(
        trial(
            "programs",
            "criu",
            false,
            "root can checkpoint and restore containers",
            "there is no checkpoint and no restore",
            "install it (on Debian: apt-get install criu)",
        )
        .finding(program("criu").map(|path| path.display().to_string()).ok_or_else(|| "not in PATH".into())),
    );
    findings
}

/// A new one, and in it what takes a capability: AppArmor may give the namespace and keep the capabilities.
fn namespaces(needed: bool) -> Finding {
    let tried = probe::in_child(|| {
        probe::unshare(libc::CLONE_NEWUSER)?;
        probe::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUTS)
    });
    let found = tried.map(|()| "works".to_string()).map_err(|error| {
        let setting = [
            ("user/max_user_namespaces", "0"),
            ("kernel/unprivileged_userns_clone", "0"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ]
        .into_iter()
        .find(|(name, value)| {
            fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == *value)
        });
        match setting {
            Some((name, value)) => format!("{}: {} is {value}", told(&error), name.replace('/', ".")),
            None => told(&error),
        }
    });
    trial(
        "users",
        "user namespaces",
        needed,
        "containers may have users of their own",
        "a container with a user namespace cannot be made, and no container without root",
        "sysctl user.max_user_namespaces=10000, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for rcrun with `userns,`",
    )
    .finding(found)
}

/// How many uids and gids the files give to `uid`, by number or name.
fn own_ranges(files: &[String; 2], passwd: &str, uid: u32) -> Result<String, String> {
    let count =
        |text: &str| -> u64 { ranges(text, passwd, uid).iter().map(|(_, ids)| u64::from(*ids)).sum() };
    match [count(&files[0]), count(&files[1])] {
        [0, 0] => Err("/etc/subuid and /etc/subgid give none to this user".into()),
        [0, _] => Err("/etc/subuid gives none to this user".into()),
        [_, 0] => Err("/etc/subgid gives none to this user".into()),
        [uids, gids] => Ok(format!("{uids} uids, {gids} gids")),
    }
}

fn tools() -> Result<String, String> {
    const SET_UID: u32 = 0o4000;
    let mut found = Vec::new();
    for name in ["newuidmap", "newgidmap"] {
        let path = program(name).ok_or_else(|| format!("{name} is not in PATH"))?;
        let mode = path.metadata().map_or(0, |data| data.permissions().mode());
        // Or a capability of the file, which another distribution gives it.
        if mode & SET_UID == 0 && !has_capability(&path) {
            return Err(format!("{} has neither the set-uid bit nor a capability", path.display()));
        }
        found.push(path.display().to_string());
    }
    Ok(found.join(", "))
}

fn has_capability(path: &std::path::Path) -> bool {
    rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64][..]).is_ok()
}

fn bus(caller: &Caller) -> Finding {
    let found = systemd::answers().map_err(|error| error.to_string());
    trial(
        "programs",
        "systemd",
        false,
        "with --systemd-cgroup it makes a container's cgroup, a scope, and knows its limits",
        "--systemd-cgroup cannot be had; without it rcrun makes cgroups itself, where it may",
        if caller.is_rootless() {
            "a user needs a session, or `loginctl enable-linger`; on Debian the package dbus-user-session too"
        } else {
            ""
        },
    )
    .finding(found.map(|path| format!("answers on {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:7:7::/:/bin/sh\n";
        let files = |uids: &str, gids: &str| [uids.to_string(), gids.to_string()];
        for (uids, gids, expected) in [
            ("ann:100000:65536\n", "7:100000:10\nann:9:1\n", Ok("65536 uids, 11 gids")),
            ("anne:100000:65536\n", "", Err("/etc/subuid and /etc/subgid give none to this user")),
            ("ann:1:x\n", "ann:1:5\n", Err("/etc/subuid gives none to this user")),
            ("7:1:5\n", "", Err("/etc/subgid gives none to this user")),
        ] {
            let found = own_ranges(&files(uids, gids), passwd, 7);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{uids} {gids}");
        }
    }
}
