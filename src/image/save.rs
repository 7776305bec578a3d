//! Images out of the store into a tar: an OCI layout, with the manifest.json that `docker load` looks for. The same
//! images give the same bytes. Uses: digest, document, error, name, source (its types), store.

use std::collections::HashSet;
use std::io::{Read, Write};

use serde_json::json;

use crate::digest::{Digest, Verified};
use crate::error::{Error, Result};
use crate::name::Name;
use crate::source::{Blobs, Image};
use crate::store::Store;

/// An image to be saved, and the names it gets there.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The image, as [`Store::image`] gives it.
    pub image: Image,
    /// Its names.
    pub names: Vec<Name>,
}

/// Writes `images` to `out`. The caller holds them. Every blob is verified while it is written.
pub fn save<W: Write>(store: &Store, images: &[Saved], out: W) -> Result<W> {
    let mut tar = Archive { tar: tar::Builder::new(out), written: HashSet::new(), folders: HashSet::new() };
    let mut index = Vec::new();
    let mut docker = Vec::new();
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    for Saved { image, names } in images {
        let media_type = serde_json::from_slice::<serde_json::Value>(&image.manifest)
            .ok()
            .and_then(|manifest| Some(manifest.get("mediaType")?.as_str()?.to_string()))
            .unwrap_or_else(|| crate::document::media::MANIFEST.into());
        let entry = |name: Option<&Name>| {
            let mut entry =
                json!({ "mediaType": media_type, "digest": image.digest, "size": image.manifest.len() });
            if let Some(name) = name {
                entry["annotations"] = json!({
                    "io.containerd.image.name": name.to_string(),
                    "org.opencontainers.image.ref.name": name.tag(),
                });
            }
            entry
        };
        match names.is_empty() {
            true => index.push(entry(None)),
            false => index.extend(names.iter().map(|name| entry(Some(name)))),
        }
        docker.push(json!({
            "Config": path(&image.config_descriptor.digest),
            "RepoTags": names.iter().map(Name::short).collect::<Vec<_>>(),
            "Layers": image.layers.iter().map(|layer| path(&layer.descriptor.digest)).collect::<Vec<_>>(),
        }));
        for layer in &image.layers {
            let descriptor = &layer.descriptor;
            let blob = Verified::new(store.open(layer)?, descriptor.digest, descriptor.size);
            tar.blob(&descriptor.digest, descriptor.size, blob)?;
        }
        for (digest, text) in
            [(image.config_descriptor.digest, &image.config_text), (image.digest, &image.manifest)]
        {
            tar.blob(&digest, text.len() as u64, &text[..])?;
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": crate::document::media::INDEX,
        "manifests": index,
    });
    tar.file("index.json", index.to_string().as_bytes())?;
    tar.file("manifest.json", serde_json::Value::from(docker).to_string().as_bytes())?;
    tar.tar.into_inner().map_err(|e| Error::call("write the archive", e))
}

/// Where a blob is in a layout.
fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    written: HashSet<Digest>,
    folders: HashSet<String>,
}

impl<W: Write> Archive<W> {
    fn blob(&mut self, digest: &Digest, size: u64, content: impl Read) -> Result<()> {
        if !self.written.insert(*digest) {
            return Ok(());
        }
        for folder in ["blobs".to_string(), format!("blobs/{}", digest.algorithm().as_str())] {
            if self.folders.insert(folder.clone()) {
                let mut header = header(0o755, 0);
                header.set_entry_type(tar::EntryType::Directory);
                self.append(&format!("{folder}/"), header, &b""[..])?;
            }
        }
        self.append(&path(digest), header(0o644, size), content)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.append(name, header(0o644, content.len() as u64), content)
    }

    fn append(&mut self, name: &str, mut header: tar::Header, content: impl Read) -> Result<()> {
        self.tar
            .append_data(&mut header, name, content)
            .map_err(|e| Error::call(format_args!("write {name} to the archive"), e))
    }
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}
