//! System calls that no crate wraps, each in a safe function. The only modules with `unsafe`.
