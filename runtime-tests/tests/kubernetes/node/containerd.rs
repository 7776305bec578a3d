//! containerd for a node: its configuration, images and network, and its start. Uses runtime_tests, and `shim_harness` of
//! the test that it is part of.

use super::Driver;
use crate::shim_harness::{binary, text};
use runtime_tests::image::Image;
use runtime_tests::programs::compile;
use runtime_tests::runtime::{readable, said};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// The image of the tests' containers.
pub const BOX: &str = "example.test/box:1";
const PAUSE: &str = "example.test/pause:1";
/// Where containerd serves.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// Runs a command that must succeed.
pub fn ok(command: &mut Command) {
    let said = said(&command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    assert_eq!(said.status, 0, "{command:?}: {}{}", said.out, said.err);
}

/// A bridge, for the plugins.
pub fn network() -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}]
            }
        }]
    })
}

/// The ways of docs/kubernetes.md to name the runtime: by its type, and by the shim's path; and a third one, whose pods are
/// the shim's, which only containerd 1.7 reads, and heeds only in its experimental mode.
pub fn configuration(folder: &Path, driver: Driver) -> String {
    let folder = folder.display();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let shim = binary().display().to_string();
    let (limits, options, by_path) = match driver {
        // Without CAP_SYS_RESOURCE, as on the machine that builds, no score goes below containerd's own.
        Driver::Default => (
            "disable_cgroup = true\nrestrict_oom_score_adj = true\n",
            "",
            // containerd 1.6 goes by runtime_path for none but a pod's containers.
            format!("runtime_type = \"{shim}\""),
        ),
        Driver::Systemd => (
            "",
            "SystemdCgroup = true\n",
            format!("runtime_type = \"io.containerd.runc.v2\"\nruntime_path = \"{shim}\""),
        ),
    };
    format!(
        r#"version = 2
root = "{folder}/root"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[{cri}]
sandbox_image = "{PAUSE}"
{limits}[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
[{cri}.containerd]
default_runtime_name = "rcrun"
[{cri}.containerd.runtimes.rcrun]
runtime_type = "io.containerd.rcrun.v2"
[{cri}.containerd.runtimes.rcrun.options]
{options}[{cri}.containerd.runtimes.by-path]
{by_path}
[{cri}.containerd.runtimes.by-path.options]
{options}[{cri}.containerd.runtimes.sandboxed]
runtime_type = "io.containerd.rcrun.v2"
sandbox_mode = "shim"
[{cri}.containerd.runtimes.sandboxed.options]
{options}"#
    )
}

/// A containerd that serves; with `sandboxes` it leaves pods to shims where the configuration says so, as 1.7 can be asked to.
pub fn start(folder: &Path, sandboxes: bool) -> Child {
    let notify = folder.join("notify.sock");
    let _ = fs::remove_file(&notify);
    let socket = UnixDatagram::bind(&notify).expect("bind");
    let log = folder.join("log");
    let mut file = fs::File::options().append(true).create(true).open(&log).expect("log");
    let shim = binary();
    let path = format!(
        "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
        folder.join("stubs").display(),
        shim.parent().expect("a folder").display()
    );
    let mut child = Command::new("containerd")
        .arg("--config")
        .arg(folder.join("config.toml"))
        .env("PATH", path)
        .env("NOTIFY_SOCKET", &notify)
        .envs(sandboxes.then_some(("ENABLE_CRI_SANDBOXES", "1")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("containerd is missing: apt-get install containerd");
    let errors = BufReader::new(child.stderr.take().expect("a pipe"));
    let (sender, serves) = channel();
    std::thread::spawn(move || {
        for line in errors.lines().map_while(Result::ok) {
            let _ = writeln!(file, "{line}");
            if line.contains("Start streaming server") {
                let _ = sender.send(());
            }
        }
    });
    assert!(readable(socket.as_fd()), "containerd does not serve: {}", text(&log));
    let limit = Duration::from_secs(120);
    assert!(serves.recv_timeout(limit).is_ok(), "the CRI does not serve: {}", text(&log));
    child
}

/// The images, for the CRI.
pub fn import(folder: &Path) {
    let tar = |name: &str| folder.join(name);
    Image::new("box")
        .layer(|root| {
            fs::create_dir(root.join("www")).expect("mkdir");
            fs::write(root.join("www/index.html"), "hello from a pod\n").expect("write");
        })
        .runs(json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}))
        .docker_save(&tar("box.tar"), &[BOX]);
    Image::new("pause")
        .layer(|root| compile("pause", &root.join("pause")))
        .runs(json!({"Entrypoint": ["/pause"], "Env": ["PATH=/bin"]}))
        .docker_save(&tar("pause.tar"), &[PAUSE]);
    for name in ["box.tar", "pause.tar"] {
        ok(Command::new("ctr").args(["-n", "k8s.io", "image", "import"]).arg(tar(name)));
    }
}
