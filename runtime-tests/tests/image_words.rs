//! What people who know Docker type, and what goes wrong with it: each in words and with the status that they expect.

use runtime_tests::bundle::Folder;
use runtime_tests::image::Image;
use runtime_tests::runtime::{Runtime, Said};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A runtime with a store of its own at a place with a name that no mount option takes.
struct Images {
    runtime: Runtime,
    folder: Folder,
}

impl Images {
    fn new() -> Images {
        Images { runtime: Runtime::new(), folder: Folder::new("words") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Says `verb`, and `words` after the option for the store.
    fn say(&self, verb: &[&str], words: &[&str]) -> Said {
        let all = verb.iter().map(OsString::from).chain(["--store".into(), self.path("a,b\\c").into()]);
        self.runtime.say(all.chain(words.iter().map(OsString::from)))
    }

    fn run(&self, words: &[&str]) -> Said {
        self.say(&["run"], words)
    }

    /// Loads `image` as `box`.
    fn load(&self, image: &Image) {
        let path = self.path("loaded.tar");
        image.docker_save(&path, &["box:latest"]);
        let said = self.say(&["image", "load"], &["-q", path.to_str().unwrap()]);
        assert_eq!((said.status, said.err.as_str()), (0, ""));
    }
}

fn shell(name: &str) -> Image {
    Image::new(name).runs(json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] }))
}

#[test]
fn a_command_that_cannot_be_executed_has_the_status_that_a_shell_gives_it() {
    let images = Images::new();
    images.load(&shell("words-status").layer(|root| {
        fs::create_dir(root.join("app")).unwrap();
        fs::write(root.join("app/text"), "not a program").unwrap();
    }));
    for (command, status, why) in [
        ("nowhere", 127, "executable file not found in $PATH"),
        ("/bin/nowhere", 127, "no such file or directory"),
        ("/app/text", 126, "permission denied"),
        ("/app", 126, "is a directory: permission denied"),
    ] {
        let said = images.run(&["box", command]);
        assert_eq!((said.status, said.err.contains(why)), (status, true), "{command}: {}", said.err);
    }
    // What rcrun itself refuses is neither.
    assert_eq!(images.run(&["--name", "a/b", "box"]).status, 1);
    assert_eq!(images.run(&["box", "sh", "-c", "exit 3"]).status, 3);
}

#[test]
fn a_bundle_whose_command_is_not_there_has_runcs_status() {
    let runtime = Runtime::new();
    let bundle = runtime_tests::bundle::Bundle::new("words-bundle", &["/bin/nowhere"]);
    let said = runtime.say(["run", "--bundle", bundle.path().to_str().unwrap(), "words-bundle"]);
    assert_eq!(said.status, 1, "{}", said.err);
}

#[test]
fn options_of_docker_do_what_they_do_there() {
    let images = Images::new();
    images.load(&shell("words-options"));
    let file = images.path("env");
    fs::write(&file, "# what it says\nA=1\n\n  B=two words # no remark\nHOME\nC=file\n").unwrap();
    let file = file.to_str().unwrap();
    let said = images.run(&["--env-file", file, "-e", "C=said", "box", "sh", "-c", "echo $A,$B,$C"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("1,two words # no remark,said\n", ""));
    fs::write(file, "A=1\nB C=2\n").unwrap();
    let said = images.run(&["--env-file", file, "box"]);
    assert!(said.status == 1 && said.err.contains("line 2: is not NAME=VALUE"), "{}", said.err);
    let said = images.run(&["--network", "none", "box", "ls", "/sys/class/net"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("lo\n", ""));
    let said = images.run(&["--network", "bridge", "box"]);
    assert!(said.err.contains("there are host and none"), "{}", said.err);
    let mounts = "grep ' /scratch ' /proc/mounts; cp /bin/busybox /scratch/true; /scratch/true";
    let said = images.run(&["--tmpfs", "/scratch:size=8m", "box", "sh", "-c", mounts]);
    assert!(said.out.contains("tmpfs /scratch tmpfs rw,nosuid,nodev,noexec"), "{}{}", said.out, said.err);
    assert!(said.out.contains("size=8192k") && said.status == 126, "{}{}", said.out, said.err);
    let said = images.run(&["--tmpfs", "/scratch:exec", "box", "sh", "-c", mounts]);
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    let said = images.run(&["--tmpfs", "/x", "-v", "/tmp:/x", "box"]);
    assert!(said.status == 1 && said.err.contains("two are to be mounted on /x"), "{}", said.err);
    // As short as it is there: it is read as --memory, which has its own tests.
    let said = images.run(&["-m", "much", "box"]);
    assert!(said.status == 1 && said.err.contains("--memory"), "{}", said.err);
}

#[test]
fn a_name_that_is_too_long_is_refused_before_anything_is_made() {
    let images = Images::new();
    images.load(&shell("words-name"));
    for length in [254, 255] {
        let said = images.run(&["--name", &"x".repeat(length), "no-such-image"]);
        let why = format!("--name: has {length} characters, and a container of an image at most 253");
        assert!(said.status == 1 && said.err.contains(&why), "{}", said.err);
    }
    let name = format!("words-name-{}", "x".repeat(242));
    let said = images.run(&["--name", &name, "box", "true"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
}

#[test]
fn an_image_of_data_is_unpacked_and_its_bundle_would_run_a_shell() {
    let images = Images::new();
    images.load(&Image::new("words-data").runs(json!({})));
    let bundle = images.path("bundle");
    let said = images.say(&["image", "unpack"], &["--flat", "box", bundle.to_str().unwrap()]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    let said = images.run(&["box"]);
    assert!(said.status == 1 && said.err.contains("no command is given"), "{}", said.err);
}

#[test]
fn of_two_images_with_one_name_the_second_is_told() {
    let images = Images::new();
    let [one, two] = ["one", "two"].map(|name| images.path(name));
    shell("words-twin").layout(&one, "app:1");
    shell("words-twin").layer(|root| fs::write(root.join("more"), "").unwrap()).layout(&two, "app:1");
    let second: Value = serde_json::from_slice(&fs::read(two.join("index.json")).unwrap()).unwrap();
    change_index(&one, |entries| entries.as_array_mut().unwrap().push(second["manifests"][0].clone()));
    for blob in fs::read_dir(two.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), one.join("blobs/sha256").join(blob.file_name())).unwrap();
    }
    let said = images.say(&["image", "load"], &[one.to_str().unwrap()]);
    assert_eq!((said.status, said.out.lines().count()), (0, 1), "{}{}", said.out, said.err);
    let digest = second["manifests"][0]["digest"].as_str().unwrap();
    assert!(
        said.err.contains("another image of app:1 for linux/") && said.err.contains(digest),
        "{}",
        said.err
    );
}

/// The only manifest of a layout, with what a tool adds to it.
fn change_index(layout: &Path, change: impl FnOnce(&mut Value)) {
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut index["manifests"]);
    fs::write(path, index.to_string()).unwrap();
}

#[test]
fn an_image_that_comes_without_a_name_is_told_how_to_get_one() {
    let images = Images::new();
    let layout = images.path("layout");
    shell("words-nameless").layout(&layout, "latest");
    let said = images.say(&["image", "load"], &[layout.to_str().unwrap()]);
    assert!(said.out.contains(" without a name: `rcrun image tag sha256:"), "{}{}", said.out, said.err);
}

#[test]
fn of_a_file_with_images_for_several_platforms_those_that_fit_are_loaded() {
    let images = Images::new();
    let layout = images.path("layout");
    shell("words-platform").layout(&layout, "app:here");
    let platform = |architecture: &str| json!({ "os": "linux", "architecture": architecture });
    change_index(&layout, |entries| {
        let mut there = entries[0].clone();
        there["annotations"]["org.opencontainers.image.ref.name"] = json!("app:there");
        there["platform"] = platform("riscv64");
        // Another manifest, so that it is not the same image.
        there["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
        entries.as_array_mut().unwrap().push(there);
    });
    let tar = images.path("all.tar");
    let status = Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&tar).arg(".").status();
    assert!(status.unwrap().success());
    let said = images.say(&["image", "load"], &[tar.to_str().unwrap()]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.contains(" as app:here") && said.out.lines().count() == 1, "{}", said.out);
    assert!(said.err.contains("warning: not loaded: app:there: "), "{}", said.err);
    // Alone, it is a failure.
    change_index(&layout, |entries| drop(entries.as_array_mut().unwrap().remove(0)));
    let said = images.say(&["image", "load"], &[layout.to_str().unwrap()]);
    assert!(said.status == 1 && said.err.contains("riscv64"), "{}", said.err);
}
