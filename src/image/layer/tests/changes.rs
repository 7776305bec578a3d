//! What an upper folder changes of layers: each way in which two folders of an overlay may meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags};

use super::super::{ChangeKind, Changes, Diff, Form, Made, Over, Result, changes, diff_of};

struct Place {
    folder: tempfile::TempDir,
    form: Form,
    made: BTreeMap<Vec<u8>, Made>,
    without: BTreeSet<Vec<u8>>,
}

impl Place {
    fn new(form: Form) -> Place {
        let folder = tempfile::tempdir().unwrap();
        for name in ["low", "high", "upper"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Place { folder, form, made: BTreeMap::new(), without: BTreeSet::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file whose time is `content`'s length.
    fn file(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(content.len() as u64);
        File::options().append(true).open(self.path(name)).unwrap().set_modified(time).unwrap();
    }

    fn folder(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    fn whiteout(&self, name: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        rustix::fs::mknodat(CWD, self.path(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    fn opaque(&self, name: &str) {
        self.folder(name);
        let key = format!("{}opaque", self.form.private().unwrap());
        rustix::fs::setxattr(self.path(name), key, b"y", XattrFlags::empty()).unwrap();
    }

    fn changes(&self) -> Result<Changes> {
        let open = |name: &str| File::open(self.path(name)).map(OwnedFd::from);
        let lower = || ["high", "low"].into_iter().map(open).collect();
        let over =
            Over { form: self.form, lower: &lower, root: None, made: &self.made, without: &self.without };
        changes(File::open(self.path("upper")).unwrap().as_fd(), &over)
    }

    fn told(&self) -> Vec<String> {
        let letter = |kind| match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Removed => 'D',
        };
        let all = self.changes().unwrap().all;
        all.iter().map(|c| format!("{} {}", letter(c.kind), String::from_utf8_lossy(&c.path))).collect()
    }

    fn tar(&self) -> Vec<u8> {
        let changes = self.changes().unwrap();
        let options = Diff { form: self.form, root: changes.root, latest: None };
        let mut out = Vec::new();
        diff_of(File::open(self.path("upper")).unwrap().as_fd(), &changes.all, &options, &mut out).unwrap();
        out
    }
}

/// The paths of a tar.
fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = ::tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap()).collect()
}

#[test]
fn what_is_hidden_is_told_by_name_as_far_as_it_was_there() {
    for form in [Form::Overlay, Form::UserOverlay] {
        let place = Place::new(form);
        place.file("low/d/one", "1");
        place.file("low/d/two", "2");
        place.file("low/d/sub/deep", "3");
        place.whiteout("high/d/two");
        place.file("high/d/three", "3");
        place.file("low/e/x", "x");
        place.whiteout("upper/e/x");
        // Never there, or gone already.
        place.whiteout("upper/e/never");
        place.whiteout("upper/two");
        place.opaque("upper/d");
        place.file("upper/d/three", "3");
        place.file("upper/d/new", "n");
        // In an opaque folder one that is not marked hides as well.
        place.folder("upper/d/sub");
        assert_eq!(
            place.told(),
            ["C d", "A d/new", "D d/one", "C d/sub", "D d/sub/deep", "C e", "D e/x"],
            "{form:?}"
        );
        assert_eq!(
            names(&place.tar()),
            ["d/", "d/new", "d/.wh.one", "d/sub/", "d/sub/.wh.deep", "e/", "e/.wh.x"]
        );
    }
}

#[test]
fn what_was_copied_up_and_is_as_it_was_is_no_change() {
    let place = Place::new(Form::Overlay);
    for name in ["same", "bytes", "time", "mode", "owner", "xattr", "deep/er/same", "linked"] {
        place.file(&format!("low/{name}"), "content");
        place.file(&format!("upper/{name}"), "content");
    }
    assert_eq!(place.told(), Vec::<String>::new());
    fs::write(place.path("upper/bytes"), "CONTENT").unwrap();
    File::options()
        .append(true)
        .open(place.path("upper/bytes"))
        .unwrap()
        .set_modified(UNIX_EPOCH + Duration::from_secs(7))
        .unwrap();
    File::open(place.path("upper/time")).unwrap().set_modified(UNIX_EPOCH).unwrap();
    fs::set_permissions(place.path("upper/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(place.path("upper/owner"), Some(5), None).unwrap();
    rustix::fs::setxattr(place.path("upper/xattr"), "user.x", b"1", XattrFlags::empty()).unwrap();
    // overlayfs's own is none of a file's.
    rustix::fs::setxattr(place.path("upper/same"), "trusted.overlay.origin", b"1", XattrFlags::empty())
        .unwrap();
    // A name more makes one file of two.
    fs::hard_link(place.path("upper/linked"), place.path("upper/linked2")).unwrap();
    fs::set_permissions(place.path("upper/deep"), fs::Permissions::from_mode(0o700)).unwrap();
    let told = ["C bytes", "C deep", "C linked", "A linked2", "C mode", "C owner", "C time", "C xattr"];
    assert_eq!(place.told(), told);
}

#[test]
fn kinds_that_replace_each_other_are_changed() {
    let place = Place::new(Form::Overlay);
    place.file("low/folder/in", "1");
    place.file("low/file", "1");
    symlink("one", place.path("low/link")).unwrap();
    place.file("upper/folder", "1");
    place.opaque("upper/file");
    place.file("upper/file/in", "1");
    symlink("two", place.path("upper/link")).unwrap();
    assert_eq!(place.told(), ["C file", "A file/in", "C folder", "C link"]);
}

#[test]
fn what_was_made_and_what_is_left_out_are_no_changes_until_something_else_is() {
    let mut place = Place::new(Form::Overlay);
    place.file("low/etc/conf", "1");
    for name in ["upper/mnt/deep", "upper/etc", "upper/cwd"] {
        place.folder(name);
    }
    fs::write(place.path("upper/etc/hosts"), "").unwrap();
    place.file("upper/srv/vol/data", "1");
    let made = |mode| Made { mode, uid: 0, gid: 0 };
    for name in ["mnt", "mnt/deep", "cwd", "srv"] {
        place.made.insert(name.into(), made(0o40755));
    }
    place.made.insert("etc/hosts".into(), made(0o100644));
    place.without.insert("srv/vol".into());
    assert_eq!(place.told(), Vec::<String>::new());
    place.file("upper/mnt/deep/x", "1");
    fs::write(place.path("upper/etc/hosts"), "x").unwrap();
    fs::set_permissions(place.path("upper/cwd"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(place.told(), ["A cwd", "C etc", "A etc/hosts", "A mnt", "A mnt/deep", "A mnt/deep/x"]);
}

#[test]
fn the_root_is_a_change_by_its_mode_and_not_by_its_time() {
    let place = Place::new(Form::Overlay);
    fs::set_permissions(place.path("upper"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(place.changes().unwrap(), Changes::default());
    fs::set_permissions(place.path("upper"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(place.changes().unwrap().root);
    assert_eq!(names(&place.tar()), ["./"]);
}

#[test]
fn a_tree_deeper_than_a_layer_may_be_is_refused() {
    let place = Place::new(Form::Overlay);
    let deep: String = (0..300).map(|_| "d/").collect();
    fs::create_dir_all(place.path("upper").join(Path::new(&deep))).unwrap();
    let error = place.changes().unwrap_err().to_string();
    assert!(error.ends_with("more than 256 folders deep"), "{error}");
}

#[test]
fn what_a_container_puts_in_the_place_of_a_file_that_is_written_is_not_opened() {
    let place = Place::new(Form::Overlay);
    place.file("upper/file", "content");
    let all = place.changes().unwrap().all;
    let fifo = place.path("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let held = rustix::fs::open(&fifo, OFlags::PATH, Mode::empty()).unwrap();
    let upper = File::open(place.path("upper")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let exchanges = scope.spawn(|| {
            let mut read = 0;
            let door = format!("/proc/self/fd/{}", held.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK;
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &fifo, CWD, place.path("upper/file"), RenameFlags::EXCHANGE)
                    .unwrap();
                // Whoever waits in open(2) for a writer is let go, and counted.
                read += u32::from(rustix::fs::open(&door, flags, Mode::empty()).is_ok());
            }
            read
        });
        let options = Diff { form: place.form, root: false, latest: None };
        let written = (0..2000).map(|_| diff_of(upper.as_fd(), &all, &options, std::io::sink()));
        let failed: Vec<String> = written.filter_map(Result::err).map(|error| error.to_string()).collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(
            (exchanges.join().unwrap(), &failed[..]),
            (0, &[][..]),
            "readers of the FIFO, and failures"
        );
    });
}
