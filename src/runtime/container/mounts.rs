//! mounts add and remove: what a container that runs gets mounted, and what is taken away. A start's road with a plan that
//! joins, mounts, and ends (compile::running): the container is there and may do anything meanwhile.

use super::exec::{cgroup_for, lower};
use super::process::{Process, Status, ended};
use super::state::{Container, Mounted, State};
use crate::cgroup::Cgroup;
use crate::compile::{Request, running};
use crate::host::Host;
use crate::launch::{Event, Init, launch};
use crate::plan::Plan;
use crate::prepare::{Means, prepare, wanted};
use crate::spec::{self, Spec};
use crate::{Code, Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Mounts what `text`, a list as `mounts` of config.json, says: all of it or nothing.
pub fn add_mounts(container: &mut Container, text: &[u8]) -> Result<()> {
    let running = Running::of(container)?;
    let spec = running.config.with_mounts(text)?;
    let state = &running.state;
    let mut request = Request::create(&state.id, &state.bundle);
    request.cgroup = state.cgroup.is_some();
    let host = Host::read()?;
    let add = || {
        let spread = state.mounts.iter().any(|mount| mount.shared);
        let plan = running::add(&spec, &running.config, spread, &host, &request)?;
        let mut known = state.mounts.clone();
        let keep = |mounts| container.change(|state| state.mounts = mounts);
        // Known before it is there, and for as long as the container runs, which may mount it elsewhere.
        let shared = spec.mounts().iter().flatten().find(|entry| !spread && running::shares(entry));
        if let Some(entry) = shared {
            known.push(Mounted { destination: plain(entry.destination()), id: None, shared: true });
            keep(known.clone())?;
        }
        let mut made = Vec::new();
        let done = running.carry_out(&plan, |origin, id| {
            let entry = origin.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
            let entry = entry.and_then(|i| spec.mounts().as_ref()?.get(i));
            made.extend(entry.map(|entry| Mounted {
                destination: plain(entry.destination()),
                id: Some(id),
                shared: false,
            }));
        });
        let done = done.and_then(|()| keep(known.iter().chain(&made).cloned().collect()));
        done.map_err(|error| {
            let (before, mut error) = (known.len(), error);
            for mount in made.iter().rev() {
                // The container may have renamed what lies above it: `mounts remove` takes it away when it lies there again.
                if let Err(other) = running.remove(&mount.destination, mount.id) {
                    known.insert(before, mount.clone());
                    error = error.attach(&other);
                }
            }
            match known.len() == before {
                true => error,
                false => keep(known).err().iter().fold(error, |error, other| error.attach(other)),
            }
        })
    };
    running.told(add())
}

/// Takes away what lies at the destinations of `text`, a list as `mounts` of config.json, the last first.
pub fn remove_mounts(container: &mut Container, text: &[u8]) -> Result<()> {
    let mut running = Running::of(container)?;
    let destinations = spec::parse_destinations(text)?;
    // What is wrong with one is told before any is taken away.
    let all: Vec<(&Path, Option<u64>)> = destinations.iter().map(|path| (path.as_path(), None)).collect();
    running::remove(&running.config, &all).map_err(of_list)?;
    for (i, destination) in destinations.iter().enumerate().rev() {
        let destination = plain(destination);
        let is_it = |mount: &Mounted| mount.id.is_some() && mount.destination == destination;
        let known = running.state.mounts.iter().rposition(is_it);
        let id = known.and_then(|known| running.state.mounts[known].id);
        let removed = running.remove(&destination, id).map_err(|error| {
            // It was compiled as the only one.
            let text = error.to_string();
            let text = text.strip_prefix("/mounts/0: ").unwrap_or(&text).to_string();
            let error = error.errno().map_or_else(
                || Error::new(error.code(), text.clone()),
                |errno| Error::new(error.code(), text.clone()).with_errno(errno),
            );
            error.context(format!("mounts: /{i}")).at(format!("/{i}"))
        });
        running.told(removed)?;
        if let Some(known) = known {
            running.state.mounts.remove(known);
            container.change(|state| state.mounts.clone_from(&running.state.mounts))?;
        }
    }
    Ok(())
}

/// A fault of an entry, told as one of the list.
fn of_list(error: Error) -> Error {
    error.in_part("/mounts", spec::MOUNTS)
}

/// The one spelling of a path below the container's root.
fn plain(path: &Path) -> PathBuf {
    Path::new("/").join(spec::path::below_root(path))
}

/// A container that runs.
struct Running {
    state: State,
    config: Spec,
    init: Process,
    /// Of two at once the second sees what the first has done.
    _turn: OwnedFd,
}

impl Running {
    fn of(container: &mut Container) -> Result<Running> {
        let turn = container.lock_mounts()?;
        let state = container.state()?;
        match (container.status(state.as_ref()), state) {
            (Status::Running | Status::Created, Some(state)) => match state.process.clone() {
                Some(init) => Ok(Running { config: container.spec()?, init, state, _turn: turn }),
                None => Err(Error::new(Code::Status, "container not running")),
            },
            (Status::Paused, _) => {
                Err(Error::new(Code::Status, "the container is paused: `rcrun resume` it first"))
            }
            _ => Err(Error::new(Code::Status, "container not running")),
        }
    }

    /// It may have ended meanwhile, and its namespaces and cgroup with it.
    fn told(&self, done: Result<()>) -> Result<()> {
        done.map_err(of_list).map_err(|error| match self.init.is_ending() {
            false => error,
            true => error.context("container not running: it has ended meanwhile").with_code(Code::Status),
        })
    }

    fn remove(&self, destination: &Path, id: Option<u64>) -> Result<()> {
        self.carry_out(&running::remove(&self.config, &[(destination, id)])?, |_, _| {})
    }

    /// Does what the plan says. `mounted` hears of each new mount: the JSON pointer of its entry, and its id.
    fn carry_out(&self, plan: &Plan, mounted: impl FnMut(&str, u64)) -> Result<()> {
        let (state, pidfd) = (&self.state, self.init.pidfd()?);
        let init = (self.init.pid, pidfd.as_fd());
        if let Some(unit) = &state.unit {
            unit.join()?;
        }
        // In the container's cgroup: what a tmpfs is filled with is memory of the container's.
        match self.bear(plan, init, cgroup_for(state, None)?.as_ref(), mounted) {
            Err((error, None)) => Err(error),
            Err((error, Some(mounted))) => {
                let below = lower(state, init.0, error)?;
                self.bear(plan, init, Some(&below), mounted).map_err(|(error, _)| error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// An error gives `mounted` back where nothing was born.
    fn bear<F: FnMut(&str, u64)>(
        &self,
        plan: &Plan,
        init: (i32, BorrowedFd<'_>),
        cgroup: Option<&Cgroup>,
        mut mounted: F,
    ) -> std::result::Result<(), (Error, Option<F>)> {
        let folder = self.state.cgroup.as_ref().map(|(mount, path)| mount.join(path.trim_start_matches('/')));
        let mut means = Means { init: Some(init), cgroup: folder, ..Means::default() };
        let born = prepare(plan, &mut means).and_then(|fds| {
            let trees = if plan.clones_inside { wanted(plan, &fds, &means)? } else { Vec::new() };
            Ok((launch(plan, fds, cgroup.map(AsFd::as_fd), None, None)?, trees))
        });
        let (mut child, trees) = match born {
            Ok(born) => born,
            Err(error) => return Err((error, Some(mounted))),
        };
        let mut attend = |child: &mut Init<'_>| {
            if plan.clones_inside {
                child.clone_for(init.1, &trees)?;
            }
            loop {
                match child.next_event()? {
                    Event::Trees => {}
                    Event::Mounted(step, id) => {
                        let origin = plan.steps.get(step as usize).map(|planned| planned.origin.as_str());
                        mounted(origin.unwrap_or_default(), id);
                    }
                    Event::Ready => return Ok(()),
                    _ => return Err(Error::new(Code::System, "init said what nobody does who only mounts")),
                }
            }
        };
        match attend(&mut child) {
            Ok(()) => child.dismiss().map_err(|error| (error, None)),
            Err(error) => Err((ended(&child, error), None)),
        }
    }
}
