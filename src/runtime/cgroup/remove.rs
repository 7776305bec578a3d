//! Removes a container's cgroup with all that was made below it.

use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::Cgroup;
use super::events::{EventsFile, Waited, deadline};
use super::file::open_parent;
use super::walk::walk;
use crate::{Code, Error, Result};

/// How long an rmdir that fails with EBUSY for no visible reason waits for a change before it is tried again.
const UNEXPLAINED: Duration = Duration::from_millis(20);

impl Cgroup {
    /// Removes the cgroup and those below it; the ones above stay, also where `create` made them, as with runc: other
    /// containers may be about to use them. Kills nothing. Waits for live processes to end, at most `timeout`.
    /// A cgroup that is gone already is no error.
    pub fn destroy(&self, timeout: Duration) -> Result<()> {
        let fail = |errno| Error::call(format!("rmdir cgroup {}", self.path()), errno);
        let deadline = deadline(timeout);
        let parent = match open_parent(self) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(errno) => return Err(fail(errno)),
        };
        let (_, name) = self.path().split();
        loop {
            match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Processes, or cgroups below: the errno is the same.
                Err(Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(errno) => return Err(fail(errno)),
            }
            let Some(events) = EventsFile::open(self)? else { return Ok(()) };
            match events.wait(deadline, |events| !events.populated)? {
                Waited::Gone => return Ok(()),
                Waited::TimedOut => return Err(self.still_busy(timeout)),
                Waited::Reached => {}
            }
            if !self.remove_below()? {
                if Instant::now() >= deadline {
                    return Err(self.still_busy(timeout));
                }
                // Nothing visible holds it: a process that entered and ended, or a kernel that is not done with a
                // dead one yet. The next change of cgroup.events says more, or time does.
                events.changed(deadline.min(Instant::now() + UNEXPLAINED))?;
            }
        }
    }

    /// Removes the cgroup if nothing is in it; true when it is gone. `destroy` finds out what keeps it.
    pub fn remove_empty(&self) -> bool {
        let (_, name) = self.path().split();
        let removed = open_parent(self).and_then(|parent| unlinkat(&parent, name, AtFlags::REMOVEDIR));
        matches!(removed, Ok(()) | Err(Errno::NOENT | Errno::NODEV))
    }

    /// Undoes `create` after a start that failed: destroys the cgroup, and the ones above it that `create` made and
    /// nobody uses.
    pub fn abandon(&self, timeout: Duration) -> Result<()> {
        let above: Vec<_> = self.path().names().rev().take(self.created()).skip(1).collect();
        let parent = open_parent(self);
        self.destroy(timeout)?;
        let Ok(mut dir) = parent else { return Ok(()) };
        for name in above {
            let Ok(parent) = open_parent(&dir) else { break };
            // EBUSY: in use by now. Whatever it is, an empty cgroup that stays harms nobody.
            if unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            dir = parent;
        }
        Ok(())
    }

    /// Nobody has marked it, nothing is in it, and from now on no other create takes it.
    pub fn is_unused(&self) -> Result<bool> {
        let empty = || Ok(self.events()?.is_some_and(|events| !events.populated));
        Ok(self.try_lock()? && self.owner()?.is_none() && empty()?)
    }

    /// Removes what a create that was killed left before anything could be in it: an empty directory that nobody has
    /// taken meanwhile. Anything else stays.
    pub fn remove_unused(&self) -> Result<()> {
        let Ok(parent) = open_parent(self) else { return Ok(()) };
        if !self.is_unused()? {
            return Ok(());
        }
        match unlinkat(&parent, self.path().split().1, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => Ok(()),
            Err(errno) => Err(Error::call(format!("rmdir cgroup {}", self.path()), errno)),
        }
    }

    /// Removes what is below, deepest first. True when something was removed.
    fn remove_below(&self) -> Result<bool> {
        let mut removed = false;
        walk(self, &mut |_| Ok(()), &mut |parent, name| {
            match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) => removed = true,
                // EBUSY: a process or a cgroup came in meanwhile. The caller looks again.
                Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(errno) => {
                    let name = name.to_string_lossy();
                    return Err(Error::call(format!("rmdir {name} below cgroup {}", self.path()), errno));
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }

    fn still_busy(&self, timeout: Duration) -> Error {
        let holders = match self.processes() {
            Ok(ids) if !ids.is_empty() => {
                let some: Vec<_> = ids.iter().take(10).map(u32::to_string).collect();
                format!(
                    "processes {}{} are in it",
                    some.join(", "),
                    if ids.len() > 10 { ", ..." } else { "" }
                )
            }
            _ => "no visible process is in it".to_string(),
        };
        Error::new(Code::System, format!("cgroup {} is still busy after {timeout:?}: {holders}", self.path()))
            .with_errno(libc::EBUSY)
    }
}
