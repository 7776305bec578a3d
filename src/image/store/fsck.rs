//! Whether the store is what it says: every digest, every link. Uses: digest, document, error, lease, record, folder.

use rustix::fs::FlockOperation;

use super::{Kind, Store, Workspace};
use crate::digest::{Algorithm, Digest};
use crate::error::{Code, Error, Result};

/// Something broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What, in one sentence.
    pub what: String,
    /// Whether it was removed.
    pub repaired: bool,
}

struct Check<'a> {
    store: &'a Store,
    workspace: Option<Workspace<'a>>,
    problems: Vec<Problem>,
}

impl Store {
    /// Reads everything and verifies every digest and every link. With `repair`, what is broken is removed: blobs,
    /// layers, images that lack a blob, names that mean no image. Others may use the store while it is checked, but not
    /// prune it; while it is repaired nobody can begin to use it, and an import that is under way may have to be
    /// repeated.
    pub fn fsck(&self, repair: bool) -> Result<Vec<Problem>> {
        let _lock =
            self.lock(if repair { FlockOperation::LockExclusive } else { FlockOperation::LockShared })?;
        let workspace = repair.then(|| self.workspace_locked()).transpose()?;
        let mut check = Check { store: self, workspace, problems: Vec::new() };
        check.blobs()?;
        check.layers()?;
        check.images()?;
        check.names()?;
        check.leases()?;
        Ok(check.problems)
    }
}

impl Check<'_> {
    fn broken(&mut self, folder: &super::Folder, name: &str, what: String) -> Result<()> {
        let repaired = match &self.workspace {
            Some(workspace) => {
                workspace.take(folder, name)?;
                folder.sync()?;
                true
            }
            None => false,
        };
        self.problems.push(Problem { what, repaired });
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for algorithm in Algorithm::ALL {
            let folder = self.store.of(Kind::Blobs, algorithm)?;
            for name in folder.names()? {
                let Some(digest) = Digest::from_hex(algorithm, &name) else {
                    self.broken(folder, &name, format!("{name:?} among the blobs is no digest"))?;
                    continue;
                };
                match self.store.blob_is_whole(&digest) {
                    Ok(true) => {}
                    Ok(false) => self.broken(folder, &name, format!("blob {digest} has another content"))?,
                    Err(error) if error.code() == Code::Damaged => {
                        self.broken(folder, &name, format!("blob {digest}: {error}"))?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        for (kind, of) in [("layer", Kind::Layers), ("chain", Kind::Chains)] {
            for algorithm in Algorithm::ALL {
                let folder = self.store.of(of, algorithm)?;
                for name in folder.names()? {
                    let Some(digest) = Digest::from_hex(algorithm, &name) else {
                        self.broken(folder, &name, format!("{name:?} among the {kind}s is no digest"))?;
                        continue;
                    };
                    let tree =
                        folder.find(&name).and_then(|layer| layer.map_or(Ok(None), |layer| layer.find("fs")));
                    if !matches!(tree, Ok(Some(_))) {
                        self.broken(folder, &name, format!("{kind} {digest} has no folder fs"))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn images(&mut self) -> Result<()> {
        for algorithm in Algorithm::ALL {
            let folder = self.store.of(Kind::Images, algorithm)?;
            for name in folder.names()? {
                let Some(digest) = Digest::from_hex(algorithm, &name) else {
                    self.broken(folder, &name, format!("{name:?} among the images is no digest"))?;
                    continue;
                };
                match self.image(&digest) {
                    Ok(()) => {}
                    // A disk that fails, or a lack of permission, says nothing about the image.
                    Err(error) if error.code() == Code::System => return Err(error),
                    Err(error) => self.broken(folder, &name, format!("image {digest}: {error}"))?,
                }
            }
        }
        Ok(())
    }

    /// The record says what manifest and configuration say, and every blob is there. A layer that is not unpacked is
    /// no fault: it can be, from its blob.
    fn image(&self, digest: &Digest) -> Result<()> {
        let image = self.store.image(digest)?;
        let record = self.store.record(digest)?;
        if record != Some(super::Record::of(&image)) {
            return Err(Error::new(Code::Damaged, "its record differs from its manifest"));
        }
        for layer in &image.layers {
            if !self.store.has_blob(&layer.descriptor.digest)? {
                return Err(super::damaged(&layer.descriptor.digest, "is not there"));
            }
        }
        Ok(())
    }

    fn names(&mut self) -> Result<()> {
        for file in self.store.names.names()? {
            match self.store.name_file(&file) {
                // Others may import meanwhile: a name is written after its record, and so the record is looked for last.
                Ok(Some(named)) if self.store.has_image(&named.manifest)? => {}
                Ok(None) => {}
                Ok(Some(named)) => {
                    let what = format!("name {} means {}, which is not there", named.name, named.manifest);
                    self.broken(&self.store.names, &file, what)?;
                }
                Err(error) if error.code() == Code::System => return Err(error),
                Err(error) => self.broken(&self.store.names, &file, error.to_string())?,
            }
        }
        Ok(())
    }

    fn leases(&mut self) -> Result<()> {
        for (id, kept) in self.store.containers()? {
            for image in kept.images {
                if !self.store.has_image(&image)? {
                    let what = format!("container {id} uses image {image}, which is not there");
                    self.problems.push(Problem { what, repaired: false });
                }
            }
        }
        Ok(())
    }
}
