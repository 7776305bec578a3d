//! How much memory loading an image takes. A file of its own: what is measured is the largest process that this one has
//! waited for, and no other test may start some.

use nix::sys::resource::{UsageWho, getrusage};
use runtime_tests::bundle::Folder;
use runtime_tests::image::Image;
use runtime_tests::runtime::Runtime;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

const MIB: i64 = 1 << 20;

/// Files of `count` bytes of noise, which takes the longest way through a decoder, and one that is mostly nothing.
fn fill(folder: &Path, seed: u64) {
    let mut state = seed | 1;
    let mut noise = |size: usize| -> Vec<u8> {
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.take(size / 8).flatten().collect()
    };
    for i in 0..8 {
        fs::write(folder.join(format!("noise{i}")), noise(1 << 20)).unwrap();
    }
    for i in 0..2000 {
        fs::write(folder.join(format!("small{i}")), noise(512)).unwrap();
    }
    fs::File::create(folder.join("large")).unwrap().set_len(50 << 20).unwrap();
}

/// The most that any process had resident which this one, or one that it waited for, has waited for.
fn largest() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() * 1024
}

#[test]
fn an_image_is_loaded_in_128_mib_beside_zstd_windows() {
    let runtime = Runtime::new();
    let folder = Folder::new("memory");
    let processors = std::thread::available_parallelism().unwrap().get() as i64;
    // rcrun itself and, for each layer that is carried at a time, a child: were they all at their largest at once.
    let layers = processors.min(4);
    let processes = 1 + layers;
    let image = (0..layers as u64).fold(Image::new("memory"), |image, i| image.layer(|at| fill(at, i + 1)));
    let path = |name: &str| folder.path().join(name);
    // One thread: the packer must not be larger than what is measured.
    let zstd: &[&str] = &["zstd", "-qc1", "--single-thread"];
    // The largest window that zstd's first level asks for.
    for (packer, window) in [(&["gzip", "-nc1"][..], 0), (zstd, MIB / 2)] {
        let most = 128 * MIB + window * (processes - 1);
        image.layout_packed(&path(packer[0]), "memory", packer);
        let before = largest() * processes;
        assert!(before <= most, "making the image took so much that nothing can be shown: {before} bytes");
        let store = path("store").with_extension(packer[0]);
        let words = ["image", "load", "-q", "--store"].map(OsString::from);
        runtime.ok(words.into_iter().chain([store.into(), path(packer[0]).into()]));
        let bytes = largest() * processes;
        assert!(bytes <= most, "{}: {processes} processes, together up to {bytes} bytes", packer[0]);
    }
}
