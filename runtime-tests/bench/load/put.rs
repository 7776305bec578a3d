//! Puts a load on the private machine and takes it away again. Whatever is left when this process ends is gone with the
//! mount namespace, or the supervisor removes it: every cgroup and container has the bench's prefix in its name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::{CGROUPS, CONTAINERS, Load, MOUNTS};
use crate::host::{self, WORK};
use crate::rounds::Bench;
use crate::runtimes::Quiet;
use crate::{Result, fail};

/// A load that is on the machine.
pub struct Put {
    containers: Vec<String>,
    cgroups: Option<PathBuf>,
    /// The mount namespace without the mounts.
    outside: Option<File>,
}

/// Puts `load` on the machine.
pub fn put(bench: &Bench, load: Load) -> Result<Put> {
    let mut put = Put { containers: Vec::new(), cgroups: None, outside: None };
    if load.has(Load::Containers) {
        for _ in 0..CONTAINERS {
            let id = bench.id();
            let bundle = bench.bundles.sleep.as_os_str();
            rcrun(
                bench,
                &["run", "--detach", "--pid-file"],
                &[pid_file(&id).as_ref(), "-b".as_ref(), bundle, id.as_ref()],
            )?;
            put.containers.push(id);
        }
    }
    if load.has(Load::Cgroups) {
        let folder = Path::new(host::CGROUPS).join(bench.id());
        for number in 0..CGROUPS {
            fs::create_dir_all(folder.join(number.to_string()))?;
        }
        put.cgroups = Some(folder);
    }
    if load.has(Load::Mounts) {
        put.outside = Some(File::open("/proc/self/ns/mnt")?);
        mounts()?;
    }
    Ok(put)
}

impl Put {
    /// Takes it away again.
    pub fn lift(self, bench: &Bench) -> Result<()> {
        if let Some(outside) = self.outside {
            setns(outside, CloneFlags::CLONE_NEWNS)?;
        }
        if let Some(folder) = self.cgroups {
            host::remove_tree(&folder)?;
        }
        for id in self.containers {
            rcrun(bench, &["delete", "--force"], &[id.as_ref()])?;
            let pid: i32 = fs::read_to_string(pid_file(&id))?.trim().parse()?;
            waitpid(Pid::from_raw(pid), None)?;
        }
        Ok(())
    }
}

/// In a mount namespace of their own that goes by itself: shared, as systemd makes those of a machine.
fn mounts() -> Result<()> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let folder = Path::new(WORK).join("mounts");
    fs::create_dir_all(&folder)?;
    mount(Some("mounts"), &folder, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    mount(nothing, &folder, nothing, MsFlags::MS_SHARED, nothing)?;
    for number in 0..MOUNTS {
        let target = folder.join(number.to_string());
        fs::create_dir(&target)?;
        mount(Some(&target), &target, nothing, MsFlags::MS_BIND, nothing)?;
    }
    Ok(())
}

fn pid_file(id: &str) -> PathBuf {
    Path::new(WORK).join("pids").join(id)
}

/// A command of rcrun's that is no part of what is measured.
fn rcrun(bench: &Bench, words: &[&str], rest: &[&OsStr]) -> Result<()> {
    let Some(rcrun) = bench.runtimes.iter().find(|r| r.name == "rcrun") else {
        return fail("the containers of the load are rcrun's: it must be among the runtimes");
    };
    fs::create_dir_all(Path::new(WORK).join("pids"))?;
    let args: Vec<&OsStr> = words.iter().map(OsStr::new).chain(rest.iter().copied()).collect();
    rcrun.time(&Quiet::new("load")?, &args, false).map(|_| ())
}
