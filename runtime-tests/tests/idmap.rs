//! Id-mapped mounts, on file systems that a test mounts in a mount namespace of its own.

use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::{FIRST_ID, Mounted, own_mounts, owned, shell, user_namespace};
use runtime_tests::runtime::{Runtime, Said};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// What shows owner and group of everything in /data.
const OWNERS: &str = "stat -c '%n %u:%g' /data /data/* /data/below/*";

fn tmpfs(path: &Path) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount tmpfs");
}

/// A file system with files of several owners, and another mounted in its folder `below`.
fn data() -> Folder {
    own_mounts();
    let folder = Folder::new("data");
    tmpfs(folder.path());
    fs::create_dir(folder.path().join("below")).expect("mkdir");
    tmpfs(&folder.path().join("below"));
    for (name, uid, gid) in [("root", 0, 0), ("user", 1000, 100), ("far", 70_000, 0), ("below/deep", 7, 8)] {
        let path = folder.path().join(name);
        fs::write(&path, name).expect("write");
        chown(&path, Some(uid), Some(gid)).expect("chown");
    }
    folder
}

fn map(host: u32, size: u32) -> Value {
    json!([{ "containerID": 0, "hostID": host, "size": size }])
}

fn add(config: &mut Value, source: &Path, options: Value, maps: Option<[Value; 2]>) {
    let mut entry = json!({ "destination": "/data", "type": "bind", "source": source, "options": options });
    if let Some([uid, gid]) = maps {
        entry["uidMappings"] = uid;
        entry["gidMappings"] = gid;
    }
    config["mounts"].as_array_mut().expect("mounts").push(entry);
}

fn bundle(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = shell(name, script, change);
    fs::create_dir(bundle.root().join("data")).expect("mkdir /data");
    bundle
}

fn run(name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Said {
    Runtime::new().run(&bundle(name, script, change), name)
}

fn lines(said: &Said) -> Vec<&str> {
    assert_eq!((said.status, said.err.as_str()), (0, ""), "{}", said.out);
    said.out.lines().collect()
}

#[test]
fn a_bind_mount_shows_the_owners_of_its_mappings() {
    let data = data();
    let own = || Some([map(200_000, 65_536), map(300_000, 65_536)]);
    // (options, the top mount is mapped, the one below too)
    for (options, below) in [
        (json!(["rbind", "idmap"]), "/data/below/deep 7:8"),
        (json!(["rbind", "ridmap"]), "/data/below/deep 200007:300008"),
        // Mappings alone are a mapping.
        (json!(["rbind"]), "/data/below/deep 7:8"),
    ] {
        let said = run("idmap", OWNERS, |c| add(c, data.path(), options.clone(), own()));
        let seen = lines(&said);
        assert!(seen.contains(&"/data 200000:300000"), "{options}: {seen:?}");
        assert!(seen.contains(&"/data/root 200000:300000"), "{options}: {seen:?}");
        assert!(seen.contains(&"/data/user 201000:300100"), "{options}: {seen:?}");
        // What has no mapping is nobody's.
        assert!(seen.contains(&"/data/far 65534:300000"), "{options}: {seen:?}");
        assert!(seen.contains(&below), "{options}: {seen:?}");
    }
    let said = run("idmapinfo", "cat /proc/self/mountinfo", |c| {
        add(c, data.path(), json!(["bind", "idmap", "ro", "nosuid"]), own());
    });
    let mounted = Mounted::on(&said.out, "/data");
    assert!(mounted.has("idmapped") && mounted.has("ro") && mounted.has("nosuid"), "{mounted:?}");
}

#[test]
fn in_a_user_namespace_the_owners_are_those_on_the_disk_and_what_is_made_is_too() {
    let data = data();
    for (options, maps) in [
        (json!(["rbind", "idmap"]), None),
        (json!(["rbind", "ridmap"]), None),
        (json!(["rbind", "idmap"]), Some([map(FIRST_ID, 65_536), map(FIRST_ID, 65_536)])),
    ] {
        let script = format!("{OWNERS} && touch /data/new && chown 33:44 /data/new");
        let bundle = owned("idmapuser", &script, |c| {
            add(c, data.path(), options.clone(), maps.clone());
            // It makes what is mounted on.
            c["root"]["readonly"] = json!(false);
            c["process"]["capabilities"]["effective"] = json!(["CAP_CHOWN"]);
            c["process"]["capabilities"]["permitted"] = json!(["CAP_CHOWN"]);
            c["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN"]);
        });
        let said = Runtime::new().run(&bundle, "idmapuser");
        let seen = lines(&said);
        assert!(
            seen.contains(&"/data/root 0:0") && seen.contains(&"/data/user 1000:100"),
            "{options}: {seen:?}"
        );
        let recursive = options[1] == "ridmap";
        let deep = if recursive { "/data/below/deep 7:8" } else { "/data/below/deep 65534:65534" };
        assert!(seen.contains(&deep), "{options}: {seen:?}");
        let made = fs::metadata(data.path().join("new")).expect("it was made");
        assert_eq!((made.uid(), made.gid()), (33, 44), "{options}");
        fs::remove_file(data.path().join("new")).expect("rm");
    }
}

#[test]
fn the_map_of_a_user_namespace_that_is_joined_is_taken() {
    let data = data();
    let runtime = Runtime::new();
    let first = owned("idmappod", "echo up; exec sleep 1000", |_| {});
    let mut up = runtime.detached(&first, "idmappod-one");
    assert_eq!(up.line(), "up");
    let path = format!("/proc/{}/ns/user", runtime.pid("idmappod-one"));
    let second = owned("idmappod2", OWNERS, |c| {
        add(c, data.path(), json!(["rbind", "idmap"]), None);
        c["root"]["readonly"] = json!(false);
        let spaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
        spaces.iter_mut().find(|n| n["type"] == "user").expect("user")["path"] = json!(path);
    });
    let said = runtime.run(&second, "idmappod-two");
    let seen = lines(&said);
    assert!(seen.contains(&"/data/root 0:0") && seen.contains(&"/data/user 1000:100"), "{seen:?}");
    runtime.ok(["delete", "--force", "idmappod-one"]);
}

#[test]
fn a_new_file_system_can_have_an_id_map_too() {
    own_mounts();
    let tmpfs = |options: Value, maps: bool| {
        let mut entry =
            json!({ "destination": "/data", "type": "tmpfs", "source": "scratch", "options": options });
        if maps {
            entry["uidMappings"] = map(200_000, 10);
            entry["gidMappings"] = map(300_000, 10);
        }
        entry
    };
    let script = "stat -c '%u:%g %a' /data; cat /proc/self/mountinfo";
    let said = run("idmaptmpfs", script, |c| {
        let entry = tmpfs(json!(["idmap", "nodev", "size=1m", "mode=750"]), true);
        c["mounts"].as_array_mut().expect("mounts").push(entry);
    });
    assert_eq!(lines(&said)[0], "200000:300000 750");
    let mounted = Mounted::on(&said.out, "/data");
    assert_eq!((mounted.kind.as_str(), mounted.source.as_str()), ("tmpfs", "scratch"));
    assert!(mounted.has("idmapped") && mounted.has("nodev"), "{mounted:?}");
    assert!(mounted.superblock.contains(&"size=1024k".to_string()), "{mounted:?}");
    let said = {
        let bundle =
            owned("idmaptmpfs2", "stat -c '%u:%g' /data; touch /data/x && stat -c %u /data/x", |c| {
                user(c, tmpfs(json!(["idmap"]), false));
            });
        Runtime::new().run(&bundle, "idmaptmpfs2")
    };
    assert_eq!(lines(&said), ["0:0", "0"]);
}

fn user(config: &mut Value, entry: Value) {
    config["root"]["readonly"] = json!(false);
    config["mounts"].as_array_mut().expect("mounts").push(entry);
}

#[test]
fn mounts_are_listed_in_their_order_with_id_maps_among_them() {
    let data = data();
    let said = run("idmaporder", "cat /proc/self/mountinfo", |c| {
        c["root"]["readonly"] = json!(false);
        let tmpfs = |at: &str, more: Value| json!({ "destination": at, "type": "tmpfs", "options": more });
        let mut mapped = tmpfs("/tmp/b", json!(["idmap"]));
        mapped["uidMappings"] = map(200_000, 10);
        mapped["gidMappings"] = map(200_000, 10);
        let mut bind =
            json!({ "destination": "/tmp/c", "type": "bind", "source": data.path(), "options": ["bind"] });
        bind["uidMappings"] = map(200_000, 10);
        bind["gidMappings"] = map(200_000, 10);
        let list = c["mounts"].as_array_mut().expect("mounts");
        list.extend([tmpfs("/tmp/a", json!([])), mapped, bind, tmpfs("/tmp/d", json!([]))]);
    });
    let all = Mounted::all(&said.out);
    let seen: Vec<&str> = all.iter().map(|m| m.target.as_str()).filter(|t| t.starts_with("/tmp/")).collect();
    assert_eq!(seen, ["/tmp/a", "/tmp/b", "/tmp/c", "/tmp/d"], "{}", said.err);
}

#[test]
fn what_has_no_id_map_is_refused_by_name() {
    let data = data();
    let both = || Some([map(200_000, 10), map(200_000, 10)]);
    let devpts = json!({ "destination": "/data", "type": "devpts", "options": ["idmap"],
        "uidMappings": map(200_000, 10), "gidMappings": map(200_000, 10) });
    for (change, words) in [
        (
            &(|c: &mut Value| add(c, data.path(), json!(["bind", "idmap"]), None)) as &dyn Fn(&mut Value),
            "needs uidMappings",
        ),
        (
            &|c: &mut Value| c["mounts"].as_array_mut().expect("mounts").push(devpts.clone()),
            "no id maps for mounts of devpts",
        ),
        // sysfs below it has none.
        (
            &|c: &mut Value| add(c, Path::new("/proc/self/fd"), json!(["bind", "idmap"]), both()),
            "does not support id-mapped mounts",
        ),
        (
            &|c: &mut Value| {
                user_namespace(c);
                add(c, data.path(), json!(["bind"]), Some([map(200_000, 0), map(200_000, 10)]));
            },
            "greater than zero",
        ),
    ] {
        let said = run("idmapno", "true", change);
        assert!(said.status == 1 && said.err.contains("/mounts/7"), "{words}: {}", said.err);
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
}
