//! cgroup: to be filled.
