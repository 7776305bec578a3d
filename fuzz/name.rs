//! Words that a person or a document says: names of images, digests, volumes, amounts. Uses: rcrun_image, sentence.
//!
//! What holds: a name or digest that is accepted is written as what is read as the same, and could be a part of a path:
//! no part of it is `..` or empty; an error is a sentence.

use rcrun_image::bundle::{Cpus, Volume, memory};
use rcrun_image::{Digest, Name, Platform};

use crate::sentence;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match text.parse::<Name>() {
        Err(error) => sentence::is_one(&error),
        Ok(name) => {
            let again = |text: String| text.parse::<Name>().unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(again(name.to_string()), name);
            assert_eq!(again(name.short()), name);
            let parts = name.path().split('/').chain([name.registry(), name.tag()]);
            for part in parts {
                let plain = |c: char| c.is_ascii_graphic() && c != '/';
                assert!(!part.is_empty() && part.chars().all(plain), "{name}: {part:?}");
                assert!(!part.starts_with(['.', '-']), "{name}: {part:?}");
            }
        }
    }
    match text.parse::<Digest>() {
        Err(error) => sentence::is_one(&error),
        Ok(digest) => {
            assert_eq!(digest.to_string(), text);
            assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
    if let Err(error) = text.parse::<Platform>() {
        sentence::is_one(&error);
    }
    if let Err(error) = memory(text) {
        sentence::is_one(&error);
    }
    match Cpus::parse(text) {
        Err(error) => sentence::is_one(&error),
        Ok(Some(cpus)) => assert!(cpus.quota > 0 && cpus.period > 0, "{text:?}: {cpus:?}"),
        Ok(None) => {}
    }
    match Volume::parse(text, "/folder".as_ref()) {
        Err(error) => sentence::is_one(&error),
        Ok(volume) => {
            assert!(volume.destination.starts_with('/'), "{text:?}: {volume:?}");
            assert!(!volume.destination.split('/').any(|part| part == ".."), "{text:?}: {volume:?}");
        }
    }
}
