//! Archives that mean harm, lie, or are broken. Each gives a clear error or the right tree, in every form, soon, and
//! nothing outside of the root changes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{Form, Kind, Limits, Unpack, unpack};
use super::archive::{Header, Tar};
use super::unpack_into;
use super::walk::{Tell, assert_same, walk};

/// What must come of an archive.
enum Comes {
    /// An error with these words in it.
    Error(&'static str),
    /// This tree, a name and a line of `walk` each, the root left out.
    Tree(Vec<(&'static str, &'static str)>),
}
use Comes::{Error, Tree};

struct Case(&'static str, Vec<u8>, Comes);

/// Who unpacks well has a dozen calls for each: seconds are for machines that are busy.
const SOON: Duration = Duration::from_secs(20);

fn run(cases: Vec<Case>) -> usize {
    let count = cases.len();
    for Case(name, tar, comes) in cases {
        for form in [Form::Flat, Form::Overlay, Form::UserOverlay] {
            let temp = tempfile::tempdir().unwrap();
            // What a way out would lead to.
            let outside = temp.path().join("outside");
            std::fs::create_dir_all(outside.join("folder")).unwrap();
            std::fs::write(outside.join("file"), "outside").unwrap();
            std::fs::write(outside.join("folder/file"), "outside").unwrap();
            std::fs::write(temp.path().join("sibling"), "outside").unwrap();
            let root = temp.path().join("root");
            std::fs::create_dir(&root).unwrap();
            // `OUTSIDE` in an archive, 60 bytes with it, is the path of that folder.
            let tar = replaced(&tar, &outside);
            let before = snapshot(temp.path());
            let since = Instant::now();
            let result = unpack_into(&tar, &root, form);
            assert!(since.elapsed() < SOON, "{name}: {:?}", since.elapsed());
            assert_same(&before, &snapshot(temp.path()), &format!("{name}, {form:?}: outside of the root"));
            match (&comes, result) {
                (Error(words), Err(error)) => {
                    let text = error.to_string();
                    assert!(text.contains(words), "{name}, {form:?}: {text}");
                    assert!(
                        !text.contains('\n') && !text.contains('\0') && text.len() < 2000,
                        "{name}: {text}"
                    );
                }
                (Error(words), Ok(summary)) => panic!("{name}, {form:?}: no error \"{words}\": {summary:?}"),
                (Tree(_), Err(error)) => panic!("{name}, {form:?}: {error}"),
                (Tree(lines), Ok(_)) => {
                    let mut got = walk(&root, Tell::Shape);
                    got.remove("");
                    // Whiteouts are the business of `forms`.
                    got.retain(|_, line| line != "char 0:0");
                    let expected =
                        lines.iter().map(|(name, line)| (name.to_string(), line.to_string())).collect();
                    assert_same(&expected, &got, &format!("{name}, {form:?}: expected and got"));
                }
            }
        }
    }
    count
}

/// All around the root: the folder that holds it changes neither.
fn snapshot(temp: &Path) -> std::collections::BTreeMap<String, String> {
    let mut all = walk(temp, Tell::All);
    all.retain(|name, _| name != "root" && !name.starts_with("root/"));
    all
}

const OUTSIDE: &str = "/OUTSIDE.OUTSIDE.OUTSIDE.OUTSIDE.OUTSIDE.OUTSIDE.OUTSIDE.OUT";

/// Puts the real path, of the same length by way of slashes, in place of `OUTSIDE`, and the checksums right.
fn replaced(tar: &[u8], outside: &Path) -> Vec<u8> {
    let path = outside.to_str().unwrap();
    let path = format!("{}{path}", "/".repeat(OUTSIDE.len() - path.len()));
    let mut tar = tar.to_vec();
    for block in tar.chunks_exact_mut(512) {
        let mut found = false;
        while let Some(at) = block.windows(OUTSIDE.len()).position(|w| w == OUTSIDE.as_bytes()) {
            block[at..at + OUTSIDE.len()].copy_from_slice(path.as_bytes());
            found = true;
        }
        if found && block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    tar
}

fn out(below: &str) -> String {
    format!("{OUTSIDE}{below}")
}

#[test]
fn names_never_lead_out() {
    let tar = Tar::new;
    let cases = vec![
        Case("dot dot", tar().file("../sibling", "x").end(), Error("\"..\" in the name")),
        Case("dot dot later", tar().file("a/../../sibling", "x").end(), Error("\"..\" in the name")),
        Case("dot dot alone", tar().dir("..").end(), Error("\"..\" in the name")),
        Case("dot dot at the end", tar().dir("a/..").end(), Error("\"..\" in the name")),
        Case("absolute", tar().file("/a", "x").end(), Tree(vec![("a", "file:x")])),
        Case("many slashes", tar().file("///a///b", "x").end(), Tree(vec![("a", "dir"), ("a/b", "file:x")])),
        Case("dots", tar().file("./././a", "x").end(), Tree(vec![("a", "file:x")])),
        Case("three dots", tar().file("...", "x").end(), Tree(vec![("...", "file:x")])),
        Case("root as a file", tar().file("./", "x").end(), Error("ends in a slash")),
        Case("root as a file, bare", tar().file(".", "x").end(), Error("the root is a folder")),
        Case("root as a link", tar().sym("/", "/etc").end(), Error("the root is a folder")),
        Case("root as a device", tar().node(".", b'3', 1, 3).end(), Error("the root is a folder")),
        Case("root as a hard link", tar().file("a", "x").hard(".", "a").end(), Error("the root is a folder")),
        Case("no name", tar().file("", "x").end(), Error("an empty name")),
        Case("NUL", tar().pax(&[("path", b"a\0/../b")]).file("x", "x").end(), Error("a NUL in the name")),
        Case("backslashes are letters", tar().file("..\\a", "x").end(), Tree(vec![("..\\\\a", "file:x")])),
        Case(
            "PAX path with dot dot",
            tar().pax(&[("path", b"../sibling")]).file("x", "x").end(),
            Error("\"..\" in the name"),
        ),
        Case(
            "GNU path with dot dot",
            tar().extended(b'L', b"../sibling\0").file("x", "x").end(),
            Error("\"..\" in the name"),
        ),
        Case(
            "prefix with dot dot",
            tar().header(Header::new(b"sibling", b'0', 1).with(345, b".."), b"x").end(),
            Error("\"..\" in the name"),
        ),
        Case(
            "a sparse file's real name with dot dot",
            tar()
                .pax(&[
                    ("GNU.sparse.name", b"../sibling"),
                    ("GNU.sparse.realsize", b"1"),
                    ("GNU.sparse.map", b"0,1"),
                ])
                .file("x", "x")
                .end(),
            Error("\"..\" in the name"),
        ),
    ];
    assert_eq!(run(cases), 20);
}

#[test]
fn links_never_lead_out() {
    let tar = Tar::new;
    let cases = vec![
        Case(
            "through a new link, absolute",
            tar().sym("a", &out("")).file("a/file", "x").end(),
            // Followed in the root, where folders of that name are made.
            Error("too long, never seen"),
        ),
        Case(
            "through a link to the parent",
            tar().sym("a", "../outside").file("a/file", "x").end(),
            Tree(vec![("a", "->../outside"), ("outside", "dir"), ("outside/file", "file:x")]),
        ),
        Case(
            "through many parents",
            tar().sym("a", "../../../../../../../../etc").file("a/rcrun-canary", "x").end(),
            Tree(vec![
                ("a", "->../../../../../../../../etc"),
                ("etc", "dir"),
                ("etc/rcrun-canary", "file:x"),
            ]),
        ),
        Case(
            "through a chain",
            tar().sym("a", "b").sym("b", "c").dir("c").file("a/x", "x").end(),
            Tree(vec![("a", "->b"), ("b", "->c"), ("c", "dir"), ("c/x", "file:x")]),
        ),
        Case(
            "through a link with dots",
            tar().dir("d").dir("d/e").sym("d/e/up", "./.././../f").file("d/e/up/x", "x").end(),
            Tree(vec![
                ("d", "dir"),
                ("d/e", "dir"),
                ("d/e/up", "->./.././../f"),
                ("f", "dir"),
                ("f/x", "file:x"),
            ]),
        ),
        Case(
            "a loop",
            tar().sym("a", "b").sym("b", "a").file("a/x", "x").end(),
            Error("too many symbolic links"),
        ),
        Case(
            "a link to itself",
            tar().sym("a", "a").file("a/x", "x").end(),
            Error("too many symbolic links"),
        ),
        Case(
            "a link to /",
            tar().sym("a", "/").file("a/x", "x").end(),
            Tree(vec![("a", "->/"), ("x", "file:x")]),
        ),
        Case(
            "a file over a link",
            tar().sym("a", "../sibling").file("a", "x").end(),
            Tree(vec![("a", "file:x")]),
        ),
        Case(
            "a folder over a link",
            tar().sym("a", "../outside").dir("a").file("a/file", "x").end(),
            Tree(vec![("a", "dir"), ("a/file", "file:x")]),
        ),
        Case(
            "a FIFO over a link",
            tar().sym("a", "../sibling").node("a", b'6', 0, 0).end(),
            Tree(vec![("a", "fifo")]),
        ),
        Case(
            "a link over a folder that was gone into",
            tar().dir("a").file("a/x", "x").sym("a", "../outside").file("a/file", "x").end(),
            Tree(vec![("a", "->../outside"), ("outside", "dir"), ("outside/file", "file:x")]),
        ),
        Case(
            "chmod through a link",
            tar()
                .sym("a", "../sibling")
                .header(Header::new(b"a", b'0', 0).with(100, b"0006777\0"), b"")
                .end(),
            Tree(vec![("a", "file:")]),
        ),
        Case(
            "xattrs and times through a link",
            tar().pax(&[("SCHILY.xattr.trusted.a", b"x"), ("mtime", b"7")]).sym("a", "../sibling").end(),
            Tree(vec![("a", "->../sibling")]),
        ),
        Case("a link to nothing", tar().sym("a", "").end(), Error("a symbolic link to \"\"")),
        Case(
            "a link with a NUL",
            tar().pax(&[("linkpath", b"a\0b")]).sym("a", "x").end(),
            Error("a symbolic link to"),
        ),
        Case(
            "a link of 4 KiB",
            tar().pax(&[("linkpath", &[b'x'; 4096])]).sym("a", "x").end(),
            Error("a symbolic link to"),
        ),
        Case("through a file", tar().file("a", "x").file("a/b", "x").end(), Error("\"a\" is no folder")),
        Case(
            "through a FIFO",
            tar().node("a", b'6', 0, 0).file("a/b", "x").end(),
            Error("\"a\" is no folder"),
        ),
        Case("hard link to dot dot", tar().hard("a", "../sibling").end(), Error("\"..\" in the name")),
        Case("hard link, absolute", tar().hard("a", &out("/file")).end(), Error("no such file")),
        Case(
            "hard link through a link",
            tar().sym("l", "../outside").hard("a", "l/file").end(),
            Error("no such file"),
        ),
        Case(
            "hard link to a link, then through it",
            tar().sym("l", "../sibling").hard("a", "l").file("a", "x").end(),
            Tree(vec![("a", "file:x"), ("l", "->../sibling")]),
        ),
        Case(
            "hard link to a link stays one",
            tar().sym("l", "../sibling").hard("a", "l").end(),
            Tree(vec![("a", "->../sibling =a"), ("l", "->../sibling =a")]),
        ),
        Case("hard link to the future", tar().hard("a", "b").file("b", "x").end(), Error("no such file")),
        Case("hard link to itself, not there", tar().hard("a", "a").end(), Error("no such file")),
        Case("hard link to itself", tar().file("a", "x").hard("a", "a").end(), Tree(vec![("a", "file:x")])),
        Case("hard link to a folder", tar().dir("d").hard("a", "d").end(), Error("it is a folder")),
        Case("hard link to the root", tar().hard("a", "/").end(), Error("the root is a folder")),
        Case("hard link to nothing", tar().hard("a", "").end(), Error("an empty name")),
        Case(
            "hard link over what it is in",
            tar().dir("a").file("a/b", "x").hard("a", "a/b").end(),
            Error("linkat"),
        ),
        Case(
            "hard link, twice",
            tar().file("a", "x").hard("b", "a").hard("b", "a").end(),
            Tree(vec![("a", "file:x =a"), ("b", "file:x =a")]),
        ),
        Case(
            "writing one name leaves the other",
            tar().file("a", "x").hard("b", "a").file("b", "y").end(),
            Tree(vec![("a", "file:x"), ("b", "file:y")]),
        ),
    ];
    // The first case is its own: the path is that of a machine's temporary folder.
    let mut cases = cases;
    let Case(_, tar, _) = cases.remove(0);
    through_an_absolute_link(&tar);
    assert_eq!(run(cases) + 1, 33);
}

fn through_an_absolute_link(tar: &[u8]) {
    for form in [Form::Flat, Form::Overlay] {
        let temp = tempfile::tempdir().unwrap();
        let (outside, root) = (temp.path().join("outside"), temp.path().join("root"));
        std::fs::create_dir(&outside).unwrap();
        unpack_into(&replaced(tar, &outside), &root, form).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        let inside = root.join(outside.strip_prefix("/").unwrap()).join("file");
        assert_eq!(std::fs::read_to_string(inside).unwrap(), "x");
    }
}

#[test]
fn whiteouts_hide_nothing_but_names_below() {
    let tar = Tar::new;
    let cases = vec![
        Case("of dot", tar().file(".wh..", "").end(), Error("a whiteout of \".\"")),
        Case("of dot dot", tar().file("a/.wh...", "").end(), Error("a whiteout of \"..\"")),
        Case("of nothing", tar().file(".wh.", "").end(), Error("a whiteout of nothing")),
        Case("as a folder", tar().file(".wh.a/b", "").end(), Error("is a whiteout, and no folder")),
        Case(
            "through a link",
            tar().sym("l", "../outside").file("l/.wh.file", "").end(),
            Tree(vec![("l", "->../outside")]),
        ),
        Case(
            "through a link to the root",
            tar().file("a", "x").sym("l", "/").file("l/.wh.sibling", "").end(),
            Tree(vec![("a", "file:x"), ("l", "->/")]),
        ),
        Case(
            "opaque on a link",
            tar().sym("l", "../outside").file("l/.wh..wh..opq", "").end(),
            Tree(vec![("l", "->../outside")]),
        ),
        Case(
            "opaque on a file",
            tar().file("a", "x").file("a/.wh..wh..opq", "").end(),
            Error("\"a\" is no folder"),
        ),
        Case(
            "of what the layer has, before and after",
            tar().file(".wh.a", "").file("a", "x").file("b", "y").file(".wh.b", "").end(),
            Tree(vec![("a", "file:x"), ("b", "file:y")]),
        ),
        Case(
            "opaque, before and after",
            tar().dir("d").file("d/a", "x").file("d/.wh..wh..opq", "").file("d/b", "y").end(),
            Tree(vec![("d", "dir"), ("d/a", "file:x"), ("d/b", "file:y")]),
        ),
        Case(
            "of aufs",
            tar().file(".wh..wh.plnk", "").file(".wh..wh.aufs", "").file(".wh..wh.plnk/12.1", "x").end(),
            Tree(vec![]),
        ),
        Case("in a folder that is not there", tar().file("a/b/.wh.c", "").end(), Tree(vec![])),
        Case("a device that is one", tar().node("a", b'3', 0, 0).end(), Error("character device 0:0")),
        Case("hard link to a whiteout", tar().file(".wh.a", "").hard("b", "a").end(), Error("no such file")),
        Case(
            "hard link as whiteout",
            tar().file("a", "x").hard(".wh.b", "a").end(),
            Tree(vec![("a", "file:x")]),
        ),
        Case(
            "whiteout with data",
            tar().file(".wh.a", "data").file("b", "x").end(),
            Tree(vec![("b", "file:x")]),
        ),
    ];
    assert_eq!(run(cases), 16);
}

#[test]
fn numbers_that_lie_are_caught() {
    let tar = Tar::new;
    let sized = |size: &[u8]| Header::new(b"a", b'0', 0).with(124, size);
    let cases = vec![
        Case("size beyond the end", tar().header(sized(b"00000010000\0"), b"x").0, Error("ends at byte")),
        Case("size of 8 GiB", tar().header(sized(b"77777777777\0"), b"x").end(), Error("ends at byte")),
        Case(
            "size of 8 EiB",
            tar().header(sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), b"").end(),
            Error("bytes of data"),
        ),
        Case(
            "negative size",
            tar().header(sized(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), b"").end(),
            Error("a size of -1"),
        ),
        Case(
            "size too large for 64 bits",
            tar().header(sized(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), b"").end(),
            Error("size is no number"),
        ),
        Case(
            "size that is none",
            tar().header(sized(b"lots\0\0\0\0\0\0\0\0"), b"").end(),
            Error("size is no number"),
        ),
        Case(
            "PAX size beyond 63 bits",
            tar().pax(&[("size", b"18446744073709551615")]).file("a", "x").end(),
            Error("a size of 18446744073709551615"),
        ),
        Case(
            "PAX size, negative",
            tar().pax(&[("size", b"-1")]).file("a", "x").end(),
            Error("PAX size is \"-1\""),
        ),
        Case(
            "PAX size wins",
            tar().pax(&[("size", b"1")]).header(Header::new(b"a", b'0', 3000), b"x").file("b", "y").end(),
            Tree(vec![("a", "file:x"), ("b", "file:y")]),
        ),
        Case(
            "an empty PAX size takes itself back",
            tar().pax(&[("size", b"7"), ("size", b"")]).file("a", "x").end(),
            Tree(vec![("a", "file:x")]),
        ),
        Case(
            "a folder with a size has no data",
            tar().header(Header::new(b"d", b'5', 512), b"").file("a", "x").end(),
            Tree(vec![("a", "file:x"), ("d", "dir")]),
        ),
        Case(
            "a hard link with a size has no data",
            tar().file("a", "x").header(Header::new(b"b", b'1', 1).link(b"a"), b"").file("c", "y").end(),
            Tree(vec![("a", "file:x =a"), ("b", "file:x =a"), ("c", "file:y")]),
        ),
        Case(
            "wrong checksum",
            tar().raw(&Header::new(b"a", b'0', 0).0).end(),
            Error("its checksum is wrong"),
        ),
        Case("text", tar().raw(&[b'x'; 2048]).0, Error("its checksum is wrong")),
        Case(
            "uid of 2^32",
            tar().pax(&[("uid", b"4294967296")]).file("a", "").end(),
            Error("uid 4294967296 is none"),
        ),
        Case(
            "uid that chown ignores",
            tar().pax(&[("uid", b"4294967295")]).file("a", "").end(),
            Error("uid 4294967295 is none"),
        ),
        Case(
            "gid below zero",
            tar()
                .header(Header::new(b"a", b'0', 0).with(116, b"\xff\xff\xff\xff\xff\xff\xff\xfe"), b"")
                .end(),
            Error("gid -2 is none"),
        ),
        Case("device beyond 12 bits", tar().node("a", b'3', 4096, 0).end(), Error("4096:0 is out of range")),
        Case("device beyond 20 bits", tar().node("a", b'4', 1, 1 << 20).end(), Error("is out of range")),
        Case("mtime that is none", tar().pax(&[("mtime", b"now")]).file("a", "").end(), Error("PAX mtime")),
        Case(
            "mtime at the end of days",
            tar().pax(&[("mtime", b"99999999999999999999999")]).file("a", "").end(),
            Tree(vec![("a", "file:")]),
        ),
        Case(
            "mtime before all days",
            tar().pax(&[("mtime", b"-99999999999999999999999.9")]).file("a", "").end(),
            Tree(vec![("a", "file:")]),
        ),
        Case(
            "mode with a type in it",
            tar().header(Header::new(b"a", b'0', 0).with(100, b"0120777\0"), b"").end(),
            Tree(vec![("a", "file:")]),
        ),
    ];
    assert_eq!(run(cases), 23);
}

#[test]
fn extended_headers_are_bounded_and_agree() {
    let tar = Tar::new;
    let cases = vec![
        Case(
            "broken record",
            tar().extended(b'x', b"99 path=a\n").file("a", "").end(),
            Error("a broken PAX record"),
        ),
        Case(
            "record without a key",
            tar().extended(b'x', b"5 =a\n").file("a", "").end(),
            Error("a broken PAX record"),
        ),
        Case(
            "record of 2^64 bytes",
            tar().extended(b'x', b"18446744073709551617 path=a\n").file("a", "").end(),
            Error("a broken PAX record"),
        ),
        Case(
            "PAX header of a gigabyte",
            tar().header(Header::new(b"x", b'x', 1 << 30), b"").end(),
            Error("an extended header of 1073741824 bytes"),
        ),
        Case(
            "long name of a gigabyte",
            tar().header(Header::new(b"x", b'L', 1 << 30), b"").end(),
            Error("an extended header of 1073741824 bytes"),
        ),
        Case("PAX header and no entry", tar().pax(&[("path", b"a")]).end(), Error("that no entry follows")),
        Case("PAX header and the end", tar().pax(&[("path", b"a")]).0, Error("ends at byte")),
        Case(
            "two PAX headers",
            tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", "").end(),
            Error("two PAX headers"),
        ),
        Case(
            "two long names",
            tar().extended(b'L', b"a\0").extended(b'L', b"b\0").file("c", "").end(),
            Error("two GNU long names"),
        ),
        Case(
            "PAX and GNU in conflict",
            tar().pax(&[("path", b"a")]).extended(b'L', b"b\0").file("c", "").end(),
            Error("path is \"a\" to PAX and \"b\" to GNU"),
        ),
        Case(
            "PAX and GNU in conflict over a link",
            tar().extended(b'K', b"b\0").pax(&[("linkpath", b"a")]).sym("c", "d").end(),
            Error("linkpath is \"a\" to PAX and \"b\" to GNU"),
        ),
        Case(
            "PAX and GNU agree",
            tar().pax(&[("path", b"a")]).extended(b'L', b"a\0").file("c", "").end(),
            Tree(vec![("a", "file:")]),
        ),
        Case(
            "the last of two records counts",
            tar().pax(&[("path", b"a"), ("path", b"b")]).file("c", "").end(),
            Tree(vec![("b", "file:")]),
        ),
        Case(
            "records hold for one entry",
            tar().pax(&[("path", b"a")]).file("x", "1").file("b", "2").end(),
            Tree(vec![("a", "file:1"), ("b", "file:2")]),
        ),
        Case(
            "a global path",
            tar().extended(b'g', b"11 path=ab\n").file("a", "").end(),
            Error("a global header sets path"),
        ),
        Case(
            "a global xattr",
            tar().extended(b'g', b"27 SCHILY.xattr.user.a=abc\n").file("a", "").end(),
            Error("a global header sets SCHILY.xattr.user.a"),
        ),
        Case(
            "a global comment, as git writes",
            tar().extended(b'g', b"16 comment=abcd\n").file("a", "x").end(),
            Tree(vec![("a", "file:x")]),
        ),
        Case("type M", tar().header(Header::new(b"a", b'M', 0), b"").end(), Error("entries of type 'M'")),
        Case(
            "type of no letter",
            tar().header(Header::new(b"a", 0xff, 0), b"").end(),
            Error("entries of type '\\xff'"),
        ),
        Case(
            "a volume's label is passed over",
            tar().header(Header::new(b"label", b'V', 0), b"").file("a", "x").end(),
            Tree(vec![("a", "file:x")]),
        ),
        Case(
            "old tar says folder with a slash",
            tar().header(Header::new(b"a/", 0, 0).with(257, &[0; 8]), b"").end(),
            Tree(vec![("a", "dir")]),
        ),
        Case("file with a slash", tar().file("a/", "x").end(), Error("ends in a slash")),
        Case(
            "star has times where ustar has the prefix",
            tar()
                .header(
                    Header::new(b"a", b'0', 0).with(345, b"p").with(476, b"00000000001 ").with(508, b"tar\0"),
                    b"",
                )
                .end(),
            Tree(vec![("p", "dir"), ("p/a", "file:")]),
        ),
        Case(
            "GNU has times there too",
            tar()
                .header(Header::new(b"a", b'0', 0).with(257, b"ustar  \0").with(345, b"00000000001"), b"")
                .end(),
            Tree(vec![("a", "file:")]),
        ),
    ];
    assert_eq!(run(cases), 24);
}

#[test]
fn sparse_files_of_every_dialect_are_checked() {
    let tar = Tar::new;
    let old = |pairs: &[(&str, &str)], more: u8, size: &str, data: u64| {
        let mut header = Header::new(b"s", b'S', data).with(257, b"ustar  \0").with(483, size.as_bytes());
        for (i, (offset, len)) in pairs.iter().enumerate() {
            header.set(386 + 24 * i, offset.as_bytes());
            header.set(398 + 24 * i, len.as_bytes());
        }
        header.0[482] = more;
        header
    };
    let sparse = |map: &'static [u8], size: &'static [u8]| {
        Tar::new().pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)])
    };
    let one = |head: &str, data: &str| {
        let mut map = head.as_bytes().to_vec();
        map.resize(map.len().next_multiple_of(512), 0);
        map.extend_from_slice(data.as_bytes());
        Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"9"),
            ])
            .header(Header::new(b"x", b'0', map.len() as u64), &map)
            .end()
    };
    let cases = vec![
        Case(
            "old",
            tar().header(old(&[("00000000002", "00000000003")], 0, "00000000007", 3), b"abc").end(),
            Tree(vec![("s", "file:\\x00\\x00abc\\x00\\x00")]),
        ),
        Case(
            "old, backwards",
            tar()
                .header(
                    old(
                        &[("00000000004", "00000000001"), ("00000000000", "00000000001")],
                        0,
                        "00000000007",
                        2,
                    ),
                    b"ab",
                )
                .end(),
            Error("goes backwards"),
        ),
        Case(
            "old, beyond the end",
            tar().header(old(&[("00000000006", "00000000003")], 0, "00000000007", 3), b"abc").end(),
            Error("goes beyond its end"),
        ),
        Case(
            "old, more and the end",
            tar().header(old(&[], 1, "00000000007", 0), b"").0,
            Error("ends at byte"),
        ),
        Case(
            "old, less data than the map",
            tar().header(old(&[("00000000000", "00000000003")], 0, "00000000007", 2), b"ab").end(),
            Error("tells of 3 bytes of data, the archive has 2"),
        ),
        Case(
            "0.0",
            tar()
                .pax(&[
                    ("GNU.sparse.size", b"5"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"0"),
                    ("GNU.sparse.numbytes", b"1"),
                    ("GNU.sparse.offset", b"4"),
                    ("GNU.sparse.numbytes", b"1"),
                ])
                .file("s", "ab")
                .end(),
            Tree(vec![("s", "file:a\\x00\\x00\\x00b")]),
        ),
        Case(
            "0.0, offsets only",
            tar()
                .pax(&[("GNU.sparse.size", b"5"), ("GNU.sparse.offset", b"0"), ("GNU.sparse.offset", b"0")])
                .file("s", "ab")
                .end(),
            Error("do not alternate"),
        ),
        Case("0.1", sparse(b"1,2", b"4").file("s", "ab").end(), Tree(vec![("s", "file:\\x00ab\\x00")])),
        Case("0.1, odd", sparse(b"1,2,3", b"9").file("s", "ab").end(), Error("an offset without a length")),
        Case(
            "0.1, no number",
            sparse(b"1,x", b"9").file("s", "ab").end(),
            Error("GNU.sparse.map is no number"),
        ),
        Case("0.1, overlapping", sparse(b"0,2,1,2", b"9").file("s", "abcd").end(), Error("goes backwards")),
        Case(
            "0.1, wrapping",
            sparse(b"18446744073709551615,2", b"9").file("s", "ab").end(),
            Error("goes beyond its end"),
        ),
        Case("0.1, more data", sparse(b"0,1", b"9").file("s", "ab").end(), Error("the archive has 2")),
        Case(
            "no size",
            tar().pax(&[("GNU.sparse.map", b"0,1")]).file("s", "a").end(),
            Error("without its real size"),
        ),
        Case("1.0", one("1\n2\n3\n", "abc"), Tree(vec![("s", "file:\\x00\\x00abc\\x00\\x00\\x00\\x00")])),
        Case(
            "1.0, all a hole",
            one("0\n", ""),
            Tree(vec![("s", "file:\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00")]),
        ),
        Case("1.0, a map that ends in zeros", one("3\n1\n", ""), Error("holds no number")),
        Case(
            "1.0, a map without an end",
            one(&format!("300\n{}", "11\n".repeat(169)), ""),
            Error("longer than its data"),
        ),
        Case("1.0, a map of billions", one("4000000000\n1\n", ""), Error("a sparse file of more than")),
        Case("1.0, no number", one("one\n", ""), Error("holds no number")),
        Case("1.0, digits without end", one(&"1".repeat(600), ""), Error("holds no number")),
        Case(
            "version 2.0",
            tar().pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")]).file("s", "a").end(),
            Error("a sparse file of version 2.0"),
        ),
        Case(
            "unknown",
            tar().pax(&[("GNU.sparse.odd", b"2")]).file("s", "a").end(),
            Error("GNU.sparse.odd is unknown"),
        ),
        Case(
            "a sparse link",
            sparse(b"0,1", b"9").sym("s", "a").end(),
            Error("only regular files are sparse"),
        ),
        Case(
            "a hole of 8 EiB",
            sparse(b"0,1", b"9223372036854775807").file("s", "a").end(),
            Error("ftruncate"),
        ),
        Case(
            "in two ways",
            sparse(b"0,1", b"9").header(old(&[], 0, "00000000007", 0), b"").end(),
            Error("told of in two ways"),
        ),
    ];
    assert_eq!(run(cases), 26);
}

#[test]
fn broken_ends_and_odd_orders_give_an_error_or_the_tree() {
    let tar = Tar::new;
    let cases = vec![
        Case("nothing", vec![], Tree(vec![])),
        Case("only the end", tar().end(), Tree(vec![])),
        Case("no end", tar().file("a", "x").0, Tree(vec![("a", "file:x")])),
        Case("half an end", tar().file("a", "x").raw(&[0; 512]).0, Tree(vec![("a", "file:x")])),
        Case("a third of an end", tar().file("a", "x").raw(&[0; 300]).0, Error("ends at byte")),
        Case(
            "no padding at the end",
            {
                let mut bytes = tar().file("a", "x").0;
                bytes.truncate(513);
                bytes
            },
            Tree(vec![("a", "file:x")]),
        ),
        Case(
            "zeros amid the entries",
            tar().file("a", "x").raw(&[0; 512]).file("b", "y").end(),
            Error("a single block of zeros"),
        ),
        Case(
            "garbage after the end",
            [tar().file("a", "x").end(), vec![0xee; 700_001]].concat(),
            Tree(vec![("a", "file:x")]),
        ),
        Case(
            "another archive after the end",
            [tar().file("a", "x").end(), tar().file("b", "y").end()].concat(),
            Tree(vec![("a", "file:x")]),
        ),
        Case(
            "duplicates: the last counts",
            tar().file("a", "1").file("a", "2").file("a", "3").end(),
            Tree(vec![("a", "file:3")]),
        ),
        Case(
            "a file over a full folder",
            tar().dir("a").dir("a/b").file("a/b/c", "x").file("a", "y").end(),
            Tree(vec![("a", "file:y")]),
        ),
        Case(
            "a folder twice keeps what is in it",
            tar().dir("a").file("a/b", "x").dir("a").end(),
            Tree(vec![("a", "dir"), ("a/b", "file:x")]),
        ),
        Case(
            "a folder that was removed while it was gone into",
            tar()
                .dir("a")
                .dir("a/b")
                .file("a/b/c", "x")
                .file("a", "y")
                .dir("a")
                .dir("a/b")
                .file("a/b/d", "z")
                .end(),
            Tree(vec![("a", "dir"), ("a/b", "dir"), ("a/b/d", "file:z")]),
        ),
        Case(
            "parents that come later",
            tar().file("a/b/c", "x").dir("a/b").dir("a").end(),
            Tree(vec![("a", "dir"), ("a/b", "dir"), ("a/b/c", "file:x")]),
        ),
        Case(
            "a name of 256 bytes",
            tar().pax(&[("path", &[b'n'; 256])]).file("a", "").end(),
            Error("a part of 256 bytes"),
        ),
        Case(
            "a name of 4 KiB",
            tar().pax(&[("path", &[b'n'; 4096])]).file("a", "").end(),
            Error("a part of 4096 bytes"),
        ),
        Case(
            "a path of 5000 bytes",
            tar().pax(&[("path", &b"n/".repeat(2500))]).dir("a").end(),
            Error("a name of 5000 bytes"),
        ),
        Case(
            "a path of 1000 levels",
            tar().pax(&[("path", &b"n/".repeat(1000))]).dir("a").end(),
            Error("a name of more than 256 folders"),
        ),
        Case(
            "1000 levels by way of links",
            {
                let mut deep = tar().pax(&[("path", &b"n/".repeat(200))]).dir("a");
                deep = deep.pax(&[("linkpath", &b"n/".repeat(200)[..399])]).sym("l", "x");
                deep.pax(&[("path", &[&b"l/"[..], &b"m/".repeat(100)].concat())]).dir("a").end()
            },
            Error("more than 256 folders deep"),
        ),
        Case(
            "an xattr of 300 KiB",
            tar().pax(&[("SCHILY.xattr.user.a", &[b'x'; 300 << 10])]).file("a", "").end(),
            Error("bytes of extended attributes"),
        ),
        Case(
            "2000 xattrs",
            {
                let names: Vec<String> = (0..2000).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
                let records: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b"x"[..])).collect();
                tar().pax(&records).file("a", "").end()
            },
            Error("more than 1024 extended attributes"),
        ),
        Case(
            "an xattr of no namespace",
            tar().pax(&[("SCHILY.xattr.a", b"x")]).file("a", "").end(),
            Tree(vec![("a", "file:")]),
        ),
        Case(
            "an xattr without a name",
            tar().pax(&[("SCHILY.xattr.", b"x")]).file("a", "").end(),
            Error("whose name has 0 bytes"),
        ),
        Case(
            "an xattr whose name no kernel takes",
            tar().pax(&[(&format!("SCHILY.xattr.user.{}", "n".repeat(251)), b"x")]).file("a", "").end(),
            Error("whose name has 256 bytes"),
        ),
        Case(
            "an xattr whose value no kernel takes",
            tar().pax(&[("SCHILY.xattr.user.a", &[b'x'; (64 << 10) + 1])]).file("a", "").end(),
            Error("whose value 65537"),
        ),
        Case(
            "a name that would write on a terminal",
            tar().file("a/../\x1b[31m\n", "").end(),
            Error("a/../\\x1b[31m\\n"),
        ),
        Case(
            "a FIFO as /etc/passwd, then its data",
            tar().node("etc/passwd", b'6', 0, 0).file("etc/passwd", "root").end(),
            Tree(vec![("etc", "dir"), ("etc/passwd", "file:root")]),
        ),
    ];
    assert_eq!(run(cases), 27);
}

#[test]
fn every_cut_of_an_archive_ends_in_an_error_or_a_part_of_the_tree() {
    let tar = Tar::new()
        .dir("d")
        .pax(&[("path", b"d/long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", "data")
        .extended(b'L', b"d/gnu\0")
        .file("x", &"y".repeat(1500))
        .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,1,8,1")])
        .file("s", "ab")
        .hard("h", "d/gnu")
        .sym("l", "h")
        .end();
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    unpack_into(&tar, &whole, Form::Flat).unwrap();
    let whole = walk(&whole, Tell::Shape);
    let (mut good, mut bad) = (0, 0);
    for cut in (0..tar.len()).step_by(73).chain((0..tar.len()).step_by(512)) {
        let root = temp.path().join("root");
        match unpack_into(&tar[..cut], &root, Form::Flat) {
            Ok(_) => {
                good += 1;
                for (name, line) in walk(&root, Tell::Shape) {
                    let whole =
                        whole.get(&name).unwrap_or_else(|| panic!("{name} is in no archive, cut at {cut}"));
                    assert!(whole.starts_with(&line), "{name}: {line} against {whole}, cut at {cut}");
                }
            }
            Err(error) => {
                bad += 1;
                assert_eq!(error.kind(), Kind::Archive, "{error}");
            }
        }
        std::fs::remove_dir_all(root).unwrap();
    }
    assert!(good > 10 && bad > 50, "{good} good, {bad} bad");
}

#[test]
fn changed_bytes_never_panic_and_never_lead_out() {
    let tar = Tar::new()
        .dir("d")
        .pax(&[("path", b"d/long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", "data")
        .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,1,8,1")])
        .file("s", "ab")
        .hard("h", "d/long")
        .sym("d/l", "../../outside")
        .file("d/l/f", "f")
        .file("d/.wh.x", "")
        .end();
    let mut seed = 0x9e3779b97f4a7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("outside")).unwrap();
    std::fs::write(temp.path().join("outside/f"), "outside").unwrap();
    let before = walk(&temp.path().join("outside"), Tell::All);
    for round in 0..800 {
        let mut bad = tar.clone();
        for _ in 0..=random() % 4 {
            let at = (random() % bad.len() as u64) as usize;
            bad[at] = match random() % 4 {
                0 => b'/',
                1 => b'.',
                2 => b'0' + (random() % 10) as u8,
                _ => random() as u8,
            };
        }
        // Wrong checksums are found at once: what lies behind them is what is to be tried.
        for block in bad.chunks_exact_mut(512) {
            if block[257..262] == *b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        let root = temp.path().join("root");
        let form = [Form::Flat, Form::Overlay][round % 2];
        let _ = unpack_into(&bad, &root, form);
        std::fs::remove_dir_all(root).unwrap();
    }
    assert_same(&before, &walk(&temp.path().join("outside"), Tell::All), "outside of the root");
}

fn many_in(folder: &str, n: usize) -> Tar {
    (0..n).fold(Tar::new(), |tar, i| tar.file(&format!("{folder}/{i}"), ""))
}

#[test]
fn limits_are_kept() {
    let many = |n: usize| (0..n).fold(Tar::new(), |tar, i| tar.file(&format!("{i}"), "0123456789")).end();
    let limits = Limits { bytes: 1000, inodes: 50, ..Limits::default() };
    let run = |tar: &[u8], limits: Limits| {
        let temp = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(temp.path()).unwrap();
        let options = Unpack { form: Form::Overlay, rootless: false, limits, lower: None };
        let result = unpack(tar, std::os::fd::AsFd::as_fd(&root), &options);
        (result, std::fs::read_dir(temp.path()).unwrap().count())
    };
    assert!(run(&many(50), limits).0.is_ok());
    let (result, made) =
        run(&Tar::new().dir("a/a/a/a/a/a/a/a/a/a/a/a/a").end(), Limits { inodes: 10, ..limits });
    let error = result.unwrap_err();
    assert_eq!((error.kind(), made), (Kind::Limit, 1));
    assert!(error.to_string().ends_with("more than 10 files, folders and links"), "{error}");
    let error = run(&many(51), limits).0.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (Kind::Limit, "more than 50 entries".into()));
    let (result, made) = run(&many(40), Limits { bytes: 100, ..limits });
    let error = result.unwrap_err();
    assert_eq!((error.kind(), made), (Kind::Limit, 10));
    assert!(error.to_string().ends_with("more than 100 bytes of data"), "{error}");
    // Whiteouts of what the layer has make nothing.
    let idle = (0..51).fold(Tar::new().file("a", ""), |tar, _| tar.file(".wh.a", "")).end();
    let error = run(&idle, limits).0.unwrap_err();
    assert_eq!(error.to_string(), "more than 50 entries");
    let endless = [many(1), vec![0; 2 << 20]].concat();
    let error = run(&endless, Limits { stream: 1 << 20, ..limits }).0.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (Kind::Limit, "a layer of more than 1048576 bytes".into()));
    // To and fro between two deep folders, and the same large folder hidden again and again.
    let deep = |name: &str| [name, &"/d".repeat(100)].concat();
    let to_and_fro = (0..20).fold(Tar::new(), |tar, i| {
        let path = format!("{}/{i}", deep(if i % 2 == 0 { "a" } else { "b" }));
        tar.pax(&[("path", path.as_bytes())]).file("x", "")
    });
    let error = run(&to_and_fro.end(), Limits { inodes: 250, ..limits }).0.map(drop);
    assert!(error.is_ok(), "{error:?}");
    let links = (0..40)
        .fold(Tar::new().pax(&[("linkpath", &b"d/../".repeat(500))]).sym("l", "x"), |tar, i| {
            tar.file(&format!("l/{i}"), "").file(&format!("{i}"), "")
        });
    let error = run(&links.end(), Limits { inodes: 250, ..limits }).0.unwrap_err();
    assert!(error.to_string().ends_with("more than 16 folders opened for each of 250 entries"), "{error}");
    let again = (0..50).fold(many_in("d", 100), |tar, _| tar.file(".wh.d", ""));
    let temp = tempfile::tempdir().unwrap();
    let root = std::fs::File::open(temp.path()).unwrap();
    let limits_of = Limits { inodes: 160, bytes: 1 << 20, ..limits };
    let options = Unpack { form: Form::Flat, rootless: false, limits: limits_of, lower: None };
    let error = unpack(&again.end()[..], std::os::fd::AsFd::as_fd(&root), &options).unwrap_err();
    assert!(error.to_string().ends_with("more than 16 folders opened for each of 160 entries"), "{error}");
    // What a file says it has is charged before any of it is written.
    let lie = Tar::new().header(Header::new(b"a", b'0', 1 << 32), b"").end();
    let (result, made) = run(&lie, limits);
    assert_eq!((result.unwrap_err().kind(), made), (Kind::Limit, 0));
}

#[test]
fn the_stream_is_read_to_its_end_whatever_comes_in_pieces() {
    struct Pieces<'a>(&'a [u8], usize);
    impl std::io::Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            // In pieces that end where no block ends, with interruptions.
            self.1 = self.1 * 7 % 1009 + 1;
            if self.1.is_multiple_of(5) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let n = self.1.min(buffer.len()).min(self.0.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let large = "z".repeat(600_000);
    let tar = [Tar::new().file("a", &large).file("b", "x").end(), vec![1; 300_000]].concat();
    let temp = tempfile::tempdir().unwrap();
    let root = std::fs::File::open(temp.path()).unwrap();
    let mut pieces = Pieces(&tar, 3);
    let options = Unpack { form: Form::Overlay, rootless: false, limits: Limits::default(), lower: None };
    let stream = std::io::BufReader::new(&mut pieces);
    let summary = unpack(stream, std::os::fd::AsFd::as_fd(&root), &options).unwrap();
    assert!(pieces.0.is_empty());
    assert_eq!((summary.entries, summary.bytes), (2, 600_001));
    assert!(std::fs::read_to_string(temp.path().join("a")).unwrap() == large);
    assert_eq!(std::fs::metadata(temp.path().join("b")).unwrap().size(), 1);
}

#[test]
fn what_the_stream_says_comes_back_to_the_caller() {
    struct Fails;
    impl std::io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the digest is another"))
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let root = std::fs::File::open(temp.path()).unwrap();
    let options = Unpack { form: Form::Overlay, rootless: false, limits: Limits::default(), lower: None };
    let error =
        unpack(std::io::BufReader::new(Fails), std::os::fd::AsFd::as_fd(&root), &options).unwrap_err();
    assert_eq!(error.to_string(), "read of the layer: the digest is another");
    assert_eq!(error.into_stream().unwrap().to_string(), "the digest is another");
}
