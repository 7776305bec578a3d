//! What a process has as stdin, stdout and stderr, and what of it comes from outside of the container: on restore that is
//! what the caller has.

use super::external::Inside;
use crate::criu::message::{Options, Text};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Of process `pid`, in the words of CRIU's keys where it is from outside.
pub(super) fn of(pid: i32, inside: &Inside) -> Vec<String> {
    (0..3).map(|number| one(pid, number, inside).unwrap_or_default()).collect()
}

fn one(pid: i32, number: u32, inside: &Inside) -> Option<String> {
    let path = format!("/proc/{pid}/fd/{number}");
    let link = std::fs::read_link(&path).ok()?.to_str()?.to_string();
    let data = std::fs::metadata(&path).ok()?;
    // A terminal is CRIU's own business (--shell-job).
    let terminal = data.file_type().is_char_device() && (4..=5).contains(&major(data.rdev()))
        || link.starts_with("/dev/pts/");
    if !link.starts_with('/') || terminal {
        return Some(link);
    }
    let mount = mount_of(&std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?)?;
    match inside.has(mount) {
        true => Some(link),
        false => Some(format!("file[{mount:x}:{:x}]", data.ino())),
    }
}

fn major(device: u64) -> u32 {
    rustix::fs::major(device)
}

/// The number of the mount, of a fdinfo file.
pub(super) fn mount_of(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Files of the machine that no images hold.
pub(super) fn declare(descriptors: &[String], options: &mut Options) {
    let mut files: Vec<_> = descriptors.iter().filter(|text| text.starts_with("file[")).collect();
    files.sort();
    files.dedup();
    files.into_iter().for_each(|file| options.text(Text::External, file));
}

/// Which of the caller's own take the place of what: those of CRIU's from `first` on.
pub(super) fn inherit(descriptors: &[String], first: u32, options: &mut Options) {
    for (i, text) in descriptors.iter().enumerate() {
        let outside = text.starts_with("file[") || text.starts_with("pipe:[");
        if outside && !descriptors[..i].contains(text) {
            options.inherit(text, first + i as u32);
        }
    }
}
