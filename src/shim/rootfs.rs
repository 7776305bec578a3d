//! The mounts that containerd asks for below the bundle: an overlay of a snapshot, mostly. Uses: log.

use rcrun_runtime::error::CallContext;
use rcrun_runtime::resolve::open_in_root;
use rcrun_runtime::{Code, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// One of them, in the words of mount(8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The file system.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Where below the root; empty for the root itself.
    pub target: String,
    /// The options.
    pub options: Vec<String>,
}

/// A page with the NUL: what mount(2) takes as data.
const DATA_MAX: usize = 4095;

/// Options that are flags of mount(2): the word, the flag, and whether the word clears it.
const FLAGS: [(&str, MountFlags, bool); 17] = [
    ("ro", MountFlags::RDONLY, false),
    ("rw", MountFlags::RDONLY, true),
    ("nosuid", MountFlags::NOSUID, false),
    ("suid", MountFlags::NOSUID, true),
    ("nodev", MountFlags::NODEV, false),
    ("dev", MountFlags::NODEV, true),
    ("noexec", MountFlags::NOEXEC, false),
    ("exec", MountFlags::NOEXEC, true),
    ("sync", MountFlags::SYNCHRONOUS, false),
    ("async", MountFlags::SYNCHRONOUS, true),
    ("dirsync", MountFlags::DIRSYNC, false),
    ("noatime", MountFlags::NOATIME, false),
    ("atime", MountFlags::NOATIME, true),
    ("nodiratime", MountFlags::NODIRATIME, false),
    ("diratime", MountFlags::NODIRATIME, true),
    ("relatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, false),
];

const PROPAGATIONS: [(&str, MountPropagationFlags); 6] = [
    ("private", MountPropagationFlags::PRIVATE),
    ("rprivate", MountPropagationFlags::PRIVATE.union(MountPropagationFlags::REC)),
    ("slave", MountPropagationFlags::DOWNSTREAM),
    ("rslave", MountPropagationFlags::DOWNSTREAM.union(MountPropagationFlags::REC)),
    ("shared", MountPropagationFlags::SHARED),
    ("rshared", MountPropagationFlags::SHARED.union(MountPropagationFlags::REC)),
];

/// The options of a mount, sorted.
#[derive(Debug, PartialEq, Eq)]
struct Sorted {
    flags: MountFlags,
    /// Some(true): with all that is mounted below.
    bind: Option<bool>,
    propagation: Option<MountPropagationFlags>,
    data: Vec<String>,
}

fn sort(options: &[String]) -> Sorted {
    let mut sorted = Sorted { flags: MountFlags::empty(), bind: None, propagation: None, data: Vec::new() };
    for option in options {
        if let Some((_, flag, clears)) = FLAGS.iter().find(|(word, _, _)| word == option) {
            sorted.flags.set(*flag, !clears);
        } else if let Some((_, flags)) = PROPAGATIONS.iter().find(|(word, _)| word == option) {
            sorted.propagation = Some(*flags);
        } else {
            match option.as_str() {
                "bind" => sorted.bind = Some(sorted.bind.unwrap_or(false)),
                "rbind" => sorted.bind = Some(true),
                "defaults" | "" => {}
                _ => sorted.data.push(option.clone()),
            }
        }
    }
    sorted
}

/// Makes `root` and mounts all of `mounts` there; after an error none is left.
pub fn mount_all(mounts: &[Mount], root: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let mut make = std::fs::DirBuilder::new();
    match make.mode(0o711).create(root) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other.call(format!("mkdir {}", root.display()))?,
    }
    for (index, one) in mounts.iter().enumerate() {
        if let Err(error) = mount(one, root) {
            let error = error.context(format!("rootfs mount {index} ({})", one.kind));
            return Err(match unmount_all(root) {
                Ok(()) => error,
                Err(other) => error.attach(&other),
            });
        }
    }
    Ok(())
}

/// Where `target` is in `root`, with every link of the image resolved in it. Asked again after a mount, it is what was
/// mounted: an fd alone would go on meaning what lies below.
fn place(root: &Path, target: &str) -> Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags, Mode::empty()).call(format!("open {}", root.display()))?;
    let target = if target.is_empty() { "." } else { target };
    let fd = open_in_root(&top, target, flags).call(format!("openat2 {target} in {}", root.display()))?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into();
    Ok((fd, path))
}

fn mount(one: &Mount, root: &Path) -> Result<()> {
    let target = one.target.trim_start_matches('/');
    if Path::new(target).components().any(|part| part == std::path::Component::ParentDir) {
        return Err(Error::new(Code::Config, format!("the target {} leads out of the root", one.target)));
    }
    let sorted = sort(&one.options);
    let what = || format!("mount {} on {}", one.source, root.join(target).display());
    if let Some(deep) = sorted.bind.or((one.kind == "bind").then_some(false)) {
        let recursive = if deep { MountFlags::REC } else { MountFlags::empty() };
        let (_held, at) = place(root, target)?;
        rustix::mount::mount(&*one.source, &at, "", MountFlags::BIND | recursive, None).call(what())?;
        if !sorted.flags.is_empty() {
            let (_held, at) = place(root, target)?;
            rustix::mount::mount_remount(&at, MountFlags::BIND | sorted.flags, "").call(what())?;
        }
    } else {
        let mut held = Vec::new();
        let mut data = sorted.data.join(",");
        if data.len() > DATA_MAX && one.kind == "overlay" {
            data = by_number(&sorted.data, &mut held)?;
        }
        if data.len() > DATA_MAX {
            let text = format!("{}: options of {} bytes are more than the kernel takes", what(), data.len());
            return Err(Error::new(Code::System, text).with_errno(libc::E2BIG));
        }
        let data = CString::new(data)
            .map_err(|_| Error::new(Code::Config, "a mount option has a NUL character in it"))?;
        let (_held, at) = place(root, target)?;
        rustix::mount::mount(&*one.source, &at, &*one.kind, sorted.flags, data.as_c_str()).call(what())?;
        drop(held);
    }
    if let Some(flags) = sorted.propagation {
        let (_held, at) = place(root, target)?;
        rustix::mount::mount_change(&at, flags).call(format!("propagation: {}", what()))?;
    }
    Ok(())
}

/// The options with the layers named by the numbers of their fds, which are short; the fds go to `held`.
fn by_number(options: &[String], held: &mut Vec<OwnedFd>) -> Result<String> {
    let mut words = Vec::new();
    for option in options {
        let Some(layers) = option.strip_prefix("lowerdir=") else {
            words.push(option.clone());
            continue;
        };
        let mut numbers = Vec::new();
        for layer in layers.split(':') {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(layer, flags, Mode::empty()).call(format!("open {layer}"))?;
            numbers.push(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            held.push(fd);
        }
        words.push(format!("lowerdir={}", numbers.join(":")));
    }
    Ok(words.join(","))
}

/// Unmounts all that is mounted at `root` and below.
pub fn unmount_all(root: &Path) -> Result<()> {
    loop {
        let done = match rustix::mount::unmount(root, UnmountFlags::NOFOLLOW) {
            // Something is mounted below, or open.
            Err(Errno::BUSY) => rustix::mount::unmount(root, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            other => other,
        };
        match done {
            Ok(()) => {}
            // No mount point (any more), or nothing at all.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e).call(format!("umount {}", root.display())),
        }
    }
}

/// Where the root of a bundle is mounted.
pub fn of(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(options: &str) -> Sorted {
        sort(&options.split(' ').map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_flags_or_the_file_systems_own() {
        let overlay = sorted("index=off workdir=/w upperdir=/u lowerdir=/a:/b ro nosuid suid");
        assert_eq!(overlay.flags, MountFlags::RDONLY);
        assert_eq!(overlay.data, ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b"]);
        assert_eq!((overlay.bind, overlay.propagation), (None, None));
        let bind = sorted("rbind rprivate rw");
        assert_eq!((bind.bind, bind.flags), (Some(true), MountFlags::empty()));
        assert_eq!(bind.propagation, Some(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC));
    }

    #[test]
    fn layers_with_long_names_are_named_by_number() {
        let mut held = Vec::new();
        let options = ["index=off".to_string(), "lowerdir=/proc:/sys".to_string()];
        let text = by_number(&options, &mut held).unwrap();
        assert_eq!(held.len(), 2);
        let expected: Vec<String> =
            held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        assert_eq!(text, format!("index=off,lowerdir={}", expected.join(":")));
    }

    #[test]
    fn a_link_of_the_image_does_not_lead_a_mount_out_of_the_root() {
        let root = std::env::temp_dir().join(format!("rcrun-shim-rootfs-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(root.join("below")).unwrap();
        for (link, to) in [("absolute", "/etc"), ("climbing", "../../../../etc"), ("below/up", "../etc")] {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        for target in ["etc", "absolute", "climbing", "below/up"] {
            let (_held, at) = place(&root, target).unwrap();
            assert_eq!(std::fs::read_link(at).unwrap(), root.join("etc"), "{target}");
        }
        let (_held, at) = place(&root, "").unwrap();
        assert_eq!(std::fs::read_link(at).unwrap(), root);
        assert!(place(&root, "absent").is_err());
        std::fs::remove_dir_all(root).unwrap();
    }
}
