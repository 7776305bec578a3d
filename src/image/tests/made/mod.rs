//! Images for tests, made in memory: the files of a layout or of an archive, to be changed, and then written as a
//! folder or as a tar. Uses: rcrun_image, tar, flate2, zstd, serde_json.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rcrun_image::document::media;
use rcrun_image::import::{Imported, Options, import};
use rcrun_image::source::{Limits, Source};
use rcrun_image::store::Store;
use rcrun_image::{Digest, Error, Platform, Result};
use serde_json::{Value, json};

/// The files of a source by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A tar of files.
pub fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that no compressor makes small, always the same.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).unwrap()
}

/// The layers that most tests use: plain, gzip and zstd.
pub fn layers() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let first = layer(&[("etc/one", b"1"), ("bin/x", &noise(1, 300_000))]);
    let second = layer(&[("etc/two", b"2"), ("big", &noise(2, 600_000))]);
    let third = layer(&[("etc/three", b"3")]);
    vec![
        (media::LAYER, first.clone(), first),
        (media::LAYER_GZIP, gzip(&second), second),
        (media::LAYER_ZSTD, zstd(&third), third),
    ]
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() })
}

pub fn config(architecture: &str, diff_ids: &[Digest]) -> Vec<u8> {
    json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["/bin/x"], "Env": ["A=b"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes()
}

pub fn put(files: &mut Files, content: &[u8]) {
    files.insert(format!("blobs/sha256/{}", Digest::of(content).hex()), content.to_vec());
}

/// Adds an image for `architecture` to a layout: the descriptor of its manifest.
pub fn add(files: &mut Files, architecture: &str, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Value {
    let diff_ids: Vec<Digest> = layers.iter().map(|(_, _, tar)| Digest::of(tar)).collect();
    let config = config(architecture, &diff_ids);
    let descriptors: Vec<Value> = layers.iter().map(|(kind, blob, _)| descriptor(kind, blob)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::MANIFEST, "config": descriptor(media::CONFIG, &config),
        "layers": descriptors,
    })
    .to_string();
    put(files, &config);
    put(files, manifest.as_bytes());
    for (_, blob, _) in layers {
        put(files, blob);
    }
    descriptor(media::MANIFEST, manifest.as_bytes())
}

pub fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    descriptor
}

pub fn of_platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}

/// Makes `files` a layout of these entries.
pub fn index(files: &mut Files, entries: &[Value]) {
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    let index = json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries });
    files.insert("index.json".into(), index.to_string().into_bytes());
}

/// A layout of one image for this machine.
pub fn layout() -> Files {
    let mut files = Files::new();
    let entry = add(&mut files, &Platform::host().architecture, &layers());
    index(&mut files, &[named(entry, "app:1")]);
    files
}

/// `files` as a tar; `backwards` in the other order.
pub fn tarred(files: &Files, backwards: bool) -> Vec<u8> {
    let mut entries: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
    if backwards {
        entries.reverse();
    }
    layer(&entries)
}

pub fn write_folder(files: &Files, at: &Path) {
    for (name, content) in files {
        let path = at.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// A store in a folder of its own, and a place for files beside it.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub store: Store,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Place { folder, store }
    }

    pub fn file(&self, name: &str, content: &[u8]) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn open(&self, path: &Path) -> Result<Source> {
        Source::open(path, self.store.scratch(), Limits::default())
    }

    /// Opens the tar of `files`, selects, and imports.
    pub fn import(&self, files: &Files, reference: Option<&str>) -> Result<Imported> {
        self.import_tar(&tarred(files, false), reference)
    }

    pub fn import_tar(&self, tar: &[u8], reference: Option<&str>) -> Result<Imported> {
        let source = self.open(&self.file("image.tar", tar))?;
        let image = source.select(reference, &Platform::host())?;
        let options = Options { names: image.names.clone(), ..Options::default() };
        import(&self.store, &source, &image, &options, &unpack)
    }

    /// Fails unless the store is whole and nothing of a failed import is left.
    pub fn must_be_whole(&self) {
        assert_eq!(self.store.fsck(false).unwrap(), []);
        let left = std::fs::read_dir(self.folder.path().join("store/tmp")).unwrap().count();
        assert_eq!(left, 0, "something is left in tmp");
        let leases = std::fs::read_dir(self.folder.path().join("store/leases")).unwrap().count();
        assert_eq!(leases, 0, "a lease is left");
    }
}

/// Unpacks with the tar crate: files only, which is all that the tests' layers have.
pub fn unpack(tar: &mut dyn Read, into: BorrowedFd<'_>) -> Result<()> {
    tar::Archive::new(tar)
        .unpack(format!("/proc/self/fd/{}", into.as_raw_fd()))
        .map_err(|error| Error::invalid(format!("unpack: {error}")))
}

/// The content of a file in an unpacked layer.
pub fn read_in_layer(place: &Place, tar: &[u8], name: &str) -> Vec<u8> {
    let path = Store::layer_path(&Digest::of(tar));
    std::fs::read(place.folder.path().join("store").join(path).join(name)).unwrap()
}
