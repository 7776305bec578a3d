//! Files of a process below /proc that rcrun writes.

use crate::error::CallContext;
use crate::{Code, Error, Result};
use rustix::fs::Mode;

/// One write to a file of a process below /proc, which must be a procfs and no mount over it (CVE-2025-52881).
pub(super) fn write_proc(pid: i32, name: &str, value: &str) -> Result<()> {
    use rustix::fs::{OFlags, ResolveFlags};
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let what = || format!("write /proc/{pid}/{name}");
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .call(what())?;
    if rustix::fs::fstatfs(&proc).call(what())?.f_type as i64 != PROC_SUPER_MAGIC {
        return Err(Error::new(Code::Host, format!("{}: /proc of this machine is not a procfs", what())));
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let path = format!("{pid}/{name}");
    let file = rustix::fs::openat2(&proc, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)
        .call(what())?;
    rustix::io::write(&file, value.as_bytes()).call(what()).map(drop)
}

/// Lowering it takes CAP_SYS_RESOURCE of the machine: where `rootless`, it stays as it was.
pub(super) fn adjust_oom_score(pid: i32, adjustment: i32, rootless: bool) -> Result<()> {
    match write_proc(pid, "oom_score_adj", &adjustment.to_string()) {
        Err(error) if rootless && is_denied(&error) => Ok(()),
        other => other,
    }
}

/// The kernel refuses it to who is not root of the machine.
pub(super) fn is_denied(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EPERM | libc::EACCES))
}
