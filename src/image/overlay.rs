//! The overlay that an image's layers make: its options as a mount of config.json has them, and a look at it before there
//! is a container. Uses: error.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::{Code, Error, Result};

/// What the kernel stacks in one overlay (OVL_MAX_STACK).
pub const LAYERS_MAX: usize = 500;

/// What a container writes, on top of the layers.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    /// The folder that takes it.
    pub folder: &'a Path,
    /// An empty folder of the same file system, which the kernel works in.
    pub work: &'a Path,
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
            if path.contains(['\\', ',']) {
                let message = format!("{key} {path:?}: an overlay takes no backslash and no comma here");
                return Err(Error::new(Code::Usage, message));
            }
            options.push(format!("{key}={path}"));
        }
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
    let options = options(layers, None, rootless)?;
    let failed = |call: &str, e: rustix::io::Errno| Error::call(format_args!("overlay: {call}"), e);
    let context =
        rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen", e))?;
    for option in options.iter().skip(1) {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value),
            None => rustix::mount::fsconfig_set_flag(&context, option.as_str()),
        }
        .map_err(|e| failed(&format!("fsconfig {option}"), e))?;
    }
    // One by one, since fsconfig(2) takes 255 bytes at a time: then nothing is escaped either.
    for layer in layers.iter().rev() {
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", *layer)
            .map_err(|e| failed(&format!("fsconfig lowerdir+ {}", layer.display()), e))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(|e| failed("fsconfig create", e))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|e| failed("fsmount", e))
}

fn text(path: &Path) -> Result<&str> {
    let usage = |why| Err(Error::new(Code::Usage, format!("overlay: {}: {why}", path.display())));
    match path.to_str() {
        None => usage("not UTF-8"),
        Some(text) if !text.starts_with('/') => usage("not an absolute path"),
        Some(text) => Ok(text),
    }
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
        let upper = Upper { folder: Path::new("/c/upper:1"), work: Path::new("/c/work") };
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
        let upper = Upper { folder: Path::new("/u"), work: Path::new("/w") };
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
}
