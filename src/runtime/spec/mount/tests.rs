//! The table of mount options, word by word, against numbers written out.

use super::*;

fn parse(words: &[&str]) -> MountOptions {
    parse_as("tmpfs", words)
}

fn parse_as(kind: &str, words: &[&str]) -> MountOptions {
    let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
    MountOptions::parse(kind, &words)
}

fn flags(words: &[&str]) -> Vec<(String, Option<String>)> {
    words.iter().map(|w| (w.to_string(), None)).collect()
}

fn attr(set: u64, clear: u64) -> MountOptions {
    MountOptions { attr_set: set, attr_clear: clear, ..MountOptions::default() }
}

fn rec(set: u64, clear: u64) -> MountOptions {
    MountOptions { rec_attr_set: set, rec_attr_clear: clear, ..MountOptions::default() }
}

fn sb(word: &str) -> MountOptions {
    MountOptions { superblock: flags(&[word]), ..MountOptions::default() }
}

fn propagation(kind: PropagationKind, recursive: bool) -> MountOptions {
    MountOptions { propagation: vec![Propagation { kind, recursive }], ..MountOptions::default() }
}

/// Numbers of linux/mount.h, so that the table is not tested against itself.
const ATIME: u64 = 0x70;

fn expected() -> Vec<(&'static str, MountOptions)> {
    let none = MountOptions::default;
    vec![
        ("acl", none()),
        ("async", sb("async")),
        ("atime", attr(0, ATIME)),
        ("bind", MountOptions { bind: Some(Bind::Plain), ..none() }),
        ("defaults", none()),
        ("dev", attr(0, 4)),
        ("diratime", attr(0, 0x80)),
        ("dirsync", sb("dirsync")),
        ("exec", attr(0, 8)),
        ("idmap", MountOptions { idmap: Some(IdMapWord { at: 0, recursive: false }), ..none() }),
        ("iversion", none()),
        ("lazytime", sb("lazytime")),
        ("loud", none()),
        ("mand", sb("mand")),
        ("noacl", none()),
        ("noatime", attr(0x10, ATIME)),
        ("nodev", attr(4, 0)),
        ("nodiratime", attr(0x80, 0)),
        ("noexec", attr(8, 0)),
        ("noiversion", none()),
        ("nolazytime", sb("nolazytime")),
        ("nomand", sb("nomand")),
        ("norelatime", attr(0, ATIME)),
        ("nostrictatime", attr(0, ATIME)),
        ("nosuid", attr(2, 0)),
        ("nosymfollow", attr(0x20_0000, 0)),
        ("private", propagation(PropagationKind::Private, false)),
        ("ratime", rec(0, ATIME)),
        ("rbind", MountOptions { bind: Some(Bind::Recursive), ..none() }),
        ("rdev", rec(0, 4)),
        ("rdiratime", rec(0, 0x80)),
        ("relatime", attr(0, ATIME)),
        ("remount", MountOptions { remount: true, ..none() }),
        ("rexec", rec(0, 8)),
        ("ridmap", MountOptions { idmap: Some(IdMapWord { at: 0, recursive: true }), ..none() }),
        ("rnoatime", rec(0x10, ATIME)),
        ("rnodev", rec(4, 0)),
        ("rnodiratime", rec(0x80, 0)),
        ("rnoexec", rec(8, 0)),
        ("rnorelatime", rec(0, ATIME)),
        ("rnostrictatime", rec(0, ATIME)),
        ("rnosuid", rec(2, 0)),
        ("rnosymfollow", rec(0x20_0000, 0)),
        ("ro", MountOptions { attr_set: 1, superblock: flags(&["ro"]), ..none() }),
        ("rprivate", propagation(PropagationKind::Private, true)),
        ("rrelatime", rec(0, ATIME)),
        ("rro", rec(1, 0)),
        ("rrw", rec(0, 1)),
        ("rshared", propagation(PropagationKind::Shared, true)),
        ("rslave", propagation(PropagationKind::Slave, true)),
        ("rstrictatime", rec(0x20, ATIME)),
        ("rsuid", rec(0, 2)),
        ("rsymfollow", rec(0, 0x20_0000)),
        ("runbindable", propagation(PropagationKind::Unbindable, true)),
        ("rw", MountOptions { attr_clear: 1, superblock: flags(&["rw"]), ..none() }),
        ("shared", propagation(PropagationKind::Shared, false)),
        ("silent", none()),
        ("slave", propagation(PropagationKind::Slave, false)),
        ("strictatime", attr(0x20, ATIME)),
        ("suid", attr(0, 2)),
        ("symfollow", attr(0, 0x20_0000)),
        ("sync", sb("sync")),
        ("tmpcopyup", MountOptions { tmpcopyup: true, ..none() }),
        ("unbindable", propagation(PropagationKind::Unbindable, false)),
    ]
}

#[test]
fn every_option_does_what_its_line_says() {
    for (word, options) in expected() {
        assert_eq!(parse(&[word]), options, "{word}");
    }
}

#[test]
fn the_table_is_sorted_and_wholly_tested() {
    let tested: Vec<_> = expected().into_iter().map(|(word, _)| word).collect();
    let table: Vec<_> = OPTIONS.iter().map(|(word, _)| *word).collect();
    assert_eq!(table, tested);
    assert!(table.is_sorted());
}

#[test]
fn every_option_of_runtime_spec_is_known() {
    // The Linux table of config.md in runtime-spec 1.3.
    let spec = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
        ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime \
        rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
        rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable \
        idmap ridmap";
    for word in spec.split_whitespace() {
        assert!(meaning(word).is_some(), "{word}");
    }
}

#[test]
fn the_last_of_two_contradicting_words_counts() {
    for (words, same_as) in [
        (["ro", "rw"], "rw"),
        (["rw", "ro"], "ro"),
        (["nosuid", "suid"], "suid"),
        (["dev", "nodev"], "nodev"),
        (["rro", "rrw"], "rrw"),
        (["sync", "async"], "async"),
        (["nolazytime", "lazytime"], "lazytime"),
        (["noatime", "relatime"], "relatime"),
        (["relatime", "strictatime"], "strictatime"),
        (["strictatime", "noatime"], "noatime"),
        (["noatime", "atime"], "atime"),
        (["rstrictatime", "rnostrictatime"], "rnostrictatime"),
        // Taking back a mode that is not on leaves the one that is.
        (["noatime", "nostrictatime"], "noatime"),
        (["strictatime", "norelatime"], "strictatime"),
        (["rbind", "bind"], "rbind"),
        (["bind", "rbind"], "rbind"),
    ] {
        assert_eq!(parse(&words), parse(&[same_as]), "{words:?}");
    }
}

#[test]
fn plain_and_recursive_attributes_are_kept_apart() {
    let options = parse(&["rro", "rw", "noatime", "rrelatime"]);
    assert_eq!((options.attr_set, options.attr_clear), (0x10, ATIME | 1));
    assert_eq!((options.rec_attr_set, options.rec_attr_clear), (1, ATIME));
}

#[test]
fn an_access_time_mode_always_clears_the_others() {
    for (word, options) in expected() {
        for (set, clear) in
            [(options.attr_set, options.attr_clear), (options.rec_attr_set, options.rec_attr_clear)]
        {
            assert!(set & ATIME == 0 || clear & ATIME == ATIME, "{word}");
        }
    }
}

#[test]
fn words_that_are_not_in_the_table_go_to_the_file_system() {
    let pair = |key: &str, value: &str| (key.to_string(), Some(value.to_string()));
    let flag = |key: &str| (key.to_string(), None);
    for (words, data) in [
        (vec!["size=65536k", "mode=1777"], vec![pair("size", "65536k"), pair("mode", "1777")]),
        (vec!["newinstance", "gid=5"], vec![flag("newinstance"), pair("gid", "5")]),
        // Several in one string, as mount(2) would take them.
        (vec!["size=1m,mode=755"], vec![pair("size", "1m"), pair("mode", "755")]),
        (vec!["", ",", "a,,b"], vec![flag("a"), flag("b")]),
        (vec!["lowerdir=/a\\,b:/c,x"], vec![pair("lowerdir", "/a\\,b:/c"), flag("x")]),
        (vec!["context=\"u:r:t:s0:c1,c2\",x=1"], vec![pair("context", "u:r:t:s0:c1,c2"), pair("x", "1")]),
        (vec!["a=b=c", "d="], vec![pair("a", "b=c"), pair("d", "")]),
        (vec!["RO"], vec![flag("RO")]),
    ] {
        let options = parse(&words);
        assert_eq!(options, MountOptions { superblock: data, ..MountOptions::default() }, "{words:?}");
    }
}

#[test]
fn what_fsconfig_has_no_name_for_is_given_in_the_file_systems_words() {
    assert_eq!(parse_as("ext4", &["iversion", "acl"]).superblock, flags(&["i_version", "acl"]));
    assert_eq!(parse_as("ext4", &["iversion", "noiversion"]).superblock, flags(&[]));
    assert_eq!(parse_as("ext4", &["i_version", "noiversion"]).superblock, flags(&[]));
    // Another file system's own word, whatever it means there.
    assert_eq!(parse_as("xfs", &["i_version", "noiversion"]).superblock, flags(&["i_version"]));
    assert_eq!(parse_as("ext4", &["acl", "noacl"]).superblock, flags(&["noacl"]));
    assert_eq!(parse_as("tmpfs", &["iversion", "acl", "silent"]).superblock, flags(&[]));
}

#[test]
fn propagation_is_a_list_in_order() {
    let kinds: Vec<_> = parse(&["rslave", "shared"]).propagation;
    assert_eq!(
        kinds,
        [
            Propagation { kind: PropagationKind::Slave, recursive: true },
            Propagation { kind: PropagationKind::Shared, recursive: false },
        ]
    );
}

#[test]
fn type_bind_is_a_bind_mount_without_the_word() {
    let mount = |text: &str| MountOptions::of(&serde_json::from_str::<Mount>(text).unwrap()).bind;
    assert_eq!(mount(r#"{"destination":"/a","source":"/b","type":"bind"}"#), Some(Bind::Plain));
    assert_eq!(mount(r#"{"destination":"/a","type":"bind","options":["rbind"]}"#), Some(Bind::Recursive));
    assert_eq!(mount(r#"{"destination":"/a","type":"tmpfs"}"#), None);
}

#[test]
fn names_for_features_are_all_that_are_known() {
    let names: Vec<_> = names().collect();
    for name in ["rro", "tmpcopyup", "idmap", "ridmap"] {
        assert!(names.contains(&name), "{name}");
    }
}
