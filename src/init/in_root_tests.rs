//! Paths that try to leave: on a root in a temporary folder, beside which a folder must stay as it is.

use super::{Root, Text};
use crate::sys::{
    AT_FDCWD, Fd,
    errno::{ELOOP, ENOTDIR},
    file,
    numbers::{O_DIRECTORY, O_PATH},
};
use std::{
    ffi::CString,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

struct Place {
    folder: PathBuf,
    root: Root,
}

impl Place {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rcrun-in-root-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("root/there")).unwrap();
        fs::create_dir_all(folder.join("outside")).unwrap();
        let root =
            Root::new(file::openat(AT_FDCWD, &c(&folder.join("root")), O_PATH | O_DIRECTORY, 0).unwrap());
        Place { folder, root }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.folder.join("root").join(path)
    }

    fn is(&self, fd: &Fd, path: &str) -> bool {
        file::stat_fd(fd.raw()).unwrap().inode == fs::symlink_metadata(self.inside(path)).unwrap().ino()
    }

    fn nothing_outside(&self) -> bool {
        let names = |path: &Path| fs::read_dir(path).unwrap().count();
        names(&self.folder.join("outside")) == 0 && names(&self.folder) == 2
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn c(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

#[test]
fn directories_are_made_where_links_lead_below_the_root() {
    // link, what it says, what is asked for, where it must be.
    let table = [
        ("none", "there", "a/b/c", "a/b/c"),
        ("there/up", "..", "there/up/x/y", "x/y"),
        ("absolute", "/new/deep", "absolute/z", "new/deep/z"),
        ("climber", "../../../../../outside/made", "climber", "outside/made"),
        ("absolute-outside", "OUTSIDE/made", "absolute-outside", "OUTSIDE/made"),
        ("dangling", "gone", "dangling", "gone"),
        ("dots", "./there/./../there//", "dots/q", "there/q"),
        ("missing-then-up", "not-there/../back", "missing-then-up", "back"),
    ];
    for (link, says, asked, wanted) in table {
        let place = Place::new("directories");
        let outside = place.folder.join("outside").to_str().unwrap().to_owned();
        symlink(says.replace("OUTSIDE", &outside), place.inside(link)).unwrap();
        let made = place.root.directory(&CString::new(asked).unwrap(), 0o755).unwrap();
        let wanted = wanted.replace("OUTSIDE", &outside[1..]);
        assert!(place.is(&made, &wanted), "{asked}");
        assert!(place.nothing_outside(), "{asked}");
        let again = place.root.directory(&CString::new(asked).unwrap(), 0o755).unwrap();
        assert!(place.is(&again, &wanted), "{asked}");
    }
}

#[test]
fn files_are_made_where_links_lead_below_the_root_and_existing_ones_stay() {
    let place = Place::new("files");
    symlink("../../outside/file", place.inside("climber")).unwrap();
    let made = place.root.file(c"climber").unwrap();
    assert!(place.is(&made, "outside/file"));
    assert!(place.nothing_outside());
    fs::write(place.inside("full"), "text").unwrap();
    place.root.file(c"full").unwrap();
    assert_eq!(fs::read_to_string(place.inside("full")).unwrap(), "text");
    assert!(place.is(&place.root.file(c"new/deep/file").unwrap(), "new/deep/file"));
    assert!(place.is(&place.root.file(c"there").unwrap(), "there"), "a directory is taken as it is");
}

#[test]
fn loops_chains_files_in_the_way_and_long_paths_fail() {
    let place = Place::new("fail");
    symlink("loop", place.inside("loop")).unwrap();
    assert_eq!(place.root.directory(c"loop/x", 0o755).unwrap_err().errno, ELOOP);
    for i in 0..=41 {
        symlink(format!("chain{}/x", i + 1), place.inside(&format!("chain{i}"))).unwrap();
    }
    assert_eq!(place.root.directory(c"chain0", 0o755).unwrap_err().errno, ELOOP);
    fs::write(place.inside("file"), "").unwrap();
    assert_eq!(place.root.directory(c"file/x", 0o755).unwrap_err().errno, ENOTDIR);
    assert_eq!(place.root.file(c"file/x").unwrap_err().errno, ENOTDIR);
    symlink("../outside", place.inside("there/out")).unwrap();
    assert_eq!(place.root.open(c"there/out", O_PATH, true).unwrap_err().errno, ELOOP);
    let long = CString::new("x/".repeat(3000)).unwrap();
    assert!(place.root.directory(&long, 0o755).is_err());
    assert!(Text::of(&[b'x'; 4096]).is_err());
    assert!(place.nothing_outside());
}

#[test]
fn parent_of_names_one_component() {
    let place = Place::new("parent");
    let (parent, name) = place.root.parent_of(c"dev/pts/ptmx").unwrap();
    assert!(place.is(&parent, "dev/pts"));
    assert_eq!(name, c"ptmx");
    for path in [c"", c"a/..", c"..", c".", c"a/"] {
        assert!(place.root.parent_of(path).is_err(), "{path:?}");
    }
}

#[test]
fn racer_that_swaps_a_directory_for_a_link_gets_nothing_outside() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::new("racer");
    let (over, mut made) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (link, aside) = (place.inside("aside-link"), place.inside("aside"));
            symlink(place.folder.join("outside"), &link).unwrap();
            let swapped = place.inside("swapped");
            while !over.load(Ordering::Relaxed) {
                let _ = fs::rename(&swapped, &aside);
                let _ = fs::rename(&link, &swapped);
                let _ = fs::rename(&swapped, &link);
                let _ = fs::rename(&aside, &swapped);
            }
        });
        for i in 0..2000 {
            let (directory, file) = (format!("swapped/a{i}/b"), format!("swapped/f{i}/file"));
            made += u32::from(place.root.directory(&CString::new(directory).unwrap(), 0o755).is_ok());
            made += u32::from(place.root.file(&CString::new(file).unwrap()).is_ok());
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(made > 0, "the racer may slow init down, not stop it each time");
    assert!(place.nothing_outside());
}
