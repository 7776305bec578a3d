//! Device programs on a cgroup: loaded, attached, and replaced while the container lives.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Cgroup, Policy};
use crate::error::CallContext;
use crate::sys::bpf;
use crate::{Code, Error, Result};

/// A loaded device program. Loading is the dear part (the verifier, the JIT compiler); attaching is one call.
#[derive(Debug)]
pub struct DeviceProgram {
    program: OwnedFd,
}

impl DeviceProgram {
    /// Loads the program of `policy`; None when that denies nothing.
    pub fn load(policy: &Policy) -> Result<Option<DeviceProgram>> {
        let Some(instructions) = policy.program() else { return Ok(None) };
        match bpf::load_device_program(&instructions) {
            Ok(program) => Ok(Some(DeviceProgram { program })),
            Err(error) => Err(explain("load the device program (bpf BPF_PROG_LOAD)", error, || {
                last_line(&bpf::verifier_log(&instructions))
            })),
        }
    }
}

/// Which device programs on a cgroup are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All.
    Anybodys,
    /// Only rcrun's: another stays beside it, as systemd's on a unit's cgroup.
    Rcruns,
}

impl AsFd for DeviceProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl Cgroup {
    /// Attaches `program` to a cgroup that was made just now: nothing can be there to be replaced.
    pub fn attach_devices(&self, program: &DeviceProgram) -> Result<()> {
        bpf::attach(self.as_fd(), program.as_fd(), None).map_err(|error| self.explain_attach(error))
    }

    /// Puts `program` in the place of those device programs on this cgroup, or takes them off (None: all devices).
    /// One old program is replaced in one step; of several, none goes before the new one is there.
    pub fn replace_devices(&self, program: Option<&DeviceProgram>, whose: Whose) -> Result<()> {
        let query = |error| explain("look up device programs (bpf BPF_PROG_QUERY)", error, String::new);
        let mut old = bpf::attached(self.as_fd()).map_err(query)?;
        if whose == Whose::Rcruns {
            let mut own = Vec::new();
            for program in old {
                if bpf::is_rcruns(program.as_fd()).map_err(query)? {
                    own.push(program);
                }
            }
            old = own;
        }
        if let Some(program) = program {
            let replaced = if let [old] = old.as_slice() { Some(old.as_fd()) } else { None };
            bpf::attach(self.as_fd(), program.as_fd(), replaced)
                .map_err(|error| self.explain_attach(error))?;
            if replaced.is_some() {
                return Ok(());
            }
        }
        for old in &old {
            bpf::detach(self.as_fd(), old.as_fd())
                .call(format!("take a device program off cgroup {} (bpf BPF_PROG_DETACH)", self.path()))?;
        }
        Ok(())
    }

    fn explain_attach(&self, error: std::io::Error) -> Error {
        let what = format!("attach the device program to cgroup {} (bpf BPF_PROG_ATTACH)", self.path());
        explain(&what, error, || "a cgroup above it may have one that allows no further ones".to_string())
    }
}

fn explain(what: &str, error: std::io::Error, otherwise: impl FnOnce() -> String) -> Error {
    let errno = error.raw_os_error().unwrap_or_default();
    let (code, hint) = match errno {
        libc::EPERM | libc::EACCES if !has_bpf_capability() => (
            Code::System,
            "CAP_SYS_ADMIN, or CAP_BPF with CAP_NET_ADMIN, is missing in the initial user namespace"
                .to_string(),
        ),
        libc::ENOSYS => (Code::Host, "the kernel is built without CONFIG_BPF_SYSCALL".to_string()),
        _ => (Code::System, otherwise()),
    };
    let hint = if hint.is_empty() { hint } else { format!(" ({hint})") };
    let text = crate::error::errno_text(errno);
    Error::new(code, format!("{what}: {text}{hint}")).with_errno(errno)
}

/// Of the caller's own user namespace: in another than the initial one these do not suffice, and the errno stays EPERM.
fn has_bpf_capability() -> bool {
    use caps::{CapSet, Capability::*};
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let initial = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    initial && (has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_NET_ADMIN))
}

fn last_line(log: &str) -> String {
    log.lines()
        .rev()
        .find(|line| !line.is_empty() && !line.starts_with("processed"))
        .unwrap_or_default()
        .to_string()
}
