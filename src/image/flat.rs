//! An image into one folder: its layers applied one after another, as they were read and verified.
//! Uses: carry, error, layer, source, store (what is privileged).

use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;

use rustix::fs::Mode;

use crate::carry::{Carrier, told};
use crate::error::{Code, Error, Result};
use crate::layer::{self, Form, Limits, Unpack};
use crate::source::{Blobs, Image};
use crate::store::{clear_times, privileged};

/// Unpacks `image` of `blobs` into the empty folder `into`, which gets the root's attributes. Gives what was left out, in
/// sentences. When it fails, the folder is empty again.
pub fn unpack(
    blobs: &dyn Blobs,
    image: &Image,
    into: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<Vec<String>> {
    if !layer::is_empty(into).map_err(told)? {
        return Err(Error::new(Code::Usage, "the folder to unpack into is not empty"));
    }
    apply_all(blobs, image, into, limits).map_err(|error| match layer::clear(into, limits) {
        Ok(()) => error,
        Err(left) => {
            let left = told(left);
            error.and(format_args!("what was unpacked is still there: {left}"))
        }
    })
}

fn apply_all(blobs: &dyn Blobs, image: &Image, into: BorrowedFd<'_>, limits: &Limits) -> Result<Vec<String>> {
    // What they are where no layer tells.
    rustix::fs::fchmod(into, Mode::from_raw_mode(0o755)).map_err(|e| Error::call("fchmod", e))?;
    clear_times(into)?;
    let stop = AtomicBool::new(false);
    let carrier = Carrier { blobs, limit: limits.stream, stop: &stop };
    let options = Unpack { form: Form::Flat, rootless: !privileged()?, limits: *limits, lower: None };
    let mut notes = Vec::new();
    for (index, layer) in image.layers.iter().enumerate() {
        let summary = carrier
            .carry(layer, None, |tar| layer::unpack(tar, into, &options).map_err(told))
            .map_err(|e| e.of(format_args!("layer {index}")))?;
        notes.extend(summary.notes.iter().map(|note| format!("layer {index}: {note}")));
    }
    Ok(notes)
}
