//! A blob that was read becomes a tree: decompressed, hashed for the diffID, unpacked, a thread each.
//! Uses: compression, digest, error, layer, pipeline.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::thread::ScopedJoinHandle;

use crate::compression::{self, Compression};
use crate::digest::{Digest, Hasher};
use crate::error::{Code, Error, Result};
use crate::layer::{self, Summary, Unpack};
use crate::pipeline;

/// Decompresses a blob, and unpacks its tar into the folder `into`, where there is one. Gives the digest of the tar.
/// `None` when the layers below are needed and cannot be had now. `claim` waits for the right to a wide zstd window,
/// which is given back after this returns.
pub(crate) fn unfold(
    mut blob: impl Read + Send,
    media_type: &str,
    diff_id: Digest,
    into: Option<BorrowedFd<'_>>,
    options: &Unpack<'_>,
    claim: &(dyn Fn() -> io::Result<()> + Sync),
) -> Result<(Option<Summary>, Digest)> {
    let (mut tar_sender, tar, mut hashed) = pipeline::way_past();
    let declared = Compression::of_media_type(media_type);
    let limit = options.limits.stream;
    std::thread::scope(|scope| {
        let decompressed = scope.spawn(move || {
            let tar = compression::decompress_with(&mut blob, declared, limit, Box::new(claim));
            let undone = tar.and_then(|mut tar| {
                tar_sender.send_all(&mut tar, |_| Ok(())).map_err(|e| Error::call("decompress", e))
            });
            // The rest of a stream that is broken is still read, so that a blob with a wrong digest is told as that.
            if undone.is_err() {
                drop(tar_sender);
                io::copy(&mut blob, &mut io::sink()).map_err(|e| Error::call("read", e))?;
            }
            undone
        });
        let hash = scope.spawn(move || {
            let mut hasher = Hasher::new(diff_id.algorithm());
            tar.watch(|chunk| hasher.update(chunk));
            Ok(hasher.finish())
        });
        let unpacked = match into {
            None => Ok(Some(Summary::default())),
            Some(into) => match layer::unpack(&mut hashed, into, options) {
                Ok(summary) => Ok(Some(summary)),
                Err(error) if needs_below(&error) => Ok(None),
                Err(error) => Err(told(error)),
            },
        };
        // What comes after the end of a tar belongs to its diffID, and a tar that is broken may be so since its blob
        // is: reading on tells.
        if unpacked.as_ref().err().is_none_or(|error| error.code() == Code::Invalid) {
            // The stages before tell of their failures themselves.
            hashed.drain();
        }
        drop(hashed);
        let (decompressed, hash) = (joined(decompressed), joined(hash));
        decompressed?;
        Ok((unpacked?, hash?))
    })
}

/// Whether the layers below are needed, and who was asked for them could not give them now.
fn needs_below(error: &layer::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    error.kind() == layer::Kind::Stream && source.is_some_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// What a stage came to.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::new(Code::System, "a layer's thread panicked")))
}

/// What a layer's error says, in the classes of this crate.
pub(crate) fn told(error: layer::Error) -> Error {
    let (code, errno) = match error.kind() {
        layer::Kind::Archive => (Code::Invalid, None),
        layer::Kind::Limit => (Code::Limit, None),
        layer::Kind::System => (Code::System, error.errno()),
        // The caller's own error, as it went in.
        layer::Kind::Stream => {
            let error = error.into_stream().unwrap_or_else(|| io::ErrorKind::Other.into());
            return Error::call("the layer", error);
        }
    };
    Error::with_errno(code, error.to_string(), errno)
}
