//! Which sysctls a container may set, and the file each one is. Pure. Uses: nothing.

use std::fmt;

/// The namespaces that a container has for itself: new ones, or joined by path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// An ipc namespace.
    pub ipc: bool,
    /// A network namespace.
    pub network: bool,
    /// A uts namespace.
    pub uts: bool,
    /// A user namespace.
    pub user: bool,
}

/// Why a sysctl is refused, in runc's words, which administrators search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The file below /proc/sys that `name` means. As sysctl(8) has it, the separator that comes first is the
/// separator, and the other one stands for itself: `net.ipv4.conf.eno2/100.rp_filter` and
/// `net/ipv4/conf/eno2.100/rp_filter` are the same file.
pub fn file(name: &str) -> Result<String, Refused> {
    let dots = name.find(['.', '/']).is_none_or(|first| name.as_bytes()[first] == b'.');
    let path: String = if dots {
        let swap = |c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        };
        name.chars().map(swap).collect()
    } else {
        name.to_string()
    };
    // `net/../kernel/core_pattern` would begin as it must and end elsewhere.
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() < 256;
    if path.len() >= 4096 || !path.split('/').all(plain) {
        return Err(Refused("is not the name of a sysctl".into()));
    }
    Ok(path)
}

/// The file of `name`, if it belongs to one of the namespaces that the container owns.
pub fn allowed(name: &str, own: Own) -> Result<String, Refused> {
    let path = file(name)?;
    let tree = path.split('/').next().unwrap_or_default();
    let refuse = |why: &str| Err(Refused(why.to_string()));
    if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        return if own.ipc { Ok(path) } else { refuse("is not allowed in the hosts ipc namespace") };
    }
    match tree {
        // The folder itself.
        "net" | "user" if path == tree => return refuse("is not the name of a sysctl"),
        "net" if own.network => return Ok(path),
        "net" => return refuse("is not allowed in the host network namespace"),
        "user" if own.user => return Ok(path),
        _ => {}
    }
    match path.as_str() {
        "kernel/domainname" if own.uts => Ok(path),
        // Two fields for one thing: which one wins would depend on the order of steps.
        "kernel/hostname" if own.uts => {
            refuse("is not allowed as it conflicts with the OCI \"hostname\" field")
        }
        _ => refuse("is not in a separate kernel namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Own = Own { ipc: true, network: true, uts: true, user: true };

    #[test]
    fn both_separators_name_the_same_file() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ] {
            assert_eq!(file(name).as_deref(), Ok(path), "{name}");
        }
    }

    #[test]
    fn a_folder_of_sysctls_is_none() {
        for name in ["net", "user"] {
            assert_eq!(allowed(name, ALL).unwrap_err().to_string(), "is not the name of a sysctl", "{name}");
        }
    }

    #[test]
    fn a_name_that_leaves_its_folder_is_refused() {
        for name in [
            "",
            ".",
            "/",
            "net/../kernel/core_pattern",
            "net/./ipv4",
            "net//ipv4",
            "net.",
            "/net/ipv4",
            "net.//.x",
        ] {
            assert!(file(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_sysctl_needs_its_namespace() {
        let none = Own::default();
        for (name, own) in [
            ("kernel.msgmax", Own { ipc: true, ..none }),
            ("fs.mqueue.msg_max", Own { ipc: true, ..none }),
            ("net.ipv4.ip_forward", Own { network: true, ..none }),
            ("kernel.domainname", Own { uts: true, ..none }),
            ("user.max_user_namespaces", Own { user: true, ..none }),
        ] {
            assert!(allowed(name, own).is_ok(), "{name} with its namespace");
            assert!(allowed(name, none).is_err(), "{name} without");
        }
    }

    #[test]
    fn what_is_not_namespaced_is_never_allowed() {
        for name in [
            "kernel.core_pattern",
            "kernel.hostname",
            "vm.swappiness",
            "fs.file-max",
            "fs.mqueue",
            "kernel.shm",
            "netfoo.x",
        ] {
            assert!(allowed(name, ALL).is_err(), "{name}");
        }
    }
}
