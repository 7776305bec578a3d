//! A new image of what a container changed: the layers of its image, and one that is made of its upper folder. The same
//! changes give the same digest. Uses: digest, document, error, import, layer, source, store, unfold.
//!
//! First [`take`] reads the upper folder, which must stay as it is meanwhile; then [`commit`] makes the image, and its new
//! layer goes the way of every layer: verified, unpacked, published. The layer is in gzip, which every registry and every
//! tool reads; its header has no time and no name.

mod instruction;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::document::{Config, Descriptor, History, LAYERS_MAX, Manifest, media};
use crate::error::{Code, Error, Result};
use crate::import::{self, Imported, import};
use crate::layer::{self, ChangeKind, Changes, Diff, Form};
use crate::source::{Blobs, Image, Layer};
use crate::store::Store;
use crate::unfold::told;
pub use instruction::Instruction;

/// What was taken of a container: its layer, in a file without a name.
#[derive(Debug)]
pub struct Taken {
    blob: File,
    size: u64,
    digest: Digest,
    diff_id: Digest,
    /// Nothing was changed.
    empty: bool,
    newest: Option<i64>,
    notes: Vec<String>,
}

impl Taken {
    /// What was left out, in sentences, one for each sort.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// What a person says to the new image.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// Who made it.
    pub author: Option<String>,
    /// What was done.
    pub message: Option<String>,
    /// The command that was run.
    pub created_by: Option<String>,
    /// Changes of its configuration, in order.
    pub instructions: Vec<Instruction>,
}

/// Reads `changes` of `upper` into a layer. No time in it is later than `latest`, in seconds of 1970. `stop` is asked now and
/// then whether to give up, and says why.
pub fn take(
    store: &Store,
    upper: BorrowedFd<'_>,
    changes: &Changes,
    form: Form,
    latest: Option<i64>,
    stop: &dyn Fn() -> Option<String>,
) -> Result<Taken> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let blob = rustix::fs::openat(store.scratch(), ".", flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|e| Error::call("open O_TMPFILE in the store", e))?;
    let copy = blob.try_clone().map_err(|e| Error::call("dup", e))?;
    let packed = Hashed::new(io::BufWriter::with_capacity(256 << 10, copy), stop);
    let mut tar = Hashed::new(GzEncoder::new(packed, Level::default()), stop);
    let options = Diff { form, root: changes.root, latest };
    let summary = layer::diff_of(upper, &changes.all, &options, &mut tar).map_err(told)?;
    let failed = |e| Error::call("write the layer", e);
    let diff_id = tar.hasher.finish();
    let mut packed = tar.inner.finish().map_err(failed)?;
    packed.inner.flush().map_err(failed)?;
    let (size, digest) = (packed.size, packed.hasher.finish());
    let newest = changes.all.iter().filter(|change| change.kind != ChangeKind::Removed);
    let newest = newest.filter_map(|change| change.modified).max();
    Ok(Taken { blob, size, digest, diff_id, empty: summary.entries == 0, newest, notes: summary.notes })
}

/// Makes the image of `base` and what was taken, and carries it into the store as `options` say. It was created at `latest`,
/// or else when what was taken was last changed, and else when `base` was. Without a change it has the layers of `base`, and
/// one more step in its history.
pub fn commit(
    store: &Store,
    base: &Image,
    taken: &Taken,
    words: &Words,
    latest: Option<i64>,
    options: &import::Options,
) -> Result<Imported> {
    let created = latest.or(taken.newest).map(rfc3339);
    let created = created.or_else(|| base.config.created.clone()).unwrap_or_else(|| rfc3339(0));
    let mut layers = base.layers.clone();
    let docker = base.config_descriptor.media_type == media::DOCKER_CONFIG;
    if !taken.empty {
        let media_type = if docker { media::DOCKER_LAYER } else { media::LAYER_GZIP };
        let descriptor = descriptor(media_type, taken.digest, taken.size);
        layers.push(Layer { descriptor, diff_id: taken.diff_id, member: String::new() });
    }
    if layers.len() > LAYERS_MAX {
        let message = format!("the image would have {} layers, and {LAYERS_MAX} is the most", layers.len());
        return Err(Error::new(Code::Limit, message));
    }
    let config_text = config(base, &layers, taken.empty, words, &created)?;
    let config = Config::parse("the new configuration", &config_text, layers.len())?;
    let config_type = if docker { media::DOCKER_CONFIG } else { media::CONFIG };
    let config_descriptor = descriptor(config_type, Digest::of(&config_text), config_text.len() as u64);
    let descriptors = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let manifest = Manifest {
        media_type: if docker { media::DOCKER_MANIFEST } else { media::MANIFEST }.into(),
        ..Manifest::new(config_descriptor.clone(), descriptors)
    };
    let manifest =
        serde_json::to_vec(&manifest).map_err(|e| Error::call("write a manifest", io::Error::from(e)))?;
    let digest = Digest::of(&manifest);
    let image = Image { names: Vec::new(), manifest, digest, config_descriptor, config_text, config, layers };
    import(store, &Source { store, taken }, &image, options)
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        platform: None,
        annotations: Default::default(),
    }
}

/// The configuration of `base`, of which what is not known here stays.
fn config(base: &Image, layers: &[Layer], empty: bool, words: &Words, created: &str) -> Result<Vec<u8>> {
    let invalid = |e: serde_json::Error| Error::invalid(format!("the image's configuration: {e}"));
    let mut config: Value = serde_json::from_slice(&base.config_text).map_err(invalid)?;
    let Some(object) = config.as_object_mut() else {
        return Err(Error::invalid("the image's configuration is no object"));
    };
    // Docker's notes of the container that its builder made, and of the image below.
    for gone in ["container", "container_config", "docker_version", "id", "parent", "throwaway", "author"] {
        object.remove(gone);
    }
    let mut history = base.config.history.clone();
    // One that tells of some layers only tells a reader wrong ones.
    if history.iter().filter(|step| !step.empty_layer).count() != base.layers.len() {
        history = base.layers.iter().map(|_| History::default()).collect();
    }
    history.push(History {
        created: Some(created.into()),
        created_by: words.created_by.clone(),
        author: words.author.clone(),
        comment: words.message.clone(),
        empty_layer: empty,
    });
    object.insert("created".into(), json!(created));
    if let Some(author) = &words.author {
        object.insert("author".into(), json!(author));
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    object.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    object.insert("history".into(), json!(history));
    let execution = object.entry("config").or_insert(Value::Null);
    if execution.is_null() {
        *execution = json!({});
    }
    if let Some(execution) = execution.as_object_mut() {
        instruction::apply(&words.instructions, execution)?;
    }
    serde_json::to_vec(&config).map_err(invalid)
}

/// Where the blobs of the new image come from.
struct Source<'a> {
    store: &'a Store,
    taken: &'a Taken,
}

impl Blobs for Source<'_> {
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        match layer.descriptor.digest == self.taken.digest {
            true => Ok(Box::new(Content { file: &self.taken.blob, at: 0 })),
            false => Blobs::open(self.store, layer),
        }
    }
}

/// Reads a file from its begin, wherever others are in it.
struct Content<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Hashes and counts what is written.
struct Hashed<'a, W> {
    inner: W,
    hasher: Hasher,
    size: u64,
    stop: &'a dyn Fn() -> Option<String>,
}

impl<'a, W> Hashed<'a, W> {
    fn new(inner: W, stop: &'a dyn Fn() -> Option<String>) -> Self {
        Hashed { inner, hasher: Hasher::new(Algorithm::Sha256), size: 0, stop }
    }
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(why) = (self.stop)() {
            return Err(Error::new(Code::System, why).into());
        }
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What `upper` changes: see [`layer::changes`].
pub fn changes(upper: BorrowedFd<'_>, over: &layer::Over<'_>) -> Result<Changes> {
    layer::changes(upper, over).map_err(told)
}

/// `seconds` of 1970 as RFC 3339 has it. Years that it does not have become its first and its last.
fn rfc3339(seconds: i64) -> String {
    const DAY: i64 = 86_400;
    let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // The day of a calendar whose years begin in March, so that a leap day is the last.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_255_200, "2026-11-21T10:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
