//! Bytes as the plan that init maps. Uses: rcrun_plan.
//!
//! What holds: whatever the bytes are, reading them ends; a header that is accepted has all its tables inside of the
//! image, and is written as it was read; no step is longer than what is left of the image, and its text ends with its
//! only NUL.

use rcrun_plan::image::{HEADER_SIZE, Header, MAGIC, Steps};
use rcrun_plan::{InRoot, Step, text::Z};

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    decoded(input);
    // Of random bytes nearly none begin as a plan does: what follows the first word is the input then.
    let mut plan = MAGIC.to_le_bytes().to_vec();
    plan.extend_from_slice(input);
    decoded(&plan);
}

fn decoded(image: &[u8]) {
    let Some(header) = Header::decode(image) else { return };
    assert!(header.length as usize <= image.len());
    // What is written has zeroes where nothing is.
    let again = header.encode();
    assert_eq!(again.len(), HEADER_SIZE);
    assert_eq!(Header::decode(&[&again[..], &image[HEADER_SIZE..]].concat()), Some(header));
    let tables = [
        (header.slots, 4, 0),
        (header.groups, 4, 0),
        (header.filter, 8, 0),
        (header.args, 8, 1),
        (header.env, 8, 1),
        (header.candidates, 8, 1),
        (header.steps, 1, 0),
    ];
    for (table, size, closing) in tables {
        let end = u64::from(table.offset) + (u64::from(table.count) + closing) * size;
        assert!(end <= u64::from(header.length) && table.offset.is_multiple_of(8), "{table:?} of {header:?}");
    }
    let Some(steps) = Steps::new(image, &header) else { return };
    let mut left = header.length - header.steps.offset;
    for step in steps {
        // What is broken once is broken for init, too: it reads no further.
        let Ok(step) = step else { break };
        left = left.checked_sub(1).expect("a step takes a byte at least");
        texts(&step).into_iter().for_each(|text| {
            let bytes = text.with_nul();
            assert!(
                bytes.len() <= image.len() && bytes.iter().position(|b| *b == 0) == Some(bytes.len() - 1)
            );
        });
    }
}

/// The texts of the steps that have most of them.
fn texts<'a>(step: &Step<Z<'a>>) -> Vec<Z<'a>> {
    match step {
        Step::AttachRoot { path, .. } | Step::Detach { path } => vec![*path],
        Step::FsOpen { kind } => vec![*kind],
        Step::FsString { key, value } => vec![*key, *value],
        Step::FsFlag { key } => vec![*key],
        Step::Hostname { name } | Step::Domainname { name } | Step::Keyring { name } => vec![*name],
        Step::Sysctl { path, value } => vec![*path, *value],
        Step::Label { name, value, .. } => vec![*name, *value],
        Step::Symlink { target, path: InRoot(path), .. } => vec![*target, *path],
        Step::Directory { path: InRoot(path), .. }
        | Step::MountPoint { path: InRoot(path), .. }
        | Step::Attach { path: InRoot(path), .. }
        | Step::Mask { path: InRoot(path), .. }
        | Step::ReadOnly { path: InRoot(path), .. }
        | Step::Node { path: InRoot(path), .. }
        | Step::ChangeDirectory { path: InRoot(path), .. } => vec![*path],
        _ => Vec::new(),
    }
}
