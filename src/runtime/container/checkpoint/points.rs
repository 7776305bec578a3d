//! Mount points in a root that has never been run: CRIU mounts, and makes none.

use crate::compile::{self, in_root};
use crate::prepare::open_root;
use crate::spec::Spec;
use crate::spec::mount::MountOptions;
use crate::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Makes those of config.json that are missing. What lies on a tmpfs is in the images, and what lies in a bind mount in its
/// source.
pub(super) fn make(rootfs: &Path, spec: &Spec, bundle: &Path) -> Result<()> {
    let root = open_root(rootfs)?;
    let mut mounted: Vec<String> = Vec::new();
    for entry in spec.mounts().iter().flatten().filter(|entry| !compile::is_change(entry)) {
        let path = in_root(entry.destination()).0.0;
        let below = mounted.iter().any(|point| path.starts_with(&format!("{point}/")));
        mounted.push(path.clone());
        if below || path.is_empty() {
            continue;
        }
        let source = bundle.join(entry.source().as_deref().unwrap_or(Path::new("")));
        let file =
            MountOptions::of(entry).bind.is_some() && source.metadata().is_ok_and(|data| !data.is_dir());
        one(&root, &path, file)?;
    }
    Ok(())
}

fn open(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { "." } else { path };
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn one(root: &OwnedFd, path: &str, file: bool) -> Result<()> {
    let what = |error: Errno| Error::call(format!("make the mount point /{path}"), error);
    let names: Vec<&str> = path.split('/').collect();
    for depth in 1..=names.len() {
        let here = names[..depth].join("/");
        match open(root, &here) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(what(error)),
        }
        let parent = open(root, &names[..depth - 1].join("/")).map_err(what)?;
        let name = names[depth - 1];
        let made = match file && depth == names.len() {
            true => {
                let mode = FileType::RegularFile;
                rustix::fs::mknodat(parent.as_fd(), name, mode, Mode::from_raw_mode(0o644), 0)
            }
            false => mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o755)),
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(what(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn mount_points_are_made_in_the_root_whatever_links_lie_there() {
        let folder = Folder::new("points");
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::fs::create_dir_all(root.join(outside.strip_prefix("/").unwrap())).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = rustix::fs::open(&root, flags, Mode::empty()).unwrap();
        one(&fd, "a/b/c", false).unwrap();
        one(&fd, "a/file", true).unwrap();
        one(&fd, "link/x", false).unwrap();
        assert!(root.join("a/b/c").is_dir() && root.join("a/file").is_file());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.join(outside.strip_prefix("/").unwrap()).join("x").is_dir());
    }
}
