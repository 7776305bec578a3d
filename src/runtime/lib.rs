//! rcrun's library: config.json is loaded and checked (`spec`), compiled to a plan (`compile`, pure),
//! what the plan names is opened (`prepare`), and it is carried out by rcrun-init (`launch`).
//! `container` holds the state on disk and the lifecycle verbs.

pub mod cgroup;
pub mod error;
pub mod host;
pub mod seccomp;
pub mod spec;
pub mod sys;

pub use error::{Code, Error, Result};
