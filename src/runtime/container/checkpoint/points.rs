//! Mount points in a root that has never been run: CRIU mounts, and makes none.

use crate::compile::{self, in_root};
use crate::error::CallContext;
use crate::prepare::open_root;
use crate::resolve::open_in_root;
use crate::spec::Spec;
use crate::spec::mount::MountOptions;
use crate::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, mkdirat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes those of config.json that are missing: in the root, or in the source of the bind mount that they lie in. What lies on
/// a tmpfs is in the images.
pub(super) fn make(rootfs: &Path, spec: &Spec, bundle: &Path) -> Result<()> {
    let root = open_root(rootfs)?;
    let mut mounted: Vec<(String, Option<PathBuf>)> = Vec::new();
    for entry in spec.mounts().iter().flatten().filter(|entry| !compile::is_change(entry)) {
        let path = in_root(entry.destination()).0.0;
        let source = bundle.join(entry.source().as_deref().unwrap_or(Path::new("")));
        let options = MountOptions::of(entry);
        let file = options.bind.is_some() && source.metadata().is_ok_and(|data| !data.is_dir());
        if !path.is_empty() {
            match above(&mounted, &path) {
                None => one(&root, &path, file)?,
                Some((Some(source), rest)) => one(&folder(source)?, rest, file)?,
                Some((None, _)) => {}
            }
        }
        let written = options.bind.is_some() && !file && options.attr_set & libc::MOUNT_ATTR_RDONLY == 0;
        mounted.push((path, written.then_some(source)));
    }
    Ok(())
}

/// The mount that `path` will lie in: the source that a point can be made in, and the path below it.
fn above<'a>(mounted: &'a [(String, Option<PathBuf>)], path: &'a str) -> Option<(Option<&'a Path>, &'a str)> {
    let rest = |point: &str| path.strip_prefix(point)?.strip_prefix('/');
    let around = mounted.iter().filter_map(|(point, source)| Some((point, source.as_deref(), rest(point)?)));
    // Of two at one place the later lies on top.
    around.max_by_key(|(point, ..)| point.len()).map(|(_, source, rest)| (source, rest))
}

fn folder(source: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(source, flags, Mode::empty()).call(format!("open {}", source.display()))
}

fn open(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { "." } else { path };
    open_in_root(root, path, OFlags::PATH)
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
    fn a_point_below_a_bind_mount_is_made_in_its_source_and_none_below_what_is_in_the_images() {
        let source = |path: &str| Some(PathBuf::from(path));
        let mounted =
            [("a", source("/one")), ("a", source("/two")), ("a/tmp", None), ("a/tmp/b", source("/three"))];
        let mounted = mounted.map(|(point, source)| (point.to_string(), source));
        for (path, expected) in [
            ("a/x/y", Some((Some(Path::new("/two")), "x/y"))),
            ("a/tmp/x", Some((None, "x"))),
            ("a/tmp/b/x", Some((Some(Path::new("/three")), "x"))),
            ("ab/x", None),
            ("a", None),
        ] {
            assert_eq!(above(&mounted, path), expected, "{path}");
        }
    }

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
