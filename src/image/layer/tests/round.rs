//! What `diff` writes, `unpack` makes again.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::super::{Diff, Form, diff};
use super::unpack_into;
use super::walk::{Tell, assert_same, everything, walk};

fn tar_of(root: &Path, form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    let options = Diff { form, root: true, latest: None };
    diff(File::open(root).unwrap().as_fd(), &options, &mut out).unwrap();
    out
}

#[test]
fn a_tree_with_everything_in_it_comes_back_as_it_was() {
    for form in [Form::Flat, Form::Overlay, Form::UserOverlay] {
        let temp = tempfile::tempdir().unwrap();
        let (first, second) = (temp.path().join("first"), temp.path().join("second"));
        std::fs::create_dir(&first).unwrap();
        everything(&first);
        let tar = tar_of(&first, form);
        let summary = unpack_into(&tar, &second, form).unwrap();
        assert_eq!(summary.notes, Vec::<String>::new());
        assert!(summary.root && !summary.depends_on_lower);
        let before = walk(&first, Tell::All);
        assert!(before.len() > 30, "{before:?}");
        assert_same(&before, &walk(&second, Tell::All), "first and unpacked");
        assert!(tar == tar_of(&second, form), "the same tree gives the same bytes");
    }
}

#[test]
fn whiteouts_opaque_folders_and_escaped_xattrs_come_back() {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags};
    let temp = tempfile::tempdir().unwrap();
    for (form, private) in [(Form::Overlay, "trusted.overlay."), (Form::UserOverlay, "user.overlay.")] {
        let upper = temp.path().join(format!("{form:?}"));
        std::fs::create_dir_all(upper.join("a/b")).unwrap();
        std::fs::write(upper.join("a/b/file"), "x").unwrap();
        for gone in ["gone", "a/gone"] {
            rustix::fs::mknodat(CWD, upper.join(gone), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        let set = |name: &str, key: String, value: &[u8]| {
            rustix::fs::setxattr(upper.join(name), key, value, XattrFlags::empty()).unwrap();
        };
        set("a/b", format!("{private}opaque"), b"y");
        set("a/b/file", format!("{private}overlay.opaque"), b"mine");
        // overlayfs's own, which no layer holds.
        set("a", format!("{private}impure"), b"y");
        set("a/b/file", format!("{private}origin"), b"1");
        let tar = tar_of(&upper, form);
        let again = temp.path().join(format!("{form:?}-again"));
        let summary = unpack_into(&tar, &again, form).unwrap();
        assert_eq!(summary.whiteouts, 3);
        assert!(tar == tar_of(&again, form));
        let xattrs = super::walk::xattrs(&again.join("a/b/file"));
        assert_eq!(xattrs, [(format!("{private}overlay.opaque"), b"mine".to_vec())].into());
        set("a", format!("{private}redirect"), b"/x");
        let options = Diff { form, root: false, latest: None };
        let error = diff(File::open(&upper).unwrap().as_fd(), &options, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("redirect_dir"), "{error}");
    }
}

#[test]
fn later_times_become_the_latest() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("a"), "").unwrap();
    let tar = |latest| {
        let mut out = Vec::new();
        diff(
            File::open(temp.path()).unwrap().as_fd(),
            &Diff { form: Form::Flat, root: true, latest },
            &mut out,
        )
        .unwrap();
        out
    };
    let first = tar(Some(1_000_000_000));
    std::fs::write(temp.path().join("b"), "").unwrap();
    std::fs::remove_file(temp.path().join("b")).unwrap();
    assert!(first == tar(Some(1_000_000_000)));
    assert!(first != tar(None));
}

#[test]
fn sockets_and_names_that_mean_whiteouts_are_told() {
    let temp = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("s")).unwrap();
    let options = Diff { form: Form::Overlay, root: false, latest: None };
    let mut out = Vec::new();
    let summary = diff(File::open(temp.path()).unwrap().as_fd(), &options, &mut out).unwrap();
    assert_eq!((summary.entries, out.len()), (0, 1024));
    assert!(summary.notes[0].starts_with("s: sockets are left out"), "{:?}", summary.notes);
    std::fs::create_dir(temp.path().join("d")).unwrap();
    std::fs::write(temp.path().join("d/.wh.x"), "").unwrap();
    let error = diff(File::open(temp.path()).unwrap().as_fd(), &options, Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "d/.wh.x: the name \".wh.x\" means a whiteout in a layer");
}
