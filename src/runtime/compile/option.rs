//! An option of a new file system as fsconfig(2) takes it: one string of bounded length, so that the layers of a long
//! overlay go one by one.

use crate::host::Host;
use crate::plan::Plan;
use crate::{Error, Result};
use rcrun_plan::Step;

/// fsconfig(2) copies a value with its NUL into 256 bytes and refuses longer ones with EINVAL.
const MOST: usize = 255;

/// Refuses an option whose name fsconfig(2) would not even copy.
pub(super) fn named(origin: &str, field: &str, key: &str) -> Result<()> {
    match key.len() {
        0..=MOST => Ok(()),
        long => Err(Error::config(
            format!("{origin}/{field}"),
            format!("the name of an option has {long} characters: the kernel takes {MOST} (fsconfig)"),
        )),
    }
}

/// Adds `key=value`, which stands at the JSON pointer `field`, to the file system of entry `origin`.
pub(super) fn push(
    origin: &str,
    field: &str,
    (key, value): (&str, &str),
    host: &Host,
    plan: &mut Plan,
) -> Result<()> {
    named(origin, field, key)?;
    if value.len() <= MOST {
        plan.push(origin, Step::FsString { key: key.into(), value: value.into() });
        return Ok(());
    }
    let refuse = |text: String| Err(Error::config(format!("{origin}/{field}"), text));
    if key != "lowerdir" {
        let key = key.escape_debug();
        return refuse(format!("{key} has {} characters: the kernel takes {MOST} (fsconfig)", value.len()));
    }
    if host.kernel < (6, 7) {
        return refuse(format!(
            "lowerdir has {} characters: before Linux 6.7 the kernel takes {MOST} for all layers (fsconfig)",
            value.len()
        ));
    }
    for (key, layer) in layers(value) {
        if layer.is_empty() || layer.len() > MOST {
            let length = layer.len();
            return refuse(format!(
                "a layer of lowerdir has {length} characters: the kernel takes 1 to {MOST} for each (fsconfig)"
            ));
        }
        plan.push(origin, Step::FsString { key: key.into(), value: layer.into() });
    }
    Ok(())
}

/// The layers of an overlay's lowerdir: separated by `:`, after a `::` those for data only; a backslash takes the next
/// character as it is (Documentation/filesystems/overlayfs.rst). By themselves they are not escaped.
fn layers(value: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let (mut key, mut layer) = ("lowerdir+", String::new());
    let mut rest = value.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => layer.extend(rest.next()),
            ':' => {
                found.push((key, std::mem::take(&mut layer)));
                if rest.next_if_eq(&':').is_some() {
                    key = "datadir+";
                }
            }
            c => layer.push(c),
        }
    }
    found.push((key, layer));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_refused_by_field_and_limit_as_the_kernel_requires() {
        let arch = crate::host::Arch::X86_64;
        let host = |kernel| Host {
            kernel,
            last_cap: 40,
            bounding: !0,
            arch,
            apparmor: false,
            selinux: false,
            caller: crate::host::Caller::ROOT,
        };
        let short = "s".repeat(255);
        let long = "l".repeat(256);
        let (two, bad, empty) =
            (format!("{short}:{short}"), format!("{short}:{long}"), format!("{short}:{short}:"));
        for (key, value, kernel, expected) in [
            ("size", &short, (5, 14), Ok(1)),
            ("size", &long, (6, 18), Err("size has 256 characters: the kernel takes 255 (fsconfig)")),
            ("lowerdir", &short, (6, 6), Ok(1)),
            ("lowerdir", &two, (6, 6), Err("before Linux 6.7 the kernel takes 255 for all layers")),
            ("lowerdir", &two, (6, 7), Ok(2)),
            ("lowerdir", &bad, (6, 7), Err("a layer of lowerdir has 256 characters")),
            (&long, &short, (6, 18), Err("the name of an option has 256 characters")),
            ("lowerdir", &empty, (6, 7), Err("a layer of lowerdir has 0 characters")),
        ] {
            let mut plan = Plan::default();
            let pushed = push("/mounts/3", "options", (key, value), &host(kernel), &mut plan);
            match (pushed, expected) {
                (Ok(()), Ok(steps)) => assert_eq!(plan.steps.len(), steps, "{key} on {kernel:?}"),
                (Err(error), Err(text)) => {
                    assert_eq!(error.pointer(), Some("/mounts/3/options"));
                    assert!(error.to_string().contains(text), "{error}");
                }
                (pushed, _) => panic!("{key} on {kernel:?}: {pushed:?}"),
            }
        }
    }

    #[test]
    fn layers_are_split_as_the_kernel_splits_them() {
        let (lower, data) = ("lowerdir+", "datadir+");
        for (value, expected) in [
            ("/a", &[(lower, "/a")][..]),
            ("/a:/b", &[(lower, "/a"), (lower, "/b")]),
            (r"/a\:b:/c\\d:/e\f", &[(lower, "/a:b"), (lower, r"/c\d"), (lower, "/ef")]),
            ("/a::/b::/c", &[(lower, "/a"), (data, "/b"), (data, "/c")]),
            // What it refuses: it is told so that it can.
            ("/a:", &[(lower, "/a"), (lower, "")]),
            ("/a:::/b", &[(lower, "/a"), (data, ""), (data, "/b")]),
            (r"/a\", &[(lower, "/a")]),
        ] {
            let found = layers(value);
            let found: Vec<_> = found.iter().map(|(key, layer)| (*key, layer.as_str())).collect();
            assert_eq!(found, expected, "{value}");
        }
    }
}
