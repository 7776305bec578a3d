//! What happens in a cgroup, for who watches it: the OOM killer kills, the last process ends. Also to who is slow: a cgroup
//! that is removed takes its figures along, so who removes it leaves the count of kills behind. systemd does not: it removes
//! an empty scope before who waits for its last process hears of the end. But it learns of that by inotify, which the kernel
//! serves by a work queue, after it has woken poll(2): who watches looks first, and remembers what was there. Who comes too late
//! all the same asks the kernel's log.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use super::Cgroup;
use super::events::{EventsFile, Watched};
use super::kernel_log::KernelLog;
use super::shown::{Figures, Shown};
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
    log: Option<KernelLog>,
    /// The count when `log` was opened.
    before_log: u64,
    figures: Figures,
    last: Shown,
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
        let (figures, last) = (Figures::open(cgroup), Shown::default());
        let log = memory.as_ref().and_then(|_| KernelLog::from_now(cgroup));
        let mut notices = Notices { dir, tree, memory, oom_kills: 0, log, before_log: 0, figures, last };
        notices.oom_kills = notices.count()?.unwrap_or(0);
        notices.before_log = notices.oom_kills;
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
        let before = self.count()?;
        let ended = !self.tree.read()?.is_some_and(|events| events.populated);
        let mut kills = before;
        if ended || before > Some(self.oom_kills) {
            let mut now = self.figures.read();
            // A kill that came in between is among them. Where all is gone, who has removed it has left the count, or the
            // kernel's log tells; else what was read before is the last word.
            now.oom_kills = now.oom_kills.or_else(|| self.left()).or_else(|| self.logged().max(before));
            kills = now.oom_kills;
            self.last = now.or(std::mem::take(&mut self.last));
        }
        let kills = kills.unwrap_or(self.oom_kills);
        let killed = (kills > self.oom_kills).then_some(Notice::OomKill);
        self.oom_kills = kills;
        Ok(killed.into_iter().chain(ended.then_some(Notice::Ended)).collect())
    }

    /// What the cgroup has shown when the OOM killer had killed, or all had ended: its end may have left nothing to be read.
    pub fn last(&self) -> &Shown {
        &self.last
    }

    fn count(&self) -> Result<Option<u64>> {
        let text = self.memory.as_ref().map(Watched::read).transpose()?.flatten();
        Ok(text.and_then(|text| oom_kills(&text)))
    }

    fn logged(&mut self) -> Option<u64> {
        Some(self.before_log + self.log.as_mut()?.oom_kills()?)
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
        if let Ok(Some(kills)) = self.oom_kills() {
            let _ = fsetxattr(self, KILLS, kills.to_string().as_bytes(), XattrFlags::empty());
        }
    }
}

/// Of `memory.events`. `oom_kill`, not `oom`, which also counts a limit hit above.
pub(super) fn oom_kills(memory_events: &str) -> Option<u64> {
    memory_events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}
