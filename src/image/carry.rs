//! One layer from its blob to its tree: while the blob is read its digest and size are verified, it is decompressed, the
//! digest of its tar, its diffID, is verified, and the tar is unpacked, in a jail or here.
//! Uses: compression, digest, error, jail, layer, pipeline, unfold, source and store (their types).
//!
//! ```text
//! read, verify, keep a copy --> | decompress --> hash for the diffID --> unpack     a thread each
//!              in this process  |  in this process, or in the jail
//! ```
//!
//! A layer takes at most 12 chunks of 256 KiB and its decoder's window. Of windows above 8 MiB there is one at a time: a
//! layer that has it waits for nobody, so that it comes to its end and the next one has it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::compression::Wide;
use crate::digest::{Digest, Verified};
use crate::error::{Code, Error, Result};
use crate::jail::{Feed, Jail, Order};
use crate::layer::{Form, Limits, Summary, Unpack};
use crate::pipeline;
use crate::source::{Blobs, Layer};
use crate::store::Unpacked;
use crate::unfold::{joined, unfold};

/// What the layers of an image have in common.
pub(crate) struct Carrier<'a> {
    /// Where the blobs come from.
    pub(crate) blobs: &'a dyn Blobs,
    /// Where tars are decompressed and unpacked: else in this process.
    pub(crate) jail: Option<&'a Jail>,
    /// What a layer may ask for.
    pub(crate) limits: Limits,
    /// How what is hidden is told in the tree.
    pub(crate) form: Form,
    /// Whether this process is not root of the machine.
    pub(crate) rootless: bool,
    /// The store's folders of layers, for those that need them.
    pub(crate) lower: Option<[BorrowedFd<'a>; 2]>,
    /// Ends all that is under way.
    pub(crate) stop: &'a AtomicBool,
}

/// The copy of a blob that is kept: opened to write, and once more to read alone.
pub(crate) struct Kept {
    pub(crate) writing: File,
    pub(crate) reading: File,
}

/// Opens the layers below, the topmost first; `None` where they cannot be had now. Told whether it may wait for those
/// that are under way.
pub(crate) type Below<'a> = &'a (dyn Fn(bool) -> Result<Option<Vec<Unpacked>>> + Sync);

/// What a layer may have to wait for while it is carried: the layers below, and the right to a wide zstd window. For
/// one of them at a time, and for no layer while it has the window: that layer may be waiting for the window.
struct Waits<'a> {
    below: Below<'a>,
    wide: Mutex<Option<Wide>>,
}

impl Waits<'_> {
    fn below(&self) -> Result<Option<Vec<Unpacked>>> {
        let wide = self.wide.lock().unwrap_or_else(PoisonError::into_inner);
        (self.below)(wide.is_none())
    }

    fn window(&self) {
        self.wide.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Wide::take);
    }
}

/// Whether the blob was read whole; what was unpacked, and the digest of the tar.
type Carried = (Result<bool>, Result<(Option<Summary>, Digest)>);

impl Carrier<'_> {
    /// Carries `layer` into the folder `into`, where there is one, and its blob into `kept`. `None` when the layer
    /// needs those `below` and they cannot be had now. Only when this returns, what was unpacked and kept is known to be
    /// what the image says.
    pub(crate) fn carry(
        &self,
        layer: &Layer,
        kept: Option<Kept>,
        into: Option<BorrowedFd<'_>>,
        below: Below<'_>,
    ) -> Result<Option<Summary>> {
        let descriptor = &layer.descriptor;
        let waits = Waits { below, wide: Mutex::new(None) };
        let (read, unpacked) = match self.jail {
            Some(jail) => self.in_jail(jail, layer, kept, into, &waits),
            None => self.here(layer, kept, into, &waits),
        };
        // A later stage fails of what an earlier one met: the earliest tells why. But a stage that stopped since
        // nobody wanted its work any more tells nothing.
        let whole = read.map_err(|e| e.of(format_args!("blob {}", descriptor.digest)))?;
        let (summary, found) = unpacked.map_err(|e| e.of(format_args!("blob {}", descriptor.digest)))?;
        if self.stop.load(Ordering::Relaxed) || !whole {
            return Err(stopped());
        }
        if found != layer.diff_id {
            return Err(Error::invalid(format!(
                "the configuration says diffID {}, and the layer of blob {} has {found}",
                layer.diff_id, descriptor.digest
            )));
        }
        Ok(summary)
    }

    fn here(
        &self,
        layer: &Layer,
        kept: Option<Kept>,
        into: Option<BorrowedFd<'_>>,
        waits: &Waits<'_>,
    ) -> Carried {
        let (mut sender, blob) = pipeline::way();
        let open = || match waits.below()? {
            Some(layers) => Ok(layers.into_iter().map(|layer| layer.fd).collect()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        };
        let options =
            Unpack { form: self.form, rootless: self.rootless, limits: self.limits, lower: Some(&open) };
        std::thread::scope(|scope| {
            let read = scope.spawn(move || self.read(layer, kept, |blob, seen| sender.send_all(blob, seen)));
            let claim = || {
                waits.window();
                Ok(())
            };
            let unpacked = unfold(blob, &layer.descriptor.media_type, layer.diff_id, into, &options, &claim);
            (joined(read), unpacked)
        })
    }

    fn in_jail(
        &self,
        jail: &Jail,
        layer: &Layer,
        kept: Option<Kept>,
        into: Option<BorrowedFd<'_>>,
        waits: &Waits<'_>,
    ) -> Carried {
        let order = Order {
            media_type: &layer.descriptor.media_type,
            diff_id: layer.diff_id,
            form: self.form,
            rootless: self.rootless,
            limits: self.limits,
            kept: kept.as_ref().map(|kept| kept.reading.as_fd()),
            into,
            lower: self.lower,
        };
        let (inmate, mut feed) = match jail.start(&order) {
            Ok(started) => started,
            Err(error) => return (Ok(false), Err(error)),
        };
        let places =
            || Ok(waits.below()?.map(|layers| layers.into_iter().map(|layer| layer.place).collect()));
        std::thread::scope(|scope| {
            let read = scope.spawn(move || self.read(layer, kept, |blob, seen| pour(blob, &mut feed, seen)));
            let unpacked = inmate.wait(&places, &|| waits.window());
            (joined(read), unpacked)
        })
    }

    /// Reads and verifies the blob, and hands it to `send`. `Ok(false)` when the next stage gave up.
    fn read(
        &self,
        layer: &Layer,
        kept: Option<Kept>,
        send: impl FnOnce(&mut dyn Read, &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool>,
    ) -> Result<bool> {
        let descriptor = &layer.descriptor;
        let mut copy = kept.map(|kept| kept.writing);
        let mut blob = Verified::new(self.blobs.open(layer)?, descriptor.digest, descriptor.size);
        let mut seen = |chunk: &[u8]| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(stopped().into());
            }
            copy.as_mut().map_or(Ok(()), |copy| copy.write_all(chunk))
        };
        send(&mut blob, &mut seen).map_err(|e| Error::call("read", e))
    }
}

/// Feeds all of `blob` to a child, and shows each chunk to `seen` first. `Ok(false)` when it reads no more.
fn pour(
    blob: &mut dyn Read,
    feed: &mut Feed,
    seen: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut chunk = vec![0; pipeline::CHUNK];
    loop {
        let size = match blob.read(&mut chunk) {
            Ok(0) => return Ok(true),
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        seen(&chunk[..size])?;
        if !feed.give(&chunk[..size])? {
            return Ok(false);
        }
    }
}

/// Why a layer is given up when another one failed.
pub(crate) fn stopped() -> Error {
    Error::new(Code::System, "stopped")
}
