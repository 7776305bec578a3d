//! What happens in a cgroup, for who watches it: the OOM killer kills, the last process ends. Also to who is slow: a cgroup
//! that is removed takes its count of kills along, so who removes it leaves the count behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use super::Cgroup;
use super::events::{EventsFile, Watched};
use crate::Result;
use crate::error::CallContext;

/// The count that stays. The files of a removed cgroup cannot be read any more; attributes of its directory can, by those
/// who have it open. `user.`: an ordinary user can set it too, and a payload that does tells of nothing that it could not do.
pub(super) const KILLS: &str = "user.rcrun.oom_kills";

/// An open cgroup, and what has been told of it.
#[derive(Debug)]
pub struct Notices {
    dir: OwnedFd,
    tree: EventsFile,
    memory: Option<Watched>,
    oom_kills: u64,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The OOM killer has killed in the cgroup or below it.
    OomKill,
    /// No process is left.
    Ended,
}

impl Notices {
    /// From now on. None when the cgroup is gone.
    pub fn open(cgroup: &Cgroup) -> Result<Option<Notices>> {
        let Some(tree) = EventsFile::open(cgroup)? else { return Ok(None) };
        let memory = Watched::open(cgroup, "memory.events")?;
        let dir = cgroup.as_fd().try_clone_to_owned().call("dup")?;
        let mut notices = Notices { dir, tree, memory, oom_kills: 0 };
        notices.oom_kills = notices.count()?.unwrap_or(0);
        Ok(Some(notices))
    }

    /// Without a memory controller there is no count of what the OOM killer does.
    pub fn sees_oom_kills(&self) -> bool {
        self.memory.is_some()
    }

    /// What to wait for with POLLPRI.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.tree.as_fd()).chain(self.memory.iter().map(AsFd::as_fd))
    }

    /// What has happened since the last call. A kill stands before the end that it brought.
    pub fn take(&mut self) -> Result<Vec<Notice>> {
        let ended = !self.tree.read()?.is_some_and(|events| events.populated);
        let kills = self.count()?.or_else(|| self.left()).unwrap_or(self.oom_kills);
        let killed = (kills > self.oom_kills).then_some(Notice::OomKill);
        self.oom_kills = kills;
        Ok(killed.into_iter().chain(ended.then_some(Notice::Ended)).collect())
    }

    fn count(&self) -> Result<Option<u64>> {
        let text = self.memory.as_ref().map(Watched::read).transpose()?.flatten();
        Ok(text.and_then(|text| oom_kills(&text)))
    }

    /// What `leave_oom_kills` left.
    fn left(&self) -> Option<u64> {
        let mut buffer = [0_u8; 20];
        let length = fgetxattr(&self.dir, KILLS, &mut buffer[..]).ok()?;
        str::from_utf8(&buffer[..length]).ok()?.parse().ok()
    }
}

impl Cgroup {
    /// Before it is removed: leaves the count of kills for who watches it. A notice that is lost is no reason to keep it.
    pub fn leave_oom_kills(&self) {
        if let Ok(Some(kills)) = self.oom_kills()
            && kills > 0
        {
            let _ = fsetxattr(self, KILLS, kills.to_string().as_bytes(), XattrFlags::empty());
        }
    }
}

/// Of `memory.events`. `oom_kill`, not `oom`, which also counts a limit hit above.
pub(super) fn oom_kills(memory_events: &str) -> Option<u64> {
    memory_events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}
