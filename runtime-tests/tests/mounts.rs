//! mounts: every option of config.md's table as mountinfo shows it inside, binds, and what lies on the way to a
//! destination. Propagation is in propagation.rs, tmpfs in tmpfs.rs.

use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::{Mounted, inside, own_mounts, shell, try_inside};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn add(config: &mut Value, entry: Value) {
    config["mounts"].as_array_mut().expect("mounts").push(entry);
}

/// Options, what the mount or its file system must show, and what neither may show.
type Row = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// The options of config.md's table that mean something to a single new file system.
const NEW: [Row; 46] = [
    (
        &[],
        &["rw", "relatime"],
        &["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow", "sync"],
    ),
    (&["defaults"], &["rw", "relatime"], &["nosuid", "nodev", "noexec"]),
    (&["rw"], &["rw"], &["ro"]),
    (&["ro", "rw"], &["rw"], &["ro"]),
    (&["ro"], &["ro"], &["rw"]),
    (&["nosuid"], &["nosuid"], &[]),
    (&["nosuid", "suid"], &[], &["nosuid"]),
    (&["suid"], &[], &["nosuid"]),
    (&["nodev"], &["nodev"], &[]),
    (&["nodev", "dev"], &[], &["nodev"]),
    (&["dev"], &[], &["nodev"]),
    (&["noexec"], &["noexec"], &[]),
    (&["noexec", "exec"], &[], &["noexec"]),
    (&["exec"], &[], &["noexec"]),
    (&["nosymfollow"], &["nosymfollow"], &[]),
    (&["nosymfollow", "symfollow"], &[], &["nosymfollow"]),
    (&["symfollow"], &[], &["nosymfollow"]),
    (&["noatime"], &["noatime"], &["relatime"]),
    (&["noatime", "atime"], &["relatime"], &["noatime"]),
    (&["atime"], &["relatime"], &["noatime"]),
    (&["relatime"], &["relatime"], &["noatime"]),
    (&["strictatime"], &[], &["noatime", "relatime"]),
    (&["strictatime", "nostrictatime"], &["relatime"], &["noatime"]),
    (&["nostrictatime"], &["relatime"], &["noatime"]),
    (&["norelatime"], &[], &["noatime"]),
    (&["nodiratime"], &["nodiratime", "relatime"], &[]),
    (&["nodiratime", "diratime"], &["relatime"], &["nodiratime"]),
    (&["diratime"], &[], &["nodiratime"]),
    (&["noatime", "nodiratime"], &["noatime", "nodiratime"], &["relatime"]),
    (&["sync"], &["sync"], &[]),
    (&["sync", "async"], &[], &["sync"]),
    (&["async"], &[], &["sync"]),
    (&["dirsync"], &["dirsync"], &["sync"]),
    (&["lazytime"], &["lazytime"], &[]),
    (&["lazytime", "nolazytime"], &[], &["lazytime"]),
    (&["nolazytime"], &[], &["lazytime"]),
    (&["mand", "nomand"], &[], &["mand"]),
    (&["nomand"], &[], &["mand"]),
    (&["iversion"], &["rw"], &[]),
    (&["noiversion"], &["rw"], &[]),
    (&["silent"], &["rw"], &[]),
    (&["loud"], &["rw"], &[]),
    (&["acl"], &["rw"], &[]),
    (&["noacl"], &["rw"], &[]),
    (
        &["rnosuid", "rnodev", "rnoexec", "rnosymfollow"],
        &["nosuid", "nodev", "noexec", "nosymfollow"],
        &["ro"],
    ),
    (&["rro"], &["ro"], &["nosuid"]),
];

/// The same for a bind mount of a folder on a file system that is mounted nosuid, nodev, noexec, noatime.
const BOUND: [Row; 22] = [
    (&[], &["rw", "nosuid", "nodev", "noexec", "noatime"], &["ro"]),
    (&["ro"], &["ro", "nosuid", "nodev", "noexec", "noatime"], &["rw"]),
    (&["rw"], &["rw"], &["ro"]),
    (&["suid"], &["nodev", "noexec"], &["nosuid"]),
    (&["dev"], &["nosuid", "noexec"], &["nodev"]),
    (&["exec"], &["nosuid", "nodev"], &["noexec"]),
    (&["suid", "dev", "exec"], &["rw"], &["nosuid", "nodev", "noexec"]),
    (&["atime"], &["relatime"], &["noatime"]),
    (&["relatime"], &["relatime"], &["noatime"]),
    (&["strictatime"], &[], &["noatime", "relatime"]),
    (&["nodiratime"], &["nodiratime", "noatime"], &[]),
    (&["nosymfollow"], &["nosymfollow"], &[]),
    (&["rsuid", "rdev", "rexec"], &["rw"], &["nosuid", "nodev", "noexec"]),
    (&["rro"], &["ro"], &["rw"]),
    (&["ro", "rrw"], &["rw"], &["ro"]),
    (&["ratime"], &["relatime"], &["noatime"]),
    (&["rrelatime"], &["relatime"], &["noatime"]),
    (&["rstrictatime"], &[], &["noatime", "relatime"]),
    (&["rnodiratime"], &["nodiratime"], &[]),
    (&["rnosymfollow"], &["nosymfollow"], &[]),
    // Docker and the conformance suite write file system options there; a bind mount has no use for them.
    (&["mode=755", "size=1m", "sync"], &["rw"], &["sync"]),
    (&["defaults"], &["nosuid"], &[]),
];

fn check_table(rows: &[Row], mountinfo: &str) {
    for (i, (options, present, absent)) in rows.iter().enumerate() {
        let found = Mounted::on(mountinfo, &format!("/m/{i}"));
        let on_bind = rows.len() == BOUND.len();
        // `ro` of the mount counts: the superblock of a bind's source is somebody else's.
        let shown = |word: &&str| {
            found.has(word)
                || (!on_bind && !matches!(*word, "ro" | "rw") && found.superblock.iter().any(|s| s == word))
        };
        let missing: Vec<_> = present.iter().filter(|w| !shown(w)).collect();
        let too_much: Vec<_> = absent.iter().filter(|w| shown(w)).collect();
        assert!(
            missing.is_empty() && too_much.is_empty(),
            "{options:?}: lacks {missing:?}, has {too_much:?}: {found:?}"
        );
    }
}

#[test]
fn every_option_of_a_new_file_system_is_as_mountinfo_shows_it() {
    let seen = inside("options", "cat /proc/self/mountinfo", |c| {
        for (i, (options, ..)) in NEW.iter().enumerate() {
            add(
                c,
                json!({"destination": format!("/m/{i}"), "type": "tmpfs", "source": "x", "options": options}),
            );
        }
    });
    check_table(&NEW, &seen);
}

#[test]
fn every_option_of_a_bind_is_as_mountinfo_shows_it_and_the_rest_stays_as_on_the_source() {
    own_mounts();
    let folder = Folder::new("bound");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    mount(Some("src"), folder.path(), Some("tmpfs"), flags, None::<&str>).expect("tmpfs");
    let seen = inside("binds", "cat /proc/self/mountinfo", |c| {
        for (i, (options, ..)) in BOUND.iter().enumerate() {
            let options: Vec<&str> = [&["bind"], *options].concat();
            add(c, json!({"destination": format!("/m/{i}"), "source": folder.path(), "options": options}));
        }
    });
    check_table(&BOUND, &seen);
    let source = Mounted::on(
        &fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo"),
        folder.path().to_str().expect("UTF-8"),
    );
    assert!(
        source.has("rw") && source.has("nosuid") && source.has("noatime"),
        "the source itself is as it was: {source:?}"
    );
}

#[test]
fn a_file_on_a_folder_and_a_folder_on_a_file_are_refused_in_the_words_that_docker_knows() {
    // Docker makes a sentence of its own of them, about what was perhaps meant.
    for (source, destination) in [("/etc/passwd", "/tmp"), ("/usr", "/etc/passwd")] {
        let entry =
            json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]});
        let said = try_inside("mismatch", "true", |c| add(c, entry.clone()));
        assert_eq!(said.status, 1, "{source} {destination}");
        assert!(said.err.contains(": not a directory (ENOTDIR)"), "{}", said.err);
    }
}

#[test]
fn ro_bind_on_locked_mount_keeps_nosuid() {
    own_mounts();
    let folder = Folder::new("locked");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("src"), folder.path(), Some("tmpfs"), flags, None::<&str>).expect("tmpfs");
    let seen = inside("locked", "cat /proc/self/mountinfo", |c| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        add(c, json!({"destination": "/tmp", "source": folder.path(), "options": ["rbind", "ro"]}));
    });
    let bound = Mounted::on(&seen, "/tmp");
    assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|o| bound.has(o)), "{bound:?}");
}

#[test]
fn a_recursive_attribute_reaches_the_mounts_below_and_a_plain_one_does_not() {
    own_mounts();
    let folder = Folder::new("below");
    mount(Some("src"), folder.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("tmpfs");
    let below = folder.path().join("below");
    fs::create_dir(&below).expect("mkdir");
    mount(Some("below"), &below, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("tmpfs");
    let cases: [(&[&str], Option<&str>, &str); 9] = [
        (&["rbind", "ro"], Some("rw"), "ro"),
        (&["rbind", "rro"], Some("ro"), "ro"),
        (&["rbind", "nosuid"], None, "nosuid"),
        (&["rbind", "rnosuid"], Some("nosuid"), "nosuid"),
        (&["rbind", "rnodev"], Some("nodev"), "nodev"),
        (&["rbind", "rnoexec"], Some("noexec"), "noexec"),
        (&["rbind", "rnoatime"], Some("noatime"), "noatime"),
        (&["rbind", "rnosymfollow"], Some("nosymfollow"), "nosymfollow"),
        (&["rbind", "ro", "rnodiratime"], Some("nodiratime"), "ro"),
    ];
    let seen = inside("below", "cat /proc/self/mountinfo", |c| {
        for (i, (options, ..)) in cases.iter().enumerate() {
            add(
                c,
                json!({"destination": format!("/m/{i}"), "type": "none", "source": folder.path(), "options": options}),
            );
        }
        add(
            c,
            json!({"destination": "/m/plain", "type": "bind", "source": folder.path(), "options": ["bind"]}),
        );
    });
    for (i, (options, on_below, on_top)) in cases.iter().enumerate() {
        let (top, below) =
            (Mounted::on(&seen, &format!("/m/{i}")), Mounted::on(&seen, &format!("/m/{i}/below")));
        assert!(top.has(on_top), "{options:?}: {top:?}");
        match on_below {
            Some(option) => assert!(below.has(option), "{options:?}: {below:?}"),
            None => assert!(!below.has(on_top), "{options:?}: {below:?}"),
        }
    }
    assert!(!Mounted::all(&seen).iter().any(|m| m.target == "/m/plain/below"), "bind takes one mount");
}

#[test]
fn files_folders_and_relative_sources_are_bound() {
    let runtime = Runtime::new();
    let bundle = shell("sources", "cat /etc/bound /data/inner; ls -d /data; cat /rel/x", |c| {
        add(
            c,
            json!({"destination": "/etc/bound", "type": "bind", "source": "file", "options": ["rbind", "ro"]}),
        );
        add(
            c,
            json!({"destination": "/data", "type": "bind", "source": "folder", "options": ["rbind", "ro"]}),
        );
        // Not absolute: config.md says below /.
        add(c, json!({"destination": "rel", "type": "bind", "source": "folder2", "options": ["rbind"]}));
    });
    fs::write(bundle.path().join("file"), "file\n").expect("file");
    fs::create_dir(bundle.path().join("folder")).expect("folder");
    fs::write(bundle.path().join("folder/inner"), "inner\n").expect("inner");
    fs::create_dir(bundle.path().join("folder2")).expect("folder2");
    fs::write(bundle.path().join("folder2/x"), "relative\n").expect("x");
    let said = runtime.run(&bundle, "sources");
    assert_eq!((said.status, said.out.as_str()), (0, "file\ninner\n/data\nrelative\n"), "{}", said.err);
    // The mount points that were made in the root.
    assert!(bundle.root().join("etc/bound").is_file() && bundle.root().join("data").is_dir());
}

#[test]
fn a_missing_source_is_an_error_that_names_it() {
    let said = try_inside("nosource", "true", |c| {
        add(
            c,
            json!({"destination": "/x", "type": "bind", "source": "/does/not/exist", "options": ["bind"]}),
        );
    });
    assert_eq!(said.status, 1);
    assert!(said.err.contains("/mounts/7") && said.err.contains("/does/not/exist"), "{}", said.err);
    assert!(said.err.to_lowercase().contains("no such file or directory"), "{}", said.err);
}

#[test]
fn an_option_of_cruns_for_a_bind_is_refused_by_name_and_not_ignored() {
    for option in ["idmap=uids=0-1000-10;gids=0-1000-10", "src-nofollow", "dest-nofollow"] {
        let said = try_inside("of-cruns", "true", |config| {
            add(config, json!({ "destination": "/tmp", "source": "/tmp", "options": ["rbind", option] }));
        });
        let name = option.split('=').next().expect("a word");
        let (status, err) = (said.status, said.err);
        assert!(
            status != 0 && err.contains("/mounts/7/options") && err.contains(&format!("{name:?}")),
            "{err}"
        );
    }
}

#[test]
fn symlinks_on_the_way_to_a_destination_stay_inside_the_root() {
    let runtime = Runtime::new();
    let bundle = shell("links", "cat /proc/self/mountinfo", |c| {
        for destination in ["/absolute/a", "/relative/b", "/dangling/c", "/up/d", "/loop1"] {
            add(c, json!({"destination": destination, "type": "tmpfs", "source": destination}));
        }
    });
    let root = bundle.root();
    fs::create_dir(root.join("real")).expect("mkdir");
    symlink("/real", root.join("absolute")).expect("symlink");
    symlink("real", root.join("relative")).expect("symlink");
    symlink("/not/there", root.join("dangling")).expect("symlink");
    symlink("../../../../../real", root.join("up")).expect("symlink");
    symlink("/real", root.join("loop1")).expect("symlink");
    let said = runtime.run(&bundle, "links");
    assert_eq!(said.status, 0, "{}", said.err);
    for (target, source) in [
        ("/real/a", "/absolute/a"),
        ("/real/b", "/relative/b"),
        ("/not/there/c", "/dangling/c"),
        ("/real/d", "/up/d"),
        ("/real", "/loop1"),
    ] {
        assert!(
            Mounted::all(&said.out).iter().any(|m| m.target == target && m.source == source),
            "{target}: {}",
            said.out
        );
    }
    assert!(!Path::new("/not/there").exists());
}

#[test]
fn mounts_are_made_in_order_and_a_later_one_covers() {
    let seen = inside("order", "cat /proc/self/mountinfo; ls /m/a; ls /m", |c| {
        for (destination, source) in
            [("/m", "first"), ("/m/a", "second"), ("/m/a/b", "third"), ("/m/a", "fourth")]
        {
            add(c, json!({"destination": destination, "type": "tmpfs", "source": source}));
        }
    });
    assert_eq!(Mounted::on(&seen, "/m/a").source, "fourth");
    let sources: Vec<String> =
        Mounted::all(&seen).into_iter().filter(|m| m.target.starts_with("/m")).map(|m| m.source).collect();
    assert_eq!(sources, ["first", "second", "third", "fourth"]);
    assert!(seen.ends_with("\na\n"), "{seen}");
}

#[test]
fn devpts_mqueue_proc_sysfs_and_cgroup_are_new_instances_with_their_options() {
    let seen = inside("kinds", "cat /proc/self/mountinfo; ls /dev/pts; stat -c '%a %g' /dev/pts/ptmx", |c| {
        add(
            c,
            json!({"destination": "/m/cg", "type": "cgroup2", "source": "cg", "options": ["rw", "nosuid"]}),
        );
        c["mounts"][0]["options"] = json!(["nosuid", "noexec", "nodev", "hidepid=2"]);
    });
    for (target, kind, options, superblock) in [
        ("/proc", "proc", &["rw", "nosuid", "noexec", "nodev"][..], &["hidepid=invisible"][..]),
        ("/dev", "tmpfs", &["nosuid"], &["mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec"], &["gid=5", "mode=620", "ptmxmode=666"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev"], &["size=65536k"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"], &[]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"], &[]),
        ("/sys/fs/cgroup", "cgroup2", &["nosuid", "noexec", "nodev", "relatime", "ro"], &[]),
        ("/m/cg", "cgroup2", &["nosuid", "rw"], &[]),
    ] {
        let found = Mounted::on(&seen, target);
        assert_eq!((found.kind.as_str(), found.root.as_str()), (kind, "/"), "{target}");
        assert!(options.iter().all(|o| found.has(o)), "{target}: {found:?}");
        assert!(superblock.iter().all(|o| found.superblock.iter().any(|s| s == o)), "{target}: {found:?}");
    }
    assert!(seen.ends_with("ptmx\n666 0\n") || seen.ends_with("ptmx\n666 5\n"), "{seen}");
}

#[test]
fn the_machines_cgroup2_options_are_left_alone() {
    let options = || {
        let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        Mounted::all(&text).into_iter().find(|m| m.kind == "cgroup2").expect("cgroup2")
    };
    let before = options();
    inside("cgopts", "true", |c| {
        c["mounts"][6]["options"] = json!(["ro", "nsdelegate", "memory_recursiveprot"])
    });
    assert_eq!(options(), before);
}

#[test]
fn mounts_that_the_kernel_or_the_file_system_refuses_name_their_entry() {
    let cases: [(Value, &str); 5] = [
        (json!({"destination": "/m", "type": "nonsense", "source": "x"}), "enodev"),
        (json!({"destination": "/m", "type": "tmpfs", "source": "x", "options": ["nonsense=1"]}), "nonsense"),
        (json!({"destination": "/m", "type": "tmpfs", "source": "x", "options": ["size=lots"]}), "size=lots"),
        (json!({"destination": "/etc/passwd/x", "type": "tmpfs", "source": "x"}), "enotdir"),
        (json!({"destination": "/bin/busybox", "type": "tmpfs", "source": "x"}), "enotdir"),
    ];
    for (entry, words) in cases {
        let said = try_inside("refused", "true", |c| add(c, entry.clone()));
        assert_eq!(said.status, 1, "{entry}");
        assert!(
            said.err.contains("/mounts/7") && said.err.to_lowercase().contains(words),
            "{entry}: {}",
            said.err
        );
    }
}

#[test]
fn proc_and_sys_are_not_mounted_over_a_symlink() {
    for name in ["proc", "sys"] {
        let runtime = Runtime::new();
        let bundle = Bundle::new("linked", &["true"]);
        let root = bundle.root();
        fs::remove_dir(root.join(name)).expect("rmdir");
        symlink("tmp", root.join(name)).expect("symlink");
        let said = runtime.run(&bundle, "linked");
        assert_eq!(said.status, 1, "{name}");
        assert!(said.err.contains("symlink"), "{name}: {}", said.err);
    }
}

#[test]
fn a_file_is_bound_where_a_link_leads_also_a_dangling_one() {
    let runtime = Runtime::new();
    let bundle = shell(
        "filelinks",
        "cat /etc/resolv.conf /run/resolv.conf /etc/absolute; readlink /etc/resolv.conf",
        |c| {
            for destination in ["/etc/resolv.conf", "/etc/absolute"] {
                add(
                    c,
                    json!({"destination": destination, "type": "bind", "source": "file", "options": ["rbind", "ro"]}),
                );
            }
        },
    );
    fs::write(bundle.path().join("file"), "bound\n").expect("file");
    symlink("../run/resolv.conf", bundle.root().join("etc/resolv.conf")).expect("symlink");
    symlink("/etc/passwd", bundle.root().join("etc/absolute")).expect("symlink");
    let said = runtime.run(&bundle, "filelinks");
    assert_eq!(said.out, "bound\nbound\nbound\n../run/resolv.conf\n", "{}", said.err);
}

#[test]
fn a_remount_changes_what_is_there() {
    let seen = inside("remount", "cat /proc/self/mountinfo", |c| {
        add(c, json!({"destination": "/m", "type": "tmpfs", "source": "x", "options": ["size=64k"]}));
        add(c, json!({"destination": "/m", "options": ["remount", "bind", "ro", "noexec"]}));
        add(c, json!({"destination": "/m2", "type": "tmpfs", "source": "x"}));
        add(c, json!({"destination": "/m2", "options": ["shared"]}));
    });
    let found = Mounted::on(&seen, "/m");
    assert!(found.has("ro") && found.has("noexec") && found.kind == "tmpfs", "{found:?}");
    assert_eq!(Mounted::all(&seen).iter().filter(|m| m.target == "/m").count(), 1);
    assert!(Mounted::on(&seen, "/m2").propagation[0].starts_with("shared:"), "{seen}");
}

#[test]
fn an_overlay_of_many_layers_is_mounted_one_by_one_and_other_long_options_are_refused_by_name() {
    let folder = Folder::new("layers");
    let mut layers: Vec<String> = Vec::new();
    for i in 0..200 {
        let name = if i % 50 == 0 { format!("a:colon and a \\ backslash {i}") } else { format!("layer-{i}") };
        let layer = folder.path().join("some/way/down").join(name);
        fs::create_dir_all(&layer).expect("mkdir");
        fs::write(layer.join(format!("file-{i}")), "").expect("write");
        layers.push(layer.to_str().expect("UTF-8").replace('\\', "\\\\").replace(':', "\\:"));
    }
    let lower = format!("lowerdir={}", layers.join(":"));
    assert!(lower.len() > 4096, "longer than runc's page");
    let entry = json!({"destination": "/m", "type": "overlay", "source": "overlay", "options": [lower]});
    let seen = inside("layers", "ls /m | grep -c file-", |c| add(c, entry));
    assert_eq!(seen, "200\n");
    let runtime = Runtime::new();
    let bundle = Bundle::new("long", &["true"]).with(|c| {
        let long = format!("upperdir=/{}", "u".repeat(255));
        add(c, json!({"destination": "/m", "type": "overlay", "source": "overlay", "options": [long]}));
    });
    let said = runtime.run(&bundle, "long-option");
    assert_eq!(said.status, 1);
    let place = bundle.config["mounts"].as_array().expect("mounts").len() - 1;
    let text = format!("/mounts/{place}/options: upperdir has 256 characters: the kernel takes 255");
    assert!(said.err.contains(&text), "{}", said.err);
}

#[test]
fn an_overlay_is_mounted_with_the_options_of_the_config() {
    own_mounts();
    let folder = Folder::new("overlay");
    mount(Some("x"), folder.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("tmpfs");
    for name in ["lower1", "lower2", "upper", "work"] {
        fs::create_dir(folder.path().join(name)).expect("mkdir");
        fs::write(folder.path().join(name).join(name), "").expect("write");
    }
    fs::remove_file(folder.path().join("work/work")).expect("unlink");
    let at = folder.path().display();
    let seen = inside("overlay", "ls /m; touch /m/new", |c| {
        let options = [
            format!("lowerdir={at}/lower1:{at}/lower2"),
            format!("upperdir={at}/upper"),
            format!("workdir={at}/work"),
        ];
        add(c, json!({"destination": "/m", "type": "overlay", "source": "overlay", "options": options}));
    });
    assert_eq!(seen, "lower1\nlower2\nupper\n");
    assert!(folder.path().join("upper/new").exists());
}
