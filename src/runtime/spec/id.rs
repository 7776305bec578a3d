//! Names and numbers that arrive as text on the command line, as types that cannot hold a bad one.
//! Uses: error.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result};

/// The name of a container: one path component, safe in a file name, a cgroup and a unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// NAME_MAX: the id is a folder below the state root.
    pub const MAX: usize = 255;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<ContainerId> {
        if text.is_empty() {
            return Err(Error::new(Code::Usage, "container ID cannot be empty"));
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-');
        let mut bytes = text.bytes();
        // A leading dot would allow `.` and `..`, and hide the folder.
        let plain = bytes.next().is_some_and(word) && bytes.all(|b| word(b) || b == b'.');
        if !plain || text.len() > ContainerId::MAX {
            let shown: String = text.chars().take(64).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            return Err(Error::new(
                Code::Usage,
                format!(
                    "invalid container ID format: {shown:?}{more} (letters, digits and _ + - . are allowed, no dot first, at most {} characters)",
                    ContainerId::MAX
                ),
            ));
        }
        Ok(ContainerId(text.to_string()))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// `exec --user`: `uid` or `uid:gid`, numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserIds {
    /// The user.
    pub uid: u32,
    /// The group, where one is given.
    pub gid: Option<u32>,
}

impl FromStr for UserIds {
    type Err = Error;

    fn from_str(text: &str) -> Result<UserIds> {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        let refuse = |what: &str, word: &str| {
            let shown: String = word.chars().take(32).collect();
            Error::new(
                Code::Usage,
                format!(
                    "--user: {what} {shown:?} is not a number from 0 to {} (the format is uid[:gid])",
                    u32::MAX - 1
                ),
            )
        };
        Ok(UserIds {
            uid: number(uid).ok_or_else(|| refuse("uid", uid))?,
            gid: gid.map(|gid| number(gid).ok_or_else(|| refuse("gid", gid))).transpose()?,
        })
    }
}

/// Digits and nothing else: a number that is read as 0 or wraps to it is root (CVE-2026-30892,
/// CVE-2024-40635), and to setresuid(2) the highest one means "leave it as it is".
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_engines_make_are_accepted() {
        for id in ["web", "a", "_x", "+1", "-", "buildkit.7", &"f".repeat(64), &"x".repeat(255), "A_b+c-d.e"]
        {
            assert_eq!(id.parse::<ContainerId>().expect(id).as_str(), id);
        }
    }

    #[test]
    fn ids_that_could_leave_their_folder_are_refused() {
        for id in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "/",
            "../x",
            "a\0b",
            "a b",
            "a\nb",
            "ä",
            "a:b",
            "a,b",
            "a%b",
            &"x".repeat(256),
        ] {
            assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_long_id_does_not_fill_the_sentence() {
        let error = "x/".repeat(1 << 20).parse::<ContainerId>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }

    #[test]
    fn users_are_numbers_and_never_root_by_accident() {
        for (text, uid, gid) in [
            ("0", 0, None),
            ("1", 1, None),
            ("1:2", 1, Some(2)),
            ("007", 7, None),
            ("4294967294:0", 4_294_967_294, Some(0)),
        ] {
            assert_eq!(text.parse::<UserIds>().expect(text), UserIds { uid, gid }, "{text}");
        }
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "root",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1:2:3",
            "1:-2",
            "0x1",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "1:4294967295",
            "1:root",
            "1\n",
            "１",
        ] {
            assert!(text.parse::<UserIds>().is_err(), "{text:?}");
        }
    }
}
