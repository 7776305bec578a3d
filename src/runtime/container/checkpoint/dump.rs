//! checkpoint: the processes of a container written to images.

use super::external::{Inside, declare_for_dump};
use super::folder::Folder;
use super::{EXTERNAL_NET, EXTERNAL_PID, Images, check_parent, descriptors, refuse, refuse_users};
use crate::container::delete;
use crate::container::process::{END, Status};
use crate::container::state::{State, StateRoot};
use crate::criu::message::{Kind, Number, Options, Switch, Text};
use crate::criu::{Criu, Given};
use crate::error::CallContext;
use crate::host::Host;
use crate::spec::id::ContainerId;
use crate::spec::{Namespace, Spec};
use crate::{Code, Error, Result};
use oci_spec::runtime::LinuxNamespaceType;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

const LOG: &str = "dump.log";

/// What the command line says of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    /// What a restore has too.
    pub images: Images,
    /// Images of an earlier one, relative to these: memory that has not changed since is not written again.
    pub parent: Option<PathBuf>,
    /// Write the memory only, and let the processes run.
    pub pre_dump: bool,
    /// Let the processes run afterwards; else the container is deleted.
    pub leave_running: bool,
    /// Leave out TCP connections that are not yet accepted.
    pub tcp_skip_in_flight: bool,
    /// Write files that have no name any more, by giving them one.
    pub link_remap: bool,
    /// Send memory to a page server.
    pub page_server: Option<PageServer>,
    /// A zero byte is written to it when whoever wants pages may come (lazy pages).
    pub status: Option<Arc<OwnedFd>>,
    /// `--rootless`
    pub rootless: Option<bool>,
}

/// Who takes pages, or asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageServer {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
}

/// Writes container `id` to images. It is deleted then, unless it is left running; after a failure it runs on. Returns
/// warnings.
pub fn checkpoint(root: &StateRoot, id: &ContainerId, options: &CheckpointOptions) -> Result<Vec<String>> {
    refuse_users("checkpoint", &Host::read()?, options.rootless)?;
    let mut container = root.open(id)?;
    // Who waits for pages may wait long: others must be able to kill it.
    if !options.images.lazy_pages {
        container.lock()?;
    }
    let state = container.state()?;
    let status = container.status(state.as_ref());
    let running = |state: State| state.process.clone().map(|process| (state, process));
    let (state, process) = match (status, state.and_then(running)) {
        (Status::Running | Status::Paused, Some(running)) => running,
        _ => {
            return Err(Error::new(
                Code::Status,
                format!("cannot checkpoint a container that is {}: it must run", status.as_str()),
            ));
        }
    };
    let spec = container.spec()?;
    refuse(&spec)?;
    let criu = Criu::find(options.images.criu.as_deref(), std::env::var_os("PATH").as_deref())?;
    // What is asked comes before what the machine has, as with runc.
    let folder = Folder::make(&options.images)?;
    if let Some(parent) = &options.parent {
        check_parent(parent, &options.images.path)?;
    }
    criu.check_version()?;
    check_features(&criu, options)?;
    folder.remove_log(LOG)?;
    // It may have been there before.
    folder.refuse_others(&options.images, options.parent.as_deref())?;

    let mut asked = Options::default();
    options.images.say(LOG, &folder, &mut asked);
    asked.number(Number::Pid, process.pid as u32);
    asked.text(Text::Root, state.rootfs.to_str().unwrap_or_default());
    asked.switch(Switch::LeaveRunning, options.leave_running);
    asked.switch(Switch::TcpSkipInFlight, options.tcp_skip_in_flight);
    asked.switch(Switch::LinkRemap, options.link_remap);
    asked.switch(Switch::TrackMem, options.pre_dump || options.parent.is_some());
    if let Some(parent) = &options.parent {
        asked.text(Text::ParentImg, parent.to_str().unwrap_or_default());
    }
    if let Some(server) = &options.page_server {
        asked.page_server(&server.address, server.port);
    }
    let place = state.place()?;
    if let Some((hierarchy, path)) = &place {
        let frozen_by = hierarchy.path().join(path.relative());
        asked.text(Text::FreezeCgroup, frozen_by.to_str().unwrap_or_default());
    }
    external_namespaces(&spec, process.pid, &mut asked)?;
    let inside = Inside::of(process.pid)?;
    declare_for_dump(&spec, &inside, place.as_ref(), &mut asked)?;
    if !options.pre_dump {
        let was = descriptors::of(process.pid, &inside);
        descriptors::declare(&was, &mut asked);
        folder.write_descriptors(&was)?;
    }

    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let mut worker = criu.start(&Given { own_group: !options.images.shell_job, ..Given::default() })?;
    let dumped =
        worker.talk(kind, Some(&asked), &mut |notice| match (notice.name.as_str(), &options.status) {
            ("status-ready", Some(status)) => {
                rustix::io::write(status, &[0]).map(|_| ()).call("write to --status-fd")
            }
            _ => Ok(()),
        });
    // After a pre-dump it would wait for the next one.
    let ended = worker.end();
    let dumped = dumped.and(ended);
    if let Err(error) = dumped {
        let error = folder.with_log(LOG, error);
        return Err(match as_before(&state, status) {
            Ok(()) => error,
            Err(left) => error.attach(&left),
        });
    }
    if options.leave_running || options.pre_dump {
        return Ok(Vec::new());
    }
    // Not by its id alone: while pages were waited for, that may have become another's.
    match container.lock() {
        Err(error) if error.code() == Code::NotFound => return Ok(Vec::new()),
        locked => locked?,
    }
    match container.state()? {
        Some(now) if now.mark() == state.mark() => delete::delete_open(container, id, true),
        _ => Ok(Vec::new()),
    }
}

/// A CRIU that was killed has left it frozen; one that failed has thawed what was paused.
fn as_before(state: &State, was: Status) -> Result<()> {
    let Some(cgroup) = state.open_cgroup()? else { return Ok(()) };
    match (was, cgroup.is_frozen()?) {
        (Status::Running, true) => cgroup.thaw(END),
        (Status::Paused, false) => cgroup.freeze(END),
        _ => Ok(()),
    }
}

fn check_features(criu: &Criu, options: &CheckpointOptions) -> Result<()> {
    let tracks = options.pre_dump || options.parent.is_some();
    if !tracks && !options.images.lazy_pages {
        return Ok(());
    }
    let features = criu.features()?;
    let lacks = |what: &str, config: &str| {
        Err(Error::new(Code::Host, format!("{what}: CRIU or this kernel (without {config}) cannot do it")))
    };
    if tracks && !features.tracks_memory {
        return lacks(
            "--pre-dump and --parent-path need to track which memory is written",
            "CONFIG_MEM_SOFT_DIRTY",
        );
    }
    if options.images.lazy_pages && !features.lazy_pages {
        return lacks("--lazy-pages needs to hand out memory as it is asked for", "CONFIG_USERFAULTFD");
    }
    Ok(())
}

/// Those that are others' are not written; a restore finds them by config.json.
fn external_namespaces(spec: &Spec, pid: i32, options: &mut Options) -> Result<()> {
    for (kind, name, key) in
        [(LinuxNamespaceType::Network, "net", EXTERNAL_NET), (LinuxNamespaceType::Pid, "pid", EXTERNAL_PID)]
    {
        if let Namespace::Join(_) = spec.namespace(kind) {
            // Not by its path, where another may be by now.
            let path = format!("/proc/{pid}/ns/{name}");
            let inode = rustix::fs::stat(path.as_str()).call(format!("stat {path}"))?.st_ino;
            options.text(Text::External, &format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(())
}
