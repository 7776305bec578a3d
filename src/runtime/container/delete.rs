//! delete: ends what is left, removes cgroup and folder, runs poststop hooks.

use super::hooks;
use super::process::{END, Status, wait_for_end};
use super::state::{Container, State, StateRoot, does_not_exist};
use crate::cgroup::{Cgroup, Shown};
use crate::error::CallContext;
use crate::foreground::Exit;
use crate::spec::id::ContainerId;
use crate::{Code, Error, Result};
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long systemd has, where it does not answer, to remove a cgroup by itself.
const UNASKED: Duration = Duration::from_secs(1);

/// Removes container `id`; with `force` also one that runs, and without complaint one that is not there. Returns
/// warnings: poststop hooks that failed.
pub fn delete(root: &StateRoot, id: &ContainerId, force: bool) -> Result<Vec<String>> {
    let found = root.open(id).and_then(|mut container| {
        if force {
            end_creation(&container)?;
        }
        container.lock().map(|()| container)
    });
    match found {
        Err(e) if force && e.code() == Code::NotFound => Ok(Vec::new()),
        found => delete_open(found?, id, force),
    }
}

/// Removes the container that is open and locked, as `delete` does.
pub(super) fn delete_open(container: Container, id: &ContainerId, force: bool) -> Result<Vec<String>> {
    // Another delete may have been quicker while we waited for the lock.
    if !container.folder().exists() {
        return if force { Ok(Vec::new()) } else { Err(does_not_exist()) };
    }
    let state = match container.state() {
        Ok(state) => state,
        // Nothing that can be read tells of a cgroup or a process: the folder is all there is.
        Err(_) if force => None,
        Err(e) => return Err(e),
    };
    let status = container.status(state.as_ref());
    match status {
        // A created container has not run anything; engines delete it like a stopped one.
        Status::Stopped | Status::Created | Status::Creating => {}
        _ if force => {}
        other => {
            return Err(Error::new(
                Code::Status,
                format!(
                    "cannot delete container {id} that is not stopped: {} (--force ends it first)",
                    other.as_str()
                ),
            ));
        }
    }
    let mut warnings = Vec::new();
    if let Some(state) = &state {
        if let Some(process) = state.process.as_ref().filter(|_| status != Status::Stopped)
            && let Ok(pidfd) = process.pidfd()
        {
            end(&pidfd, process.pid)?;
        }
        if let Some(cgroup) = state.open_cgroup()? {
            // Without a pid namespace of its own, or after a create that was killed, processes are left.
            end_all(&cgroup)?;
            cgroup.leave_oom_kills();
            if let Some(Err(error)) = state.unit.as_ref().map(|unit| unit.stop()) {
                warnings.push(error.to_string());
                // It may live all the same, and sees that a scope is empty only as long as the cgroup is there.
                cgroup.wait_removed(UNASKED)?;
            }
            cgroup.destroy(END)?;
        } else if state.process.is_none() {
            clear_unused(state, &mut warnings)?;
        } else if let Some(unit) = state.unit.as_ref().filter(|unit| unit.kept) {
            warnings.extend(unit.forget().err().map(|error| error.to_string()));
        }
        if let Some(groups) = &state.resctrl {
            warnings.extend(groups.remove().err().map(|error| error.to_string()));
        }
        if state.hooks
            && let Ok(spec) = container.spec()
        {
            warnings.extend(hooks::poststop(&spec, state).iter().map(ToString::to_string));
        }
    }
    container.remove()?;
    Ok(warnings)
}

/// What a create that was killed left before init was born. A scope whose process ends just before systemd has it there is
/// never found empty: the kernel moves no process that is ending, and says that it did.
fn clear_unused(state: &State, warnings: &mut Vec<String>) -> Result<()> {
    let settled = state.unit.as_ref().map(|unit| unit.settle());
    let Some(cgroup) = state.cgroup_by_name()? else { return Ok(()) };
    match (&state.unit, settled) {
        (Some(unit), Some(Ok(()))) => {
            if cgroup.is_unused()? {
                unit.stop()?;
            }
            Ok(())
        }
        (_, failed) => {
            warnings.extend(failed.and_then(|settled| settled.err()).map(|error| error.to_string()));
            cgroup.remove_unused()
        }
    }
}

/// A create that goes on fails and unmakes its container when its init dies; of one that was killed, a child that has not
/// come to its exec may still hold the lock. Either way the lock is free soon after.
fn end_creation(container: &Container) -> Result<()> {
    if container.is_locked()
        && let Ok(Some(state)) = container.state()
        && state.process.is_none()
        && let Some(cgroup) = state.open_cgroup()?
    {
        cgroup.kill_all()?;
    }
    Ok(())
}

/// What is to be removed of a container that runs in the foreground. Who started it knows all of it and reads nothing again.
#[derive(Debug)]
pub struct Left {
    container: Container,
    cgroup: Option<Cgroup>,
    mark: String,
    /// It takes more than removing.
    more: bool,
}

impl Left {
    /// Of a container that has just been made: others may have it from now on.
    pub(super) fn of(container: Container, cgroup: Option<Cgroup>, state: &State) -> Result<Left> {
        container.unlock()?;
        if let Some(cgroup) = &cgroup {
            cgroup.unlock()?;
        }
        let more = state.hooks || state.unit.is_some() || state.resctrl.is_some();
        Ok(Left { container, cgroup, mark: state.mark().to_string(), more })
    }

    /// Whether `exit` was the OOM killer's work, as far as is known. `last` is what was seen of the cgroup.
    pub fn by_oom_killer(&self, exit: Exit, last: Option<&Shown>) -> bool {
        let count = || {
            let now = self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok().flatten());
            now.or(last.and_then(|last| last.oom_kills))
        };
        exit == Exit::Signal(libc::SIGKILL) && super::end::by_oom_killer(exit, count()) == Some(true)
    }

    /// Keeps in the container's state how it has ended, for as long as it is not deleted. `last` is what was seen of the
    /// cgroup: systemd may have removed it.
    pub fn record(&self, exit: Exit, last: Option<Shown>) -> Result<()> {
        let now = self.cgroup.as_ref().map(Cgroup::shown).unwrap_or_default();
        let shown = now.or(last.unwrap_or_default());
        match self.container.relock()? {
            true => super::end::record(&self.container, exit, &shown).and_then(|()| self.container.unlock()),
            // It was deleted meanwhile.
            false => Ok(()),
        }
    }

    /// False when it takes more than removing.
    fn remove(&self) -> Result<bool> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.leave_oom_kills();
        }
        if self.more {
            return Ok(false);
        }
        // Another delete was quicker; what has its name now is none of ours.
        if !self.container.relock()? {
            return Ok(true);
        }
        let Some(cgroup) = &self.cgroup else { return Ok(self.container.remove().is_ok()) };
        // Another container may have taken the cgroup since it became empty.
        if cgroup.owner()?.as_ref() != Some(&self.mark) {
            return Ok(false);
        }
        Ok(cgroup.remove_empty() && self.container.remove().is_ok())
    }
}

/// Removes container `id`, whose init has ended and was waited for, with all that is left of it. Returns warnings.
pub fn delete_ended(root: &StateRoot, id: &ContainerId, left: Left) -> Result<Vec<String>> {
    match left.remove()? {
        true => Ok(Vec::new()),
        false => {
            drop(left);
            delete(root, id, true)
        }
    }
}

/// Kills a process and waits for its end.
pub(super) fn end(pidfd: &OwnedFd, pid: i32) -> Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => return Err(e).call(format!("kill {pid}")),
    }
    wait_for_end(pidfd.as_fd())
}

/// Kills all processes of a cgroup and waits until they are gone.
pub(super) fn end_all(cgroup: &Cgroup) -> Result<()> {
    match cgroup.events()? {
        Some(events) if events.populated => {}
        _ => return Ok(()),
    }
    cgroup.kill_all()?;
    match cgroup.wait_empty(END)? {
        true => Ok(()),
        false => Err(Error::new(
            Code::System,
            format!(
                "processes of cgroup {} do not end after SIGKILL: they wait in the kernel",
                cgroup.path()
            ),
        )),
    }
}
