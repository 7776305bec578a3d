//! A container comes into being: its mounts, its stdio, its first process, and whoever waits for them.

use super::Pod;
use super::container::{Belongings, Container, Terminal, lock};
use crate::life::{INIT, Life, Phase};
use crate::log;
use crate::logger::Whose;
use crate::options::Options;
use crate::rootfs::{self, Mount};
use crate::stdio::{self, Names, Owner};
use crate::watch::Next;
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::types;
use rcrun_runtime::container::{self, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::sys::birth::Newborn;
use rcrun_runtime::{Code, Error, Result};
use rustix::event::epoll::EventFlags;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use std::os::fd::OwnedFd;
use std::path::Path;
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
}

impl Pod {
    /// Makes a container; its pid.
    pub fn create(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<i32> {
        let id: ContainerId = wanted.id.parse()?;
        {
            let mut table = self.table();
            if table.contains_key(wanted.id) {
                return Err(Error::new(Code::Exists, "container with given ID already exists"));
            }
            table.insert(wanted.id.to_string(), None);
        }
        let made = self.make(&id, wanted);
        if made.is_err() {
            self.table().remove(wanted.id);
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
        let made = self.bear(id, wanted, root, owner);
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
                systemd: wanted.options.systemd_cgroup,
                keep_terminal: true,
                stdio: Some(child),
                ..container::Options::default()
            },
        )?;
        for warning in &made.warnings {
            log::warn(format_args!("{id}: {warning}"));
        }
        let opened = root.open(id)?;
        let own_pids = opened.state()?.is_some_and(|state| state.own_pids);
        let container = Arc::new(Container {
            id: id.clone(),
            bundle: wanted.bundle.to_path_buf(),
            root,
            owner,
            own_pids,
            left: Mutex::new(Some(made.left)),
            notices: Mutex::new(None),
            life: Mutex::new(Life::new(Belongings { names: wanted.names.clone(), ..Belongings::default() })),
        });
        let pid = made.init.pid;
        self.table().insert(wanted.id.to_string(), Some(Arc::clone(&container)));
        let ready = self.attend(&container, INIT, made.init, made.terminal, ends);
        let ready = ready.and_then(|()| self.watch_oom(&container));
        if let Err(error) = ready {
            // Nobody would hear of its end.
            return Err(match container::delete(&container.root, id, true) {
                Ok(_) => error,
                Err(other) => error.attach(&other),
            });
        }
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
        event.pid = pid as u32;
        self.events.tell(event);
        self.goes_on(&container, INIT, Phase::Created);
        Ok(pid)
    }

    /// A process has been born: its end is waited for, and its bytes are moved.
    pub(super) fn attend(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        born: Newborn,
        master: Option<OwnedFd>,
        ends: stdio::Ends,
    ) -> Result<()> {
        let pidfd = Arc::new(born.pidfd);
        let streams = ends.join(&self.watches, master.as_ref())?;
        let terminal = master.map(|master| {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let peer = ioctl_tiocgptpeer(&master, flags).ok();
            Terminal { master, peer }
        });
        if let Some(process) = container.life().get_mut(name) {
            process.pid = born.pid;
            process.with.pidfd = Some(Arc::clone(&pidfd));
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
        self.watches.add(pidfd, EventFlags::IN, react)?;
        Ok(())
    }

    fn watch_oom(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let opened = container.root.open(&container.id)?;
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
        *lock(&container.notices) = Some(notices);
        for fd in fds {
            let (pod, of) = (Arc::clone(self), Arc::downgrade(container));
            let react = Box::new(move || match of.upgrade() {
                Some(container) if pod.tell_oom(&container) => Next::Same,
                _ => Next::Nothing,
            });
            self.watches.add(Arc::new(fd), EventFlags::PRI, react)?;
        }
        Ok(())
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
