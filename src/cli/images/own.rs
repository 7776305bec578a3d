//! What rcrun itself puts into a container's upper folder before the container begins, and the record of it: neither is a
//! change of the container's. Uses: rcrun-image.
//!
//! ```text
//! made      of each file and folder its mode, owner, group and path, ended by a NUL
//! volumes   the paths of the image's volumes, each ended by a NUL
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rcrun_image::bundle::{Converted, RootFiles};
use rcrun_image::layer::Made;
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result};
use serde_json::Value;

use super::container::is_empty;
use super::run::write;
use super::told;

const MADE: &str = "made";
const VOLUMES: &str = "volumes";
/// The folder of volumes below mounts.
pub const NESTED: &str = "nested";

/// Makes the volumes and what the start would make in `root`: mount points, and the working folder; and the record of what
/// is in the folder `upper` of `folder` then, beside it. What cannot be made the start
/// meets again, and tells of it.
pub fn make(root: &RootFiles, converted: &Converted, folder: &Path) -> Result<()> {
    let config = &converted.config;
    let mut real = Vec::new();
    for volume in &converted.volumes {
        let path = root.make_folder(volume).map_err(|e| told(e.of(format_args!("volume {volume}"))))?;
        real.extend_from_slice(path.as_os_str().as_bytes());
        real.push(0);
    }
    nested(root, &converted.nested, folder)?;
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_string();
    let mounts: Vec<&Value> = config["mounts"].as_array().into_iter().flatten().collect();
    let places: Vec<String> = mounts.iter().map(|mount| text(mount, "destination")).collect();
    let is_covered = |path: &str| places.iter().any(|place| is_below(path, place));
    for (mount, place) in mounts.iter().zip(&places) {
        let file = text(mount, "type") == "bind"
            && Path::new(&text(mount, "source")).metadata().is_ok_and(|source| !source.is_dir());
        let _ = match (is_covered(place), file) {
            (true, _) => Ok(()),
            (false, true) => root.make_file(place),
            (false, false) => root.ensure_folder(place),
        };
    }
    let cwd = text(&config["process"], "cwd");
    if cwd != "/" && !is_covered(&cwd) && !places.contains(&cwd) {
        let _ = root.ensure_folder(&cwd);
    }
    if std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty()) {
        let _ = root.ensure_folder("/run/notify");
    }
    let mut made = Vec::new();
    let upper = folder.join("upper");
    if !is_empty(&upper).call(format!("read {}", upper.display()))? {
        tell(&upper, b"", &mut made)?;
    }
    for (name, record) in [(MADE, made), (VOLUMES, real)] {
        if !record.is_empty() {
            write(&folder.join(name), &record)?;
        }
    }
    Ok(())
}

/// The volumes that are mounted below others, each with what the image has there.
fn nested(root: &RootFiles, paths: &[String], folder: &Path) -> Result<()> {
    let all = folder.join(NESTED);
    for (number, path) in paths.iter().enumerate() {
        let one = all.join(number.to_string());
        let call = || format!("mkdir {}", one.display());
        std::fs::DirBuilder::new().recursive(true).create(&one).call(call())?;
        // The caller's umask is not the container's.
        std::fs::set_permissions(&one, std::fs::Permissions::from_mode(0o755)).call(call())?;
        let into = std::fs::File::open(&one).call(format!("open {}", one.display()))?;
        root.copy_folder(path, into.as_fd()).map_err(told)?;
    }
    Ok(())
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder.trim_end_matches('/'))
        .is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

/// All that is in `folder`, the folder `path` of the root.
fn tell(folder: &Path, path: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let call = || format!("read {}", folder.display());
    for entry in std::fs::read_dir(folder).call(call())? {
        let entry = entry.call(call())?;
        let data = entry.metadata().call(call())?;
        let mut path = path.to_vec();
        path.extend_from_slice(entry.file_name().as_bytes());
        out.extend_from_slice(format!("{:o} {} {} ", data.mode(), data.uid(), data.gid()).as_bytes());
        out.extend_from_slice(&path);
        out.push(0);
        if data.is_dir() {
            path.push(b'/');
            tell(&entry.path(), &path, out)?;
        }
    }
    Ok(())
}

/// What was made in the upper folder of the container whose folder in the store is `folder`.
pub fn made(folder: &Path) -> Result<BTreeMap<Vec<u8>, Made>> {
    let path = folder.join(MADE);
    let one = |line: &[u8]| {
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let mut number = |radix| {
            let word = std::str::from_utf8(words.next()?).ok()?;
            u32::from_str_radix(word, radix).ok()
        };
        let made = Made { mode: number(8)?, uid: number(10)?, gid: number(10)? };
        Some((words.next()?.to_vec(), made))
    };
    let wrong = || Error::new(Code::System, format!("{} is not what rcrun writes", path.display()));
    lines(&path)?.iter().map(|line| one(line).ok_or_else(wrong)).collect()
}

/// The volumes of the container whose folder in the store is `folder`.
pub fn volumes(folder: &Path) -> Result<BTreeSet<Vec<u8>>> {
    Ok(lines(&folder.join(VOLUMES))?.into_iter().collect())
}

fn lines(path: &Path) -> Result<Vec<Vec<u8>>> {
    let text = match std::fs::read(path) {
        // Nothing was made.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.call(format!("read {}", path.display()))?,
    };
    Ok(text.split(|byte| *byte == 0).filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// A path of an upper folder, as the container names it.
pub fn shown(path: &[u8]) -> String {
    format!("/{}", OsStr::from_bytes(path).to_string_lossy())
}
