//! What layers make of each other: stacked by overlayfs, or applied one after another to one tree, they show the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Diff, Form, Kind, Limits, Unpack, diff, unpack};
use super::archive::{Header, Tar};
use super::walk::{Tell, assert_same, walk, xattrs};
use super::{unpack_into, unpack_over};

/// Unpacks `layers`, the lowest first, each into a folder of its own.
fn stack(layers: &[Vec<u8>], into: &Path, form: Form) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for (i, tar) in layers.iter().enumerate() {
        let folder = into.join(i.to_string());
        let below: Vec<&Path> = folders.iter().rev().map(PathBuf::as_path).collect();
        let summary = unpack_over(tar, &folder, form, &below).unwrap_or_else(|e| panic!("layer {i}: {e}"));
        assert_eq!(summary.notes, Vec::<String>::new());
        folders.push(folder);
    }
    folders
}

/// What overlayfs shows of `folders`, the lowest first: mounted in a mount namespace of its own, told by find(1).
fn shown(folders: &[PathBuf], temp: &Path, options: &str) -> BTreeMap<String, String> {
    shown_after(":", folders, temp, options)
}

/// The same, after the script `change` has run in it, as in a container; what it changed is in `upper`.
fn shown_after(change: &str, folders: &[PathBuf], temp: &Path, options: &str) -> BTreeMap<String, String> {
    let merged = temp.join("merged");
    for name in ["merged", "upper", "work"] {
        let _ = std::fs::create_dir(temp.join(name));
    }
    let lower: Vec<&str> = folders.iter().rev().map(|folder| folder.to_str().unwrap()).collect();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={},upperdir={t}/upper,workdir={t}/work{options} {m} && (cd {m}; {change}) && {}",
        lower.join(":"),
        find(&merged),
        t = temp.display(),
        m = merged.display(),
    );
    told(&script)
}

/// What `find` says of a tree: it stats each name, so that a name which is listed and is not there is an error.
fn find(root: &Path) -> String {
    format!(
        "cd {} && find . -printf '%P\\t%y %#m %U:%G %T@ %l\\n' && find . -type f -exec md5sum {{}} + | sed 's/\\(.*\\)  .\\/\\(.*\\)/\\2 sum\\t\\1/'",
        root.display()
    )
}

fn told(script: &str) -> BTreeMap<String, String> {
    let output = Command::new("unshare").args(["-m", "sh", "-ec", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| line.split_once('\t').unwrap());
    lines.map(|(name, line)| (name.to_string(), line.to_string())).collect()
}

/// The layers, stacked and applied, must show the same; gives what they show.
fn same_both_ways(layers: &[Vec<u8>]) -> BTreeMap<String, String> {
    let temp = tempfile::tempdir().unwrap();
    let flat = temp.path().join("flat");
    for tar in layers {
        unpack_into(tar, &flat, Form::Flat).unwrap();
    }
    let mut flat = told(&find(&flat));
    flat.remove("");
    for (form, options) in [(Form::Overlay, ""), (Form::UserOverlay, ",userxattr")] {
        let temp = temp.path().join(format!("{form:?}"));
        std::fs::create_dir(&temp).unwrap();
        let folders = stack(layers, &temp, form);
        let mut stacked = shown(&folders, &temp, options);
        // The root is the upper folder's.
        stacked.remove("");
        assert_same(&flat, &stacked, &format!("applied, and stacked as {form:?}"));
    }
    flat
}

fn kinds(shown: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let lines = shown.iter().filter(|(name, _)| !name.ends_with(" sum"));
    lines.map(|(name, line)| (&name[..], line.split(' ').next().unwrap())).collect()
}

#[test]
fn whiteouts_and_opaque_folders_hide_what_is_below() {
    let base = Tar::new()
        .dir("etc")
        .file("etc/a", "a")
        .file("etc/b", "b")
        .dir("opt")
        .dir("opt/deep")
        .file("opt/deep/x", "x")
        .file("opt/y", "y")
        .dir("gone")
        .file("gone/z", "z")
        .end();
    let change = Tar::new()
        .dir("etc")
        .file("etc/.wh.a", "")
        .dir("opt")
        .file("opt/.wh..wh..opq", "")
        .file("opt/new", "new")
        .file(".wh.gone", "")
        .end();
    let shown = same_both_ways(&[base, change]);
    assert_eq!(kinds(&shown), [("etc", "d"), ("etc/b", "f"), ("opt", "d"), ("opt/new", "f")]);
}

#[test]
fn the_order_of_whiteouts_and_entries_is_all_one() {
    let base = || {
        let tar = Tar::new()
            .dir("d")
            .file("d/old", "1")
            .dir("d/sub")
            .file("d/sub/old", "2")
            .dir("e")
            .file("e/old", "3");
        tar.end()
    };
    let entries = |tar: Tar| tar.dir("d").file("d/new", "n").dir("d/sub").file("d/sub/new", "m");
    for (name, change) in [
        ("whiteout first", entries(Tar::new().file(".wh.d", ""))),
        ("whiteout last", entries(Tar::new()).file(".wh.d", "")),
        ("opaque first", entries(Tar::new().dir("d").file("d/.wh..wh..opq", ""))),
        ("opaque last", entries(Tar::new()).file("d/.wh..wh..opq", "")),
        ("both", entries(Tar::new().file(".wh.d", "").file("d/.wh..wh..opq", "")).file("d/.wh.old", "")),
    ] {
        let shown = same_both_ways(&[base(), change.end()]);
        assert_eq!(
            kinds(&shown),
            [("d", "d"), ("d/new", "f"), ("d/sub", "d"), ("d/sub/new", "f"), ("e", "d"), ("e/old", "f")],
            "{name}"
        );
    }
}

#[test]
fn a_name_that_changes_its_kind_hides_what_was_below() {
    let base = Tar::new()
        .dir("dir")
        .file("dir/old", "1")
        .file("file", "2")
        .sym("link", "dir")
        .dir("twice")
        .file("twice/old", "3")
        .end();
    let change = Tar::new()
        .file("dir", "now a file")
        .dir("file")
        .file("file/new", "x")
        .dir("link")
        .file("link/new", "y")
        .file("twice", "a file, and then")
        .dir("twice")
        .file("twice/new", "z")
        .end();
    let shown = same_both_ways(&[base, change]);
    assert_eq!(
        kinds(&shown),
        [
            ("dir", "f"),
            ("file", "d"),
            ("file/new", "f"),
            ("link", "d"),
            ("link/new", "f"),
            ("twice", "d"),
            ("twice/new", "f")
        ]
    );
}

#[test]
fn whiteouts_that_hide_nothing_are_not_listed() {
    // overlayfs lists a folder raw that it does not merge: `find` would stumble over the whiteouts in it.
    let layers = [
        Tar::new().dir("base").file("base/.wh.nothing", "").file(".wh.nothing", "").end(),
        Tar::new().dir("new").dir("new/er").file("new/er/.wh.nothing", "").file("new/x", "x").end(),
        Tar::new().dir("hid").file("hid/.wh..wh..opq", "").dir("hid/in").file("hid/in/.wh.nothing", "").end(),
        Tar::new()
            .dir("late")
            .dir("late/in")
            .file("late/in/.wh.no", "")
            .file("late/.wh.no", "")
            .file("late/.wh..wh..opq", "")
            .end(),
    ];
    let shown = same_both_ways(&layers);
    assert_eq!(
        kinds(&shown),
        [
            ("base", "d"),
            ("hid", "d"),
            ("hid/in", "d"),
            ("late", "d"),
            ("late/in", "d"),
            ("new", "d"),
            ("new/er", "d"),
            ("new/x", "f")
        ]
    );
}

#[test]
fn a_parent_that_the_layer_lacks_is_as_it_is_below() {
    let base = Tar::new()
        .header(
            Header::new(b"tmp", b'5', 0)
                .with(100, b"0001777\0")
                .with(108, b"0000012\0")
                .with(136, b"00000012345\0"),
            b"",
        )
        .dir("usr")
        .dir("usr/lib")
        .pax(&[("SCHILY.xattr.user.note", b"of lib")])
        .header(Header::new(b"usr/lib", b'5', 0).with(100, b"0000711\0"), b"")
        .file("usr/lib/old", "1")
        .sym("lib", "usr/lib")
        .sym("abs", "/usr")
        .end();
    let change = Tar::new()
        .file("tmp/new", "x")
        .file("lib/through", "y")
        .file("abs/lib/far/through", "z")
        .file("lib/.wh.old", "")
        .end();
    let temp = tempfile::tempdir().unwrap();
    let folders = stack(&[base.clone(), change.clone()], temp.path(), Form::Overlay);
    let upper = walk(&folders[1], Tell::All);
    assert_eq!(upper["tmp"], "dir 1777 10:0 @5349.000000000");
    assert!(upper["usr/lib"].starts_with("dir 711 0:0 @1.000000000"), "{}", upper["usr/lib"]);
    assert!(upper["usr/lib"].contains("user.note=of lib"), "{}", upper["usr/lib"]);
    assert_eq!(upper["usr/lib/far"], "dir 755 0:0 @0.000000000");
    let shown = same_both_ways(&[base, change]);
    assert_eq!(shown["tmp/new"].split(' ').next(), Some("f"));
    assert_eq!(
        kinds(&shown).into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
        [
            "abs",
            "lib",
            "tmp",
            "tmp/new",
            "usr",
            "usr/lib",
            "usr/lib/far",
            "usr/lib/far/through",
            "usr/lib/through"
        ]
    );
}

#[test]
fn a_parent_that_a_layer_between_hid_is_made_anew() {
    let base = Tar::new()
        .dir("a")
        .header(Header::new(b"a/b", b'5', 0).with(100, b"0000700\0"), b"")
        .file("a/b/c", "1")
        .end();
    for hide in [
        Tar::new().file(".wh.a", "").end(),
        Tar::new().dir("a").file("a/.wh.b", "").end(),
        Tar::new().dir("a").file("a/.wh..wh..opq", "").end(),
    ] {
        let shown = same_both_ways(&[base.clone(), hide, Tar::new().file("a/b/d", "2").end()]);
        assert!(shown["a/b"].starts_with("d 0755 0:0 0.0"), "{}", shown["a/b"]);
        assert!(!shown.contains_key("a/b/c"));
    }
}

#[test]
fn a_hard_link_to_a_file_below_copies_it_up() {
    let base = Tar::new()
        .dir("d")
        .pax(&[("SCHILY.xattr.user.note", b"kept"), ("mtime", b"7.25")])
        .header(Header::new(b"d/file", b'0', 5).with(100, b"0004711\0").with(108, b"0000041\0"), b"data\n")
        .sym("d/link", "file")
        .node("d/null", b'3', 1, 3)
        .end();
    let change =
        Tar::new().hard("new", "d/file").hard("d/new", "d/link").dir("e").hard("e/null", "/d/null").end();
    let temp = tempfile::tempdir().unwrap();
    let folders = stack(&[base.clone(), change.clone()], temp.path(), Form::Overlay);
    let upper = walk(&folders[1], Tell::All);
    assert_eq!(upper["d/file"], "file:data\\n =d/file 4711 33:0 @7.250000000 user.note=kept");
    assert_eq!(upper["new"], upper["d/file"]);
    assert_eq!(upper["d/new"], upper["d/link"]);
    assert!(upper["e/null"].starts_with("char 1:3 =d/null "), "{}", upper["e/null"]);
    same_both_ways(&[base, change.clone()]);
    let error = unpack_into(&change, &temp.path().join("alone"), Form::Overlay).unwrap_err();
    assert_eq!(error.kind(), Kind::Archive);
    assert_eq!(
        error.to_string(),
        "entry new: hard link to d/file: no such file in the archive before it, nor below"
    );
}

#[test]
fn only_what_needs_the_layers_below_opens_them() {
    let depends = |tar: Vec<u8>| {
        let temp = tempfile::tempdir().unwrap();
        let summary = unpack_into(&tar, &temp.path().join("root"), Form::Overlay).unwrap();
        let asked = std::cell::Cell::new(0);
        let open = || {
            asked.set(asked.get() + 1);
            Ok(Vec::<OwnedFd>::new())
        };
        let options =
            Unpack { form: Form::Overlay, rootless: false, limits: Limits::default(), lower: Some(&open) };
        let other = temp.path().join("other");
        std::fs::create_dir(&other).unwrap();
        unpack(&tar[..], File::open(&other).unwrap().as_fd(), &options).unwrap();
        assert_eq!(asked.get() == 1, summary.depends_on_lower);
        summary.depends_on_lower
    };
    let whole =
        Tar::new().dir("a").file("a/b", "x").hard("a/c", "a/b").file(".wh.d", "").file("a/.wh..wh..opq", "");
    assert!(!depends(whole.clone().end()));
    assert!(depends(whole.clone().file("b/c", "").end()));
    assert!(depends(whole.file("b/.wh.c", "").end()));
}

#[test]
fn what_a_container_changed_becomes_a_layer_that_does_the_same() {
    let base = Tar::new()
        .dir("etc")
        .file("etc/a", "a")
        .file("etc/b", "b")
        .hard("etc/b2", "etc/b")
        .dir("dir")
        .dir("dir/sub")
        .file("dir/sub/x", "x")
        .file("dir/y", "y")
        .sym("link", "etc")
        .file("file", "f")
        .node("null", b'3', 1, 3)
        .end();
    let change = "
        rm etc/a; echo more >> etc/b; chmod 4755 etc/b; chown 7:8 link -h
        rm -r dir; mkdir dir; echo new > dir/new; mkdir -p dir/sub/deeper
        rm file; mkdir file; touch file/in; ln file/in file/again
        rm link; echo file > link; rm null; mkfifo null
        mkdir -p \"$(printf 'n%.0s' $(seq 200))/$(printf 'm%.0s' $(seq 200))\"
        touch -d '1969-12-31 12:00:00.5 UTC' file/in; touch -d 2001-01-01 dir
    ";
    let tools = [
        ("Overlay", Form::Overlay, ",redirect_dir=off,metacopy=off"),
        ("User", Form::UserOverlay, ",userxattr"),
    ];
    for (name, form, options) in tools {
        let temp = tempfile::tempdir().unwrap();
        let temp = temp.path().join(name);
        std::fs::create_dir(&temp).unwrap();
        let folders = stack(std::slice::from_ref(&base), &temp, form);
        let mut before = shown_after(change, &folders, &temp, options);
        before.remove("");
        let mut tar = Vec::new();
        let upper = File::open(temp.join("upper")).unwrap();
        let options = Diff { form, root: false, latest: None };
        let summary = diff(upper.as_fd(), &options, &mut tar).unwrap();
        assert!(summary.whiteouts >= 2 && summary.notes.is_empty(), "{summary:?}");
        assert_same(&before, &same_both_ways(&[base.clone(), tar]), "in the container, and of its layer");
    }
}

#[test]
fn xattrs_that_overlayfs_would_obey_are_escaped_or_left_out() {
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("SCHILY.xattr.user.fine", b"1"),
        ])
        .dir("d")
        .end();
    for (form, expected) in [
        (Form::Overlay, &["trusted.overlay.overlay.opaque", "user.fine", "user.overlay.redirect"][..]),
        (Form::UserOverlay, &["trusted.overlay.opaque", "user.fine", "user.overlay.overlay.redirect"]),
        (Form::Flat, &["user.fine"]),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let summary = unpack_into(&tar, temp.path(), form).unwrap();
        assert_eq!(xattrs(&temp.path().join("d")).into_keys().collect::<Vec<_>>(), expected, "{form:?}");
        let first =
            if form == Form::Flat { "d: trusted.overlay.opaque (and 2 more)" } else { "d: security.selinux" };
        assert_eq!(summary.notes, [format!("{first}: this extended attribute is not taken from an image")]);
    }
}

#[test]
fn a_folder_twice_has_the_attributes_of_the_last() {
    let temp = tempfile::tempdir().unwrap();
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.user.old", b"1"), ("SCHILY.xattr.user.both", b"1")])
        .header(Header::new(b"d", b'5', 0).with(100, b"0002775\0").with(116, b"0000007\0"), b"")
        .file("d/file", "x")
        .file("d/.wh.y", "")
        .pax(&[("SCHILY.xattr.user.both", b"2")])
        .header(Header::new(b"d", b'5', 0).with(100, b"0000500\0").with(136, b"00000000100\0"), b"")
        .file("d/later", "x")
        .end();
    unpack_into(&tar, temp.path(), Form::Overlay).unwrap();
    let line = &walk(temp.path(), Tell::All)["d"];
    assert_eq!(line, "dir 500 0:0 @64.000000000 trusted.overlay.origin= user.both=2");
    assert_eq!(std::fs::metadata(temp.path().join("d/later")).unwrap().gid(), 0);
}
