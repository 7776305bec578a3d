//! What nobody needs goes. Deciding takes the lock for some renames; removing takes none.
//! Uses: digest, error, lease, record, folder.

use std::collections::HashSet;

use rustix::fs::FlockOperation;

use super::{Kind, Store, folder};
use crate::digest::{Algorithm, Digest};
use crate::error::{Code, Error, Result};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images by the digests of their manifests.
    pub images: Vec<Digest>,
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Unpacked layers by their diffIDs.
    pub layers: Vec<Digest>,
    /// Unpacked layers that fit one chain of layers only, by their chainIDs.
    pub chains: Vec<Digest>,
}

impl Store {
    /// Removes images that have no name and are in no use, and blobs and layers that no image has. `alive` says whether
    /// a container that a lease was written for still is; the lease of one that is not goes too, and so do partials that nobody reads.
    pub fn prune(&self, alive: &dyn Fn(&str) -> bool) -> Result<Pruned> {
        let workspace = self.workspace()?;
        let mut pruned = Pruned::default();
        {
            let _lock = self.lock(FlockOperation::LockExclusive)?;
            for spare in self.spares()? {
                // Another process may be taking it.
                if let Some(folder) = self.tmp.find(&spare)?
                    && folder.try_lock()?
                {
                    workspace.take(&self.tmp, &spare)?;
                }
            }
            let mut images = HashSet::new();
            let mut blobs = HashSet::new();
            let mut layers = HashSet::new();
            let mut chains = HashSet::new();
            for lease in self.leases()? {
                if lease.dead || lease.container.as_deref().is_some_and(|id| !alive(id)) {
                    self.remove_lease(&lease.file)?;
                    continue;
                }
                images.extend(lease.kept.images);
                blobs.extend(lease.kept.blobs);
                layers.extend(lease.kept.layers);
                chains.extend(lease.kept.chains);
            }
            // After the leases: an import gives its image a name, and lets go of its lease, without a lock.
            images.extend(self.names()?.into_iter().map(|named| named.manifest));
            for image in &images {
                // An import under way has no record yet; its lease names its blobs and layers.
                let Some(record) = self.record(image)? else { continue };
                blobs.extend([*image, record.config]);
                blobs.extend(record.layers.iter().map(|layer| layer.blob));
                layers.extend(record.layers.iter().map(|layer| layer.diff_id));
                chains.extend(record.layer_ids().iter().map(|id| id.chain_id));
            }
            // Records first: a record never names what is not there, even when this process dies in between.
            let sets: [(Kind, &HashSet<Digest>, &mut Vec<Digest>); 4] = [
                (Kind::Images, &images, &mut pruned.images),
                (Kind::Blobs, &blobs, &mut pruned.blobs),
                (Kind::Layers, &layers, &mut pruned.layers),
                (Kind::Chains, &chains, &mut pruned.chains),
            ];
            for (kind, keep, gone) in sets {
                for algorithm in Algorithm::ALL {
                    let folder = self.of(kind, algorithm)?;
                    for name in folder.names()? {
                        let Some(digest) = Digest::from_hex(algorithm, &name) else { continue };
                        if !keep.contains(&digest) {
                            workspace.take(folder, &name)?;
                            gone.push(digest);
                        }
                    }
                    folder.sync()?;
                }
            }
        }
        drop(workspace);
        for algorithm in Algorithm::ALL {
            let partials = self.of(Kind::Partials, algorithm)?;
            for name in partials.names()? {
                if partials.file(&name)?.map(folder::try_lock).transpose()? == Some(true) {
                    partials.remove(&name)?;
                }
            }
        }
        Ok(pruned)
    }

    /// Removes the image of the manifest `digest` with all its names, unless it is in use. Its blobs and layers stay
    /// until they are pruned.
    pub fn remove_image(&self, digest: &Digest) -> Result<()> {
        let workspace = self.workspace()?;
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        for lease in self.leases()? {
            if !lease.dead && lease.kept.images.contains(digest) {
                let error = |by: String| Error::new(Code::Usage, format!("image {digest} is in use by {by}"));
                return Err(match lease.container {
                    None => error("an import or run under way".into()),
                    Some(id) => error(format!("container {id}"))
                        .and("first delete that, or the bundle that was unpacked of it"),
                });
            }
        }
        for named in self.names()?.into_iter().filter(|named| named.manifest == *digest) {
            self.untag(&named.name)?;
        }
        let images = self.of(Kind::Images, digest.algorithm())?;
        if images.mode(&digest.hex())?.is_none() {
            return Err(Error::new(Code::NotFound, format!("the store has no image {digest}")));
        }
        workspace.take(images, &digest.hex())?;
        images.sync()
    }
}
