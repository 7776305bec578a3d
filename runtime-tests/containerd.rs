//! Debian's containerd inside of namespaces of our own: its configuration, an image of busybox, and its client. Uses
//! daemon, image, nix.

use crate::daemon::Daemon;
use crate::image::Image;
use nix::mount::{MsFlags, mount};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The only image.
pub const IMAGE: &str = "example.test/box:1";

/// The shim's name for containerd, and its binary's for the PATH.
pub const SHIM: (&str, &str) = ("io.containerd.rcrun.v2", "containerd-shim-rcrun-v2");

/// A containerd that serves.
#[derive(Debug)]
pub struct Containerd {
    /// The process.
    pub daemon: Daemon,
    namespace: String,
}

impl Containerd {
    /// Starts one that finds its shims on `path`. All of its files are in memory.
    pub fn start(folder: &Path, namespace: &str, path: OsString) -> Result<Containerd, String> {
        let root = folder.join("containerd");
        fs::create_dir(&root).map_err(|e| format!("mkdir {}: {e}", root.display()))?;
        // An overlay's upper folder cannot lie on an overlay, which /tmp may be; and a disk that others use would be
        // measured too.
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .map_err(|e| format!("mount a tmpfs on {}: {e}", root.display()))?;
        let config = folder.join("containerd.toml");
        let text = format!(
            "version = 2\nroot = {root:?}\nstate = \"/run/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"/run/containerd/containerd.sock\"\n"
        );
        fs::write(&config, text).map_err(|e| format!("write {}: {e}", config.display()))?;
        let daemon = Daemon::start("containerd", vec!["--config".into(), config.into()], path, folder)?;
        let containerd = Containerd { daemon, namespace: namespace.into() };
        let tar = folder.join("image.tar");
        let runs = serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]});
        Image::new("box").runs(runs).docker_save(&tar, &[IMAGE]);
        let imported = containerd.ctr(["image", "import"]).arg(&tar).output().map_err(|e| e.to_string())?;
        match imported.status.success() {
            true => Ok(containerd),
            false => Err(format!("ctr image import: {}", String::from_utf8_lossy(&imported.stderr))),
        }
    }

    /// A command of its client, without input.
    pub fn ctr<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        ctr(&self.namespace, words)
    }
}

/// A command of containerd's client in this namespace of containerd's, without input.
pub fn ctr<'a>(namespace: &str, words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("ctr");
    command.args(["-n", namespace]).args(words).stdin(Stdio::null());
    command
}

/// The shim's binary beside that of rcrun.
pub fn shim_beside(rcrun: &Path) -> Result<PathBuf, String> {
    let shim = rcrun.with_file_name(SHIM.1);
    match shim.exists() {
        true => Ok(shim),
        false => Err(format!("{} is not there: run `make build` first", shim.display())),
    }
}
