//! Where an image is read from: an OCI layout, as a folder or in a tar, and what `docker save` wrote in each of its
//! three generations. Selects one image, and hands out its blobs unverified.
//! Uses: digest, document, error, name, platform, compression.

mod archive;
mod docker;
mod files;
mod layout;
mod search;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::digest::Digest;
use crate::document::{self, Config, Descriptor};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::platform::Platform;
use files::Files;

pub use search::{Documents, search};

/// Bounds for reading a source.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a compressed archive once it is decompressed.
    pub archive: u64,
    /// Bytes of a layer once it is decompressed.
    pub layer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { archive: 64 << 30, layer: 64 << 30 }
    }
}

/// Hands out the blobs of an image, not yet verified.
pub trait Blobs: Sync {
    /// Reads the blob of `layer`.
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>>;

    /// Whether reading a blob costs so much that what was read of it is kept when an import fails, for the next one to
    /// go on from there.
    fn are_far(&self) -> bool {
        false
    }

    /// Is told when another import reads the blob of `layer`, which is waited for.
    fn waits(&self, _layer: &Layer) {}

    /// Reads the blob of `layer` from byte `at` on.
    fn open_at<'a>(&'a self, layer: &Layer, at: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let mut blob = self.open(layer)?;
        let skipped = std::io::copy(&mut Read::take(&mut blob, at), &mut std::io::sink());
        match skipped.map_err(|e| Error::call("read", e))? == at {
            true => Ok(blob),
            false => Err(Error::invalid(format!("blob {}: is truncated", layer.descriptor.digest))),
        }
    }
}

/// An opened layout or archive.
pub struct Source {
    shown: String,
    files: Files,
    form: Form,
    limits: Limits,
}

enum Form {
    Layout(document::Index),
    Docker(Vec<docker::Entry>),
    Repositories(Vec<docker::Repository>),
}

/// One image of a source, as a person may choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What the source calls it: whole names, or only a tag.
    pub labels: Vec<String>,
    /// The digest of its manifest or index, where the source has one.
    pub digest: Option<Digest>,
}

/// An image that was selected: its documents, verified, and where its layers are.
#[derive(Clone, Debug)]
pub struct Image {
    /// The names that the source gives it.
    pub names: Vec<Name>,
    /// The manifest as it was written, or as it is made for an image that came without.
    pub manifest: Vec<u8>,
    /// The digest of `manifest`.
    pub digest: Digest,
    /// The descriptor of the configuration.
    pub config_descriptor: Descriptor,
    /// The configuration as it was written.
    pub config_text: Vec<u8>,
    /// The configuration.
    pub config: Config,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Type, digest and size of its blob.
    pub descriptor: Descriptor,
    /// The digest of its tar.
    pub diff_id: Digest,
    /// Where its blob is within the source.
    pub(crate) member: String,
}

impl Source {
    /// Opens what lies at `path`. A compressed archive, or one that cannot be read twice (a pipe), is first written to
    /// a file without a name in `scratch`.
    pub fn open(path: &Path, scratch: BorrowedFd<'_>, limits: Limits) -> Result<Source> {
        let shown = path.display().to_string();
        let files = Files::open(path, scratch, limits.archive).map_err(|e| e.of(&shown))?;
        let form = Form::of(&files).map_err(|e| e.of(&shown))?;
        Ok(Source { shown, files, form, limits })
    }

    /// The images in it.
    pub fn list(&self) -> Vec<Listed> {
        match &self.form {
            Form::Layout(index) => layout::list(index),
            Form::Docker(entries) => docker::list(entries),
            Form::Repositories(repositories) => docker::list_repositories(repositories),
        }
    }

    /// The image that answers to `reference` (a name, a tag, a digest; without one there must be only one image) and
    /// runs on `platform`. Its manifest and configuration are verified; its layers are not yet read.
    pub fn select(&self, reference: Option<&str>, platform: &Platform) -> Result<Image> {
        let listed = self.list();
        let chosen = choose(&listed, reference).and_then(|chosen| match &self.form {
            Form::Layout(index) => layout::select(&self.files, index, &chosen, platform),
            Form::Docker(entries) => docker::select(&self.files, &entries[chosen[0]], platform),
            Form::Repositories(repositories) => {
                docker::select_repository(&self.files, &repositories[chosen[0]], platform, self.limits.layer)
            }
        });
        let mut image = chosen.map_err(|e| e.of(&self.shown))?;
        if let Some(name) = reference.filter(|r| r.contains(['/', ':'])).and_then(|r| r.parse::<Name>().ok())
            && name.digest().is_none()
            && image.names.contains(&name)
        {
            image.names = vec![name];
        }
        Ok(image)
    }
}

impl Blobs for Source {
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let member = self.files.require(&layer.member).map_err(|e| e.of(&self.shown))?;
        Ok(Box::new(member))
    }
}

impl Form {
    fn of(files: &Files) -> Result<Form> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        if let Some(version) = files.read("oci-layout")?
            && let Some(index) = files.read("index.json")?
        {
            let version: Version = document::parse("oci-layout", &version)?;
            if !version.image_layout_version.starts_with("1.") {
                let version: String = version.image_layout_version.chars().take(100).collect();
                return Err(Error::new(
                    Code::Unsupported,
                    format!("oci-layout: the version is {version:?}, not 1.0.0"),
                ));
            }
            return match document::Document::parse("index.json", &index, Some(document::media::INDEX)) {
                Ok(document::Document::Index(index)) => Ok(Form::Layout(index)),
                Ok(document::Document::Manifest(_)) => Err(Error::invalid("index.json: is no index")),
                Err(error) => Err(error),
            };
        }
        if let Some(text) = files.read("manifest.json")? {
            return docker::parse(&text).map(Form::Docker);
        }
        if let Some(text) = files.read("repositories")? {
            return docker::parse_repositories(&text).map(Form::Repositories);
        }
        Err(Error::invalid(
            "is no image: it has neither oci-layout with index.json, nor manifest.json, nor repositories; an image is \
             written by docker save, podman save, skopeo copy or buildah push",
        ))
    }
}

/// Which of `listed` answer to `reference`: all that are returned have the same name, or none.
fn choose(listed: &[Listed], reference: Option<&str>) -> Result<Vec<usize>> {
    if listed.is_empty() {
        return Err(Error::new(Code::NotFound, "has no image in it"));
    }
    let all = || 0..listed.len();
    let chosen: Vec<usize> = match reference {
        None => all().collect(),
        Some(reference) => {
            let whole = reference.parse::<Name>().ok();
            let exact = |label: &String| {
                label == reference
                    || whole.is_some() && label.contains(['/', ':']) && label.parse::<Name>().ok() == whole
            };
            let digest = reference.parse::<Digest>().ok();
            let strong: Vec<usize> = all()
                .filter(|&i| {
                    listed[i].labels.iter().any(exact) || digest.is_some() && listed[i].digest == digest
                })
                .collect();
            if strong.is_empty() {
                // A tag alone is enough where only one image has it.
                let tag = |label: &String| {
                    label.contains(['/', ':']) && label.parse::<Name>().is_ok_and(|n| n.tag() == reference)
                };
                all().filter(|&i| listed[i].labels.iter().any(tag)).collect()
            } else {
                strong
            }
        }
    };
    let labels = || {
        let labels: BTreeSet<&str> =
            listed.iter().flat_map(|l| &l.labels).take(50).map(String::as_str).collect();
        let mut shown = labels.into_iter().collect::<Vec<_>>().join(", ");
        let nameless = listed.iter().filter(|l| l.labels.is_empty());
        for image in nameless.take(50) {
            let digest = image.digest.map_or("one without a name".to_string(), |d| d.to_string());
            shown += if shown.is_empty() { "" } else { ", " };
            shown += &digest;
        }
        shown
    };
    if chosen.is_empty() {
        let reference: String = reference.unwrap_or_default().chars().take(300).collect();
        return Err(Error::new(Code::NotFound, format!("has no image {reference:?}; it has {}", labels())));
    }
    let first = &listed[chosen[0]];
    let same = |i: &usize| {
        let other = &listed[*i];
        first.digest.is_some() && other.digest == first.digest
            || other.digest.is_some() && other.labels == first.labels
    };
    if !chosen.iter().all(same) && chosen.len() > 1 {
        return Err(Error::new(
            Code::Ambiguous,
            format!(
                "has several images, write one of their names after the file, as in FILE:NAME: {}",
                labels()
            ),
        ));
    }
    Ok(chosen)
}

/// The names among `labels`: a tag alone is none.
fn names(labels: &[String]) -> Vec<Name> {
    labels.iter().filter(|label| label.contains(['/', ':'])).filter_map(|label| label.parse().ok()).collect()
}

/// Refuses an image whose configuration says another platform.
fn must_run_on(config: &Config, platform: &Platform) -> Result<()> {
    if config.platform.architecture.is_empty() || config.platform.runs_on(platform) {
        return Ok(());
    }
    Err(Error::new(Code::Platform, format!("is an image for {}, not for {platform}", config.platform)))
}
