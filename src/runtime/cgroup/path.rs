//! Where a container's cgroup is, from `linux.cgroupsPath`, the container's id and rcrun's own cgroup. Pure.

use std::fmt;
use std::path::Path;

use crate::{Error, Result};

const POINTER: &str = "/linux/cgroupsPath";

/// The kernel's NAME_MAX, which kernfs enforces for a cgroup's name.
const NAME_MAX: usize = 255;

/// Leaves room below PATH_MAX for the mount point and a control file's name.
const LENGTH_MAX: usize = 3840;

/// A cgroup's place below the mount of cgroup2: `/` and names, never `.`, `..`, an empty name, or the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Parses a path that is absolute within the hierarchy, such as one kept in a container's state.
    pub fn parse(path: &str) -> Result<CgroupPath> {
        if !path.starts_with('/') {
            return Err(Error::config(POINTER, format!("cgroup path {path:?} does not begin with /")));
        }
        join("", path)
    }

    /// The cgroup of container `id`: `cgroups_path` itself if it is absolute; if it is relative, below the parent
    /// of rcrun's own cgroup, and if it is absent or empty, `id` there. The own cgroup cannot be it: it has
    /// processes, and the kernel does not let a cgroup with processes pass controllers on (runc's rule).
    ///
    /// `slice:prefix:name` means something to the systemd driver only; here it is a relative path, as with runc.
    /// `own` is asked only where it matters: it costs reading a file.
    pub fn for_container(
        cgroups_path: Option<&Path>,
        id: &str,
        own: impl FnOnce() -> Result<String>,
    ) -> Result<CgroupPath> {
        let wanted = match cgroups_path {
            None => id,
            Some(path) => {
                let path =
                    path.to_str().ok_or_else(|| Error::config(POINTER, format!("{path:?} is not UTF-8")))?;
                if path.is_empty() { id } else { path }
            }
        };
        if wanted.starts_with('/') {
            return join("", wanted);
        }
        let own = own()?;
        if own.split('/').any(|name| name == "..") {
            return Err(Error::config(
                POINTER,
                format!(
                    "{wanted:?} is relative to rcrun's own cgroup, and that is outside of its cgroup namespace ({own:?}): give an absolute path"
                ),
            ));
        }
        let parent = own.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
        join(parent, wanted)
    }

    /// The path, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the hierarchy's root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.relative().split('/')
    }

    /// The parent relative to the mount (empty: the mount itself), and the last name.
    pub fn split(&self) -> (&str, &str) {
        let (parent, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        (parent.trim_start_matches('/'), name)
    }

    /// The path relative to the mount.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `path` below `parent`, with empty names and `.` dropped and everything that could lead elsewhere refused.
fn join(parent: &str, path: &str) -> Result<CgroupPath> {
    let refuse = |why: String| Err(Error::config(POINTER, why));
    if parent.len() + path.len() > LENGTH_MAX {
        return refuse(format!(
            "the cgroup path is {} bytes long, the limit is {LENGTH_MAX}",
            parent.len() + path.len()
        ));
    }
    let mut clean = String::with_capacity(parent.len() + path.len() + 1);
    for name in parent.split('/').chain(path.split('/')) {
        match name {
            "" | "." => continue,
            ".." => return refuse(format!("cgroup path {path:?} contains \"..\"")),
            _ if name.len() > NAME_MAX => {
                return refuse(format!(
                    "a name in the cgroup path is {} bytes long, the limit is {NAME_MAX}",
                    name.len()
                ));
            }
            // The kernel refuses a newline itself (it would make /proc/PID/cgroup ambiguous), but with EINVAL only.
            _ if name.contains(['\0', '\n']) => {
                return refuse(format!("cgroup path {path:?} contains a NUL or newline"));
            }
            _ => {
                clean.push('/');
                clean.push_str(name);
            }
        }
    }
    if clean.is_empty() || clean == parent {
        return refuse(format!("cgroup path {path:?} names no cgroup of the container's own"));
    }
    Ok(CgroupPath(clean))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(cgroups_path: Option<&str>, own: &str) -> Result<String> {
        CgroupPath::for_container(cgroups_path.map(Path::new), "web", || Ok(own.to_string()))
            .map(|path| path.as_str().to_string())
    }

    #[test]
    fn a_cgroup_lies_where_runc_would_put_it() {
        for (cgroups_path, own, expected) in [
            (Some("/docker/0a1b"), "/x/y", "/docker/0a1b"),
            (Some("//docker/./0a1b/"), "/x/y", "/docker/0a1b"),
            (Some("pods/web"), "/", "/pods/web"),
            (Some("pods/web"), "/session.scope", "/pods/web"),
            (Some("pods/web"), "/user.slice/session-1.scope", "/user.slice/pods/web"),
            (None, "/user.slice/session-1.scope", "/user.slice/web"),
            (Some(""), "/user.slice/session-1.scope/", "/user.slice/web"),
            (None, "/", "/web"),
            (Some("system.slice:docker:0a1b"), "/a/b", "/a/system.slice:docker:0a1b"),
            (Some("..."), "/", "/..."),
        ] {
            assert_eq!(place(cgroups_path, own).unwrap(), expected, "{cgroups_path:?} from {own}");
        }
    }

    #[test]
    fn a_path_that_could_lead_elsewhere_is_refused_with_a_reason() {
        let long_name = format!("/{}", "n".repeat(256));
        let long_path = "/name".repeat(1000);
        for (cgroups_path, own, reason) in [
            ("../host", "/a/b", "contains \"..\""),
            ("/a/../../b", "/", "contains \"..\""),
            ("/", "/", "names no cgroup"),
            ("//.//", "/", "names no cgroup"),
            (".", "/a/b", "names no cgroup"),
            ("/a\0b", "/", "NUL or newline"),
            ("/a\nb", "/", "NUL or newline"),
            (&long_name, "/", "256 bytes long"),
            (&long_path, "/", "5000 bytes long"),
            ("web", "/../other", "outside of its cgroup namespace"),
        ] {
            let error = place(Some(cgroups_path), own).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(error.pointer(), Some("/linux/cgroupsPath"));
        }
    }

    #[test]
    fn the_own_cgroup_is_not_asked_for_where_the_path_is_absolute() {
        let path = CgroupPath::for_container(Some(Path::new("/a/b")), "web", || panic!("asked")).unwrap();
        assert_eq!(path.split(), ("a", "b"));
        assert_eq!(path.relative(), "a/b");
        assert_eq!(path.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(CgroupPath::parse("/a").unwrap().split(), ("", "a"));
    }

    #[test]
    fn a_stored_path_must_be_absolute() {
        assert!(CgroupPath::parse("a/b").is_err());
        assert!(CgroupPath::parse("/a/..").is_err());
    }
}
