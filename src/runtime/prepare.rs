//! Opens what a plan's slots name: every path of the machine is resolved here, by the parent, before anything of the
//! container runs. Uses: idmap, plan, resolve, sys, words.

use crate::error::{CallContext, Context};
use crate::idmap;
use crate::plan::{IdMap, Plan, Source};
use crate::resolve::open_in_root;
use crate::sys::mount::{MountAttributes, set_attributes};
use crate::sys::namespace;
use crate::sys::trees::{Mounted, New, Wanted};
use crate::{Code, Error, Result, words};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What slots refer to that exists only at run time.
#[derive(Default)]
pub struct Means<'a> {
    /// The listening socket for `start`.
    pub listen: Option<OwnedFd>,
    /// pid and pidfd of the container's init.
    pub init: Option<(i32, BorrowedFd<'a>)>,
    /// Absolute path of the container's cgroup on the machine.
    pub cgroup: Option<PathBuf>,
    /// The folder that holds the NOTIFY_SOCKET.
    pub notify: Option<PathBuf>,
    /// The root as a tree that is mounted nowhere.
    pub root: Option<BorrowedFd<'a>>,
}

/// Open fds by slot. Of a late slot it is the source, opened now so that it is what was checked, and cloned by
/// `clone_late`.
pub fn prepare(plan: &Plan, means: &mut Means<'_>) -> Result<Vec<OwnedFd>> {
    plan.slots
        .iter()
        .map(|source| match plan.clones_inside && source.is_tree() {
            true => look(source, means),
            false => open(source, means),
        })
        .collect()
}

/// Where the tree of a slot is cloned from, where rcrun may clone none itself: looked at now, so that what is wrong is told
/// before anything is made, and cloned from init's mount namespace if the same file lies there.
fn look(source: &Source, means: &Means<'_>) -> Result<OwnedFd> {
    match source {
        Source::Root { path, .. } => open_root(path),
        Source::Bind { path, origin, .. } => of(open_path(path), origin, "bind"),
        Source::Device { path, major, minor, block, origin } => {
            of(open_device(path, *major, *minor, *block), origin, "device")
        }
        // Nothing of the machine is in it: a descriptor that says nothing.
        Source::FileSystem { .. } => open_path(Path::new("/")),
        _ => open_path(&tree_path(source, means)?),
    }
}

/// Looks at what a slot names on the machine, as `prepare` would, and makes and clones nothing.
pub fn examine(source: &Source) -> Result<()> {
    match source {
        Source::Root { .. } | Source::Bind { .. } | Source::Device { .. } => {
            look(source, &Means::default()).map(drop)
        }
        Source::Namespace { .. } => open(source, &mut Means::default()).map(drop),
        _ => Ok(()),
    }
}

/// The path on the machine of a slot's tree.
fn tree_path(source: &Source, means: &Means<'_>) -> Result<PathBuf> {
    match source {
        Source::Root { path, .. } | Source::Bind { path, .. } | Source::Device { path, .. } => {
            Ok(path.clone())
        }
        Source::Cgroup { .. } => means.cgroup.clone().ok_or_else(|| missing("a cgroup")),
        Source::NotifyFolder => means.notify.clone().ok_or_else(|| missing("a NOTIFY_SOCKET")),
        _ => Err(missing("a tree")),
    }
}

/// What is cloned in init's mount namespace, by slot; `opened` is what `prepare` gave.
pub fn wanted(plan: &Plan, opened: &[OwnedFd], means: &Means<'_>) -> Result<Vec<Option<Wanted>>> {
    let one = |(source, fd): (&Source, &OwnedFd)| {
        if !source.is_tree() {
            return Ok(None);
        }
        if let Source::FileSystem { kind, options, attributes, idmap, origin, .. } = source {
            return new(kind, options, *attributes, idmap.as_ref(), origin).map(|new| Some(Wanted::New(new)));
        }
        let (recursive, propagation) = match source {
            Source::Root { propagation, .. } => (true, *propagation),
            Source::Bind { recursive, propagation, .. } => (*recursive, *propagation),
            Source::Cgroup { .. } => (true, libc::MS_PRIVATE),
            _ => (false, libc::MS_PRIVATE),
        };
        let path = tree_path(source, means)?;
        let stat = rustix::fs::fstat(fd).call(format!("fstat {}", path.display()))?;
        let path = CString::new(path.into_os_string().into_vec())
            .map_err(|_| Error::new(Code::Config, "a path of config.json holds a NUL"))?;
        let file = (stat.st_dev, stat.st_ino);
        Ok(Some(Wanted::Mounted(Mounted { path, recursive, propagation, file })))
    };
    plan.slots.iter().zip(opened).map(one).collect()
}

/// A file system that is made inside, for its owners are those of a map below the container's own.
fn new(
    kind: &str,
    options: &[(String, Option<String>)],
    attributes: u32,
    idmap: Option<&IdMap>,
    origin: &str,
) -> Result<New> {
    let text = |word: &str| {
        CString::new(word).map_err(|_| Error::config(format!("{origin}/options"), "an option holds a NUL"))
    };
    let Some(IdMap::Own { maps, .. }) = idmap else {
        return Err(Error::new(
            Code::System,
            format!("{origin}: the plan gives {kind} no id map of its own"),
        ));
    };
    let pair =
        |(key, value): &(String, Option<String>)| Ok((text(key)?, value.as_deref().map(text).transpose()?));
    // Who makes it has the ids of rcrun's caller, and any other file system of a container begins as its root's.
    let roots =
        ["uid", "gid"].into_iter().filter(|key| kind == "tmpfs" && options.iter().all(|(k, _)| k != key));
    let roots: Vec<_> = roots.map(|key| (key.to_string(), Some("0".to_string()))).collect();
    Ok(New {
        kind: text(kind)?,
        // After them: an option is told by its number.
        options: options.iter().chain(&roots).map(pair).collect::<Result<_>>()?,
        attributes,
        maps: [&maps.uid, &maps.gid].map(|map| map.clone().into_bytes()),
    })
}

/// The tree of a late slot.
pub fn clone_late(source: &Source, opened: BorrowedFd<'_>) -> Result<OwnedFd> {
    match source {
        Source::Bind { path, recursive, propagation, origin, idmap, .. } => {
            let tree = clone_tree(opened, Path::new(""), *recursive).context(path.display());
            let tree = of(tree, origin, "bind")?;
            set_propagation(tree.as_fd(), path, *propagation)?;
            if let Some(map) = idmap {
                let origin = origin.strip_suffix("/source").unwrap_or(origin);
                idmap::apply(tree.as_fd(), map, origin)?;
            }
            Ok(tree)
        }
        Source::FileSystem { kind, attributes, idmap, origin, .. } => {
            let flags = MountAttrFlags::from_bits_retain(*attributes);
            let mount = fsmount(opened, FsMountFlags::FSMOUNT_CLOEXEC, flags)
                .call(format!("{origin}: fsmount {kind}"))
                .map_err(|error| error.at(origin.clone()))?;
            if let Some(map) = idmap {
                idmap::apply(mount.as_fd(), map, origin)?;
            }
            Ok(mount)
        }
        _ => {
            let tree = clone_tree(opened, Path::new(""), true)?;
            set_propagation(tree.as_fd(), Path::new("the cgroup"), libc::MS_PRIVATE)?;
            Ok(tree)
        }
    }
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call(format!("open {}", path.display()))
}

fn open(source: &Source, means: &mut Means<'_>) -> Result<OwnedFd> {
    match source {
        Source::Root { path, clone, propagation } => match means.root {
            Some(tree) => mounted_nowhere(tree, path, *clone, *propagation),
            None => root(path, *clone, *propagation),
        },
        Source::Bind { path, origin, late, .. } => {
            let opened = of(open_path(path), origin, "bind")?;
            if *late { Ok(opened) } else { clone_late(source, opened.as_fd()) }
        }
        Source::FileSystem { kind, options, origin, late, .. } => {
            let context = configured(kind, options, origin).map_err(|error| error.at(origin.clone()))?;
            if *late { Ok(context) } else { clone_late(source, context.as_fd()) }
        }
        Source::Device { path, major, minor, block, origin } => {
            of(device(path, *major, *minor, *block), origin, "device")
        }
        Source::Cgroup { late } => {
            let opened = open_path(means.cgroup.as_deref().ok_or_else(|| missing("a cgroup"))?)?;
            if *late { Ok(opened) } else { clone_late(source, opened.as_fd()) }
        }
        Source::Namespace { path, kind, origin } => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = rustix::fs::open(path, flags, Mode::empty()).call(format!("open {}", path.display()));
            let file = of(file, origin, "namespace")?;
            let found = namespace::kind(file.as_fd());
            if found.as_ref().is_ok_and(|found| found == kind) {
                return Ok(file);
            }
            let text = format!("{} is not a {}", path.display(), words::kinds_text(*kind as u32));
            let hint = match found {
                Ok(found) => format!("it is a {}", words::kinds_text(found as u32)),
                Err(_) => "it is no namespace at all: the path is one like /proc/PID/ns/net, or a file that such a one is bound on".into(),
            };
            Err(Error::config(format!("{origin}/path"), text).hint(Some(&hint)))
        }
        Source::Init => {
            let (_, pidfd) = means.init.ok_or_else(|| missing("a running init"))?;
            rustix::io::fcntl_dupfd_cloexec(pidfd, 3).call("dup of the pidfd")
        }
        Source::InitRoot => {
            let (pid, _) = means.init.ok_or_else(|| missing("a running init"))?;
            let path = format!("/proc/{pid}/root");
            rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .call(format!("open {path}"))
        }
        Source::HostMountNamespace => {
            let path = "/proc/self/ns/mnt";
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .call(format!("open {path}"))
        }
        Source::Procfs => private_proc(),
        Source::Listen => means.listen.take().ok_or_else(|| missing("a listening socket")),
        Source::NotifyFolder => {
            let path = means.notify.as_deref().ok_or_else(|| missing("a NOTIFY_SOCKET"))?;
            let tree = clone_tree(rustix::fs::CWD, path, false)?;
            set_propagation(tree.as_fd(), path, libc::MS_PRIVATE)?;
            Ok(tree)
        }
    }
}

/// A file system that is made and not yet mounted.
fn configured(kind: &str, options: &[(String, Option<String>)], origin: &str) -> Result<OwnedFd> {
    let what = |call: &str| format!("{origin}: {call} of {kind}");
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).call(what("fsopen"))?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key, value.as_str())
                .call(what(&format!("fsconfig {key}={value}")))?,
            None => fsconfig_set_flag(context.as_fd(), key).call(what(&format!("fsconfig {key}")))?,
        }
    }
    fsconfig_create(context.as_fd()).call(what("fsconfig FSCONFIG_CMD_CREATE"))?;
    Ok(context)
}

/// A procfs that nobody else can reach.
pub fn private_proc() -> Result<OwnedFd> {
    let context = match fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(rustix::io::Errno::PERM) => return machines_proc(),
        other => other.call("fsopen proc")?,
    };
    fsconfig_create(context.as_fd()).call("fsconfig proc")?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).call("fsmount proc")
}

/// The machine's procfs, for an ordinary user, who can mount none.
fn machines_proc() -> Result<OwnedFd> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).call("open /proc")?;
    match rustix::fs::fstatfs(&proc).call("fstatfs /proc")?.f_type as i64 {
        PROC_SUPER_MAGIC => Ok(proc),
        _ => Err(Error::new(Code::Host, "/proc of this machine is not a procfs")),
    }
}

fn at(origin: &str, otherwise: &str) -> String {
    let pointer = origin.split('#').next().unwrap_or_default();
    if pointer.is_empty() { otherwise.to_string() } else { pointer.to_string() }
}

/// The failure of what the field at `origin` names.
fn of<T>(result: Result<T>, origin: &str, otherwise: &str) -> Result<T> {
    let pointer = at(origin, otherwise);
    result.map_err(|error| match pointer.starts_with('/') {
        true => error.context(&pointer).at(pointer),
        false => error.context(pointer),
    })
}

fn missing(what: &str) -> Error {
    Error::new(Code::System, format!("the plan names {what} that this start does not have"))
}

/// The folder that /root/path names.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    // Not through a symlink as the last component: the root is what config.json says, not what lies there says.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .call(format!("config.json: /root/path: open {}", path.display()))
        .map_err(|e| {
            let link = e.errno() == Some(libc::ENOTDIR) && path.is_symlink();
            e.at("/root/path").hint(link.then_some("it is a symbolic link: name the folder that it leads to"))
        })
}

fn root(path: &Path, clone: bool, propagation: u64) -> Result<OwnedFd> {
    let folder = open_root(path)?;
    if !clone {
        return Ok(folder);
    }
    let tree =
        clone_tree(folder.as_fd(), Path::new(""), true).context(format!("/root/path: {}", path.display()))?;
    set_propagation(tree.as_fd(), path, propagation)?;
    Ok(tree)
}

/// Init takes the tree itself: nobody else mounts on it.
fn mounted_nowhere(tree: BorrowedFd<'_>, path: &Path, attached: bool, propagation: u64) -> Result<OwnedFd> {
    if attached {
        set_propagation(tree, path, propagation)?;
    }
    rustix::io::fcntl_dupfd_cloexec(tree, 3).call("dup of the root")
}

fn clone_tree(at: BorrowedFd<'_>, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    rustix::mount::open_tree(at, path, flags).call(format!("open_tree {}", path.display()))
}

fn set_propagation(tree: BorrowedFd<'_>, path: &Path, propagation: u64) -> Result<()> {
    if propagation == 0 {
        return Ok(());
    }
    let attributes = MountAttributes { propagation, ..MountAttributes::default() };
    set_attributes(tree, true, &attributes).call(format!("mount_setattr of the clone of {}", path.display()))
}

/// Inodes are checked, not names (CVE-2025-31133): /dev/null is character device 1:3 or it is refused.
fn open_device(path: &Path, major: u32, minor: u32, block: bool) -> Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .call(format!("open {}", path.display()))?;
    let stat = rustix::fs::fstat(&file).call(format!("fstat {}", path.display()))?;
    let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != kind || found != (major, minor) {
        let name = if block { "block" } else { "character" };
        return Err(Error::new(
            Code::Host,
            format!("{} of this machine is not the {name} device {major}:{minor}", path.display()),
        ));
    }
    Ok(file)
}

fn device(path: &Path, major: u32, minor: u32, block: bool) -> Result<OwnedFd> {
    let file = open_device(path, major, minor, block)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&file, "", flags).call(format!("open_tree {}", path.display()))?;
    // Where the machine's /dev is shared, what the container mounts on its clone would be mounted on the machine's node.
    set_propagation(tree.as_fd(), path, libc::MS_PRIVATE)?;
    Ok(tree)
}

/// A file of the container that is read whole: a regular file of at most `limit` bytes, or nothing.
pub fn read_in_root(root: BorrowedFd<'_>, path: &str, limit: usize) -> Option<Vec<u8>> {
    read_whole(open_in_root(root, path, OFlags::PATH).ok()?.as_fd(), limit)
}

/// The same of a file that an O_PATH fd refers to.
pub fn read_whole(found: BorrowedFd<'_>, limit: usize) -> Option<Vec<u8>> {
    use std::io::Read;
    let (file, stat) = regular_file(found).ok()?;
    let size = usize::try_from(stat.st_size).ok().filter(|size| *size <= limit)?;
    // With room for one byte more, the second read finds the end.
    let mut bytes = Vec::with_capacity(size + 1);
    file.take(limit as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Opens what an O_PATH fd refers to for reading, if it is a regular file: a FIFO would hang us (CVE-2018-15664's class),
/// and opening a device node is enough to do something, such as to start a watchdog.
pub fn regular_file(found: BorrowedFd<'_>) -> rustix::io::Result<(std::fs::File, rustix::fs::Stat)> {
    let stat = rustix::fs::fstat(found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(rustix::io::Errno::INVAL);
    }
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    // A file that somebody else has leased is not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok((rustix::fs::open(link.as_str(), flags, Mode::empty())?.into(), stat))
}
