//! What a store keeps by digest: folders that are opened when they are asked for, since a start asks for few of them.
//! Uses: digest, error, folder.

use std::sync::OnceLock;

use super::{Folder, Store};
use crate::digest::Algorithm;
use crate::error::Result;

/// What is kept by digest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Blobs,
    Partials,
    Layers,
    Chains,
    Images,
}

/// How many kinds there are.
const KINDS: usize = 5;

impl Kind {
    /// The name of its folder.
    pub(crate) fn as_str(self) -> &'static str {
        ["blobs", "partials", "layers", "chains", "images"][self as usize]
    }
}

/// The folders of all kinds, as far as they are open.
#[derive(Debug, Default)]
pub(super) struct Opened {
    all: [OnceLock<Folder>; KINDS],
    by_algorithm: [[OnceLock<Folder>; Algorithm::ALL.len()]; KINDS],
}

impl Store {
    /// The folder of `kind`.
    pub(crate) fn all(&self, kind: Kind) -> Result<&Folder> {
        opened(&self.opened.all[kind as usize], || self.top.make(kind.as_str()))
    }

    /// The folder of `kind` for digests of `algorithm`.
    pub(crate) fn of(&self, kind: Kind, algorithm: Algorithm) -> Result<&Folder> {
        opened(&self.opened.by_algorithm[kind as usize][algorithm as usize], || {
            match self.top.find_below(&format!("{}/{}", kind.as_str(), algorithm.as_str()))? {
                Some(there) => Ok(there),
                None => self.all(kind)?.make(algorithm.as_str()),
            }
        })
    }
}

fn opened(place: &OnceLock<Folder>, open: impl FnOnce() -> Result<Folder>) -> Result<&Folder> {
    match place.get() {
        Some(there) => Ok(there),
        // Where two threads open it, one of them has done so for nothing.
        None => open().map(|folder| place.get_or_init(|| folder)),
    }
}
