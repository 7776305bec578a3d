//! Which images the store has, and what they are called. Uses: digest, error, name, folder.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Kind, LayerId, Store, Workspace};
use crate::digest::{Algorithm, Digest};
use crate::document::SIZE_MAX;
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::source::Image;

/// What an image that is complete in the store consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The digest of its configuration.
    pub config: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<RecordLayer>,
}

/// A layer of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordLayer {
    /// The digest of its blob.
    pub blob: Digest,
    /// The digest of its tar.
    pub diff_id: Digest,
}

/// A name and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: Name,
    /// The digest of the manifest.
    pub manifest: Digest,
}

#[derive(Serialize, Deserialize)]
struct NameFile {
    name: String,
    manifest: Digest,
}

fn file_of(name: &Name) -> String {
    Digest::of(name.to_string().as_bytes()).hex()
}

impl Record {
    pub(super) fn of(image: &Image) -> Record {
        Record {
            config: image.config_descriptor.digest,
            layers: image
                .layers
                .iter()
                .map(|layer| RecordLayer { blob: layer.descriptor.digest, diff_id: layer.diff_id })
                .collect(),
        }
    }

    /// The layers at their places, lowest first.
    pub fn layer_ids(&self) -> Vec<LayerId> {
        LayerId::of_chain(self.layers.iter().map(|layer| layer.diff_id))
    }
}

impl Store {
    /// The record of the image of the manifest `digest`, if it is in the store.
    pub fn record(&self, digest: &Digest) -> Result<Option<Record>> {
        let Some(text) = self.of(Kind::Images, digest.algorithm())?.read(&digest.hex(), SIZE_MAX)? else {
            return Ok(None);
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::new(Code::Damaged, format!("the store's record of image {digest} is broken: {error}"))
        })
    }

    /// Whether the image of the manifest `digest` is there.
    pub fn has_image(&self, digest: &Digest) -> Result<bool> {
        Ok(self.of(Kind::Images, digest.algorithm())?.mode(&digest.hex())?.is_some())
    }

    /// Which of the image's pairs of blob and diffID need no proof: of a plain tar the two are one, and of an image in
    /// the store they were verified when it was imported.
    pub(crate) fn proven(&self, image: &Image) -> Result<HashSet<RecordLayer>> {
        let wanted: HashSet<RecordLayer> = Record::of(image).layers.into_iter().collect();
        let mut proven: HashSet<RecordLayer> =
            wanted.iter().filter(|pair| pair.blob == pair.diff_id).copied().collect();
        // Its own record comes first: who imports an image again reads no other.
        for digest in [image.digest].into_iter().chain(self.images()?) {
            if proven.len() == wanted.len() {
                break;
            }
            if let Some(record) = self.record(&digest)? {
                proven.extend(record.layers.iter().filter(|pair| wanted.contains(pair)));
            }
        }
        Ok(proven)
    }

    /// The manifests of all images.
    pub fn images(&self) -> Result<Vec<Digest>> {
        let mut images = Vec::new();
        for algorithm in Algorithm::ALL {
            let names = self.of(Kind::Images, algorithm)?.names()?;
            images.extend(names.iter().filter_map(|name| Digest::from_hex(algorithm, name)));
        }
        Ok(images)
    }

    pub(crate) fn write_record(&self, workspace: &Workspace<'_>, image: &Image) -> Result<()> {
        let text = serde_json::to_vec(&Record::of(image)).expect("a record has only strings as keys");
        let digest = &image.digest;
        self.of(Kind::Images, digest.algorithm())?.publish(&workspace.folder, &digest.hex(), &text)
    }

    /// All names.
    pub fn names(&self) -> Result<Vec<Named>> {
        let mut names = Vec::new();
        for file in self.names.names()? {
            names.extend(self.name_file(&file)?);
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    pub(super) fn name_file(&self, file: &str) -> Result<Option<Named>> {
        let Some(text) = self.names.read(file, 1 << 16)? else { return Ok(None) };
        let broken =
            |why: String| Error::new(Code::Damaged, format!("the store's name file {file} is broken: {why}"));
        let parsed: NameFile = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        let name: Name = parsed.name.parse().map_err(|e: Error| broken(e.to_string()))?;
        if file_of(&name) != file {
            return Err(broken(format!("it has the name {name}")));
        }
        Ok(Some(Named { name, manifest: parsed.manifest }))
    }

    /// What `name` means: the manifest of its digest, where it has one, else the one that its tag was given to.
    pub fn find(&self, name: &Name) -> Result<Option<Digest>> {
        match name.digest() {
            Some(digest) => Ok(self.record(&digest)?.map(|_| digest)),
            None => Ok(self.name_file(&file_of(name))?.map(|named| named.manifest)),
        }
    }

    /// Gives `name` to the image of the manifest `digest`; another image loses it.
    pub fn tag(&self, name: &Name, digest: &Digest) -> Result<()> {
        let workspace = self.workspace()?;
        let hold = self.hold_image(digest)?;
        let tagged = self.write_name(&workspace, name, digest);
        drop(hold);
        tagged
    }

    pub(crate) fn write_name(&self, workspace: &Workspace<'_>, name: &Name, digest: &Digest) -> Result<()> {
        if name.digest().is_some() {
            return Err(Error::new(
                Code::Usage,
                format!("image name {name}: a digest cannot be given as a name"),
            ));
        }
        let text = serde_json::to_vec(&NameFile { name: name.to_string(), manifest: *digest })
            .expect("a name file has only strings as keys");
        self.names.publish(&workspace.folder, &file_of(name), &text)
    }

    /// Takes `name` away. Whether it was there. The image stays until it is pruned.
    pub fn untag(&self, name: &Name) -> Result<bool> {
        let removed = self.names.remove(&file_of(name))?;
        self.names.sync()?;
        Ok(removed)
    }
}
