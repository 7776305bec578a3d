//! What a container of an image changed, and new images of it.

use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::image::Image;
use runtime_tests::runtime::{Runtime, Said};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A runtime with a store and a working folder of its own.
struct Place {
    runtime: Runtime,
    folder: Folder,
}

impl Place {
    /// With an image `app:1`.
    fn new(name: &str) -> Place {
        let place = Place { runtime: Runtime::new(), folder: Folder::new("commit") };
        let path = place.path("app.tar");
        app(name).docker_save(&path, &["app:1"]);
        place.ok(&format!("image load -q --store @store {}", path.display()));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Words that begin with @ are paths in the test's own folder; _ in a word is a blank.
    fn words(&self, words: &str) -> Vec<String> {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).display().to_string(),
            None => word.replace('_', " "),
        };
        words.split(' ').filter(|w| !w.is_empty()).map(word).collect()
    }

    fn say(&self, words: &str) -> Said {
        self.runtime.say(self.words(words))
    }

    fn ok(&self, words: &str) -> String {
        self.runtime.ok(self.words(words)).out
    }

    /// A container that waits; what it shows of its root.
    fn waiting(&self, id: &str, image: &str) -> PathBuf {
        self.waiting_with(id, image, "")
    }

    fn waiting_with(&self, id: &str, image: &str, options: &str) -> PathBuf {
        let words = format!("run -d --store @store {options} --name {id} {image} sleep 1000");
        let said = self.runtime.without_pipes(&mut self.runtime.command(self.words(&words)));
        assert_eq!((said.status, said.err.as_str()), (0, ""));
        PathBuf::from(format!("/proc/{}/root", self.runtime.pid(id)))
    }

    fn inspect(&self, image: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("image inspect --store @store {image}"))).unwrap()
    }

    fn is_sound(&self) {
        assert_eq!(self.ok("image fsck --store @store"), "the store is sound\n");
        for folder in ["store/tmp", "store/partials/sha256"] {
            // Folders that later runs take are no leftovers.
            let names = fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with("spare-")).collect();
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
    }
}

/// Busybox; folders and files to be changed; volumes; a working folder that is not there.
fn app(name: &str) -> Image {
    Image::new(name)
        .layer(|root| {
            for folder in
                ["etc", "var/lib/gone", "var/lib/anew/deep", "srv/keep", "opt/a.d", "opt/a", "usr/share"]
            {
                fs::create_dir_all(root.join(folder)).unwrap();
            }
            for file in [
                "etc/conf",
                "etc/touched",
                "etc/linked",
                "var/lib/gone/file",
                "var/lib/anew/old",
                "var/lib/anew/same",
                "var/lib/anew/deep/old",
                "opt/a/x",
                "opt/a.d/x",
                "opt/file",
                "usr/share/name",
            ] {
                fs::write(root.join(file), format!("{file} of the image\n")).unwrap();
            }
        })
        .layer(|root| {
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(root.join("data")).unwrap();
            fs::write(root.join("etc/second"), "second\n").unwrap();
            fs::write(root.join("data/seed"), "seed\n").unwrap();
        })
        .runs(json!({
            "Cmd": ["sh"],
            "Env": ["PATH=/bin", "A=1"],
            "WorkingDir": "/wd/here",
            "Volumes": { "/data": {}, "/srv/vol": {} },
            "Healthcheck": { "Test": ["NONE"] },
        }))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn find(root: &Path, format: &str) -> Vec<String> {
    let out = Command::new("find")
        .arg(root.join("."))
        .args(["-xdev", "-mindepth", "1", "-printf", format])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut lines: Vec<String> = String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect();
    lines.sort();
    lines
}

/// All of a tree but what rcrun puts into a container; of files with what is in them, their holes apart.
fn tree(root: &Path) -> Vec<String> {
    let own = ["proc", "sys", "dev", "data", "srv/vol", "etc/hosts", "etc/hostname"];
    let kept = |line: &&String| {
        let path = line.split('\t').next().unwrap();
        !own.iter()
            .any(|own| path == *own || path.strip_prefix(own).is_some_and(|rest| rest.starts_with('/')))
    };
    // A folder's time changes with what is made in it, a folder's links with what rcrun makes in it.
    let mut all = find(root, "%P\t%y\t%m\t%U:%G\t%l\n");
    all.extend(find(root, "%P\t%Y%T@\n").into_iter().filter(|line| !line.contains("\td")));
    let mut told: Vec<String> = all.iter().filter(kept).cloned().collect();
    for line in all.iter().filter(kept) {
        let path = line.split('\t').next().unwrap();
        let file = root.join(path);
        let data = fs::symlink_metadata(&file).unwrap();
        if data.is_file() {
            let sum = Command::new("sha256sum").stdin(fs::File::open(&file).unwrap()).output().unwrap();
            let sum = String::from_utf8(sum.stdout).unwrap();
            told.push(format!("{path}\tis {} {}", data.nlink(), sum.trim()));
        } else if data.rdev() != 0 {
            told.push(format!("{path}\tdevice {:x}", data.rdev()));
        }
        if !data.is_symlink() {
            let mut names = vec![0; 4096];
            let length = rustix::fs::listxattr(&file, &mut names[..]).unwrap();
            for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
                let mut value = vec![0; 4096];
                let length = rustix::fs::getxattr(&file, name, &mut value[..]).unwrap();
                told.push(format!("{path}\txattr {}={:?}", name.escape_ascii(), &value[..length]));
            }
        }
    }
    told.sort();
    told.dedup();
    told
}

/// The lines that only one of two trees has.
fn difference(one: &[String], other: &[String]) -> Vec<String> {
    let only = |sign: &str, one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|line| !other.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    [only("-", one, other), only("+", other, one)].concat()
}

/// Changes everything that can be changed in the root of a container.
fn change_everything(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::write(at("etc/conf"), "new\n").unwrap();
    fs::write(at("etc/added"), "added\n").unwrap();
    fs::remove_file(at("etc/second")).unwrap();
    // Opened for writing, and left as it was.
    let before = fs::metadata(at("etc/touched")).unwrap().modified().unwrap();
    fs::File::options().append(true).open(at("etc/touched")).unwrap().set_modified(before).unwrap();
    fs::hard_link(at("etc/linked"), at("etc/linked2")).unwrap();
    fs::remove_dir_all(at("var/lib/gone")).unwrap();
    // A folder in its own place: one file as it was, one gone, one new.
    let same = fs::metadata(at("var/lib/anew/same")).unwrap().modified().unwrap();
    fs::remove_dir_all(at("var/lib/anew")).unwrap();
    fs::create_dir(at("var/lib/anew")).unwrap();
    fs::write(at("var/lib/anew/new"), "new\n").unwrap();
    fs::write(at("var/lib/anew/same"), "var/lib/anew/same of the image\n").unwrap();
    fs::File::options().append(true).open(at("var/lib/anew/same")).unwrap().set_modified(same).unwrap();
    // A file where a folder was, a folder where a file was.
    fs::remove_dir_all(at("opt/a")).unwrap();
    fs::write(at("opt/a"), "a file\n").unwrap();
    fs::remove_file(at("opt/file")).unwrap();
    fs::create_dir(at("opt/file")).unwrap();
    fs::write(at("opt/file/in"), "in\n").unwrap();
    // The same size and time with other bytes.
    let before = fs::metadata(at("usr/share/name")).unwrap().modified().unwrap();
    fs::write(at("usr/share/name"), "usr/share/NAME of the image\n").unwrap();
    fs::File::options().append(true).open(at("usr/share/name")).unwrap().set_modified(before).unwrap();
    // Made and removed again.
    fs::write(at("opt/a.d/brief"), "").unwrap();
    fs::remove_file(at("opt/a.d/brief")).unwrap();
    // Volumes, which are no part of the image.
    fs::write(at("data/out"), "out\n").unwrap();
    fs::create_dir_all(at("srv/vol/deep")).unwrap();
    fs::hard_link(at("data/out"), at("srv/vol/deep/out")).unwrap();
    // The folder that rcrun made for the command, with something in it.
    fs::create_dir(at("wd/here/sub")).unwrap();

    fs::create_dir(at("kinds")).unwrap();
    symlink("/nowhere", at("kinds/link")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("kinds/fifo", FileType::Fifo, 0);
    node("kinds/device", FileType::CharacterDevice, rustix::fs::makedev(7, 300));
    let sparse = fs::File::create(at("kinds/sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (10 << 20) - 3).unwrap();
    fs::write(at("kinds/setuid"), "x").unwrap();
    std::os::unix::fs::chown(at("kinds/setuid"), Some(7), Some(8)).unwrap();
    fs::set_permissions(at("kinds/setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(at(name), key, value, XattrFlags::empty()).unwrap();
    };
    set("kinds/setuid", "user.note", b"\0\xff");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set("kinds/sparse", "security.capability", &capability);
    set("kinds", "trusted.mine", b"1");
    // What would mean something to overlayfs one layer down.
    set("kinds", "trusted.overlay.opaque", b"y");
    let long = "n".repeat(255);
    fs::create_dir(at("kinds").join(&long)).unwrap();
    fs::write(at("kinds").join(&long).join(&long), "long\n").unwrap();
}

const EVERYTHING: [&str; 31] = [
    "C /etc",
    "A /etc/added",
    "C /etc/conf",
    "C /etc/linked",
    "A /etc/linked2",
    "D /etc/second",
    "A /kinds",
    "A /kinds/device",
    "A /kinds/fifo",
    "A /kinds/link",
    "LONG",
    "LONGER",
    "A /kinds/setuid",
    "A /kinds/sparse",
    "C /opt",
    "C /opt/a",
    "C /opt/file",
    "A /opt/file/in",
    "C /usr",
    "C /usr/share",
    "C /usr/share/name",
    "C /var",
    "C /var/lib",
    "C /var/lib/anew",
    "D /var/lib/anew/deep",
    "A /var/lib/anew/new",
    "D /var/lib/anew/old",
    "D /var/lib/gone",
    "A /wd",
    "A /wd/here",
    "A /wd/here/sub",
];

fn everything() -> Vec<String> {
    let long = "n".repeat(255);
    let line = |line: &&str| match *line {
        "LONG" => format!("A /kinds/{long}"),
        "LONGER" => format!("A /kinds/{long}/{long}"),
        line => line.to_string(),
    };
    EVERYTHING.iter().filter(|line| !line.is_empty()).map(line).collect()
}

#[test]
fn diff_tells_what_the_container_changed_and_nothing_of_what_rcrun_put_there() {
    let place = Place::new("cmt-diff");
    fs::create_dir(place.path("host")).unwrap();
    fs::write(place.path("file"), "").unwrap();
    let mounts =
        format!("-v {}:/mnt/deep -v {}:/run/one", place.path("host").display(), place.path("file").display());
    let root = place.waiting_with("cmt-diff", "app:1", &mounts);
    assert_eq!(place.ok("image diff cmt-diff"), "");
    assert_eq!(place.ok("image diff -f json cmt-diff"), "[]\n");
    change_everything(&root);
    fs::write(root.join("mnt/deep/outside"), "").unwrap();
    let running = place.ok("image diff cmt-diff");
    assert_eq!(lines(&running), everything());
    place.ok("pause cmt-diff");
    assert_eq!(place.ok("image diff cmt-diff"), running);
    assert_eq!(place.runtime.status("cmt-diff"), "paused");
    let json: Value = serde_json::from_str(&place.ok("image diff --format json cmt-diff")).unwrap();
    let told: Vec<String> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {}", c["kind"].as_str().unwrap(), c["path"].as_str().unwrap()))
        .collect();
    assert_eq!(told, everything());
    place.ok("resume cmt-diff");
    place.ok("kill cmt-diff KILL");
    place.runtime.wait_for_end("cmt-diff");
    assert_eq!(place.runtime.status("cmt-diff"), "stopped");
    assert_eq!(place.ok("image diff cmt-diff"), running);
    // What rcrun made, and the container changed, is the container's.
    let root = place.waiting("cmt-made", "app:1");
    fs::set_permissions(root.join("wd/here"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(place.ok("image diff cmt-made"), "A /wd\nA /wd/here\n");
    // And what the container removed of it was never in the image.
    fs::remove_dir_all(root.join("wd")).unwrap();
    assert_eq!(place.ok("image diff cmt-made"), "");
}

#[test]
fn what_is_committed_is_the_tree_of_the_container_for_rcrun_skopeo_and_umoci() {
    let place = Place::new("cmt-tree");
    let root = place.waiting("cmt-tree", "app:1");
    change_everything(&root);
    let before = tree(&root);
    assert!(before.len() > 100, "{before:?}");
    let said = place.say("image commit cmt-tree app:2");
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("committed sha256:") && said.out.ends_with(" as app:2\n"), "{}", said.out);
    assert_eq!(place.runtime.status("cmt-tree"), "running");
    place.is_sound();

    place.ok("image unpack --flat --store @store app:2 @flat");
    // What overlayfs would read is not set where somebody may make a layer of the tree.
    let known = |line: &String| !line.contains("xattr trusted.overlay.");
    let plain: Vec<String> = before.iter().filter(|line| known(line)).cloned().collect();
    assert_eq!(difference(&plain, &tree(&place.path("flat/rootfs"))), Vec::<String>::new());
    place.waiting("cmt-again", "app:2");
    let again = PathBuf::from(format!("/proc/{}/root", place.runtime.pid("cmt-again")));
    assert_eq!(difference(&before, &tree(&again)), Vec::<String>::new());
    // The volume holds what the image has, and nothing of the container's.
    assert_eq!(fs::read_dir(again.join("data")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(again.join("srv/vol")).unwrap().count(), 0);

    place.ok("image save --store @store app:2 -o @saved.tar");
    let copied = Command::new("skopeo")
        .args(["copy", "--insecure-policy", "-q"])
        .arg(format!("oci-archive:{}", place.path("saved.tar").display()))
        .arg(format!("oci:{}:2", place.path("layout").display()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let unpacked = Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:2", place.path("layout").display()))
        .arg(place.path("umoci"))
        .output()
        .unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let by_umoci: Vec<String> = tree(&place.path("umoci/rootfs")).into_iter().filter(known).collect();
    assert_eq!(difference(&plain, &by_umoci), Vec::<String>::new());
}

#[test]
fn the_same_changes_give_the_same_digest() {
    let place = Place::new("cmt-same");
    let mut digests = Vec::new();
    for id in ["cmt-same-1", "cmt-same-2"] {
        let root = place.waiting(id, "app:1");
        change_everything(&root);
        let first = place.ok(&format!("image commit -q {id} {id}:a"));
        assert_eq!(place.ok(&format!("image commit -q {id} {id}:b")), first, "the same container");
        let mut command = place.runtime.command(place.words(&format!("image commit -q {id} {id}:c")));
        let output = command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
        let clamped = String::from_utf8(output.stdout).unwrap();
        assert_ne!(clamped, first);
        digests.push(clamped);
        let config = &place.inspect(&format!("{id}:c"))["config"];
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    }
    assert_eq!(digests[0], digests[1], "two containers that did the same");
    place.is_sound();
    // Of their own accord where what they wrote has fixed times.
    let mut digests = Vec::new();
    for id in ["cmt-same-3", "cmt-same-4"] {
        let root = place.waiting(id, "app:1");
        fs::write(root.join("opt/fixed"), "fixed").unwrap();
        for path in ["opt/fixed", "opt"] {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            fs::File::open(root.join(path)).unwrap().set_modified(time).unwrap();
        }
        digests.push(place.ok(&format!("image commit -q {id} {id}")));
        assert_eq!(place.inspect(id)["config"]["created"], "2001-09-09T01:46:40Z");
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_container_that_changed_nothing_gives_a_step_without_a_layer() {
    let place = Place::new("cmt-empty");
    let root = place.waiting("cmt-empty", "app:1");
    // Neither this nor what is in a volume is a change.
    fs::write(root.join("etc/brief"), "").unwrap();
    fs::remove_file(root.join("etc/brief")).unwrap();
    fs::write(root.join("data/x"), "").unwrap();
    place.ok("image commit -m nothing cmt-empty app:2");
    let [one, two] = ["app:1", "app:2"].map(|name| place.inspect(name));
    assert_eq!(one["layers"], two["layers"]);
    let history = two["config"]["history"].as_array().unwrap();
    assert_eq!(history.len(), one["config"]["history"].as_array().unwrap().len() + 1);
    let last = history.last().unwrap();
    assert_eq!((&last["empty_layer"], &last["comment"]), (&json!(true), &json!("nothing")));
    assert_eq!(two["config"]["created"], one["config"]["created"]);
    assert_eq!(place.ok("run --store @store app:2 cat /etc/second"), "second\n");
    // Only the root is another.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).unwrap();
    place.ok("image commit cmt-empty app:3");
    assert_eq!(place.inspect("app:3")["layers"].as_array().unwrap().len(), 4);
    assert_eq!(place.ok("run --store @store app:3 stat -c %a /"), "711\n");
    place.is_sound();
}

#[test]
fn what_a_person_says_goes_into_the_configuration() {
    let place = Place::new("cmt-said");
    let root = place.waiting("cmt-said", "app:1");
    fs::write(root.join("opt/new"), "new\n").unwrap();
    place.ok(concat!(
        "image commit -a someone -m text -c CMD_[\"cat\",\"/opt/new\"] -c ENV_B=\"x_y\" -c WORKDIR_/opt --change USER_5:6 ",
        "-c LABEL_a=b -c EXPOSE_80 -c VOLUME_/opt/vol -c STOPSIGNAL_SIGINT cmt-said app:2"
    ));
    let config = place.inspect("app:2")["config"].clone();
    let run = &config["config"];
    for (key, value) in [
        ("Cmd", json!(["cat", "/opt/new"])),
        ("Env", json!(["PATH=/bin", "A=1", "B=x y"])),
        ("WorkingDir", json!("/opt")),
        ("User", json!("5:6")),
        ("Labels", json!({ "a": "b" })),
        ("ExposedPorts", json!({ "80/tcp": {} })),
        ("Volumes", json!({ "/data": {}, "/srv/vol": {}, "/opt/vol": {} })),
        ("StopSignal", json!("SIGINT")),
        ("Healthcheck", json!({ "Test": ["NONE"] })),
    ] {
        assert_eq!(run[key], value, "{key}");
    }
    assert_eq!(config["author"], "someone");
    let last = config["history"].as_array().unwrap().last().unwrap();
    for (key, value) in [("author", "someone"), ("comment", "text"), ("created_by", "sleep 1000")] {
        assert_eq!(last[key], value);
    }
    assert_eq!(place.ok("run --store @store app:2"), "new\n");
    assert_eq!(place.ok("run --store @store --entrypoint sh app:2 -c pwd;id_-u"), "/opt\n5\n");
    // A commit of a commit; the name goes on to the newest.
    let root = place.waiting("cmt-more", "app:2");
    fs::remove_file(root.join("opt/new")).unwrap();
    place.ok("image commit cmt-more app:2");
    assert_eq!(place.inspect("app:2")["layers"].as_array().unwrap().len(), 5);
    assert_eq!(place.say("run --store @store app:2").status, 1);
    place.is_sound();
}

#[test]
fn what_cannot_be_committed_is_told_and_nothing_is_made() {
    let place = Place::new("cmt-refused");
    let bundle = Bundle::new("cmt-bundle", &["sleep", "1000"]);
    place.runtime.created(&bundle, "cmt-bundle");
    place.waiting("cmt-refused", "app:1");
    let names = place.ok("image list --store @store");
    for (words, why) in [
        ("image diff cmt-bundle", "diff cmt-bundle: the container was made from a bundle"),
        ("image commit cmt-bundle x", "commit cmt-bundle: the container was made from a bundle"),
        ("image diff cmt-nobody", "diff cmt-nobody: container does not exist"),
        ("image commit cmt-nobody x", "commit cmt-nobody: container does not exist"),
        ("image commit cmt-refused UPPER", "UPPER"),
        (
            "image commit cmt-refused -c RUN_ls x",
            "commit: --change \"RUN ls\": \"RUN\" cannot be changed; CMD, ENTRYPOINT",
        ),
        ("image commit cmt-refused --pause=maybe x", "--pause: \"maybe\" is not one of true, false"),
        ("image commit cmt-refused", "an argument is missing: a name"),
    ] {
        let said = place.say(words);
        assert_eq!((said.status, said.out.as_str()), (1, ""), "{words}");
        assert!(said.err.contains(why) && said.err.lines().count() == 1, "{words}: {}", said.err);
    }
    let mut command = place.runtime.command(place.words("image commit cmt-refused x"));
    let output = command.env("SOURCE_DATE_EPOCH", "soon").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("SOURCE_DATE_EPOCH: \"soon\" is no number of seconds since 1970"), "{said}");
    // A name that means something else in a layer.
    let root = PathBuf::from(format!("/proc/{}/root", place.runtime.pid("cmt-refused")));
    fs::write(root.join("opt/.wh.x"), "").unwrap();
    let said = place.say("image commit cmt-refused x");
    assert!(said.err.contains("opt/.wh.x: the name \".wh.x\" means a whiteout in a layer"), "{}", said.err);
    assert_eq!(place.runtime.status("cmt-refused"), "running");
    assert_eq!(place.ok("image list --store @store"), names);
    place.is_sound();
}

#[test]
fn sockets_are_left_out_and_told() {
    let place = Place::new("cmt-socket");
    let root = place.waiting("cmt-socket", "app:1");
    // A path that bind(2) takes.
    let short = place.path("s");
    symlink(&root, &short).unwrap();
    let _socket = UnixListener::bind(short.join("opt/socket")).unwrap();
    let said = place.say("image commit cmt-socket app:2");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("opt/socket: sockets are left out: a layer holds none"), "{}", said.err);
    assert_eq!(place.ok("run --store @store app:2 ls /opt"), "a\na.d\nfile\n");
}

#[test]
fn a_container_that_is_paused_stays_so_and_one_that_ended_is_committed_too() {
    let place = Place::new("cmt-states");
    let root = place.waiting("cmt-states", "app:1");
    fs::write(root.join("opt/new"), "new\n").unwrap();
    let running = place.ok("image commit -q cmt-states app:2");
    assert_eq!(place.runtime.status("cmt-states"), "running");
    assert_eq!(place.ok("image commit -q --pause=false cmt-states app:2"), running);
    place.ok("pause cmt-states");
    assert_eq!(place.ok("image commit -q cmt-states app:2"), running);
    assert_eq!(place.runtime.status("cmt-states"), "paused");
    place.ok("resume cmt-states");
    place.ok("kill cmt-states KILL");
    place.runtime.wait_for_end("cmt-states");
    assert_eq!(place.ok("image commit -q cmt-states app:2"), running);
    place.ok("delete cmt-states");
    // The layers of a deleted container's image stay with the new one.
    place.ok("image remove --store @store app:1");
    place.ok("image prune --store @store");
    assert_eq!(place.ok("run --store @store app:2 cat /opt/new /etc/second"), "new\nsecond\n");
    // Kept in the foreground.
    let said = place.runtime.say(
        place
            .words("run --store @store --keep --name cmt-kept app:2 sh -c")
            .into_iter()
            .chain(["rm /opt/new".into()]),
    );
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert_eq!(place.ok("image diff cmt-kept"), "C /opt\nD /opt/new\n");
    place.ok("image commit cmt-kept app:3");
    assert_eq!(place.say("run --store @store app:3 cat /opt/new").status, 1);
    place.is_sound();
}

/// How long a commit of it takes.
fn slow(place: &Place, id: &str) -> Duration {
    let root = place.waiting(id, "app:1");
    let out = fs::File::create(root.join("opt/random")).unwrap();
    let status = Command::new("head").args(["-c", "12000000", "/dev/urandom"]).stdout(out).status().unwrap();
    assert!(status.success());
    let begin = Instant::now();
    place.ok(&format!("image commit -q {id} slow:1"));
    begin.elapsed()
}

#[test]
fn a_commit_that_is_killed_leaves_a_sound_store_and_a_container_that_goes_on() {
    let place = Place::new("cmt-killed");
    let whole = slow(&place, "cmt-killed");
    let digest = place.inspect("slow:1")["digest"].clone();
    let mut paused = 0;
    for step in 1..=12 {
        let words = place.words(&format!("image commit cmt-killed killed:{step}"));
        let mut child =
            place.runtime.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Some moment of it: there is nothing to wait for.
        std::thread::sleep(whole * step / 13);
        child.kill().unwrap();
        let killed = child.wait().unwrap().code().is_none();
        if place.runtime.status("cmt-killed") == "paused" {
            paused += 1;
            place.ok("resume cmt-killed");
        }
        assert_eq!(place.runtime.status("cmt-killed"), "running");
        assert_eq!(place.ok("exec cmt-killed echo on"), "on\n");
        // It has its name, and is complete, or it has none.
        if place.ok("image list --store @store -q").contains(&format!("killed:{step}\n")) {
            assert_eq!(place.inspect(&format!("killed:{step}"))["digest"], digest, "step {step}");
        } else {
            assert!(killed, "step {step}");
        }
        let sound = place.ok("image fsck --store @store");
        assert_eq!(sound, "the store is sound\n");
    }
    assert!(paused > 0, "none of the kills came while it was paused");
    let root = PathBuf::from(format!("/proc/{}/root", place.runtime.pid("cmt-killed")));
    let sum = |path: &Path| fs::read(path).unwrap();
    place.ok("image commit cmt-killed app:2");
    place.ok("image prune --store @store");
    place.is_sound();
    place.ok("image unpack --flat --store @store app:2 @flat");
    assert!(sum(&place.path("flat/rootfs/opt/random")) == sum(&root.join("opt/random")));
}

#[test]
fn a_commit_that_is_asked_to_end_lets_the_container_go_on() {
    let place = Place::new("cmt-asked");
    let whole = slow(&place, "cmt-asked");
    let words = place.words("image commit cmt-asked asked:1");
    let child = place.runtime.command(words).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(whole / 4);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert_eq!(place.runtime.status("cmt-asked"), "running");
    assert!(!place.ok("image list --store @store -q").contains("asked:1"));
    place.is_sound();
}

#[test]
fn volumes_below_a_mount_hold_what_the_image_has_and_are_no_part_of_a_new_image() {
    let place = Place::new("cmt-nested");
    fs::create_dir_all(place.path("host/a.d")).unwrap();
    fs::write(place.path("host/a.d/hidden"), "").unwrap();
    fs::write(place.path("host/mine"), "mine\n").unwrap();
    // A volume of the image, one of a person, and a mount in that.
    let options =
        format!("-v {}:/opt -v /opt/a.d -v {0}:/opt/a.d/in -v /opt/fresh", place.path("host").display());
    let root = place.waiting_with("cmt-nested", "app:1", &options);
    assert_eq!(place.ok("exec cmt-nested ls /opt /opt/a.d"), "/opt:\na.d\nfresh\nmine\n\n/opt/a.d:\nin\nx\n");
    assert_eq!(place.ok("exec cmt-nested cat /opt/a.d/x /opt/a.d/in/mine"), "opt/a.d/x of the image\nmine\n");
    place.ok("exec cmt-nested sh -c echo_x>/opt/fresh/x;echo_x>/opt/a.d/x;echo_x>/data/x");
    assert_eq!(
        fs::read_dir(place.path("host/a.d")).unwrap().count(),
        1,
        "it lies over the folder of the host"
    );
    assert_eq!(fs::read_dir(place.path("host/fresh")).unwrap().count(), 0);
    assert_eq!(place.ok("image diff cmt-nested"), "");
    fs::write(root.join("etc/new"), "").unwrap();
    place.ok("image commit cmt-nested app:2");
    assert_eq!(
        place.ok("run --store @store app:2 ls /opt /opt/a.d"),
        "/opt:\na\na.d\nfile\n\n/opt/a.d:\nx\n"
    );
    // An image's volume on a mount is overruled; in it, it is a folder of its own.
    let said = place.runtime.ok(place.words(&format!(
        "run --store @store -v {}:/srv app:1 ls /srv /srv/vol",
        place.path("host").display()
    )));
    assert_eq!(said.out, "/srv:\na.d\nfresh\nmine\nvol\n\n/srv/vol:\n");
    place.ok("delete --force cmt-nested");
    assert!(!place.path("store/containers/cmt-nested").exists());
    place.is_sound();
}
