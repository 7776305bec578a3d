//! rcrun's library: config.json is loaded and checked (`spec`), compiled to a plan (`compile`, pure),
//! what the plan names is opened (`prepare`), and it is carried out by rcrun-init (`launch`).
//! `container` holds the state on disk and the lifecycle verbs.

pub mod cgroup;
pub mod console;
pub mod error;
pub mod foreground;
pub mod hooks;
pub mod host;
pub mod listen_fds;
pub mod notify_socket;
pub mod pid_file;
#[cfg(test)]
mod scratch;
pub mod init_image;
pub mod seccomp;
pub mod spec;
pub mod sys;
pub mod terminal;
pub mod unix_socket;

pub use error::{Code, Error, Result};
