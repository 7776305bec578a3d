//! Images in an OCI layout: which entries of its indexes a name and a platform mean. Every document is read once, and
//! only so many of them. Uses: files, document, error, platform.

use std::collections::HashSet;

use super::files::{Files, blob_path};
use super::{Image, Layer, Listed, must_run_on, names};
use crate::digest::Digest;
use crate::document::{Config, Descriptor, Document, Index, Manifest, media};
use crate::error::{Code, Error, Result};
use crate::platform::Platform;

/// Indexes within indexes.
const DEPTH_MAX: usize = 8;
/// Documents read to find one image.
const DOCUMENTS_MAX: usize = 256;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The entries that are images.
fn images(index: &Index) -> Vec<&Descriptor> {
    index.manifests.iter().filter(|entry| entry.is_image()).collect()
}

fn labels(entry: &Descriptor) -> Vec<String> {
    // containerd writes the whole name, and then only the tag as the reference.
    let label = entry.annotation(CONTAINERD_NAME).or(entry.annotation(REF_NAME));
    label.filter(|label| !label.is_empty()).map(String::from).into_iter().collect()
}

/// What a person can choose.
pub(super) fn list(index: &Index) -> Vec<Listed> {
    images(index)
        .into_iter()
        .map(|entry| Listed { labels: labels(entry), digest: Some(entry.digest) })
        .collect()
}

/// The image of the entries `chosen` that runs on `platform`.
pub(super) fn select(files: &Files, index: &Index, chosen: &[usize], platform: &Platform) -> Result<Image> {
    let entries = images(index);
    let chosen: Vec<&Descriptor> = chosen.iter().map(|i| entries[*i]).collect();
    let mut search = Search { files, platform, seen: HashSet::new(), others: Vec::new(), missing: None };
    match search.among(&chosen, 0)? {
        Some(mut image) => {
            image.names = chosen.iter().flat_map(|entry| names(&labels(entry))).collect();
            image.names.sort();
            image.names.dedup();
            Ok(image)
        }
        None => Err(search.nothing()),
    }
}

struct Search<'a> {
    files: &'a Files,
    platform: &'a Platform,
    seen: HashSet<Digest>,
    /// The platforms met, for the error.
    others: Vec<String>,
    missing: Option<Digest>,
}

impl Search<'_> {
    /// The first of `entries` that fits: those that name a platform before those that do not.
    fn among(&mut self, entries: &[&Descriptor], depth: usize) -> Result<Option<Image>> {
        if depth > DEPTH_MAX {
            return Err(Error::new(
                Code::Limit,
                format!("has more than {DEPTH_MAX} indexes within each other"),
            ));
        }
        let named =
            |entry: &&&Descriptor| entry.platform.as_ref().is_some_and(|p| !p.architecture.is_empty());
        for entry in entries.iter().filter(named) {
            let Some(own) = &entry.platform else { continue };
            if own.runs_on(self.platform) {
                if let Some(image) = self.one(entry, depth)? {
                    return Ok(Some(image));
                }
            } else {
                self.other(own);
            }
        }
        for entry in entries.iter().filter(|entry| !named(entry)) {
            if let Some(image) = self.one(entry, depth)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    fn other(&mut self, platform: &Platform) {
        let platform = platform.to_string().chars().take(100).collect();
        if self.others.len() < 30 && !self.others.contains(&platform) {
            self.others.push(platform);
        }
    }

    fn one(&mut self, entry: &Descriptor, depth: usize) -> Result<Option<Image>> {
        // What was read before did not fit, or is being read: a loop.
        if !self.seen.insert(entry.digest) {
            return Ok(None);
        }
        if self.seen.len() > DOCUMENTS_MAX {
            return Err(Error::new(
                Code::Limit,
                format!("has more than {DOCUMENTS_MAX} manifests to look through"),
            ));
        }
        // Docker saves an index of all platforms with the blobs of one.
        if self.files.find(&blob_path(entry))?.is_none() {
            self.missing.get_or_insert(entry.digest);
            return Ok(None);
        }
        let text = self.files.read_blob(entry)?;
        match Document::parse(&format!("blob {}", entry.digest), &text, Some(&entry.media_type))? {
            Document::Index(index) => {
                let entries = images(&index);
                self.among(&entries, depth + 1)
            }
            Document::Manifest(manifest) => {
                let image = image(self.files, entry.digest, text, *manifest)
                    .map_err(|e| e.of(format_args!("manifest {}", entry.digest)))?;
                if entry.platform.is_none() && must_run_on(&image.config, self.platform).is_err() {
                    self.other(&image.config.platform);
                    return Ok(None);
                }
                must_run_on(&image.config, self.platform)
                    .map_err(|e| e.of(format_args!("manifest {}", entry.digest)))?;
                Ok(Some(image))
            }
        }
    }

    fn nothing(self) -> Error {
        let platform = self.platform;
        Error::new(
            Code::NotFound,
            match (self.others.is_empty(), self.missing) {
                (false, _) => format!("has no image for {platform}, only for {}", self.others.join(", ")),
                (true, Some(missing)) => format!("blob {missing}: is named by an index and is not there"),
                (true, None) => format!("has no image for {platform}"),
            },
        )
    }
}

fn image(files: &Files, digest: Digest, text: Vec<u8>, manifest: Manifest) -> Result<Image> {
    manifest.must_be_an_image()?;
    debug_assert!(media::is_config(&manifest.config.media_type));
    let config_text = files.read_blob(&manifest.config)?;
    let what = format!("configuration {}", manifest.config.digest);
    let config = Config::parse(&what, &config_text, manifest.layers.len())?;
    let layers = manifest
        .layers
        .into_iter()
        .zip(&config.rootfs.diff_ids)
        .map(|(descriptor, diff_id)| Layer { member: blob_path(&descriptor), descriptor, diff_id: *diff_id })
        .collect();
    Ok(Image {
        names: Vec::new(),
        manifest: text,
        digest,
        config_descriptor: manifest.config,
        config_text,
        config,
        layers,
    })
}
