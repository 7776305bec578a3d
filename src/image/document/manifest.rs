//! Descriptors, indexes and manifests. Uses: digest, error, platform, media.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ENTRIES_MAX, LAYERS_MAX, media, null_is_empty, parse};
use crate::compression::Compression;
use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::platform::Platform;

/// What names a content: its type, digest and size. `urls` and `data` are not read: a content comes from where its
/// image comes from, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it runs on, for an entry of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What its maker says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Whether an entry of an index is an image: attestations of build tools, and types nobody here knows, are not.
    pub fn is_image(&self) -> bool {
        (media::is_index(&self.media_type) || media::is_manifest(&self.media_type))
            && self.annotation("vnd.docker.reference.type").is_none()
            && !self.platform.as_ref().is_some_and(Platform::is_unknown)
    }
}

/// A list of images: of platforms, or of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its entries, in order.
    pub manifests: Vec<Descriptor>,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Which spelling.
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// The manifest of an image that came without one, always the same for the same contents.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest { schema_version: 2, media_type: media::MANIFEST.into(), config, layers }
    }

    /// Whether it can be unpacked and run: refuses artifacts, and layers that are no tar.
    pub fn must_be_an_image(&self) -> Result<()> {
        if !media::is_config(&self.config.media_type) {
            return Err(Error::new(
                Code::Unsupported,
                format!(
                    "is no image but an artifact: its configuration has the type {:?}",
                    self.config.media_type
                ),
            ));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            if Compression::of_media_type(&layer.media_type).is_none() {
                return Err(Error::new(
                    Code::Unsupported,
                    format!("layer {} has the type {:?}, which is no layer's", i + 1, layer.media_type),
                ));
            }
        }
        Ok(())
    }
}

/// An index or a manifest. What could be read as both is refused: two readers would see two images under one digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An index.
    Index(Index),
    /// A manifest.
    Manifest(Box<Manifest>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses `text`, which `what` names. `declared` is the type by which it was referred to, where there is one.
    pub fn parse(what: &str, text: &[u8], declared: Option<&str>) -> Result<Document> {
        let raw: Raw = parse(what, text)?;
        let invalid = |why: String| Error::invalid(format!("{what}: {why}"));
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(Error::new(
                Code::Unsupported,
                format!(
                    "{what}: is a manifest of schema 1, which Docker gave up; build or push the image anew"
                ),
            ));
        }
        if raw.schema_version != Some(2) {
            return Err(invalid("has no schemaVersion 2".into()));
        }
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
            return Err(invalid("is an index and a manifest at once".into()));
        }
        let types = [declared, raw.media_type.as_deref()];
        if let [Some(declared), Some(own)] = types
            && declared != own
        {
            return Err(invalid(format!("is referred to as {declared:?} and says it is {own:?}")));
        }
        let media_type = types.into_iter().flatten().next();
        let too_many = |what_many: &str, count: usize, max: usize| {
            Error::new(Code::Limit, format!("{what}: has {count} {what_many}, more than {max}"))
        };
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) if media_type.is_none_or(media::is_index) => {
                if manifests.len() > ENTRIES_MAX {
                    return Err(too_many("entries", manifests.len(), ENTRIES_MAX));
                }
                Ok(Document::Index(Index { manifests }))
            }
            (None, Some(config), Some(layers)) if media_type.is_none_or(media::is_manifest) => {
                if layers.len() > LAYERS_MAX {
                    return Err(too_many("layers", layers.len(), LAYERS_MAX));
                }
                let media_type = media_type.unwrap_or(media::MANIFEST).to_string();
                Ok(Document::Manifest(Box::new(Manifest { schema_version: 2, media_type, config, layers })))
            }
            _ => Err(invalid(match media_type {
                Some(media_type) => format!("is not of its type {media_type:?}"),
                None => "is neither an index nor a manifest".into(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":1}}"#, Digest::of(b"x"))
    }

    #[test]
    fn both_spellings_of_index_and_manifest_are_read() {
        let config = descriptor(media::DOCKER_CONFIG);
        let layer = descriptor(media::DOCKER_LAYER);
        for (own, declared) in [
            (media::DOCKER_MANIFEST, None),
            (media::DOCKER_MANIFEST, Some(media::DOCKER_MANIFEST)),
            (media::MANIFEST, None),
        ] {
            let text = format!(
                r#"{{"schemaVersion":2,"mediaType":"{own}","config":{config},"layers":[{layer}],"x":1}}"#
            );
            let Document::Manifest(manifest) = Document::parse("m", text.as_bytes(), declared).unwrap()
            else {
                panic!("a manifest");
            };
            assert_eq!(manifest.layers.len(), 1);
            manifest.must_be_an_image().unwrap();
        }
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(media::MANIFEST));
        for declared in [None, Some(media::INDEX), Some(media::DOCKER_LIST)] {
            assert!(matches!(Document::parse("i", text.as_bytes(), declared).unwrap(), Document::Index(_)));
        }
    }

    #[test]
    fn hostile_documents_are_refused_in_words() {
        let d = descriptor(media::LAYER);
        let many = vec![d.clone(); 10_001].join(",");
        let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
        for (text, declared, why) in [
            (
                format!(r#"{{"schemaVersion":2,"manifests":[{d}],"layers":[],"config":{d}}}"#),
                None,
                "an index and a manifest at once",
            ),
            (format!(r#"{{"schemaVersion":2,"manifests":[{d}],"config":{d}}}"#), None, "at once"),
            (format!(r#"{{"schemaVersion":2,"manifests":[],"manifests":[{d}]}}"#), None, "duplicate field"),
            (format!(r#"{{"schemaVersion":2,"manifests":[{d}]}}"#), Some(media::MANIFEST), "not of its type"),
            (
                format!(r#"{{"schemaVersion":2,"config":{d},"layers":[]}}"#),
                Some(media::INDEX),
                "not of its type",
            ),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media::INDEX),
                Some(media::DOCKER_LIST),
                "says it is",
            ),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None, "schema 1"),
            (r#"{"schemaVersion":2}"#.into(), None, "neither"),
            (r#"{"manifests":[]}"#.into(), None, "schemaVersion"),
            ("{}".into(), None, "schemaVersion"),
            ("[]".into(), None, "invalid"),
            ("".into(), None, "EOF"),
            (deep, None, "EOF"),
            (format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#), None, "10001 entries"),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{d},"layers":[{}]}}"#,
                    vec![d.clone(); 501].join(",")
                ),
                None,
                "501 layers",
            ),
            (
                format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, d.replace(":1}", ":-1}")),
                None,
                "invalid value",
            ),
            (
                format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, d.replace("sha256:", "sha256:../")),
                None,
                "hex",
            ),
            (
                format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, d.replace("}", r#","size":2}"#)),
                None,
                "duplicate field",
            ),
            (" ".repeat((4 << 20) + 1), None, "larger than 4194304"),
            (
                format!(r#"{{"schemaVersion":2,"manifests":[{}"#, "{},".repeat(1_000_000)),
                None,
                "missing field",
            ),
        ] {
            let error = Document::parse("doc", text.as_bytes(), declared).unwrap_err().to_string();
            assert!(error.contains(why) && error.starts_with("doc: "), "{error} should say {why}");
        }
    }

    #[test]
    fn artifacts_and_foreign_layers_are_no_images() {
        for (config, layer, why) in [
            (media::EMPTY, media::LAYER, "artifact"),
            ("application/vnd.cncf.helm.config.v1+json", media::LAYER, "artifact"),
            (media::CONFIG, "application/vnd.in-toto+json", "no layer's"),
        ] {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
                descriptor(config),
                descriptor(layer)
            );
            let Document::Manifest(manifest) = Document::parse("m", text.as_bytes(), None).unwrap() else {
                panic!("a manifest");
            };
            assert!(manifest.must_be_an_image().unwrap_err().to_string().contains(why));
        }
    }

    #[test]
    fn attestations_and_unknown_types_are_no_entries_to_choose() {
        let entry = |change: &dyn Fn(&mut Descriptor)| {
            let mut entry: Descriptor = serde_json::from_str(&descriptor(media::MANIFEST)).unwrap();
            change(&mut entry);
            entry.is_image()
        };
        assert!(entry(&|_| ()));
        assert!(!entry(&|e| e.media_type = "application/x".into()));
        assert!(!entry(&|e| e.platform = Some("unknown/unknown".parse().unwrap())));
        assert!(!entry(&|e| {
            e.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        }));
    }
}
