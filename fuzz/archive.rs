//! Archives of images: bytes as the file that a person hands to `rcrun run` or `image load`. Uses: rcrun_image::source,
//! sentence.
//!
//! What holds: opened, listed and selected from, under each name that it lists, it gives errors that are sentences, or
//! an image whose documents have the digests that are told of them and whose parts fit each other; the same each time.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use rcrun_image::source::{Blobs, Image, Limits, Source};
use rcrun_image::{Digest, Name, Platform};

use crate::sentence;

/// A bomb is met by this bound, and no sooner.
const LIMITS: Limits = Limits { archive: 4 << 20, layer: 1 << 20 };

/// Names that are tried, of those listed.
const TRIED: usize = 4;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    thread_local!(static SCRATCH: (tempfile::TempDir, File) = {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let opened = File::open(folder.path()).expect("open");
        (folder, opened)
    });
    let file = rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd_create");
    let mut file = File::from(file);
    file.write_all(input).expect("write to a memfd");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    SCRATCH.with(|(folder, scratch)| {
        match Source::open(path.as_ref(), scratch.as_fd(), LIMITS) {
            Err(error) => sentence::is_one(&error),
            Ok(source) => opened(&source),
        }
        let left = std::fs::read_dir(folder.path()).expect("readdir").count();
        assert_eq!(left, 0, "something is left in the scratch folder");
    });
}

fn opened(source: &Source) {
    let listed = source.list();
    assert_eq!(listed, source.list());
    let labels = listed.iter().flat_map(|image| &image.labels).take(TRIED).map(|label| Some(label.as_str()));
    let platform = Platform::host();
    for reference in [None].into_iter().chain(labels) {
        match (source.select(reference, &platform), source.select(reference, &platform)) {
            (Ok(image), Ok(again)) => {
                assert_eq!(image.digest, again.digest);
                selected(source, &image);
            }
            (Err(error), Err(_)) => sentence::is_one(&error),
            (one, two) => panic!("{one:?}, and the same again {two:?}"),
        }
    }
}

fn selected(source: &Source, image: &Image) {
    assert_eq!(image.digest, Digest::of(&image.manifest));
    assert_eq!(image.config_descriptor.digest, Digest::of(&image.config_text));
    assert_eq!(image.config_descriptor.size, image.config_text.len() as u64);
    let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(diff_ids, image.config.rootfs.diff_ids);
    for name in &image.names {
        assert_eq!(name.to_string().parse::<Name>().ok().as_ref(), Some(name));
    }
    for layer in &image.layers {
        match source.open(layer) {
            Err(error) => sentence::is_one(&error),
            Ok(blob) => {
                std::io::copy(&mut blob.take(LIMITS.layer), &mut std::io::sink())
                    .expect("a blob can be read");
            }
        }
    }
}
