//! `rcrun image unpack`: a bundle of an image. Uses: run, load, rcrun-image.

use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rcrun_image::bundle::RootFiles;
use rcrun_image::store::Store;
use rcrun_image::{Digest, Platform, flat};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::plan::Maps;
use rcrun_runtime::{Code, Error, Result, users};
use serde_json::{Value, json};

use super::{container, load, run, told};
use crate::Global;

/// `rcrun image unpack`
pub fn unpack(
    global: &Global,
    store: &Store,
    place: &Path,
    word: &OsStr,
    bundle: &Path,
    as_one: bool,
    quiet: bool,
) -> Result<()> {
    // Before the image is fetched, which takes time.
    if users::entered().is_some() && !as_one {
        let message =
            "unpack: an overlay that a user mounts is gone when rcrun ends: --flat writes the files";
        return Err(Error::new(Code::Usage, message));
    }
    let taken = |what: &str| {
        Error::new(
            Code::Exists,
            format!("unpack: {}: {what}: name a folder that is empty or not there", bundle.display()),
        )
    };
    match std::fs::read_dir(bundle).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(taken("is not empty")),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => return Err(taken("is no folder")),
        _ => {}
    }
    let (digest, hold) = load::fetch(global, store, word, load::place(word), &Platform::host(), quiet)?;
    let hold = hold.map_or_else(|| store.hold_image(&digest).map_err(told), Ok)?;
    let made = !bundle.exists();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(bundle)
        .call(format!("mkdir {}", bundle.display()))?;
    let bundle = bundle.canonicalize().call(format!("realpath {}", bundle.display()))?;
    let written = match as_one {
        true => flattened(global, store, &digest, &bundle),
        false => overlay(global, store, place, &digest, &bundle),
    };
    drop(hold);
    written.inspect_err(|_| {
        let _ = rustix::mount::unmount(bundle.join("rootfs"), rustix::mount::UnmountFlags::NOFOLLOW);
        for name in ["config.json", "rootfs", "upper", "work", "empty"] {
            let path = bundle.join(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
        if made {
            let _ = std::fs::remove_dir(&bundle);
        }
    })
}

fn flattened(global: &Global, store: &Store, digest: &Digest, bundle: &Path) -> Result<()> {
    let image = store.image(digest).map_err(told)?;
    let rootfs = folder(bundle, "rootfs")?;
    let into = std::fs::File::open(&rootfs).call(format!("open {}", rootfs.display()))?;
    let notes = flat::unpack(
        store,
        &image,
        std::os::fd::AsFd::as_fd(&into),
        &flat::Options { jail: load::jail(), ..flat::Options::default() },
    )
    .map_err(told)?;
    notes.into_iter().for_each(|note| global.log.warn(note));
    finish(global, store, digest, bundle)
}

fn overlay(global: &Global, store: &Store, place: &Path, digest: &Digest, bundle: &Path) -> Result<()> {
    for name in ["upper", "work", "rootfs"] {
        folder(bundle, name)?;
    }
    let record = store.require_record(digest).map_err(told)?;
    run::Stack::of(store, (digest, &record), bundle, None, false)?.mount_at(&bundle.join("rootfs"))?;
    finish(global, store, digest, bundle)?;
    // Now that there is a config.json, by which it is told that the bundle still is.
    let place = place.canonicalize().call(format!("realpath {}", place.display()))?;
    container::keep_for_bundle(store, &place, bundle, digest)
}

fn folder(bundle: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = bundle.join(name);
    std::fs::create_dir(&path).call(format!("mkdir {}", path.display())).map(|()| path)
}

fn finish(global: &Global, store: &Store, digest: &Digest, bundle: &Path) -> Result<()> {
    let image = store.image(digest).map_err(told)?;
    let root = RootFiles::open(&bundle.join("rootfs")).map_err(told)?;
    let converted = run::plain_config(&image, &root)?;
    for (label, _) in &converted.denied {
        global.log.warn(format!("label {label:?} of the image is left out: a runtime could act on it"));
    }
    for volume in &converted.volumes {
        root.make_folder(volume).map_err(|e| told(e.of(format_args!("volume {volume}"))))?;
    }
    let mut config = converted.whole();
    if let Some(maps) = users::entered() {
        in_user_namespace(&mut config, maps);
    }
    let text = format!("{config:#}\n");
    let path = bundle.join("config.json");
    std::fs::write(&path, text).call(format!("write {}", path.display()))
}

/// The bundle of an ordinary user: its files belong to ids of his, which are others inside.
fn in_user_namespace(config: &mut Value, maps: &Maps) {
    let lines = |map: &str| -> Vec<Value> {
        let numbers = |line: &str| line.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<u32>>();
        map.lines()
            .map(numbers)
            .map(|line| json!({ "containerID": line[0], "hostID": line[1], "size": line[2] }))
            .collect()
    };
    let linux = &mut config["linux"];
    linux["uidMappings"] = lines(&maps.uid).into();
    linux["gidMappings"] = lines(&maps.gid).into();
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user" }));
    }
}
