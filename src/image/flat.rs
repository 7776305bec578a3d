//! An image into one folder: its layers applied one after another, as they were read and verified.
//! Uses: carry, error, jail, layer, source, store (what is privileged), unfold.

use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;

use rustix::fs::Mode;

use crate::carry::Carrier;
use crate::error::{Code, Error, Result};
use crate::jail::Jail;
use crate::layer::{self, Form, Limits, numbered};
use crate::source::{Blobs, Image};
use crate::store::{clear_times, privileged};
use crate::unfold::told;

/// How an image is unpacked into one folder.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What a layer may ask for.
    pub limits: Limits,
    /// Where layers are decompressed and unpacked: else in this process, with all that it may do.
    pub jail: Option<Jail>,
}

/// Unpacks `image` of `blobs` into the empty folder `into`, which gets the root's attributes. Gives what was left out, in
/// sentences. When it fails, the folder is empty again.
pub fn unpack(
    blobs: &dyn Blobs,
    image: &Image,
    into: BorrowedFd<'_>,
    options: &Options,
) -> Result<Vec<String>> {
    if !layer::is_empty(into).map_err(told)? {
        return Err(Error::new(Code::Usage, "the folder to unpack into is not empty"));
    }
    apply_all(blobs, image, into, options).map_err(|error| match layer::clear(into, &options.limits) {
        Ok(()) => error,
        Err(left) => {
            let left = told(left);
            error.and(format_args!("what was unpacked is still there: {left}"))
        }
    })
}

fn apply_all(
    blobs: &dyn Blobs,
    image: &Image,
    into: BorrowedFd<'_>,
    options: &Options,
) -> Result<Vec<String>> {
    // What they are where no layer tells.
    rustix::fs::fchmod(into, Mode::from_raw_mode(0o755)).map_err(|e| Error::call("fchmod", e))?;
    clear_times(into)?;
    let stop = AtomicBool::new(false);
    let carrier = Carrier {
        blobs,
        jail: options.jail.as_ref(),
        limits: options.limits,
        form: Form::Flat,
        rootless: !privileged()?,
        lower: None,
        stop: &stop,
    };
    let mut notes = Vec::new();
    for (index, layer) in image.layers.iter().enumerate() {
        let summary = carrier
            .carry(layer, None, Some(into), &|_| Ok(None))
            .map_err(|e| e.of(numbered(index)))?
            .ok_or_else(|| {
                Error::new(Code::System, format!("{}: the unpacker asks for what it has", numbered(index)))
            })?;
        notes.extend(summary.notes.iter().map(|note| format!("{}: {note}", numbered(index))));
    }
    Ok(notes)
}
