//! Tests of layers: `archive` writes tars byte by byte, `walk` tells all of a tree, the rest are tests.
//! They run as root, in folders of their own: device nodes, owners and trusted.* need it, and fail without.

mod archive;
mod changes;
mod forms;
mod gnu;
mod hostile;
mod round;
#[path = "../../tests/made/seed.rs"]
mod seed;
mod umoci;
mod users;
pub(crate) mod walk;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::{Form, Limits, Result, Summary, Unpack, unpack};

/// Unpacks `tar` into `into`, over the layers `below`, the topmost first.
fn unpack_over(tar: &[u8], into: &Path, form: Form, below: &[&Path]) -> Result<Summary> {
    assert!(
        rustix::process::geteuid().is_root(),
        "tests of layers make device nodes and owners: run them as root"
    );
    seed::keep("layer", tar);
    std::fs::create_dir_all(into).unwrap();
    let open = || below.iter().map(|layer| File::open(layer).map(OwnedFd::from)).collect();
    let options = Unpack { form, rootless: false, limits: Limits::default(), lower: Some(&open) };
    unpack(tar, File::open(into).unwrap().as_fd(), &options)
}

/// Unpacks `tar` into `into`.
fn unpack_into(tar: &[u8], into: &Path, form: Form) -> Result<Summary> {
    unpack_over(tar, into, form, &[])
}
