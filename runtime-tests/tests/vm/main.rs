//! Tests that need a machine of their own, with all controllers of cgroup v2 and systemd: `make test-vm` runs them. In
//! which machine each module runs is a line of `../../tiers`.

mod bomb;
mod checkpoint;
mod errors;
mod images;
mod kubernetes;
mod labels;
mod limits;
mod memory;
#[allow(dead_code)]
#[path = "../kubernetes/node/mod.rs"]
mod node;
mod processors;
mod rootless;
mod shim;
#[allow(dead_code)]
#[path = "../shim/harness.rs"]
mod shim_harness;
mod systemd;
mod update;
mod user;
