//! list and state: what containers there are, and how each is.

use super::end::{self, End};
use super::process::Status;
use super::state::{Container, State, StateRoot};
use crate::Result;
use crate::spec::id::ContainerId;

/// A container as `list` and `state` show it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: ContainerId,
    /// How it is.
    pub status: Status,
    /// Its state; missing where a create was killed before it wrote one, or where the file cannot be read.
    pub state: Option<State>,
}

impl Listed {
    /// How container `id` is now.
    pub fn read(container: &Container, id: ContainerId) -> Result<Self> {
        let state = container.state()?;
        let status = container.status(state.as_ref());
        Ok(Listed { id, status, state })
    }

    /// How it has ended, if it has.
    pub fn end(&self) -> Option<End> {
        end::of(self.state.as_ref(), self.status)
    }

    /// Its pid in rcrun's pid namespace; 0 when it has stopped.
    pub fn pid(&self) -> i32 {
        match self.status {
            Status::Stopped => 0,
            _ => self.state.as_ref().and_then(|s| s.process.as_ref()).map_or(0, |p| p.pid),
        }
    }
}

/// All containers of `root`. One that goes away meanwhile is left out; one with a broken state is listed as stopped, so
/// that it can be seen and deleted.
pub fn list(root: &StateRoot) -> Result<Vec<Listed>> {
    let read = |id: ContainerId| {
        let container = root.open(&id).ok()?;
        Some(match Listed::read(&container, id.clone()) {
            Ok(listed) => listed,
            Err(e) if e.code() == crate::Code::NotFound => return None,
            Err(_) => Listed { id, status: Status::Stopped, state: None },
        })
    };
    Ok(root.ids()?.into_iter().filter_map(read).collect())
}
