//! One layer from its blob to whoever unpacks it: while the blob is read its digest and size are verified, it is
//! decompressed, and the diffID of its tar is verified. Uses: compression, digest, error, layer (its errors), pipeline,
//! source.
//!
//! ```text
//! read, verify, keep a copy --> decompress --> hash for the diffID --> unpack     a thread each
//! ```
//!
//! A layer takes at most 18 chunks of 256 KiB and its decoder's window.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use crate::compression::{self, Compression};
use crate::digest::{Digest, Hasher, Verified};
use crate::error::{Code, Error, Result};
use crate::layer;
use crate::pipeline::{self, Received, Sender};
use crate::source::{Blobs, Layer};

/// What the layers of an image have in common.
pub(crate) struct Carrier<'a> {
    /// Where the blobs come from.
    pub(crate) blobs: &'a dyn Blobs,
    /// Bytes of a layer once it is decompressed.
    pub(crate) limit: u64,
    /// Ends all that is under way.
    pub(crate) stop: &'a AtomicBool,
}

impl Carrier<'_> {
    /// Carries `layer` to `unpack`, which need not read on to the end of file, and its blob into `kept`. Only when
    /// this returns, what was unpacked and kept is known to be what the image says.
    pub(crate) fn carry<T>(
        &self,
        layer: &Layer,
        kept: Option<File>,
        unpack: impl FnOnce(&mut Received) -> Result<T>,
    ) -> Result<T> {
        let descriptor = &layer.descriptor;
        let (blob_sender, blob) = pipeline::way();
        let (tar_sender, tar) = pipeline::way();
        let (hashed_sender, mut hashed) = pipeline::way();
        let (read, decompressed, hash, unpacked) = std::thread::scope(|scope| {
            let read = scope.spawn(|| self.read(layer, kept, blob_sender));
            let decompressed = scope.spawn(|| self.decompress(layer, blob, tar_sender));
            let hash = scope.spawn(|| hash(layer.diff_id, tar, hashed_sender));
            let unpacked = unpack(&mut hashed);
            // What comes after the end of a tar belongs to its diffID, and a tar that is broken may be so since its blob
            // is: reading on tells.
            if unpacked.as_ref().err().is_none_or(|error| error.code() == Code::Invalid) {
                // The stages before tell of their failures themselves.
                let _ = io::copy(&mut hashed, &mut io::sink());
            }
            drop(hashed);
            (joined(read), joined(decompressed), joined(hash), unpacked)
        });
        // A later stage fails of what an earlier one met: the earliest tells why. But a stage that stopped since
        // nobody wanted its work any more tells nothing.
        let whole = read.map_err(|e| e.of(format_args!("blob {}", descriptor.digest)))?;
        decompressed.map_err(|e| e.of(format_args!("blob {}", descriptor.digest)))?;
        let unpacked = unpacked?;
        let found = hash?;
        if self.stop.load(Ordering::Relaxed) || !whole {
            return Err(stopped());
        }
        if found != Some(layer.diff_id) {
            let found = found.map(|d| d.to_string()).unwrap_or_default();
            return Err(Error::invalid(format!(
                "the configuration says diffID {}, and the layer of blob {} has {found}",
                layer.diff_id, descriptor.digest
            )));
        }
        Ok(unpacked)
    }

    /// Reads and verifies the blob. `Ok(false)` when the next stage gave up.
    fn read(&self, layer: &Layer, kept: Option<File>, mut to: Sender) -> Result<bool> {
        let descriptor = &layer.descriptor;
        let mut copy = kept.map(|file| BufWriter::with_capacity(pipeline::CHUNK, file));
        let mut blob = Verified::new(self.blobs.open(layer)?, descriptor.digest, descriptor.size);
        let sent = to
            .send_all(&mut blob, |chunk| {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(stopped().into());
                }
                copy.as_mut().map_or(Ok(()), |copy| copy.write_all(chunk))
            })
            .map_err(|e| Error::call("read", e))?;
        if let Some(mut copy) = copy {
            copy.flush().map_err(|e| Error::call("write", e))?;
        }
        Ok(sent)
    }

    fn decompress(&self, layer: &Layer, mut blob: Received, mut to: Sender) -> Result<()> {
        let declared = Compression::of_media_type(&layer.descriptor.media_type);
        let undone = compression::decompress(&mut blob, declared, self.limit)
            .and_then(|mut tar| to.send_all(&mut tar, |_| Ok(())).map_err(|e| Error::call("decompress", e)));
        // The rest of a stream that is broken is still read, so that a blob with a wrong digest is told as that.
        if undone.is_err() {
            drop(to);
            io::copy(&mut blob, &mut io::sink()).map_err(|e| Error::call("read", e))?;
        }
        undone.map(|_| ())
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

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::new(Code::System, "a layer's thread panicked")))
}

/// Why a layer is given up when another one failed.
pub(crate) fn stopped() -> Error {
    Error::new(Code::System, "stopped")
}

/// What the unpacker says, in the classes of this crate.
pub(crate) fn told(error: layer::Error) -> Error {
    let (code, errno) = match error.kind() {
        layer::Kind::Archive => (Code::Invalid, None),
        layer::Kind::Limit => (Code::Limit, None),
        layer::Kind::System => (Code::System, error.errno()),
        // The caller's own error, as it went in.
        layer::Kind::Stream => {
            let error = error.into_stream().unwrap_or_else(|| io::ErrorKind::Other.into());
            return Error::call("unpack", error);
        }
    };
    Error::with_errno(code, error.to_string(), errno)
}
