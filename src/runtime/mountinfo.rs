//! /proc/self/mountinfo: its lines and escapes, and the mounts that --no-pivot must not leave behind. Uses: error.

use crate::error::CallContext;
use crate::{Code, Error, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A line of it, as far as somebody asks (proc_pid_mountinfo(5)).
pub struct Mount<'a> {
    /// Its number.
    pub id: &'a [u8],
    /// The numbers of the file system's device.
    pub device: &'a [u8],
    /// What of the file system is mounted.
    pub root: &'a [u8],
    /// Where, escaped.
    pub point: &'a [u8],
    /// Its own options, with commas between.
    pub options: &'a [u8],
    /// The type of the file system.
    pub kind: &'a [u8],
}

impl Mount<'_> {
    /// `None` for what is no such line.
    pub fn of(line: &[u8]) -> Option<Mount<'_>> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = fields.next()?;
        // Its parent.
        let mut fields = fields.skip(1);
        let (device, root) = (fields.next()?, fields.next()?);
        let (point, options) = (fields.next()?, fields.next()?);
        // What lies between is optional.
        fields.find(|field| *field == b"-")?;
        Some(Mount { id, device, root, point, options, kind: fields.next()? })
    }
}

/// Where procfs and sysfs are mounted whole in this mount namespace, what lies below others first; but for what is mounted
/// in `rootfs`, over which the container's own mounts come.
pub fn seen_whole(rootfs: &Path) -> Result<Vec<String>> {
    let real = rootfs.canonicalize();
    let rootfs = real.as_deref().unwrap_or(rootfs);
    let text = std::fs::read("/proc/self/mountinfo").call("read /proc/self/mountinfo")?;
    of_kinds(&text, &[b"proc", b"sysfs"])
        .into_iter()
        .filter(|point| !Path::new(OsStr::from_bytes(point)).starts_with(rootfs))
        .map(|point| {
            String::from_utf8(point).map_err(|error| {
                let point = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Error::new(
                    Code::Host,
                    format!("--no-pivot: the mount point {point:?} of the machine is not UTF-8"),
                )
            })
        })
        .collect()
}

/// Where the first file system of a kind is mounted in this mount namespace.
pub fn first_of_kind(kind: &[u8]) -> Result<Option<PathBuf>> {
    let text = std::fs::read("/proc/self/mountinfo").call("read /proc/self/mountinfo")?;
    let mut mounts = text.split(|byte| *byte == b'\n').filter_map(Mount::of);
    let found = mounts.find(|mount| mount.kind == kind);
    Ok(found.map(|mount| PathBuf::from(OsStr::from_bytes(&unescape(mount.point)))))
}

fn of_kinds(mountinfo: &[u8], kinds: &[&[u8]]) -> Vec<Vec<u8>> {
    let point = |line: &[u8]| {
        let mount = Mount::of(line)?;
        // The kernel does not count a part of one.
        (mount.root == b"/" && kinds.contains(&mount.kind)).then(|| unescape(mount.point))
    };
    // mountinfo lists what is mounted on others after them, and of a stack the topmost last.
    let mut points: Vec<Vec<u8>> = mountinfo.split(|byte| *byte == b'\n').filter_map(point).collect();
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.iter().filter(|byte| **byte == b'/').count()));
    points
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        text.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_others_comes_first_and_each_layer_of_a_stack_is_told() {
        let text = "20 1 0:19 / / rw - ext4 /dev/vda rw\n\
                    21 20 0:20 / /proc rw,nosuid shared:3 - proc proc rw\n\
                    22 20 0:21 / /sys rw - sysfs sysfs rw\n\
                    23 21 0:20 / /proc/sys ro - proc proc rw\n\
                    27 21 0:20 /sysrq-trigger /proc/sysrq-trigger ro - proc proc rw\n\
                    24 21 0:20 / /proc rw - proc proc rw\n\
                    25 20 0:20 / /mnt/a\\040b rw master:1 - proc proc rw\n";
        let points = of_kinds(text.as_bytes(), &[b"proc", b"sysfs"]);
        let expected: [&[u8]; 5] = [b"/mnt/a b", b"/proc/sys", b"/proc", b"/sys", b"/proc"];
        assert_eq!(points, expected);
    }
}
