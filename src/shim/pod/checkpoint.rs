//! Containers are written to images, and made of them again: created is what has a place in the table and no process, and
//! its start restores it. Uses: options, stdio.

use super::Pod;
use super::container::{Belongings, Container, lock};
use super::create::{Wanted, by_systemd, named};
use crate::life::{INIT, Life, Phase};
use crate::log;
use crate::logger::Whose;
use crate::stdio::{self, Owner};
use containerd_shim_protos::events::task as events;
use rcrun_runtime::container::{self, CheckpointOptions, Images, RestoreOptions, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::spec::{self, id::ContainerId};
use rcrun_runtime::{Code, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Where CRIU's log lies, in the bundle: what is left beside the images goes with them to wherever containerd keeps them.
const WORK: &str = "criu-work";

/// A container that its start will restore.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    images: PathBuf,
    work: Option<PathBuf>,
    systemd: bool,
}

impl Pod {
    /// Writes a container to images; unless it is left running, it ends by that.
    pub fn checkpoint(&self, id: &str, options: CheckpointOptions) -> Result<()> {
        let container = self.container(id)?;
        // What is not there yet has no lock to wait for either.
        drop(container.open()?);
        {
            let mut life = container.life();
            match life.get_mut(INIT).filter(|init| init.phase == Phase::Running && init.ended.is_none()) {
                Some(init) => init.phase = Phase::Written,
                None => {
                    let text =
                        format!("cannot checkpoint container {id}: it does not run, or is being written");
                    return Err(Error::new(Code::Status, text));
                }
            }
        }
        let images = Images {
            criu: container.criu.clone(),
            work: work(&container.bundle, options.images.work.clone()),
            ..options.images
        };
        let options = CheckpointOptions { images, ..options };
        let written = container::checkpoint(&container.root, &container.id, &options);
        if let Ok(warnings) = &written {
            warnings.iter().for_each(|warning| log::warn(format_args!("{id}: {warning}")));
            let mut event = events::TaskCheckpointed::new();
            event.container_id = id.to_string();
            event.checkpoint = options.images.path.display().to_string();
            self.events.tell(event);
        }
        self.goes_on(&container, INIT, Phase::Running);
        written.map(drop).context(format!("checkpoint {id}"))
    }

    /// A container that has images, and no process before its start.
    pub(super) fn create_of_images(
        self: &Arc<Self>,
        id: &ContainerId,
        wanted: &Wanted<'_>,
        (root, owner): (StateRoot, Owner),
        images: &Path,
    ) -> Result<i32> {
        // What is wrong with either is told now.
        let config = spec::parse(&spec::read(&wanted.bundle.join("config.json"))?)?;
        std::fs::read_dir(images).call(format!("the checkpoint {}: open", images.display()))?;
        let work = named(&wanted.options.criu_work_path);
        let pending = Pending { images: images.to_path_buf(), work, systemd: by_systemd(wanted)? };
        let container = Arc::new(Container {
            id: id.clone(),
            bundle: wanted.bundle.to_path_buf(),
            root,
            owner,
            criu: named(&wanted.options.criu_path),
            own_pids: config.own_pids(),
            left: Mutex::new(None),
            heard: Mutex::new(None),
            pending: Mutex::new(Some(pending)),
            life: Mutex::new(Life::new(Belongings { names: wanted.names.clone(), ..Belongings::default() })),
        });
        self.decide(wanted.id, Some(&container));
        self.tell_create(wanted, 0);
        self.goes_on(&container, INIT, Phase::Created);
        Ok(0)
    }

    /// Restores a container whose start it is. It can be tried again.
    pub(super) fn restore(self: &Arc<Self>, container: &Arc<Container>, pending: Pending) -> Result<()> {
        let names = container.life().get(INIT).map(|init| init.with.names.clone()).unwrap_or_default();
        let whose = Whose { namespace: &self.namespace, id: container.id.as_str() };
        let (child, ends) = stdio::open(&names, container.owner, whose, &self.watches)?;
        let images = Images {
            criu: container.criu.clone(),
            path: pending.images,
            work: work(&container.bundle, pending.work),
            // Whoever has written them was asked; containerd says nothing of that here.
            tcp_established: true,
            file_locks: true,
            ..Images::default()
        };
        let made = container::restore(
            &container.root,
            &container.id,
            &RestoreOptions {
                images,
                bundle: container.bundle.clone(),
                keep_terminal: true,
                stdio: Some(child),
                systemd: pending.systemd,
                ..RestoreOptions::default()
            },
        )
        .context(format!("restore {}", container.id))?;
        for warning in &made.warnings {
            log::warn(format_args!("{}: {warning}", container.id));
        }
        *lock(&container.left) = Some(made.left);
        lock(&container.pending).take();
        let attended = self
            .attend(container, INIT, made.init, made.terminal, ends)
            .and_then(|()| self.watch_oom(container));
        // It runs by now, and nobody would hear of its end.
        attended.map_err(|error| match container::delete(&container.root, &container.id, true) {
            Ok(_) => error,
            Err(other) => error.attach(&other),
        })
    }
}

fn work(bundle: &Path, said: Option<PathBuf>) -> Option<PathBuf> {
    said.or_else(|| Some(bundle.join(WORK)))
}
