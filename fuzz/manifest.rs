//! Documents of an image: bytes as index, manifest and configuration. Uses: rcrun_image::document, sentence.
//!
//! What holds: no text is an index to one reader and a manifest to another; what is accepted is within the limits; a
//! manifest or configuration that is written anew is read as the same; an error is a sentence.

use rcrun_image::document::{Config, Document, ENTRIES_MAX, LAYERS_MAX, media};

use crate::sentence;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    let read = |declared| Document::parse("input", input, declared);
    let undeclared = read(None);
    let as_index = read(Some(media::INDEX)).is_ok();
    let as_manifest = read(Some(media::MANIFEST)).is_ok();
    assert!(!(as_index && as_manifest), "an index and a manifest at once");
    let layers = match undeclared {
        Ok(Document::Index(index)) => {
            assert!(!as_manifest && index.manifests.len() <= ENTRIES_MAX);
            0
        }
        Ok(Document::Manifest(manifest)) => {
            assert!(!as_index && manifest.layers.len() <= LAYERS_MAX);
            if let Err(error) = manifest.must_be_an_image() {
                sentence::is_one(&error);
            }
            let text = serde_json::to_vec(&*manifest).expect("a manifest can be written");
            let again = Document::parse("input", &text, None).expect("what was written can be read");
            assert_eq!(again, Document::Manifest(manifest.clone()));
            manifest.layers.len()
        }
        Err(error) => {
            sentence::is_one(&error);
            0
        }
    };
    for layers in [layers, 1, 2, 3] {
        match Config::parse("input", input, layers) {
            Err(error) => sentence::is_one(&error),
            Ok(config) => {
                assert_eq!(config.rootfs.diff_ids.len(), layers);
                let text = serde_json::to_vec(&config).expect("a configuration can be written");
                let again = Config::parse("input", &text, layers).expect("what was written can be read");
                assert_eq!(again, config);
            }
        }
    }
}
