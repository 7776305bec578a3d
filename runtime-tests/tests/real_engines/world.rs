//! The engines of the suite: containerd and dockerd with data folders of their own, podman and buildah with a
//! configuration, the images, and stubs in the place of every runtime that no step may meet. Uses nix, runtime_tests.

use crate::tutorial::must;
use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::readable;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

// Of Debian alone: what a person put into /usr/local is another version of it.
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

// Programs of the steps, which wait for an event and never sleep. `docker logs -f` alone does not end. Of its events dockerd
// keeps the last 256 alone: what may be long over is asked for, and asked again at each event. Of listen(2) there is none.
const WAITING: [(&str, &str); 3] = [
    (
        "await",
        "#!/bin/sh
# await NUMBER WORD COMMAND...   runs the command until so many of its lines have the word
number=$1 word=$2; shift 2
lines=$(mktemp -u); mkfifo \"$lines\"
\"$@\" > \"$lines\" 2>&1 & command=$!
seen=$(grep -c -m \"$number\" -e \"$word\" < \"$lines\")
kill $command 2>/dev/null; rm \"$lines\"
[ \"$seen\" = \"$number\" ]
",
    ),
    (
        "becomes",
        "#!/bin/sh
# becomes CONTAINER FORMAT WORDS   until docker inspect says so
is() { test \"$(docker inspect -f \"$2\" \"$1\")\" = \"$3\"; }
is \"$@\" && exit
events=$(mktemp -u); mkfifo \"$events\"
docker events --since 0 -f container=\"$1\" > \"$events\" & command=$!
while read -r event; do is \"$@\" && break; done < \"$events\"
kill $command; rm \"$events\"
is \"$@\"
",
    ),
    (
        "listens",
        "#!/bin/sh
# listens PORT COMMAND...   until somebody listens there, where the command executes what follows it
port=$(printf %04X \"$1\"); shift
\"$@\" sh -c \"until grep -q ':$port 0*:0000 0A' /proc/net/tcp /proc/net/tcp6; do :; done\"
",
    ),
];

/// Where everything is.
pub struct World {
    folder: PathBuf,
    runtime: PathBuf,
    daemons: Vec<Child>,
}

impl World {
    /// Starts all of it.
    pub fn start(folder: &Path, runtime: &Path) -> Result<World, String> {
        let bin = folder.join("bin");
        let file = |e: std::io::Error| e.to_string();
        for name in ["bin", "path", "tmp", "steps"] {
            fs::create_dir(folder.join(name)).map_err(file)?;
        }
        let own = bin.join(runtime.file_name().ok_or("the runtime has no name")?);
        fs::copy(runtime, &own).map_err(|e| format!("{}: {e}", runtime.display()))?;
        // BuildKit runs what is called runc on dockerd's PATH, and so does `docker run --runtime runc`.
        symlink(&own, folder.join("path/runc")).map_err(file)?;
        for (name, text) in WAITING {
            fs::write(bin.join(name), text).map_err(file)?;
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).map_err(file)?;
        }
        let mut world = World { folder: folder.into(), runtime: own, daemons: Vec::new() };
        world.put_stubs()?;
        must(world.command("ip").args(["link", "set", "lo", "up"]))?;
        world.configure_podman().map_err(file)?;
        world.daemon("containerd", &["--config", "containerd.toml"])?;
        let runtime = format!("rcrun={}", world.runtime.display());
        let data = format!("--data-root={}/docker", folder.display());
        let words = [
            "--containerd=/run/containerd/containerd.sock",
            &data,
            "--exec-root=/run/docker",
            "--host=unix:///run/docker.sock",
            "--default-runtime=rcrun",
            "--add-runtime",
            &runtime,
        ];
        world.daemon("dockerd", &words)?;
        world.images()?;
        Ok(world)
    }

    /// A command with the environment of a person of this world.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:{PROGRAMS}", self.folder.join("bin").display()))
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .env("TMPDIR", self.folder.join("tmp"))
            .env("RUNTIME", &self.runtime)
            .env("SNIPPETS", concat!(env!("CARGO_MANIFEST_DIR"), "/../package/engines"))
            .env("DOCKER_CONFIG", self.folder.join("docker-config"))
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.folder.join("storage.conf"))
            .stdin(Stdio::null());
        command
    }

    /// A new folder for the steps of one tutorial.
    pub fn steps(&self, name: &str) -> PathBuf {
        let path = self.folder.join("steps").join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        path
    }

    /// What the stubs were called with, and by whom nobody knows: a test that is green by another runtime is not.
    pub fn stub_calls(&self) -> String {
        fs::read_to_string(self.folder.join("stub-calls")).unwrap_or_default()
    }

    /// The last lines of what a daemon wrote.
    pub fn log(&self, daemon: &str, lines: usize) -> String {
        let text = fs::read(self.folder.join(daemon).with_extension("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let all: Vec<&str> = text.lines().filter(|line| !line.contains("level=info")).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Ends the daemons, the newest first.
    pub fn end(&mut self) {
        for mut daemon in self.daemons.drain(..).rev() {
            let pid = nix::unistd::Pid::from_raw(daemon.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = daemon.wait();
        }
    }

    fn put_stubs(&self) -> Result<(), String> {
        let stub = self.folder.join("stub");
        let calls = self.folder.join("stub-calls");
        let text = format!(
            "#!/bin/sh\necho \"$0 $*\" >> {0}\necho \"$0 is a stub\" >&2\nexit 99\n",
            calls.display()
        );
        fs::write(&stub, text).map_err(|e| e.to_string())?;
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        let folders = format!("{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/libexec/podman");
        let names = ["runc", "crun", "youki", "runsc", "buildkit-runc", "rcrun"];
        let found: BTreeSet<PathBuf> = folders
            .split(':')
            .flat_map(|folder| names.map(|name| Path::new(folder).join(name)))
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        for path in found {
            mount(Some(&stub), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|e| format!("a stub on {}: {e}", path.display()))?;
        }
        Ok(())
    }

    fn configure_podman(&self) -> std::io::Result<()> {
        let folder = self.folder.display();
        // Without a limit on processes: this machine may have no controller for it.
        let engine = format!(
            "[containers]\npids_limit = 0\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             runtime = \"{}\"\ntmp_dir = \"/run/libpod\"\nstop_timeout = 1\n[network]\nnetwork_backend = \"netavark\"\n\
             default_subnet = \"10.88.0.0/16\"\n",
            self.runtime.display()
        );
        fs::write(self.folder.join("containers.conf"), engine)?;
        // podman reads Docker's too.
        fs::create_dir(self.folder.join("docker-config"))?;
        fs::write(self.folder.join("docker-config/config.json"), "{}")?;
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{folder}/podman\"\nrunroot = \"/run/containers\"\n"
        );
        fs::write(self.folder.join("storage.conf"), storage)?;
        let containerd = format!(
            "version = 2\nroot = \"{folder}/containerd\"\nstate = \"/run/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"/run/containerd/containerd.sock\"\n"
        );
        fs::write(self.folder.join("containerd.toml"), containerd)
    }

    // It says when it is ready, as it would to systemd.
    fn daemon(&mut self, program: &str, words: &[&str]) -> Result<(), String> {
        let socket = format!("/run/ready-{program}");
        let ready = UnixDatagram::bind(&socket).map_err(|e| format!("{socket}: {e}"))?;
        let log =
            fs::File::create(self.folder.join(program).with_extension("log")).map_err(|e| e.to_string())?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        let path = format!("{}:{PROGRAMS}", self.folder.join("path").display());
        let mut command = self.command(program);
        command.args(words).env("PATH", path).env("NOTIFY_SOCKET", &socket).current_dir(&self.folder);
        command.stdout(log).stderr(errors);
        self.daemons.push(command.spawn().map_err(|e| format!("{program} cannot be executed: {e}"))?);
        let mut word = [0; 4096];
        while readable(ready.as_fd()) {
            let length = ready.recv(&mut word).map_err(|e| e.to_string())?;
            if word[..length].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
        Err(format!("{program} does not come up:\n{}", self.log(program, 30)))
    }

    fn images(&self) -> Result<(), String> {
        let bundle = Bundle::new("engines-busybox", &["true"]);
        let root = bundle.root();
        let put = |path: &str, text: &str| fs::write(root.join(path), text).map_err(|e| e.to_string());
        let list = must(self.command("/bin/busybox").arg("--list"))?;
        for applet in list.lines().filter(|applet| *applet != "busybox") {
            let _ = symlink("busybox", root.join("bin").join(applet));
        }
        for folder in ["srv", "var", "www"] {
            fs::create_dir(root.join(folder)).map_err(|e| e.to_string())?;
        }
        put("etc/group", "root:x:0:\nweb:x:33:\nmore:x:44:web\n")?;
        put("www/index.html", "hello from a container\n")?;
        let tar = self.folder.join("busybox.tar");
        must(self.command("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."))?;
        let debian =
            std::env::var_os("ENGINES_IMAGE").ok_or("ENGINES_IMAGE is not set: run `make engines`")?;
        for (image, program, name) in
            [(tar.as_os_str(), "sh", "busybox"), (debian.as_os_str(), "bash", "debian")]
        {
            let program = format!("CMD [\"{program}\"]");
            must(self.command("docker").args(["import", "--change", &program]).arg(image).arg(name))?;
            if name == "busybox" {
                must(self.command("podman").args(["import", "--change", &program]).arg(image).arg(name))?;
            }
        }
        Ok(())
    }
}
