//! mounts: what a container that runs gets mounted, and what is taken away. ^C ends it at any time: the container may have a
//! file system of its own on the way, which never answers.

use std::path::Path;

use crate::args::{Mounts, MountsChange};
use crate::{ExitCode, Global, containers, images, input};
use rcrun_runtime::Result;
use rcrun_runtime::container::{self, StateRoot};
use rcrun_runtime::error::Context;

/// `rcrun mounts`
#[inline(never)]
pub fn mounts(global: &Global, args: &Mounts) -> Result<ExitCode> {
    let id = containers::parse(&args.id)?;
    let root = StateRoot::new(&global.root);
    let change = || {
        let text = match args.file == Path::new("-") {
            true => input::of_stdin()?,
            false => input::of_file(&args.file)?,
        };
        images::container::enter(&root, &id)?;
        let mut container = root.open(&id)?;
        match args.change {
            MountsChange::Add => container::add_mounts(&mut container, &text),
            MountsChange::Remove => container::remove_mounts(&mut container, &text),
        }
    };
    let word = match args.change {
        MountsChange::Add => "add",
        MountsChange::Remove => "remove",
    };
    change().context(format!("mounts {word} {id}"))?;
    Ok(ExitCode::SUCCESS)
}
