//! An image from a source into the store: each blob is read once, and while it is read it is verified, kept and unpacked.
//! Uses: carry, digest, error, jail, layer, name, source, store.
//!
//! Layers are carried at the same time, as many as there are processors, the largest first. A layer whose tar needs the
//! layers below (a parent or the file of a hard link is not in it) waits for them while all of them are under way:
//! the lowest of those that wait has only layers below it that do not, so that one of them always goes on. Where one
//! below has not begun, or where the layer has the one wide zstd window, for which one below may wait, it is not unpacked
//! now but at the end, from its blob in the store, the lowest first.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::carry::{Carrier, Kept, stopped};
use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::jail::Jail;
use crate::layer::{self, Summary, numbered};
use crate::name::Name;
use crate::source::{Blobs, Image, Layer};
use crate::store::{Continued, LayerId, Partial, RecordLayer, Store, Unpacked, Workspace, privileged};

/// How an image is imported.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names that the image gets.
    pub names: Vec<Name>,
    /// Layers that are carried at the same time.
    pub parallel: usize,
    /// What a layer may ask for.
    pub limits: layer::Limits,
    /// Where layers are decompressed and unpacked: else in this process, with all that it may do.
    pub jail: Option<Jail>,
    /// Write all to the disk before the image gets its record and its names.
    pub durable: bool,
}

impl Default for Options {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Options {
            names: Vec::new(),
            parallel: processors.min(8),
            limits: layer::Limits::default(),
            jail: None,
            durable: false,
        }
    }
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The digest of the image's manifest.
    pub digest: Digest,
    /// Blobs of layers that were not in the store.
    pub blobs: usize,
    /// Layers that were unpacked.
    pub unpacked: usize,
    /// What was left out of the layers that were unpacked, in sentences.
    pub notes: Vec<String>,
}

/// A layer with work to do.
struct Work<'a> {
    index: usize,
    layer: &'a Layer,
    keep_blob: bool,
    unpack: bool,
}

/// A blob that goes on where an earlier import stopped, and is kept on its way.
struct Resumed<'a> {
    far: &'a dyn Blobs,
    partial: &'a Partial<'a>,
}

impl Blobs for Resumed<'_> {
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let layer = layer.clone();
        Ok(Box::new(Continued::new(self.partial, move |at| self.far.open_at(&layer, at))))
    }
}

/// Where the unpacking of a layer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nobody has begun, or it is left for the end: who needs it now cannot wait for it.
    Later,
    /// Somebody is at it.
    Begun,
    /// It was there, or is now.
    Done,
}

/// Carries `image` of `blobs` into `store`. What is there already is neither read nor unpacked again. When it fails,
/// nothing is left of it but layers and blobs that were complete and verified, and partials.
pub fn import(store: &Store, blobs: &dyn Blobs, image: &Image, options: &Options) -> Result<Imported> {
    let privileged = privileged()?;
    store.must_unpack_here(privileged)?;
    // From here on what is found in the store stays.
    let _hold = store.hold(image)?;
    let workspace = store.workspace()?;
    let proven = store.proven(image)?;
    let ids = LayerId::of_chain(image.layers.iter().map(|layer| layer.diff_id));
    let mut progress = Vec::new();
    let mut work = Vec::new();
    let mut pairs_met = HashSet::new();
    let mut layers_met = HashSet::new();
    let mut sizes = HashMap::new();
    for (index, (layer, id)) in image.layers.iter().zip(&ids).enumerate() {
        // Who reads the blob verifies its size. One that is there, or comes twice, nobody reads.
        let (blob, says) = (layer.descriptor.digest, layer.descriptor.size);
        let (known, place) = match store.blob_size(&blob)? {
            Some(there) => (there, " in the store"),
            None => (*sizes.entry(blob).or_insert(says), ""),
        };
        if known != says {
            let why = format!("blob {blob}: has {known} bytes{place}, and its descriptor says {says}");
            return Err(Error::invalid(why).of(numbered(index)));
        }
        let pair = RecordLayer { blob: layer.descriptor.digest, diff_id: layer.diff_id };
        let first = pairs_met.insert(pair);
        let keep_blob = first && !store.has_blob(&pair.blob)?;
        let there = store.has_layer(id)?;
        let unpack = layers_met.insert(pair.diff_id) && !there;
        // Both may be there without belonging together: then that is all there is to verify.
        if unpack || keep_blob || first && !proven.contains(&pair) {
            work.push(Work { index, layer, keep_blob, unpack });
        }
        progress.push(if there { Progress::Done } else { Progress::Later });
    }
    // The largest first: else the last one to begin is the one that all wait for.
    work.sort_by_key(|work| std::cmp::Reverse(work.layer.descriptor.size));
    let import = Import {
        store,
        workspace: &workspace,
        options,
        ids: &ids,
        rootless: !privileged,
        stop: AtomicBool::new(false),
        progress: Mutex::new(progress),
        moved: Condvar::new(),
        done: Mutex::new(Vec::new()),
    };
    import.carry_all(blobs, &work)?;
    for (index, layer) in image.layers.iter().enumerate() {
        if !store.has_layer(&ids[index])? {
            let work = Work { index, layer, keep_blob: false, unpack: true };
            import.carry(store, &work).map_err(|e| e.of(numbered(index)))?;
            if !store.has_layer(&ids[index])? {
                let message =
                    format!("{}: a layer below it went away while it was unpacked", numbered(index));
                return Err(Error::new(Code::Damaged, message));
            }
        }
    }
    let mut unpacked = import.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    unpacked.sort_by_key(|(index, _)| *index);
    let notes = |(index, summary): &(usize, Summary)| -> Vec<String> {
        summary.notes.iter().map(|note| format!("{}: {note}", numbered(*index))).collect()
    };
    let done = Imported {
        digest: image.digest,
        blobs: work.iter().filter(|work| work.keep_blob).count(),
        unpacked: unpacked.len(),
        notes: unpacked.iter().flat_map(notes).collect(),
    };
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
pub fn restore(store: &Store, digest: &Digest, options: &Options) -> Result<Imported> {
    let hold = store.hold_image(digest)?;
    let image = store.image(digest)?;
    let restored = import(store, store, &image, options);
    drop(hold);
    restored
}

/// An import under way.
struct Import<'a> {
    store: &'a Store,
    workspace: &'a Workspace<'a>,
    options: &'a Options,
    /// The layers at their places, lowest first.
    ids: &'a [LayerId],
    rootless: bool,
    stop: AtomicBool,
    /// Of each layer.
    progress: Mutex<Vec<Progress>>,
    /// Tells of each change of `progress`, and of `stop`.
    moved: Condvar,
    /// The layers that were unpacked.
    done: Mutex<Vec<(usize, Summary)>>,
}

/// Stops all when the thread that holds it panics: others may wait for what it was at.
struct StopOnPanic<'a>(&'a Import<'a>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

impl Import<'_> {
    fn progress(&self) -> MutexGuard<'_, Vec<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moves(&self, index: usize, to: Progress) {
        self.progress()[index] = to;
        self.moved.notify_all();
    }

    /// Whether this is the first that stops.
    fn stop(&self) -> bool {
        // Under the lock: else who looked just before and begins to wait just after is not woken.
        let _progress = self.progress();
        let first = !self.stop.swap(true, Ordering::Relaxed);
        self.moved.notify_all();
        first
    }

    fn carry_all(&self, blobs: &dyn Blobs, work: &[Work<'_>]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let worker = || {
            let _guard = StopOnPanic(self);
            while !self.stop.load(Ordering::Relaxed) {
                let Some(work) = work.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                if let Err(error) = self.carry(blobs, work) {
                    // The first failure stops the others; theirs are its consequences.
                    if self.stop()
                        && let Ok(mut failure) = failure.lock()
                    {
                        *failure = Some(error.of(numbered(work.index)));
                    }
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.options.parallel.min(work.len()) {
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

    fn carry(&self, blobs: &dyn Blobs, work: &Work<'_>) -> Result<()> {
        if !blobs.are_far() {
            return self.carry_of(blobs, work, work.keep_blob);
        }
        let digest = &work.layer.descriptor.digest;
        // This waits while another import reads the same blob, as somebody who has not begun: nobody waits for it.
        let waits = || blobs.waits(work.layer);
        let partial = if work.keep_blob { self.store.partial(digest, &waits)? } else { None };
        match partial {
            Some(partial) => {
                let carried = self.carry_of(&Resumed { far: blobs, partial: &partial }, work, false);
                match &carried {
                    Ok(()) => partial.publish()?,
                    Err(error) if error.code() == Code::Invalid => partial.refuse()?,
                    Err(_) => {}
                }
                carried
            }
            None if self.store.has_blob(digest)? => self.carry_of(self.store, work, false),
            None => self.carry_of(blobs, work, false),
        }
    }

    fn carry_of(&self, blobs: &dyn Blobs, work: &Work<'_>, keep_blob: bool) -> Result<()> {
        let carrier = Carrier {
            blobs,
            jail: self.options.jail.as_ref(),
            limits: self.options.limits,
            form: self.store.form(),
            rootless: self.rootless,
            lower: Some(self.store.layer_folders()?),
            stop: &self.stop,
        };
        let blob_name = self.workspace.fresh();
        let layer_name = self.workspace.fresh();
        let kept = match keep_blob {
            true => Some(self.copy(&blob_name)?),
            false => None,
        };
        let into = match work.unpack {
            true => Some(self.workspace.layer_folder(&layer_name)?),
            false => None,
        };
        if work.unpack {
            self.moves(work.index, Progress::Begun);
        }
        let below = |may_wait| {
            let below = self.below(work.index, may_wait);
            if let Ok(None) = below {
                // Who waits for this one waits no more, although it still reads to the end.
                self.moves(work.index, Progress::Later);
            }
            below
        };
        let summary = carrier.carry(work.layer, kept, into.as_ref().map(|into| into.as_fd()), &below)?;
        if keep_blob {
            self.workspace.publish_blob(&blob_name, &work.layer.descriptor.digest)?;
        }
        if let Some(summary) = summary.filter(|_| work.unpack) {
            self.workspace.publish_layer(&layer_name, &self.ids[work.index], &summary)?;
            self.moves(work.index, Progress::Done);
            self.done.lock().unwrap_or_else(PoisonError::into_inner).push((work.index, summary));
        } else if work.unpack {
            self.workspace.folder.remove_tree(&layer_name)?;
        }
        Ok(())
    }

    /// A file for the copy of a blob.
    fn copy(&self, name: &str) -> Result<Kept> {
        let folder = &self.workspace.folder;
        let writing = folder.create(name).map_err(|e| Error::call("create a blob", e))?;
        let reading = folder.file(name)?.ok_or_else(|| Error::call("open a blob", Errno::NOENT))?;
        Ok(Kept { writing, reading })
    }

    /// The layers below `index`, the topmost first. Waits for those under way, if it may; `None` where one has not begun.
    fn below(&self, index: usize, may_wait: bool) -> Result<Option<Vec<Unpacked>>> {
        let mut progress = self.progress();
        while progress[..index].contains(&Progress::Begun) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(stopped());
            }
            if !may_wait || progress[..index].contains(&Progress::Later) {
                return Ok(None);
            }
            progress = self.moved.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        drop(progress);
        // One that occurs twice in the image is begun once: whether both are there now, the store knows.
        self.ids[..index].iter().rev().map(|id| self.store.layer(id)).collect()
    }
}
