//! What the black-box tests share: a runtime binary, bundles made in a work folder, and commands run on them.

pub mod broken_configs;
pub mod bundle;
pub mod inside;
pub mod runtime;
