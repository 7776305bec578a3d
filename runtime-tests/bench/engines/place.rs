//! The engines that are measured: containerd and dockerd in namespaces of their own, with all files in memory. The only file
//! that starts their clients.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use runtime_tests::containerd::{Containerd, IMAGE, SHIM, ctr, shim_beside};
use runtime_tests::daemon::Daemon;
use serde_json::json;

use super::Way;
use crate::{Options, Result, fail};

/// containerd's namespace, and so the name of the cgroup of its containers.
const NAMESPACE: &str = "bench";

/// Of Debian alone: what a person put into /usr/local is another version of it.
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The stock shim.
pub const STOCK: (&str, &str) = ("io.containerd.runc.v2", "containerd-shim-runc-v2");

/// The name that Docker knows crun by, and the one by which it makes no cgroup.
const CRUN: &str = "crun";
const CRUN_WITHOUT_CGROUPS: &str = "crun-without-cgroups";

/// Docker, and how it has crun.
struct Docker {
    _daemon: Daemon,
    crun: &'static str,
    /// Why crun makes no cgroup, in its own words.
    refused: Option<String>,
}

/// All of it.
pub struct Place {
    /// The engine that both clients' containers end up with.
    pub containerd: Containerd,
    docker: Option<Docker>,
    rcrun: PathBuf,
    crun: PathBuf,
    ids: AtomicUsize,
}

impl Place {
    /// Starts containerd, and for the page Docker.
    pub fn start(folder: &Path, options: &Options) -> Result<Place> {
        let rcrun = fs::canonicalize(&options.rcrun)
            .or_else(|e| fail(format!("{}: {e}: run `make build` first", options.rcrun.display())))?;
        let crun = fs::canonicalize(options.built("crun/crun"))?;
        let bin = folder.join("bin");
        fs::create_dir(&bin)?;
        // Copies: whoever else runs the same file on this machine would share its memory.
        fs::copy(shim_beside(&rcrun)?, bin.join(SHIM.1))?;
        fs::copy(Path::new("/usr/bin").join(STOCK.1), bin.join(STOCK.1))?;
        let path = OsString::from(format!("{}:{PROGRAMS}", bin.display()));
        let mut place = Place {
            containerd: Containerd::start(folder, NAMESPACE, path.clone())?,
            docker: None,
            rcrun,
            crun,
            ids: AtomicUsize::new(0),
        };
        if options.verb == "engines" {
            place.docker = Some(place.start_docker(folder, path)?);
        }
        Ok(place)
    }

    fn start_docker(&self, folder: &Path, path: OsString) -> Result<Docker> {
        let data = folder.join("docker");
        fs::create_dir(&data)?;
        mount(Some("tmpfs"), &data, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let config = folder.join("daemon.json");
        let runtimes = json!({
            "rcrun": {"path": self.rcrun},
            CRUN: {"path": self.crun},
            CRUN_WITHOUT_CGROUPS: {"path": self.crun, "runtimeArgs": ["--cgroup-manager=disabled"]},
        });
        fs::write(&config, json!({"runtimes": runtimes}).to_string())?;
        let words: Vec<OsString> = vec![
            format!("--config-file={}", config.display()).into(),
            "--containerd=/run/containerd/containerd.sock".into(),
            format!("--data-root={}", data.display()).into(),
            "--exec-root=/run/docker".into(),
            "--host=unix:///run/docker.sock".into(),
            "--bridge=none".into(),
            "--iptables=false".into(),
        ];
        let daemon = Daemon::start("dockerd", words, path, folder)?;
        let loaded = docker().args(["load", "-i"]).arg(folder.join("image.tar")).output()?;
        if !loaded.status.success() {
            return fail(format!("docker load: {}", String::from_utf8_lossy(&loaded.stderr)));
        }
        let (crun, refused) = match time(docker_run(CRUN))?.1 {
            None => (CRUN, None),
            // It wants every controller that Docker names, and Docker names io always.
            Some(said) if said.contains("is not available under") => {
                (CRUN_WITHOUT_CGROUPS, Some(reason(&said).to_owned()))
            }
            Some(said) => return fail(format!("docker run by crun: {said}")),
        };
        Ok(Docker { _daemon: daemon, crun, refused })
    }

    /// What `--version` and the like say of all that takes part.
    pub fn versions(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (program, name) in [
            (self.rcrun.as_path(), "rcrun"),
            (&self.crun, "crun"),
            (Path::new("/usr/sbin/runc"), "runc"),
            (Path::new("/usr/bin/containerd"), "containerd"),
            (Path::new("/usr/sbin/dockerd"), "dockerd"),
        ] {
            let out = Command::new(program).arg("--version").output()?;
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            all.push(format!("{name}: {}", said.lines().next().unwrap_or_default()));
        }
        Ok(all)
    }

    fn id(&self) -> String {
        format!("bench-{}", self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// The options of `ctr run` for this way.
    fn options(&self, way: Way) -> Vec<String> {
        let stock = |runtime: &Path| vec!["--runc-binary".to_string(), runtime.display().to_string()];
        let mut words = match way {
            Way::Client => vec!["--runtime".into(), "io.containerd.absent.v2".into()],
            Way::Rcrun => vec!["--runtime".into(), SHIM.0.into()],
            Way::StockCrun => stock(&self.crun),
            Way::StockRunc => stock(Path::new("/usr/sbin/runc")),
            Way::StockRcrun => stock(&self.rcrun),
        };
        // ctr's default takes a controller that the machine may not have.
        words.extend(["--cpu-shares".into(), "0".into()]);
        words
    }

    /// One `ctr run --rm` of true.
    pub fn ctr_run(&self, way: Way) -> Result<Duration> {
        let (options, id) = (self.options(way), self.id());
        let mut command = ctr(NAMESPACE, ["run", "--rm"]);
        command.args(&options).args([IMAGE, &id, "true"]);
        let (time, error) = time(command)?;
        // Without a shim it fails, for that reason and for no other.
        match way == Way::Client {
            false if error.is_none() => Ok(time),
            true if error.as_ref().is_some_and(|said| said.contains("containerd-shim-absent-v2")) => Ok(time),
            _ => fail(format!(
                "ctr run by {}: {}\n{}",
                way.name(),
                error.unwrap_or_default(),
                self.containerd.daemon.log()
            )),
        }
    }

    /// One `docker run --rm` of true.
    pub fn docker_run(&self, way: Way) -> Result<Duration> {
        let Some(docker) = &self.docker else { return fail("Docker was not started") };
        let runtime = match way {
            Way::Client | Way::Rcrun => return fail("this Docker knows runc's shim alone"),
            Way::StockCrun => docker.crun,
            Way::StockRunc => "runc",
            Way::StockRcrun => "rcrun",
        };
        match time(docker_run(runtime))? {
            (time, None) => Ok(time),
            (_, Some(said)) => fail(format!("docker run by {}: {said}", way.name())),
        }
    }

    /// Why crun makes no cgroup for Docker here, where it does not.
    pub fn crun_without_cgroups(&self) -> Option<&str> {
        self.docker.as_ref()?.refused.as_deref()
    }

    /// Containers that stay; all in one pod, or each for itself.
    pub fn start_containers(&self, way: Way, count: usize, pod: bool) -> Result<Containers<'_>> {
        let mut containers = Containers { ids: Vec::new(), place: self };
        let options = self.options(way);
        let group = format!("io.containerd.runc.v2.group={}", self.id());
        for _ in 0..count {
            let id = self.id();
            let mut command = ctr(NAMESPACE, ["run", "-d", "--null-io"]);
            command.args(&options);
            if pod {
                command.args(["--annotation", &group]);
            }
            command.args([IMAGE, &id, "sleep", "100000"]);
            containers.ids.push(id);
            if let (_, Some(said)) = time(command)? {
                return fail(format!("ctr run -d by {}: {said}", way.name()));
            }
        }
        Ok(containers)
    }

    /// The shims that serve now.
    pub fn shims(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let program = words.split(|b| *b == 0).next().unwrap_or_default();
            if [SHIM.1, STOCK.1].iter().any(|name| program.ends_with(name.as_bytes())) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

/// Containers that run until they are removed.
pub struct Containers<'a> {
    ids: Vec<String>,
    place: &'a Place,
}

impl Containers<'_> {
    /// Ends and removes them.
    pub fn remove(self) -> Result<()> {
        for id in &self.ids {
            // Its status is that of the container.
            ctr(NAMESPACE, ["task", "rm", "-f", id]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            if let (_, Some(said)) = time(ctr(NAMESPACE, ["container", "rm", id]))? {
                return fail(format!("ctr container rm: {said}"));
            }
        }
        match self.place.shims()?.len() {
            0 => Ok(()),
            // It has answered before it ends.
            _ => self.place.shims_end(),
        }
    }
}

impl Place {
    fn shims_end(&self) -> Result<()> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        for pid in self.shims()? {
            let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
                continue;
            };
            if !runtime_tests::runtime::readable(std::os::fd::AsFd::as_fd(&pidfd)) {
                return fail(format!("shim {pid} does not end"));
            }
        }
        Ok(())
    }
}

fn docker() -> Command {
    let mut command = Command::new("/usr/bin/docker");
    command.args(["--host", "unix:///run/docker.sock"]).stdin(Stdio::null());
    command
}

fn docker_run(runtime: &str) -> Command {
    let mut command = docker();
    command.args(["run", "--rm", "--network", "none", "--runtime", runtime, IMAGE, "true"]);
    command
}

/// crun's own words in what `docker run` says of a controller, without the folder, whose name has a container's id in it.
fn reason(said: &str) -> &str {
    let line = said.lines().next().unwrap_or_default();
    let own = line.rsplit("OCI runtime create failed: ").next().unwrap_or_default();
    own.split(" under ").next().unwrap_or_default()
}

/// How long it took, and what it said where it failed.
fn time(mut command: Command) -> Result<(Duration, Option<String>)> {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let output = command.output()?;
    let took = begin.elapsed();
    let failed = (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned());
    Ok((took, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_crun_makes_no_cgroup_is_told_in_its_own_words() {
        let said = "docker: Error response from daemon: failed to create shim: OCI runtime create failed: controller `io` is \
                    not available under /sys/fs/cgroup/docker/12ab/cgroup.controllers: unknown.\nand more";
        assert_eq!(reason(said), "controller `io` is not available");
    }
}
