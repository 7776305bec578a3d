//! Images of archives and layouts into the store, and how layers are unpacked, whoever brings them.
//! Uses: rcrun-image, progress.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rcrun_image::import::{self, Imported, Options, import};
use rcrun_image::jail::Jail;
use rcrun_image::source::{Blobs, Image, Layer, Limits, Source};
use rcrun_image::store::{Lease, Store};
use rcrun_image::{Digest, Name, Platform};
use rcrun_runtime::{Code, Error, Result};

use super::progress::Bar;
use super::{find, parse, told};
use crate::{Global, output};

/// The argument by which this program, started anew, knows that it unpacks a layer: no verb is called so.
pub const UNPACKER: &str = "rcrun-image: unpack a layer";

/// How layers are unpacked.
pub fn jail() -> Option<Jail> {
    Some(Jail::with_arguments([UNPACKER]))
}

/// Carries `image` of `source` into the store under `names`.
fn carry(
    global: &Global,
    store: &Store,
    source: &Source,
    image: &Image,
    names: Vec<Name>,
    quiet: bool,
) -> Result<Imported> {
    let options = Options { names, jail: jail(), ..Options::default() };
    let shown = Shown::new(source, image, quiet);
    let imported = import(store, &shown, image, &options);
    drop(shown);
    let imported = imported.map_err(told)?;
    imported.notes.iter().for_each(|note| global.log.warn(note.clone()));
    Ok(imported)
}

/// Unpacks what the image lacks of unpacked layers.
pub fn restore(store: &Store, digest: &Digest) -> Result<Imported> {
    import::restore(store, digest, &Options { jail: jail(), ..Options::default() }).map_err(told)
}

/// Where an image lies that is not in the store: a file or folder, and which image of it is meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The archive or layout.
    pub path: PathBuf,
    /// What follows it.
    pub reference: Option<String>,
}

/// The file or folder that `word` names, if it is an image: a layout, or an archive; with `:NAME` behind it or not.
pub fn place(word: &OsStr) -> Option<Place> {
    if looks_like_an_image(Path::new(word)) {
        return Some(Place { path: word.into(), reference: None });
    }
    split(word).into_iter().find(|place| looks_like_an_image(&place.path))
}

/// All ways to read `word` as `PATH:NAME`, the shortest name last.
fn split(word: &OsStr) -> Vec<Place> {
    let bytes = word.as_bytes();
    let colons = (1..bytes.len()).filter(|i| bytes[*i] == b':');
    colons
        .filter_map(|colon| {
            let reference = std::str::from_utf8(&bytes[colon + 1..]).ok().filter(|name| !name.is_empty())?;
            let path = OsString::from_vec(bytes[..colon].to_vec()).into();
            Some(Place { path, reference: Some(reference.into()) })
        })
        .collect()
}

/// Whether a folder is a layout, or what docker save wrote, unpacked; whether a file is a tar or compressed.
fn looks_like_an_image(path: &Path) -> bool {
    let Ok(there) = path.metadata() else { return false };
    if there.is_dir() {
        return ["oci-layout", "manifest.json", "repositories"].iter().any(|file| path.join(file).is_file());
    }
    if !there.is_file() {
        return false;
    }
    let mut begin = [0; 512];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut begin)).unwrap_or_default();
    use rcrun_image::compression::Compression;
    Compression::sniff(&begin[..read]) != Compression::Plain
        || begin[257..262] == *b"ustar"
        || is_old_tar(&begin)
}

/// Tars of before 1988 have no magic, but a sum of their header.
fn is_old_tar(header: &[u8; 512]) -> bool {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) })
        .sum();
    let text = std::str::from_utf8(&header[148..156]).unwrap_or_default();
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8) == Ok(sum)
}

fn source(store: &Store, path: &Path) -> Result<Source> {
    Source::open(path, store.scratch(), Limits::default()).map_err(told)
}

/// `rcrun image load`
pub fn load(
    global: &Global,
    store: &Store,
    from: &OsStr,
    names: &[String],
    platform: Option<&str>,
    quiet: bool,
) -> Result<()> {
    let names = names.iter().map(|name| parse(name)).collect::<Result<Vec<Name>>>()?;
    let platform = platform.map_or(Ok(Platform::host()), str::parse).map_err(told)?;
    let as_it_stands = Path::new(from).symlink_metadata().is_ok();
    let Place { path, reference } = Some(from)
        .filter(|_| !as_it_stands)
        .and_then(|from| split(from).into_iter().find(|place| place.path.symlink_metadata().is_ok()))
        .unwrap_or_else(|| Place { path: from.into(), reference: None });
    let source = source(store, &path)?;
    let listed = source.list();
    let references: Vec<Option<String>> = match reference {
        Some(reference) => vec![Some(reference)],
        None if listed.len() < 2 => vec![None],
        None => listed
            .iter()
            .flat_map(|image| match (image.labels.is_empty(), image.digest) {
                (false, _) => image.labels.iter().cloned().map(Some).collect(),
                (true, Some(digest)) => vec![Some(digest.to_string())],
                (true, None) => vec![None],
            })
            .collect(),
    };
    let mut images: Vec<Image> = Vec::new();
    let several = references.len() > 1;
    let mut elsewhere: Vec<Error> = Vec::new();
    for reference in references {
        let image = match source.select(reference.as_deref(), &platform) {
            // Of all that the file lists: what is not there for this platform is no reason to leave the others.
            Err(error) if several && error.code() == rcrun_image::Code::Platform => {
                elsewhere.push(told(error.of(format_args!("{}", reference.as_deref().unwrap_or_default()))));
                continue;
            }
            image => image.map_err(told)?,
        };
        match images.iter_mut().find(|there| there.digest == image.digest) {
            Some(there) => {
                let more: Vec<Name> =
                    image.names.into_iter().filter(|name| !there.names.contains(name)).collect();
                there.names.extend(more);
            }
            None => images.push(image),
        }
    }
    // An image whose name another one has too is met by no name.
    for twin in listed.iter().filter(|image| several && !image.labels.is_empty()) {
        if let Some(digest) = twin.digest
            && let Ok(image) = source.select(Some(&digest.to_string()), &platform)
            && images.iter().all(|there| there.digest != image.digest)
        {
            let (path, name) = (path.display(), twin.labels.join(", "));
            let warning = format!(
                "not loaded: another image of {name} for {platform} comes first; this one is {path}:{digest}"
            );
            global.log.warn(warning);
        }
    }
    for error in elsewhere {
        if images.is_empty() {
            return Err(error);
        }
        global.log.warn(format!("not loaded: {error}"));
    }
    if images.len() > 1 && !names.is_empty() {
        let message = format!("load: --name is for one image, and {} has {}", path.display(), images.len());
        return Err(Error::new(Code::Usage, message));
    }
    for image in &images {
        let names = if names.is_empty() { image.names.clone() } else { names.clone() };
        let imported = carry(global, store, &source, image, names.clone(), quiet)?;
        output::print(match (quiet, names.is_empty()) {
            (true, _) => format!("{}\n", imported.digest),
            (false, true) => format!(
                "loaded {0} without a name: `rcrun image tag {0} NAME` gives it one, or --name to load\n",
                imported.digest
            ),
            (false, false) => {
                let names: Vec<String> = names.iter().map(Name::short).collect();
                format!("loaded {} as {}\n", imported.digest, names.join(", "))
            }
        })?;
    }
    Ok(())
}

/// The image that `word` means, in the store when this returns with all its layers unpacked: the file or folder `place`,
/// which gives no name to it and keeps it as long as the lease lives; or what the store has already.
pub fn fetch(
    global: &Global,
    store: &Store,
    word: &OsStr,
    place: Option<Place>,
    platform: &Platform,
    quiet: bool,
) -> Result<(Digest, Option<Lease>)> {
    match place {
        Some(place) => {
            let source = source(store, &place.path)?;
            let image = source.select(place.reference.as_deref(), platform).map_err(told)?;
            // Before it is there: it has no name that would keep it.
            let hold = store.hold(&image).map_err(told)?;
            Ok((carry(global, store, &source, &image, Vec::new(), quiet)?.digest, Some(hold)))
        }
        None => Ok((find(store, word).map_err(|error| neither(word, error))?, None)),
    }
}

/// Fails where `bundle`, which `verb` takes, is an image and no bundle.
pub fn refuse(verb: &str, bundle: &Path) -> Result<()> {
    if bundle.join("config.json").symlink_metadata().is_ok() || place(bundle.as_os_str()).is_none() {
        return Ok(());
    }
    let shown = bundle.display();
    Err(Error::new(
        Code::Usage,
        format!(
            "{verb} takes a bundle, and {shown} is an image: `rcrun image unpack {shown} BUNDLE` makes one of it"
        ),
    ))
}

/// Why `word`, which is not in the store for `error`, is no image in a file either, where it seems to be meant as one.
pub fn neither(word: &OsStr, error: Error) -> Error {
    let path = Path::new(word);
    let shown = word.display();
    if path.is_file() {
        let message = format!(
            "{shown}: is a file, but no image: one is a tar, plain or compressed with gzip or zstd, as docker save, podman \
             save, skopeo and buildah write it"
        );
        return Error::new(Code::Usage, message);
    }
    if path.is_dir() {
        // The word can mean an image all the same, which is brought where that was asked for.
        let message = format!(
            "{error}; and the folder {shown} holds no config.json (`rcrun spec` writes one) and no image"
        );
        return Error::new(error.code(), message);
    }
    match word.as_bytes() {
        [.., b'/'] if !path.exists() => {
            Error::new(Code::Usage, format!("{shown}: there is no such file or folder"))
        }
        [b'/', ..] | [b'.', b'/', ..] | [b'.', b'.', b'/', ..] if !path.exists() => {
            Error::new(Code::Usage, format!("{shown}: there is no such file or folder"))
        }
        _ => error,
    }
}

/// A source whose reading is shown.
struct Shown<'a> {
    source: &'a Source,
    bar: Bar,
    done: AtomicU64,
    total: u64,
}

impl<'a> Shown<'a> {
    fn new(source: &'a Source, image: &Image, quiet: bool) -> Shown<'a> {
        let what = image.names.first().map_or_else(|| image.digest.hex()[..12].to_string(), Name::short);
        let mut met = std::collections::HashSet::new();
        let layers = image.layers.iter().filter(|layer| met.insert(layer.descriptor.digest));
        let total = layers.map(|layer| layer.descriptor.size).sum();
        Shown { source, bar: Bar::new(what, quiet), done: AtomicU64::new(0), total }
    }
}

impl Blobs for Shown<'_> {
    fn open<'a>(&'a self, layer: &Layer) -> rcrun_image::Result<Box<dyn Read + Send + 'a>> {
        Ok(Box::new(Counted { inner: self.source.open(layer)?, shown: self }))
    }
}

struct Counted<'a> {
    inner: Box<dyn Read + Send + 'a>,
    shown: &'a Shown<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let done = self.shown.done.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        self.shown.bar.show(done, self.shown.total, false, String::new);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_follow_a_file_whatever_colons_either_has() {
        let told: Vec<(String, Option<String>)> = split(OsStr::new("a:b/all.tar:host:5000/app:1"))
            .into_iter()
            .map(|place| (place.path.display().to_string(), place.reference))
            .collect();
        let some = |path: &str, name: &str| (path.to_string(), Some(name.to_string()));
        assert_eq!(
            told,
            [
                some("a", "b/all.tar:host:5000/app:1"),
                some("a:b/all.tar", "host:5000/app:1"),
                some("a:b/all.tar:host", "5000/app:1"),
                some("a:b/all.tar:host:5000/app", "1"),
            ]
        );
        assert_eq!(split(OsStr::new("app:")), []);
    }
}
