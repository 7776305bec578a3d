//! A container comes into being: its mounts, its stdio, its first process, and whoever waits for them.

use super::Pod;
use super::container::{Belongings, Container, Heard, Terminal, lock};
use crate::life::{INIT, Life, Phase};
use crate::logger::Whose;
use crate::options::Options;
use crate::rootfs::{self, Mount};
use crate::stdio::{self, Names, Owner};
use crate::watch::Next;
use crate::{children, log};
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::types;
use rcrun_runtime::container::{self, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::spec::{self, id::ContainerId};
use rcrun_runtime::sys::birth::Newborn;
use rcrun_runtime::{Code, Error, Result, sys};
use rustix::event::epoll::EventFlags;
use rustix::process::WaitIdOptions;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use serde::Deserialize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// What a container is made from.
pub struct Wanted<'a> {
    /// Its id.
    pub id: &'a str,
    /// The bundle's folder.
    pub bundle: &'a Path,
    /// What is mounted as its root.
    pub rootfs: &'a [Mount],
    /// Its stdio.
    pub names: Names,
    /// containerd's options.
    pub options: &'a Options,
    /// The folder of the checkpoint that it is restored from.
    pub images: Option<&'a Path>,
}

impl Pod {
    /// Makes a container; its pid.
    pub fn create(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<i32> {
        let id: ContainerId = wanted.id.parse()?;
        {
            let mut table = self.table();
            if self.ending.load(Ordering::Relaxed) {
                return Err(Error::new(Code::Status, "this shim is about to end: start another one"));
            }
            if table.contains_key(wanted.id) {
                return Err(Error::new(Code::Exists, "container with given ID already exists"));
            }
            table.insert(wanted.id.to_string(), None);
        }
        let mut made = self.takes_containers().and_then(|()| self.make(&id, wanted));
        // It may have been stopped meanwhile, and then nobody has ended this one with it.
        if made.is_ok()
            && let Err(error) = self.takes_containers()
        {
            made = Err(match self.delete(wanted.id, INIT) {
                Ok(_) => error,
                Err(other) => error.attach(&other),
            });
        }
        if made.is_err() {
            self.decide(wanted.id, None);
        }
        made.context(format!("create {id}"))
    }

    fn make(self: &Arc<Self>, id: &ContainerId, wanted: &Wanted<'_>) -> Result<i32> {
        let options = wanted.options;
        for unused in &options.unused {
            log::warn(format_args!("{id}: {unused}"));
        }
        let root = StateRoot::new(options.state_root(&self.namespace));
        crate::leftover::note(wanted.bundle, root.path())?;
        let owner = Owner { uid: options.io_uid, gid: options.io_gid };
        let rootfs = rootfs::of(wanted.bundle);
        rootfs::mount_all(wanted.rootfs, &rootfs)?;
        let made = match wanted.images {
            Some(images) => self.create_of_images(id, wanted, (root, owner), images),
            None => self.bear(id, wanted, root, owner),
        };
        made.map_err(|error| match wanted.rootfs.is_empty() {
            true => error,
            false => match rootfs::unmount_all(&rootfs) {
                Ok(()) => error,
                Err(other) => error.attach(&other),
            },
        })
    }

    fn bear(
        self: &Arc<Self>,
        id: &ContainerId,
        wanted: &Wanted<'_>,
        root: StateRoot,
        owner: Owner,
    ) -> Result<i32> {
        let whose = Whose { namespace: &self.namespace, id: id.as_str() };
        let (child, ends) = stdio::open(&wanted.names, owner, whose, &self.watches)?;
        let made = container::create(
            &root,
            id,
            &container::Options {
                bundle: wanted.bundle.to_path_buf(),
                no_pivot: wanted.options.no_pivot_root,
                no_new_keyring: wanted.options.no_new_keyring,
                systemd: by_systemd(wanted)?,
                keep_terminal: true,
                stdio: Some(child),
                ..container::Options::default()
            },
        )?;
        for warning in &made.warnings {
            log::warn(format_args!("{id}: {warning}"));
        }
        let (pid, left) = (made.init.pid, made.left);
        let born = (made.init, made.terminal, ends);
        let attended = self.attend_init(id, wanted, StateRoot::new(root.path()), owner, left, born);
        let container = match attended {
            Ok(container) => container,
            // It is there by now, and nobody would hear of its end.
            Err(error) => {
                return Err(match container::delete(&root, id, true) {
                    Ok(_) => error,
                    Err(other) => error.attach(&other),
                });
            }
        };
        self.tell_create(wanted, pid);
        self.goes_on(&container, INIT, Phase::Created);
        Ok(pid)
    }

    pub(super) fn tell_create(&self, wanted: &Wanted<'_>, pid: i32) {
        let mut event = events::TaskCreate::new();
        event.container_id = wanted.id.to_string();
        event.bundle = wanted.bundle.display().to_string();
        event.rootfs = wanted.rootfs.iter().map(told_mount).collect();
        event.io = MessageField::some(events::TaskIO {
            stdin: wanted.names.stdin.clone(),
            stdout: wanted.names.stdout.clone(),
            stderr: wanted.names.stderr.clone(),
            terminal: wanted.names.terminal,
            ..events::TaskIO::default()
        });
        event.checkpoint = wanted.images.map(|path| path.display().to_string()).unwrap_or_default();
        event.pid = pid as u32;
        self.events.tell(event);
    }

    /// A container has been made: it gets its place in the table, and its first process is attended.
    fn attend_init(
        self: &Arc<Self>,
        id: &ContainerId,
        wanted: &Wanted<'_>,
        root: StateRoot,
        owner: Owner,
        left: container::Left,
        (init, master, ends): (Newborn, Option<OwnedFd>, stdio::Ends),
    ) -> Result<Arc<Container>> {
        let own_pids = root.open(id)?.state()?.is_some_and(|state| state.own_pids);
        let container = Arc::new(Container {
            id: id.clone(),
            bundle: wanted.bundle.to_path_buf(),
            root,
            owner,
            criu: named(&wanted.options.criu_path),
            own_pids,
            left: Mutex::new(Some(left)),
            heard: Mutex::new(None),
            pending: Mutex::new(None),
            life: Mutex::new(Life::new(Belongings { names: wanted.names.clone(), ..Belongings::default() })),
        });
        self.attend(&container, INIT, init, master, ends)?;
        self.watch_oom(&container).inspect_err(|_| {
            if let Some(init) = container.life().get_mut(INIT) {
                init.with.streams.end(&self.watches);
            }
        })?;
        self.decide(wanted.id, Some(&container));
        Ok(container)
    }

    /// A process has been born: its end is waited for, and its bytes are moved. Where that cannot be, it is ended: nobody
    /// would hear of it.
    pub(super) fn attend(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        born: Newborn,
        master: Option<OwnedFd>,
        ends: stdio::Ends,
    ) -> Result<()> {
        let pidfd = Arc::new(born.pidfd);
        let attended = self.try_attend(container, name, (born.pid, &pidfd), master, ends);
        if attended.is_err() {
            if let Some(process) = container.life().get_mut(name) {
                process.with.streams.end(&self.watches);
                process.with.terminal = None;
                process.with.pidfd = None;
                process.pid = 0;
            }
            // ESRCH: it has ended by itself.
            let _ = sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            // Not here: where it is traced its end takes as long as the tracer likes. Without a thread it stays a zombie.
            let wait = move || children::ended(&pidfd, WaitIdOptions::empty());
            let _ = std::thread::Builder::new().name("unattended".into()).spawn(wait);
        }
        attended
    }

    fn try_attend(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        (pid, pidfd): (i32, &Arc<OwnedFd>),
        master: Option<OwnedFd>,
        ends: stdio::Ends,
    ) -> Result<()> {
        let streams = ends.join(&self.watches, master.as_ref())?;
        let terminal = master.map(|master| {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let peer = ioctl_tiocgptpeer(&master, flags).ok();
            Terminal { master, peer }
        });
        if let Some(process) = container.life().get_mut(name) {
            process.pid = pid;
            process.with.pidfd = Some(Arc::clone(pidfd));
            process.with.streams = streams;
            if process.with.stdin_closed {
                process.with.streams.close_stdin();
            }
            process.with.terminal = terminal;
        }
        let (pod, of, whose) = (Arc::clone(self), Arc::clone(container), name.to_string());
        let react = Box::new(move || {
            pod.reap(&of, &whose);
            Next::Nothing
        });
        self.watches.add(Arc::clone(pidfd), EventFlags::IN, react)?;
        Ok(())
    }

    pub(super) fn watch_oom(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let opened = container.open()?;
        // It may have ended already.
        let Ok(Some(notices)) = container::notices(&opened) else { return Ok(()) };
        if !notices.sees_oom_kills() {
            return Ok(());
        }
        let fds: Vec<OwnedFd> = notices
            .fds()
            .map(|fd| fd.try_clone_to_owned())
            .collect::<std::io::Result<_>>()
            .call("dup of memory.events")?;
        // Who is told of something meanwhile waits until all of it is known.
        let mut held = lock(&container.heard);
        let heard = held.insert(Heard { notices, watches: Vec::new() });
        for fd in fds {
            let (pod, of) = (Arc::clone(self), Arc::downgrade(container));
            let react = Box::new(move || match of.upgrade() {
                Some(container) if pod.tell_oom(&container) => Next::Same,
                _ => Next::Nothing,
            });
            heard.watches.push(self.watches.add(Arc::new(fd), EventFlags::PRI, react)?);
        }
        Ok(())
    }
}

/// What counts of a config.json here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    cgroups_path: String,
}

/// As in Go, an empty path is none.
pub(super) fn named(path: &str) -> Option<PathBuf> {
    Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Whether cgroups are systemd's: the options say so. To a runtime that it does not know Docker passes none, and says it by the
/// form of the path alone.
pub(super) fn by_systemd(wanted: &Wanted<'_>) -> Result<bool> {
    if wanted.options.systemd_cgroup || *wanted.options != Options::default() {
        return Ok(wanted.options.systemd_cgroup);
    }
    let config: Config = serde_json::from_slice(&spec::read(&wanted.bundle.join("config.json"))?)
        .map_err(|e| Error::new(Code::Config, format!("config.json: {e}")))?;
    Ok(names_a_scope(&config.linux.cgroups_path))
}

/// `system.slice:docker:ID`, or with no slice: no cgroupfs path that anybody wants.
fn names_a_scope(path: &str) -> bool {
    match path.split(':').collect::<Vec<_>>()[..] {
        [slice, _, name] => {
            (slice.is_empty() || slice.ends_with(".slice")) && !path.contains('/') && !name.is_empty()
        }
        _ => false,
    }
}

fn told_mount(mount: &Mount) -> types::mount::Mount {
    types::mount::Mount {
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
        ..types::mount::Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::names_a_scope;

    #[test]
    fn a_path_of_systemds_form_is_told_from_one_of_cgroupfs() {
        for (path, is_scope) in [
            ("system.slice:docker:abc", true),
            (":docker:abc", true),
            ("-.slice::abc", true),
            ("", false),
            ("/docker/abc", false),
            ("/system.slice:docker:abc", false),
            ("a:b:c", false),
            ("system.slice:docker:", false),
            ("system.slice:docker:a/b", false),
            ("system.slice:docker:a:b", false),
        ] {
            assert_eq!(names_a_scope(path), is_scope, "{path}");
        }
    }
}
