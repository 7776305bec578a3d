//! Makes the seeds of all targets of what the tests of images made: `seeds FOLDER`, after these tests ran with
//! RCRUN_SEEDS=FOLDER. Uses: rcrun_fuzz, rcrun_image::compression, tar.
//!
//! Layers come from the tests as they are. Archives hold layers far larger than what a fuzzer can change well, and nobody
//! reads them to select an image: they are cut short. Documents are the archives' members.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::path::Path;

use rcrun_image::compression::decompress;

/// Members of archives, and layers, that are larger are cut or left out.
const SMALL: usize = 4 << 10;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nshort\nbad:x:4294967295:0::/:/bin/sh\nnegative:x:-1:-1::/:\n\
    worse:x:7:x::/:/bin/sh\nempty:x:::::\nweb:x:1000:33:Web,,,:/srv:/bin/sh\nweb:x:0:0:second:/:/bin/sh\n1000:x:5:5::/:\n";
const GROUP: &str = "root:x:0:\ntty:x:5:web\nwww-data:x:33:web,other\naudio:x:29:other,web\nagain:x:5:web\nbad:x:x:web\n\
    over:x:4294967296:web\nfive:x:2000:1000\n";
const USERS: &[&str] = &[
    "",
    "0",
    "root",
    "1000",
    "1000:1000",
    "web",
    "web:",
    "web:tty",
    "web:0",
    "1000:tty",
    ":5",
    ":tty",
    ":",
    " ",
    "-1",
    "+0",
    "bad",
    "negative",
    "worse",
    "empty",
    "short",
    "# a comment",
    "4294967294",
    "4294967295:0",
    "0:4294967296",
    "0:0:0",
    "web:over",
    "web:bad",
    "web:nobody",
];
const NAMES: &[&str] = &[
    "app",
    "app:1",
    "a/b/c:latest",
    "localhost:5000/app:1",
    "[::1]:5000/app",
    "docker.io/library/app",
    "index.docker.io/a",
    "registry.test/a-b_c__d.e/f:v1.2-3",
    "app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha256:../../x",
    "../x",
    "a//b",
    "a:..",
    "linux/amd64",
    "linux/arm64/v8",
    "linux/arm/v7",
    "512m",
    "1.5g",
    ".5k",
    "64 MiB",
    "1.5",
    "0.01",
    "2",
    "/data",
    "/a:/b",
    "./a:/b:ro,Z,rshared",
    "/a/../b:/c/../d:rw",
    "/data:ro",
];

fn main() {
    let folder = std::env::args_os().nth(1).expect("seeds FOLDER");
    let folder = Path::new(&folder);
    let layers = read_all(&folder.join("layer"));
    let archives = read_all(&folder.join("archive"));
    // One of each sort is enough, the smallest.
    for layer in layers.iter().filter(|layer| (1..=SMALL).contains(&layer.len())).take(40) {
        keep(folder, "compression", &gzip(layer));
        keep(folder, "compression", &zstd(layer));
        keep(folder, "compression", &[gzip(layer), gzip(b"another member")].concat());
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        keep(folder, "compression", &[skippable, zstd(layer), zstd(b"another frame")].concat());
    }
    for (number, archive) in archives.iter().enumerate() {
        let Some(small) = cut(archive, folder) else { continue };
        keep(folder, "archive", &small);
        // Each way to compress has its own way in, and one of either shows it.
        match number % 8 {
            0 => keep(folder, "archive", &gzip(&small)),
            1 => keep(folder, "archive", &zstd(&small)),
            _ => {}
        }
    }
    for user in USERS {
        keep(folder, "passwd", format!("{user}\n{PASSWD}\0{GROUP}").as_bytes());
    }
    for name in NAMES {
        keep(folder, "name", name.as_bytes());
    }
    for target in rcrun_fuzz::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(folder.join(target.name)).expect("each target has seeds") {
            let entry = entry.expect("readdir");
            // libFuzzer would cut them, and what is cut is broken at once.
            if entry.metadata().expect("lstat").len() > target.longest as u64 {
                fs::remove_file(entry.path()).expect("unlink");
            } else {
                count += 1;
            }
        }
        assert!(count >= 20, "{} has {count} seeds only", target.name);
        println!("{count} seeds of {}", target.name);
    }
}

fn read_all(folder: &Path) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = fs::read_dir(folder)
        .expect("the tests of images left seeds")
        .map(|entry| fs::read(entry.expect("readdir").path()).expect("read"))
        .collect();
    all.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    all
}

fn keep(folder: &Path, target: &str, input: &[u8]) {
    let folder = folder.join(target);
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    fs::create_dir_all(&folder).expect("mkdir");
    fs::write(folder.join(format!("{:016x}", hasher.finish())), input).expect("write");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("write to memory");
    encoder.finish().expect("write to memory")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).expect("write to memory")
}

/// `archive` with its large members cut, if it is a tar of any sort. Its documents become seeds.
fn cut(archive: &[u8], folder: &Path) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    decompress(archive, None, 64 << 20).ok()?.read_to_end(&mut plain).ok()?;
    let mut small = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(&plain[..]).entries().ok()? {
        let mut entry = entry.ok()?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        if matches!(content.first(), Some(b'{' | b'[')) && content.len() <= SMALL {
            keep(folder, "manifest", &content);
        }
        content.truncate(SMALL);
        let mut header = entry.header().clone();
        header.set_size(content.len() as u64);
        header.set_cksum();
        small.append(&header, &content[..]).ok()?;
    }
    small.into_inner().ok()
}
