//! All that can be told of a tree, as text: two trees are equal when their texts are.
//! Uses: std and rustix only, and not what it tests.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::SeekFrom;

/// What the walk tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Kinds, data, targets, second names.
    Shape,
    /// Owners, modes, times, extended attributes and devices besides.
    All,
    /// And where holes are.
    Holes,
}

/// A line for each name below `root`, and for itself under "".
pub fn walk(root: &Path, tell: Tell) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut names: BTreeMap<(u64, u64), String> = BTreeMap::new();
    visit(root, "", tell, &mut lines, &mut names);
    lines
}

fn visit(
    path: &Path,
    name: &str,
    tell: Tell,
    lines: &mut BTreeMap<String, String>,
    names: &mut BTreeMap<(u64, u64), String>,
) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let kind = meta.mode() & 0o170000;
    let mut line = match kind {
        0o040000 => "dir".to_string(),
        0o100000 => {
            let data = std::fs::read(path).unwrap();
            if data.len() < 100 {
                format!("file:{}", data.escape_ascii())
            } else {
                format!("file#{}#{:016x}", data.len(), sum(&data))
            }
        }
        0o120000 => format!("->{}", std::fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii()),
        0o010000 => "fifo".to_string(),
        0o140000 => "socket".to_string(),
        0o020000 => format!("char {}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())),
        _ => format!("block {}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())),
    };
    if kind != 0o040000 && meta.nlink() > 1 {
        let first = names.entry((meta.dev(), meta.ino())).or_insert_with(|| name.to_string());
        line += &format!(" ={first}");
    }
    if tell != Tell::Shape {
        let mode = if kind == 0o120000 { 0 } else { meta.mode() & 0o7777 };
        line +=
            &format!(" {mode:o} {}:{} @{}.{:09}", meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        for (key, value) in xattrs(path) {
            line += &format!(" {key}={}", value.escape_ascii());
        }
    }
    if tell == Tell::Holes && kind == 0o100000 {
        line += &format!(" {:?}", extents(path));
    }
    lines.insert(name.to_string(), line);
    if kind == 0o040000 {
        let mut children: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        children.sort();
        for child in children {
            let escaped = child.as_bytes().escape_ascii().to_string();
            let below = if name.is_empty() { escaped } else { format!("{name}/{escaped}") };
            visit(&path.join(&child), &below, tell, lines, names);
        }
    }
}

fn sum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf29ce484222325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100000001b3))
}

/// All extended attributes of `path` itself.
pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let len = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => return BTreeMap::new(),
        Err(e) => panic!("llistxattr {}: {e}", path.display()),
    };
    let names = buffer[..len].split(|&b| b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(len);
            (String::from_utf8(name.to_vec()).unwrap(), value)
        })
        .collect()
}

/// Where a file has data.
pub fn extents(path: &Path) -> Vec<(u64, u64)> {
    let file = std::fs::File::open(path).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        found.push((start, end));
        at = end;
    }
    found
}

/// Two walks side by side, only where they differ.
pub fn assert_same(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>, what: &str) {
    let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let differ: Vec<String> = names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| format!("{name}\n  {:?}\n  {:?}", left.get(name), right.get(name)))
        .collect();
    assert!(differ.is_empty(), "{what}: {} names differ:\n{}", differ.len(), differ.join("\n"));
}

/// A tree with everything in it that a tar can hold.
pub fn everything(root: &Path) {
    use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
    let put = |name: &str, data: &[u8]| std::fs::write(root.join(name), data).unwrap();
    let xattr = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(name), key, value, XattrFlags::empty()).unwrap();
    };
    let own =
        |name: &str, uid, gid| std::os::unix::fs::lchown(root.join(name), Some(uid), Some(gid)).unwrap();
    let mode = |name: &str, mode| rustix::fs::chmod(root.join(name), Mode::from_raw_mode(mode)).unwrap();
    let node = |name: &str, kind, major, minor| {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o660), device).unwrap();
    };
    std::fs::create_dir_all(root.join("dir/deep/er")).unwrap();
    std::fs::create_dir_all(root.join("closed/in")).unwrap();
    std::fs::create_dir(root.join("sticky")).unwrap();
    std::fs::create_dir(root.join("setgid")).unwrap();
    put("empty", b"");
    put("hello", b"hello\n");
    put("dir/large", &(0..700_000u32).flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>());
    put("setuid", b"#!");
    put("setgid/child", b"child");
    put("closed/in/x", b"x");
    put("caps", b"caps");
    put("owned", b"owned");
    put("far", b"far");
    std::fs::create_dir(root.join("setgid/folder")).unwrap();
    let long = "n".repeat(200);
    put(&format!("dir/{long}"), b"a long name");
    put("dir/deep/\u{e9}\u{4e00} with = and % and\nnewline", b"odd");
    std::os::unix::fs::symlink("../hello", root.join("dir/link")).unwrap();
    std::os::unix::fs::symlink("/no/where/".repeat(30), root.join("dangling")).unwrap();
    std::fs::hard_link(root.join("hello"), root.join("dir/deep/again")).unwrap();
    std::fs::hard_link(root.join("dir/link"), root.join("dir/link-again")).unwrap();
    node("fifo", FileType::Fifo, 0, 0);
    node("null", FileType::CharacterDevice, 1, 3);
    node("big", FileType::CharacterDevice, 4095, 1_048_575);
    node("disk", FileType::BlockDevice, 8, 1);
    std::fs::hard_link(root.join("null"), root.join("null-again")).unwrap();
    own("owned", 1000, 100);
    own("far", 3_000_000_000, 2_097_152);
    own("dangling", 1, 2);
    own("null", 0, 6);
    own("setuid", 33, 33);
    own("setgid", 0, 50);
    own("setgid/child", 0, 0);
    own("setgid/folder", 0, 0);
    mode("setuid", 0o6755);
    mode("setgid", 0o2775);
    mode("setgid/folder", 0o700);
    mode("sticky", 0o1777);
    mode("hello", 0o444);
    mode("closed/in", 0o000);
    mode("closed", 0o500);
    xattr("hello", "user.note", b"a\0b=c\n");
    xattr("hello", "user.empty", b"");
    xattr("dir", "user.with=and%3D", b"1");
    xattr("dir", "trusted.thing", b"t");
    xattr("dangling", "trusted.on-link", b"l");
    xattr("fifo", "trusted.on-fifo", b"f");
    // cap_net_raw+ep, version 2.
    xattr("caps", "security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // user::rwx, user:1000:rwx, group::r-x, mask::rwx, other::---
    let acl = |named: bool| {
        let mut bytes = vec![2, 0, 0, 0];
        let mut add = |tag: u16, bits: u16, id: u32| {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&bits.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        };
        add(1, 7, u32::MAX);
        if named {
            add(2, 7, 1000);
        }
        add(4, 5, u32::MAX);
        add(16, 7, u32::MAX);
        add(32, 0, u32::MAX);
        bytes
    };
    xattr("owned", "system.posix_acl_access", &acl(true));
    xattr("sticky", "system.posix_acl_default", &acl(true));
    // Made after the default ACL, and bared of what it gave.
    put("sticky/plain", b"plain");
    std::fs::create_dir(root.join("sticky/folder")).unwrap();
    rustix::fs::lremovexattr(root.join("sticky/plain"), "system.posix_acl_access").unwrap();
    rustix::fs::lremovexattr(root.join("sticky/folder"), "system.posix_acl_default").unwrap();
    rustix::fs::lremovexattr(root.join("sticky/folder"), "system.posix_acl_access").unwrap();
    mode("sticky/plain", 0o640);
    mode("sticky/folder", 0o711);
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"data", 1 << 20).unwrap();
    sparse.write_all_at(&[7; 9000], 5 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    std::fs::File::create(root.join("hole")).unwrap().set_len(3 << 20).unwrap();
    // Deep first: each change below a folder changes its time.
    let mut all: Vec<String> = walk(root, Tell::Shape).into_keys().collect();
    all.sort_by_key(|name| std::cmp::Reverse(name.matches('/').count()));
    for (i, name) in all.iter().enumerate() {
        let time = match i % 4 {
            0 => Timespec { tv_sec: 1_000_000_000 + i as i64, tv_nsec: 0 },
            1 => Timespec { tv_sec: 1_500_000_000, tv_nsec: 123_456_789 },
            2 => Timespec { tv_sec: -86_400, tv_nsec: 500_000_000 },
            _ => Timespec { tv_sec: 0, tv_nsec: 1 },
        };
        let times = Timestamps { last_access: time, last_modification: time };
        // Names with newlines come escaped from the walk, and keep the time they have.
        let _ = rustix::fs::utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}
