//! The names of entries: made plain, checked against the limits, and read as whiteouts where they are.
//! Uses: error. Pure.

use super::Limits;
use super::error::{Error, Result, Shown};

/// What the last part of an entry's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// An entry of that name.
    Entry(&'a [u8]),
    /// What the layers below have under that name is hidden.
    Whiteout(&'a [u8]),
    /// All that the layers below have in the folder is hidden.
    Opaque,
    /// A file of aufs's own.
    Aufs,
}

/// Puts the parts of `raw` into `plain`, joined by single slashes: nothing for the root itself.
pub fn plain(raw: &[u8], limits: &Limits, plain: &mut Vec<u8>) -> Result<()> {
    plain.clear();
    if raw.is_empty() {
        return Err(Error::archive("an empty name"));
    }
    if raw.contains(&0) {
        return Err(Error::archive(format!("a NUL in the name \"{}\"", Shown(raw))));
    }
    if raw.len() > limits.path {
        return Err(Error::limit(format!("a name of {} bytes (at most {})", raw.len(), limits.path)));
    }
    let mut depth = 0;
    for part in raw.split(|&b| b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(Error::archive(format!("\"..\" in the name \"{}\"", Shown(raw)))),
            _ => {}
        }
        depth += 1;
        if depth > limits.depth {
            return Err(Error::limit(format!("a name of more than {} folders", limits.depth)));
        }
        if part.len() > limits.name {
            return Err(Error::limit(format!(
                "a part of {} bytes in a name (at most {})",
                part.len(),
                limits.name
            )));
        }
        if !plain.is_empty() {
            plain.push(b'/');
        }
        plain.extend_from_slice(part);
    }
    Ok(())
}

/// The folder and the name in it.
pub fn split(plain: &[u8]) -> (&[u8], &[u8]) {
    match plain.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&plain[..slash], &plain[slash + 1..]),
        None => (b"", plain),
    }
}

/// What an entry named `plain` asks for, and in which folder.
pub fn wish(plain: &[u8]) -> Result<(&[u8], Wish<'_>)> {
    let (parent, name) = split(plain);
    for part in parent.split(|&b| b == b'/') {
        if part.starts_with(b".wh..wh.") {
            return Ok((parent, Wish::Aufs));
        }
        if part.starts_with(b".wh.") {
            return Err(Error::archive(format!("\"{}\" is a whiteout, and no folder", Shown(part))));
        }
    }
    let wish = match name.strip_prefix(b".wh.") {
        None => Wish::Entry(name),
        Some(b"") => return Err(Error::archive("a whiteout of nothing")),
        Some(dots @ (b"." | b"..")) => {
            return Err(Error::archive(format!("a whiteout of \"{}\"", Shown(dots))));
        }
        Some(b".wh..opq") => Wish::Opaque,
        Some(rest) if rest.starts_with(b".wh.") => Wish::Aufs,
        Some(rest) => Wish::Whiteout(rest),
    };
    Ok((parent, wish))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_plain_or_refused() {
        let limits = Limits { path: 20, name: 8, depth: 4, ..Limits::default() };
        for (raw, expected) in [
            ("a", Ok("a")),
            ("./a//b/./c/", Ok("a/b/c")),
            ("/a", Ok("a")),
            (".", Ok("")),
            ("/", Ok("")),
            ("a/../b", Err("\"..\" in the name \"a/../b\"")),
            ("..", Err("\"..\" in the name \"..\"")),
            ("...", Ok("...")),
            ("", Err("an empty name")),
            ("a\0b", Err("a NUL in the name \"a\\x00b\"")),
            ("a/b/c/d/e", Err("a name of more than 4 folders")),
            ("123456789", Err("a part of 9 bytes in a name (at most 8)")),
            ("1234567/1234567/1234567", Err("a name of 23 bytes (at most 20)")),
        ] {
            let mut out = Vec::new();
            let got = plain(raw.as_bytes(), &limits, &mut out).map(|()| String::from_utf8(out).unwrap());
            assert_eq!(
                got.map_err(|e| e.to_string()).as_deref(),
                expected.map_err(str::to_string).as_ref().map(|s| *s),
                "{raw}"
            );
        }
    }

    #[test]
    fn whiteouts_are_told_by_the_last_part() {
        for (name, expected) in [
            ("a/b", Some(Wish::Entry(b"b"))),
            ("a/.wh.b", Some(Wish::Whiteout(b"b"))),
            (".wh..wh..opq", Some(Wish::Opaque)),
            (".wh..wh.plnk", Some(Wish::Aufs)),
            ("a/.wh..wh.plnk/1.2", Some(Wish::Aufs)),
            (".wh...a", Some(Wish::Whiteout(b"..a"))),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
            (".wh.a/b", None),
        ] {
            assert_eq!(wish(name.as_bytes()).ok().map(|(_, wish)| wish), expected, "{name}");
        }
    }
}
