//! The programs that are compared, and one run of each into a fresh folder. The only file that starts them.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Bench, Kind, second};
use crate::host::WORK;
use crate::{Result, fail};

/// A program that makes a tree of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tool {
    /// `rcrun image load` into a new store.
    Rcrun,
    /// `umoci unpack`.
    Umoci,
    /// `ctr image import` into a new containerd.
    Containerd,
    /// `skopeo copy` into a new store of podman's.
    Skopeo,
    /// GNU tar, layer by layer.
    Tar,
    /// `cp -a` of the finished tree.
    Copy,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Tool::Rcrun => "rcrun",
            Tool::Umoci => "umoci",
            Tool::Containerd => "containerd",
            Tool::Skopeo => "skopeo",
            Tool::Tar => "tar",
            Tool::Copy => "cp -a",
        }
    }

    /// What its version is asked with; None where it says little.
    fn version_of(self) -> Option<&'static [&'static str]> {
        match self {
            Tool::Rcrun | Tool::Copy => None,
            Tool::Umoci => Some(&["umoci", "--version"]),
            Tool::Containerd => Some(&["containerd", "--version"]),
            Tool::Skopeo => Some(&["skopeo", "--version"]),
            Tool::Tar => Some(&["tar", "--version"]),
        }
    }

    /// The first line of what it says of its version.
    pub fn version(self) -> Result<Option<String>> {
        let Some([program, argument]) = self.version_of() else { return Ok(None) };
        let out = Command::new(program).arg(argument).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).lines().next().map(String::from))
    }

    /// Whether it refuses an image whose blobs or whose tars are not what the digests say: both, as rcrun does.
    pub fn verifies(self) -> bool {
        matches!(self, Tool::Rcrun | Tool::Umoci | Tool::Containerd)
    }

    /// The same in words.
    pub fn verified(self) -> &'static str {
        match self {
            Tool::Rcrun | Tool::Umoci | Tool::Containerd => "both digests",
            Tool::Skopeo => "the blob's digest",
            Tool::Tar | Tool::Copy => "nothing",
        }
    }

    /// Debian 12's umoci knows no zstd.
    pub fn reads(self, kind: Kind) -> bool {
        self != Tool::Umoci || kind == Kind::Gzip
    }

    /// One run, into `fresh`.
    pub fn time(self, bench: &Bench, kind: Kind, fresh: &Path) -> Result<Duration> {
        let layout = bench.layout(kind);
        let shown = |path: &Path| path.display().to_string();
        let [layout_text, fresh_text] = [shown(&layout), shown(fresh)];
        let mut command = match self {
            Tool::Rcrun => {
                let mut command = Command::new(&bench.rcrun);
                command.args(["image", "load", "--quiet", "--store"]);
                command.arg(fresh.join("store")).arg(&layout);
                command
            }
            Tool::Umoci => {
                let mut command = Command::new("umoci");
                command
                    .args(["unpack", "--image", &format!("{layout_text}:bench")])
                    .arg(fresh.join("bundle"));
                command
            }
            Tool::Skopeo => {
                let mut command = Command::new("skopeo");
                let store = format!("containers-storage:[overlay@{fresh_text}/root+{fresh_text}/run]bench");
                // Unlike podman it has no policy of its own where none is installed.
                command.args(["copy", "--quiet", "--insecure-policy", &format!("oci:{layout_text}:bench")]);
                // Where it puts the blobs meanwhile.
                command.arg(store).env("TMPDIR", fresh);
                command
            }
            Tool::Containerd => return self.containerd(&bench.archive(kind), fresh),
            Tool::Tar => {
                let unpack = match kind {
                    Kind::Gzip => "tar -xzf \"$blob\"",
                    Kind::Zstd => "zstd -qdc \"$blob\" | tar -xf -",
                };
                let mut command = Command::new("bash");
                command.args(["-ec", &format!("set -o pipefail; for blob; do {unpack}; done"), "tar"]);
                command.args(bench.layers(kind).blobs(&layout)).current_dir(fresh);
                command
            }
            Tool::Copy => {
                let mut command = Command::new("cp");
                command.arg("-a").arg(second::tree()).arg(fresh);
                command
            }
        };
        run(self.name(), &mut command)
    }

    fn containerd(self, archive: &Path, fresh: &Path) -> Result<Duration> {
        let socket = fresh.join("socket");
        let daemon = Containerd::start(fresh, &socket)?;
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&socket);
        command.args(["--timeout", "5m", "image", "import", "--base-name", "bench"]).arg(archive);
        let time = run(self.name(), &mut command)?;
        daemon.stop()?;
        Ok(time)
    }
}

/// A containerd of its own, without CRI; killed when dropped.
struct Containerd(Child);

impl Containerd {
    /// Returns when it is ready: it tells so in the way of systemd.
    fn start(fresh: &Path, socket: &Path) -> Result<Containerd> {
        let config = fresh.join("config.toml");
        let [root, state] = ["root", "state"].map(|name| fresh.join(name));
        fs::write(
            &config,
            format!(
                "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                 [grpc]\naddress = {socket:?}\n"
            ),
        )?;
        let ready = fresh.join("ready");
        let told = UnixDatagram::bind(&ready)?;
        told.set_read_timeout(Some(Duration::from_secs(60)))?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .env("NOTIFY_SOCKET", &ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(Path::new(WORK).join("containerd.log"))?)
            .spawn()?;
        let daemon = Containerd(child);
        let mut message = [0; 256];
        loop {
            let size = told.recv(&mut message).or_else(|e| fail(format!("containerd is not ready: {e}")))?;
            if message[..size].starts_with(b"READY=1") {
                return Ok(daemon);
            }
        }
    }

    fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGTERM)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end, and says how long that took.
fn run(name: &str, command: &mut Command) -> Result<Duration> {
    let said = Path::new(WORK).join("said");
    let file = File::create(&said)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    let begin = Instant::now();
    let status = command.spawn().or_else(|e| fail(format!("{name} cannot be started: {e}")))?.wait()?;
    let time = begin.elapsed();
    if !status.success() {
        return fail(format!("{name}: {status}\n{}", fs::read_to_string(&said).unwrap_or_default()));
    }
    Ok(time)
}

/// Makes a tar of a layout: containerd reads no folder.
pub fn archive(layout: &Path, archive: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(layout).arg("-cf").arg(archive).args(["oci-layout", "index.json", "blobs"]);
    run("tar", &mut command).map(drop)
}
