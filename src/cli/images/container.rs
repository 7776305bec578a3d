//! What a container of an image has in the store: `<store>/containers/<id>`, with its bundle and what it writes.
//!
//! ```text
//! state         a link to the folder of the container's state: how to tell whether it still is
//! config.json   of the bundle, whose root lies over upper/ in the container's namespace
//! upper/  work/            what it writes, over the layers
//! hosts  hostname          mounted in its /etc
//! lease         what keeps the layers, until it is one of the store's leases
//! nested/0 ...             volumes below a mount of -v
//! made   volumes           what of upper/ is not the container's own doing: see `own`
//! ```
//!
//! The folder is locked by the process that makes the container, until that has a state. Without state and lock nobody
//! needs it: the next `run` of that id, `delete --force` and `image prune` remove it.

use std::io::{ErrorKind, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rcrun_image::Digest;
use rcrun_image::store::{Outfit, Record, Store};
use rcrun_runtime::container::{Listed, StateRoot};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::{Code, Error, Result, users};
use rustix::fs::{FlockOperation, Mode, OFlags, RawDir};

use super::{open, told};

/// What such a folder has before the container has an id.
pub static OUTFIT: Outfit =
    Outfit { folders: &["upper", "work"], files: &["config.json", "hosts", "hostname"] };

const CONTAINERS: &str = "containers";
const BUNDLES: &str = "bundles";
const STATE: &str = "state";

/// A container's folder that is being made.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// What the image consists of.
    pub record: Record,
    id: String,
    lock: OwnedFd,
}

/// Makes the folder of container `id` of the image `digest`, whose layers stay from now on. `root` is where its state
/// will be.
pub fn make(store: &Store, place: &Path, id: &ContainerId, root: &Path, digest: &Digest) -> Result<Folder> {
    let path = place.join(CONTAINERS).join(id.as_str());
    let exists = || Error::new(Code::Exists, "container with given ID already exists");
    if root.join(id.as_str()).symlink_metadata().is_ok() {
        return Err(exists());
    }
    if path.symlink_metadata().is_ok() {
        if is_alive(place, id.as_str()) {
            return Err(exists());
        }
        forget(store, place, id.as_str())?;
    }
    let lock = store.establish(CONTAINERS, id.as_str(), &OUTFIT).map_err(told)?.ok_or_else(exists)?;
    match keep(store, &lock, id, root, digest) {
        Ok(record) => Ok(Folder { path, record, id: id.to_string(), lock }),
        Err(error) => Err(undo(store, place, id.as_str(), lock, error)),
    }
}

fn keep(store: &Store, folder: &OwnedFd, id: &ContainerId, root: &Path, digest: &Digest) -> Result<Record> {
    let record = store.keep_for_container(id.as_str(), digest, Some(folder)).map_err(told)?;
    let root = std::path::absolute(root).call("getcwd")?;
    rustix::fs::symlinkat(root.join(id.as_str()), folder, STATE).call("symlink to the container's state")?;
    Ok(record)
}

impl Folder {
    /// Writes the file `name` of [`OUTFIT`], which is empty so far.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let call = || format!("write {}", self.path.join(name).display());
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.lock, name, flags, Mode::empty()).call(call())?;
        std::fs::File::from(fd).write_all(text).call(call())
    }
}

fn mkdir(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e).call(format!("mkdir {}", path.display())),
        _ => Ok(()),
    }
}

/// Removes what a start that failed of `error` has in the store.
pub fn abandon(store: &Store, place: &Path, folder: Folder, error: Error) -> Error {
    undo(store, place, &folder.id, folder.lock, error)
}

fn undo(store: &Store, place: &Path, id: &str, lock: OwnedFd, error: Error) -> Error {
    drop(lock);
    match forget(store, place, id) {
        Ok(()) => error,
        Err(left) => error.attach(&left),
    }
}

/// Removes the folder of container `id`, which is no more, and lets go of its layers. One that is made anew meanwhile
/// stays. The lease goes first: as long as the folder is locked, nobody writes another.
pub fn forget(store: &Store, place: &Path, id: &str) -> Result<()> {
    forget_by(store, place, id, |_| store.discard(CONTAINERS, id))
}

/// The same; where the container has written nothing, a later process does the removing.
pub fn forget_soon(store: &Store, place: &Path, id: &str) -> Result<()> {
    forget_by(store, place, id, |folder| match is_nearly_empty(folder) {
        true => store.discard_later(CONTAINERS, id),
        false => store.discard(CONTAINERS, id),
    })
}

/// Whether there is nothing in `folder` but what `run` has written.
fn is_nearly_empty(folder: &Path) -> bool {
    let nested = folder.join(super::own::NESTED).symlink_metadata();
    matches!(nested, Err(e) if e.kind() == ErrorKind::NotFound) && is_empty(&folder.join("upper")) == Ok(true)
}

/// Whether nothing is in the folder at `path`. Without the C library's heap, which a run needs for nothing else.
pub fn is_empty(path: &Path) -> rustix::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let mut buffer = [const { MaybeUninit::uninit() }; 1024];
    let mut entries = RawDir::new(&folder, &mut buffer);
    while let Some(entry) = entries.next() {
        if ![c".", c".."].contains(&entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn forget_by(
    store: &Store,
    place: &Path,
    id: &str,
    discard: impl FnOnce(&Path) -> rcrun_image::Result<bool>,
) -> Result<()> {
    let folder = place.join(CONTAINERS).join(id);
    let wait = FlockOperation::LockExclusive;
    let Some(lock) = dead(&folder, id, wait)? else { return Ok(()) };
    store.release_container(id).map_err(told)?;
    discard(&folder).map_err(told)?;
    drop(lock);
    Ok(())
}

/// The lock of a folder whose container is no more.
fn dead(folder: &Path, id: &str, how: FlockOperation) -> Result<Option<OwnedFd>> {
    let lock = match lock(folder, how) {
        Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(None),
        other => other?,
    };
    let Some(lock) = lock else { return Ok(None) };
    let locked = rustix::fs::fstat(&lock).call(format!("fstat of the folder of {id}"))?;
    // Between opening and locking, it may have been removed and made anew.
    let same = folder.symlink_metadata().is_ok_and(|there| there.ino() == locked.st_ino);
    // Killed before it was made, or deleted.
    let gone = folder.join(STATE).metadata().is_err();
    Ok(Some(lock).filter(|_| same && gone))
}

/// None where it does not wait and somebody else has the lock.
fn lock(folder: &Path, how: FlockOperation) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(folder, flags, Mode::empty()).call(format!("open {}", folder.display()))?;
    loop {
        match rustix::fs::flock(&fd, how) {
            Ok(()) => return Ok(Some(fd)),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).call(format!("flock {}", folder.display())),
        }
    }
}

/// Keeps the folder of a container that is from being removed, as long as what is returned lives. Waits while somebody
/// makes or removes it.
pub fn hold(folder: &Path) -> Result<OwnedFd> {
    let lock = lock(folder, FlockOperation::LockShared)?;
    lock.ok_or_else(|| Error::new(Code::System, format!("{} is locked", folder.display())))
}

/// Whether container `id` of the store at `place` still is, or a bundle that was unpacked under that name.
pub fn is_alive(place: &Path, id: &str) -> bool {
    if let Ok(bundle) = std::fs::read_link(place.join(BUNDLES).join(id)) {
        return bundle.join("config.json").symlink_metadata().is_ok();
    }
    let folder = place.join(CONTAINERS).join(id);
    // What cannot be looked at is not taken for dead.
    folder.symlink_metadata().is_ok()
        && !matches!(dead(&folder, id, FlockOperation::NonBlockingLockExclusive), Ok(Some(_)))
}

/// Removes the folders of containers that are no more. Their ids.
pub fn clear_dead(place: &Path) -> Result<Vec<String>> {
    let store = open(place)?;
    let mut dead = Vec::new();
    for (kind, containers) in [(CONTAINERS, true), (BUNDLES, false)] {
        let folder = place.join(kind);
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other.call(format!("open {}", folder.display()))?,
        };
        for entry in entries {
            let id = entry.call(format!("read {}", folder.display()))?.file_name();
            let Some(id) = id.to_str().filter(|id| !is_alive(place, id)) else { continue };
            if containers {
                forget(&store, place, id)?;
                dead.push(id.to_string());
            } else {
                store.release_container(id).map_err(told)?;
                remove_link(&folder.join(id))?;
            }
        }
    }
    Ok(dead)
}

/// A container of an image of an ordinary user lies in a user namespace that is not the machine's, and has files of others
/// than him: he becomes root there, or of one with the same ids when it has ended. Not for a container of a bundle.
pub fn enter(root: &StateRoot, id: &ContainerId) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // What is wrong with its state, who looks for it next tells better.
    let Ok(listed) = root.open(id).and_then(|container| Listed::read(&container, id.clone())) else {
        return Ok(());
    };
    match listed.state.as_ref().and_then(|state| store_of(&state.bundle, id.as_str())) {
        None => Ok(()),
        Some(_) if listed.pid() == 0 => users::enter(),
        Some(_) => users::join(listed.pid()),
    }
}

fn remove_link(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).call(format!("unlink {}", path.display())),
        _ => Ok(()),
    }
}

/// The store of the container `id`, if `bundle` is its folder in one.
pub fn store_of(bundle: &Path, id: &str) -> Option<PathBuf> {
    let containers = bundle.parent()?;
    let fits =
        bundle.file_name()? == id && containers.file_name()? == CONTAINERS && bundle.join(STATE).is_symlink();
    fits.then(|| containers.parent().map(PathBuf::from)).flatten()
}

/// Keeps the layers of `digest` for the bundle at `bundle`, as long as that has a config.json.
pub fn keep_for_bundle(store: &Store, place: &Path, bundle: &Path, digest: &Digest) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let links = place.join(BUNDLES);
    mkdir(&links)?;
    let id = format!("bundle-{}", &Digest::of(bundle.as_os_str().as_bytes()).hex()[..32]);
    let link = links.join(&id);
    match std::os::unix::fs::symlink(bundle, &link) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(e).call(format!("symlink {}", link.display()));
        }
        _ => {}
    }
    store.keep_for_container(&id, digest, None).map_err(told).map(drop)
}
