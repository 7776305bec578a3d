//! Gives a cgroup to the user in the container, as far as the kernel means it to be given: its directory and the files of
//! /sys/kernel/cgroup/delegate, none of which raises a limit (cgroups(7), "Cgroup delegation").

use std::fs;

use rustix::fs::{AtFlags, Uid, chownat, fchown};
use rustix::io::Errno;

use super::Cgroup;
use crate::error::CallContext;
use crate::{Error, Result};

/// Where the kernel does not say (config-linux.md, "Cgroup ownership").
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

impl Cgroup {
    /// Makes `uid`, as the machine counts, the owner.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        let owner = Some(Uid::from_raw(uid));
        fchown(self, owner, None).call(format!("chown cgroup {}", self.path()))?;
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate");
        let files: Vec<&str> = match &listed {
            Ok(text) => text.lines().filter(|name| !name.is_empty() && !name.contains('/')).collect(),
            Err(_) => FILES.to_vec(),
        };
        for file in files {
            match chownat(self, file, owner, None, AtFlags::SYMLINK_NOFOLLOW) {
                // Of a controller that it has not.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(Error::call(format!("chown {file} of cgroup {}", self.path()), errno));
                }
            }
        }
        Ok(())
    }
}
