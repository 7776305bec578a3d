//! The verbs of `rcrun image`. Uses: rcrun-image, rcrun-registry.

pub mod commit;
pub mod container;
pub mod load;
mod own;
mod progress;
mod registry;
pub mod run;
pub mod show;
mod table;
mod tree;
mod unpack;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rcrun_image::source::Image;
use rcrun_image::store::Store;
use rcrun_image::{Digest, Name};
use rcrun_runtime::{Code, Error, Result, users};
use serde_json::json;

use crate::args::{ImageVerb, Table, image};
use crate::{ExitCode, Global, output};

/// `rcrun image`
#[inline(never)]
pub fn image(global: &Global, args: &image::Image) -> Result<ExitCode> {
    if let ImageVerb::List { format, quiet } = &args.verb
        && args.store.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    {
        // A word that was mistyped makes no store.
        return show::list(None, *format, *quiet).map(|()| ExitCode::SUCCESS);
    }
    let store = open(&args.store)?;
    match &args.verb {
        ImageVerb::List { format, quiet } => show::list(Some(&store), *format, *quiet)?,
        ImageVerb::Inspect { image } => show::inspect(&store, image)?,
        ImageVerb::History { image, format } => show::history(&store, image, *format)?,
        ImageVerb::Layers { image, depth, format } => {
            let digest = find(&store, image)?;
            tree::layers(&store, &digest, *depth as usize, *format)?;
        }
        ImageVerb::Tag { image, name } => {
            let digest = find(&store, image)?;
            store.tag(&parse(name)?, &digest).map_err(told)?;
        }
        ImageVerb::Remove { images, quiet } => {
            for image in images {
                remove(global, &store, &args.store, image, *quiet)?;
            }
        }
        ImageVerb::Prune { quiet, format } => prune(&store, &args.store, *quiet, *format)?,
        ImageVerb::Fsck { repair, quiet, format } => return fsck(&store, *repair, *quiet, *format),
        ImageVerb::Load { from, names, platform, quiet } => {
            load::load(global, &store, from, names, platform.as_deref(), *quiet)?;
        }
        ImageVerb::Pull { name, platform, plain_http, quiet } => {
            registry::pull(global, &store, name, platform.as_deref(), *plain_http, *quiet)?;
        }
        ImageVerb::Push { image, name, plain_http, quiet } => {
            registry::push(&store, image, name.as_deref(), *plain_http, *quiet)?;
        }
        ImageVerb::Save { images, output } => save(&store, images, output.as_deref())?,
        ImageVerb::Unpack { image, bundle, flat, quiet } => {
            unpack::unpack(global, &store, &args.store, image, bundle, *flat, *quiet)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Who is not root becomes root of a user namespace of his own: files have the owners there that an image gives them.
pub fn become_root() -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { users::enter() }
}

/// Opens the store.
pub fn open(path: &Path) -> Result<Store> {
    become_root()?;
    Store::open(path).map_err(told)
}

/// Opens the store for a start, which has no time to clear all of it.
pub fn open_in_haste(path: &Path) -> Result<Store> {
    Store::open_in_haste(path).map_err(told)
}

/// An error of rcrun-image in the classes of rcrun.
pub fn told(error: rcrun_image::Error) -> Error {
    use rcrun_image::Code as Image;
    let code = match error.code() {
        Image::Usage | Image::Ambiguous => Code::Usage,
        Image::NotFound | Image::Platform => Code::NotFound,
        Image::Unsupported => Code::Unsupported,
        Image::Invalid | Image::Limit => Code::Config,
        Image::Damaged | Image::Denied | Image::System => Code::System,
    };
    let told = Error::new(code, error.to_string());
    match error.errno() {
        Some(errno) => told.with_errno(errno),
        None => told,
    }
}

fn parse(name: &str) -> Result<Name> {
    name.parse().map_err(told)
}

/// Nothing in the store is called `word`.
fn none(word: &str) -> Error {
    let advice = match word.parse::<Name>() {
        Ok(name) => format!(
            "`rcrun image list` shows what there is, `rcrun image pull {word}` asks {} for it, `rcrun image load` \
             brings what a file has",
            name.registry()
        ),
        Err(_) => "`rcrun image list` shows what there is".to_string(),
    };
    Error::new(Code::NotFound, format!("{word}: no image of that name is in the store; {advice}"))
}

/// The image that `word` means in the store: a name, a digest, or the first digits of one.
pub fn find(store: &Store, word: &OsStr) -> Result<Digest> {
    let word = word.to_str().ok_or_else(|| {
        Error::new(Code::Usage, format!("the image {word:?} is not UTF-8, as every name in the store is"))
    })?;
    if let Ok(digest) = word.parse::<Digest>() {
        return if store.has_image(&digest).map_err(told)? { Ok(digest) } else { Err(none(word)) };
    }
    let name = word.parse::<Name>();
    if let Ok(name) = &name
        && let Some(digest) = store.find(name).map_err(told)?
    {
        return Ok(digest);
    }
    // Digits as `list` shows them.
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    if digits.len() >= 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        let digits = digits.to_ascii_lowercase();
        let all = store.images().map_err(told)?;
        let found: Vec<&Digest> = all.iter().filter(|digest| digest.hex().starts_with(&digits)).collect();
        match found[..] {
            [one] => return Ok(*one),
            [] => {}
            _ => {
                let message = format!("{word}: {} images have digests that begin so", found.len());
                return Err(Error::new(Code::Usage, message));
            }
        }
    }
    match name {
        Ok(_) => Err(none(word)),
        Err(error) => Err(told(error)),
    }
}

/// The names of the image `digest`.
fn names(store: &Store, digest: &Digest) -> Result<Vec<Name>> {
    let all = store.names().map_err(told)?;
    Ok(all.into_iter().filter(|named| named.manifest == *digest).map(|named| named.name).collect())
}

fn remove(global: &Global, store: &Store, path: &Path, word: &OsStr, quiet: bool) -> Result<()> {
    let digest = find(store, word)?;
    let names = names(store, &digest)?;
    let named = word.to_str().and_then(|word| word.parse::<Name>().ok());
    let tell = |what: String| if quiet { Ok(()) } else { output::print(what + "\n") };
    if let Some(name) = named.filter(|name| names.contains(name))
        && names.len() > 1
    {
        store.untag(&name).map_err(told)?;
        return tell(format!("untagged {}", name.short()));
    }
    // Containers that are gone must not keep it.
    container::clear_dead(path)?;
    store.remove_image(&digest).map_err(told)?;
    for name in &names {
        tell(format!("untagged {}", name.short()))?;
    }
    tell(format!("removed {digest}"))?;
    global.log.debug(|| "blobs and layers that no image shares go with `image prune`".into());
    Ok(())
}

fn prune(store: &Store, path: &Path, quiet: bool, format: Table) -> Result<()> {
    let containers = container::clear_dead(path)?;
    let pruned = store.prune(&|id| container::is_alive(path, id)).map_err(told)?;
    match format {
        Table::Json => output::line(&json!({
            "images": pruned.images, "blobs": pruned.blobs, "layers": pruned.layers, "containers": containers,
        })),
        Table::Table if quiet => Ok(()),
        Table::Table => {
            let removed: String = pruned.images.iter().map(|digest| format!("removed {digest}\n")).collect();
            let mut counts = Vec::new();
            for (count, one) in [
                (pruned.images.len(), "image"),
                (pruned.blobs.len(), "blob"),
                (pruned.layers.len(), "unpacked layer"),
                (containers.len(), "container's folder"),
            ] {
                counts.push(match count {
                    1 => format!("1 {one}"),
                    _ => format!(
                        "{count} {}",
                        one.replace("folder", "folders")
                            .replace("image", "images")
                            .replace("blob", "blobs")
                            .replace("layer", "layers")
                            .replace("container's", "containers'")
                    ),
                });
            }
            output::print(format!("{removed}{}\n", counts.join(", ")))
        }
    }
}

fn fsck(store: &Store, repair: bool, quiet: bool, format: Table) -> Result<ExitCode> {
    let problems = store.fsck(repair).map_err(told)?;
    let left = problems.iter().filter(|problem| !problem.repaired).count();
    match format {
        Table::Json => {
            let all: Vec<_> =
                problems.iter().map(|p| json!({ "problem": p.what, "repaired": p.repaired })).collect();
            output::line(&all)?;
        }
        Table::Table => {
            for problem in &problems {
                let repaired = if problem.repaired { " (removed)" } else { "" };
                output::print(format!("{}{repaired}\n", output::shown(&problem.what)))?;
            }
            if problems.is_empty() && !quiet {
                output::print("the store is sound\n")?;
            }
        }
    }
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn save(store: &Store, words: &[std::ffi::OsString], output: Option<&Path>) -> Result<()> {
    use rcrun_image::save::{Saved, save};
    let mut images: Vec<Saved> = Vec::new();
    let mut holds = Vec::new();
    for word in words {
        let digest = find(store, word)?;
        holds.push(store.hold_image(&digest).map_err(told)?);
        let image: Image = store.image(&digest).map_err(told)?;
        let all = names(store, &digest)?;
        // A name means that name; a digest, all of them.
        let name = word.to_str().and_then(|word| word.parse::<Name>().ok()).filter(|name| all.contains(name));
        let names = name.map(|name| vec![name]).unwrap_or(all);
        match images.iter_mut().find(|saved| saved.image.digest == digest) {
            Some(saved) => {
                saved.names.extend(names.into_iter().filter(|n| !saved.names.contains(n)).collect::<Vec<_>>())
            }
            None => images.push(Saved { image, names }),
        }
    }
    let Some(path) = output else {
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            let message =
                "save: a tar is not for a terminal: name a file with -o, or redirect standard output";
            return Err(Error::new(Code::Usage, message));
        }
        let out = std::io::BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
        let mut out = save(store, &images, out).map_err(told)?;
        return std::io::Write::flush(&mut out).map_err(|e| Error::call("write to standard output", e));
    };
    // Beside the file, and then in its place: half an archive looks like a whole one.
    let failed = |call: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| Error::call(format!("{call} {path}"), e)
    };
    let regular = path.symlink_metadata().map_or(true, |there| there.is_file());
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let written = if regular { PathBuf::from(beside) } else { path.to_path_buf() };
    let mut open = std::fs::File::options();
    open.write(true).create_new(regular).truncate(!regular);
    let file = open.open(&written).map_err(failed("create", &written))?;
    let saved = save(store, &images, std::io::BufWriter::with_capacity(256 << 10, file))
        .map_err(told)
        .and_then(|mut out| std::io::Write::flush(&mut out).map_err(failed("write", &written)))
        .and_then(|()| match regular {
            true => std::fs::rename(&written, path).map_err(failed("rename", &written)),
            false => Ok(()),
        });
    if saved.is_err() && regular {
        let _ = std::fs::remove_file(&written);
    }
    drop(holds);
    saved
}
