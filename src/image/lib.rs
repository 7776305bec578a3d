//! Images: what a file or folder holds, verified, into a store of blobs and unpacked layers. Knows no containers, and no
//! other crate of rcrun.
//!
//! The way of one image: [`source::Source`] opens a layout or an archive and selects one image in it, [`import`] carries
//! it into a [`store::Store`], where each blob and each unpacked layer lies once, under its digest.

pub mod bundle;
mod carry;
pub mod commit;
pub mod compression;
pub mod digest;
pub mod document;
mod errno;
pub mod error;
mod fill;
pub mod flat;
pub mod import;
mod in_root;
pub mod jail;
pub mod layer;
pub mod name;
pub mod overlay;
pub mod pipeline;
pub mod platform;
pub mod save;
pub mod source;
pub mod store;
pub mod survey;
mod unfold;

pub use digest::{Algorithm, Digest};
pub use error::{Code, Error, Result};
pub use name::Name;
pub use platform::Platform;
