//! umoci as oracle for layers with whiteouts: the same layers, applied by it to one tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Diff, Form, diff};
use super::archive::{Header, Tar};
use super::unpack_into;
use super::walk::{Tell, assert_same, everything, walk};

fn run(command: &mut Command) -> String {
    let output = command.output().expect("these tests compare with umoci, of Debian's package of that name");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Writes `blob` into a layout and gives its descriptor.
fn blob(layout: &Path, media: &str, blob: &[u8]) -> (String, String) {
    let path = layout.join("blob");
    std::fs::write(&path, blob).unwrap();
    let digest = run(Command::new("sha256sum").arg(&path))[..64].to_string();
    std::fs::rename(path, layout.join("blobs/sha256").join(&digest)).unwrap();
    let descriptor = format!(
        r#"{{"mediaType":"application/vnd.oci.image.{media}","digest":"sha256:{digest}","size":{}}}"#,
        blob.len()
    );
    (descriptor, digest)
}

/// What umoci makes of `layers`.
fn umoci(layers: &[Vec<u8>], temp: &Path) -> PathBuf {
    let layout = temp.join("layout");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let blobs: Vec<_> = layers.iter().map(|tar| blob(&layout, "layer.v1.tar", tar)).collect();
    let ids: Vec<String> = blobs.iter().map(|(_, digest)| format!("\"sha256:{digest}\"")).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let config = blob(&layout, "config.v1+json", config.as_bytes()).0;
    let descriptors: Vec<&str> = blobs.iter().map(|(descriptor, _)| &descriptor[..]).collect();
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, descriptors.join(","));
    let manifest = blob(&layout, "manifest.v1+json", manifest.as_bytes()).0;
    let named = manifest.replacen('{', r#"{"annotations":{"org.opencontainers.image.ref.name":"x"},"#, 1);
    std::fs::write(layout.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#))
        .unwrap();
    let bundle = temp.join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:x", layout.display()))
        .arg(&bundle));
    bundle.join("rootfs")
}

#[test]
fn layers_with_whiteouts_make_the_tree_that_umoci_makes() {
    let temp = tempfile::tempdir().unwrap();
    let first = temp.path().join("first");
    std::fs::create_dir(&first).unwrap();
    everything(&first);
    let mut base = Vec::new();
    let options = Diff { form: Form::Flat, root: true, latest: None };
    let opened = std::fs::File::open(&first).unwrap();
    diff(std::os::fd::AsFd::as_fd(&opened), &options, &mut base).unwrap();
    let change = Tar::new()
        .dir("./")
        .dir("dir")
        .file("dir/.wh.large", "")
        .file(".wh.hello", "")
        .dir("dir/deep")
        .file("dir/deep/.wh..wh..opq", "")
        .file("dir/deep/new", "new")
        .file("empty", "no longer")
        .dir("fifo")
        .file("fifo/in", "x")
        .file("setgid/new", "y")
        .end();
    let later = Tar::new()
        .hard("dir/deep/second", "dir/deep/new")
        .sym("way", "dir/deep")
        .file("way/.wh.nothing", "")
        .file("way/through", "z")
        .header(Header::new(b"closed", b'5', 0).with(100, b"0000711\0").with(108, b"0000044\0"), b"")
        .file("closed/.wh.in", "")
        .file(".wh.null", "")
        .file(".wh.null-again", "")
        .file("null", "a file")
        .end();
    let layers = [base, change, later];
    let theirs = umoci(&layers, temp.path());
    let ours = temp.path().join("ours");
    for tar in &layers {
        unpack_into(tar, &ours, Form::Flat).unwrap();
    }
    assert_same(&walk(&theirs, Tell::All), &walk(&ours, Tell::All), "umoci's and ours");
}
