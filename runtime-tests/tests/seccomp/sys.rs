//! libseccomp's functions, and loading a filter in a child: all unsafe code of these tests.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use rcrun_runtime::seccomp::{Filter, Instruction};

/// `struct scmp_arg_cmp`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    pub arg: c_uint,
    pub op: c_int,
    pub a: u64,
    pub b: u64,
}

#[link(name = "seccomp")]
unsafe extern "C" {
    fn seccomp_init(default: u32) -> *mut c_void;
    fn seccomp_release(context: *mut c_void);
    fn seccomp_arch_add(context: *mut c_void, token: u32) -> c_int;
    fn seccomp_arch_remove(context: *mut c_void, token: u32) -> c_int;
    fn seccomp_arch_native() -> u32;
    fn seccomp_rule_add_array(
        context: *mut c_void,
        action: u32,
        number: c_int,
        count: c_uint,
        comparisons: *const Comparison,
    ) -> c_int;
    fn seccomp_export_bpf(context: *mut c_void, fd: c_int) -> c_int;
    fn seccomp_syscall_resolve_name_arch(token: u32, name: *const c_char) -> c_int;
    fn seccomp_syscall_resolve_num_arch(token: u32, number: c_int) -> *mut c_char;
}

/// A filter that libseccomp builds.
pub struct Scmp {
    context: *mut c_void,
    /// All that it can answer.
    actions: Vec<u32>,
}

/// BPF_RET | BPF_K
const RETURN: u16 = 0x06;
/// What libseccomp answers to calls of other architectures.
const KILL_THREAD: u32 = 0;

fn check(code: c_int) -> Result<(), i32> {
    if code == 0 { Ok(()) } else { Err(-code) }
}

impl Scmp {
    /// For the architectures `tokens`, all of one byte order.
    pub fn new(default: u32, tokens: &[u32]) -> Scmp {
        // SAFETY: no pointer goes in; the context is owned by the value and released with it.
        let context = unsafe { seccomp_init(default) };
        assert!(!context.is_null(), "seccomp_init({default:#x})");
        let scmp = Scmp { context, actions: vec![KILL_THREAD, default] };
        // SAFETY: takes nothing.
        let native = unsafe { seccomp_arch_native() };
        if !tokens.contains(&native) {
            // SAFETY: the context is valid.
            check(unsafe { seccomp_arch_remove(scmp.context, native) }).unwrap();
        }
        for token in tokens.iter().filter(|t| **t != native) {
            // SAFETY: the context is valid.
            check(unsafe { seccomp_arch_add(scmp.context, *token) }).unwrap();
        }
        scmp
    }

    /// Adds a rule for a native number; the error is an errno.
    pub fn rule(&mut self, action: u32, number: i32, comparisons: &[Comparison]) -> Result<(), i32> {
        self.actions.push(action);
        // SAFETY: the context is valid, and the array is as long as said.
        check(unsafe {
            seccomp_rule_add_array(
                self.context,
                action,
                number,
                comparisons.len() as c_uint,
                comparisons.as_ptr(),
            )
        })
    }

    /// The program, which libseccomp writes in the byte order of its architectures; but a return that it repeats because
    /// the first is out of a jump's reach is converted twice, so that on a little-endian machine it stays little.
    pub fn program(&self, big_endian: bool) -> Vec<Instruction> {
        let mut file = std::fs::File::from(memfd_create(c"bpf", MFdFlags::MFD_CLOEXEC).unwrap());
        // SAFETY: the context is valid, and the fd is open.
        check(unsafe { seccomp_export_bpf(self.context, file.as_raw_fd()) }).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let u16_at = |b: &[u8]| {
            let b = [b[0], b[1]];
            if big_endian { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }
        };
        let u32_at = |b: &[u8]| {
            let b = [b[4], b[5], b[6], b[7]];
            if big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
        };
        bytes
            .chunks_exact(8)
            .map(|b| Instruction { code: u16_at(b), jt: b[2], jf: b[3], k: u32_at(b) })
            .map(|i| {
                let twice = i.code == RETURN && !self.actions.contains(&i.k);
                Instruction { k: if twice { i.k.swap_bytes() } else { i.k }, ..i }
            })
            .inspect(|i| assert!(i.code != RETURN || self.actions.contains(&i.k), "returns {:#x}", i.k))
            .collect()
    }
}

impl Drop for Scmp {
    fn drop(&mut self) {
        // SAFETY: the context is valid and not used again.
        unsafe { seccomp_release(self.context) }
    }
}

/// libseccomp's number of `name`: negative for calls that the architecture lacks or multiplexes, none for unknown ones.
pub fn number(token: u32, name: &str) -> Option<i32> {
    let name = CString::new(name).unwrap();
    // SAFETY: the string ends in NUL and outlives the call.
    Some(unsafe { seccomp_syscall_resolve_name_arch(token, name.as_ptr()) }).filter(|n| *n != -1)
}

/// libseccomp's name of `number`.
pub fn name(token: u32, number: i32) -> Option<String> {
    // SAFETY: takes no pointer; the string it returns is malloc'ed, ends in NUL, and is freed here once.
    unsafe {
        let name = seccomp_syscall_resolve_num_arch(token, number);
        if name.is_null() {
            return None;
        }
        let text = CStr::from_ptr(name).to_str().unwrap().to_owned();
        libc::free(name.cast());
        Some(text)
    }
}

/// What a child got from one of its calls: 0, or the errno.
pub type Outcome = i32;

/// Loads `filter` in a child with no_new_privs, makes `calls` there (number and first argument), and gives
/// the outcome of seccomp(2) and of each call. A child that is killed gives its signal as an error.
pub fn under_filter(filter: &Filter, calls: &[(i64, u64)]) -> Result<Vec<Outcome>, i32> {
    let (mut reader, writer) = {
        let (r, w) = nix::unistd::pipe().unwrap();
        (std::fs::File::from(r), w)
    };
    let mut outcomes = vec![0i32; calls.len() + 1];
    let program = libc::sock_fprog {
        len: filter.program.len() as u16,
        filter: filter.program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: between fork and _exit the child makes only raw system calls on memory allocated before.
    // `Instruction` is laid out as sock_filter, and the kernel only reads the program.
    let child = unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork");
        if child == 0 {
            let errno = |result: i64| if result < 0 { *libc::__errno_location() } else { 0 };
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            outcomes[0] = errno(libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                filter.flags,
                &raw const program,
            ));
            for (at, (number, arg)) in calls.iter().enumerate() {
                outcomes[at + 1] = errno(libc::syscall(*number, *arg, 0, 0, 0, 0, 0));
            }
            libc::write(writer.as_raw_fd(), outcomes.as_ptr().cast(), outcomes.len() * 4);
            libc::_exit(0);
        }
        child
    };
    drop(writer);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    let mut status = 0;
    // SAFETY: the child is ours and not waited for elsewhere; status is a valid int.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        return Err(libc::WTERMSIG(status));
    }
    Ok(bytes.chunks_exact(4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
}
