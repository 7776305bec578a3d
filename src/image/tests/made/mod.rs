//! Images for tests, made in memory: the files of a layout or of an archive, to be changed, and then written as a
//! folder or as a tar. Uses: rcrun_image, tar, flate2, zstd, serde_json.
#![allow(dead_code)]

mod seed;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use rcrun_image::document::media;
use rcrun_image::import::{Imported, Options, import};
use rcrun_image::source::{Limits, Source};
use rcrun_image::store::{LayerId, Store};
use rcrun_image::{Digest, Platform, Result};
use serde_json::{Value, json};

/// The files of a source by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A tar of files.
pub fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut folders = std::collections::BTreeSet::new();
    for (name, content) in files {
        // A layer that lacks a parent depends on what is below.
        for (at, _) in name.match_indices('/') {
            if folders.insert(&name[..at]) {
                tar = tar.dir(&name[..at]);
            }
        }
        tar = tar.file(name, content);
    }
    tar.end()
}

/// A tar, entry by entry.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    fn entry(self, kind: tar::EntryType, name: &str, mode: u32, link: &str, content: &[u8]) -> Tar {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000 + u64::from(mode));
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        let mut builder = tar::Builder::new(self.0);
        builder.append_data(&mut header, name, content).unwrap();
        let mut tar = builder.into_inner().unwrap();
        // The two blocks of the end come last.
        tar.truncate(tar.len() - 1024);
        Tar(tar)
    }

    pub fn file(self, name: &str, content: &[u8]) -> Tar {
        self.entry(tar::EntryType::Regular, name, 0o644, "", content)
    }

    pub fn dir(self, name: &str) -> Tar {
        self.entry(tar::EntryType::Directory, name, 0o750, "", b"")
    }

    pub fn hard(self, name: &str, target: &str) -> Tar {
        self.entry(tar::EntryType::Link, name, 0o644, target, b"")
    }

    pub fn sym(self, name: &str, target: &str) -> Tar {
        self.entry(tar::EntryType::Symlink, name, 0o777, target, b"")
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A tar of files and nothing else, as an archive of an image may be.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    files.iter().fold(Tar::default(), |tar, (name, content)| tar.file(name, content)).end()
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
    archive(&entries)
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

    /// A store whose layers are for root's overlayfs ("trusted") or for that of a user namespace ("user").
    pub fn of_form(form: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("store")).unwrap();
        std::fs::write(folder.path().join("store/form"), form).unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Place { folder, store }
    }

    pub fn file(&self, name: &str, content: &[u8]) -> std::path::PathBuf {
        seed::keep("archive", content);
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
        import(&self.store, &source, &image, &options)
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

/// A layer that depends on none below it.
pub fn alone(tar: &[u8]) -> LayerId {
    LayerId::of_chain([Digest::of(tar)])[0]
}

/// The content of a file in an unpacked layer.
pub fn read_in_layer(place: &Place, tar: &[u8], name: &str) -> Vec<u8> {
    let store = Store::open(&place.folder.path().join("store")).unwrap();
    let layer = store.layer(&alone(tar)).unwrap().expect("the layer is unpacked");
    std::fs::read(layer.path.join(name)).unwrap()
}
