//! spec: to be filled.
