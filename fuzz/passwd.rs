//! Users of an image: the first line of the input is the configuration's `User`, what follows is /etc/passwd of its root,
//! and, after a NUL byte, /etc/group. Uses: rcrun_image::bundle, sentence.
//!
//! What holds: who is said by a number is that number; who is said by a name has the ids of the first line of that name,
//! so that nobody becomes root who is not root there; the group is one of the additional ones (CVE-2022-36109), and no
//! id is -1; an error is a sentence.

use rcrun_image::bundle::{RootFiles, Said, Surroundings, config};
use rcrun_image::document::Config;
use serde_json::Value;

use crate::sentence;

/// Panics if the property does not hold for `input`.
pub fn holds(input: &[u8]) {
    let (user, files) = halves(input, b'\n');
    let Ok(user) = std::str::from_utf8(user) else { return };
    let (passwd, group) = halves(files, 0);
    thread_local!(static ROOT: tempfile::TempDir = {
        let root = tempfile::tempdir().expect("a scratch folder");
        std::fs::create_dir(root.path().join("etc")).expect("mkdir");
        root
    });
    ROOT.with(|folder| {
        std::fs::write(folder.path().join("etc/passwd"), passwd).expect("write");
        std::fs::write(folder.path().join("etc/group"), group).expect("write");
        let root = RootFiles::open(folder.path()).expect("open of the root");
        let mut image = Config::default();
        image.config.user = user.to_string();
        image.config.cmd = vec!["/bin/x".to_string()];
        match config(&image, &Said::default(), &Surroundings::default(), &root) {
            Err(error) => sentence::is_one(&error),
            Ok(converted) => is_who_was_said(&converted.config["process"]["user"], user, passwd, group),
        }
    });
}

fn halves(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == at) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

/// The decimal number that `field` is.
fn decimal(field: &str) -> Option<u64> {
    let digits = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| field.parse().ok()).flatten()
}

/// Field `at` of the first line of `file` that begins with `name`.
fn field(file: &[u8], name: &str, at: usize) -> Option<u64> {
    let line = file
        .split(|byte| *byte == b'\n')
        .find(|line| line.split(|byte| *byte == b':').next() == Some(name.as_bytes()))?;
    decimal(std::str::from_utf8(line.split(|byte| *byte == b':').nth(at)?).ok()?)
}

fn is_who_was_said(found: &Value, said: &str, passwd: &[u8], group_file: &[u8]) {
    let (user, group) = said.split_once(':').unwrap_or((said, ""));
    let uid = found["uid"].as_u64();
    let gid = found["gid"].as_u64();
    let wanted = match user {
        "" => Some(0),
        user => decimal(user).or_else(|| field(passwd, user, 2)),
    };
    assert_eq!(uid, wanted, "the user of {said:?}");
    if !group.is_empty() {
        assert_eq!(gid, decimal(group).or_else(|| field(group_file, group, 2)), "the group of {said:?}");
    } else if !user.is_empty() && decimal(user).is_none() {
        assert_eq!(gid, field(passwd, user, 3), "the group of {said:?}");
    }
    let mut gids = vec![gid];
    if let Some(additional) = found["additionalGids"].as_array() {
        gids.extend(additional.iter().map(Value::as_u64));
        assert!(additional.iter().any(|one| one.as_u64() == gid), "{found}");
    } else {
        assert!(said.is_empty(), "{said:?} has no additional groups");
    }
    gids.push(uid);
    assert!(gids.iter().all(|id| id.is_some_and(|id| id < u64::from(u32::MAX))), "{found}");
}
