//! Layers as they lie unpacked in the store. Most trees depend on nothing but the layer's tar and lie under its diffID,
//! for all images that have it. One that came out as it did because of the layers below (a parent or the file of a hard
//! link is not in its tar) fits that chain only, and lies under its chainID. Uses: digest, error, layer, source, folder.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::thread::CapabilitySet;

use super::{Kind, Record, Store, Workspace};
use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::layer::{Form, Summary};

/// The kernel's number for the user namespace of the machine (PROC_USER_INIT_INO).
const MACHINE_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The mark of a layer that has an entry for the root itself.
const ROOT: &str = "root";

/// A layer at its place in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerId {
    /// The digest of its tar.
    pub diff_id: Digest,
    /// The digest of its tar and those of all layers below it.
    pub chain_id: Digest,
}

impl LayerId {
    /// Those of an image, whose tars have these digests, lowest first (image-spec, config.md, "Layer ChainID").
    pub fn of_chain(diff_ids: impl IntoIterator<Item = Digest>) -> Vec<LayerId> {
        let mut ids: Vec<LayerId> = Vec::new();
        for diff_id in diff_ids {
            let chain_id = match ids.last() {
                None => diff_id,
                Some(below) => Digest::of(format!("{} {diff_id}", below.chain_id).as_bytes()),
            };
            ids.push(LayerId { diff_id, chain_id });
        }
        ids
    }
}

/// A layer that is unpacked, to be mounted.
#[derive(Debug)]
pub struct Unpacked {
    /// Its tree.
    pub fd: OwnedFd,
    /// The path of its tree, for mounts that take no fd.
    pub path: PathBuf,
    /// The same below the store.
    pub(crate) place: String,
    /// Whether the layer tells the attributes of the root. overlayfs shows those of the topmost folder: who mounts
    /// gives it those of the topmost layer that tells them, and where none does, 0755 and root.
    pub root: bool,
}

/// A layer that is unpacked, by its place: as mounts take it that take no fd.
#[derive(Debug)]
pub struct Placed {
    /// The path of its tree.
    pub path: PathBuf,
    /// The same below the store.
    place: String,
    /// See [`Unpacked::root`].
    pub root: bool,
}

/// Whether this process may mount overlayfs as root of the machine, and set what that reads.
pub(crate) fn privileged() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let namespace =
        std::fs::metadata("/proc/self/ns/user").map_err(|e| Error::call("stat /proc/self/ns/user", e))?.ino();
    let sets = rustix::thread::capabilities(None).map_err(|e| Error::call("capget", e))?;
    Ok(namespace == MACHINE_USER_NAMESPACE && sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

impl Store {
    /// The form of the store's layers: that of the process that made it.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Reads the form; the first opener writes it.
    pub(super) fn settled_form(&self) -> Result<Form> {
        const WORDS: [(&str, Form); 2] = [("trusted", Form::Overlay), ("user", Form::UserOverlay)];
        let read = || self.top.read("form", 100);
        let mut text = read()?;
        if text.is_none() {
            let _lock = self.lock(FlockOperation::LockExclusive)?;
            text = read()?;
            if text.is_none() {
                let word = WORDS[usize::from(!privileged()?)].0;
                self.top.publish(&self.workspace_locked()?.folder, "form", word.as_bytes())?;
                text = Some(word.into());
            }
        }
        let text = text.unwrap_or_default();
        let found = WORDS.iter().find(|(word, _)| word.as_bytes() == text);
        found.map(|(_, form)| *form).ok_or_else(|| {
            Error::new(
                Code::Damaged,
                format!("the file form says {}, not trusted or user", text.escape_ascii()),
            )
        })
    }

    /// Fails where this process cannot unpack in the store's form.
    pub(crate) fn must_unpack_here(&self, privileged: bool) -> Result<()> {
        if self.form == Form::Overlay && !privileged {
            return Err(Error::new(
                Code::Usage,
                "the store's layers are in the form that only root of the machine can make (trusted.overlay): use \
                 another store, or CAP_SYS_ADMIN outside of a user namespace",
            ));
        }
        Ok(())
    }

    /// The layer, unpacked, if it is there.
    pub fn layer(&self, id: &LayerId) -> Result<Option<Unpacked>> {
        let Some(Placed { path, place, root }) = self.placed(id)? else { return Ok(None) };
        let Some(folder) = self.top.find_below(&place)? else { return Ok(None) };
        Ok(Some(Unpacked { fd: folder.into_fd(), path, place, root }))
    }

    /// Where the layer is, unpacked, if it is there.
    fn placed(&self, id: &LayerId) -> Result<Option<Placed>> {
        for (kind, digest) in [(Kind::Layers, id.diff_id), (Kind::Chains, id.chain_id)] {
            let hex = digest.hex();
            let of_kind = self.of(kind, digest.algorithm())?;
            if of_kind.mode(&format!("{hex}/fs"))?.is_none() {
                continue;
            }
            let root = of_kind.mode(&format!("{hex}/{ROOT}"))?.is_some();
            let place = format!("{}/{}/{hex}/fs", kind.as_str(), digest.algorithm().as_str());
            return Ok(Some(Placed { path: self.path.join(&place), place, root }));
        }
        Ok(None)
    }

    /// Whether the layer is there, unpacked.
    pub fn has_layer(&self, id: &LayerId) -> Result<bool> {
        let has = |kind, digest: &Digest| {
            self.of(kind, digest.algorithm())?.mode(&digest.hex()).map(|mode| mode.is_some())
        };
        Ok(has(Kind::Layers, &id.diff_id)? || has(Kind::Chains, &id.chain_id)?)
    }

    /// The layers of the image of the manifest `digest`, the topmost first, each once, for a mount of overlayfs. The
    /// caller holds the image ([`Store::hold_image`], [`Store::keep_for_container`]) before, and as long as it uses
    /// them. After a crash of the machine some may not be there: [`restore`](crate::import::restore) unpacks them again.
    pub fn layers_of(&self, digest: &Digest) -> Result<Vec<Unpacked>> {
        let all = each(&self.require_record(digest)?, |id| self.layer(id))?;
        Ok(once(all, |layer| &layer.path))
    }

    /// The same by their places, of the image's record.
    pub fn places_of_record(&self, record: &Record) -> Result<Vec<Placed>> {
        Ok(once(each(record, |id| self.placed(id))?, |layer| &layer.path))
    }

    /// The same, the lowest first, and as often as the image has them.
    pub fn all_layers_of(&self, digest: &Digest) -> Result<Vec<Unpacked>> {
        each(&self.require_record(digest)?, |id| self.layer(id))
            .map_err(|e| e.of(format_args!("image {digest}")))
    }

    /// The folders of layers, `layers` and `chains`.
    pub(crate) fn layer_folders(&self) -> Result<[BorrowedFd<'_>; 2]> {
        Ok([self.all(Kind::Layers)?.as_fd(), self.all(Kind::Chains)?.as_fd()])
    }
}

/// All layers of the image of `record`, the lowest first, as `find` has them.
fn each<T>(record: &Record, find: impl Fn(&LayerId) -> Result<Option<T>>) -> Result<Vec<T>> {
    let missing = |id: &LayerId| Error::new(Code::NotFound, format!("layer {} is not unpacked", id.diff_id));
    record.layer_ids().iter().map(|id| find(id)?.ok_or_else(|| missing(id))).collect()
}

/// `all` from the topmost on, each once. overlayfs refuses a folder that it has already (ELOOP). It would show nothing of it:
/// all that the folder has, and hides, the same one further up has and hides.
fn once<T>(all: Vec<T>, path: impl Fn(&T) -> &PathBuf) -> Vec<T> {
    let mut layers: Vec<T> = Vec::new();
    for layer in all.into_iter().rev() {
        if layers.iter().all(|above| path(above) != path(&layer)) {
            layers.push(layer);
        }
    }
    layers
}

impl Workspace<'_> {
    /// A folder with an empty `fs` in it, into which a layer can be unpacked.
    pub(crate) fn layer_folder(&self, name: &str) -> Result<OwnedFd> {
        self.folder.make_new(name).map_err(|e| Error::call("mkdir", e))?;
        let fs = self.folder.open(name)?.make("fs")?;
        rustix::fs::fchmod(&fs, rustix::fs::Mode::from_raw_mode(0o755))
            .map_err(|e| Error::call("fchmod", e))?;
        // No clock: the same layer gives the same tree.
        clear_times(fs.as_fd())?;
        Ok(fs.into_fd())
    }

    /// Publishes the folder `name`, which has the layer in `fs`.
    pub(crate) fn publish_layer(&self, name: &str, id: &LayerId, summary: &Summary) -> Result<()> {
        if summary.root {
            self.folder.open(name)?.create(ROOT).map_err(|e| Error::call("create root", e))?;
        }
        let (kind, digest) = match summary.depends_on_lower {
            true => (Kind::Chains, id.chain_id),
            false => (Kind::Layers, id.diff_id),
        };
        // When another process was first, this one's goes with the workspace.
        self.folder.hand_over(name, self.store.of(kind, digest.algorithm())?, &digest.hex())?;
        Ok(())
    }
}

/// Sets the times of a folder to 1970.
pub(crate) fn clear_times(fd: BorrowedFd<'_>) -> Result<()> {
    let zero = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: zero, last_modification: zero };
    rustix::fs::futimens(fd, &times).map_err(|e| Error::call("futimens", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_image_spec() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|tar| Digest::of(tar));
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        let abc = Digest::of(format!("{ab} {c}").as_bytes());
        let chain: Vec<Digest> = LayerId::of_chain([a, b, c]).iter().map(|id| id.chain_id).collect();
        assert_eq!(chain, [a, ab, abc]);
        // As sha256sum(1) has it: two layers of 64 times 1 and 64 times 2.
        let ids = ["1", "2"].map(|digit| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().unwrap());
        assert_eq!(
            LayerId::of_chain(ids)[1].chain_id.to_string(),
            "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5"
        );
    }
}
