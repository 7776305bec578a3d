//! tmpfs: size, mode and owner, what it takes from the folder it covers, tmpcopyup, read-only with mounts below.

use runtime_tests::inside::{Mounted, inside, shell};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

fn add(config: &mut Value, entry: Value) {
    config["mounts"].as_array_mut().expect("mounts").push(entry);
}

#[test]
fn a_tmpfs_has_the_size_mode_and_owner_of_its_options() {
    let seen = inside("tmpfs", "stat -c '%n %a %u %g' /m/*; cat /proc/self/mountinfo", |c| {
        add(
            c,
            json!({"destination": "/m/given", "type": "tmpfs", "source": "x", "options": ["size=64k", "mode=0710", "uid=3", "gid=4", "nr_inodes=10"]}),
        );
        add(
            c,
            json!({"destination": "/m/joined", "type": "tmpfs", "source": "x", "options": ["size=4096,mode=700"]}),
        );
        add(c, json!({"destination": "/m/bare", "type": "tmpfs"}));
    });
    assert!(seen.starts_with("/m/bare 1777 0 0\n/m/given 710 3 4\n/m/joined 700 0 0\n"), "{seen}");
    let given = Mounted::on(&seen, "/m/given").superblock;
    assert!(given.contains(&"size=64k".into()) && given.contains(&"nr_inodes=10".into()), "{given:?}");
}

#[test]
fn a_tmpfs_without_mode_takes_that_of_the_folder_it_covers() {
    let runtime = Runtime::new();
    let bundle = shell("mode", "stat -c '%n %a' /covered /missing /given", |c| {
        for (destination, options) in
            [("/covered", json!([])), ("/missing", json!([])), ("/given", json!(["mode=0750"]))]
        {
            add(c, json!({"destination": destination, "type": "tmpfs", "source": "x", "options": options}));
        }
    });
    for name in ["covered", "given"] {
        fs::create_dir(bundle.root().join(name)).expect("mkdir");
        fs::set_permissions(bundle.root().join(name), fs::Permissions::from_mode(0o1711)).expect("chmod");
    }
    let said = runtime.run(&bundle, "mode");
    assert_eq!(said.out, "/covered 1711\n/missing 1777\n/given 750\n", "{}", said.err);
}

#[test]
fn tmpcopyup_fills_a_tmpfs_with_modes_owners_times_and_links() {
    let runtime = Runtime::new();
    let script = "cd /data && find . | sort | while read f; do stat -c '%n %F %a %u %g %Y %s' $f; done; readlink link; cat file; echo more >> file; \
                  cat /proc/self/mountinfo";
    let bundle = shell("copyup", script, |c| {
        add(
            c,
            json!({"destination": "/data", "type": "tmpfs", "source": "x", "options": ["tmpcopyup", "mode=0755"]}),
        );
        let caps = json!(["CAP_DAC_OVERRIDE"]);
        c["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
    });
    let data = bundle.root().join("data");
    fs::create_dir_all(data.join("folder/deep")).expect("mkdir");
    fs::write(data.join("file"), "content\n").expect("file");
    fs::write(data.join("folder/deep/large"), vec![b'x'; 100_000]).expect("large");
    symlink("/does/not/exist", data.join("link")).expect("symlink");
    nix::unistd::mkfifo(&data.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).expect("mkfifo");
    for (name, mode, uid) in [
        ("file", 0o4751, 7),
        ("folder", 0o2750, 8),
        ("folder/deep", 0o1777, 9),
        ("folder/deep/large", 0o600, 10),
    ] {
        lchown(data.join(name), Some(uid), Some(uid + 1)).expect("lchown");
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }
    lchown(data.join("link"), Some(11), Some(12)).expect("lchown");
    let time = nix::sys::time::TimeSpec::new(1_000_000_000, 0);
    for name in ["file", "link", "fifo", "folder/deep/large", "folder/deep", "folder"] {
        nix::sys::stat::utimensat(
            nix::fcntl::AT_FDCWD,
            &data.join(name),
            &time,
            &time,
            nix::sys::stat::UtimensatFlags::NoFollowSymlink,
        )
        .expect("utimensat");
    }
    let said = runtime.run(&bundle, "copyup");
    assert_eq!(said.status, 0, "{}", said.err);
    let lines: Vec<&str> = said.out.lines().skip(1).take(8).collect();
    let expected = [
        "./fifo fifo 640 0 0 1000000000 0",
        "./file regular file 4751 7 8 1000000000 8",
        "./folder directory 2750 8 9 1000000000",
        "./folder/deep directory 1777 9 10 1000000000",
        "./folder/deep/large regular file 600 10 11 1000000000 100000",
        "./link symbolic link 777 11 12 1000000000 15",
        "/does/not/exist",
        "content",
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line} is not {expected}");
    }
    assert_eq!(Mounted::on(&said.out, "/data").kind, "tmpfs");
    assert_eq!(
        fs::read_to_string(data.join("file")).expect("file"),
        "content\n",
        "the root's own file is as it was"
    );
    assert_eq!(fs::metadata(data.join("file")).expect("file").uid(), 7);
}

#[test]
fn a_read_only_tmpfs_takes_mounts_below_it() {
    let seen = inside(
        "rotmpfs",
        "cat /proc/self/mountinfo; touch /m/below/x && echo below; touch /m/x 2>&1; true",
        |c| {
            add(
                c,
                json!({"destination": "/m", "type": "tmpfs", "source": "top", "options": ["ro", "nosuid"]}),
            );
            add(c, json!({"destination": "/m/below", "type": "tmpfs", "source": "below"}));
        },
    );
    let top = Mounted::on(&seen, "/m");
    assert!(top.has("ro") && top.has("nosuid") && Mounted::on(&seen, "/m/below").has("rw"), "{seen}");
    assert!(seen.contains("\nbelow\n") && seen.to_lowercase().contains("read-only file system"), "{seen}");
}

#[test]
fn a_read_only_dev_still_has_its_devices() {
    let seen = inside(
        "rodev",
        "stat -c %t:%T /dev/null; readlink /dev/fd; readlink /dev/ptmx; touch /dev/x 2>/dev/null || echo refused; cat /proc/self/mountinfo",
        |c| {
            c["mounts"][1]["options"] = json!(["nosuid", "strictatime", "mode=755", "size=65536k", "ro"]);
        },
    );
    assert!(seen.starts_with("1:3\n/proc/self/fd\npts/ptmx\nrefused\n"), "{seen}");
    assert!(Mounted::on(&seen, "/dev").has("ro"), "{seen}");
}

#[test]
fn tmpcopyup_of_nothing_is_an_empty_tmpfs() {
    let seen = inside("copynothing", "ls -A /not/there | wc -l; stat -c %a /not/there", |c| {
        add(
            c,
            json!({"destination": "/not/there", "type": "tmpfs", "source": "x", "options": ["tmpcopyup"]}),
        );
    });
    assert_eq!(seen, "0\n1777\n");
}
