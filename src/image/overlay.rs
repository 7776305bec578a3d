//! The overlay that an image's layers make: its options as a mount of config.json has them, and a look at it before there
//! is a container. Uses: error.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::{Code, Error, Result};

/// What the kernel stacks in one overlay (OVL_MAX_STACK).
pub const LAYERS_MAX: usize = 500;

/// fsconfig(2) copies a value with its NUL into 256 bytes.
const VALUE_MAX: usize = 255;

/// What a container writes, on top of the layers.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    /// The folder that takes it.
    pub folder: &'a Path,
    /// An empty folder of the same file system, which the kernel works in.
    pub work: &'a Path,
    /// The folder is removed as soon as the overlay is unmounted, so that nothing has to reach the disk: not by fsync(2)
    /// in it, and not by the unmount, which else waits for all that the file system has to write.
    pub volatile: bool,
}

/// The options of an overlay of `layers`, lowest first as an image lists them, under `upper`. Without one it is read-only,
/// which the kernel grants from two layers on. `rootless` takes marks of whiteouts from `user.overlay.` attributes.
pub fn options(layers: &[&Path], upper: Option<Upper<'_>>, rootless: bool) -> Result<Vec<String>> {
    let least = if upper.is_some() { 1 } else { 2 };
    if layers.len() < least {
        let count = layers.len();
        let message =
            format!("an overlay takes {least} layers or more, and there are {count}; add an empty folder");
        return Err(Error::new(Code::Usage, message));
    }
    if layers.len() > LAYERS_MAX {
        let message = format!("{} layers are more than the {LAYERS_MAX} of an overlay", layers.len());
        return Err(Error::new(Code::Limit, message));
    }
    let mut lower = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        lower.push(escaped(text(layer)?));
    }
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    if let Some(upper) = upper {
        for (key, path) in [("upperdir", upper.folder), ("workdir", upper.work)] {
            let path = text(path)?;
            // Kernels differ in whether they take backslashes away here, and commas end an option for mount(2).
            if has_separator(Path::new(path)) {
                let message = format!("{key} {path:?}: an overlay takes no backslash and no comma here");
                return Err(Error::new(Code::Usage, message));
            }
            options.push(format!("{key}={path}"));
        }
        options.extend(upper.volatile.then(|| "volatile".to_string()));
    }
    // Whatever the kernel's defaults are: the upper folder is complete without the layers, so that it becomes a layer; and
    // redirections that an image brings are not followed.
    options.extend(["redirect_dir=nofollow", "metacopy=off", "index=off"].map(String::from));
    options.extend(rootless.then(|| "userxattr".to_string()));
    Ok(options)
}

/// A look at the root that `layers` make, lowest first, whiteouts obeyed: an fd for [`crate::bundle::RootFiles`], mounted
/// nowhere. It needs CAP_SYS_ADMIN from two layers on.
pub fn look(layers: &[&Path], rootless: bool) -> Result<OwnedFd> {
    if let [layer] = layers {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return rustix::fs::open(*layer, flags, Mode::empty())
            .map_err(|e| Error::call(format_args!("open {}", layer.display()), e));
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    detached(layers, None, rootless, attributes)
}

/// The root of a container of `layers`, lowest first, under `upper`: mounted nowhere, to be looked at and written to by
/// [`crate::bundle::RootFiles`], and put in its place by move_mount(2).
pub fn mount(layers: &[&Path], upper: Upper<'_>, rootless: bool) -> Result<OwnedFd> {
    detached(layers, Some(upper), rootless, MountAttrFlags::empty())
}

/// Whether [`mount`] failed of `error` since a kernel before 6.7 takes a page of options and no more, fsconfig(2) 255 bytes
/// for a path, and neither a path that looks like several: [`mount_at`] can do it.
pub fn is_for_mount(error: &Error, upper: Upper<'_>) -> bool {
    error.code() == Code::Limit
        || error.errno() == Some(Errno::INVAL.raw_os_error())
        || [upper.folder, upper.work].iter().any(|path| has_separator(path))
}

/// The same, mounted at `at`; where fsconfig(2) does not do, by mount(2), with the layers named by the numbers of their fds.
pub fn mount_at(layers: &[&Path], upper: Upper<'_>, at: &Path, rootless: bool) -> Result<()> {
    let tree = match mount(layers, upper, rootless) {
        Ok(tree) => tree,
        Err(error) if is_for_mount(&error, upper) => {
            return by_fds(layers, upper, at, rootless).map_err(|again| match again.errno() {
                // What is wrong with more than the way of saying it was told better before.
                Some(_) => error,
                None => again,
            });
        }
        Err(error) => return Err(error),
    };
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", rustix::fs::CWD, at, flags)
        .map_err(|e| Error::call(format_args!("overlay: move_mount to {}", at.display()), e))
}

fn by_fds(layers: &[&Path], upper: Upper<'_>, at: &Path, rootless: bool) -> Result<()> {
    let folder = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| Error::call(format_args!("open {}", path.display()), e))
    };
    // Below /proc/self/fd the number of an fd is a path.
    let number = |fd: &OwnedFd| PathBuf::from(format!("/{}", fd.as_raw_fd()));
    let fds = layers.iter().map(|layer| folder(layer)).collect::<Result<Vec<_>>>()?;
    let volatile = upper.volatile;
    let [upper, work] = [folder(upper.folder)?, folder(upper.work)?];
    let [upper_number, work_number] = [number(&upper), number(&work)];
    let numbers: Vec<PathBuf> = fds.iter().map(number).collect();
    let numbers: Vec<&Path> = numbers.iter().map(PathBuf::as_path).collect();
    let by_number = Upper { folder: &upper_number, work: &work_number, volatile };
    let options =
        options(&numbers, Some(by_number), rootless)?.join(",").replace("=/", "=").replace(":/", ":");
    let options = CString::new(options).map_err(|_| Error::call("overlay: options", Errno::INVAL))?;
    let at = std::path::absolute(at).map_err(|e| Error::call("getcwd", e))?;
    let here = folder(Path::new("."))?;
    rustix::process::chdir("/proc/self/fd").map_err(|e| Error::call("chdir /proc/self/fd", e))?;
    let flags = rustix::mount::MountFlags::empty();
    let mounted = rustix::mount::mount("overlay", &at, "overlay", flags, options.as_c_str());
    rustix::process::fchdir(&here).map_err(|e| Error::call("fchdir", e))?;
    mounted.map_err(|e| Error::call(format_args!("mount overlay at {}", at.display()), e))
}

fn detached(
    layers: &[&Path],
    upper: Option<Upper<'_>>,
    rootless: bool,
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let failed = |call: &str, e: Errno| Error::call(format_args!("overlay: {call}"), e);
    let context =
        rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen", e))?;
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(&context, key, value)
            .map_err(|e| failed(&format!("fsconfig {key}={value}"), e))
    };
    // Or mountinfo shows `none`.
    set("source", "overlay")?;
    for option in options(layers, upper, rootless)? {
        match option.split_once('=') {
            // Since Linux 6.7: one by one, and not escaped.
            Some(("lowerdir", value)) if value.len() > VALUE_MAX => {
                for layer in layers.iter().rev().map(|layer| text(layer)) {
                    set("lowerdir+", short("a layer", layer?)?)?;
                }
            }
            Some((key, value)) => set(key, short(key, value)?)?,
            None => rustix::mount::fsconfig_set_flag(&context, option.as_str())
                .map_err(|e| failed(&format!("fsconfig {option}"), e))?,
        }
    }
    rustix::mount::fsconfig_create(&context).map_err(|e| failed("fsconfig create", e))?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|e| failed("fsmount", e))
}

/// Whether this path cannot be said in an option, and a number has to stand for it.
fn has_separator(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|b| matches!(b, b'\\' | b','))
}

fn text(path: &Path) -> Result<&str> {
    let usage = |why| Err(Error::new(Code::Usage, format!("overlay: {}: {why}", path.display())));
    match path.to_str() {
        None => usage("not UTF-8"),
        Some(text) if !text.starts_with('/') => usage("not an absolute path"),
        Some(text) => Ok(text),
    }
}

fn short<'a>(what: &str, value: &'a str) -> Result<&'a str> {
    if value.len() > VALUE_MAX {
        let message = format!("overlay: {what} has {} bytes: the kernel takes {VALUE_MAX}", value.len());
        return Err(Error::new(Code::Limit, message));
    }
    Ok(value)
}

/// A layer as lowerdir takes it: a colon separates, a comma ends an option for mount(2).
fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '\\' | ':' | ',') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::bundle::RootFiles;

    #[test]
    fn the_last_layer_of_an_image_comes_first() {
        let layers = ["/s/a", "/s/b:1", "/s/c\\,"].map(Path::new);
        let upper = Upper { folder: Path::new("/c/upper:1"), work: Path::new("/c/work"), volatile: false };
        assert_eq!(
            options(&layers, Some(upper), false).unwrap(),
            [
                "lowerdir=/s/c\\\\\\,:/s/b\\:1:/s/a",
                "upperdir=/c/upper:1",
                "workdir=/c/work",
                "redirect_dir=nofollow",
                "metacopy=off",
                "index=off",
            ]
        );
        assert_eq!(options(&layers, None, true).unwrap().last().unwrap(), "userxattr");
    }

    #[test]
    fn what_no_kernel_takes_is_refused() {
        let upper = Upper { folder: Path::new("/u"), work: Path::new("/w"), volatile: false };
        let many = vec![Path::new("/x"); 501];
        let comma = Upper { folder: Path::new("/u,x"), ..upper };
        let a = Path::new("/a");
        for (layers, upper, why) in [
            (&[][..], Some(upper), "an overlay takes 1 layers or more, and there are 0; add an empty folder"),
            (&[a], None, "an overlay takes 2 layers or more, and there are 1; add an empty folder"),
            (&many[..], None, "501 layers are more than the 500 of an overlay"),
            (&[Path::new("a")], Some(upper), "overlay: a: not an absolute path"),
            (&[a], Some(comma), "upperdir \"/u,x\": an overlay takes no backslash and no comma here"),
        ] {
            assert_eq!(options(layers, upper, false).unwrap_err().to_string(), why);
        }
    }

    /// As root.
    #[test]
    fn a_look_at_the_layers_sees_whiteouts_and_not_below_them() {
        let place = tempfile::tempdir().unwrap();
        // Characters that lowerdir gives a meaning, and a path longer than fsconfig takes for all layers at once.
        let layers = ["a:", "b,\\", "c"].map(|name| place.path().join(name).join("x".repeat(90)));
        for layer in &layers {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(layers[0].join("etc/passwd"), "web:x:1:1:::\n").unwrap();
        fs::write(layers[0].join("etc/group"), "low").unwrap();
        fs::write(layers[1].join("etc/group"), "middle").unwrap();
        let whiteout = layers[2].join("etc/passwd");
        let device = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, whiteout, device, Mode::empty(), 0).unwrap();
        symlink("../../group", layers[2].join("etc/link")).unwrap();
        let paths: Vec<&Path> = layers.iter().map(|layer| layer.as_path()).collect();
        let root = RootFiles::new(look(&paths, false).unwrap());
        assert_eq!(root.read("/etc/passwd").unwrap(), None);
        assert_eq!(root.read("/etc/group").unwrap().unwrap(), b"middle");
        assert_eq!(root.read("/etc/link").unwrap(), None);
        let root = RootFiles::new(look(&paths[..2], false).unwrap());
        assert_eq!(root.read("/etc/passwd").unwrap().unwrap(), b"web:x:1:1:::\n");
        let root = RootFiles::new(look(&paths[..2], true).unwrap());
        assert_eq!(root.read("/etc/group").unwrap().unwrap(), b"middle");
        let root = RootFiles::new(look(&paths[..1], false).unwrap());
        assert_eq!(root.read("/etc/group").unwrap().unwrap(), b"low");
        assert!(look(&[], false).is_err());
    }

    /// As root.
    #[test]
    fn what_is_written_to_a_mounted_root_lies_in_the_upper_folder_alone() {
        let place = tempfile::tempdir().unwrap();
        let [low, upper, work] = ["low", "upper", "work"].map(|name| place.path().join(name));
        for folder in [&low.join("data"), &upper, &work] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(low.join("data/file"), "seed").unwrap();
        let layers = [low.as_path()];
        let root = RootFiles::new(
            mount(&layers, Upper { folder: &upper, work: &work, volatile: false }, false).unwrap(),
        );
        root.make_folder("/data/new").unwrap();
        assert_eq!(root.read("/data/file").unwrap().unwrap(), b"seed");
        assert!(upper.join("data/new").is_dir() && !low.join("data/new").exists());
        let deep = place.path().join("x".repeat(200)).join("y".repeat(60));
        fs::create_dir_all(&deep).unwrap();
        let error = mount(&layers, Upper { folder: &deep, work: &work, volatile: false }, false)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("overlay: upperdir has ") && error.ends_with("the kernel takes 255"),
            "{error}"
        );
    }

    /// As root.
    #[test]
    fn hundreds_of_layers_are_mounted_the_last_one_first() {
        let place = tempfile::tempdir().unwrap();
        let layers: Vec<_> = (0..LAYERS_MAX).map(|i| place.path().join(format!("layer{i}"))).collect();
        for (i, layer) in layers.iter().enumerate() {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join("last"), i.to_string()).unwrap();
            fs::write(layer.join(i.to_string()), "").unwrap();
        }
        let paths: Vec<&Path> = layers.iter().map(|layer| layer.as_path()).collect();
        let root = RootFiles::new(look(&paths, false).unwrap());
        assert_eq!(root.read("/last").unwrap().unwrap(), b"499");
        for i in [0, 250, 499] {
            assert!(root.read(&format!("/{i}")).unwrap().is_some(), "layer {i}");
        }
    }

    type Way = fn(&[&Path], Upper<'_>, &Path, bool) -> Result<()>;

    /// As root. In a thread of its own, whose mounts and working folder are nobody else's.
    #[test]
    fn a_kernel_that_takes_a_page_of_options_takes_hundreds_of_layers_with_long_names() {
        for way in [mount_at as Way, by_fds] {
            let check = move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("as root");
                let private =
                    rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
                rustix::mount::mount_change("/", private).unwrap();
                let place = tempfile::tempdir().unwrap();
                let long = place.path().join("u".repeat(200)).join("v".repeat(100));
                let [upper, work, root] = ["upper", "work", "root"].map(|name| long.join(name));
                for folder in [&upper, &work, &root] {
                    fs::create_dir_all(folder).unwrap();
                }
                let layers: Vec<PathBuf> = (0..300)
                    .map(|i| place.path().join(format!("a, rather: long \\ name {i:0200}")))
                    .collect();
                for (i, layer) in layers.iter().enumerate() {
                    fs::create_dir(layer).unwrap();
                    fs::write(layer.join(i.to_string()), "").unwrap();
                    fs::write(layer.join("all"), i.to_string()).unwrap();
                }
                let paths: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
                let here = std::env::current_dir().unwrap();
                way(&paths, Upper { folder: &upper, work: &work, volatile: false }, &root, false).unwrap();
                assert_eq!(std::env::current_dir().unwrap(), here);
                assert_eq!(fs::read_dir(&root).unwrap().count(), 301);
                assert_eq!(fs::read_to_string(root.join("all")).unwrap(), "299");
                fs::write(root.join("all"), "new").unwrap();
                assert_eq!(fs::read_to_string(upper.join("all")).unwrap(), "new");
                rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH).unwrap();
            };
            std::thread::spawn(check).join().unwrap();
        }
    }
}
