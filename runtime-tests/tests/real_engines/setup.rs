//! Under what the engines run, by name, and what a tutorial needs of it and of the machine.

use std::fmt;
use std::path::Path;

/// Who makes Docker's and podman's cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// Whose shim serves Docker's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shim {
    /// That of containerd, which executes the runtime.
    Stock,
    /// containerd-shim-rcrun-v2.
    Own,
}

/// One way to run the engines; a run of the suite goes through several.
#[derive(Debug)]
pub struct Setup {
    pub name: &'static str,
    pub driver: Driver,
    pub shim: Shim,
}

/// All of them.
pub const SETUPS: [Setup; 4] = [
    Setup { name: "cgroupfs", driver: Driver::Cgroupfs, shim: Shim::Stock },
    Setup { name: "cgroupfs-shim", driver: Driver::Cgroupfs, shim: Shim::Own },
    Setup { name: "systemd", driver: Driver::Systemd, shim: Shim::Stock },
    Setup { name: "systemd-shim", driver: Driver::Systemd, shim: Shim::Own },
];

/// What a tutorial cannot do without, and not every run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It calls `rcrun` by name: `RUNTIME=runc` has none.
    Rcrun,
    /// The image `debian`.
    Image,
    /// A controller of cgroup v2.
    Controller(&'static str),
    /// A machine whose first process is systemd, with users' own.
    Systemd,
    /// The engines are told to make cgroups so.
    Driver(Driver),
    /// Docker's containers are served by this one.
    Shim(Shim),
    /// A Docker of this version or a later one.
    Docker(u32),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Rcrun => write!(f, "rcrun as the runtime"),
            Need::Image => write!(f, "ENGINES_IMAGE"),
            Need::Controller(name) => write!(f, "the controller {name}"),
            Need::Systemd => write!(f, "a machine with systemd"),
            Need::Driver(driver) => write!(f, "the driver {driver:?}"),
            Need::Shim(shim) => write!(f, "the shim {shim:?}"),
            Need::Docker(version) => write!(f, "Docker {version}"),
        }
    }
}

/// What there is.
#[derive(Debug)]
pub struct Machine {
    /// rcrun is the runtime under test.
    pub rcrun: bool,
    pub image: bool,
    pub controllers: String,
    pub systemd: bool,
    pub docker: u32,
}

impl Machine {
    /// Looks at this one; `docker` is what `dockerd --version` printed.
    pub fn look(rcrun: bool, docker: &str) -> Machine {
        let version =
            docker.split_once("version ").and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        Machine {
            rcrun,
            image: std::env::var_os("ENGINES_IMAGE").is_some_and(|path| !path.is_empty()),
            controllers: std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default(),
            systemd: Path::new("/run/systemd/system").exists(),
            docker: version.unwrap_or(0),
        }
    }

    /// It has this, under `setup`.
    pub fn has(&self, need: Need, setup: &Setup) -> bool {
        match need {
            Need::Rcrun => self.rcrun,
            Need::Image => self.image,
            Need::Controller(name) => self.controllers.split_whitespace().any(|one| one == name),
            Need::Systemd => self.systemd,
            Need::Driver(driver) => setup.driver == driver,
            Need::Shim(shim) => setup.shim == shim,
            Need::Docker(version) => self.docker >= version,
        }
    }
}
