//! What the black-box tests share: a runtime binary, bundles made in a work folder, commands run on them, the machine
//! around them, and a tracer.

pub mod broken_configs;
pub mod bundle;
pub mod containerd;
pub mod daemon;
pub mod errors;
pub mod image;
pub mod inside;
pub mod machine;
pub mod namespaces;
pub mod path_calls;
pub mod programs;
pub mod runtime;
pub mod suite;
pub mod trace;
