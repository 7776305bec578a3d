//! A tar whose members are read in place: one pass over its headers, then any member in any order. Links lead only to
//! other members. Takes the header's layout from the tar crate and nothing else of it. Uses: files, error.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::files::Member;
use crate::error::{Code, Error, Result};

const BLOCK: u64 = 512;
/// Members of an archive, folders not counted.
const MEMBERS_MAX: usize = 200_000;
/// All names together.
const NAMES_MAX: usize = 32 << 20;
/// One extended header or long name.
const EXTENSION_MAX: u64 = 1 << 20;
/// Links after each other, as the kernel has it.
const LINKS_MAX: usize = 40;

/// What an archive has, by name.
pub(super) struct Archive {
    file: Arc<File>,
    members: HashMap<String, Place>,
}

enum Place {
    Data { offset: u64, size: u64 },
    Link(String),
}

/// A name as it is looked up: without `./`, `//` and `x/..`; `None` where it leads out of the archive.
fn normal(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Headers that change the next entry.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

impl Archive {
    /// Reads the headers of the tar in `file`.
    pub(super) fn index(file: File) -> Result<Archive> {
        let length = file.metadata().map_err(|e| Error::call("fstat", e))?.len();
        let mut members = HashMap::new();
        let mut names = 0;
        let mut global = Extension::default();
        let mut next = Extension::default();
        let mut offset = 0;
        let truncated = |at: u64| Error::invalid(format!("the archive is truncated at byte {at}"));
        while offset + BLOCK <= length {
            let mut block = [0; BLOCK as usize];
            file.read_exact_at(&mut block, offset).map_err(|e| Error::call("read", e))?;
            if block.iter().all(|b| *b == 0) {
                break;
            }
            let at = offset;
            let bad = |why: &str| Error::invalid(format!("{why} at byte {at}"));
            let header = tar::Header::from_byte_slice(&block);
            let sum: u64 = block.iter().map(|b| u64::from(*b)).sum::<u64>()
                - block[148..156].iter().map(|b| u64::from(*b)).sum::<u64>()
                + 8 * u64::from(b' ');
            if header.cksum().ok().map(u64::from) != Some(sum) {
                return Err(bad(if at == 0 {
                    "is no tar: no header"
                } else {
                    "the archive is broken: no header"
                }));
            }
            let kind = header.entry_type();
            let own_size =
                header.entry_size().map_err(|_| bad("the archive is broken: a size that is no number"))?;
            let is_extension = matches!(kind.as_byte(), b'L' | b'K' | b'x' | b'g');
            let size = match next.size.or(global.size) {
                Some(size) if !is_extension => size,
                _ => own_size,
            };
            let has_data = matches!(kind.as_byte(), 0 | b'0' | b'7' | b'S') || is_extension;
            // Links and folders have no data, whatever their size says.
            let size = if has_data || !matches!(kind.as_byte(), b'1'..=b'6') { size } else { 0 };
            let data = at + BLOCK;
            offset = size
                .checked_next_multiple_of(BLOCK)
                .and_then(|size| data.checked_add(size))
                .filter(|_| data + size.min(length) <= length && size <= length)
                .ok_or_else(|| truncated(length))?;
            if is_extension {
                if size > EXTENSION_MAX {
                    return Err(Error::new(
                        Code::Limit,
                        format!("an extended header of {size} bytes at byte {at}, more than {EXTENSION_MAX}"),
                    ));
                }
                let mut text = vec![0; size as usize];
                file.read_exact_at(&mut text, data).map_err(|e| Error::call("read", e))?;
                let long = || {
                    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
                    String::from_utf8(text[..end].to_vec()).map_err(|_| bad("a name that is not UTF-8"))
                };
                match kind.as_byte() {
                    b'L' => next.path = Some(long()?),
                    b'K' => next.link = Some(long()?),
                    b'x' => next.pax(&text).ok_or_else(|| bad("a broken extended header"))?,
                    _ => global.pax(&text).ok_or_else(|| bad("a broken extended header"))?,
                }
                continue;
            }
            let extension = std::mem::take(&mut next);
            if extension.sparse || kind.as_byte() == b'S' {
                return Err(Error::new(
                    Code::Unsupported,
                    format!("a sparse file in the archive at byte {at}"),
                ));
            }
            let text =
                |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad("a name that is not UTF-8"));
            let path = match extension.path {
                Some(path) => path,
                None => text(&header.path_bytes())?,
            };
            let link = || match extension.link {
                Some(link) => Ok(link),
                None => text(&header.link_name_bytes().unwrap_or_default()),
            };
            let Some(path) = normal(&path) else { continue };
            let place = match kind.as_byte() {
                0 | b'0' | b'7' => Place::Data { offset: data, size },
                b'1' => match normal(&link()?) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                b'2' => {
                    let link = link()?;
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    // An absolute link, like one above the top, leads out: nothing of an image is there.
                    match normal(&format!("{parent}/{link}")) {
                        Some(target) if !link.starts_with('/') => Place::Link(target),
                        _ => continue,
                    }
                }
                _ => continue,
            };
            names += path.len() + if let Place::Link(target) = &place { target.len() } else { 0 };
            if members.len() >= MEMBERS_MAX || names > NAMES_MAX {
                return Err(Error::new(
                    Code::Limit,
                    format!("the archive has more than {MEMBERS_MAX} files, or {NAMES_MAX} bytes of names"),
                ));
            }
            // As when it is unpacked: the later member of a name replaces the earlier.
            members.insert(path, place);
        }
        if members.is_empty() {
            return Err(Error::invalid("is no tar, or one without a file in it"));
        }
        Ok(Archive { file: Arc::new(file), members })
    }

    /// The member `name`, through links.
    pub(super) fn find(&self, name: &str) -> Result<Option<Member>> {
        let Some(mut at) = normal(name) else { return Ok(None) };
        for _ in 0..LINKS_MAX {
            match self.members.get(&at) {
                None => return Ok(None),
                Some(Place::Data { offset, size }) => {
                    return Ok(Some(Member { file: self.file.clone(), offset: *offset, size: *size }));
                }
                Some(Place::Link(target)) => at = target.clone(),
            }
        }
        Err(Error::invalid(format!("{name}: more than {LINKS_MAX} links after each other")))
    }
}

impl Extension {
    /// Takes the records of a PAX header: `length key=value\n`.
    fn pax(&mut self, mut text: &[u8]) -> Option<()> {
        while !text.is_empty() {
            let space = text.iter().position(|b| *b == b' ')?;
            let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
            let record = text.get(space + 1..length)?;
            text = &text[length..];
            let record = record.strip_suffix(b"\n")?;
            let equals = record.iter().position(|b| *b == b'=')?;
            let value = || String::from_utf8(record[equals + 1..].to_vec()).ok();
            match &record[..equals] {
                b"path" => self.path = Some(value()?),
                b"linkpath" => self.link = Some(value()?),
                b"size" => self.size = Some(value()?.parse().ok()?),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn indexed(tar: &[u8]) -> Result<Archive> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(tar).unwrap();
        Archive::index(file)
    }

    fn text(archive: &Archive, name: &str) -> Option<String> {
        let mut text = String::new();
        archive.find(name).unwrap()?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }

    #[test]
    fn members_are_found_in_any_order_by_long_names_and_through_links_inside() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/x", "d".repeat(180));
        link(&mut builder, tar::EntryType::Symlink, "b/layer.tar", "../a/layer.tar");
        file(&mut builder, "./a/layer.tar", b"one");
        file(&mut builder, &long, b"two");
        link(&mut builder, tar::EntryType::Link, "hard", "a/layer.tar");
        builder.append_pax_extensions([("path", b"pax/name".as_slice()), ("size", b"5")]).unwrap();
        file(&mut builder, "short", b"three");
        file(&mut builder, "again", b"old");
        file(&mut builder, "again", b"new");
        let archive = indexed(&builder.into_inner().unwrap()).unwrap();
        for (name, content) in [
            ("a/layer.tar", Some("one")),
            ("./a//layer.tar", Some("one")),
            ("b/layer.tar", Some("one")),
            ("hard", Some("one")),
            (&long, Some("two")),
            ("pax/name", Some("three")),
            ("short", None),
            ("again", Some("new")),
            ("../a/layer.tar", None),
            ("a", None),
        ] {
            assert_eq!(text(&archive, name).as_deref(), content, "{name}");
        }
    }

    #[test]
    fn links_that_lead_out_or_in_circles_reach_nothing() {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, target) in [
            ("absolute", "/etc/passwd"),
            ("above", "../etc/passwd"),
            ("deep/above", "../../etc/passwd"),
            ("one", "two"),
            ("two", "one"),
            ("self", "self"),
        ] {
            link(&mut builder, tar::EntryType::Symlink, name, target);
        }
        file(&mut builder, "etc/passwd", b"of the archive");
        let archive = indexed(&builder.into_inner().unwrap()).unwrap();
        for name in ["absolute", "above", "deep/above"] {
            assert!(archive.find(name).unwrap().is_none(), "{name}");
        }
        for name in ["one", "two", "self"] {
            assert!(archive.find(name).unwrap_err().to_string().contains("links after each other"));
        }
    }

    #[test]
    fn every_truncation_is_an_error_or_an_archive_without_the_missing_members() {
        let mut builder = tar::Builder::new(Vec::new());
        file(&mut builder, "first", &[1; 700]);
        file(&mut builder, "second", &[2; 100]);
        let whole = builder.into_inner().unwrap();
        for end in 0..whole.len() {
            match indexed(&whole[..end]) {
                Ok(archive) => {
                    for (name, size) in [("first", 700), ("second", 100)] {
                        if let Some(member) = archive.find(name).unwrap() {
                            assert_eq!(member.size, size);
                            assert!(member.offset + member.size <= end as u64, "cut at {end}");
                        }
                    }
                }
                Err(error) => assert_eq!(error.code(), Code::Invalid, "cut at {end}: {error}"),
            }
        }
    }

    #[test]
    fn hostile_headers_are_refused_in_words() {
        let sized = |kind: u8, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_path("x").unwrap();
            header.set_size(size);
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let mut sparse = tar::Builder::new(Vec::new());
        sparse.append_pax_extensions([("GNU.sparse.major", b"1".as_slice())]).unwrap();
        file(&mut sparse, "x", b"y");
        let mut pax = sized(b'x', 20);
        pax.extend([b'9'; 512]);
        let mut flipped = sized(b'0', 0);
        flipped[3] ^= 1;
        for (tar, why) in [
            (sized(b'0', 1 << 40), "truncated"),
            (sized(b'0', u64::MAX), "truncated"),
            (sized(b'0', u64::MAX - 511), "truncated"),
            ([sized(b'L', 2 << 20), vec![b'a'; 3 << 20]].concat(), "extended header of 2097152"),
            (sparse.into_inner().unwrap(), "sparse"),
            (sized(b'S', 0), "sparse"),
            (pax, "broken extended header"),
            (flipped, "is no tar"),
            (vec![b'x'; 4096], "is no tar"),
            (vec![0; 4096], "is no tar"),
            (vec![], "is no tar"),
        ] {
            let error = indexed(&tar).err().expect(why).to_string();
            assert!(error.contains(why), "{error} should say {why}");
        }
    }
}
