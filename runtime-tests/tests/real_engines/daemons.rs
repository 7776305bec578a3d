//! containerd and dockerd: children of the suite with a data folder of its own, or units of a machine's systemd. Both
//! read the configuration that a person would write.

use crate::setup::{Driver, Setup, Shim};
use crate::tutorial::must;
use runtime_tests::runtime::readable;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What runs.
pub enum Daemons {
    /// The newest last.
    Children(Vec<Child>),
    Units,
}

/// Writes /etc/docker/daemon.json.
pub fn configure_docker(setup: &Setup, runtime: &Path, data: &Path) -> std::io::Result<()> {
    let runtime = match setup.shim {
        Shim::Stock => format!("\"path\": \"{}\"", runtime.display()),
        Shim::Own => "\"runtimeType\": \"io.containerd.rcrun.v2\"".to_string(),
    };
    let driver = match setup.driver {
        Driver::Cgroupfs => "cgroupfs",
        Driver::Systemd => "systemd",
    };
    fs::create_dir_all("/etc/docker")?;
    let text = format!(
        "{{\n  \"runtimes\": {{ \"rcrun\": {{ {runtime} }} }},\n  \"default-runtime\": \"rcrun\",\n  \
         \"exec-opts\": [\"native.cgroupdriver={driver}\"],\n  \"data-root\": \"{}\"\n}}\n",
        data.display()
    );
    fs::write("/etc/docker/daemon.json", text)
}

/// Starts both as children; `command` makes one with their environment.
pub fn children(folder: &Path, command: &dyn Fn(&str) -> Command) -> Result<Daemons, String> {
    let text = containerd_config(folder);
    fs::write(folder.join("containerd.toml"), text).map_err(|e| e.to_string())?;
    let mut children = Vec::new();
    for (program, words) in [
        ("containerd", &["--config", "containerd.toml"][..]),
        (
            "dockerd",
            &[
                "--containerd=/run/containerd/containerd.sock",
                "--exec-root=/run/docker",
                "--host=unix:///run/docker.sock",
            ],
        ),
    ] {
        children.push(child(folder, command(program).args(words), program)?);
    }
    Ok(Daemons::Children(children))
}

fn containerd_config(folder: &Path) -> String {
    format!(
        "version = 2\nroot = \"{}/containerd\"\nstate = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"/run/containerd/containerd.sock\"\n",
        folder.display()
    )
}

// It says when it is ready, as it would to systemd.
fn child(folder: &Path, command: &mut Command, program: &str) -> Result<Child, String> {
    let socket = format!("/run/ready-{program}");
    let _ = fs::remove_file(&socket);
    let ready = UnixDatagram::bind(&socket).map_err(|e| format!("{socket}: {e}"))?;
    let path = folder.join(program).with_extension("log");
    let log = fs::File::options().create(true).append(true).open(&path).map_err(|e| e.to_string())?;
    let errors = log.try_clone().map_err(|e| e.to_string())?;
    command.env("NOTIFY_SOCKET", &socket).current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(errors);
    let child = command.spawn().map_err(|e| format!("{program} cannot be executed: {e}"))?;
    let mut word = [0; 4096];
    while readable(ready.as_fd()) {
        let length = ready.recv(&mut word).map_err(|e| e.to_string())?;
        if word[..length].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
            return Ok(child);
        }
    }
    Err(format!("{program} does not come up:\n{}", fs::read_to_string(path).unwrap_or_default()))
}

/// Starts Debian's units, with `path` as their PATH.
pub fn units(folder: &Path, path: &str, command: &dyn Fn(&str) -> Command) -> Result<Daemons, String> {
    let file = |e: std::io::Error| e.to_string();
    fs::create_dir_all("/etc/containerd").map_err(file)?;
    fs::write("/etc/containerd/config.toml", containerd_config(folder)).map_err(file)?;
    for unit in ["containerd", "docker"] {
        let drop_in = format!("/etc/systemd/system/{unit}.service.d");
        fs::create_dir_all(&drop_in).map_err(file)?;
        // A machine that is emulated takes longer than systemd's 90 s when it is busy.
        let text = format!("[Service]\nEnvironment=PATH={path}\nTimeoutStartSec=300\n");
        fs::write(format!("{drop_in}/rcrun.conf"), text).map_err(file)?;
    }
    must(command("systemctl").arg("daemon-reload"))?;
    if let Err(wrong) = must(command("systemctl").args(["start", "docker.service"])) {
        let said = must(command("journalctl").args(["--no-pager", "-o", "cat", "-n", "40"]));
        return Err(format!("{wrong}\n{}", said.unwrap_or_default()));
    }
    Ok(Daemons::Units)
}

impl Daemons {
    /// Ends them, the newest first.
    pub fn end(&mut self, command: &dyn Fn(&str) -> Command) {
        match self {
            Daemons::Children(children) => {
                for mut daemon in children.drain(..).rev() {
                    let pid = nix::unistd::Pid::from_raw(daemon.id() as i32);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                    let _ = daemon.wait();
                }
            }
            Daemons::Units => {
                let all = ["stop", "docker.socket", "docker.service", "containerd.service"];
                if let Err(wrong) = must(command("systemctl").args(all)) {
                    println!("{wrong}");
                }
            }
        }
    }

    /// The last lines of what one wrote.
    pub fn log(
        &self,
        folder: &Path,
        daemon: &str,
        lines: usize,
        command: &dyn Fn(&str) -> Command,
    ) -> String {
        let text = match self {
            Daemons::Children(_) => {
                let text = fs::read(folder.join(daemon).with_extension("log")).unwrap_or_default();
                String::from_utf8_lossy(&text).into_owned()
            }
            Daemons::Units => {
                let unit = if daemon == "dockerd" { "docker" } else { daemon };
                must(command("journalctl").args(["--no-pager", "-o", "cat", "-u", unit])).unwrap_or_default()
            }
        };
        let all: Vec<&str> = text.lines().filter(|line| !line.contains("level=info")).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
