//! Images in an OCI layout: which entries of its index a name means. Uses: files, search, document, error, platform.

use super::files::{Files, blob_path};
use super::search::{self, Documents, images};
use super::{Image, Listed, names};
use crate::document::{Descriptor, Index};
use crate::error::Result;
use crate::platform::Platform;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

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
    let mut image = search::search(files, &chosen, platform)?;
    image.names = chosen.iter().flat_map(|entry| names(&labels(entry))).collect();
    image.names.sort();
    image.names.dedup();
    Ok(image)
}

impl Documents for Files {
    fn read(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        match self.find(&blob_path(descriptor))? {
            Some(_) => self.read_blob(descriptor).map(Some),
            None => Ok(None),
        }
    }
}
