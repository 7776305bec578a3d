//! Which way mounts travel between the machine and a container: options of a bind mount and linux.rootfsPropagation. The
//! machine is a mount namespace of the test's own.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::{Mounted, own_mounts};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn mountinfo() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo")
}

fn tmpfs(path: &Path) {
    fs::create_dir_all(path).expect("mkdir");
    mount(Some("x"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("tmpfs");
}

fn share(path: &Path) {
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_SHARED, None::<&str>).expect("make-shared");
}

/// May mount.
fn admin(config: &mut Value) {
    let caps = json!(["CAP_SYS_ADMIN"]);
    config["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
    config["root"]["readonly"] = json!(false);
}

fn targets(text: &str) -> Vec<String> {
    Mounted::all(text).into_iter().map(|m| m.target).collect()
}

#[test]
fn bind_options_decide_which_way_mounts_travel() {
    own_mounts();
    // Options, tag in mountinfo inside, mounts of the machine appear inside, those inside appear on the machine.
    let cases: [(&[&str], &str, bool, bool); 10] = [
        (&["rbind"], "", false, false),
        (&["rbind", "rprivate"], "", false, false),
        (&["bind", "private"], "", false, false),
        (&["rbind", "rslave"], "master:", true, false),
        (&["bind", "slave"], "master:", true, false),
        (&["rbind", "rshared"], "shared:", true, true),
        (&["bind", "shared"], "shared:", true, true),
        (&["rbind", "rslave", "ro"], "master:", true, false),
        (&["rbind", "runbindable"], "unbindable", false, false),
        (&["bind", "unbindable"], "unbindable", false, false),
    ];
    let folder = Folder::new("source");
    for (i, (options, tag, comes_in, goes_out)) in cases.into_iter().enumerate() {
        let source = folder.path().join(i.to_string());
        tmpfs(&source);
        share(&source);
        for name in ["machine", "container"] {
            fs::create_dir(source.join(name)).expect("mkdir");
        }
        let id = format!("travel{i}");
        let runtime = Runtime::new();
        let bundle = Bundle::new("travel", &["sleep", "1000"]).with(|c| {
            admin(c);
            c["mounts"]
                .as_array_mut()
                .expect("mounts")
                .push(json!({"destination": "/m", "type": "bind", "source": source, "options": options}));
        });
        let created = runtime.create(&bundle, &id);
        assert_eq!(created.status, 0, "{options:?}: {}", created.err);
        runtime.ok(["start", &id]);
        tmpfs(&source.join("machine"));
        runtime.ok(["exec", &id, "mount", "-t", "tmpfs", "x", "/m/container"]);
        let inside = runtime.ok(["exec", &id, "cat", "/proc/self/mountinfo"]).out;
        let found = Mounted::on(&inside, "/m");
        match tag {
            "" => assert!(found.propagation.is_empty(), "{options:?}: {found:?}"),
            tag => assert!(found.propagation.iter().any(|p| p.starts_with(tag)), "{options:?}: {found:?}"),
        }
        assert_eq!(targets(&inside).contains(&"/m/machine".to_string()), comes_in, "{options:?}: {inside}");
        let outside = source.join("container").display().to_string();
        assert_eq!(targets(&mountinfo()).contains(&outside), goes_out, "{options:?}");
        runtime.ok(["delete", "--force", &id]);
    }
}

#[test]
fn what_is_mounted_for_a_container_never_reaches_the_machine() {
    own_mounts();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .expect("make-rshared");
    let folder = Folder::new("shared");
    tmpfs(folder.path());
    fs::create_dir(folder.path().join("below")).expect("mkdir");
    let before = targets(&mountinfo());
    for propagation in
        ["", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"]
    {
        for bind in ["rprivate", "rslave", "rshared"] {
            let runtime = Runtime::new();
            let bundle = Bundle::new("quiet", &["true"]).with(|c| {
                if !propagation.is_empty() {
                    c["linux"]["rootfsPropagation"] = json!(propagation);
                }
                let mounts = c["mounts"].as_array_mut().expect("mounts");
                mounts.push(json!({"destination": "/m", "type": "bind", "source": folder.path(), "options": ["rbind", bind]}));
                // Only a bind that shares with the machine may show it what is mounted on it.
                if bind != "rshared" {
                    mounts.push(json!({"destination": "/m/below", "type": "tmpfs", "source": "x"}));
                }
            });
            let said = runtime.run(&bundle, "quiet");
            assert_eq!(said.status, 0, "{propagation} {bind}: {}", said.err);
            assert_eq!(targets(&mountinfo()), before, "{propagation} {bind}");
        }
    }
}

#[test]
fn rootfs_propagation_is_that_of_the_root_mount() {
    own_mounts();
    // Tags of the root inside, of a mount below it, and whether a mount of the machine appears.
    for (value, tags, below, comes_in) in [
        ("", &["master:"][..], &[][..], true),
        ("private", &[], &[], false),
        ("rprivate", &[], &[], false),
        ("slave", &["master:"], &[], true),
        ("rslave", &["master:"], &[], true),
        ("shared", &["shared:", "master:"], &[], true),
        ("rshared", &["shared:", "master:"], &["shared:"], true),
        ("unbindable", &["unbindable"], &[], false),
        ("runbindable", &["unbindable"], &["unbindable"], false),
    ] {
        let runtime = Runtime::new();
        let bundle = Bundle::new("root", &["sleep", "1000"]).with(|c| {
            admin(c);
            if !value.is_empty() {
                c["linux"]["rootfsPropagation"] = json!(value);
            }
        });
        let root = bundle.root();
        let flags = MsFlags::MS_BIND;
        mount(Some(&root), &root, None::<&str>, flags, None::<&str>).expect("bind");
        share(&root);
        let outside = Mounted::on(&mountinfo(), root.to_str().expect("UTF-8")).propagation;
        let id = format!("root-{value}");
        let created = runtime.create(&bundle, &id);
        assert_eq!(created.status, 0, "{value}: {}", created.err);
        runtime.ok(["start", &id]);
        tmpfs(&root.join("tmp"));
        let inside = runtime.ok(["exec", &id, "cat", "/proc/self/mountinfo"]).out;
        for (target, tags) in [("/", tags), ("/dev", below)] {
            let found = Mounted::all(&inside).into_iter().find(|m| m.target == target).expect("mounted");
            assert_eq!(found.propagation.len(), tags.len(), "{value}: {found:?}");
            assert!(found.propagation.iter().zip(tags).all(|(p, t)| p.starts_with(t)), "{value}: {found:?}");
            // A peer group of its own: "this does not mean that it's shared with the host" (config-linux.md).
            assert_ne!(found.propagation, outside, "{value}");
        }
        assert_eq!(targets(&inside).contains(&"/tmp".to_string()), comes_in, "{value}: {inside}");
        runtime.ok(["delete", "--force", &id]);
        umount2(&root.join("tmp"), MntFlags::MNT_DETACH).expect("umount tmp");
        umount2(&root, MntFlags::MNT_DETACH).expect("umount");
    }
}

#[test]
fn an_unknown_propagation_is_refused() {
    let runtime = Runtime::new();
    let bundle =
        Bundle::new("odd", &["true"]).with(|c| c["linux"]["rootfsPropagation"] = json!("rsometimes"));
    let said = runtime.run(&bundle, "odd");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("/linux/rootfsPropagation") && said.err.contains("rsometimes"), "{}", said.err);
}
