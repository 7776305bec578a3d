//! CPU affinity of any number of CPUs, and sched_setattr(2), for other processes.
#![allow(unsafe_code)]

use rcrun_plan::Scheduler;
use std::io;

/// sched_setaffinity(2) of the process, or with 0 of this thread.
pub fn set_affinity(pid: i32, cpus: &[u64]) -> io::Result<()> {
    // SAFETY: the mask is readable for the length given.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(cpus), cpus.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// sched_getaffinity(2) of this thread.
pub fn affinity() -> io::Result<Vec<u64>> {
    let mut cpus = vec![0u64; 16];
    loop {
        // SAFETY: the mask is writable for the length given.
        let length = unsafe {
            libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&cpus[..]), cpus.as_mut_ptr())
        };
        match length {
            0.. => {
                cpus.truncate(length as usize / size_of::<u64>());
                return Ok(cpus);
            }
            _ => {
                let error = io::Error::last_os_error();
                // The kernel knows more CPUs than the mask has room for.
                if error.raw_os_error() != Some(libc::EINVAL) || cpus.len() >= 1 << 12 {
                    return Err(error);
                }
                cpus.resize(cpus.len() * 2, 0);
            }
        }
    }
}

/// sched_setattr(2) of the process.
pub fn set_scheduler(pid: i32, to: &Scheduler) -> io::Result<()> {
    let mut attr = to.attr();
    // SAFETY: attr is struct sched_attr of the size that it says; the kernel may write its size there.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, attr.as_mut_ptr(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
