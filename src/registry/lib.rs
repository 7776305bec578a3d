//! Images from and to a registry that speaks the distribution spec (v2), over HTTPS. A registry is one more source of
//! `rcrun_image::import`, which verifies all that comes from it while it comes. A crate of its own, so that who reads
//! only files links no TLS (docs/adr/0011).
//!
//! Nothing of a registry is believed: documents are at most 4 MiB and have the digest that was asked for, blobs the size
//! and digest of their descriptor. Passwords and tokens go to the registry and to the realm that it names, never to
//! where it redirects, and `urls` of a descriptor are not read at all.

mod client;
mod connection;
mod credentials;
mod options;
mod origin;
mod proxy;
mod pull;
mod push;
mod retry;
mod token;
mod trust;
mod words;

pub use credentials::{Credentials, auth_files};
pub use options::{Options, Progress, Report};
pub use proxy::Proxies;
pub use pull::pull;
pub use push::{Pushed, push};
