//! The shim's log: lines as containerd's own, into the FIFO `log` of the bundle, which containerd copies to its log.

use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::SystemTime;

static FIFO: OnceLock<OwnedFd> = OnceLock::new();

/// Opens the log. containerd makes the FIFO; without one nothing is logged. Open for reading too, so that it can be
/// written when containerd is away; what does not fit then is lost.
pub fn open(bundle: &std::path::Path) {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    if let Ok(fifo) = rustix::fs::open(bundle.join("log"), flags, Mode::empty()) {
        let _ = FIFO.set(fifo);
    }
}

/// What nobody has asked for, and somebody may want to know.
pub fn warn(message: impl std::fmt::Display) {
    write("warning", &message.to_string());
}

/// What has failed and cannot be answered to anybody.
pub fn error(message: impl std::fmt::Display) {
    write("error", &message.to_string());
}

fn write(level: &str, message: &str) {
    if let Some(fifo) = FIFO.get() {
        let time = humantime::format_rfc3339_nanos(SystemTime::now());
        // One write, which a pipe takes whole or not at all.
        let line = format!("time=\"{time}\" level={level} msg={message:?} runtime=io.containerd.rcrun.v2\n");
        let _ = rustix::io::write(fifo, line.as_bytes());
    }
}
