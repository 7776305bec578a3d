//! rcrun's library: config.json is loaded and checked (`spec`), compiled to a plan (`compile`, pure),
//! what the plan names is opened (`prepare`), and it is carried out by rcrun-init (`launch`).
//! `container` holds the state on disk and the lifecycle verbs.

pub mod cgroup;
pub mod check;
pub mod compile;
pub mod console;
pub mod container;
mod criu;
pub mod doctor;
pub mod error;
pub mod failure;
pub mod features;
pub mod foreground;
pub mod home;
pub mod hooks;
pub mod host;
mod idmap;
pub mod init_image;
pub mod launch;
pub mod listen_fds;
mod mountinfo;
mod netdev;
mod netlink;
pub mod notify_socket;
pub mod pid_file;
pub mod plan;
pub mod plan_text;
pub mod prepare;
mod program;
mod resctrl;
pub mod resolve;
#[cfg(test)]
mod scratch;
pub mod seccomp;
mod seccomp_agent;
pub mod spec;
mod subids;
pub mod sys;
pub mod systemd;
pub mod terminal;
pub mod timings;
pub mod unix_socket;
pub mod users;
pub mod words;

pub use error::{Code, Error, Result};
