//! System calls that no crate wraps, each in a safe function. The only modules with `unsafe`.

pub mod birth;
pub mod capability;
pub mod mount;
pub mod namespace;
pub mod signal;
pub mod dispositions;
pub mod inherited;
pub mod pidfd;
pub mod spawn;
