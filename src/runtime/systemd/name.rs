//! The unit of a container and its cgroup, from `linux.cgroupsPath` and the container's id. Pure.

use std::path::Path;

use crate::cgroup::CgroupPath;
use crate::{Error, Result};

const POINTER: &str = "/linux/cgroupsPath";

/// Where runc and crun put a container whose config names no slice.
const SYSTEM_SLICE: &str = "system.slice";
const USER_SLICE: &str = "user.slice";

/// Where the config gives no name, units are called after the runtime, as with runc and crun.
const PREFIX: &str = "rcrun";

/// A scope, and the slice that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `libpod-ID.scope`.
    pub scope: String,
    /// `machine.slice`; the root slice is `-.slice`.
    pub slice: String,
    /// It is the user's manager that makes it.
    pub user: bool,
}

impl Name {
    /// The unit of container `id`. `cgroups_path` is `slice:prefix:name`, as engines write it for this driver.
    pub fn of(cgroups_path: Option<&Path>, id: &str, user: bool) -> Result<Name> {
        let path = cgroups_path.map(|path| {
            path.to_str().ok_or_else(|| Error::config(POINTER, format!("{path:?} is not UTF-8")))
        });
        Name::parse(path.transpose()?, id, user)
    }

    fn parse(cgroups_path: Option<&str>, id: &str, user: bool) -> Result<Name> {
        let default = if user { USER_SLICE } else { SYSTEM_SLICE };
        let (slice, prefix, name) = match cgroups_path.unwrap_or_default() {
            "" => ("", PREFIX, id),
            path => match path.split(':').collect::<Vec<_>>().as_slice() {
                [slice, prefix, name] => (*slice, *prefix, *name),
                // runc's words.
                _ => {
                    return Err(Error::config(
                        POINTER,
                        format!(
                            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead (an absolute or relative path is for the cgroupfs driver: leave --systemd-cgroup out)"
                        ),
                    ));
                }
            },
        };
        if name.ends_with(".slice") {
            return Err(Error::unsupported(
                POINTER,
                format!("{name:?} is a slice: a container is in a scope, and a slice can have no processes"),
            ));
        }
        let slice = match slice {
            "" => default,
            "-" => "-.slice",
            slice => slice,
        };
        let plain = if prefix.is_empty() { name.to_string() } else { format!("{prefix}-{name}") };
        let scope = format!("{}.scope", escape(&plain));
        if name.is_empty() || scope.len() > 255 || !scope.bytes().all(is_valid) {
            return Err(Error::config(POINTER, format!("{scope:?} is no name for a unit of systemd")));
        }
        expand(slice)?;
        Ok(Name { scope, slice: slice.to_string(), user })
    }

    /// The cgroup that the system's manager makes for it.
    pub fn cgroup(&self) -> Result<CgroupPath> {
        CgroupPath::parse(&format!("{}/{}", expand(&self.slice)?, on_cgroupfs(&self.scope)))
    }
}

/// systemd.unit(5).
fn is_valid(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
}

/// Ids may have a `+`, names of units not.
fn escape(name: &str) -> String {
    name.replace('+', "\\x2b")
}

/// `a-b.slice` is in `a.slice` (systemd.slice(5)): where it is below the root, which is the empty text.
fn expand(slice: &str) -> Result<String> {
    let invalid = || Error::config(POINTER, format!("invalid slice name: {slice:?}"));
    let Some(name) = slice.strip_suffix(".slice") else { return Err(invalid()) };
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() || !part.bytes().all(is_valid) {
            return Err(invalid());
        }
        prefix += part;
        path += &format!("/{}", on_cgroupfs(&format!("{prefix}.slice")));
        prefix += "-";
    }
    Ok(path)
}

/// The directory of a unit: one that could be taken for a file of the kernel's gets a `_` before it
/// (systemd's file-hierarchy interface "Control Groups vs. unit names").
fn on_cgroupfs(unit: &str) -> String {
    const CONTROLLERS: [&str; 9] =
        ["cgroup", "cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"];
    let first = unit.split('.').next().unwrap_or_default();
    let taken = unit.starts_with(['_', '.'])
        || CONTROLLERS.contains(&first)
        || matches!(unit, "notify_on_release" | "release_agent" | "tasks");
    if taken { format!("_{unit}") } else { unit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_engines_expect_them() {
        for (path, user, scope, cgroup) in [
            (None, false, "rcrun-web.scope", "/system.slice/rcrun-web.scope"),
            (Some(""), true, "rcrun-web.scope", "/user.slice/rcrun-web.scope"),
            (
                Some("machine.slice:libpod:0a1b"),
                false,
                "libpod-0a1b.scope",
                "/machine.slice/libpod-0a1b.scope",
            ),
            (Some("system.slice:docker:0a"), false, "docker-0a.scope", "/system.slice/docker-0a.scope"),
            (
                Some("kubepods-burstable-pod1_2.slice:cri-containerd:ff"),
                false,
                "cri-containerd-ff.scope",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-ff.scope",
            ),
            (Some(":crio:x"), false, "crio-x.scope", "/system.slice/crio-x.scope"),
            (Some(":crio:x"), true, "crio-x.scope", "/user.slice/crio-x.scope"),
            (Some("a.slice::x"), false, "x.scope", "/a.slice/x.scope"),
            (Some("-.slice:p:x"), false, "p-x.scope", "/p-x.scope"),
            (Some("-:p:x"), false, "p-x.scope", "/p-x.scope"),
            (Some("cpu.slice:p:a+b"), false, "p-a\\x2bb.scope", "/_cpu.slice/p-a\\x2bb.scope"),
            (Some("x.slice::memory"), false, "memory.scope", "/x.slice/_memory.scope"),
        ] {
            let name = Name::parse(path, "web", user).unwrap();
            assert_eq!(name.scope, scope, "{path:?}");
            assert_eq!(name.cgroup().unwrap().as_str(), cgroup, "{path:?}");
        }
    }

    #[test]
    fn what_is_no_unit_is_refused_with_a_reason() {
        let long = format!("a.slice:p:{}", "n".repeat(260));
        for (path, reason) in [
            ("/a/b", "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups"),
            ("a:b", "expected cgroupsPath"),
            ("a:b:c:d", "expected cgroupsPath"),
            ("a.slice:b:", "no name for a unit"),
            ("a.slice:b/c:d", "no name for a unit"),
            (&long, "no name for a unit"),
            ("a.slice:b:c.slice", "is a slice"),
            ("a:b:c", "invalid slice name: \"a\""),
            ("/a.slice:b:c", "invalid slice name"),
            (".slice:b:c", "invalid slice name"),
            ("a--b.slice:b:c", "invalid slice name"),
            ("-a.slice:b:c", "invalid slice name"),
            ("a-.slice:b:c", "invalid slice name"),
            ("a/../b.slice:b:c", "invalid slice name"),
        ] {
            let error = Name::parse(Some(path), "web", false).unwrap_err();
            assert!(error.to_string().contains(reason), "{path}: {error}");
            assert_eq!(error.pointer(), Some("/linux/cgroupsPath"));
        }
    }
}
