//! bpf(2) for a cgroup's device programs: load, attach, replace, detach. Knows nothing of rules.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// enum bpf_cmd, enum bpf_prog_type, enum bpf_attach_type and the attach flags of linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// BPF_CGROUP_MAX_PROGS: the kernel attaches no more to one cgroup.
const ATTACHED_MAX: usize = 64;

/// Names the program in `bpftool prog`.
const NAME: &[u8; 16] = b"rcrun_devices\0\0\0";

#[derive(Clone, Copy)]
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Attach {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: RawFd,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Query {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Info {
    bpf_fd: RawFd,
    info_len: u32,
    info: u64,
}

/// union bpf_attr, as large as any kernel's so far. A kernel that knows less takes a tail of zeros; one that knows
/// more writes into it: 6.17 and later store a query's `revision` past the size that is passed.
#[derive(Clone, Copy)]
#[repr(C)]
union Attr {
    whole: [u64; 32],
    load: Load,
    attach: Attach,
    query: Query,
    info: Info,
    prog_id: u32,
}

impl Attr {
    const ZERO: Attr = Attr { whole: [0; 32] };
}

fn bpf(command: libc::c_int, attr: &mut Attr) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is a live, exclusively borrowed union of the size passed, all of it initialised; the addresses in
    // it are of buffers that outlive the call (each caller sets them from slices that it holds across the call), and
    // the commands used here keep none of them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<Attr>()) };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: `fd` was just returned by bpf(2) as a new descriptor (close-on-exec), which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE from struct bpf_insn as u64. EPERM: CAP_SYS_ADMIN (or CAP_BPF with
/// CAP_NET_ADMIN) in the initial user namespace is missing. EINVAL or EACCES: the verifier refused it (`verifier_log`).
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    load(instructions, &mut [])
}

/// Loads the program once more only to hear from the verifier why it refuses it.
pub fn verifier_log(instructions: &[u64]) -> String {
    let mut log = vec![0_u8; 1 << 16];
    // The outcome is known already; ENOSPC for a log that is too short leaves its beginning in place.
    let _ = load(instructions, &mut log);
    let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..length]).into_owned()
}

fn load(instructions: &[u64], log: &mut [u8]) -> io::Result<OwnedFd> {
    // Any license but the GPL's is as good: the program calls no helper.
    let license = c"Apache-2.0";
    let too_long = |_| io::Error::from_raw_os_error(libc::E2BIG);
    let mut attr = Attr::ZERO;
    attr.load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(instructions.len()).map_err(too_long)?,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(too_long)?,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: *NAME,
    };
    loop {
        // The kernel gives EAGAIN when a signal comes while the verifier runs.
        match bpf(BPF_PROG_LOAD, &mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            result => return result.map(owned),
        }
    }
}

/// Attaches `program` beside others (BPF_F_ALLOW_MULTI: all of them must allow an access), or, where `old` is given,
/// in its place, with no moment in between at which neither or both are in force.
pub fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = Attr::ZERO;
    attr.attach = Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | if old.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: old.map_or(0, |old| old.as_raw_fd()),
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Whether `program` was loaded by `load_device_program`: it has the name.
pub fn is_rcruns(program: BorrowedFd<'_>) -> io::Result<bool> {
    // struct bpf_prog_info up to its `name`, which is at byte 64 on all machines: u64 fields are aligned to 8.
    let mut info = [0_u64; 10];
    let mut attr = Attr::ZERO;
    attr.info = Info {
        bpf_fd: program.as_raw_fd(),
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name = [info[8].to_ne_bytes(), info[9].to_ne_bytes()].concat();
    Ok(name == NAME)
}

/// Takes `program` off the cgroup.
pub fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::ZERO;
    attr.attach = Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    bpf(BPF_PROG_DETACH, &mut attr).map(drop)
}

/// The device programs attached to this very cgroup (not those of the cgroups above it).
pub fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; ATTACHED_MAX];
    let mut attr = Attr::ZERO;
    attr.query = Query {
        target_fd: cgroup.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ATTACHED_MAX as u32,
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: every bit pattern is a u32, and `query` was written whole above; the kernel stored the count in it.
    let count = unsafe { attr.query.prog_cnt } as usize;
    let mut programs = Vec::with_capacity(count);
    for id in ids.iter().take(count) {
        let mut attr = Attr::ZERO;
        attr.prog_id = *id;
        match bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) {
            Ok(fd) => programs.push(owned(fd)),
            // Detached and freed since the query.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}
