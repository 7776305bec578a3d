//! An image from a source into the store: each blob is read once, and while it is read its digest and size are
//! verified, it is decompressed, the diffID of its layer is verified, and the layer is unpacked. Uses: all others.
//!
//! ```text
//! read, verify, store blob --> decompress --> hash for the diffID --> unpack     a thread each, for each layer
//! ```
//!
//! Layers are carried at the same time, as many as there are processors, the largest first. A layer takes at most 18
//! chunks of 256 KiB and its decoder's window.

use std::collections::HashSet;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::compression::{self, Compression};
use crate::digest::{Digest, Hasher, Verified};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::pipeline::{self, Received, Sender};
use crate::source::{Blobs, Image, Layer};
use crate::store::{RecordLayer, Store, Workspace};

/// Unpacks a layer: its tar comes from the reader, its tree goes into the empty folder, in overlay form. It need not
/// read on to the end of file.
pub type Unpack<'a> = dyn Fn(&mut dyn Read, BorrowedFd<'_>) -> Result<()> + Sync + 'a;

/// How an image is imported.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names that the image gets.
    pub names: Vec<Name>,
    /// Layers that are carried at the same time.
    pub parallel: usize,
    /// Bytes of a layer once it is decompressed.
    pub layer_limit: u64,
    /// Write all to the disk before the image gets its record and its names.
    pub durable: bool,
}

impl Default for Options {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Options { names: Vec::new(), parallel: processors.min(8), layer_limit: 64 << 30, durable: false }
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The digest of the image's manifest.
    pub digest: Digest,
    /// Blobs of layers that were not in the store.
    pub blobs: usize,
    /// Layers that were unpacked.
    pub unpacked: usize,
}

/// A layer with work to do.
struct Work<'a> {
    index: usize,
    layer: &'a Layer,
    keep_blob: bool,
    unpack: bool,
}

/// Carries `image` of `blobs` into `store`. What is there already is neither read nor unpacked again. When it fails,
/// nothing is left of it but layers and blobs that were complete and verified.
pub fn import(
    store: &Store,
    blobs: &dyn Blobs,
    image: &Image,
    options: &Options,
    unpack: &Unpack<'_>,
) -> Result<Imported> {
    // From here on what is found in the store stays.
    let _hold = store.hold(image)?;
    let workspace = store.workspace()?;
    let proven = store.proven(image)?;
    let mut work = Vec::new();
    let mut pairs_met = HashSet::new();
    let mut layers_met = HashSet::new();
    for (index, layer) in image.layers.iter().enumerate() {
        let pair = RecordLayer { blob: layer.descriptor.digest, diff_id: layer.diff_id };
        let first = pairs_met.insert(pair);
        let keep_blob = first && !store.has_blob(&pair.blob)?;
        let unpack = layers_met.insert(pair.diff_id) && !store.has_layer(&pair.diff_id)?;
        // Both may be there without belonging together: then that is all there is to verify.
        if unpack || keep_blob || first && !proven.contains(&pair) {
            work.push(Work { index, layer, keep_blob, unpack });
        }
    }
    // The largest first: else the last one to begin is the one that all wait for.
    work.sort_by_key(|work| std::cmp::Reverse(work.layer.descriptor.size));
    let done = Imported {
        digest: image.digest,
        blobs: work.iter().filter(|work| work.keep_blob).count(),
        unpacked: work.iter().filter(|work| work.unpack).count(),
    };
    carry_all(
        &Carrier { blobs, workspace: &workspace, options, unpack, stop: AtomicBool::new(false) },
        &work,
    )?;
    for (digest, text) in
        [(image.config_descriptor.digest, &image.config_text), (image.digest, &image.manifest)]
    {
        if !store.has_blob(&digest)? {
            let name = workspace.fresh();
            let mut file = workspace.folder.create(&name).map_err(|e| Error::call("create a blob", e))?;
            file.write_all(text).map_err(|e| Error::call("write a blob", e))?;
            workspace.publish_blob(&name, &digest)?;
        }
    }
    if options.durable {
        store.settle()?;
    }
    store.write_record(&workspace, image)?;
    for name in &options.names {
        store.write_name(&workspace, name, &image.digest)?;
    }
    Ok(done)
}

/// Unpacks what the image of the manifest `digest` lacks of unpacked layers, from its blobs in the store.
pub fn restore(store: &Store, digest: &Digest, options: &Options, unpack: &Unpack<'_>) -> Result<Imported> {
    let hold = store.hold_image(digest)?;
    let image = store.image(digest)?;
    let restored = import(store, store, &image, options, unpack);
    drop(hold);
    restored
}

fn carry_all(carrier: &Carrier<'_>, work: &[Work<'_>]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        while !carrier.stop.load(Ordering::Relaxed) {
            let Some(work) = work.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = carrier.carry(work) {
                // The first failure stops the others; theirs are its consequences.
                let first = !carrier.stop.swap(true, Ordering::Relaxed);
                if first && let Ok(mut failure) = failure.lock() {
                    *failure = Some(error.of(format_args!("layer {}", work.index)));
                }
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..carrier.options.parallel.min(work.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match failure.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => Err(Error::new(Code::System, "a layer's thread panicked")),
    }
}

struct Carrier<'a> {
    blobs: &'a dyn Blobs,
    workspace: &'a Workspace<'a>,
    options: &'a Options,
    unpack: &'a Unpack<'a>,
    stop: AtomicBool,
}

impl Carrier<'_> {
    fn carry(&self, work: &Work<'_>) -> Result<()> {
        let descriptor = &work.layer.descriptor;
        let blob_name = self.workspace.fresh();
        let layer_name = self.workspace.fresh();
        let (blob_sender, blob) = pipeline::way();
        let (tar_sender, tar) = pipeline::way();
        let (hashed_sender, hashed) = pipeline::way();
        let (read, decompressed, hash, unpacked) = std::thread::scope(|scope| {
            let read = scope.spawn(|| self.read(work, &blob_name, blob_sender));
            let decompressed = scope.spawn(|| self.decompress(work, blob, tar_sender));
            let hash = scope.spawn(|| hash(work.layer.diff_id, tar, hashed_sender));
            let unpacked = self.unpack(work, &layer_name, hashed);
            (joined(read), joined(decompressed), joined(hash), unpacked)
        });
        // A later stage fails of what an earlier one met: the earliest tells why. But a stage that stopped since
        // nobody wanted its work any more tells nothing.
        let whole = read.map_err(|e| e.of(format_args!("blob {}", descriptor.digest)))?;
        decompressed.map_err(|e| e.of(format_args!("blob {}", descriptor.digest)))?;
        unpacked?;
        let found = hash?;
        if self.stop.load(Ordering::Relaxed) || !whole {
            return Err(Error::new(Code::System, "stopped"));
        }
        if found != Some(work.layer.diff_id) {
            let found = found.map(|d| d.to_string()).unwrap_or_default();
            return Err(Error::invalid(format!(
                "the configuration says diffID {}, and the layer of blob {} has {found}",
                work.layer.diff_id, descriptor.digest
            )));
        }
        if work.unpack {
            self.workspace.publish_layer(&layer_name, &work.layer.diff_id)?;
        }
        if work.keep_blob {
            self.workspace.publish_blob(&blob_name, &descriptor.digest)?;
        }
        Ok(())
    }

    /// Reads and verifies the blob. `Ok(false)` when the next stage gave up.
    fn read(&self, work: &Work<'_>, name: &str, mut to: Sender) -> Result<bool> {
        let descriptor = &work.layer.descriptor;
        let mut copy = match work.keep_blob {
            true => {
                let file = self.workspace.folder.create(name).map_err(|e| Error::call("create", e))?;
                Some(BufWriter::with_capacity(pipeline::CHUNK, file))
            }
            false => None,
        };
        let mut blob = Verified::new(self.blobs.open(work.layer)?, descriptor.digest, descriptor.size);
        let sent = to
            .send_all(&mut blob, |chunk| {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::new(Code::System, "stopped").into());
                }
                copy.as_mut().map_or(Ok(()), |copy| copy.write_all(chunk))
            })
            .map_err(|e| Error::call("read", e))?;
        if let Some(mut copy) = copy {
            copy.flush().map_err(|e| Error::call("write", e))?;
        }
        Ok(sent)
    }

    fn decompress(&self, work: &Work<'_>, mut blob: Received, mut to: Sender) -> Result<()> {
        let declared = Compression::of_media_type(&work.layer.descriptor.media_type);
        let undone = compression::decompress(&mut blob, declared, self.options.layer_limit)
            .and_then(|mut tar| to.send_all(&mut tar, |_| Ok(())).map_err(|e| Error::call("decompress", e)));
        // The rest of a stream that is broken is still read, so that a blob with a wrong digest is told as that.
        if undone.is_err() {
            drop(to);
            io::copy(&mut blob, &mut io::sink()).map_err(|e| Error::call("read", e))?;
        }
        undone.map(|_| ())
    }

    fn unpack(&self, work: &Work<'_>, name: &str, mut tar: Received) -> Result<()> {
        if work.unpack {
            self.workspace.folder.make_new(name).map_err(|e| Error::call("mkdir", e))?;
            let layer = self.workspace.folder.open(name)?;
            let fs = layer.make("fs")?;
            rustix::fs::fchmod(&fs, rustix::fs::Mode::from_raw_mode(0o755))
                .map_err(|e| Error::call("fchmod", e))?;
            match (self.unpack)(&mut tar, fs.as_fd()) {
                Ok(()) => {}
                // A tar that is broken may be so since its blob is: reading on tells.
                Err(error) if error.code() == Code::Invalid => {
                    let _ = io::copy(&mut tar, &mut io::sink());
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        // What comes after the end of a tar belongs to its diffID.
        io::copy(&mut tar, &mut io::sink()).map_err(|e| Error::call("read", e))?;
        Ok(())
    }
}

/// `None` when the next stage gave up.
fn hash(diff_id: Digest, mut tar: Received, mut to: Sender) -> Result<Option<Digest>> {
    let mut hasher = Hasher::new(diff_id.algorithm());
    let sent = to.send_all(&mut tar, |chunk| {
        hasher.update(chunk);
        Ok(())
    });
    Ok(sent.map_err(|e| Error::call("hash", e))?.then(|| hasher.finish()))
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::new(Code::System, "a layer's thread panicked")))
}
