//! Whose a cgroup is: a lock while a container is made in it, and after that a mark on its directory. State files of
//! several state roots may name one cgroup; only the one whose mark it bears may kill what is in it.

use rustix::fs::{FlockOperation, XattrFlags, fgetxattr, flock, fsetxattr};
use rustix::io::Errno;

use super::Cgroup;
use crate::error::CallContext;
use crate::{Code, Error, Result};

/// Not `user.`: a payload that may write to its cgroup could disown itself and outlive its container.
const MARK: &str = "trusted.rcrun.owner";

impl Cgroup {
    /// Keeps other creates off this cgroup until it is dropped; the kernel takes the lock from a process that is killed.
    pub(super) fn lock(&self) -> Result<()> {
        match self.try_lock()? {
            true => Ok(()),
            false => Err(Error::new(
                Code::System,
                format!(
                    "container's cgroup is not empty: another container is being made in cgroup {}",
                    self.path()
                ),
            )),
        }
    }

    /// False when somebody else has the lock.
    pub(super) fn try_lock(&self) -> Result<bool> {
        loop {
            match flock(self, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::call(format!("flock cgroup {}", self.path()), errno)),
            }
        }
    }

    /// Gives back the lock that `create` took: the directory stays open.
    pub fn unlock(&self) -> Result<()> {
        flock(self, FlockOperation::Unlock).call(format!("flock cgroup {}", self.path()))
    }

    /// Marks it as `owner`'s. Only after `create`, which found it empty and locked it.
    pub fn mark(&self, owner: &str) -> Result<()> {
        match fsetxattr(self, MARK, owner.as_bytes(), XattrFlags::empty()) {
            // Without CAP_SYS_ADMIN in the initial user namespace: it stays without a mark.
            Ok(()) | Err(Errno::PERM) => Ok(()),
            Err(errno) => Err(Error::call(format!("fsetxattr {MARK} of cgroup {}", self.path()), errno)),
        }
    }

    /// Who marked it last, if anybody did.
    pub fn owner(&self) -> Result<Option<String>> {
        let mut buffer = [0_u8; 256];
        match fgetxattr(self, MARK, &mut buffer[..]) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(&buffer[..length]).into_owned())),
            Err(Errno::NODATA | Errno::NOENT | Errno::NODEV) => Ok(None),
            // Longer than any of ours.
            Err(Errno::RANGE) => Ok(Some(String::new())),
            Err(errno) => Err(Error::call(format!("fgetxattr {MARK} of cgroup {}", self.path()), errno)),
        }
    }
}
