//! Which mounts init keeps in hand for the masked and read-only paths that lie in them. Whoever shares the root's file
//! system may rename a directory with a mount of the container's on it, and a mask that is looked for by its whole path
//! would then find nothing, or a decoy.

use super::{in_root, mounts};
use crate::spec::Spec;
use crate::{Error, Result};
use rcrun_plan::{InRoot, MOST_KEPT, Within, text::Text};
use std::path::Path;

/// Numbers of kept mounts.
pub(super) struct Kept<'a> {
    spec: &'a Spec,
    /// Where each entry of `mounts` lies.
    destinations: Vec<InRoot<Text>>,
    /// The entries that are kept; the number is the place in this list.
    entries: Vec<usize>,
}

impl<'a> Kept<'a> {
    pub(super) fn of(spec: &'a Spec) -> Result<Self> {
        let destinations = spec.mounts().iter().flatten().map(|entry| in_root(entry.destination())).collect();
        let mut kept = Kept { spec, destinations, entries: Vec::new() };
        let Some(linux) = spec.linux() else { return Ok(kept) };
        let paths = linux.masked_paths().iter().flatten().chain(linux.readonly_paths().iter().flatten());
        for path in paths {
            match kept.holder(&in_root(Path::new(path))) {
                Some((entry, _)) if !kept.entries.contains(&entry) => kept.entries.push(entry),
                _ => {}
            }
        }
        match kept.entries.len() > usize::from(MOST_KEPT) {
            true => Err(Error::config(
                "/linux/maskedPaths",
                format!("together with readonlyPaths they lie in more than {MOST_KEPT} mounts"),
            )),
            false => Ok(kept),
        }
    }

    /// The number of an entry of `mounts`.
    pub(super) fn number(&self, entry: usize) -> Option<u8> {
        self.entries.iter().position(|kept| *kept == entry).map(|number| number as u8)
    }

    /// Where a masked or read-only path lies.
    pub(super) fn within(&self, path: &InRoot<Text>) -> Option<Within> {
        let (entry, from) = self.holder(path)?;
        Some(Within { mount: self.number(entry)?, from: from as u16 })
    }

    /// The entry that `path` lies in, and where its part below it begins. Of several the last: it covers those before.
    fn holder(&self, path: &InRoot<Text>) -> Option<(usize, usize)> {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        let below = |destination: &InRoot<Text>| {
            let rest = path.0.0.strip_prefix(&destination.0.0)?.strip_prefix('/')?;
            Some(path.0.0.len() - rest.len())
        };
        self.destinations.iter().zip(mounts).enumerate().rev().find_map(|(i, (destination, entry))| {
            let from = below(destination)?;
            (!mounts::is_change(entry)).then_some((i, from))
        })
    }
}
