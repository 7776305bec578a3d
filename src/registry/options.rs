//! How a registry is spoken to. Uses: credentials, proxy.

use std::path::PathBuf;
use std::time::Duration;

use rcrun_image::Digest;

use crate::credentials::{Credentials, auth_files};
use crate::proxy::Proxies;

/// How a registry is spoken to.
#[derive(Clone, Debug)]
pub struct Options {
    /// A registry that is not on this machine may be spoken to without TLS, if it does not speak TLS.
    pub plain_http: bool,
    /// Who is logged in. Without, the auth files are looked at.
    pub credentials: Option<Credentials>,
    /// Files in which `docker login` or `podman login` wrote, the first that has the registry counts.
    pub auth_files: Vec<PathBuf>,
    /// Folders with a folder for a host, `HOST[:PORT]/*.crt`, of certificates to trust there beside the system's.
    pub certificates: Vec<PathBuf>,
    /// The proxies of the environment.
    pub proxies: Proxies,
    /// How often in a row a connection may fail without progress, which is 32 KiB.
    pub attempts: u32,
    /// The wait after the first such failure; twice as long after the second, and so on.
    pub pause: Duration,
    /// How long to wait for a connection, for an answer, and for the next byte of one. All of an answer may take twice as long,
    /// and a second more for each KiB of a blob.
    pub patience: Duration,
    /// Blobs that are pushed at the same time. How many are pulled is for the import's options to say.
    pub parallel: usize,
    /// Blobs that are larger are pushed in chunks of so many bytes, and a chunk that fails is all that is sent again.
    /// Without, a blob goes in one piece, which every registry takes.
    pub chunk: Option<u64>,
}

impl Default for Options {
    /// With nothing of the environment.
    fn default() -> Self {
        Options {
            plain_http: false,
            credentials: None,
            auth_files: Vec::new(),
            certificates: Vec::new(),
            proxies: Proxies::default(),
            attempts: 5,
            pause: Duration::from_millis(250),
            patience: Duration::from_secs(60),
            parallel: 4,
            chunk: None,
        }
    }
}

impl Options {
    /// With the auth files of `user`, the certificates and the proxies that users of other tools have set up. Who is root of a
    /// user namespace of his own logged in as somebody else.
    pub fn of_environment(user: u32) -> Options {
        Options {
            auth_files: auth_files(user, &|name| std::env::var_os(name)),
            certificates: vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
            proxies: Proxies::of(&|name| std::env::var(name).ok()),
            ..Options::default()
        }
    }
}

/// What is told while an image is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Before all else: what may have to be carried.
    Ahead {
        /// So many blobs.
        blobs: usize,
        /// Of so many bytes together.
        bytes: u64,
    },
    /// How far a blob is.
    Blob {
        /// Which one.
        digest: Digest,
        /// Bytes that are there, also from an earlier pull.
        done: u64,
        /// Bytes that it has.
        size: u64,
    },
    /// Another pull reads a blob into the same store, and this one waits for it.
    Waits {
        /// Which one.
        digest: Digest,
        /// Bytes that it has.
        size: u64,
    },
}

/// Is told of progress, from several threads.
pub type Report<'a> = dyn Fn(Progress) + Sync + 'a;
