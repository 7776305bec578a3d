//! Who runs a container: `uid[:gid]`, `user[:group]`, and what /etc/passwd and /etc/group of its root say. Uses: error,
//! root.

use std::collections::BTreeSet;

use super::RootFiles;
use crate::error::{Code, Error, Result};

/// Group ids that setgroups(2) takes at a time.
const GROUPS_MAX: usize = 65536;

/// The ids of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups. `gid` is one of them, or a set-group-id program could shed it (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
}

/// The user that `text` says. A number is taken as it stands, and its group comes from its line in /etc/passwd; the
/// memberships in /etc/group are those of a user that is named and comes without a group (conversion.md).
pub(super) fn resolve(text: &str, root: &RootFiles) -> Result<User> {
    if text.is_empty() {
        return Ok(User::default());
    }
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let mut found = User::default();
    if !user.is_empty() {
        let number = number(user)?;
        let passwd = if number.is_none() || group.is_empty() { root.read("/etc/passwd")? } else { None };
        let line = passwd.as_deref().and_then(|passwd| match number {
            Some(uid) => lines(passwd).find(|line| id(line, 2) == Some(uid)),
            None => lines(passwd).find(|line| line.first() == Some(&user.as_bytes())),
        });
        let broken =
            || Error::invalid(format!("the line of user {:?} in /etc/passwd has no valid ids", short(user)));
        (found.uid, found.gid) = match (number, line) {
            (None, None) => return Err(unknown("user", user, "/etc/passwd", passwd.is_some())),
            (None, Some(line)) => (id(&line, 2).ok_or_else(broken)?, id(&line, 3).ok_or_else(broken)?),
            (Some(uid), None) => (uid, 0),
            (Some(uid), Some(line)) => (uid, id(&line, 3).ok_or_else(broken)?),
        };
    }
    if !group.is_empty() {
        found.gid = match number(group)? {
            Some(gid) => gid,
            None => {
                let file = root.read("/etc/group")?;
                let line = file
                    .as_deref()
                    .and_then(|file| lines(file).find(|line| line.first() == Some(&group.as_bytes())));
                let line = line.ok_or_else(|| unknown("group", group, "/etc/group", file.is_some()))?;
                id(&line, 2).ok_or_else(|| {
                    Error::invalid(format!(
                        "the line of group {:?} in /etc/group has no valid id",
                        short(group)
                    ))
                })?
            }
        };
    }
    found.additional_gids.push(found.gid);
    if group.is_empty() && !user.is_empty() && number(user)?.is_none() {
        let file = root.read("/etc/group")?.unwrap_or_default();
        let member = |line: &Vec<&[u8]>| {
            line.get(3).is_some_and(|members| members.split(|b| *b == b',').any(|m| m == user.as_bytes()))
        };
        let mut gids: BTreeSet<u32> = lines(&file).filter(member).filter_map(|line| id(&line, 2)).collect();
        gids.remove(&found.gid);
        if gids.len() >= GROUPS_MAX {
            let count = gids.len();
            let message =
                format!("user {user:?} is in {count} groups of /etc/group, more than the kernel takes");
            return Err(Error::new(Code::Limit, message));
        }
        found.additional_gids.extend(gids);
    }
    Ok(found)
}

/// `text` as an id if it consists of digits. 2^32-1 is -1 to the kernel: "leave it as it is".
fn number(text: &str) -> Result<Option<u32>> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(u32::MAX) | Err(_) => {
            Err(Error::invalid(format!("{} is no id: they go from 0 to {}", short(text), u32::MAX - 1)))
        }
        Ok(id) => Ok(Some(id)),
    }
}

fn unknown(what: &str, name: &str, file: &str, there: bool) -> Error {
    let name = short(name);
    Error::invalid(match there {
        true => format!("{what} {name:?} is not in the root's {file}"),
        false => format!("{what} {name:?} cannot be looked up: the root has no {file}; give its number"),
    })
}

/// As much of `text` as an error shows.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The lines of such a file by their fields.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|b| *b == b'\n').map(|line| line.splitn(8, |b| *b == b':').collect())
}

/// Field `at` of `line`, if it is an id.
fn id(line: &[&[u8]], at: usize) -> Option<u32> {
    let text = std::str::from_utf8(line.get(at)?).ok()?;
    number(text).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        short\n\
        bad:x:4294967295:0::/:/bin/sh\n\
        negative:x:-1:-1::/:/bin/sh\n\
        worse:x:7:x::/:/bin/sh\n\
        empty:x:::::\n\
        web:x:1000:33:Web,,,:/srv:/bin/sh\n\
        web:x:0:0:second:/:/bin/sh\n\
        1000:x:5:5::/:/bin/sh\n\
        nobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";
    const GROUP: &str = "root:x:0:\n\
        tty:x:5:web\n\
        www-data:x:33:web,other\n\
        audio:x:29:other,web\n\
        again:x:5:web\n\
        video:x:44:webmaster,aweb\n\
        over:x:4294967296:web\n\
        bad:x:x:web\n\
        five:x:2000:1000\n";

    fn root(passwd: Option<&str>, group: Option<&str>) -> (tempfile::TempDir, RootFiles) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("etc")).unwrap();
        for (name, text) in [("passwd", passwd), ("group", group)] {
            if let Some(text) = text {
                fs::write(place.path().join("etc").join(name), text).unwrap();
            }
        }
        let root = RootFiles::open(place.path()).unwrap();
        (place, root)
    }

    #[test]
    fn users_are_who_docker_says_they_are() {
        let (_place, root) = root(Some(PASSWD), Some(GROUP));
        let none: &[u32] = &[];
        for (text, uid, gid, additional) in [
            ("", 0, 0, none),
            ("0", 0, 0, &[0]),
            ("root", 0, 0, &[0]),
            ("1000", 1000, 33, &[33]),
            ("1000:1000", 1000, 1000, &[1000]),
            ("4294967294:4294967294", 4294967294, 4294967294, &[4294967294]),
            ("web", 1000, 33, &[33, 5, 29]),
            ("web:", 1000, 33, &[33, 5, 29]),
            ("web:tty", 1000, 5, &[5]),
            ("web:0", 1000, 0, &[0]),
            ("1000:tty", 1000, 5, &[5]),
            ("nobody", 65534, 65533, &[65533]),
            ("nobody:tty", 65534, 5, &[5]),
            (":5", 0, 5, &[5]),
            (":tty", 0, 5, &[5]),
            (":", 0, 0, &[0]),
        ] {
            let expected = User { uid, gid, additional_gids: additional.to_vec() };
            assert_eq!(resolve(text, &root).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn who_is_nobody_is_an_error_and_never_root() {
        let (_place, root) = root(Some(PASSWD), Some(GROUP));
        for (text, why) in [
            (" ", "user \" \" is not in the root's /etc/passwd"),
            ("nope", "user \"nope\" is not in the root's /etc/passwd"),
            ("-1", "user \"-1\" is not in the root's /etc/passwd"),
            ("+0", "user \"+0\" is not in the root's /etc/passwd"),
            ("0x0", "user \"0x0\" is not in the root's /etc/passwd"),
            (" 0", "user \" 0\" is not in the root's /etc/passwd"),
            ("٣", "user \"٣\" is not in the root's /etc/passwd"),
            ("# a comment", "the line of user \"# a comment\" in /etc/passwd has no valid ids"),
            ("short", "the line of user \"short\" in /etc/passwd has no valid ids"),
            ("bad", "the line of user \"bad\" in /etc/passwd has no valid ids"),
            ("negative", "the line of user \"negative\" in /etc/passwd has no valid ids"),
            ("worse", "the line of user \"worse\" in /etc/passwd has no valid ids"),
            ("7", "the line of user \"7\" in /etc/passwd has no valid ids"),
            ("empty", "the line of user \"empty\" in /etc/passwd has no valid ids"),
            ("4294967295", "4294967295 is no id: they go from 0 to 4294967294"),
            ("4294967296", "4294967296 is no id: they go from 0 to 4294967294"),
            ("0:4294967296", "4294967296 is no id: they go from 0 to 4294967294"),
            ("web:nope", "group \"nope\" is not in the root's /etc/group"),
            ("0:0:0", "group \"0:0\" is not in the root's /etc/group"),
            ("web:over", "the line of group \"over\" in /etc/group has no valid id"),
        ] {
            assert_eq!(resolve(text, &root).unwrap_err().to_string(), why, "{text:?}");
        }
    }

    #[test]
    fn a_root_without_the_files_takes_numbers_only() {
        let (_place, root) = root(None, None);
        for (text, uid, gid) in [("", 0, 0), ("7", 7, 0), ("7:8", 7, 8), (":8", 0, 8)] {
            let user = resolve(text, &root).unwrap();
            assert_eq!((user.uid, user.gid), (uid, gid), "{text:?}");
        }
        for (text, why) in [
            ("web", "user \"web\" cannot be looked up: the root has no /etc/passwd; give its number"),
            ("7:tty", "group \"tty\" cannot be looked up: the root has no /etc/group; give its number"),
        ] {
            assert_eq!(resolve(text, &root).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn files_made_to_hurt_are_read_in_bounds() {
        let groups = |count: u32| (0..count).map(|i| format!(":x:{i}:u\n")).collect::<String>();
        let long = format!("{}\nu:x:1:2::/:\n", ":".repeat(200_000));
        let (place, root) = root(Some(&long), Some(&groups(65_536)));
        let user = resolve("u", &root).unwrap();
        assert_eq!((user.uid, user.gid), (1, 2));
        assert_eq!(user.additional_gids.len(), GROUPS_MAX);
        assert_eq!(user.additional_gids[..4], [2, 0, 1, 3]);
        fs::write(place.path().join("etc/group"), groups(65_538)).unwrap();
        let error = resolve("u", &root).unwrap_err().to_string();
        assert_eq!(error, "user \"u\" is in 65537 groups of /etc/group, more than the kernel takes");
    }
}
