//! Parts of what `rcrun image load` does, each by itself, with its own code and its threads: what the whole cannot be
//! faster than. Uses: rcrun-image.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufRead, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcrun_image::compression::{self, Compression};
use rcrun_image::digest::{Hasher, Verified};
use rcrun_image::layer::{self, Form, Limits, Unpack};
use rcrun_image::source::{self, Blobs, Image, Layer, Source};
use rcrun_image::{Platform, pipeline};

use crate::host::WORK;
use crate::{Result, fail};

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// Blobs to tars, and no digest.
    Decompress,
    /// The digests of blobs and tars, both in memory.
    Hash,
    /// All but what is written: blobs are read, verified, decompressed, and the tars verified.
    Verify,
    /// What is written: tars in memory become trees, and nothing is hashed.
    Write,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Decompress => "decompress",
            Part::Hash => "hash",
            Part::Verify => "decompress and hash",
            Part::Write => "write the tree",
        }
    }

    /// Does the part with as many layers at a time as rcrun, the largest first. `tars` has the tars in memory.
    pub fn time(self, layers: &Layers, tars: &Layers, fresh: &Path) -> Result<Duration> {
        let mut order: Vec<usize> = (0..layers.image.layers.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(layers.image.layers[*index].descriptor.size));
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<String>> = Mutex::new(None);
        let worker = || {
            while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.layer(layers, *index, &tars.tars[*index], fresh)
                    && let Ok(mut failed) = failed.lock()
                {
                    failed.get_or_insert(error.to_string());
                }
            }
        };
        let threads = std::thread::available_parallelism()?.get().min(8).min(order.len());
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(worker);
            }
            worker();
        });
        let time = begin.elapsed();
        match failed.into_inner()? {
            None => Ok(time),
            Some(error) => fail(format!("{}: {error}", self.name())),
        }
    }

    fn layer(self, layers: &Layers, index: usize, tar: &[u8], fresh: &Path) -> Result<()> {
        let layer = &layers.image.layers[index];
        match self {
            Part::Decompress => {
                let mut tar = decompressed(layers.source.open(layer)?, layer)?;
                let mut chunk = vec![0; pipeline::CHUNK];
                while tar.read(&mut chunk)? > 0 {
                    black_box(&chunk);
                }
            }
            Part::Hash => {
                let mut blob =
                    Verified::new(layers.source.open(layer)?, layer.descriptor.digest, layer.descriptor.size);
                let mut chunk = vec![0; pipeline::CHUNK];
                while blob.read(&mut chunk)? > 0 {}
                hash(tar, layer)?;
            }
            Part::Verify => verify(layers, layer)?,
            Part::Write => {
                let into = fresh.join(index.to_string());
                fs::create_dir(&into)?;
                let into = File::open(into)?;
                let options =
                    Unpack { form: Form::Overlay, rootless: false, limits: Limits::default(), lower: None };
                layer::unpack(tar, into.as_fd(), &options)?;
            }
        }
        Ok(())
    }
}

fn decompressed<'a>(blob: impl Read + Send + 'a, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
    let declared = Compression::of_media_type(&layer.descriptor.media_type);
    Ok(compression::decompress(blob, declared, Limits::default().stream)?)
}

fn hash(tar: &[u8], layer: &Layer) -> Result<()> {
    let mut hasher = Hasher::new(layer.diff_id.algorithm());
    hasher.update(tar);
    if hasher.finish() != layer.diff_id {
        return fail("a tar has another digest than its diffID");
    }
    Ok(())
}

/// Three threads for a layer, as rcrun has them.
fn verify(layers: &Layers, layer: &Layer) -> Result<()> {
    let (mut blob_sender, blob) = pipeline::way();
    let (mut tar_sender, mut tar) = pipeline::way();
    let mut verified =
        Verified::new(layers.source.open(layer)?, layer.descriptor.digest, layer.descriptor.size);
    std::thread::scope(|scope| {
        let read = scope.spawn(move || blob_sender.send_all(&mut verified, |_| Ok(())));
        let undone = scope.spawn(move || {
            let mut tar = decompressed(blob, layer).map_err(|e| std::io::Error::other(e.to_string()))?;
            tar_sender.send_all(&mut tar, |_| Ok(()))
        });
        let mut hasher = Hasher::new(layer.diff_id.algorithm());
        loop {
            let chunk = tar.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            hasher.update(chunk);
            let size = chunk.len();
            tar.consume(size);
        }
        for stage in [read, undone] {
            stage.join().or_else(|_| fail("a stage panicked"))??;
        }
        match hasher.finish() == layer.diff_id {
            true => Ok(()),
            false => fail("a tar has another digest than its diffID"),
        }
    })
}

/// An image and its layers, for the floors.
pub struct Layers {
    source: Source,
    image: Image,
    /// Decompressed, of the first image only: the other has the same.
    tars: Vec<Vec<u8>>,
}

impl Layers {
    /// Reads the image of a layout.
    pub fn read(layout: &Path) -> Result<Layers> {
        let scratch = File::open(WORK)?;
        let source = Source::open(layout, scratch.as_fd(), source::Limits::default())?;
        let image = source.select(None, &Platform::host())?;
        Ok(Layers { source, image, tars: Vec::new() })
    }

    /// Decompresses all layers into memory.
    pub fn decompress_all(&mut self) -> Result<()> {
        for layer in &self.image.layers {
            let mut tar = Vec::new();
            decompressed(self.source.open(layer)?, layer)?.read_to_end(&mut tar)?;
            hash(&tar, layer)?;
            self.tars.push(tar);
        }
        Ok(())
    }

    /// The files of the layers, lowest first.
    pub fn blobs(&self, layout: &Path) -> Vec<PathBuf> {
        let digests = self.image.layers.iter().map(|layer| layer.descriptor.digest);
        digests.map(|d| layout.join("blobs").join(d.algorithm().as_str()).join(d.hex())).collect()
    }

    /// What the image is, in words.
    pub fn words(&self) -> String {
        let packed: u64 = self.image.layers.iter().map(|layer| layer.descriptor.size).sum();
        format!("{} layers, {} MB", self.image.layers.len(), packed / 1_000_000)
    }

    /// Bytes of all tars.
    pub fn bytes(&self) -> usize {
        self.tars.iter().map(Vec::len).sum()
    }
}
