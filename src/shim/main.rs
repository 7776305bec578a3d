//! `containerd-shim-rcrun-v2`: containerd's tasks on rcrun. containerd runs it with `start` for each container; that leaves a
//! server behind, which makes and attends containers in its own process. This file finds the action.

mod args;
mod checkpoint_options;
mod children;
mod client;
mod events;
mod fields;
mod group;
mod info;
mod leftover;
mod life;
mod log;
mod logger;
mod metrics;
mod namespaces;
mod options;
mod pod;
mod pod_config;
mod reader;
mod rootfs;
mod sandbox;
mod serve;
mod server;
mod service;
mod start;
mod stdio;
mod stream;
mod watch;
mod wire;

use args::Action;
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Result, sys};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // containerd puts it into its own error.
        Err(error) => {
            eprintln!("containerd-shim-rcrun-v2: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // Nothing of whoever started containerd is for a shim, which outlives both.
    sys::inherited::close().call("close_range")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (action, flags) = args::parse(&words)?;
    match action {
        Action::Version => info::version(),
        Action::Info => info::info(),
        Action::Start => start::start(&flags),
        Action::Delete => leftover::delete(&flags),
    }
}
