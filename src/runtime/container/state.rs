//! A container's folder below --root: `state.json`, a copy of config.json as it was at create, the start socket.
//!
//! state.json is written twice: before anything is made, with what `delete --force` needs to clear a create that was
//! killed, and once more when init is set up. Every write is a rename.

use super::cgroup_place::CgroupPlace;
use super::end::End;
use super::lock::{lock, lock_file, lock_in_time, lock_of_its_own, lock_opened};
use super::process::{Process, Status};
use crate::cgroup::{Cgroup, CgroupPath, Hierarchy};
use crate::error::{CallContext, Context};
use crate::resctrl::Groups;
use crate::spec::id::ContainerId;
use crate::spec::{self, Spec};
use crate::systemd::Unit;
use crate::{Code, Error, Result};
use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
const MOUNTS_LOCK: &str = "mounts.lock";
/// The socket that a created container listens on; it is removed when the payload runs.
pub(super) const START_SOCKET: &str = "start.sock";

/// The folder that holds all containers (`--root`).
#[derive(Clone, Debug)]
pub struct StateRoot(PathBuf);

impl StateRoot {
    /// At `path`; it is made by the first create.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        StateRoot(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn folder(&self, id: &ContainerId) -> PathBuf {
        self.0.join(id.as_str())
    }

    /// Makes the folder of a new container and locks it.
    pub(super) fn make(&self, id: &ContainerId) -> Result<Container> {
        let folder = self.folder(id);
        let mut make = std::fs::DirBuilder::new();
        make.mode(0o711);
        let made = match make.create(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o711)
                    .create(&self.0)
                    .call(format!("mkdir {}", self.0.display()))
                    .map_err(|error| {
                        let link = self.0.is_symlink() && !self.0.exists();
                        error.hint(link.then_some("it is a symbolic link to what is not there"))
                    })?;
                make.create(&folder)
            }
            other => other,
        };
        match made {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(exists());
            }
            Err(e) => return Err(Error::call(format!("mkdir {}", folder.display()), e)),
        }
        let lock = lock(&folder, FlockOperation::LockExclusive).inspect_err(|_| {
            // It is empty, or another's by now and then it stays.
            let _ = std::fs::remove_dir(&folder);
        })?;
        let lock =
            lock.ok_or_else(|| Error::new(Code::System, "the folder was removed while it was made"))?;
        // Between mkdir and lock a delete may have removed it, and another create made and locked it.
        if folder.join(STATE).exists() {
            return Err(exists());
        }
        Ok(Container { folder, lock: Some(lock) })
    }

    /// The folder of a container that exists.
    pub fn open(&self, id: &ContainerId) -> Result<Container> {
        let folder = self.folder(id);
        match folder.symlink_metadata() {
            Ok(data) if data.is_dir() => Ok(Container { folder, lock: None }),
            _ => Err(does_not_exist()),
        }
    }

    /// The ids of all containers, sorted.
    pub(super) fn ids(&self) -> Result<Vec<ContainerId>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::call(format!("open {}", self.0.display()), e)),
        };
        let mut ids: Vec<ContainerId> = entries
            .filter_map(|e| e.ok())
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

fn exists() -> Error {
    let hint = "`rcrun list` shows it: `rcrun delete` takes it away when it has stopped";
    Error::new(Code::Exists, "container with given ID already exists").hint(Some(hint))
}

pub(super) fn does_not_exist() -> Error {
    Error::new(Code::NotFound, "container does not exist")
}

/// A container's folder.
#[derive(Debug)]
pub struct Container {
    folder: PathBuf,
    /// Held while the container is being made or removed.
    lock: Option<OwnedFd>,
}

impl Container {
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until nobody else makes, changes or removes it; not for ever.
    pub(super) fn lock(&mut self) -> Result<()> {
        if self.lock.is_none() {
            self.lock = lock_in_time(&self.folder)?;
        }
        match self.lock {
            Some(_) => Ok(()),
            None => Err(does_not_exist()),
        }
    }

    /// Waits until nobody else starts it; None where it is not yet made. The lock is on a file that is written once. Not
    /// the folder's: a delete must not wait for a start, whose hooks may take any time.
    pub(super) fn lock_start(&self) -> Result<Option<OwnedFd>> {
        lock_file(&self.folder.join(CONFIG), OFlags::empty(), FlockOperation::LockExclusive)
    }

    /// Waits until nobody else changes its mounts, and gives the folder back to others: what the container has mounted may
    /// never answer, and then a delete must be able to end it.
    pub(super) fn lock_mounts(&mut self) -> Result<OwnedFd> {
        self.lock()?;
        // It may have been removed while it was waited for; nobody removes it as long as it is locked.
        self.state()?;
        let path = self.folder.join(MOUNTS_LOCK);
        let fd = lock_of_its_own(&path)?;
        self.unlock()?;
        lock_opened(fd, &path)
    }

    /// Changes the state as it is by now. `lock` was called before; the folder is given back.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        if !self.relock()? {
            return Err(does_not_exist());
        }
        let changed = self.state().and_then(|state| {
            let mut state = state.ok_or_else(does_not_exist)?;
            change(&mut state);
            self.save(&state)
        });
        changed.and(self.unlock())
    }

    /// Somebody makes or removes it just now.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.is_none() && matches!(lock(&self.folder, FlockOperation::NonBlockingLockShared), Ok(None))
    }

    /// Writes state.json.
    pub(super) fn save(&self, state: &State) -> Result<()> {
        self.stage(state)?;
        self.commit()
    }

    /// Writes the next state.json beside the present one.
    pub(super) fn stage(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state)
            .map_err(|e| Error::new(Code::System, format!("state.json cannot be written: {e}")))?;
        self.write_beside(STATE, &text)
    }

    /// Puts what was staged in the place of the present state.json.
    pub(super) fn commit(&self) -> Result<()> {
        self.rename(STATE)
    }

    /// Keeps config.json as it is now: later changes in the bundle must not count (runtime.md, "Create").
    pub(super) fn save_config(&self, config: &[u8]) -> Result<()> {
        self.write(CONFIG, config)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_beside(name, bytes)?;
        self.rename(name)
    }

    fn write_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let next = self.folder.join(format!(".{name}"));
        // The environment of a container may hold what is nobody's business, and the folder can be searched by all.
        let mut open = std::fs::File::options();
        open.write(true).create(true).truncate(true).mode(0o600);
        let written = open.open(&next).and_then(|mut file| file.write_all(bytes));
        written.call(format!("write {}", next.display()))
    }

    fn rename(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::rename(self.folder.join(format!(".{name}")), &path)
            .call(format!("rename {}", path.display()))
    }

    /// Reads state.json; None where a create was killed before it was written.
    pub fn state(&self) -> Result<Option<State>> {
        let path = self.folder.join(STATE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound && self.folder.exists() => return Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(does_not_exist()),
            Err(e) => return Err(Error::call(format!("read {}", path.display()), e)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|e| {
            Error::new(
                Code::System,
                format!(
                    "{} is not what rcrun writes: {} (`rcrun delete --force` clears it away)",
                    path.display(),
                    spec::readable(&e.to_string())
                ),
            )
        })
    }

    /// The config that it was created from.
    pub fn spec(&self) -> Result<Spec> {
        spec::load(&self.folder.join(CONFIG)).context("the container's copy of config.json")
    }

    /// How it is now.
    pub fn status(&self, state: Option<&State>) -> Status {
        let Some(state) = state.filter(|s| s.process.is_some()) else {
            return if self.is_locked() { Status::Creating } else { Status::Stopped };
        };
        let Some(process) = &state.process else { return Status::Stopped };
        if !process.is_alive() {
            return Status::Stopped;
        }
        match state.open_cgroup() {
            // Also before its start: else nothing could resume it.
            Ok(Some(cgroup)) if cgroup.is_frozen().unwrap_or(false) => Status::Paused,
            // The file tells a start that was killed half-way; the socket tells a payload that poses as init.
            _ if self.folder.join(START_SOCKET).exists() && process.is_init() => Status::Created,
            _ => Status::Running,
        }
    }

    /// Lets others make or remove it.
    pub(super) fn unlock(&self) -> Result<()> {
        match &self.lock {
            Some(lock) => rustix::fs::flock(lock, FlockOperation::Unlock).call("flock"),
            None => Ok(()),
        }
    }

    /// Takes the lock again that `unlock` gave back. False when the folder is gone, or its name is another container's.
    pub(super) fn relock(&self) -> Result<bool> {
        let what = || format!("lock {}", self.folder.display());
        let Some(lock) = &self.lock else { return Ok(false) };
        rustix::io::retry_on_intr(|| rustix::fs::flock(lock, FlockOperation::LockExclusive)).call(what())?;
        let held = rustix::fs::fstat(lock).call(what())?;
        match rustix::fs::lstat(&self.folder) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(e) => Err(e).call(what()),
        }
    }

    /// Removes the folder with all that rcrun put there.
    pub(super) fn remove(&self) -> Result<()> {
        // All that there is of most: listing a folder takes a heap of its own and ten calls.
        for name in [CONFIG, STATE] {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        if std::fs::remove_dir(&self.folder).is_ok() {
            return Ok(());
        }
        match std::fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::call(format!("remove {}", self.folder.display()), e))
            }
            _ => Ok(()),
        }
    }
}

/// state.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// ociVersion of config.json.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The root's absolute path on the machine.
    pub rootfs: PathBuf,
    /// When, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// uid of who created it.
    pub owner: u32,
    /// Annotations of config.json.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The cgroup below the mount of cgroup2, and that mount.
    pub cgroup: Option<(PathBuf, String)>,
    /// The unit of systemd that its cgroup is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Its init; missing until init is set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its groups of resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Groups>,
    /// It has a pid namespace that dies with its init.
    pub own_pids: bool,
    /// It has hooks that `start` and `delete` must look for in its config.
    pub hooks: bool,
    /// It has a process to start.
    pub startable: bool,
    /// Options of create that a plan depends on.
    pub no_pivot: bool,
    /// What that took away of the machine's mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
    /// It has a session keyring.
    pub keyring: bool,
    /// Variables that rcrun added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// A folder with a NOTIFY_SOCKET is mounted.
    #[serde(default)]
    pub notify: bool,
    /// The device rules, where `update` has put others in the place of config.json's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<LinuxDeviceCgroup>>,
    /// What was mounted while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mounted>,
    /// How it has ended, where rcrun has waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// A mount that was added to a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Where, below the container's root.
    pub destination: PathBuf,
    /// Its id: its path may by now be another mount's. None: it is perhaps gone, and what it was still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// What is mounted on it comes out on the machine; on what the container has made of it, too, when it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl State {
    /// Of a container that is about to be made of `spec`, with its root at `rootfs` and its cgroup at `place`.
    pub(super) fn new(
        spec: &Spec,
        id: &ContainerId,
        (bundle, rootfs): (&Path, PathBuf),
        place: &CgroupPlace,
    ) -> State {
        State {
            oci_version: spec.version().clone(),
            id: id.as_str().to_string(),
            rootfs,
            bundle: bundle.to_path_buf(),
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            owner: rustix::process::geteuid().as_raw(),
            annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            cgroup: place.remembered(),
            unit: place.unit.as_ref().map(|(unit, _)| unit.clone()),
            process: None,
            resctrl: None,
            own_pids: spec.own_pids(),
            hooks: spec.hooks().is_some(),
            startable: spec.process().is_some(),
            no_pivot: false,
            left_behind: Vec::new(),
            keyring: true,
            variables: Vec::new(),
            notify: false,
            mounts: Vec::new(),
            devices: None,
            end: None,
        }
    }

    /// Its cgroup, if that is still there and still its own: the state names it before it is made, and once it is empty
    /// a container of another state root may take it.
    pub(super) fn open_cgroup(&self) -> Result<Option<Cgroup>> {
        let Some(cgroup) = self.cgroup_by_name()? else { return Ok(None) };
        let own = match cgroup.owner()? {
            Some(owner) => owner == self.mark(),
            None => self.process.is_some(),
        };
        Ok(own.then_some(cgroup))
    }

    /// Why `verb` cannot be done without a cgroup.
    pub(super) fn without_cgroup(&self, verb: &str) -> Error {
        match &self.cgroup {
            Some((_, path)) => {
                Error::new(Code::Status, format!("container not running: its cgroup {path} is gone"))
            }
            None => Error::new(
                Code::Status,
                format!(
                    "{verb} needs a cgroup, and the container was made without one: run rcrun where cgroups are delegated to this user (`systemd-run --user --scope --property=Delegate=yes rcrun ...`), or make it with --systemd-cgroup"
                ),
            ),
        }
    }

    /// Where its cgroup is, if that mount of cgroup2 is still there.
    pub(super) fn place(&self) -> Result<Option<(Hierarchy, CgroupPath)>> {
        let Some((mount, path)) = &self.cgroup else { return Ok(None) };
        let Some(hierarchy) = Hierarchy::at(mount)? else { return Ok(None) };
        Ok(Some((hierarchy, CgroupPath::parse(path)?)))
    }

    /// What is at the path of its cgroup, whosever it is.
    pub(super) fn cgroup_by_name(&self) -> Result<Option<Cgroup>> {
        let Some((hierarchy, path)) = self.place()? else { return Ok(None) };
        Cgroup::open(&hierarchy, &path)
    }

    /// What its cgroup is marked with: no two creates have the nanosecond in common that one cgroup was locked in.
    pub(super) fn mark(&self) -> &str {
        &self.created
    }

    /// The state as the OCI spec gives it to hooks (runtime.md, "State").
    pub(super) fn for_hooks(&self, status: &str, pid: i32) -> Vec<u8> {
        let mut value = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
        });
        if !self.annotations.is_empty() {
            value["annotations"] = serde_json::json!(self.annotations);
        }
        value.to_string().into_bytes()
    }
}
