//! Kubernetes' door: pods on our shim under Debian's containerd, by what the kubelet says over the socket of the CRI.

mod killed;
#[allow(dead_code)]
mod node;
mod pods;
#[allow(dead_code)]
#[path = "../shim/harness.rs"]
mod shim_harness;
mod streaming;
