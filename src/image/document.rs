//! The JSON documents of an image: index, manifest and configuration, in OCI's and Docker's spelling, taken apart from
//! bytes that nobody vouches for. Pure. Uses: digest, error, platform.

mod config;
mod manifest;
pub mod media;

use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result};

pub use config::{Config, Execution, History, RootFs};
pub use manifest::{Descriptor, Document, Index, Manifest};

/// No document is larger. Registries refuse larger ones too.
pub const SIZE_MAX: u64 = 4 << 20;

/// Layers of one image. An overlay takes 500.
pub const LAYERS_MAX: usize = 500;

/// Entries of one index.
pub const ENTRIES_MAX: usize = 10_000;

/// Parses `text`, which `what` names, after its size is looked at. serde_json bounds the depth (128) and refuses a key
/// that stands twice in what is parsed here.
pub fn parse<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T> {
    if text.len() as u64 > SIZE_MAX {
        return Err(Error::new(Code::Limit, format!("{what}: is larger than {SIZE_MAX} bytes")));
    }
    serde_json::from_slice(text).map_err(|error| Error::invalid(format!("{what}: {error}")))
}

/// Docker writes `null` for an empty list or table.
fn null_is_empty<'de, T: Default + serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}
