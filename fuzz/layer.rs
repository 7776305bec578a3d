//! Layers: bytes as the tar of a layer, unpacked in each form. Uses: rcrun_image::layer, sentence.
//!
//! What holds: it ends, in an error that is a sentence or in a tree within the limits; nothing outside of the folder
//! changes, the layer below included; the folder can be emptied; and what was unpacked, written as a layer (`image
//! commit`) and unpacked again, is written as the same bytes again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rcrun_image::layer::{Diff, Form, Limits, Unpack, clear, diff, is_empty, unpack};

use crate::sentence;

/// So small that each of them is met.
const LIMITS: Limits = Limits {
    stream: 1 << 20,
    bytes: 1 << 20,
    inodes: 500,
    depth: 64,
    name: 255,
    path: 4096,
    xattrs: 16 << 10,
};

/// A sparse file is as large as it says, and is read whole to be written as a layer.
const LARGEST_READ: u64 = 8 << 20;

/// The folders of one thread, which each input finds as the one before found them.
struct Place {
    top: tempfile::TempDir,
    outside: BTreeMap<PathBuf, String>,
}

impl Place {
    fn new() -> Place {
        let top = tempfile::tempdir().expect("a scratch folder");
        let at = |name: &str| top.path().join(name);
        for folder in ["outside/folder", "below/d/e", "root", "again"] {
            fs::create_dir_all(at(folder)).expect("mkdir");
        }
        for file in ["sibling", "outside/file", "outside/folder/file", "below/a", "below/d/x", "below/d/e/f"]
        {
            fs::write(at(file), "outside").expect("write");
        }
        std::os::unix::fs::symlink("../outside", at("below/l")).expect("symlink");
        fs::hard_link(at("below/a"), at("below/h")).expect("link");
        let outside = told(top.path());
        Place { top, outside }
    }

    fn open(&self, name: &str) -> File {
        File::open(self.top.path().join(name)).expect("open of a scratch folder")
    }
}

/// All around the folders that are unpacked into: any change of a file changes its ctime.
fn told(top: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(at: &Path, top: &Path, all: &mut BTreeMap<PathBuf, String>) {
        let stat = fs::symlink_metadata(at).expect("lstat");
        let line = format!("{:o} {}.{} {}", stat.mode(), stat.ctime(), stat.ctime_nsec(), stat.nlink());
        all.insert(at.to_path_buf(), line);
        let unpacked = ["root", "again"].iter().any(|name| at == top.join(name));
        if stat.is_dir() && !unpacked {
            for entry in fs::read_dir(at).expect("readdir") {
                walk(&entry.expect("readdir").path(), top, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(top, top, &mut all);
    // Their own attributes are the archive's.
    all.retain(|at, _| !at.ends_with("root") && !at.ends_with("again"));
    all
}

/// Whether no file is so large that reading it takes long.
fn may_be_read(folder: &Path) -> bool {
    fs::read_dir(folder).expect("readdir").all(|entry| {
        let at = entry.expect("readdir").path();
        let stat = fs::symlink_metadata(&at).expect("lstat");
        if stat.is_dir() { may_be_read(&at) } else { !stat.is_file() || stat.len() <= LARGEST_READ }
    })
}

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    thread_local!(static PLACE: Place = Place::new());
    PLACE.with(|place| {
        for form in [Form::Flat, Form::Overlay, Form::UserOverlay] {
            in_form(input, place, form);
        }
        assert_eq!(place.outside, told(place.top.path()), "outside of the folder something changed");
    });
}

fn in_form(input: &[u8], place: &Place, form: Form) {
    let root = place.open("root");
    let below = || Ok(vec![place.open("below").into()]);
    let lower: Option<rcrun_image::layer::Lower<'_>> = if form == Form::Flat { None } else { Some(&below) };
    let options = Unpack { form, rootless: false, limits: LIMITS, lower };
    match unpack(input, root.as_fd(), &options) {
        Err(error) => sentence::is_one(&error),
        Ok(summary) => {
            assert!(summary.entries <= LIMITS.inodes && summary.bytes <= LIMITS.bytes, "{summary:?}");
            if may_be_read(&place.top.path().join("root")) {
                written_and_unpacked_is_the_same(place, form, &root);
            }
        }
    }
    emptied(&root);
}

fn written_and_unpacked_is_the_same(place: &Place, form: Form, root: &File) {
    let mut before = written(root, form);
    // In an overlay, a whiteout of an archive that makes its folder opaque later stays, and hides nothing. Unpacked from
    // what was written, where the folder is opaque first, it is not made.
    if form != Form::Flat {
        before = turned(place, form, &before);
    }
    let after = turned(place, form, &before);
    assert!(before == after, "written, unpacked and written again, the layer is another");
}

/// `tar` unpacked, and written again.
fn turned(place: &Place, form: Form, tar: &[u8]) -> Vec<u8> {
    let again = place.open("again");
    // It was within the limits once, and what is below is in it now.
    let limits = Limits { stream: u64::MAX, bytes: u64::MAX, inodes: u64::MAX, ..LIMITS };
    let options = Unpack { form, rootless: false, limits, lower: None };
    unpack(tar, again.as_fd(), &options).expect("what was written can be unpacked");
    let out = written(&again, form);
    emptied(&again);
    out
}

fn written(folder: &File, form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    diff(folder.as_fd(), &Diff { form, root: true, latest: None }, &mut out)
        .expect("what was unpacked can be written");
    out
}

fn emptied(folder: &File) {
    clear(folder.as_fd(), &LIMITS).expect("the folder can be emptied");
    assert!(is_empty(folder.as_fd()).expect("readdir"), "something is left");
    // What the archive said of the root itself.
    for name in xattrs(folder) {
        rustix::fs::fremovexattr(folder, name).expect("fremovexattr");
    }
    rustix::fs::fchmod(folder, rustix::fs::Mode::from_raw_mode(0o755)).expect("fchmod");
}

fn xattrs(folder: &File) -> Vec<String> {
    let mut names = vec![0; 64 << 10];
    let size = rustix::fs::flistxattr(folder, &mut names[..]).expect("flistxattr");
    names[..size]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}
