//! `mounts add` and `mounts remove`: what a container that runs gets mounted, what is taken away again, and what neither
//! does, whatever the container does meanwhile. crun 1.22 has the verb; runc and Debian's crun have not.

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::machine::{mounts, own_mount_namespace};
use runtime_tests::runtime::{Runtime, Said};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Requests of a file system in user space: the first, and that somebody who waits for another is to end.
const FUSE_INIT: u32 = 26;
const FUSE_INTERRUPT: u32 = 36;

/// A container that runs until its end is asked for.
struct Victim {
    runtime: Runtime,
    bundle: Bundle,
    id: &'static str,
}

impl Victim {
    fn new(id: &'static str, change: impl FnOnce(&mut Value)) -> Victim {
        Victim::running(id, &["sleep", "1000"], change)
    }

    fn running(id: &'static str, args: &[&str], change: impl FnOnce(&mut Value)) -> Victim {
        own_mount_namespace();
        let (runtime, bundle) = (
            Runtime::new(),
            Bundle::new(id, args).with(|config| {
                config["root"]["readonly"] = json!(false);
                change(config);
            }),
        );
        runtime.created(&bundle, id);
        runtime.ok(["start", id]);
        Victim { runtime, bundle, id }
    }

    fn change(&self, word: &str, list: &Value) -> Said {
        self.runtime.say_with_input(["mounts", word, self.id, "-"], &list.to_string())
    }

    fn changed(&self, word: &str, list: &Value) {
        let said = self.change(word, list);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{word} {list}");
    }

    fn refused(&self, word: &str, list: &Value) -> String {
        let said = self.change(word, list);
        assert_eq!(said.status, 1, "{word} {list}: {}{}", said.out, said.err);
        said.err
    }

    fn exec(&self, script: &str) -> Said {
        self.runtime.say(["exec", self.id, "sh", "-c", script])
    }

    fn shows(&self, script: &str) -> String {
        let said = self.exec(script);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{script}");
        said.out
    }

    /// The line of the mount on `path`, as the container sees it.
    fn mount_on(&self, path: &str) -> Option<String> {
        let lines = self.shows("cat /proc/self/mountinfo");
        lines.lines().rev().find(|line| line.split(' ').nth(4) == Some(path)).map(str::to_string)
    }

    fn options_of(&self, path: &str) -> Vec<String> {
        let line = self.mount_on(path).unwrap_or_else(|| panic!("nothing is mounted on {path}"));
        line.split(' ').nth(5).expect("options").split(',').map(str::to_string).collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.runtime.say(["delete", "--force", self.id]);
    }
}

/// Tells a thread to stop, also where the test fails: it would be waited for for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_folder_and_a_file_of_the_machine_come_and_go() {
    let source = Folder::new("added");
    fs::write(source.path().join("word"), "from outside\n").expect("a file");
    let victim = Victim::new("mounts-added-bind", |_| {});
    let list = json!([
        {"destination": "/data/new/here", "source": source.path(), "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/etc/word", "type": "bind", "source": source.path().join("word")},
    ]);
    victim.changed("add", &list);
    assert_eq!(victim.shows("cat /data/new/here/word /etc/word"), "from outside\nfrom outside\n");
    let options = victim.options_of("/data/new/here");
    assert!(options.contains(&"ro".into()) && options.contains(&"nosuid".into()), "{options:?}");
    assert!(!victim.options_of("/etc/word").contains(&"ro".into()));
    assert_ne!(victim.exec("echo x > /data/new/here/other").status, 0, "it is read-only");
    assert!(!mounts().contains("/data/new/here"), "the machine has none of it");

    victim.changed("remove", &list);
    assert_eq!((victim.mount_on("/data/new/here"), victim.mount_on("/etc/word")), (None, None));
    assert!(source.path().join("word").exists());
}

#[test]
fn every_kind_of_file_system_and_option_that_create_takes_is_added() {
    let (lower, upper) = (Folder::new("lower"), Folder::new("upper"));
    fs::write(lower.path().join("below"), "of the lower layer\n").expect("a file");
    fs::write(upper.path().join("above"), "of the upper layer\n").expect("a file");
    let layers = format!("lowerdir={}:{}", upper.path().display(), lower.path().display());
    let maps = json!([{"containerID": 0, "hostID": 5000, "size": 100}]);
    let victim = Victim::new("mounts-added-kinds", |_| {});
    victim.shows("mkdir -p /filled && echo from below > /filled/word && chmod 750 /filled");
    let source = lower.path();
    for (entry, words, script, expected) in [
        (
            json!({"type": "tmpfs", "source": "scratch", "options": ["size=64k", "mode=1777", "noexec"]}),
            &["rw", "noexec", "- tmpfs scratch", "size=64k"][..],
            "stat -c %a /here",
            "1777\n",
        ),
        (json!({"type": "tmpfs", "source": "tmpfs", "options": ["ro"]}), &["ro"], "ls -A /here", ""),
        (json!({"type": "bind", "source": source}), &["rw"], "cat /here/below", "of the lower layer\n"),
        (
            json!({"source": source, "options": ["rbind", "rro", "noatime", "nosymfollow"]}),
            &["ro", "noatime", "nosymfollow"],
            "cat /here/below",
            "of the lower layer\n",
        ),
        (
            json!({"source": source, "options": ["bind", "idmap"], "uidMappings": maps, "gidMappings": maps}),
            &["idmapped"],
            "stat -c %u:%g /here/below",
            "5000:5000\n",
        ),
        (json!({"source": source, "options": ["bind", "rshared"]}), &["shared:"], "true", ""),
        (json!({"source": source, "options": ["bind", "unbindable"]}), &["unbindable"], "true", ""),
        (
            json!({"type": "overlay", "source": "overlay", "options": [layers]}),
            &["- overlay overlay"],
            "cat /here/above /here/below",
            "of the upper layer\nof the lower layer\n",
        ),
        (
            json!({"type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]}),
            &["ro", "- sysfs sysfs"],
            "ls /here/class/net",
            "lo\n",
        ),
        (json!({"type": "mqueue", "source": "mqueue"}), &["- mqueue mqueue"], "ls -A /here", ""),
        (
            json!({"type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}),
            &["- devpts devpts"],
            "ls /here",
            "ptmx\n",
        ),
        (
            json!({"type": "cgroup", "source": "cgroup", "options": ["ro"]}),
            &["ro", "- cgroup2"],
            "test -e /here/cgroup.procs && echo there",
            "there\n",
        ),
    ] {
        let mut entry = entry;
        entry["destination"] = json!("/here");
        let list = json!([entry]);
        victim.changed("add", &list);
        let line = victim.mount_on("/here").unwrap_or_else(|| panic!("{list}: nothing is mounted"));
        for word in words {
            assert!(line.contains(word), "{list}: {word:?} is not in {line}");
        }
        assert_eq!(victim.shows(script), expected, "{list}");
        victim.changed("remove", &list);
        assert_eq!(victim.mount_on("/here"), None, "{list}");
    }
    let list = json!([{"destination": "/filled", "type": "tmpfs", "options": ["tmpcopyup", "ro"]}]);
    victim.changed("add", &list);
    assert_eq!(victim.shows("cat /filled/word; stat -c %a /filled"), "from below\n750\n");
    assert_ne!(victim.exec("echo x > /filled/word").status, 0, "it is read-only");
}

#[test]
fn what_cannot_be_added_as_a_whole_leaves_nothing() {
    let victim = Victim::new("mounts-added-whole", |_| {});
    let before = victim.shows("cat /proc/self/mountinfo");
    let first = json!({"destination": "/one", "type": "tmpfs"});
    let (source, file) = (victim.bundle.path(), victim.bundle.path().join("config.json"));
    for (second, sentence) in [
        (
            json!({"destination": "/two", "source": "/nowhere/at/all", "options": ["bind"]}),
            "/mounts/1/source: open /nowhere/at/all: no such file or directory",
        ),
        (json!({"destination": "/two", "type": "nosuchfs"}), "nosuchfs"),
        (
            json!({"destination": "/two", "type": "tmpfs", "options": ["size=lots"]}),
            "option size=lots of tmpfs",
        ),
        (json!({"destination": "/bin/busybox", "source": source, "options": ["bind"]}), "not a directory"),
        (json!({"destination": "/bin", "source": file, "options": ["bind"]}), "not a directory"),
        (
            json!({"destination": "/", "type": "tmpfs"}),
            "mounts: /1/destination: the root of a running container",
        ),
        (
            json!({"destination": "/tmp/../..", "type": "tmpfs"}),
            "mounts: /1/destination: the root of a running",
        ),
        (
            json!({"destination": "/one", "options": ["remount", "ro"]}),
            "mounts: /1: changes a mount that is there",
        ),
        (json!({"destination": "/one", "options": ["shared"]}), "mounts: /1: changes a mount that is there"),
        (json!({"destination": "/two", "type": "proc"}), "mounts: /1/type: a procfs shows the pid namespace"),
        (json!({"destination": "/proc/self/attr", "type": "tmpfs"}), "mounts: /1/destination: "),
        (json!({"destination": "/two"}), "mounts: /1/type: a mount needs a type"),
        (json!({"type": "tmpfs"}), "mounts: "),
    ] {
        let err = victim.refused("add", &json!([first, second]));
        assert!(err.contains(sentence) && err.contains("mounts add mounts-added-whole"), "{second}: {err}");
        assert_eq!(victim.shows("cat /proc/self/mountinfo"), before, "{second}");
        // Nor does the state know of it.
        assert!(victim.refused("remove", &json!([first])).contains("unmount /one"), "{second}");
    }
    for (text, sentence) in [("{}", "mounts: "), ("[", "mounts: "), ("", "mounts: "), ("[1]", "mounts: /0")] {
        let said = victim.runtime.say_with_input(["mounts", "add", victim.id, "-"], text);
        assert!(said.status == 1 && said.err.contains(sentence), "{text}: {}", said.err);
    }
    victim.changed("add", &json!([]));
}

#[test]
fn a_container_that_does_not_run_gets_nothing() {
    own_mount_namespace();
    let (runtime, list) = (Runtime::new(), json!([{"destination": "/new", "type": "tmpfs"}]).to_string());
    let bundle = Bundle::new("mounts-added-states", &["sleep", "1000"]).with(|config| {
        config["root"]["readonly"] = json!(false);
    });
    let id = "mounts-added-states";
    let says = |word: &str| {
        let said = runtime.say_with_input(["mounts", word, id, "-"], &list);
        (said.status, said.err)
    };
    let refused = |sentence: &str| {
        for word in ["add", "remove"] {
            let (status, err) = says(word);
            assert!(status == 1 && err.contains(sentence), "{word}: {err}");
        }
    };
    refused("container does not exist");
    runtime.created(&bundle, id);
    assert_eq!(says("add"), (0, String::new()), "it waits, and its mounts are there");
    assert_eq!(says("remove"), (0, String::new()));
    runtime.ok(["start", id]);
    runtime.ok(["pause", id]);
    refused("the container is paused");
    runtime.ok(["resume", id]);
    runtime.ok(["kill", id, "KILL"]);
    runtime.wait_for_end(id);
    refused("container not running");
    runtime.ok(["delete", id]);
}

#[test]
fn a_container_without_a_mount_namespace_gets_nothing() {
    let victim = Victim::new("mounts-added-machine", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "mount");
        config["mounts"] = json!([]);
        for field in ["maskedPaths", "readonlyPaths"] {
            config["linux"][field] = json!([]);
        }
    });
    let before = mounts();
    let list = json!([{"destination": "/tmp", "type": "tmpfs"}]);
    for word in ["add", "remove"] {
        let err = victim.refused(word, &list);
        assert!(err.contains("no mount namespace of its own"), "{err}");
    }
    assert_eq!(mounts(), before);
}

#[test]
fn in_a_user_namespace_mounts_are_added_too() {
    let source = Folder::new("added-user");
    fs::write(source.path().join("word"), "from outside\n").expect("a file");
    let victim = Victim::new("mounts-added-user", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({"type": "user"}));
        for field in ["uidMappings", "gidMappings"] {
            config["linux"][field] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        }
    });
    let list = json!([
        {"destination": "/tmp/bind", "source": source.path(), "options": ["bind", "ro"]},
        {"destination": "/tmp/mapped", "source": source.path(), "options": ["bind", "idmap"]},
        {"destination": "/tmp/scratch", "type": "tmpfs"},
        {"destination": "/tmp/sys", "type": "sysfs", "options": ["ro"]},
    ]);
    victim.changed("add", &list);
    let script =
        "cat /tmp/bind/word; stat -c %u /tmp/mapped/word; echo x > /tmp/scratch/x; ls /tmp/sys/class/net";
    assert_eq!(victim.shows(script), "from outside\n0\nlo\n");
    assert!(victim.options_of("/tmp/bind").contains(&"ro".into()));
    victim.changed("remove", &list);
    for entry in list.as_array().expect("a list") {
        assert_eq!(victim.mount_on(entry["destination"].as_str().expect("a path")), None, "{entry}");
    }
}

#[test]
fn what_is_no_mount_is_not_removed_and_no_other_in_its_place() {
    let victim = Victim::new("mounts-added-exact", |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/data/b/x", "type": "tmpfs", "source": "of-the-config"}));
        mounts.push(json!({"destination": "/lone", "type": "tmpfs", "source": "lone"}));
    });
    let one = |path: &str| json!([{"destination": path, "type": "tmpfs", "source": "added"}]);
    for (path, sentence) in [
        ("/bin", "it is no mount of the container's"),
        ("/bin/busybox", "it is no mount of the container's"),
        ("/nowhere", "no such file or directory"),
        ("/", "the root of a running container"),
        ("relative", "unmount /relative: openat2: no such file or directory"),
    ] {
        let err = victim.refused("remove", &one(path));
        assert!(err.contains(sentence) && err.contains("mounts: /0"), "{path}: {err}");
    }
    victim.changed("add", &one("/data/a/x"));
    // What the container does: what it had for `a` is now what was `b`.
    let root = victim.bundle.root();
    let exchange = |one: &str, other: &str| {
        let flags = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &root.join(one), AT_FDCWD, &root.join(other), flags).expect("renameat2");
    };
    exchange("data/a", "data/b");
    assert!(victim.mount_on("/data/a/x").expect("a mount").contains("of-the-config"));
    let err = victim.refused("remove", &one("/data/a/x"));
    assert!(err.contains("another mount lies there now"), "{err}");
    // A mount of config.json goes by its own name, not by a link of the container's.
    symlink("lone", root.join("link")).expect("a link");
    let err = victim.refused("remove", &one("/link"));
    assert!(err.contains("a link of the container's is on the way"), "{err}");
    assert!(victim.mount_on("/lone").is_some() && victim.mount_on("/data/a/x").is_some());
    exchange("data/a", "data/b");
    victim.changed("remove", &one("/data/a/x"));
    assert!(victim.mount_on("/data/b/x").expect("a mount").contains("of-the-config"));
    victim.changed("remove", &one("/lone"));
    assert_eq!((victim.mount_on("/lone"), victim.mount_on("/data/a/x")), (None, None));
}

/// A shared mount is the way out: neither one that was added before nor one of the same list is reached by a link.
#[test]
fn what_is_added_follows_no_link_once_a_mount_of_the_machine_is_shared() {
    let source = Folder::new("added-shared");
    let victim = Victim::new("mounts-added-shared", |_| {});
    let machine = source.path().join("machine");
    fs::create_dir_all(&machine).expect("mkdir");
    let say = |words: &[&str]| {
        let done = Command::new("mount").args(words).arg(source.path()).status().expect("execute mount");
        assert!(done.success(), "mount {words:?}");
    };
    say(&["-t", "tmpfs", "tmpfs"]);
    say(&["--make-shared"]);
    fs::create_dir(&machine).expect("mkdir");
    symlink("out/machine", victim.bundle.root().join("link")).expect("a link");
    let shared = json!({"destination": "/out", "source": source.path(), "options": ["rbind", "rshared"]});
    let later = json!({"destination": "/link", "type": "tmpfs", "source": "later"});
    let plain = json!({"destination": "/plain", "type": "tmpfs", "source": "plain"});
    let (before, inside) = (mounts(), victim.shows("cat /proc/self/mountinfo"));
    let refused = |list: &Value| {
        let err = victim.refused("add", list);
        assert!(err.contains("a link of the container's is on the way"), "{list}: {err}");
        assert_eq!(mounts(), before, "{list}");
    };
    refused(&json!([shared, later]));
    assert_eq!(victim.shows("cat /proc/self/mountinfo"), inside, "all of it or nothing");
    // It was there, and the container may have mounted it elsewhere.
    refused(&json!([later]));
    victim.changed("add", &json!([shared, plain]));
    assert!(victim.options_of("/out").contains(&"rw".into()));
    refused(&json!([later]));
    victim.changed("remove", &json!([shared, plain]));
    refused(&json!([later]));
    victim.changed("add", &json!([plain]));
    victim.changed("remove", &json!([plain]));
    assert_eq!(victim.mount_on("/plain"), None);
}

/// Mounts a file system on `path` that says hello and answers nothing else, but to who is killed (fuse(4), linux/fuse.h).
/// Tells of each request. It ends with the mount.
fn never_answers(path: &Path) -> mpsc::Receiver<u32> {
    let mut fuse = fs::File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
    mount(Some("fuse"), path, Some("fuse"), MsFlags::empty(), Some(options.as_str())).expect("mount fuse");
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let mut request = vec![0; 1 << 17];
        while let Ok(40..) = fuse.read(&mut request) {
            match u32::from_ne_bytes(request[4..8].try_into().expect("4 bytes")) {
                FUSE_INIT => {
                    // struct fuse_out_header, then fuse_init_out: version 7.31, 4096 bytes in a write.
                    let mut hello = [0; 80];
                    hello[0] = 80;
                    hello[8..16].copy_from_slice(&request[8..16]);
                    (hello[16], hello[20], hello[37], hello[40]) = (7, 31, 16, 1);
                    fuse.write_all(&hello).expect("answer FUSE_INIT");
                }
                FUSE_INTERRUPT => {
                    let mut interrupted = [0; 16];
                    interrupted[0] = 16;
                    interrupted[4..8].copy_from_slice(&(-libc::EINTR).to_ne_bytes());
                    interrupted[8..16].copy_from_slice(&request[40..48]);
                    // ENOENT, when nobody waits any more.
                    let _ = fuse.write_all(&interrupted);
                }
                opcode => drop(tell.send(opcode)),
            }
        }
    });
    asked
}

#[test]
fn a_container_is_shown_signalled_and_deleted_while_a_mount_waits_for_what_never_answers() {
    let source = Folder::new("added-hangs");
    let mut asked = None;
    let victim = Victim::new("mounts-added-hangs", |config| {
        fs::create_dir(source.path().join("fuse")).expect("mkdir");
        asked = Some(never_answers(&source.path().join("fuse")));
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/data", "source": source.path(), "options": ["rbind"]}));
    });
    let list = json!([{"destination": "/data/fuse/x", "type": "tmpfs"}]).to_string();
    let (runtime, id) = (&victim.runtime, victim.id);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| runtime.say_with_input(["mounts", "add", id, "-"], &list));
        let asked = asked.expect("a file system").recv_timeout(Duration::from_secs(60));
        let [state, kill, delete] = [&["state", id][..], &["kill", id, "USR1"], &["delete", "--force", id]]
            .map(|words| runtime.say(words));
        let said = waits.join().expect("a thread");
        assert!(asked.is_ok(), "nobody has asked the file system for anything: {}", said.err);
        assert!(state.out.contains(r#""status": "running""#), "{}{}", state.out, state.err);
        for said in [kill, delete] {
            assert_eq!((said.status, said.err.as_str()), (0, ""));
        }
        assert!(said.status == 1 && said.err.contains("it has ended meanwhile"), "{}", said.err);
    });
}

/// The rule of docs/security.md: whatever a racing container makes of the path, the mount lands inside.
#[test]
fn a_racing_rename_never_leads_a_mount_to_the_machine() {
    const TIMES: usize = 25;
    let victim = Victim::new("mounts-added-race", |_| {});
    let (canary, source) = (Folder::new("canary"), Folder::new("added-race"));
    fs::create_dir(canary.path().join("deep")).expect("mkdir");
    let root = victim.bundle.root();
    fs::create_dir_all(root.join("race/deep")).expect("mkdir");
    // By its absolute path and up from below, and through a process of the machine.
    let climbing = format!("../../../../../../..{}", canary.path().display());
    let links = [canary.path().to_path_buf(), climbing.into(), "/proc/1/root".into()];
    for (i, link) in links.iter().enumerate() {
        symlink(link, root.join(format!("link{i}"))).expect("a link");
    }
    let (before, state) = (mounts(), fs::read_dir(canary.path().join("deep")).expect("it is there").count());
    let stop = AtomicBool::new(false);
    let list = json!([
        {"destination": "/race/deep/bind", "source": source.path(), "options": ["bind"]},
        {"destination": "/race/deep", "type": "tmpfs"},
    ]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let path = |name: &str| root.join(name);
            let mut i = 0;
            while !stop.load(Ordering::Relaxed) {
                let link = path(&format!("link{}", i % links.len()));
                let flags = RenameFlags::RENAME_EXCHANGE;
                for _ in 0..2 {
                    renameat2(AT_FDCWD, &path("race"), AT_FDCWD, &link, flags).expect("renameat2");
                }
                i += 1;
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..TIMES {
            let added = victim.change("add", &list);
            assert!(added.status <= 1, "{}", added.err);
            victim.change("remove", &list);
        }
    });
    assert_eq!(mounts(), before, "the machine's mounts are as they were");
    assert_eq!(fs::read_dir(canary.path().join("deep")).expect("it is there").count(), state);
    assert_eq!(fs::read_dir(canary.path()).expect("it is there").count(), 1);
}
