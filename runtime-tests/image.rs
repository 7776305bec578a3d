//! Images that a test makes: layers from folders by GNU tar, written as `docker save` or as a layout. Uses serde_json.

use crate::bundle::{Bundle, Folder};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An image in the making.
#[derive(Debug)]
pub struct Image {
    folder: Folder,
    /// Digests, and the tars in `folder` that have them.
    layers: Vec<(String, PathBuf)>,
    /// What runs: `Entrypoint`, `Cmd`, `Env` and so on.
    pub execution: Value,
}

impl Image {
    /// One with a layer that has busybox in /bin.
    pub fn new(name: &str) -> Image {
        let bundle = Bundle::new(name, &["true"]);
        let mut image = Image { folder: Folder::new(name), layers: Vec::new(), execution: json!({}) };
        image.layer_of(&bundle.root());
        image
    }

    /// One more layer: what `fill` puts into an empty folder.
    pub fn layer(mut self, fill: impl FnOnce(&Path)) -> Image {
        let folder = Folder::new("layer");
        fill(folder.path());
        self.layer_of(folder.path());
        self
    }

    /// What it runs.
    pub fn runs(mut self, execution: Value) -> Image {
        self.execution = execution;
        self
    }

    fn layer_of(&mut self, root: &Path) {
        let tar = self.folder.path().join(format!("layer{}.tar", self.layers.len()));
        run(Command::new("tar")
            .args(["--numeric-owner", "--sort=name", "-C"])
            .arg(root)
            .arg("-cf")
            .arg(&tar)
            .arg("."));
        self.layers.push((digest(&tar), tar));
    }

    fn config(&self) -> (String, PathBuf) {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|(digest, _)| format!("sha256:{digest}")).collect();
        let history: Vec<Value> =
            (0..diff_ids.len()).map(|i| json!({ "created_by": format!("/bin/sh -c step {i}") })).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": self.execution,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        });
        let path = self.folder.path().join("config");
        fs::write(&path, config.to_string()).expect("write the configuration");
        (digest(&path), path)
    }

    /// Writes what `docker save` of 1.10 to 24 does: manifest.json, and a folder with a layer.tar for each layer.
    pub fn docker_save(&self, to: &Path, names: &[&str]) {
        let stage = Folder::new("save");
        let (config, path) = self.config();
        fs::copy(path, stage.path().join(format!("{config}.json"))).expect("copy the configuration");
        let mut layers = Vec::new();
        for (digest, tar) in &self.layers {
            fs::create_dir(stage.path().join(digest)).expect("mkdir");
            fs::copy(tar, stage.path().join(digest).join("layer.tar")).expect("copy a layer");
            layers.push(format!("{digest}/layer.tar"));
        }
        let manifest = json!([{ "Config": format!("{config}.json"), "RepoTags": names, "Layers": layers }]);
        fs::write(stage.path().join("manifest.json"), manifest.to_string()).expect("write manifest.json");
        run(Command::new("tar").arg("-C").arg(stage.path()).arg("-cf").arg(to).arg("."));
    }

    /// Writes an OCI layout into the folder `to`, its layers compressed by gzip, with the tag `tag`.
    pub fn layout(&self, to: &Path, tag: &str) {
        self.layout_packed(to, tag, &["gzip", "-nc"]);
    }

    /// The same, its layers compressed by `packer`: gzip or zstd, with options that make it write to standard output.
    pub fn layout_packed(&self, to: &Path, tag: &str, packer: &[&str]) {
        let blobs = to.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("mkdir");
        let blob = |path: &Path, media_type: &str| {
            let digest = digest(path);
            fs::copy(path, blobs.join(&digest)).expect("copy a blob");
            let size = fs::metadata(path).expect("stat").len();
            json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
        };
        let mut layers = Vec::new();
        for (_, tar) in &self.layers {
            let packed = tar.with_extension("packed");
            let out = fs::File::create(&packed).expect("create");
            run(Command::new(packer[0]).args(&packer[1..]).arg(tar).stdout(out));
            layers.push(blob(&packed, &format!("application/vnd.oci.image.layer.v1.tar+{}", packer[0])));
        }
        let config = blob(&self.config().1, "application/vnd.oci.image.config.v1+json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
        let path = self.folder.path().join("manifest");
        fs::write(&path, manifest.to_string()).expect("write the manifest");
        let mut entry = blob(&path, media_type);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(to.join("index.json"), index.to_string()).expect("write index.json");
        fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write oci-layout");
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("execute sha256sum");
    let text = String::from_utf8(output.stdout).expect("a digest");
    text.split(' ').next().expect("a digest").to_string()
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}
