//! What is in use and must not be pruned: by an import under way, as long as its process lives; by a container, until
//! it is released. Uses: digest, error, record, folder.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Folder, LEASE, Record, Store, folder, unique};
use crate::digest::Digest;
use crate::document::SIZE_MAX;
use crate::error::{Code, Error, Result};
use crate::source::Image;

/// A lease goes with the process that took it; so says the first letter of its file's name.
const PROCESS: &str = "p-";
/// A lease of a container, which outlives the process that made it.
const CONTAINER: &str = "c-";

/// Characters of the id of a container that a lease is for: its file is named after it, with two more.
pub const CONTAINER_MAX: usize = 255 - CONTAINER.len();

/// What a lease keeps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) images: Vec<Digest>,
    pub(super) blobs: Vec<Digest>,
    pub(super) layers: Vec<Digest>,
    pub(super) chains: Vec<Digest>,
}

/// A lease as it is found.
pub(super) struct Found {
    pub(super) file: String,
    /// The id of the container, where it is one's.
    pub(super) container: Option<String>,
    pub(super) kept: Kept,
    /// Whether its process is gone.
    pub(super) dead: bool,
}

/// Keeps an image while it lives.
#[derive(Debug)]
pub struct Lease {
    leases: Folder,
    file: String,
    _lock: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A lease that stays is dead as soon as the lock is: prune removes it.
        let _ = self.leases.remove(&self.file);
    }
}

impl Kept {
    fn of(digest: Digest, record: &Record) -> Kept {
        Kept {
            images: vec![digest],
            blobs: [digest, record.config].into_iter().chain(record.layers.iter().map(|l| l.blob)).collect(),
            layers: record.layers.iter().map(|layer| layer.diff_id).collect(),
            chains: record.layer_ids().iter().map(|id| id.chain_id).collect(),
        }
    }
}

impl Store {
    /// Keeps all that `image` consists of, there or not yet there. After this returns, what is found in the store stays.
    /// Who uses an image without a name after it was imported holds it before.
    pub fn hold(&self, image: &Image) -> Result<Lease> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        self.write_lease(&Kept::of(image.digest, &Record::of(image)))
    }

    /// Keeps the image of the manifest `digest`, which must be there, while the lease lives.
    pub fn hold_image(&self, digest: &Digest) -> Result<Lease> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let record = self.require_record(digest)?;
        self.write_lease(&Kept::of(*digest, &record))
    }

    /// The record of the image of the manifest `digest`, which must be there.
    pub fn require_record(&self, digest: &Digest) -> Result<Record> {
        self.record(digest)?
            .ok_or_else(|| Error::new(Code::NotFound, format!("the store has no image {digest}")))
    }

    fn write_lease(&self, kept: &Kept) -> Result<Lease> {
        let name = format!("{PROCESS}{}", unique());
        let failed = |e| Error::call("write a lease", e);
        let mut file = self.leases.create(&name).map_err(|e| failed(e.into()))?;
        // Who looks whether a lease is dead holds the store's lock alone: nobody does now.
        if !folder::try_lock(&file)? {
            return Err(Error::new(
                Code::Damaged,
                format!("the store's lease {name} is locked by another process"),
            ));
        }
        let lease =
            Lease { leases: self.leases.again()?, file: name, _lock: file.try_clone().map_err(failed)? };
        let text = serde_json::to_vec(kept).expect("a lease has only strings as keys");
        file.write_all(&text).map_err(failed)?;
        Ok(lease)
    }

    /// Keeps the image of the manifest `digest` for the container `id`, over the end of this process, until it is
    /// released. The image's record. With `folder`, of [`Store::establish`], the lease is its file.
    pub fn keep_for_container(&self, id: &str, digest: &Digest, folder: Option<&OwnedFd>) -> Result<Record> {
        let file = container_file(id)?;
        let _lock = self.lock(FlockOperation::LockShared)?;
        let record = self.require_record(digest)?;
        let text = serde_json::to_vec(&Kept::of(*digest, &record)).expect("a lease has only strings as keys");
        let failed = |e: std::io::Error| Error::call("write a lease", e);
        let rename = |from: BorrowedFd<'_>, name: &str| {
            rustix::fs::renameat(from, name, &self.leases, &file).map_err(|e| failed(e.into()))
        };
        // Not synced: a crash of the machine ends the container too.
        if let Some(folder) = folder {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let new =
                rustix::fs::openat(folder, LEASE, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
            File::from(new).write_all(&text).map_err(failed)?;
            rename(folder.as_fd(), LEASE)?;
            return Ok(record);
        }
        // Not locked, since nobody looks before the store's lock is let go: a crash leaves that of a dead process.
        let name = format!("{PROCESS}{}", unique());
        let created = self.leases.create(&name).map_err(|e| failed(e.into()));
        let written = created.and_then(|mut new| new.write_all(&text).map_err(failed));
        written.and_then(|()| rename(self.leases.as_fd(), &name)).map(|()| record).inspect_err(|_| {
            let _ = self.leases.remove(&name);
        })
    }

    /// The image that is kept for the container `id`, if one is.
    pub fn image_of_container(&self, id: &str) -> Result<Option<Digest>> {
        Ok(self.kept(&container_file(id)?)?.images.first().copied())
    }

    /// Ends what [`Store::keep_for_container`] began. Whether it had.
    pub fn release_container(&self, id: &str) -> Result<bool> {
        self.leases.remove(&container_file(id)?)
    }

    /// All leases. The caller holds the lock exclusively: nobody writes one, nor has one that is not locked yet.
    pub(super) fn leases(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for file in self.leases.names()? {
            let Some(opened) = self.leases.file(&file)? else { continue };
            let container = file.strip_prefix(CONTAINER).map(String::from);
            let dead = container.is_none() && folder::try_lock(&opened)?;
            // A process may have died while it wrote.
            let kept = if dead { Kept::default() } else { self.kept(&file)? };
            found.push(Found { file, container, kept, dead });
        }
        Ok(found)
    }

    /// The leases of containers by their ids.
    pub(super) fn containers(&self) -> Result<Vec<(String, Kept)>> {
        let files = self.leases.names()?;
        let ids = files.iter().filter_map(|file| Some((file, file.strip_prefix(CONTAINER)?)));
        ids.map(|(file, id)| Ok((id.to_string(), self.kept(file)?))).collect()
    }

    fn kept(&self, file: &str) -> Result<Kept> {
        let Some(text) = self.leases.read(file, SIZE_MAX)? else { return Ok(Kept::default()) };
        serde_json::from_slice(&text).map_err(|error| {
            Error::new(Code::Damaged, format!("the store's lease {file} is broken: {error}"))
        })
    }

    pub(super) fn remove_lease(&self, file: &str) -> Result<()> {
        self.leases.remove(file).map(|_| ())
    }
}

fn container_file(id: &str) -> Result<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || "_+.-".contains(c);
    if id.is_empty() || id.len() > CONTAINER_MAX || !id.chars().all(word) {
        return Err(Error::new(Code::Usage, format!("container id {id:?} is no name of a lease")));
    }
    Ok(format!("{CONTAINER}{id}"))
}
