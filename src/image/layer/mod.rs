//! Layers: a tar stream becomes a folder that overlayfs can stack, or changes a tree; a folder becomes a tar.
//! Uses: rustix, serde. Below it: `unpack` and `diff` are the two ways, `changes` what of a folder is new, `tar` the format, `tree` the way through the folders,
//! `link` hard links, `lower` what is beneath, `attributes` owners, modes, xattrs and times, `remove` what goes, `name`
//! and `notes` what their names say.

mod attributes;
mod changes;
mod diff;
mod error;
mod link;
mod lower;
mod name;
mod notes;
mod remove;
mod tar;
mod tree;
mod unpack;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

pub use changes::{Change, ChangeKind, Changes, Made, Over, changes};
pub use diff::{Diff, diff, diff_of};
pub use error::{Error, Kind, Result};
pub use unpack::unpack;

/// How what is hidden is told in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// For overlayfs mounted by root: character devices 0:0, and `trusted.overlay.opaque`.
    Overlay,
    /// For overlayfs mounted with `userxattr`, in a user namespace: the same with `user.overlay.opaque`.
    UserOverlay,
    /// The tree holds the layers below already: what is hidden is removed.
    Flat,
}

impl Form {
    /// The namespace of xattrs that overlayfs keeps for itself in this form.
    fn private(self) -> Option<&'static str> {
        match self {
            Form::Overlay => Some("trusted.overlay."),
            Form::UserOverlay => Some("user.overlay."),
            Form::Flat => None,
        }
    }
}

/// Opens the layers below, each in the same overlay form, the topmost first. Called at most once in an unpack, and only
/// when an entry needs them: a call may wait until they are complete, or fail, and the caller unpacks the layer again once
/// they are ([`Error::into_stream`] gives its error back).
pub type Lower<'a> = &'a dyn Fn() -> io::Result<Vec<OwnedFd>>;

/// How to unpack a layer.
pub struct Unpack<'a> {
    /// How what is hidden is told in the tree.
    pub form: Form,
    /// Not root of the machine: device nodes are left out and owners set only where the user namespace allows it.
    pub rootless: bool,
    /// What the archive may ask for.
    pub limits: Limits,
    /// The layers below, where there are any. Form `Flat` has them in the tree, and asks for none.
    pub lower: Option<Lower<'a>>,
}

/// What an archive may ask for. The defaults hold for every image that is meant well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the stream, from the first to the last.
    pub stream: u64,
    /// Bytes of file data, all files together. Holes are none.
    pub bytes: u64,
    /// Entries, and files, folders and links made.
    pub inodes: u64,
    /// Folders in a path. Each may be an open fd while the layer is unpacked.
    pub depth: usize,
    /// Bytes in a part of a path: NAME_MAX.
    pub name: usize,
    /// Bytes in a path: PATH_MAX.
    pub path: usize,
    /// Bytes of names and values of the extended attributes of one file.
    pub xattrs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            stream: 128 << 30,
            bytes: 64 << 30,
            inodes: 4_000_000,
            depth: 256,
            name: 255,
            path: 4096,
            xattrs: 256 << 10,
        }
    }
}

/// Copies the tree `from`, which has no overlayfs's marks in it, into the empty folder `into`, with all attributes: by way of
/// a layer.
pub fn copy(from: BorrowedFd<'_>, into: BorrowedFd<'_>) -> Result<()> {
    let (reader, writer) = io::pipe().map_err(|e| Error::call("pipe", e))?;
    let options = Unpack { form: Form::Flat, rootless: false, limits: Limits::default(), lower: None };
    std::thread::scope(|scope| {
        let written =
            scope.spawn(move || diff(from, &Diff { form: Form::Flat, root: true, latest: None }, writer));
        let made = unpack(io::BufReader::new(reader), into, &options);
        let written = written.join().unwrap_or_else(|_| Err(Error::limit("the thread that reads panicked")));
        // A writer without a reader tells nothing.
        made?;
        written.map(|_| ())
    })
}

/// What people call the layer at `index` of an image: the lowest is layer 1.
pub(crate) fn numbered(index: usize) -> String {
    format!("layer {}", index + 1)
}

/// Whether there is nothing in a folder.
pub fn is_empty(folder: BorrowedFd<'_>) -> Result<bool> {
    remove::list(folder).map(|names| names.is_empty())
}

/// Removes all in a folder into which a layer was unpacked within `limits`.
pub fn clear(folder: BorrowedFd<'_>, limits: &Limits) -> Result<()> {
    remove::empty(folder, remove::Keep::Nothing, limits.depth + 2)
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Entries of the archive, whiteouts among them.
    pub entries: u64,
    /// Bytes of file data.
    pub bytes: u64,
    /// Names hidden, and folders that hide all that is below.
    pub whiteouts: u64,
    /// Whether the archive had an entry for the root itself: without, its attributes are those of the layer below.
    pub root: bool,
    /// Whether the tree came out as it did because of the layers below, or because there were none: a parent that the
    /// layer does not have, a hard link to a file that is not in it. Then the folder fits this chain of layers only.
    pub depends_on_lower: bool,
    /// What was left out, in sentences, one for each sort.
    pub notes: Vec<String>,
}
