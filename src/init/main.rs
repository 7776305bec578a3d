//! The entry of rcrun-init: the stack as the kernel left it, the symbols that LLVM expects, and no way to panic in words.
//! `rcrun-init PLAN_FD`, from a sealed memfd.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod memory;

use core::ffi::{CStr, c_char};

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {entry}",
    "ud2",
    entry = sym entry,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "and sp, x0, #-16",
    "bl {entry}",
    "brk #1",
    entry = sym entry,
);

/// # Safety
/// `stack` must be the stack pointer at the process' entry: argc, then argv.
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc there, argc pointers to texts that end with NUL, and a null pointer.
    let plan = unsafe {
        if stack.read() < 2 {
            rcrun_init::sys::process::exit(1);
        }
        CStr::from_ptr(stack.add(2).read() as *const c_char)
    };
    let number = plan.to_bytes().iter().try_fold(0_i32, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 10)?;
        number.checked_mul(10)?.checked_add(i32::from(digit))
    });
    match number {
        Some(fd) => rcrun_init::run(fd),
        None => rcrun_init::sys::process::exit(1),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    rcrun_init::sys::process::exit(1)
}

/// core is compiled to unwind, and names this in builds that are not optimised. Nothing unwinds: panic is abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
