//! System calls that no crate wraps, each in a safe function. The only modules with `unsafe`.

pub mod allocator;
pub mod birth;
pub mod bpf;
pub mod capability;
pub mod daemon;
pub mod dispositions;
pub mod exit;
pub mod hold;
pub mod inherited;
pub mod loopback;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod path;
pub mod pattern;
pub mod peer;
pub mod pidfd;
pub mod probe;
pub mod scheduling;
pub mod signal;
pub mod spawn;
pub mod trees;
pub mod user_namespace;
