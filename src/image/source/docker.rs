//! Images in what `docker save` wrote: with manifest.json since 1.10, with `repositories` alone before. Neither has a
//! manifest with digests of blobs: one is made, the same for the same contents.
//! Uses: files, digest, document, error, name, platform, compression.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};

use serde::Deserialize;

use super::files::{Files, text_of};
use super::{Image, Layer, Listed, must_run_on, names};
use crate::compression::{self, Compression};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::document::{self, Config, Descriptor, ENTRIES_MAX, LAYERS_MAX, Manifest, media};
use crate::error::{Code, Error, Result};
use crate::platform::Platform;

/// An entry of manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// An image of `repositories`: its identity, and its names.
#[derive(Debug)]
pub(super) struct Repository {
    id: String,
    labels: Vec<String>,
}

/// Parses manifest.json.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Entry>> {
    if text.trim_ascii_start().starts_with(b"{") {
        return Err(Error::new(
            Code::Unsupported,
            "manifest.json: is one manifest and not a list of images, as in a folder of skopeo's dir: `skopeo copy dir:FOLDER \
             oci:LAYOUT` makes a layout of it",
        ));
    }
    let entries: Vec<Entry> = document::parse("manifest.json", text)?;
    if entries.len() > ENTRIES_MAX {
        return Err(Error::new(Code::Limit, format!("manifest.json: has more than {ENTRIES_MAX} entries")));
    }
    Ok(entries)
}

/// Parses `repositories`: `{"name": {"tag": "id"}}`.
pub(super) fn parse_repositories(text: &[u8]) -> Result<Vec<Repository>> {
    let parsed: BTreeMap<String, BTreeMap<String, String>> = document::parse("repositories", text)?;
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, tags) in parsed {
        for (tag, id) in tags {
            if id.is_empty() || id.len() > 128 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
                return Err(Error::invalid("repositories: an identity that is not hexadecimal"));
            }
            images.entry(id).or_default().push(format!("{name}:{tag}"));
        }
    }
    Ok(images.into_iter().map(|(id, labels)| Repository { id, labels }).collect())
}

/// What a person can choose in manifest.json.
pub(super) fn list(entries: &[Entry]) -> Vec<Listed> {
    entries
        .iter()
        .map(|entry| Listed { labels: entry.repo_tags.clone().unwrap_or_default(), digest: None })
        .collect()
}

/// What a person can choose in `repositories`.
pub(super) fn list_repositories(repositories: &[Repository]) -> Vec<Listed> {
    repositories.iter().map(|r| Listed { labels: r.labels.clone(), digest: None }).collect()
}

/// The digest that a file name of manifest.json promises: `<hex>.json`, `blobs/sha256/<hex>`.
fn promised(path: &str) -> Option<Digest> {
    let name = path.strip_suffix(".json").unwrap_or(path);
    Digest::from_hex(Algorithm::Sha256, name.strip_prefix("blobs/sha256/").unwrap_or(name))
}

/// The image of an entry of manifest.json.
pub(super) fn select(files: &Files, entry: &Entry, platform: &Platform) -> Result<Image> {
    let shown: String = entry.config.chars().take(300).collect();
    let text = text_of(&shown, files.require(&entry.config)?)?;
    let digest = Digest::of(&text);
    if let Some(promised) = promised(&entry.config).filter(|promised| *promised != digest) {
        return Err(Error::invalid(format!("configuration {promised}: its content has the digest {digest}")));
    }
    let paths = entry.layers.as_deref().unwrap_or_default();
    let config = Config::parse(&format!("configuration {shown}"), &text, paths.len())?;
    must_run_on(&config, platform)?;
    let mut known: HashMap<&str, Descriptor> = HashMap::new();
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(&config.rootfs.diff_ids) {
        let descriptor = match known.get(path.as_str()) {
            // A plain layer's descriptor is its diffID, which may differ where the same file stands twice.
            Some(known) if known.media_type != media::LAYER => known.clone(),
            _ => descriptor(files, path, *diff_id)?,
        };
        known.insert(path, descriptor.clone());
        layers.push(Layer { descriptor, diff_id: *diff_id, member: path.clone() });
    }
    Ok(made(text, config, layers, entry.repo_tags.as_deref().unwrap_or_default()))
}

/// Type, digest and size of the layer at `path`. That of a plain tar is its diffID; whoever reads it verifies that.
fn descriptor(files: &Files, path: &str, diff_id: Digest) -> Result<Descriptor> {
    let shown: String = path.chars().take(300).collect();
    let member = files.require(path)?;
    let size = member.size;
    let (begin, mut content) =
        compression::peek(member).map_err(|e| Error::call(format_args!("read {shown}"), e))?;
    let (media_type, digest) = match Compression::sniff(&begin) {
        Compression::Plain => (media::LAYER, diff_id),
        Compression::Gzip => (media::LAYER_GZIP, hashed(&mut content, &shown)?),
        Compression::Zstd => (media::LAYER_ZSTD, hashed(&mut content, &shown)?),
    };
    Ok(Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    })
}

struct Hashing(Hasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hashed(content: &mut dyn Read, shown: &str) -> Result<Digest> {
    let mut hashing = Hashing(Hasher::new(Algorithm::Sha256));
    let mut content = io::BufReader::with_capacity(1 << 20, content);
    io::copy(&mut content, &mut hashing).map_err(|e| Error::call(format_args!("read {shown}"), e))?;
    Ok(hashing.0.finish())
}

fn made(config_text: Vec<u8>, config: Config, layers: Vec<Layer>, labels: &[String]) -> Image {
    let config_descriptor = Descriptor {
        media_type: media::CONFIG.into(),
        digest: Digest::of(&config_text),
        size: config_text.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let descriptors = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let manifest = serde_json::to_vec(&Manifest::new(config_descriptor.clone(), descriptors))
        .expect("a manifest has only strings as keys");
    Image {
        names: names(labels),
        digest: Digest::of(&manifest),
        manifest,
        config_descriptor,
        config_text,
        config,
        layers,
    }
}

/// The `json` of a layer before 1.10.
#[derive(Deserialize)]
struct V1 {
    parent: Option<String>,
    created: Option<String>,
    author: Option<String>,
    comment: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    config: Option<document::Execution>,
    container_config: Option<ContainerConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerConfig {
    cmd: Option<Vec<String>>,
}

/// The image of an entry of `repositories`: its layers are a chain of parents, and no document has their diffIDs, so
/// each layer is read here once more than elsewhere. At most `limit` bytes of a layer.
pub(super) fn select_repository(
    files: &Files,
    repository: &Repository,
    platform: &Platform,
    limit: u64,
) -> Result<Image> {
    let mut chain: Vec<(String, V1)> = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(repository.id.clone());
    while let Some(id) = next {
        if id.is_empty() || id.len() > 128 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(Error::invalid("a layer's parent is not hexadecimal"));
        }
        if !seen.insert(id.clone()) {
            return Err(Error::invalid(format!("layer {id}: is its own ancestor")));
        }
        if chain.len() == LAYERS_MAX {
            return Err(Error::new(Code::Limit, format!("has more than {LAYERS_MAX} layers")));
        }
        let path = format!("{id}/json");
        let v1: V1 = document::parse(&path, &text_of(&path, files.require(&path)?)?)?;
        next = v1.parent.clone().filter(|parent| !parent.is_empty());
        chain.push((id, v1));
    }
    let top = chain[0].1.config.clone().unwrap_or_default();
    let mut config = Config {
        created: chain[0].1.created.clone(),
        author: chain[0].1.author.clone(),
        platform: Platform {
            os: chain[0].1.os.clone().unwrap_or("linux".into()),
            architecture: chain[0].1.architecture.clone().unwrap_or_default(),
            variant: None,
        },
        config: top,
        ..Config::default()
    };
    must_run_on(&config, platform)?;
    let mut layers = Vec::new();
    for (id, v1) in chain.into_iter().rev() {
        let member = format!("{id}/layer.tar");
        let mut content = compression::decompress(files.require(&member)?, None, limit)
            .map_err(|e| e.of(format_args!("layer {member}")))?;
        let diff_id = hashed(&mut content, &member)?;
        layers.push(Layer { descriptor: descriptor(files, &member, diff_id)?, diff_id, member });
        config.rootfs.diff_ids.push(diff_id);
        config.history.push(document::History {
            created: v1.created,
            created_by: v1.container_config.and_then(|c| c.cmd).map(|cmd| cmd.join(" ")),
            author: v1.author,
            comment: v1.comment.filter(|comment| !comment.is_empty()),
            empty_layer: false,
        });
    }
    config.rootfs.kind = "layers".into();
    let text = serde_json::to_vec(&config).expect("a configuration has only strings as keys");
    Ok(made(text, config, layers, &repository.labels))
}
