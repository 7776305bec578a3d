//! Calls that change the calling process: signals, credentials, limits, session, names, seccomp, and its end.
#![allow(unsafe_code)]

use super::{Failure, Result, call, done, errno::EINVAL, n, numbers::*, p};
use core::ffi::CStr;
use rcrun_plan::Scheduler;

/// exit_group(2).
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: no pointer.
        let _ = unsafe { call(EXIT_GROUP, [n(status), 0, 0, 0, 0, 0]) };
    }
}

/// Every signal to its default action: an ignored one stays ignored over exec, and Rust's std ignores SIGPIPE. Then an
/// empty mask.
pub fn reset_signals() -> Result<()> {
    const SIGKILL: usize = 9;
    const SIGSTOP: usize = 19;
    const SIG_SETMASK: usize = 2;
    // struct sigaction of the kernel: handler (0 is SIG_DFL), flags, restorer, mask.
    let action = [0_u64; 4];
    for signal in (1..=64).filter(|s| ![SIGKILL, SIGSTOP].contains(s)) {
        // SAFETY: action is a whole struct sigaction; the old one is not asked for; sets have 8 bytes.
        unsafe { done(RT_SIGACTION, [signal, action.as_ptr() as usize, 0, 8, 0, 0]) }?;
    }
    let none = 0_u64;
    // SAFETY: none is a set of 8 bytes; the old one is not asked for.
    unsafe { done(RT_SIGPROCMASK, [SIG_SETMASK, &raw const none as usize, 0, 8, 0, 0]) }
}

fn prctl(option: usize, a: usize, b: usize) -> Result<()> {
    // SAFETY: callers in this module name options that take numbers.
    unsafe { done(PRCTL, [option, a, b, 0, 0, 0]) }
}

/// PR_SET_DUMPABLE 0: nobody but root of the machine may trace it or open its files in /proc.
pub fn not_dumpable() -> Result<()> {
    prctl(4, 0, 0)
}

/// PR_SET_PDEATHSIG; 0 for none.
pub fn signal_when_parent_dies(signal: usize) -> Result<()> {
    prctl(1, signal, 0)
}

/// PR_SET_KEEPCAPS.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(8, usize::from(keep), 0)
}

/// PR_SET_NO_NEW_PRIVS.
pub fn no_new_privileges() -> Result<()> {
    prctl(38, 1, 0)
}

/// PR_CAPBSET_DROP.
pub fn drop_from_bounding_set(capability: u32) -> Result<()> {
    prctl(24, capability as usize, 0)
}

/// PR_CAP_AMBIENT_CLEAR_ALL.
pub fn clear_ambient() -> Result<()> {
    prctl(47, 4, 0)
}

/// PR_CAP_AMBIENT_RAISE.
pub fn raise_ambient(capability: u32) -> Result<()> {
    prctl(47, 2, capability as usize)
}

/// The three sets of capget(2) and capset(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// _LINUX_CAPABILITY_VERSION_3, and pid 0 for the caller.
const CAPABILITY_HEADER: [u32; 2] = [0x2008_0522, 0];

/// capget(2).
pub fn capabilities() -> Result<Capabilities> {
    let mut header = CAPABILITY_HEADER;
    let mut data = [0_u32; 6];
    // SAFETY: version 3 has a header of 8 bytes, which the kernel may write, and two data of 12 bytes.
    unsafe { done(CAPGET, [header.as_mut_ptr() as usize, data.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    let join = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    Ok(Capabilities {
        effective: join(data[0], data[3]),
        permitted: join(data[1], data[4]),
        inheritable: join(data[2], data[5]),
    })
}

/// capset(2).
pub fn set_capabilities(to: Capabilities) -> Result<()> {
    let mut header = CAPABILITY_HEADER;
    let low = [to.effective as u32, to.permitted as u32, to.inheritable as u32];
    let high = [(to.effective >> 32) as u32, (to.permitted >> 32) as u32, (to.inheritable >> 32) as u32];
    let data = [low, high];
    // SAFETY: version 3 has a header of 8 bytes, which the kernel may write, and two data of 12 bytes.
    unsafe { done(CAPSET, [header.as_mut_ptr() as usize, data.as_ptr() as usize, 0, 0, 0, 0]) }
}

/// setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: groups are readable for their number.
    unsafe { done(SETGROUPS, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0]) }
}

/// setresgid(2), all three.
pub fn set_gid(gid: u32) -> Result<()> {
    let gid = gid as usize;
    // SAFETY: no pointer.
    unsafe { done(SETRESGID, [gid, gid, gid, 0, 0, 0]) }
}

/// setresuid(2), all three.
pub fn set_uid(uid: u32) -> Result<()> {
    let uid = uid as usize;
    // SAFETY: no pointer.
    unsafe { done(SETRESUID, [uid, uid, uid, 0, 0, 0]) }
}

/// umask(2): the mask before.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: no pointer. umask(2) always succeeds.
    unsafe { call(UMASK, [mask as usize, 0, 0, 0, 0, 0]) }.map_or(0, |old| old as u32)
}

/// prlimit64(2) of the caller.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: limit is struct rlimit64; the old one is not asked for.
    unsafe { done(PRLIMIT64, [0, resource as usize, limit.as_ptr() as usize, 0, 0, 0]) }
}

/// personality(2).
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(PERSONALITY, [domain as usize, 0, 0, 0, 0, 0]) }
}

/// sched_setattr(2) of the caller.
pub fn set_scheduler(to: &Scheduler) -> Result<()> {
    let mut attr = to.attr();
    // SAFETY: attr is struct sched_attr of the size that it says; the kernel may write its size there.
    unsafe { done(SCHED_SETATTR, [0, attr.as_mut_ptr() as usize, 0, 0, 0, 0]) }
}

/// ioprio_set(2) of the caller, or of its process group.
pub fn set_io_priority(value: u32, group: bool) -> Result<()> {
    const IOPRIO_WHO_PROCESS: usize = 1;
    const IOPRIO_WHO_PGRP: usize = 2;
    let who = if group { IOPRIO_WHO_PGRP } else { IOPRIO_WHO_PROCESS };
    // SAFETY: no pointer.
    unsafe { done(IOPRIO_SET, [who, 0, value as usize, 0, 0, 0]) }
}

/// set_mempolicy(2).
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    // The kernel counts one bit less than it is told.
    let most = nodes.len() * 64 + 1;
    // SAFETY: nodes are readable for their number of bits.
    unsafe { done(SET_MEMPOLICY, [mode as usize, nodes.as_ptr() as usize, most, 0, 0, 0]) }
}

/// setsid(2).
pub fn setsid() -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(SETSID, [0; 6]) }
}

/// A copy of the caller, with the caller's parent as its own (CLONE_PARENT) and so with its exit signal; None in the copy.
/// The copy has memory of its own: who traces it must not change what the caller still does outside of its pid namespace.
pub fn fork_sibling() -> Result<Option<i32>> {
    const CLONE_PARENT: usize = 0x8000;
    // SAFETY: without CLONE_VM the copy goes on on its copy of this stack; no pointer is given.
    let pid = unsafe { call(CLONE, [CLONE_PARENT, 0, 0, 0, 0, 0]) }?;
    Ok((pid != 0).then_some(pid as i32))
}

/// sethostname(2).
pub fn set_hostname(name: &[u8]) -> Result<()> {
    // SAFETY: name is readable for its length.
    unsafe { done(SETHOSTNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]) }
}

/// setdomainname(2).
pub fn set_domainname(name: &[u8]) -> Result<()> {
    // SAFETY: name is readable for its length.
    unsafe { done(SETDOMAINNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]) }
}

/// KEYCTL_JOIN_SESSION_KEYRING: the keyring's serial number.
pub fn join_session_keyring(name: &CStr) -> Result<usize> {
    // SAFETY: name ends with NUL.
    unsafe { call(KEYCTL, [1, p(name), 0, 0, 0, 0]) }
}

/// KEYCTL_SETPERM.
pub fn set_key_permissions(key: usize, permissions: u32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(KEYCTL, [5, key, permissions as usize, 0, 0, 0]) }
}

/// fchdir(2).
pub fn fchdir(dir: i32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(FCHDIR, [n(dir), 0, 0, 0, 0, 0]) }
}

/// chdir("/").
pub fn chdir_slash() -> Result<()> {
    // SAFETY: the text ends with NUL.
    unsafe { done(CHDIR, [p(c"/"), 0, 0, 0, 0, 0]) }
}

/// The first byte of getcwd(2): `/`, or `(` of "(unreachable)".
pub fn first_of_cwd() -> Result<u8> {
    let mut path = [0_u8; super::file::PATH_MAX];
    // SAFETY: path is writable for its length.
    unsafe { done(GETCWD, [path.as_mut_ptr() as usize, path.len(), 0, 0, 0, 0]) }?;
    Ok(path[0])
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER, of instructions of 8 bytes each.
pub fn set_filter(flags: u32, program: &[u64]) -> Result<usize> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const u64,
    }
    let length = u16::try_from(program.len()).map_err(|_| Failure::found(EINVAL))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: program is struct sock_fprog, and its instructions are readable for its length.
    unsafe { call(SECCOMP, [SECCOMP_SET_MODE_FILTER, flags as usize, &raw const program as usize, 0, 0, 0]) }
}
