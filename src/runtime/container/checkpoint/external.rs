//! Mounts of a container that come from the machine: no images hold them. With a checkpoint each gets a name, with a restore
//! that name gets a source.

use crate::cgroup::{CgroupPath, Hierarchy};
use crate::compile::{self, in_root};
use crate::criu::message::Options;
use crate::error::CallContext;
use crate::mountinfo::{Mount, unescape};
use crate::notify_socket;
use crate::resolve::open_in_root;
use crate::spec::mount::{Bind, MountOptions};
use crate::spec::{Namespace, Spec};
use crate::{Error, Result};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags, statx};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a process has mounted.
#[derive(Debug)]
pub(super) struct Inside {
    root: OwnedFd,
    points: BTreeMap<u64, PathBuf>,
    options: BTreeMap<u64, String>,
    text: Vec<u8>,
}

impl Inside {
    /// Of process `pid`, from its root on.
    pub(super) fn of(pid: i32) -> Result<Inside> {
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path.as_str(), flags, Mode::empty()).call(format!("open {path}"))?;
        let path = format!("/proc/{pid}/mountinfo");
        let text = std::fs::read(&path).call(format!("read {path}"))?;
        Ok(Inside::read(root, text))
    }

    /// Of the mount namespace of process `pid`, whatever that has made its root.
    pub(super) fn of_namespace(pid: i32) -> Result<Inside> {
        // The machine's own: what is mounted there may be anything.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).call("open /proc")?;
        super::in_mounts_of(pid, |root| {
            let what = "open thread-self/mountinfo";
            let fd = rustix::fs::openat(
                &proc,
                "thread-self/mountinfo",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            );
            let mut text = Vec::new();
            std::fs::File::from(fd.call(what)?).read_to_end(&mut text).call(what)?;
            Ok(Inside::read(root, text))
        })
    }

    fn read(root: OwnedFd, text: Vec<u8>) -> Inside {
        let (mut points, mut options) = (BTreeMap::new(), BTreeMap::new());
        for mount in text.split(|byte| *byte == b'\n').filter_map(Mount::of) {
            let Some(id) = std::str::from_utf8(mount.id).ok().and_then(|id| id.parse().ok()) else {
                continue;
            };
            points.insert(id, PathBuf::from(OsStr::from_bytes(&unescape(mount.point))));
            options.insert(id, String::from_utf8_lossy(mount.options).into_owned());
        }
        Inside { root, points, options, text }
    }

    /// The lines of its mountinfo.
    pub(super) fn lines(&self) -> impl Iterator<Item = Mount<'_>> {
        self.text.split(|byte| *byte == b'\n').filter_map(Mount::of)
    }

    /// Where the mount is that is mounted at `path` itself.
    pub(super) fn mounted_at(&self, path: &str) -> Option<&Path> {
        let fd = self.open(path)?;
        let stat = statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty()).ok()?;
        if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return None;
        }
        self.points.get(&mount_of(&fd)?).map(PathBuf::as_path)
    }

    /// `root` of a process is where this begins.
    pub(super) fn begins_at(&self, root: &OwnedFd) -> bool {
        let place = |fd: &OwnedFd| {
            let stat = rustix::fs::fstat(fd).ok()?;
            Some((mount_of(fd)?, stat.st_dev, stat.st_ino))
        };
        place(root).is_some_and(|its| place(&self.root) == Some(its))
    }

    /// The options of the mount that `path` lies in.
    pub(super) fn options(&self, path: &str) -> Option<Vec<String>> {
        let (id, _) = self.mount(path)?;
        Some(self.options.get(&id)?.split(',').map(str::to_string).collect())
    }

    /// Something lies at `path`.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.mount(path).is_some()
    }

    /// The mount with this number is one of its own.
    pub(super) fn has(&self, mount: u64) -> bool {
        self.points.contains_key(&mount)
    }

    /// Where the mount is that `path` leads to (links of the root lead elsewhere), and whether a folder lies there.
    fn point(&self, path: &str) -> Option<(&PathBuf, bool)> {
        let (id, folder) = self.mount(path)?;
        Some((self.points.get(&id)?, folder))
    }

    fn open(&self, path: &str) -> Option<OwnedFd> {
        open_in_root(&self.root, path, OFlags::PATH).ok()
    }

    fn mount(&self, path: &str) -> Option<(u64, bool)> {
        let fd = self.open(path)?;
        let folder = FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode) == FileType::Directory;
        Some((mount_of(&fd)?, folder))
    }
}

/// The number of the mount that a path of the machine lies in.
pub(super) fn mount_number(path: &Path) -> Option<u64> {
    mount_of(&rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?)
}

/// The number of the mount that an open file lies in.
fn mount_of(fd: &OwnedFd) -> Option<u64> {
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    super::descriptors::mount_of(&fdinfo)
}

/// A mount of the container with what the machine gives for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct External {
    /// Where config.json has it: its name.
    pub(super) name: String,
    /// What it is made of.
    pub(super) source: PathBuf,
    /// What is mounted below the source comes along.
    pub(super) recursive: bool,
}

/// All that config.json and rcrun have of the machine.
fn all(
    spec: &Spec,
    bundle: &Path,
    notify: Option<&Path>,
    cgroup: Option<&(Hierarchy, CgroupPath)>,
    devices: bool,
) -> Vec<External> {
    let mut all = Vec::new();
    let name = |path: &Path| format!("/{}", in_root(path).0.0);
    for entry in spec.mounts().iter().flatten().filter(|entry| !compile::is_change(entry)) {
        let options = MountOptions::of(entry);
        let name = name(entry.destination());
        if let Some(bind) = options.bind {
            let source = bundle.join(entry.source().as_deref().unwrap_or(Path::new("")));
            all.push(External { name, source, recursive: bind == Bind::Recursive });
        } else if matches!(entry.typ().as_deref(), Some("cgroup" | "cgroup2"))
            && spec.namespace(LinuxNamespaceType::Cgroup) != Namespace::New
            && let Some((hierarchy, path)) = cgroup
        {
            let source = hierarchy.path().join(path.relative());
            all.push(External { name, source, recursive: false });
        }
    }
    let linux = spec.linux().as_ref();
    let null = || PathBuf::from("/dev/null");
    for masked in linux.iter().flat_map(|l| l.masked_paths().iter().flatten()) {
        all.push(External { name: name(Path::new(masked)), source: null(), recursive: false });
    }
    if devices {
        let own = linux.iter().flat_map(|l| l.devices().iter().flatten()).map(|device| device.path().clone());
        let default =
            ["null", "zero", "full", "tty", "random", "urandom"].map(|name| Path::new("/dev").join(name));
        for path in own.chain(default) {
            all.push(External { name: name(&path), source: path, recursive: false });
        }
    }
    if let Some(folder) = notify {
        let name = notify_socket::MOUNT_POINT.to_string();
        all.push(External { name, source: folder.to_path_buf(), recursive: false });
    }
    // The later of two at one place is the one on top.
    let mut names = std::collections::BTreeSet::new();
    all.reverse();
    all.retain(|external| names.insert(external.name.clone()));
    all.reverse();
    all
}

/// Says which mounts are not to be written, and what each is called.
pub(super) fn declare_for_dump(
    spec: &Spec,
    inside: &Inside,
    cgroup: Option<&(Hierarchy, CgroupPath)>,
    options: &mut Options,
) -> Result<()> {
    let notify = Path::new(notify_socket::MOUNT_POINT);
    let all = all(spec, Path::new("/"), Some(notify), cgroup, binds_devices(spec));
    let mut said = std::collections::BTreeSet::new();
    let mut say = |point: &Path, name: &str| -> Result<()> {
        let point = utf8(point)?;
        if said.insert(point.to_string()) {
            options.mount(point, name);
        }
        Ok(())
    };
    for external in &all {
        let Some((point, folder)) = inside.point(&external.name) else { continue };
        let name = Path::new(&external.name);
        // Nothing is mounted there: it is what a mount above it has.
        if point == Path::new("/") || name.starts_with(point) && name != point {
            continue;
        }
        // A folder that is masked has an empty tmpfs of the container's own.
        if folder && external.source == Path::new("/dev/null") {
            continue;
        }
        say(point, &external.name)?;
        if external.recursive {
            let named = |below: &Path| all.iter().any(|other| Path::new(&other.name) == below);
            let configured = |below: &Path| {
                named(below)
                    || spec
                        .mounts()
                        .iter()
                        .flatten()
                        .any(|m| Path::new("/").join(in_root(m.destination()).0.0) == below)
            };
            for below in inside.points.values().filter(|p| *p != point && p.starts_with(point)) {
                if let Ok(rest) = below.strip_prefix(point)
                    && !configured(below)
                {
                    say(below, utf8(&Path::new(&external.name).join(rest))?)?;
                }
            }
        }
    }
    Ok(())
}

/// What the container's own mounts are made of, for a restore.
pub(super) struct Sources<'a> {
    pub(super) spec: &'a Spec,
    pub(super) bundle: &'a Path,
    pub(super) notify: &'a Path,
    pub(super) cgroup: Option<&'a (Hierarchy, CgroupPath)>,
}

impl Sources<'_> {
    /// All of them.
    pub(super) fn all(&self) -> Vec<External> {
        all(self.spec, self.bundle, Some(self.notify), self.cgroup, binds_devices(self.spec))
    }

    /// Says what the names of the images stand for: what config.json has there, whatever the images say.
    pub(super) fn declare(&self, options: &mut Options) -> Result<()> {
        let machine = std::fs::read("/proc/self/mountinfo").call("read /proc/self/mountinfo")?;
        let points: Vec<PathBuf> = machine
            .split(|byte| *byte == b'\n')
            .filter_map(Mount::of)
            .map(|mount| PathBuf::from(OsStr::from_bytes(&unescape(mount.point))))
            .collect();
        for external in self.all() {
            // CRIU asks for a last name, which `.` and `..` are not, and finds no mount by way of a link.
            let real = external.source.canonicalize().ok();
            options.mount(&external.name, utf8(real.as_deref().unwrap_or(&external.source))?);
            let Some(real) = real.filter(|_| external.recursive) else { continue };
            for below in points.iter().filter(|point| **point != real && point.starts_with(&real)) {
                if let Ok(rest) = below.strip_prefix(&real) {
                    options.mount(utf8(&Path::new(&external.name).join(rest))?, utf8(below)?);
                }
            }
        }
        Ok(())
    }
}

/// In a user namespace, nodes of devices are the machine's.
fn binds_devices(spec: &Spec) -> bool {
    spec.namespace(LinuxNamespaceType::User) != Namespace::Inherit
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(
            crate::Code::Unsupported,
            format!("CRIU takes no path that is not UTF-8: {}", path.display()),
        )
    })
}
