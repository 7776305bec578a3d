//! The content store: blobs and unpacked layers by digest, each once, and names. Any number of processes use it at a
//! time; a process that dies at any moment leaves it valid. Uses: digest, document, error, layer and source (their types),
//! name.
//!
//! ```text
//! <store>/                  0700
//!   lock                    flock: shared to add a lease or a workspace, exclusive to decide what is garbage; both short
//!   boot                    the boot in which the store was last opened
//!   blobs/<alg>/<hex>       content; 0600 until it is known to be on the disk, then 0400
//!   form                    "trusted" or "user": whose overlayfs the layers are for
//!   partials/<alg>/<hex>    the begin of a blob that an import reads from far away, or did; locked while one does
//!   layers/<alg>/<hex>/fs   a layer, unpacked, by its diffID; the folder 0700 until it is on the disk, then 0500
//!   chains/<alg>/<hex>/fs   the same by its chainID, for a layer whose tree depends on the layers below
//!   images/<alg>/<hex>      by the digest of the manifest, written last: what is named here is complete
//!   names/<hex>             {"name": ..., "manifest": ...}, under the SHA-256 of the name
//!   leases/<id>             what a container or an import under way uses: prune keeps it
//!   tmp/<id>/               what is not yet published; the folder is locked by its process while that lives
//!   tmp/discarded-<id>/     what is to be removed by a later process
//!   tmp/spare-<n>-<id>/     a container's folder, made before there is a container
//! ```
//!
//! What reaches the disk when: records and names are synced before they are renamed into place. Blobs and layers are
//! renamed without, since that would cost more than all of the rest; their mode says so. After a reboot the next opener
//! hashes each blob that was not known to be on the disk, and removes such layers: they are unpacked again from their
//! blobs. [`Store::settle`] makes all of it durable at once.

mod folder;
mod fsck;
mod kind;
mod lease;
mod partial;
mod prune;
mod record;
mod spare;
mod unpacked;

use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::{Algorithm, Digest, Verified};
use crate::document::{Config, Document, Manifest, SIZE_MAX};
use crate::error::{Code, Error, Result};
use crate::layer::Form;
use crate::source::{Blobs, Image, Layer};
pub(crate) use folder::Folder;
pub use fsck::Problem;
pub(crate) use kind::Kind;
pub use lease::{CONTAINER_MAX, Lease};
pub(crate) use partial::{Continued, Partial};
pub use prune::Pruned;
pub use record::{Named, Record, RecordLayer};
pub use spare::Outfit;
use spare::{DISCARDED, DISCARDED_MAX, SPARE};
pub use unpacked::{LayerId, Placed, Unpacked};
pub(crate) use unpacked::{clear_times, privileged};

/// A file's mode while nobody knows whether it is on the disk, and after.
const FILE: [u32; 2] = [0o600, 0o400];
/// A folder's.
const FOLDER: [u32; 2] = [0o700, 0o500];

/// An opened store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    form: Form,
    top: Folder,
    /// What is kept by digest.
    opened: kind::Opened,
    names: Folder,
    leases: Folder,
    tmp: Folder,
    /// What was left to be removed when it was opened.
    discarded: Vec<String>,
    /// The folders that were ready then.
    spares: Vec<String>,
}

/// A lock on the store; it goes when it is dropped, or with the process.
#[derive(Debug)]
struct Lock {
    _fd: OwnedFd,
}

/// A folder for what is not published. It is removed when dropped, or by the next opener after the process died.
#[derive(Debug)]
pub(crate) struct Workspace<'a> {
    store: &'a Store,
    pub(crate) folder: Folder,
    name: String,
    count: AtomicU64,
}

/// The file of a folder of [`Store::establish`] in which its lease is written before it is one.
const LEASE: &str = "lease";

impl Store {
    /// Opens the store at `path`, makes it if it is not there, and clears what dead processes left.
    pub fn open(path: &Path) -> Result<Store> {
        Store::at(path, 0).map_err(|e| e.of(format_args!("store {}", path.display())))
    }

    /// The same, but for a few of the folders of [`Store::discard_later`], for [`Store::tidy`].
    pub fn open_in_haste(path: &Path) -> Result<Store> {
        Store::at(path, DISCARDED_MAX).map_err(|e| e.of(format_args!("store {}", path.display())))
    }

    fn at(path: &Path, discarded: usize) -> Result<Store> {
        let (top, known) = Folder::top(path)?;
        let path = top.path()?;
        let mut store = Store {
            path,
            form: Form::UserOverlay,
            opened: kind::Opened::default(),
            names: top.make("names")?,
            leases: top.make("leases")?,
            tmp: top.make("tmp")?,
            discarded: Vec::new(),
            spares: Vec::new(),
            top,
        };
        // Where no store was so far, what lies in a folder called tmp is not its own.
        if known {
            store.sweep(discarded)?;
        }
        store.form = store.settled_form()?;
        store.recover()?;
        Ok(store)
    }

    /// Where it is, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder of the store for files without a name: archives that are decompressed before they are read.
    pub fn scratch(&self) -> BorrowedFd<'_> {
        self.tmp.as_fd()
    }

    fn lock(&self, operation: FlockOperation) -> Result<Lock> {
        lock(&self.top, operation)
    }

    /// Removes the workspaces of the dead; but for what is discarded, if it is no more than `most`. Who makes one holds the
    /// lock until it is locked itself.
    fn sweep(&mut self, most: usize) -> Result<()> {
        let (spares, names): (Vec<_>, Vec<_>) =
            self.tmp.names()?.into_iter().partition(|name| name.starts_with(SPARE));
        self.spares = spares;
        let (discarded, mut names): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.starts_with(DISCARDED));
        match discarded.len() > most {
            true => names.extend(discarded),
            false => self.discarded = discarded,
        }
        if names.is_empty() {
            return Ok(());
        }
        let mut dead = Vec::new();
        {
            let lock = lock_file(&self.top)?;
            if !folder::try_lock(&lock)? {
                return Ok(());
            }
            for name in names {
                if let Some(folder) = self.tmp.find(&name)?
                    && folder.try_lock()?
                {
                    dead.push((name, folder));
                }
            }
        }
        // Two openers cannot have the same one: its lock is held until it is gone.
        for (name, _) in &dead {
            // Its unpacker may be dying as this is done: what stays, the next opener removes.
            match self.tmp.remove_tree(name) {
                Err(error) if error.errno() == Some(rustix::io::Errno::NOTEMPTY.raw_os_error()) => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// After a reboot: what was not known to be on the disk is looked at, or removed.
    fn recover(&self) -> Result<()> {
        let boot = boot_id().map_err(|e| Error::call("read /proc/sys/kernel/random/boot_id", e))?;
        if self.top.read("boot", 100)?.as_deref() == Some(boot.as_slice()) {
            return Ok(());
        }
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        if self.top.read("boot", 100)?.as_deref() == Some(boot.as_slice()) {
            return Ok(());
        }
        let workspace = self.workspace_locked()?;
        for name in self.spares()? {
            workspace.take(&self.tmp, &name)?;
        }
        for algorithm in Algorithm::ALL {
            let blobs = self.of(Kind::Blobs, algorithm)?;
            for name in blobs.names()? {
                if blobs.mode(&name)? == Some(FILE[0]) {
                    match Digest::from_hex(algorithm, &name) {
                        Some(digest) if self.blob_is_whole(&digest)? => blobs.set_mode(&name, FILE[1])?,
                        _ => workspace.take(blobs, &name)?,
                    }
                }
            }
            for kind in [Kind::Layers, Kind::Chains] {
                let layers = self.of(kind, algorithm)?;
                for name in layers.names()? {
                    if layers.mode(&name)? == Some(FOLDER[0]) {
                        workspace.take(layers, &name)?;
                    }
                }
            }
            let partials = self.of(Kind::Partials, algorithm)?;
            for name in partials.names()? {
                partials.remove(&name)?;
            }
        }
        self.top.publish(&workspace.folder, "boot", &boot)
    }

    /// Writes all of the store to the disk, and remembers that it is there.
    pub fn settle(&self) -> Result<()> {
        // Shared is enough against prune; what is published after the listing is settled by the next.
        let _lock = self.lock(FlockOperation::LockShared)?;
        let mut unsettled: Vec<(&Folder, String, u32)> = Vec::new();
        for (kind, modes) in [(Kind::Blobs, FILE), (Kind::Layers, FOLDER), (Kind::Chains, FOLDER)] {
            for algorithm in Algorithm::ALL {
                let folder = self.of(kind, algorithm)?;
                for name in folder.names()? {
                    if folder.mode(&name)? == Some(modes[0]) {
                        unsettled.push((folder, name, modes[1]));
                    }
                }
            }
        }
        if unsettled.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(&self.top).map_err(|e| Error::call("syncfs", e))?;
        unsettled.iter().try_for_each(|(folder, name, mode)| folder.set_mode(name, *mode))
    }

    /// A folder for what is not published.
    pub(crate) fn workspace(&self) -> Result<Workspace<'_>> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        self.workspace_locked()
    }

    fn workspace_locked(&self) -> Result<Workspace<'_>> {
        loop {
            let name = unique();
            match self.tmp.make_new(&name) {
                Ok(()) => {
                    let folder = self.tmp.open(&name)?;
                    if !folder.try_lock()? {
                        return Err(Error::new(
                            Code::Damaged,
                            format!("tmp/{name} is locked by another process"),
                        ));
                    }
                    return Ok(Workspace { store: self, folder, name, count: AtomicU64::new(0) });
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::call("mkdir in tmp", error)),
            }
        }
    }

    /// Removes the folder `name` of `kind`, which the caller keeps in the store beside what is the store's own. It is
    /// taken away whole, and then removed: what a crash leaves of it the next opener removes. Whether it was there.
    pub fn discard(&self, kind: &str, name: &str) -> Result<bool> {
        let Some(kind) = self.top.find(kind)? else { return Ok(false) };
        let Some(folder) = kind.find(name)? else { return Ok(false) };
        // What lies in tmp unlocked belongs to the next opener.
        // Where the caller has locked it by another fd, that does as well.
        folder.try_lock()?;
        match self.take_away(&kind, name, "")? {
            Some(away) => self.tmp.remove_tree(&away).map(|()| true),
            None => Ok(false),
        }
    }

    /// The same, for a folder in which next to nothing lies: it is taken away now, and removed by who has the time, which
    /// is a later process. (Each folder costs a disk 0.1 to 0.4 ms: ext4 without a journal waits for a discard of its block.)
    pub fn discard_later(&self, kind: &str, name: &str) -> Result<bool> {
        let Some(kind) = self.top.find(kind)? else { return Ok(false) };
        self.take_away(&kind, name, DISCARDED).map(|away| away.is_some())
    }

    fn take_away(&self, kind: &Folder, name: &str, prefix: &str) -> Result<Option<String>> {
        loop {
            let away = format!("{prefix}{}", unique());
            match kind.hand_over(name, &self.tmp, &away) {
                Ok(false) => {}
                Ok(true) => return Ok(Some(away)),
                Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn blob_folder(&self, digest: &Digest) -> Result<&Folder> {
        self.of(Kind::Blobs, digest.algorithm())
    }

    /// Whether the blob is there.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_folder(digest)?.mode(&digest.hex())?.is_some())
    }

    /// How many bytes the blob has, if it is there.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(file) = self.blob_folder(digest)?.file(&digest.hex())? else { return Ok(None) };
        file.metadata().map(|there| Some(there.len())).map_err(|e| Error::call("fstat", e))
    }

    fn blob_is_whole(&self, digest: &Digest) -> Result<bool> {
        let Some(file) = self.blob_folder(digest)?.file(&digest.hex())? else { return Ok(false) };
        let size = file.metadata().map_err(|e| Error::call("fstat", e))?.len();
        let mut blob = Verified::new(file, *digest, size);
        match std::io::copy(&mut blob, &mut std::io::sink()) {
            Ok(_) => Ok(true),
            Err(error) => match Error::call(format_args!("read blob {digest}"), error) {
                error if error.code() == Code::Invalid => Ok(false),
                error => Err(error),
            },
        }
    }

    /// The text of a document's blob, verified.
    fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let text = self
            .blob_folder(digest)?
            .read(&digest.hex(), SIZE_MAX)?
            .ok_or_else(|| damaged(digest, "is not there"))?;
        let mut out = Vec::new();
        Verified::new(&text[..], *digest, text.len() as u64)
            .read_to_end(&mut out)
            .map_err(|_| damaged(digest, "has another content"))?;
        Ok(out)
    }

    /// The configuration of the image of `record`, verified, without a look at its other documents.
    pub fn config(&self, record: &Record) -> Result<Config> {
        let what = format!("configuration {}", record.config);
        Config::parse(&what, &self.document(&record.config)?, record.layers.len())
    }

    /// The image of the manifest `digest`: its documents, verified.
    pub fn image(&self, digest: &Digest) -> Result<Image> {
        self.record(digest)?
            .ok_or_else(|| Error::new(Code::NotFound, format!("the store has no image {digest}")))?;
        let text = self.document(digest)?;
        let what = format!("manifest {digest}");
        let Document::Manifest(manifest) = Document::parse(&what, &text, None)? else {
            return Err(damaged(digest, "is an index, not a manifest"));
        };
        let Manifest { config: config_descriptor, layers, .. } = *manifest;
        let config_text = self.document(&config_descriptor.digest)?;
        let what = format!("configuration {}", config_descriptor.digest);
        let config = Config::parse(&what, &config_text, layers.len())?;
        let layers = layers
            .into_iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(descriptor, diff_id)| Layer { descriptor, diff_id: *diff_id, member: String::new() })
            .collect();
        let names = self.names()?.into_iter().filter(|n| n.manifest == *digest).map(|n| n.name).collect();
        Ok(Image { names, manifest: text, digest: *digest, config_descriptor, config_text, config, layers })
    }
}

impl Blobs for Store {
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        self.open_at(layer, 0)
    }

    fn open_at<'a>(&'a self, layer: &Layer, at: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let digest = &layer.descriptor.digest;
        let mut file =
            self.blob_folder(digest)?.file(&digest.hex())?.ok_or_else(|| damaged(digest, "is not there"))?;
        file.seek(SeekFrom::Start(at)).map_err(|e| Error::call(format_args!("seek in blob {digest}"), e))?;
        Ok(Box::new(file))
    }
}

/// Of this boot, with a line feed: 37 bytes.
fn boot_id() -> rustix::io::Result<Vec<u8>> {
    let file =
        rustix::fs::open("/proc/sys/kernel/random/boot_id", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // The kernel gives it in one piece (proc_do_uuid, drivers/char/random.c).
    let mut text = Vec::with_capacity(64);
    rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text))?;
    Ok(text)
}

fn lock_file(top: &Folder) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(top, "lock", flags, Mode::RUSR | Mode::WUSR).map_err(|e| Error::call("open lock", e))
}

/// Locks the store whose folder is `top`.
fn lock(top: &Folder, operation: FlockOperation) -> Result<Lock> {
    let fd = lock_file(top)?;
    loop {
        match rustix::fs::flock(&fd, operation) {
            Ok(()) => return Ok(Lock { _fd: fd }),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::call("flock lock", error)),
        }
    }
}

fn damaged(digest: &Digest, why: &str) -> Error {
    Error::new(
        Code::Damaged,
        format!("the store's blob {digest} {why}: fsck tells what else is damaged; load the image again"),
    )
}

/// A name that no other process uses at this moment; who uses it must still create it exclusively.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{:x}-{count}", std::process::id(), now.as_nanos())
}

impl Workspace<'_> {
    /// A name that nothing in the workspace has.
    pub(crate) fn fresh(&self) -> String {
        self.count.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// Takes `name` out of `from`: it is gone with the workspace.
    fn take(&self, from: &Folder, name: &str) -> Result<()> {
        loop {
            if from.hand_over(name, &self.folder, &self.fresh())? {
                return Ok(());
            }
        }
    }

    /// Publishes the file `name` as the blob of `digest`.
    pub(crate) fn publish_blob(&self, name: &str, digest: &Digest) -> Result<()> {
        self.folder.hand_over(name, self.store.blob_folder(digest)?, &digest.hex())?;
        Ok(())
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        // What cannot be removed now, the next opener removes.
        let _ = self.store.tmp.remove_tree(&self.name);
    }
}
