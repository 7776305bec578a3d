//! What the tutorials are typed in: the engines, configured as a setup says, the images, and stubs in the place of every
//! runtime that no step may meet. Uses nix, runtime_tests.

use crate::daemons::{self, Daemons};
use crate::setup::{Driver, Machine, Setup, Shim};
use crate::tutorial::{Tutorial, must};
use crate::user::User;
use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::Bundle;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

// What the package gives an engine: the suite may be in another root than they are.
const SNIPPETS: [(&str, &str); 3] = [
    ("containerd.toml", include_str!("../../../package/engines/containerd.toml")),
    ("containers.conf", include_str!("../../../package/engines/containers.conf")),
    ("daemon.json", include_str!("../../../package/engines/daemon.json")),
];

/// Where everything is.
pub struct World {
    folder: PathBuf,
    runtime: PathBuf,
    setup: &'static Setup,
    docker: u32,
    daemons: Daemons,
    user: Option<User>,
}

impl World {
    /// Starts all of it, the second time with what the first one left: images, and containers that nobody removed.
    pub fn start(
        folder: &Path,
        runtime: &Path,
        setup: &'static Setup,
        machine: &Machine,
        user: bool,
    ) -> Result<World, String> {
        let file = |e: std::io::Error| e.to_string();
        let own = folder.join("bin").join(runtime.file_name().ok_or("the runtime has no name")?);
        let none = Daemons::Children(Vec::new());
        let mut world = World {
            folder: folder.into(),
            runtime: own,
            setup,
            docker: machine.docker,
            daemons: none,
            user: None,
        };
        if !world.runtime.exists() {
            world.put_programs(runtime)?;
            world.put_stubs()?;
            must(world.command("ip").args(["link", "set", "lo", "up"]))?;
        }
        world.configure_podman().map_err(file)?;
        daemons::configure_docker(setup, &world.runtime, &folder.join("docker")).map_err(file)?;
        let path = format!("{}:{PROGRAMS}", folder.join("path").display());
        if machine.systemd {
            world.legacy_iptables()?;
            world.daemons = daemons::units(folder, &path, &|program| world.command(program))?;
        } else {
            world.daemons = daemons::children(folder, &|program| {
                let mut command = world.command(program);
                command.env("PATH", &path);
                command
            })?;
        }
        world.images()?;
        if user {
            world.user = Some(User::start(&world, machine)?);
        }
        Ok(world)
    }

    /// A command with the environment of a person of this world.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let states = match self.setup.shim {
            Shim::Stock => "/run/docker/runtime-*/moby",
            Shim::Own => "/run/containerd/rcrun/moby",
        };
        command
            .env_clear()
            .env("PATH", format!("{}:{PROGRAMS}", self.folder.join("bin").display()))
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .env("TMPDIR", self.folder.join("tmp"))
            .env("RUNTIME", &self.runtime)
            .env("SNIPPETS", self.folder.join("snippets"))
            .env("STATES", states)
            .env("DOCKER", self.docker.to_string())
            .env("COMPOSE", if self.docker < 26 { "docker-compose" } else { "docker compose" })
            .env("DOCKER_CONFIG", self.folder.join("docker-config"))
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.folder.join("storage.conf"))
            .stdin(Stdio::null());
        command
    }

    /// The same of the ordinary user.
    pub fn users(&self, program: &str) -> Command {
        self.user.as_ref().expect("a user was asked for").command(self, program)
    }

    /// Where the suite writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The runtime under test.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Who makes cgroups.
    pub fn driver(&self) -> Driver {
        self.setup.driver
    }

    /// A new folder for the steps of one tutorial.
    pub fn steps(&self, tutorial: &Tutorial) -> PathBuf {
        let path = self.folder.join("steps").join(self.setup.name).join(tutorial.name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        if let Some(user) = self.user.as_ref().filter(|_| tutorial.user) {
            user.own(&path);
        }
        path
    }

    /// What the stubs were called with, and by whom nobody knows: a test that is green by another runtime is not.
    pub fn stub_calls(&self) -> String {
        fs::read_to_string(self.folder.join("stub-calls")).unwrap_or_default()
    }

    /// The last lines of what a daemon wrote.
    pub fn log(&self, daemon: &str, lines: usize) -> String {
        self.daemons.log(&self.folder, daemon, lines, &|program| self.command(program))
    }

    /// Ends the daemons.
    pub fn end(&mut self) {
        if let Some(user) = self.user.take() {
            user.end(self);
        }
        // The next setup may use the names of what a failed tutorial left.
        let all = "docker ps -aq | xargs -r docker rm -f; podman rm -fa -t 0; podman pod rm -fa -t 0";
        let _ = must(self.command("sh").args(["-c", all]));
        let mut daemons = std::mem::replace(&mut self.daemons, Daemons::Children(Vec::new()));
        daemons.end(&|program| self.command(program));
    }

    fn put_programs(&self, runtime: &Path) -> Result<(), String> {
        let file = |e: std::io::Error| e.to_string();
        for name in ["bin", "path", "tmp", "steps", "docker-config", "snippets"] {
            fs::create_dir_all(self.folder.join(name)).map_err(file)?;
        }
        // The ordinary user's too.
        fs::set_permissions(self.folder.join("tmp"), fs::Permissions::from_mode(0o1777)).map_err(file)?;
        fs::copy(runtime, &self.runtime).map_err(|e| format!("{}: {e}", runtime.display()))?;
        // BuildKit runs what is called runc on dockerd's PATH, and so does `docker run --runtime runc`.
        symlink(&self.runtime, self.folder.join("path/runc")).map_err(file)?;
        let name = "containerd-shim-rcrun-v2";
        let shim = runtime.with_file_name(name);
        if shim.exists() {
            fs::copy(&shim, self.folder.join("path").join(name)).map_err(file)?;
        }
        for (name, text) in SNIPPETS {
            fs::write(self.folder.join("snippets").join(name), text).map_err(file)?;
        }
        for (name, text) in WAITING {
            let path = self.folder.join("bin").join(name);
            fs::write(&path, text).map_err(file)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(file)?;
        }
        Ok(())
    }

    fn put_stubs(&self) -> Result<(), String> {
        let stub = self.folder.join("stub");
        let calls = self.folder.join("stub-calls");
        let text = format!(
            "#!/bin/sh\necho \"$0 $*\" >> {0}\necho \"$0 is a stub\" >&2\nexit 99\n",
            calls.display()
        );
        fs::write(&calls, "").map_err(|e| e.to_string())?;
        fs::set_permissions(&calls, fs::Permissions::from_mode(0o666)).map_err(|e| e.to_string())?;
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

    // User-mode Linux of Debian 12 has no nf_tables with all that iptables asks of it.
    fn legacy_iptables(&self) -> Result<(), String> {
        let nft = |option| must(self.command("iptables-nft").args(["-t", "nat", option, "probe"]));
        if nft("-N").and_then(|_| nft("-X")).is_err() {
            for name in ["iptables", "ip6tables"] {
                let words = ["--set", name, &format!("/usr/sbin/{name}-legacy")];
                must(self.command("update-alternatives").args(words))?;
            }
        }
        Ok(())
    }

    fn configure_podman(&self) -> std::io::Result<()> {
        let folder = self.folder.display();
        let (driver, pids) = match self.setup.driver {
            // This machine may have no controller for processes, and no right to raise a limit to buildah's million.
            Driver::Cgroupfs => (
                "cgroupfs",
                "pids_limit = 0\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
            ),
            Driver::Systemd => ("systemd", ""),
        };
        let engine = format!(
            "[containers]\n{pids}[engine]\ncgroup_manager = \"{driver}\"\nevents_logger = \"file\"\n\
             runtime = \"{}\"\ntmp_dir = \"/run/libpod\"\nstop_timeout = 1\n[network]\nnetwork_backend = \"netavark\"\n\
             default_subnet = \"10.88.0.0/16\"\n",
            self.runtime.display()
        );
        fs::write(self.folder.join("containers.conf"), engine)?;
        // podman reads Docker's too.
        fs::write(self.folder.join("docker-config/config.json"), "{}")?;
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{folder}/podman\"\nrunroot = \"/run/containers\"\n"
        );
        fs::write(self.folder.join("storage.conf"), storage)
    }

    /// The tar of the image `busybox`.
    pub fn busybox(&self) -> Result<PathBuf, String> {
        let tar = self.folder.join("busybox.tar");
        if tar.exists() {
            return Ok(tar);
        }
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
        must(self.command("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."))?;
        Ok(tar)
    }

    fn images(&self) -> Result<(), String> {
        let busybox = self.busybox()?;
        let debian = std::env::var_os("ENGINES_IMAGE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let images = [(Some(&busybox), "sh", "busybox"), (debian.as_ref(), "bash", "debian")];
        for (tar, program, name) in images {
            let there = must(self.command("docker").args(["image", "inspect", name])).is_ok();
            let Some(tar) = tar.filter(|_| !there) else { continue };
            let program = format!("CMD [\"{program}\"]");
            must(self.command("docker").args(["import", "--change", &program]).arg(tar).arg(name))?;
            if name == "busybox" {
                must(self.command("podman").args(["import", "--change", &program]).arg(tar).arg(name))?;
            }
        }
        Ok(())
    }
}
