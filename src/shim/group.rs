//! Which shim a container gets: its own, or that of its pod. And where shims listen. Uses: nothing of this crate.

use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Annotations that name the group of a container, the first one that is there counts: all of a group are served by one
/// shim.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Where shims of containerd listen.
const SOCKETS: &str = "/run/containerd/s";

/// sun_path, with the null that ends it (unix(7)).
const SUN_PATH: usize = 108;

/// The group of a container: an annotation of its config.json, or else its own id.
pub fn of<'a>(annotations: &'a BTreeMap<String, String>, id: &'a str) -> &'a str {
    GROUPS.iter().find_map(|name| annotations.get(*name)).map_or(id, String::as_str)
}

/// Where the shim of a group listens: whoever starts a container of that group finds it.
pub fn socket(folder: Option<&str>, containerd: &str, namespace: &str, group: &str) -> PathBuf {
    let of = Path::new(containerd).join(namespace).join(group);
    let hash = Sha256::digest(of.as_os_str().as_encoded_bytes());
    let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(folder.filter(|f| !f.is_empty()).unwrap_or(SOCKETS)).join(name)
}

/// A socket that somebody listens on, or not.
pub enum Taken {
    /// Nobody did.
    Ours(OwnedFd),
    /// A shim of this group does.
    Others,
}

/// Listens at `path`; only root may connect. What a shim that was killed has left there is removed.
pub fn listen(path: &Path) -> Result<Taken> {
    if path.as_os_str().len() >= SUN_PATH {
        return Err(Error::new(
            Code::Usage,
            format!("{}: a socket's path has at most {} bytes", path.display(), SUN_PATH - 1),
        ));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let what = || format!("{}", folder.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(folder)
        .call(format!("mkdir {}", what()))?;
    // Between bind and listen a socket looks deserted, and of two that find a deserted one only one may remove it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::open(folder, flags, Mode::empty()).call(format!("open {}", what()))?;
    let exclusive = rustix::fs::FlockOperation::LockExclusive;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, exclusive)).call(format!("flock {}", what()))?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .call("socket")?;
    // What the file gets at bind (unix(7)): there is no moment at which others may connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).call("fchmod of a socket")?;
    let address = SocketAddrUnix::new(path).call(format!("address {}", path.display()))?;
    loop {
        match rustix::net::bind(&socket, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::ADDRINUSE) if is_served(path) => return Ok(Taken::Others),
            Err(rustix::io::Errno::ADDRINUSE) => {
                std::fs::remove_file(path).call(format!("unlink {}", path.display()))?;
            }
            Err(e) => return Err(e).call(format!("bind {}", path.display())),
        }
    }
    rustix::net::listen(&socket, 128).call(format!("listen on {}", path.display()))?;
    Ok(Taken::Ours(socket))
}

/// Whether somebody listens at `path`.
pub fn is_served(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn containers_of_a_pod_have_one_group() {
        let annotations = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>()
        };
        for (pairs, group) in [
            (&[][..], "own"),
            (&[("io.kubernetes.cri.sandbox-id", "pod")][..], "pod"),
            (&[("io.kubernetes.cri.sandbox-id", "pod"), ("io.containerd.runc.v2.group", "g")][..], "g"),
            (&[("else", "x")][..], "own"),
        ] {
            assert_eq!(of(&annotations(pairs), "own"), group, "{pairs:?}");
        }
    }

    #[test]
    fn a_socket_is_named_by_a_hash_of_containerd_namespace_and_group() {
        let path = socket(None, "/run/containerd/containerd.sock", "default", "web");
        // printf /run/containerd/containerd.sock/default/web | sha256sum
        let hash = "2cde4450fa38c74f53603e01d2afd903b315a27a596f12a151414cd59897d883";
        assert_eq!(path, Path::new("/run/containerd/s").join(hash));
        assert_ne!(path, socket(None, "/run/containerd/containerd.sock", "default", "other"));
        assert!(socket(Some("/x"), "a", "b", "c").starts_with("/x"));
    }

    #[test]
    fn a_socket_is_roots_alone_and_a_deserted_one_is_taken() {
        let folder = std::env::temp_dir().join(format!("rcrun-shim-group-{}", std::process::id()));
        let path = folder.join("s");
        let Taken::Ours(first) = listen(&path).unwrap() else { panic!("nobody was there") };
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(listen(&path).unwrap(), Taken::Others));
        drop(first);
        assert!(matches!(listen(&path).unwrap(), Taken::Ours(_)));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
