//! Id-mapped mounts: a detached tree shows its files with other owners, as the maps of a user namespace say
//! (MOUNT_ATTR_IDMAP, mount_setattr(2)). Uses: error, plan, sys.

use crate::error::CallContext;
use crate::plan::{IdMap, Maps};
use crate::sys::mount::{MountAttributes, SET_ID_MAP, set_attributes};
use crate::sys::namespace;
use crate::sys::user_namespace::UserNamespace;
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Maps the owners in `tree`, which nobody has seen yet. `origin` is the mount's JSON pointer.
pub fn apply(tree: BorrowedFd<'_>, map: &IdMap, origin: &str) -> Result<()> {
    let (namespace, recursive) = match map {
        IdMap::Own { maps, recursive } => (with_maps(maps, origin)?, *recursive),
        IdMap::Joined { path, recursive } => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file =
                rustix::fs::open(path, flags, Mode::empty()).call(format!("open {}", path.display()))?;
            if namespace::kind(std::os::fd::AsFd::as_fd(&file)).ok() != Some(libc::CLONE_NEWUSER) {
                return Err(Error::config(origin, format!("{} is not a user namespace", path.display())));
            }
            (file, *recursive)
        }
    };
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: namespace.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    set_attributes(tree, recursive, &attributes)
        .call(format!("{origin}: {SET_ID_MAP}"))
        .map_err(|error| explain(error, recursive, origin))
}

/// The failure of `SET_ID_MAP`, with what its errno means.
pub fn explain(error: Error, recursive: bool, origin: &str) -> Error {
    let hint = match error.errno() {
        Some(libc::EINVAL) if recursive => Some(
            "ridmap takes file systems that support id-mapped mounts, also in all mounts below: one does not",
        ),
        Some(libc::EINVAL) => Some("this file system does not support id-mapped mounts"),
        Some(libc::EPERM) => Some(
            "the file system belongs to a user namespace in which rcrun is not root, or the mount has an id map already",
        ),
        _ => None,
    };
    error.at(origin).hint(hint)
}

/// A user namespace with these maps.
fn with_maps(maps: &Maps, origin: &str) -> Result<OwnedFd> {
    let made =
        UserNamespace::new(false).call("user namespace for an id map").map_err(|error| error.at(origin))?;
    let folder = format!("/proc/{}", made.pid());
    for (file, field, map) in [("uid_map", "uidMappings", &maps.uid), ("gid_map", "gidMappings", &maps.gid)] {
        // One write: the kernel takes a map whole or not at all.
        std::fs::write(format!("{folder}/{file}"), map)
            .call(format!("{origin}/{field}: write {file}"))
            .map_err(|error| error.at(origin))?;
    }
    let path = format!("{folder}/ns/user");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call(format!("open {path}"))
}
