//! seccomp: to be filled.
