//! Layers unpacked by who is not root of the machine. Ids, umask and namespaces belong to a process: each test runs
//! its second half, which is ignored otherwise, in a process of its own.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::{Form, Limits, Result, Summary, Unpack, unpack};
use super::archive::{Header, Tar};
use super::walk::{Tell, walk, xattrs};

/// A folder that all may write to, with this test in it as `test`.
fn open_folder() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), temp.path().join("test")).unwrap();
    temp
}

fn rootless(tar: &[u8], root: &Path) -> Result<Summary> {
    std::fs::create_dir(root).unwrap();
    let options = Unpack { form: Form::UserOverlay, rootless: true, limits: Limits::default(), lower: None };
    unpack(tar, File::open(root).unwrap().as_fd(), &options)
}

#[test]
fn without_root_a_layer_unpacks_in_user_form() {
    let temp = open_folder();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "sh", "-c"])
        .arg("umask 077; exec ./test --exact --ignored --nocapture layer::tests::users::as_nobody")
        .current_dir(temp.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "run by without_root_a_layer_unpacks_in_user_form, as nobody"]
fn as_nobody() {
    assert_eq!(rustix::process::geteuid().as_raw(), 65534);
    let tar = Tar::new()
        .header(Header::new(b"closed", b'5', 0).with(100, b"0000000\0"), b"")
        .file("closed/in", "x")
        .header(Header::new(b"roots", b'0', 1).with(100, b"0004755\0").with(108, b"0000041\0"), b"x")
        .pax(&[("SCHILY.xattr.user.note", b"n"), ("SCHILY.xattr.trusted.t", b"t")])
        .header(Header::new(b"readonly", b'0', 0).with(100, b"0000444\0"), b"")
        .node("null", b'3', 1, 3)
        .hard("null2", "null")
        .node("fifo", b'6', 0, 0)
        .file(".wh.gone", "")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", "")
        .file("closed/again", "y")
        .dir("closed")
        .file("closed/last", "z")
        .header(Header::new(b"closed", b'5', 0).with(100, b"0000100\0"), b"")
        .end();
    let root = Path::new("unpacked");
    let summary = rootless(&tar, root).unwrap();
    assert_eq!(
        summary.notes,
        [
            "null (and 1 more): device nodes are left out: a user namespace makes none",
            "readonly: trusted.t: the kernel refuses this extended attribute",
            "closed (and 9 more): owners are left as they are: only root changes them",
        ],
    );
    let closed = std::fs::symlink_metadata(root.join("closed")).unwrap();
    assert_eq!(closed.mode() & 0o7777, 0o100);
    std::fs::set_permissions(root.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    let tree = walk(root, Tell::All);
    assert!(tree["roots"].starts_with("file:x 4755 65534:65534"), "{tree:?}");
    assert!(tree["readonly"].ends_with("444 65534:65534 @1.000000000 user.note=n"), "{tree:?}");
    assert!(tree["gone"].starts_with("char 0:0") && tree["null"].starts_with("char 0:0"), "{tree:?}");
    assert!(tree["opaque"].contains("user.overlay.opaque=y"), "{tree:?}");
    assert_eq!(tree.keys().filter(|name| name.starts_with("closed/")).count(), 3);
}

#[test]
fn in_a_user_namespace_owners_are_set_as_it_maps_them() {
    let temp = open_folder();
    let mut child = Command::new("unshare")
        .args(["--user", "sh", "-c"])
        .arg("echo; read go; exec ./test --exact --ignored --nocapture layer::tests::users::as_root_of_a_user_namespace")
        .current_dir(temp.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it says something, it is in its namespace.
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 1\n1 100000 1000\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Seen from outside.
    let file = temp.path().join("unpacked/file");
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 100_032);
    let capability = &xattrs(&file)["security.capability"];
    // Version 2, as the namespace's root is the machine's; the kernel would have written version 3 for another.
    assert_eq!(capability[3], 2);
}

#[test]
#[ignore = "run by in_a_user_namespace_owners_are_set_as_it_maps_them, as root there"]
fn as_root_of_a_user_namespace() {
    assert!(rustix::process::geteuid().is_root());
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("SCHILY.xattr.trusted.t", b"t")])
        .header(Header::new(b"file", b'0', 0).with(108, b"0000041\0").with(100, b"0004711\0"), b"")
        .header(Header::new(b"closed", b'5', 0).with(108, b"0000041\0").with(100, b"0000000\0"), b"")
        .file("closed/in", "x")
        .node("null", b'3', 1, 3)
        .file(".wh.gone", "")
        .end();
    let root = Path::new("unpacked");
    let summary = rootless(&tar, root).unwrap();
    assert_eq!(
        summary.notes,
        [
            "null: device nodes are left out: a user namespace makes none",
            "file: trusted.t: the kernel refuses this extended attribute"
        ]
    );
    let tree = walk(root, Tell::All);
    assert!(tree["file"].starts_with("file: 4711 33:0 @1.000000000 security.capability="), "{tree:?}");
    assert_eq!(tree["closed"], "dir 0 33:0 @1.000000000");
    assert!(tree["gone"].starts_with("char 0:0"), "{tree:?}");
    let stranger = Tar::new().header(Header::new(b"a", b'0', 0).with(108, b"0011610\0"), b"").end();
    assert_eq!(
        rootless(&stranger, Path::new("other")).unwrap_err().to_string(),
        "entry a: chown to 5000:0 (the user namespace does not map it): invalid argument"
    );
}
