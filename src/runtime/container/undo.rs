//! What a create, run or restore that failed has made is unmade, in reverse. Uses: cgroup, delete, hooks, state.

use super::delete;
use super::hooks;
use super::process::END;
use super::state::{Container, State};
use crate::Error;
use crate::cgroup::Cgroup;
use crate::resctrl::Groups;
use crate::spec::Spec;

/// What a failed start leaves, unmade.
pub(super) struct Undo<'a> {
    pub(super) container: &'a Container,
    pub(super) state: &'a State,
    pub(super) spec: &'a Spec,
    pub(super) cgroup: Option<Cgroup>,
    /// What has begun ends with its poststop hooks.
    pub(super) launched: bool,
}

impl Undo<'_> {
    pub(super) fn all(self, mut error: Error) -> Error {
        if let Some(cgroup) = &self.cgroup
            && let Err(e) = delete::end_all(cgroup).and_then(|()| cgroup.abandon(END))
        {
            error = error.attach(&e);
        }
        if let Some(unit) = &self.state.unit
            && let Err(e) = unit.stop()
        {
            error = error.attach(&e);
        }
        if let Some(Err(e)) = self.state.resctrl.as_ref().map(Groups::remove) {
            error = error.attach(&e);
        }
        if self.launched {
            for failed in hooks::poststop(self.spec, self.state) {
                error = error.attach(&failed);
            }
        }
        match self.container.remove() {
            Ok(()) => error,
            Err(e) => error.attach(&e),
        }
    }
}
