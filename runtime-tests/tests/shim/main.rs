//! containerd-shim-rcrun-v2: by the protocols that containerd speaks with it, and under Debian's containerd.

mod bootstrap;
mod harness;
mod hostile;
mod killed;
mod processes;
mod sandbox;
mod streams;
mod tasks;
mod under_containerd;
mod wire;
