//! Which image an index means for a platform: indexes may hold indexes, in a layout and in a registry alike. Every
//! document is read once, and only so many of them. Uses: files, document, error, platform.

use std::collections::HashSet;

use super::files::blob_path;
use super::{Image, Layer, must_run_on};
use crate::digest::Digest;
use crate::document::{Config, Descriptor, Document, Index, Manifest};
use crate::error::{Code, Error, Result};
use crate::platform::Platform;

/// Indexes within indexes.
const DEPTH_MAX: usize = 8;
/// Documents read to find one image.
const DOCUMENTS_MAX: usize = 256;

/// Where the documents of an image are.
pub trait Documents {
    /// The text that `descriptor` names, its size and digest verified; `None` if it is not there.
    fn read(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>>;
}

/// The first image among `entries`, and among the entries of indexes among them, that runs on `platform`. It has no
/// names.
pub fn search(documents: &dyn Documents, entries: &[&Descriptor], platform: &Platform) -> Result<Image> {
    let mut search = Search { documents, platform, seen: HashSet::new(), others: Vec::new(), missing: None };
    match search.among(entries, 0)? {
        Some(image) => Ok(image),
        None => Err(search.nothing()),
    }
}

/// The entries that are images.
pub(super) fn images(index: &Index) -> Vec<&Descriptor> {
    index.manifests.iter().filter(|entry| entry.is_image()).collect()
}

struct Search<'a> {
    documents: &'a dyn Documents,
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
        let Some(text) = self.documents.read(entry)? else {
            self.missing.get_or_insert(entry.digest);
            return Ok(None);
        };
        match Document::parse(&format!("blob {}", entry.digest), &text, Some(&entry.media_type))? {
            Document::Index(index) => {
                let entries = images(&index);
                self.among(&entries, depth + 1)
            }
            Document::Manifest(manifest) => {
                let image = whole(self.documents, entry.digest, text, *manifest)
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
        let (code, message) = match (self.others.is_empty(), self.missing) {
            (false, _) => {
                (Code::Platform, format!("has no image for {platform}, only for {}", self.others.join(", ")))
            }
            (true, Some(missing)) => {
                (Code::NotFound, format!("blob {missing}: is named by an index and is not there"))
            }
            (true, None) => (Code::Platform, format!("has no image for {platform}")),
        };
        Error::new(code, message)
    }
}

/// The image of `manifest`, which was written as `text`, with its configuration.
fn whole(documents: &dyn Documents, digest: Digest, text: Vec<u8>, manifest: Manifest) -> Result<Image> {
    manifest.must_be_an_image()?;
    let digest_of_config = manifest.config.digest;
    let config_text = documents.read(&manifest.config)?.ok_or_else(|| {
        Error::new(Code::NotFound, format!("configuration {digest_of_config}: is not there"))
    })?;
    let what = format!("configuration {digest_of_config}");
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
