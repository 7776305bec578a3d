//! checkpoint and restore: a container's processes written to images by CRIU, and made of them again. Uses: criu.
//!
//! Images are not trusted (docs/checkpoint.md): what they may not say is checked before the restored processes run.

mod descriptors;
mod dump;
mod external;
mod folder;
mod mounts;
mod points;
mod restore;
mod same;

pub use dump::{CheckpointOptions, PageServer, checkpoint};
pub use restore::{RestoreOptions, restore};

use crate::criu::message::{Number, Options, Switch, Text};
use crate::error::CallContext;
use crate::host::Host;
use crate::spec::mount::MountOptions;
use crate::spec::{Namespace, Spec};
use crate::{Code, Error, Result};
use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What checkpoint and restore have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// CRIU: a name to look for in PATH, or its path; if not said, `criu`.
    pub criu: Option<PathBuf>,
    /// The folder of the images.
    pub path: PathBuf,
    /// The folder of the log and of other things that CRIU leaves; the images' own if not said.
    pub work: Option<PathBuf>,
    /// TCP connections that are open.
    pub tcp_established: bool,
    /// Unix sockets whose other end is outside of the container.
    pub ext_unix_sk: bool,
    /// Processes of a session that was begun outside.
    pub shell_job: bool,
    /// File locks.
    pub file_locks: bool,
    /// What is written and restored of cgroups.
    pub cgroups: Cgroups,
    /// The network namespace is left empty: an engine fills it.
    pub empty_network: bool,
    /// Remove pages from a parent's images that the new ones have.
    pub auto_dedup: bool,
    /// Memory is transferred as it is asked for.
    pub lazy_pages: bool,
    /// How packets are kept away meanwhile.
    pub network_lock: Option<NetworkLock>,
}

/// criu_cg_mode: what CRIU does with cgroups below and above the container's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// Nothing: what is restored is in the container's cgroup.
    Ignore = 0,
    /// Properties of those that it makes itself; the same as the default of runc and crun.
    #[default]
    Soft = 3,
    /// Properties of all.
    Full = 4,
    /// Properties of all, which must not be there before.
    Strict = 5,
}

impl Cgroups {
    /// By the word that runc has for it.
    pub fn named(word: &str) -> Option<Cgroups> {
        match word {
            "ignore" => Some(Cgroups::Ignore),
            "soft" => Some(Cgroups::Soft),
            "full" => Some(Cgroups::Full),
            "strict" => Some(Cgroups::Strict),
            _ => None,
        }
    }
}

/// criu_network_lock_method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkLock {
    /// iptables-restore.
    Iptables = 1,
    /// nf_tables.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

/// Where an admin may tell CRIU more, for containers of rcrun's only.
const CONFIG: &str = "/etc/criu/rcrun.conf";

/// The keys that runc and crun give to namespaces of others.
const EXTERNAL_NET: &str = "extRootNetNS";
const EXTERNAL_PID: &str = "extRootPidNS";

impl Images {
    fn say(&self, log: &str, folder: &folder::Folder, options: &mut Options) {
        options.number(Number::ImagesDirFd, folder.images_number());
        if let Some(work) = folder.work_number() {
            options.number(Number::WorkDirFd, work);
        }
        options.number(Number::LogLevel, 4);
        options.text(Text::LogFile, log);
        options.text(Text::ConfigFile, CONFIG);
        options.switch(Switch::NotifyScripts, true);
        options.switch(Switch::OrphanPtsMaster, true);
        options.switch(Switch::ManageCgroups, true);
        options.number(Number::ManageCgroupsMode, self.cgroups as u32);
        options.switch(Switch::TcpEstablished, self.tcp_established);
        options.switch(Switch::ExtUnixSk, self.ext_unix_sk);
        options.switch(Switch::ShellJob, self.shell_job);
        options.switch(Switch::FileLocks, self.file_locks);
        options.switch(Switch::AutoDedup, self.auto_dedup);
        options.switch(Switch::LazyPages, self.lazy_pages);
        if self.empty_network {
            options.number(Number::EmptyNs, libc::CLONE_NEWNET as u32);
        }
        if let Some(method) = self.network_lock {
            options.number(Number::NetworkLock, method as u32);
        }
    }
}

/// Does it in a thread, whose namespaces end with it.
fn in_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into());
        let running = thread.spawn_scoped(scope, work).call("a thread with namespaces of its own")?;
        let panicked = |_| Err(Error::new(Code::System, format!("the thread {name} panicked")));
        running.join().unwrap_or_else(panicked)
    })
}

/// Does it in the mount namespace of process `pid`, with that one's root, whatever the process has made its own.
fn in_mounts_of<T: Send>(pid: i32, work: impl FnOnce(OwnedFd) -> Result<T> + Send) -> Result<T> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(format!("open {path}"))?;
    in_thread("root", || {
        // Only who shares no root and working directory may go there; a thread's own end with it.
        unshare(CloneFlags::CLONE_FS).call("unshare CLONE_FS")?;
        setns(&namespace, CloneFlags::CLONE_NEWNS).call(format!("setns {path}"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        work(rustix::fs::open("/", flags, Mode::empty()).call("open /")?)
    })
}

/// CRIU reads and writes what only root of the machine may.
fn refuse_users(verb: &str, host: &Host, rootless: Option<bool>) -> Result<()> {
    match rootless.unwrap_or_else(|| host.caller.is_rootless()) {
        false => Ok(()),
        true => Err(Error::new(
            Code::Host,
            format!("{verb} needs root of the machine: CRIU writes and makes processes as nobody else may"),
        )),
    }
}

/// CRIU makes a link of it in the images' folder, and says nothing that helps where it leads nowhere.
fn check_parent(parent: &Path, images: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::new(Code::Usage, "--parent-path must be relative: it counts from --image-path"));
    }
    let path = images.join(parent);
    let data = std::fs::metadata(&path).call(format!("invalid --parent-path: stat {}", path.display()))?;
    match data.is_dir() {
        true => Ok(()),
        false => Err(Error::call(
            format!("invalid --parent-path: {}", path.display()),
            std::io::Error::from_raw_os_error(libc::ENOTDIR),
        )),
    }
}

/// What no images can hold.
fn refuse(spec: &Spec) -> Result<()> {
    if spec.namespace(LinuxNamespaceType::Mount) != Namespace::New {
        return Err(Error::unsupported(
            "/linux/namespaces",
            "a container without a new mount namespace cannot be checkpointed or restored",
        ));
    }
    // It opens some images before, and some after the first process has become root of it: one of both may not.
    if spec.namespace(LinuxNamespaceType::User) == Namespace::New {
        return Err(Error::unsupported(
            "/linux/namespaces",
            "CRIU does not restore a new user namespace reliably: a container with one cannot be checkpointed or restored",
        ));
    }
    for (kind, name) in [(LinuxNamespaceType::User, "user"), (LinuxNamespaceType::Cgroup, "cgroup")] {
        if let Namespace::Join(_) = spec.namespace(kind) {
            return Err(Error::unsupported(
                "/linux/namespaces",
                format!("CRIU restores nothing into a {name} namespace that is there already"),
            ));
        }
    }
    for (i, entry) in spec.mounts().iter().flatten().enumerate() {
        let mapped = MountOptions::of(entry).idmap.is_some()
            || entry.uid_mappings().as_ref().is_some_and(|maps| !maps.is_empty());
        if mapped {
            return Err(Error::unsupported(
                format!("/mounts/{i}"),
                "CRIU knows no id-mapped mounts: the container cannot be checkpointed or restored",
            ));
        }
    }
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    if seccomp.is_some_and(|profile| profile.listener_path().is_some()) {
        return Err(Error::unsupported(
            "/linux/seccomp/listenerPath",
            "CRIU cannot restore what an agent listens to: the container cannot be checkpointed or restored",
        ));
    }
    Ok(())
}
