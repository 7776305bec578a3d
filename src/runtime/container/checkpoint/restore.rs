//! restore: a container made of images. What config.json says of its cgroup, devices, mounts and privileges holds, whatever
//! the images say.

use super::external::{Inside, Sources};
use super::folder::Folder;
use super::{
    EXTERNAL_NET, EXTERNAL_PID, Images, check_parent, descriptors, in_mounts_of, in_thread, mounts, points,
    refuse, refuse_users, same,
};
use crate::cgroup::{Cgroup, Notices, Policy, resources};
use crate::container::cgroup_place::CgroupPlace;
use crate::container::create::{Run, restrict_devices};
use crate::container::delete::Left;
use crate::container::hooks;
use crate::container::process::Process;
use crate::container::state::{Container, State, StateRoot};
use crate::container::undo::Undo;
use crate::criu::message::{Kind, Options, Switch, Text};
use crate::criu::{Criu, FIRST_PASSED, Given, Notice, Worker};
use crate::error::CallContext;
use crate::host::Host;
use crate::notify_socket;
use crate::prepare::open_root;
use crate::spec::id::ContainerId;
use crate::spec::{self, Namespace, Spec};
use crate::sys::birth::Newborn;
use crate::sys::hold::Hold;
use crate::sys::mount::{MountAttributes, set_attributes};
use crate::{Code, Error, Result, pid_file, resctrl, sys, systemd, terminal};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOG: &str = "restore.log";

/// Where CRIU finds the root, in the container's folder: a mount point whose parent nothing lies over.
const ROOT: &str = "criu-root";

/// What the command line says of a restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// What a checkpoint has too.
    pub images: Images,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Where images of an earlier checkpoint must be, relative to these: the images themselves say where they are.
    pub parent: Option<PathBuf>,
    /// Where the pid of the first process is written.
    pub pid_file: Option<PathBuf>,
    /// Receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// The caller keeps the terminal's master (restore in the foreground).
    pub keep_terminal: bool,
    /// Stands in for stdin, stdout and stderr; else the caller's own do.
    pub stdio: Option<[Arc<OwnedFd>; 3]>,
    /// Close TCP connections that were open.
    pub tcp_close: bool,
    /// The label of the processes, `TYPE:NAME`; else that of config.json.
    pub lsm_profile: Option<String>,
    /// The SELinux label of mounts; else that of config.json.
    pub lsm_mount_context: Option<String>,
    /// Its cgroup is a scope of systemd's.
    pub systemd: bool,
    /// `--rootless`
    pub rootless: Option<bool>,
    /// Ends the restore when it is readable before anything restored can run.
    pub stop: Option<Arc<OwnedFd>>,
}

/// Makes container `id` of images. It runs.
pub fn restore(root: &StateRoot, id: &ContainerId, options: &RestoreOptions) -> Result<Run> {
    let bundle = sys::path::real(&options.bundle).call(format!("bundle {}", options.bundle.display()))?;
    let config = spec::read(&bundle.join("config.json"))?;
    let spec = spec::parse(&config)?;
    let host = Host::read()?;
    refuse_users("restore", &host, options.rootless)?;
    refuse(&spec)?;
    let wants_terminal = spec.process().as_ref().is_some_and(|p| p.terminal().unwrap_or(false));
    terminal::check_console(wants_terminal, options.console_socket.is_some(), !options.keep_terminal)?;
    let criu = Criu::find(options.images.criu.as_deref(), std::env::var_os("PATH").as_deref())?
        .stopped_by(options.stop.clone());
    criu.check_version()?;
    if options.images.lazy_pages && !criu.features()?.lazy_pages {
        return Err(Error::new(
            Code::Host,
            "--lazy-pages: CRIU or this kernel (without CONFIG_USERFAULTFD) cannot do it",
        ));
    }
    let folder = Folder::open(&options.images)?;
    if let Some(parent) = &options.parent {
        check_parent(parent, &options.images.path)?;
    }
    folder.refuse_others(&options.images, options.parent.as_deref())?;
    let descriptors = folder.read_descriptors()?;
    folder.remove_log(LOG)?;

    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|l| l.resources().as_ref());
    let limits = resources.map(resources::compile).transpose()?.unwrap_or_default();
    let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
    let policy = Policy::new(rules, linux.and_then(|l| l.devices().as_deref()).unwrap_or_default())?;
    let mut place = match options.systemd {
        true => CgroupPlace::by_systemd(&spec, id, &limits.writes, &policy)?,
        false => CgroupPlace::by_rcrun(&spec, id, &limits.writes, false)?,
    };
    let mut warnings: Vec<String> = spec.warnings().to_vec();
    warnings.extend(limits.warnings.iter().map(|w| format!("config.json: {}: {}", w.pointer, w.message)));

    // From here on there is something to undo.
    let container = root.make(id)?;
    let rootfs = bundle.join(spec.root().as_ref().map_or(Path::new(""), |r| r.path()));
    let mut state = State::new(&spec, id, (&bundle, rootfs), &place);
    let hold = match container.save(&state).and_then(|()| place.start_unit(&mut state)) {
        Ok(hold) => hold,
        Err(error) => {
            return Err(match container.remove() {
                Ok(()) => error,
                Err(e) => error.attach(&e),
            });
        }
    };
    let mut undo = Undo { container: &container, state: &state, spec: &spec, cgroup: None, launched: false };
    let site = Site {
        container: &container,
        state: &state,
        spec: &spec,
        config: &config,
        host: &host,
        options,
        folder: &folder,
        descriptors: &descriptors,
        place: &place,
    };
    let restored = match site.build(&criu, hold, &limits.writes, &policy, &mut undo) {
        Ok(restored) => restored,
        Err(error) => return Err(undo.all(error)),
    };
    let cgroup = undo.cgroup.take();
    let (init, terminal, notices) = restored;
    let left = Left::of(container, cgroup, &state)?;
    Ok(Run { init, terminal, notify: None, warnings, left, notices })
}

/// All that one restore works on.
struct Site<'a> {
    container: &'a Container,
    state: &'a State,
    spec: &'a Spec,
    config: &'a [u8],
    host: &'a Host,
    options: &'a RestoreOptions,
    folder: &'a Folder,
    descriptors: &'a [String],
    place: &'a CgroupPlace,
}

type Restored = (Newborn, Option<OwnedFd>, Option<Notices>);

impl Site<'_> {
    fn build(
        &self,
        criu: &Criu,
        hold: Option<Hold>,
        limits: &[resources::Write],
        policy: &Policy,
        undo: &mut Undo<'_>,
    ) -> Result<Restored> {
        // Beside the process that holds a scope, init must have room.
        let (late, limits): (Vec<_>, Vec<_>) =
            limits.iter().cloned().partition(|write| hold.is_some() && systemd::counts_hold(write));
        if let Some((hierarchy, path)) = &self.place.cgroup {
            let cgroup = undo.cgroup.insert(match hold {
                None => Cgroup::create(hierarchy, path, &limits)?,
                Some(_) => Cgroup::adopt(hierarchy, path, &limits)?,
            });
            cgroup.mark(self.state.mark())?;
            cgroup.apply(&limits)?;
            restrict_devices(cgroup, policy)?;
        }
        let groups = match self.spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref()) {
            Some(rdt) => {
                let root = resctrl::mounted()?;
                let groups = resctrl::Groups::find(&root, &self.state.id, rdt)?;
                groups.make(&root, rdt)?;
                Some(groups)
            }
            None => None,
        };
        let notify = notify_socket::make_directory(self.container.folder())?;
        points::make(&self.state.rootfs, self.spec, &self.state.bundle)?;

        let point = self.container.folder().join(ROOT);
        std::fs::create_dir(&point).call(format!("mkdir {}", point.display()))?;
        let joined = self.joined()?;
        let stdio = self.stdio()?;
        let passed = stdio.iter().map(AsFd::as_fd).chain(joined.iter().map(|(_, fd)| fd.as_fd())).collect();
        let given =
            Given { stdin: Some(stdio[0].as_fd()), passed, own_group: !self.options.images.shell_job };
        let (mut worker, folder) = self.start_inside(criu, &given, &point)?;
        let mut asked = Options::default();
        self.say(&folder, &point, &joined, &notify, &mut asked)?;

        let mut seen = Seen { groups: &groups, late: &late, ..Seen::new(undo.cgroup.as_ref(), &notify) };
        if self.options.images.cgroups == super::Cgroups::Ignore
            && let Some(cgroup) = &undo.cgroup
        {
            // What it makes is born where it is.
            cgroup.take(worker.pid())?;
        }
        let talked = worker.talk(Kind::Restore, Some(&asked), &mut |notice| self.hear(notice, &mut seen));
        let ended = worker.end();
        let Seen { pid, terminal, init, notices, refused, hooked, .. } = seen;
        undo.launched = hooked;
        let _ = std::fs::remove_dir(&point);
        drop(hold);
        let outcome = match (refused, talked) {
            (Some(refused), _) => Err(refused),
            (None, Err(error)) => Err(self.folder.with_log(LOG, error)),
            (None, Ok(_)) => ended,
        };
        let outcome = outcome.and_then(|()| hooks::poststart(self.spec, self.state, pid.unwrap_or_default()));
        match (outcome, init) {
            (Ok(()), Some(init)) => Ok((init, terminal, notices)),
            (Ok(()), None) => Err(Error::new(Code::System, "criu restored no process")),
            (Err(error), _) => {
                let removed = self.options.pid_file.as_deref().zip(pid);
                let removed = removed.map(|(path, pid)| pid_file::remove(path, pid as u32));
                Err(match removed {
                    Some(Err(left)) => error.attach(&left),
                    _ => error,
                })
            }
        }
    }

    /// Starts CRIU in a mount namespace of its own, where the root lies at `point`: whatever becomes of it, nothing of that
    /// stays. The folders are those that it sees there: it mounts in them for a while.
    fn start_inside(&self, criu: &Criu, given: &Given<'_>, point: &Path) -> Result<(Worker, Folder)> {
        let rootfs = &self.state.rootfs;
        let start = || {
            // A thread of its own has left what threads share of their file systems by that.
            unshare(CloneFlags::CLONE_NEWNS).call("unshare CLONE_NEWNS")?;
            let none: Option<&str> = None;
            // Mounts of the machine still come to the container where they did before.
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
                .call("make all mounts slaves")?;
            // Opened here: the mounts of another namespace cannot be bound.
            let root = open_root(rootfs)?;
            let opened = format!("/proc/self/fd/{}", root.as_raw_fd());
            mount(Some(opened.as_str()), point, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
                .call(format!("bind {} on {}", rootfs.display(), point.display()))?;
            let folder = Folder::open(&self.options.images)?;
            if !folder.is(self.folder)? {
                return Err(Error::new(Code::System, "the folder of the images was exchanged meanwhile"));
            }
            Ok((criu.start(given)?, folder))
        };
        in_thread("criu", start)
    }

    fn sources<'s>(&'s self, notify: &'s Path) -> Sources<'s> {
        let cgroup = self.place.cgroup.as_ref();
        Sources { spec: self.spec, bundle: &self.state.bundle, notify, cgroup }
    }

    /// What CRIU is asked.
    fn say(
        &self,
        folder: &Folder,
        point: &Path,
        joined: &[(&str, OwnedFd)],
        notify: &Path,
        asked: &mut Options,
    ) -> Result<()> {
        self.options.images.say(LOG, folder, asked);
        asked.switch(Switch::EvasiveDevices, true);
        asked.switch(Switch::RstSibling, true);
        asked.switch(Switch::TcpClose, self.options.tcp_close);
        asked.text(Text::Root, point.to_str().unwrap_or_default());
        if let Some((_, path)) = &self.place.cgroup {
            asked.cgroup("", path.as_str());
        }
        self.sources(notify).declare(asked)?;
        descriptors::inherit(self.descriptors, FIRST_PASSED, asked);
        for (i, (key, _)) in joined.iter().enumerate() {
            asked.inherit(key, FIRST_PASSED + 3 + i as u32);
        }
        for (kind, name) in [
            (LinuxNamespaceType::Ipc, "ipc"),
            (LinuxNamespaceType::Uts, "uts"),
            (LinuxNamespaceType::Time, "time"),
        ] {
            if let Namespace::Join(path) = self.spec.namespace(kind) {
                asked.namespace(name, &path.to_string_lossy());
            }
        }
        self.labels(asked);
        Ok(())
    }

    /// Labels of processes and mounts: those of config.json, not those of the images.
    fn labels(&self, asked: &mut Options) {
        let process = self.spec.process().as_ref();
        let apparmor = process.and_then(|p| p.apparmor_profile().as_deref());
        let selinux = process.and_then(|p| p.selinux_label().as_deref());
        let label = |on: bool, kind: &str, name: Option<&str>| {
            name.filter(|name| on && !name.is_empty()).map(|name| format!("{kind}:{name}"))
        };
        let own = label(self.host.apparmor, "apparmor", apparmor)
            .or_else(|| label(self.host.selinux, "selinux", selinux));
        if let Some(profile) = self.options.lsm_profile.clone().or(own) {
            asked.text(Text::LsmProfile, &profile);
        }
        let mounts = self.spec.linux().as_ref().and_then(|l| l.mount_label().clone());
        let own = mounts.filter(|label| self.host.selinux && !label.is_empty());
        if let Some(context) = self.options.lsm_mount_context.clone().or(own) {
            asked.text(Text::LsmMountContext, &context);
        }
    }

    /// Namespaces that were left out of the images because they are others', by the keys they got.
    fn joined(&self) -> Result<Vec<(&'static str, OwnedFd)>> {
        let mut joined = Vec::new();
        for (kind, key) in
            [(LinuxNamespaceType::Network, EXTERNAL_NET), (LinuxNamespaceType::Pid, EXTERNAL_PID)]
        {
            if let Namespace::Join(path) = self.spec.namespace(kind) {
                let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .call(format!("open {}", path.display()))?;
                joined.push((key, fd));
            }
        }
        Ok(joined)
    }

    fn stdio(&self) -> Result<[OwnedFd; 3]> {
        let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let given = self.options.stdio.as_ref().map(|fds| fds.each_ref().map(|fd| fd.as_fd()));
        let dup = |fd: BorrowedFd<'_>| {
            // Above those of the standard streams, which CRIU has for itself.
            rustix::io::fcntl_dupfd_cloexec(fd, 3).call("dup of stdin, stdout or stderr")
        };
        let [input, output, error] = given.unwrap_or(own);
        Ok([dup(input)?, dup(output)?, dup(error)?])
    }

    /// What CRIU tells on its way.
    fn hear(&self, notice: Notice, seen: &mut Seen<'_>) -> Result<()> {
        seen.pid = seen.pid.or(notice.pid.filter(|pid| *pid > 0));
        match (notice.name.as_str(), notice.fd) {
            ("setup-namespaces", _) => {
                seen.hooked = true;
                hooks::create_runtime(self.spec, self.state, seen.pid.unwrap_or_default())
            }
            ("orphan-pts-master", Some(master)) => self.take_terminal(master, seen),
            ("post-restore", _) => {
                let pid = seen.pid()?;
                self.close_root(pid)?;
                let inside = Inside::of_namespace(pid)?;
                same::places(pid, &inside, self.spec, self.place.cgroup.as_ref().map(|(_, path)| path))?;
                mounts::held(&inside, &self.sources(seen.notify), &self.state.rootfs)
            }
            // They stand still, with all that they had, and CRIU lets go of them whatever is answered. Killed now they would
            // be waited for by CRIU and by each other, for ever: frozen, they run no more until all are killed.
            ("pre-resume", _) => {
                seen.refused = self.commit(seen).err();
                match (&seen.refused, seen.cgroup) {
                    (Some(_), Some(cgroup)) => cgroup.freeze_traced(),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// CRIU forgets that the root is read-only.
    fn close_root(&self, pid: i32) -> Result<()> {
        if !self.spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
            return Ok(());
        }
        in_mounts_of(pid, |root| {
            let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
            set_attributes(root.as_fd(), false, &attributes)
                .map_err(|e| Error::call("make the restored root read-only", e).at("/root/readonly"))
        })
    }

    fn take_terminal(&self, master: OwnedFd, seen: &mut Seen<'_>) -> Result<()> {
        match &self.options.console_socket {
            Some(socket) => {
                terminal::send_console(socket, master.as_fd(), &terminal::slave_name(master.as_fd())?)
            }
            None => {
                if self.options.stdio.is_none() {
                    terminal::clear_onlcr(master.as_fd())?;
                    terminal::copy_own_size(master.as_fd())?;
                }
                seen.terminal = Some(master);
                Ok(())
            }
        }
    }

    fn commit(&self, seen: &mut Seen<'_>) -> Result<()> {
        let pid = seen.pid()?;
        same::privileges(pid, self.spec)?;
        // With --manage-cgroups-mode full and strict the images' limits are in force.
        if let Some(cgroup) = seen.cgroup {
            cgroup.apply(seen.late)?;
        }
        if let Some(unit) = &self.state.unit {
            unit.set(&systemd::limits(seen.late))?;
            seen.notices = seen.cgroup.map(Notices::open).transpose()?.flatten();
        }
        if let Some(groups) = seen.groups {
            groups.join(pid)?;
        }
        self.container.save_config(&with_time_namespace(self.config, self.spec, pid)?)?;
        let process = Some(Process::of(pid, (0, 0))?);
        let resctrl = seen.groups.clone();
        self.container.save(&State { process, resctrl, ..self.state.clone() })?;
        seen.init = Some(Newborn::child(pid).call(format!("pidfd_open {pid}"))?);
        match &self.options.pid_file {
            Some(path) => pid_file::write(path, pid as u32),
            None => Ok(()),
        }
    }
}

/// What a restore has come to.
struct Seen<'a> {
    cgroup: Option<&'a Cgroup>,
    notify: &'a Path,
    groups: &'a Option<resctrl::Groups>,
    late: &'a [resources::Write],
    pid: Option<i32>,
    terminal: Option<OwnedFd>,
    init: Option<Newborn>,
    notices: Option<Notices>,
    refused: Option<Error>,
    hooked: bool,
}

impl<'a> Seen<'a> {
    fn pid(&self) -> Result<i32> {
        self.pid.ok_or_else(|| Error::new(Code::System, "criu does not say what it restored"))
    }

    fn new(cgroup: Option<&'a Cgroup>, notify: &'a Path) -> Self {
        Seen {
            cgroup,
            notify,
            groups: &None,
            late: &[],
            pid: None,
            terminal: None,
            init: None,
            notices: None,
            refused: None,
            hooked: false,
        }
    }
}

/// CRIU puts processes into a time namespace, so that their clocks go on: who comes later has to join it.
fn with_time_namespace(config: &[u8], spec: &Spec, pid: i32) -> Result<Vec<u8>> {
    let inode = |path: String| rustix::fs::stat(path.as_str()).map(|stat| stat.st_ino).ok();
    let own = inode("/proc/self/ns/time".into()) == inode(format!("/proc/{pid}/ns/time"));
    if own || spec.namespace(LinuxNamespaceType::Time) != Namespace::Inherit {
        return Ok(config.to_vec());
    }
    let broken = |e| Error::new(Code::System, format!("config.json cannot be written again: {e}"));
    let mut value: serde_json::Value = serde_json::from_slice(config).map_err(broken)?;
    if let Some(list) = value.pointer_mut("/linux/namespaces").and_then(serde_json::Value::as_array_mut) {
        list.push(serde_json::json!({"type": "time"}));
    }
    serde_json::to_vec(&value).map_err(broken)
}
