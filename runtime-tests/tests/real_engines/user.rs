//! The ordinary user of the rootless tutorials: ranges of ids, a home, and in a machine with systemd one of its own, from
//! which shells get cgroups that are delegated. Uses nix.

use crate::setup::{Driver, Machine};
use crate::tutorial::must;
use crate::world::World;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "tutor";

/// Who types.
pub struct User {
    uid: u32,
    home: PathBuf,
    systemd: bool,
}

impl User {
    /// Makes it, with the image `busybox` in its podman.
    pub fn start(world: &World, machine: &Machine) -> Result<User, String> {
        let home = world.folder().join("home");
        let id = |world: &World| must(world.command("id").args(["-u", NAME]));
        if id(world).is_err() {
            let words =
                ["--create-home", "--home-dir", &home.display().to_string(), "--shell", "/bin/sh", NAME];
            must(world.command("useradd").args(words))?;
        }
        let uid = id(world)?.trim().parse().map_err(|e| format!("id: {e}"))?;
        let user = User { uid, home, systemd: machine.systemd };
        if user.systemd {
            must(world.command("systemctl").args(["start", &format!("user@{uid}.service")]))?;
        } else {
            fs::create_dir_all(user.runtime_folder()).map_err(|e| e.to_string())?;
            user.own(&user.runtime_folder());
        }
        let driver = match (world.driver(), machine.systemd) {
            (Driver::Systemd, true) => "cgroup_manager = \"systemd\"\n",
            _ => "cgroup_manager = \"cgroupfs\"\n",
        };
        let text = format!(
            "[containers]\npids_limit = 0\n[engine]\n{driver}events_logger = \"file\"\nruntime = \"{}\"\nstop_timeout = 1\n",
            world.runtime().display()
        );
        fs::write(user.home.join("containers.conf"), text).map_err(|e| e.to_string())?;
        // podman reads Docker's too.
        let docker = user.home.join("docker-config");
        fs::create_dir_all(&docker).map_err(|e| e.to_string())?;
        fs::write(docker.join("config.json"), "{}").map_err(|e| e.to_string())?;
        user.own(&docker);
        let busybox = world.busybox()?;
        if must(user.command(world, "podman").args(["image", "exists", "busybox"])).is_err() {
            must(
                user.command(world, "podman")
                    .args(["import", "--change", "CMD [\"sh\"]"])
                    .arg(&busybox)
                    .arg("busybox"),
            )?;
        }
        Ok(user)
    }

    /// Gives it a file.
    pub fn own(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.uid))
            .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
    }

    fn runtime_folder(&self) -> PathBuf {
        PathBuf::from(format!("/run/user/{}", self.uid))
    }

    /// A command of its own shell.
    pub fn command(&self, world: &World, program: &str) -> Command {
        let root = world.command("setpriv");
        let mut command = Command::new("setpriv");
        let id = self.uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--init-groups", "--"]);
        if self.systemd {
            // A shell's own scope is not delegated.
            command.args(["systemd-run", "--user", "--scope", "--quiet", "--property=Delegate=yes", "--"]);
        }
        command.arg(program).env_clear().current_dir(&self.home);
        command.envs(root.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let runtime = self.runtime_folder();
        command
            .env("HOME", &self.home)
            .env("USER", NAME)
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}/bus", runtime.display()))
            .env("DOCKER_HOST", format!("unix://{}/docker.sock", runtime.display()))
            .env("DOCKER_CONFIG", self.home.join("docker-config"))
            .env("CONTAINERS_CONF", self.home.join("containers.conf"))
            .env("BUSYBOX", world.folder().join("busybox.tar"))
            .env("ENGINES", world.folder())
            .env_remove("CONTAINERS_STORAGE_CONF");
        command
    }

    /// Ends what it left.
    pub fn end(&self, world: &World) {
        if self.systemd {
            let service = format!("user@{}.service", self.uid);
            let slice = format!("user-{}.slice", self.uid);
            let _ = must(world.command("systemctl").args(["stop", &service, &slice]));
        }
    }
}
