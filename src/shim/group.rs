//! Which shim a container gets: its own, or that of its pod. And where shims listen. Uses: nothing of this crate.

use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
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
    Ours(OwnedFd, Place),
    /// A shim of this group does.
    Others,
}

/// The file of a socket of our own.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    /// Device and inode. No other file gets the number while the socket is open.
    file: (u64, u64),
}

impl Place {
    /// Takes the socket's name away, unless it is another's by now: from here on nobody who starts a container of the group
    /// is told to come to us.
    pub fn leave(&self) -> Result<()> {
        // Without the folder there is no name either, and no lock to be had.
        if matches!(file_of(&self.path), Err(Errno::NOENT)) {
            return Ok(());
        }
        let _lock = lock(&self.path)?;
        match file_of(&self.path) {
            Ok(file) if file == self.file => unlink(&self.path),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e).call(format!("stat {}", self.path.display())),
        }
    }
}

/// The folder of a socket for ourselves: between bind and listen a socket looks deserted, and of two that find a deserted
/// one only one may remove it. Whoever binds or unlinks there holds this.
fn lock(path: &Path) -> Result<OwnedFd> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::open(folder, flags, Mode::empty()).call(format!("open {}", folder.display()))?;
    let exclusive = rustix::fs::FlockOperation::LockExclusive;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, exclusive))
        .call(format!("flock {}", folder.display()))?;
    Ok(lock)
}

fn file_of(path: &Path) -> rustix::io::Result<(u64, u64)> {
    rustix::fs::lstat(path).map(|found| (found.st_dev, found.st_ino))
}

fn unlink(path: &Path) -> Result<()> {
    std::fs::remove_file(path).call(format!("unlink {}", path.display()))
}

fn socket_at(path: &Path, flags: SocketFlags) -> Result<(OwnedFd, SocketAddrUnix)> {
    let address = SocketAddrUnix::new(path).call(format!("address {}", path.display()))?;
    let flags = SocketFlags::CLOEXEC | flags;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).call("socket")?;
    Ok((socket, address))
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
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(folder)
        .call(format!("mkdir {}", folder.display()))?;
    let _lock = lock(path)?;
    let (socket, address) = socket_at(path, SocketFlags::empty())?;
    // What the file gets at bind (unix(7)): there is no moment at which others may connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).call("fchmod of a socket")?;
    loop {
        match rustix::net::bind(&socket, &address) {
            Ok(()) => break,
            Err(Errno::ADDRINUSE) if is_served(path)? => return Ok(Taken::Others),
            Err(Errno::ADDRINUSE) => unlink(path)?,
            Err(e) => return Err(e).call(format!("bind {}", path.display())),
        }
    }
    let file = file_of(path).call(format!("stat {}", path.display()))?;
    rustix::net::listen(&socket, 128).call(format!("listen on {}", path.display()))?;
    Ok(Taken::Ours(socket, Place { path: path.to_path_buf(), file }))
}

/// Removes the socket of a shim that is no more; that of one that serves stays. Whether one does.
pub fn forget(path: &Path) -> Result<bool> {
    if !path.try_exists().call(format!("stat {}", path.display()))? {
        return Ok(false);
    }
    let _lock = lock(path)?;
    // Looked at under the lock: what was deserted before may be a new shim's by now.
    match file_of(path) {
        Err(Errno::NOENT) => Ok(false),
        _ if is_served(path)? => Ok(true),
        _ => unlink(path).map(|()| false),
    }
}

/// Whether somebody listens at `path`, where a socket is. Not waiting: this is asked while others wait for the lock.
fn is_served(path: &Path) -> Result<bool> {
    let (socket, address) = socket_at(path, SocketFlags::NONBLOCK)?;
    match rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address)) {
        // Of a full queue, too, somebody has said that he takes from it.
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        // Anything else says nothing about who listens there.
        Err(e) => Err(e).call(format!("connect to {}", path.display())),
    }
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

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("rcrun-shim-group-{name}-{}", std::process::id()))
    }

    fn ours(path: &Path) -> (OwnedFd, Place) {
        match listen(path).unwrap() {
            Taken::Ours(socket, place) => (socket, place),
            Taken::Others => panic!("somebody is at {}", path.display()),
        }
    }

    #[test]
    fn a_socket_is_roots_alone_and_a_deserted_one_is_taken() {
        let folder = folder("deserted");
        let path = folder.join("s");
        let (first, _) = ours(&path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(listen(&path).unwrap(), Taken::Others));
        drop(first);
        // A process that another test is starting has it open, too, until its execve(2).
        let taken = (0..100_000).find(|_| matches!(listen(&path).unwrap(), Taken::Ours(..)));
        assert!(taken.is_some(), "somebody is at {}", path.display());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_socket_that_has_been_left_is_nobodys_and_the_next_ones_stays() {
        let folder = folder("left");
        let path = folder.join("s");
        let (first, place) = ours(&path);
        place.leave().unwrap();
        // Whoever left is still there.
        let (second, other) = ours(&path);
        place.leave().unwrap();
        assert!(forget(&path).unwrap(), "it is the second one's");
        drop((first, second));
        assert!(!forget(&path).unwrap() && !path.exists());
        other.leave().unwrap();
        assert!(!forget(&path).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_socket_whose_queue_is_full_is_served() {
        let folder = folder("full");
        let path = folder.join("s");
        let (socket, _) = ours(&path);
        rustix::net::listen(&socket, 0).unwrap();
        // One that waits for nobody to accept it: the next connect would wait.
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let (next, address) = socket_at(&path, SocketFlags::NONBLOCK).unwrap();
        assert_eq!(rustix::net::connect(&next, &address), Err(Errno::AGAIN));
        assert!(matches!(listen(&path).unwrap(), Taken::Others));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_be_asked_is_not_taken_for_deserted() {
        let folder = folder("file");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("s");
        // A datagram socket: EPROTOTYPE.
        let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(listen(&path).is_err() && forget(&path).is_err());
        assert!(path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
