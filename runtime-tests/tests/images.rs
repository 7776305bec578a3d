//! Images from outside: into the store, out of it, and run.

use runtime_tests::bundle::Folder;
use runtime_tests::image::Image;
use runtime_tests::runtime::{Lines, Runtime, Said};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A runtime with a store of its own.
struct Images {
    runtime: Runtime,
    folder: Folder,
}

impl Images {
    fn new() -> Images {
        Images { runtime: Runtime::new(), folder: Folder::new("images") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    fn words(&self, verb: &str, words: &str) -> Vec<OsString> {
        let mut all: Vec<OsString> = verb.split(' ').map(OsString::from).collect();
        all.push("--store".into());
        all.push(self.store().into());
        // Words that need a folder of the test's own begin with @.
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).into(),
            None => OsString::from(word),
        };
        all.extend(words.split(' ').filter(|w| !w.is_empty()).map(word));
        all
    }

    fn image(&self, verb: &str, words: &str) -> Said {
        self.runtime.say(self.words(&format!("image {verb}"), words))
    }

    fn image_ok(&self, verb: &str, words: &str) -> String {
        self.runtime.ok(self.words(&format!("image {verb}"), words)).out
    }

    fn run(&self, words: &str) -> Said {
        self.runtime.say(self.words("run", words))
    }

    /// `run` with `script` as the last word.
    fn script(&self, words: &str, script: &str) -> Said {
        let mut all = self.words("run", words);
        all.push(script.into());
        self.runtime.say(all)
    }

    /// Loads `image` as `docker save` writes it, under `name`.
    fn load(&self, image: &Image, name: &str) {
        let path = self.path("loaded.tar");
        // docker save always writes the tag.
        let name = if name.contains(':') { name.to_string() } else { format!("{name}:latest") };
        image.docker_save(&path, &[&name]);
        self.image_ok("load", "-q @loaded.tar");
    }

    /// Nothing of containers is left: no state, no folder, no lease, no mount; nor what a run leaves to the next command.
    fn is_clean(&self) {
        if self.store().exists() {
            self.image_ok("list", "");
        }
        for folder in
            [self.runtime.root().to_path_buf(), self.store().join("containers"), self.store().join("leases")]
        {
            assert_eq!(names(&folder), Vec::<String>::new(), "{}", folder.display());
        }
        let (spares, others): (Vec<_>, Vec<_>) =
            names(&self.store().join("tmp")).into_iter().partition(|name| name.starts_with("spare-"));
        assert_eq!(others, Vec::<String>::new());
        // Several who look at the same time may each make the last.
        assert!(spares.len() < 16, "{spares:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.folder.path().to_str().unwrap()), "{mounts}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Two layers: busybox, and a program that tells how it was started, in place of a file that was in /tmp.
fn teller(name: &str) -> Image {
    Image::new(name)
        .layer(|root| {
            fs::create_dir_all(root.join("tmp")).unwrap();
            fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
            fs::write(root.join("tmp/hidden"), [0; 3000]).unwrap();
        })
        .layer(|root| {
            fs::create_dir_all(root.join("app")).unwrap();
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(root.join("tmp")).unwrap();
            fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
            fs::write(root.join("tmp/.wh.hidden"), "").unwrap();
            script(&root.join("app/tell"), "#!/bin/sh\necho \"args $*\"\necho \"in $(pwd) as $(id -u):$(id -g) $(id -G)\"\necho \"A=$A B=$B HOME=$HOME\"\n");
            fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\naudio:x:29:web\n").unwrap();
        })
        .runs(json!({
            "Entrypoint": ["/app/tell"],
            "Cmd": ["one", "two"],
            "Env": ["A=image", "PATH=/bin"],
            "WorkingDir": "/app",
            "User": "web",
            "Volumes": { "/data": {} },
        }))
}

#[test]
fn what_docker_saved_runs_as_its_configuration_says_and_leaves_nothing() {
    let images = Images::new();
    teller("img-docker").docker_save(&images.path("app.tar"), &["app:1"]);
    let told = "args one two\nin /app as 33:33 33 29\nA=image B= HOME=/srv\n";
    for _ in 0..2 {
        let said = images.run("@app.tar");
        assert_eq!((said.out.as_str(), said.err.as_str(), said.status), (told, "", 0));
        images.is_clean();
    }
    // A run gives no name to what it reads.
    assert_eq!(images.image_ok("list", "-q").lines().filter(|line| line.starts_with("sha256:")).count(), 1);
}

#[test]
fn a_layout_runs_from_its_folder_and_its_tar_by_name_and_alone() {
    let images = Images::new();
    teller("img-layout").layout(&images.path("layout"), "1");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(images.path("layout")).arg("-czf").arg(images.path("app.tgz")).arg(".");
    assert!(tar.status().unwrap().success());
    for words in ["@layout", "@layout:1", "@app.tgz", "@app.tgz:1"] {
        let said = images.run(words);
        assert_eq!((said.out.lines().next(), said.err.as_str()), (Some("args one two"), ""), "{words}");
    }
    let said = images.run("@layout:2");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("has no image \"2\"; it has 1"), "{}", said.err);
    images.is_clean();
}

#[test]
fn what_a_person_says_goes_before_what_the_image_says() {
    let images = Images::new();
    images.load(&teller("img-options"), "app:1");
    let word = std::env::var("PATH").unwrap();
    for (words, told) in [
        ("app:1 three", "args three\nin /app as 33:33 33 29\nA=image B= HOME=/srv\n".to_string()),
        ("app:1 -x --rm", "args -x --rm\nin /app as 33:33 33 29\nA=image B= HOME=/srv\n".into()),
        ("-e A=person -e B=2 app:1", "args one two\nin /app as 33:33 33 29\nA=person B=2 HOME=/srv\n".into()),
        ("-u 7 app:1", "args one two\nin /app as 7:0 0\nA=image B= HOME=/\n".into()),
        ("-u 7:8 app:1", "args one two\nin /app as 7:8 8\nA=image B= HOME=/\n".into()),
        ("-u root:audio app:1", "args one two\nin /app as 0:29 29\nA=image B= HOME=/root\n".into()),
        ("-w /made/here app:1", "args one two\nin /made/here as 33:33 33 29\nA=image B= HOME=/srv\n".into()),
        ("--entrypoint /bin/echo app:1", "\n".into()),
        ("--entrypoint /bin/echo app:1 x y", "x y\n".into()),
        ("--entrypoint= app:1 /bin/echo x", "x\n".into()),
        ("--hostname box --entrypoint hostname app:1", "box\n".into()),
        ("--entrypoint cat app:1 /proc/sys/kernel/hostname --name", "".into()),
        ("-e PATH --entrypoint /bin/sh app:1 -c /bin/env|/bin/grep\t^PATH", format!("PATH={word}\n")),
        ("--net none --entrypoint ls app:1 /sys/class/net", "lo\n".into()),
    ] {
        let said = images
            .runtime
            .say(images.words("run", words).into_iter().map(|w| w.to_string_lossy().replace('\t', " ")));
        if told.is_empty() {
            assert!(said.err.contains("--name"), "cat is told of --name: {}{}", said.out, said.err);
        } else {
            assert_eq!((said.out, said.err.as_str()), (told, ""), "{words}");
        }
    }
    fs::write(images.path("text"), "no image").unwrap();
    for (words, why) in [
        ("./nowhere.tar", "run: ./nowhere.tar: there is no such file or folder"),
        ("@text", "/text: is a file, but no image: one is a tar"),
        ("-u nobody app:1", "--user: user \"nobody\" is not in the root's /etc/passwd"),
        ("-e =x app:1", "--env \"=x\": has no name"),
        ("-v nowhere:/x app:1", "rcrun keeps no named volumes"),
        (
            "-v /nowhere:/x app:1",
            "--volume \"/nowhere:/x\": \"/nowhere\": no such file or directory: make it first",
        ),
        ("-v /x app:1 --entrypoint", ""),
        ("--memory lots app:1", "--memory \"lots\": not an amount of memory"),
        ("--net bridge app:1", "rcrun makes no networks; there are host and none"),
        ("--pids-limit -2 app:1", "--pids-limit: \"-2\" is no number of processes"),
        ("--rm --keep app:1", "--rm and --keep"),
        ("app:2", "app:2: no image of that name is in the store"),
        ("sha256:00 app:1", "sha256:00"),
    ] {
        let said = images.run(words);
        if why.is_empty() {
            assert_eq!(said.out.lines().next(), Some("args --entrypoint"), "{}", said.err);
            continue;
        }
        assert_eq!((said.status, said.err.contains(why)), (1, true), "{words}: {}", said.err);
    }
    images.is_clean();
}

#[test]
fn the_exit_status_is_the_commands() {
    let images = Images::new();
    images.load(&Image::new("img-status").runs(json!({ "Cmd": ["/bin/sh"] })), "box");
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255)] {
        assert_eq!(images.script("--entrypoint sh box -c", script).status, status, "{script}");
    }
    images.is_clean();
}

#[test]
fn standard_input_is_read_with_interactive_and_not_without() {
    let images = Images::new();
    images.load(&Image::new("img-stdin").runs(json!({ "Cmd": ["cat"], "Env": ["PATH=/bin"] })), "box");
    for (words, told) in [("-i box", "words\n"), ("box", "")] {
        let mut command = images.runtime.command(images.words("run", words));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It may be gone before it reads.
        let _ = child.stdin.take().unwrap().write_all(b"words\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), told, "{words}");
    }
    images.is_clean();
}

#[test]
fn a_container_writes_over_the_layers_and_never_into_them() {
    let images = Images::new();
    images.load(&teller("img-write"), "app");
    let change = "echo new > /app/tell; rm /etc/group; mkdir /added; echo x > /data/file; ls -a /tmp";
    let said = images.script("--keep --name img-write-kept -u 0 --entrypoint sh app -c", change);
    assert_eq!((said.out.as_str(), said.err.as_str(), said.status), (".\n..\n", "", 0));
    let upper = images.store().join("containers/img-write-kept/upper");
    assert_eq!(fs::read_to_string(upper.join("app/tell")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(upper.join("data/file")).unwrap(), "x\n");
    assert_eq!(fs::symlink_metadata(upper.join("etc/group")).unwrap().rdev(), 0);
    // The next one begins anew.
    assert_eq!(images.run("app").out.lines().next(), Some("args one two"));
    assert_eq!(images.runtime.status("img-write-kept"), "stopped");
    // While it is there its image stays.
    let said = images.image("remove", "app");
    assert!(said.err.contains("is in use by container img-write-kept"), "{}", said.err);
    let said = images.run("--name img-write-kept app");
    assert!(said.err.contains("already exists"), "{}", said.err);
    images.runtime.ok(["delete", "img-write-kept"]);
    images.is_clean();
    assert_eq!(images.image_ok("fsck", ""), "the store is sound\n");
    images.image_ok("remove", "app");
    images.image_ok("prune", "");
    for folder in ["blobs/sha256", "layers/sha256", "chains/sha256", "images/sha256", "names"] {
        assert_eq!(names(&images.store().join(folder)), Vec::<String>::new(), "{folder}");
    }
}

#[test]
fn the_second_run_reads_and_unpacks_nothing() {
    let images = Images::new();
    teller("img-second").docker_save(&images.path("app.tar"), &["app:1"]);
    images.runtime.ok(images.words("run", "@app.tar"));
    let inodes = || -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for folder in ["blobs/sha256", "layers/sha256", "chains/sha256"] {
            let folder = images.store().join(folder);
            all.extend(names(&folder).into_iter().map(|name| {
                let inode = fs::symlink_metadata(folder.join(&name)).unwrap().ino();
                (name, inode)
            }));
        }
        all
    };
    let before = inodes();
    assert_eq!(before.len(), 3 + 2 + 3, "three layers, two documents, three trees");
    // In the middle of a layer: who reads it notices.
    let path = images.path("app.tar");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    images.runtime.ok(images.words("run", "@app.tar"));
    assert_eq!(inodes(), before);
}

#[test]
fn volumes_limits_and_a_root_that_is_read_only() {
    let images = Images::new();
    images.load(&teller("img-volume"), "app");
    fs::create_dir(images.path("host")).unwrap();
    fs::write(images.path("host/in"), "from the host\n").unwrap();
    let mount = format!("-v {}:/mnt", images.path("host").display());
    let said =
        images.script(&format!("{mount} -u 0 --entrypoint sh app -c"), "cat /mnt/in; echo out > /mnt/out");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("from the host\n", ""));
    assert_eq!(fs::read_to_string(images.path("host/out")).unwrap(), "out\n");
    let said = images.script(&format!("{mount}:ro -u 0 --entrypoint sh app -c"), "echo again > /mnt/out");
    assert!(said.err.contains("Read-only file system"), "{}", said.err);
    // The image's volume can be written to, also where the root cannot.
    let said = images
        .script("--read-only -u 0 --entrypoint sh app -c", "echo x > /data/x && cat /data/x; echo x > /x");
    assert_eq!(said.out, "x\n");
    assert!(said.err.contains("/x: Read-only file system"), "{}", said.err);
    images.is_clean();
}

#[test]
fn in_the_background_a_container_needs_nobody_and_is_deleted_with_all_it_wrote() {
    let images = Images::new();
    images.load(
        &Image::new("img-detach").runs(json!({ "Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"] })),
        "box",
    );
    let mut command = images.runtime.command(images.words("run", "-d --name img-detached box"));
    let said = images.runtime.without_pipes(&mut command);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "img-detached\n", ""));
    assert_eq!(images.runtime.status("img-detached"), "running");
    let said =
        images.runtime.ok(["exec", "img-detached", "sh", "-c", "echo x > /tmp/x; cat /etc/hostname /tmp/x"]);
    assert_eq!(said.out, "img-detached\nx\n");
    assert!(images.store().join("containers/img-detached/upper/tmp/x").exists());
    // Pruned while it runs: it runs on.
    images.image_ok("prune", "");
    assert_eq!(images.runtime.ok(["exec", "img-detached", "cat", "/tmp/x"]).out, "x\n");
    let said = images.image("remove", "box");
    assert!(said.err.contains("is in use by container img-detached"), "{}", said.err);
    images.runtime.ok(["delete", "--force", "img-detached"]);
    images.is_clean();
    // Without a name it tells the one it made.
    let mut command = images.runtime.command(images.words("run", "-d box"));
    let said = images.runtime.without_pipes(&mut command);
    let id = said.out.trim().to_string();
    assert!(id.starts_with("box-"), "{id}");
    images.runtime.ok(["delete", "--force", &id]);
    images.is_clean();
}

#[test]
fn what_a_killed_run_left_goes_with_delete_force_and_prune_and_the_next_run() {
    let images = Images::new();
    images.load(&Image::new("img-crash").runs(json!({ "Cmd": ["true"], "Env": ["PATH=/bin"] })), "box");
    // As a run leaves it that is killed before the container has a state.
    let leave = || {
        let folder = images.store().join("containers/img-crashed");
        fs::create_dir_all(folder.join("upper/deep")).unwrap();
        folder
    };
    for clear in ["delete", "prune", "run"] {
        let folder = leave();
        match clear {
            "delete" => {
                images.runtime.ok(images.words("delete", "--force img-crashed"));
            }
            "prune" => {
                assert!(images.image_ok("prune", "").contains("1 container's folder"));
            }
            _ => {
                images.runtime.ok(images.words("run", "--name img-crashed box"));
            }
        }
        assert!(!folder.exists(), "{clear}");
        images.is_clean();
    }
    // One whose run was killed, and that runs on.
    let mut words = images.words("run", "--name img-orphan box sh -c");
    words.push("echo up; sleep 1000".into());
    let mut child = images.runtime.command(words).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(Lines::of(child.stdout.take().unwrap().into()).line(), "up");
    let upper = images.store().join("containers/img-orphan");
    child.kill().unwrap();
    child.wait().unwrap();
    images.image_ok("prune", "");
    assert!(upper.exists());
    images.runtime.ok(["delete", "--force", "img-orphan"]);
    images.is_clean();
}

#[test]
fn what_is_saved_is_what_was_loaded_to_the_byte() {
    let images = Images::new();
    teller("img-save").layout(&images.path("layout"), "app:1");
    images.image_ok("load", "--name app:1 --name other:2 @layout");
    images.image_ok("save", "app:1 -o @one.tar");
    images.image_ok("save", "app:1 -o @two.tar");
    assert_eq!(fs::read(images.path("one.tar")).unwrap(), fs::read(images.path("two.tar")).unwrap());
    let digest: Value = serde_json::from_str(&images.image_ok("list", "--format json")).unwrap();
    let fresh = Images::new();
    fs::copy(images.path("one.tar"), fresh.path("one.tar")).unwrap();
    fresh.image_ok("load", "@one.tar");
    let again: Value = serde_json::from_str(&fresh.image_ok("list", "--format json")).unwrap();
    assert_eq!(again[0]["digest"], digest[0]["digest"]);
    assert_eq!(again.as_array().unwrap().len(), 1);
    assert_eq!(fresh.image_ok("list", "-q"), "app:1\n");
    assert_eq!(fresh.run("app:1").out.lines().next(), Some("args one two"));
    // docker load reads manifest.json: a copy without the layout's files is such an archive.
    let stage = fresh.path("stage");
    fs::create_dir(&stage).unwrap();
    for command in [
        Command::new("tar").arg("-C").arg(&stage).arg("-xf").arg(fresh.path("one.tar")),
        Command::new("rm").arg(stage.join("oci-layout")).arg(stage.join("index.json")),
        Command::new("tar").arg("-C").arg(&stage).arg("-cf").arg(fresh.path("docker.tar")).arg("."),
    ] {
        assert!(command.status().unwrap().success());
    }
    assert_eq!(fresh.run("@docker.tar:app:1").out.lines().next(), Some("args one two"));
    fresh.is_clean();
}

#[test]
fn an_unpacked_bundle_runs_and_holds_its_layers() {
    let images = Images::new();
    images.load(&teller("img-unpack"), "app");
    images.image_ok("unpack", "--flat app @flat");
    assert_eq!(names(&images.path("flat")), ["config.json", "rootfs"]);
    assert!(!images.path("flat/rootfs/tmp/hidden").exists());
    let said = images.image("unpack", "app @flat");
    assert!(said.err.contains("is not empty"), "{}", said.err);
    let flat = images.path("flat").display().to_string();
    let said = images.runtime.say(["run", "--bundle", &flat, "img-flat"]);
    assert_eq!(said.out, "args one two\nin /app as 33:33 33 29\nA=image B= HOME=/srv\n", "{}", said.err);
    // An overlay is mounted: here, where nobody sees it.
    let unpack: Vec<String> =
        images.words("image unpack", "app @over").iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let rcrun = format!("{} --root {}", images.runtime.binary().display(), images.runtime.root().display());
    let over = images.path("over").display().to_string();
    let script = format!(
        "{rcrun} {} && {rcrun} run --bundle {over} img-over && echo x > {over}/rootfs/x",
        unpack.join(" ")
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told.lines().next(), Some("args one two"), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(images.path("over/upper/x")).unwrap(), "x\n");
    let said = images.image("remove", "app");
    assert!(said.err.contains("is in use by container bundle-"), "{}", said.err);
    fs::remove_dir_all(images.path("over")).unwrap();
    images.image_ok("prune", "");
    images.image_ok("remove", "app");
    images.is_clean();
}

#[test]
fn layers_are_told_as_a_tree_and_as_json() {
    let images = Images::new();
    images.load(&teller("img-layers"), "app:1");
    let text = images.image_ok("layers", "app:1");
    assert!(text.contains("layer 3 of 3"), "{text}");
    assert!(text.contains("   3.00 kB          -          -    3.00 kB  └── tmp/\n"), "{text}");
    assert!(text.contains("└── hidden\n"), "{text}");
    assert!(!images.image_ok("layers", "--depth 0 app:1").contains("tmp/"));
    let layers: Value = serde_json::from_str(&images.image_ok("layers", "--format json app:1")).unwrap();
    assert_eq!(layers[1]["tree"]["wasted"], json!({ "bytes": 3000, "files": 1 }));
    assert_eq!(layers[2]["tree"]["removed"], json!({ "bytes": 3000, "files": 1 }));
    assert_eq!(layers[2]["createdBy"], "step 2");
    let history = images.image_ok("history", "app:1");
    assert_eq!(history.lines().count(), 4);
    assert!(history.starts_with("LAYER   CREATED"), "{history}");
}

#[test]
fn a_layer_that_comes_twice_is_told_twice_and_the_others_under_their_own_names() {
    let images = Images::new();
    // As builders write them that keep a layer for every step: the same empty one again and again.
    let empty = |root: &Path| {
        let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        fs::File::open(root).unwrap().set_times(time).unwrap();
    };
    let image = Image::new("img-twice")
        .layer(empty)
        .layer(|root| fs::write(root.join("three"), [0; 3000]).unwrap())
        .layer(empty);
    fs::create_dir(images.path("layout")).unwrap();
    image.layout(&images.path("layout"), "app");
    images.image_ok("load", "-q --name app:1 @layout");
    let layers: Value = serde_json::from_str(&images.image_ok("layers", "--format json app:1")).unwrap();
    assert_eq!(layers[1]["diffId"], layers[3]["diffId"]);
    let added: Vec<&Value> = (0..4).map(|i| &layers[i]["tree"]["added"]["bytes"]).collect();
    assert_eq!(added[1..], [&json!(0), &json!(3000), &json!(0)]);
    assert_eq!(layers[2]["createdBy"], "step 2");
    assert_eq!(images.run("app:1 cat /three").out.len(), 3000);
}

#[test]
fn a_folder_that_is_no_store_stays_as_it_is() {
    let images = Images::new();
    fs::create_dir_all(images.path("store/tmp/work")).unwrap();
    fs::write(images.path("store/notes"), "").unwrap();
    fs::set_permissions(images.path("store"), fs::Permissions::from_mode(0o755)).unwrap();
    teller("img-foreign").docker_save(&images.path("app.tar"), &["app:1"]);
    for said in [images.image("list", ""), images.image("load", "@app.tar"), images.run("@app.tar")] {
        assert_eq!(said.status, 1);
        assert!(said.err.contains("has \"notes\" in it, and is no store"), "{}", said.err);
    }
    assert_eq!(names(&images.store()), ["notes", "tmp"]);
    assert_eq!(fs::metadata(images.store()).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(images.path("store/tmp/work").is_dir());
}

#[test]
fn names_come_and_go_and_an_image_with_its_last_one() {
    let images = Images::new();
    images.load(&teller("img-names"), "app:1");
    images.image_ok("tag", "app:1 localhost:5000/me/app:2");
    assert_eq!(images.image_ok("list", "-q"), "app:1\nlocalhost:5000/me/app:2\n");
    let inspect: Value = serde_json::from_str(&images.image_ok("inspect", "app:1")).unwrap();
    assert_eq!(inspect["names"], json!(["docker.io/library/app:1", "localhost:5000/me/app:2"]));
    assert_eq!(inspect["config"]["config"]["User"], "web");
    let digest = inspect["digest"].as_str().unwrap();
    for word in [digest, &digest[7..], &digest[7..19], "localhost:5000/me/app:2"] {
        assert_eq!(images.run(word).out.lines().next(), Some("args one two"), "{word}");
    }
    assert_eq!(images.image_ok("remove", "app:1"), "untagged app:1\n");
    assert_eq!(
        images.image_ok("remove", "localhost:5000/me/app:2"),
        format!("untagged localhost:5000/me/app:2\nremoved {digest}\n")
    );
    let said = images.image("inspect", "app:1");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("app:1: no image of that name is in the store"), "{}", said.err);
    assert_eq!(images.image_ok("list", ""), "NAME   DIGEST   PLATFORM   CREATED   LAYERS   SIZE\n");
}

#[test]
fn a_container_of_an_image_makes_the_calls_that_the_profile_allows_and_no_other() {
    const TOLD: &str = "\
        mount EPERM, umount2 EPERM, unshare-user EPERM, unshare-files ok, clone-net EPERM, clone3 ENOSYS, setns EPERM, \
        bpf EPERM, keyctl EPERM, add_key EPERM, io_uring_setup EPERM, userfaultfd EPERM, perf_event_open EPERM, \
        kexec_load EPERM, init_module EPERM, open_by_handle_at EPERM, settimeofday EPERM, swapon EPERM, newer ENOSYS, \
        personality-exec EPERM, personality-aslr ok, socket-inet ok, socket-packet ok, socket-alg EAFNOSUPPORT, \
        socket-alg-high EAFNOSUPPORT, socket-vsock EAFNOSUPPORT, socket-can EAFNOSUPPORT, socketpair-unix ok, \
        socketpair-tipc EAFNOSUPPORT, tiocsti EPERM, tiocsti-high EPERM, tcgets EBADF, ptrace ok";
    let images = Images::new();
    let image = Image::new("img-calls")
        .layer(|root| runtime_tests::programs::compile("calls", &root.join("calls")))
        .runs(json!({ "Cmd": ["/calls"] }));
    images.load(&image, "app");
    let told = |said: Said| (said.out.trim_end().replace('\n', ", "), said.err, said.status);
    assert_eq!(told(images.run("app")), (TOLD.to_string(), String::new(), 0));

    // Not all of these are allowed to a container without a filter, but none is unknown.
    let (free, ..) = told(images.run("--security-opt seccomp=unconfined app"));
    for call in
        ["keyctl EPERM", "io_uring_setup EPERM", "tiocsti EPERM", "clone3 ENOSYS", "personality-exec EPERM"]
    {
        assert!(TOLD.contains(call) && !free.contains(call), "{call}: {free}");
    }
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{ "architecture": "SCMP_ARCH_X86_64" }, { "architecture": "SCMP_ARCH_AARCH64" }],
        "syscalls": [
            { "names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "includes": { "caps": ["CAP_SYS_ADMIN"] } },
        ],
    });
    fs::write(images.path("own.json"), profile.to_string()).unwrap();
    let own = format!("seccomp={}", images.path("own.json").display());
    let (own, ..) = told(images.run(&format!("--security-opt {own} app")));
    assert!(own.contains("bpf EOPNOTSUPP") && own.contains("swapon EPERM"), "{own}");

    for (option, why) in [
        ("seccomp=/not-there.json", "run: --security-opt: open /not-there.json: "),
        ("seccomp=", "run: --security-opt \"seccomp=\" names no file"),
        ("apparmor=x", "run: --security-opt \"apparmor=x\": there is seccomp=FILE and seccomp=unconfined"),
    ] {
        let said = images.run(&format!("--security-opt {option} app"));
        assert!(said.status == 1 && said.err.contains(why), "{}", said.err);
    }
    // A bundle is to run as the image does.
    images.image_ok("unpack", "--flat -q app @bundle");
    let config: Value =
        serde_json::from_slice(&fs::read(images.path("bundle/config.json")).unwrap()).unwrap();
    assert_eq!(config["linux"]["seccomp"]["defaultErrnoRet"], 38);
    images.is_clean();
}

#[test]
fn a_store_that_is_broken_is_told_and_repaired() {
    let images = Images::new();
    images.load(&teller("img-fsck"), "app");
    assert_eq!(images.image_ok("fsck", ""), "the store is sound\n");
    let blobs = images.store().join("blobs/sha256");
    let largest =
        names(&blobs).into_iter().max_by_key(|name| fs::metadata(blobs.join(name)).unwrap().len()).unwrap();
    let mut file = fs::File::options().append(true).open(blobs.join(&largest)).unwrap();
    file.write_all(b"x").unwrap();
    let said = images.image("fsck", "");
    assert_eq!((said.status, said.out.contains(&largest)), (1, true), "{}", said.out);
    let said = images.image("fsck", "--repair");
    assert_eq!((said.status, said.out.contains("(removed)")), (0, true), "{}", said.out);
    assert_eq!(images.image_ok("fsck", "-q"), "");
}

#[test]
fn an_image_that_lies_leaves_no_trace() {
    let images = Images::new();
    teller("img-lies").docker_save(&images.path("app.tar"), &["app:1"]);
    let mut bytes = fs::read(images.path("app.tar")).unwrap();
    // In the middle of busybox.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(images.path("bad.tar"), bytes).unwrap();
    for verb in ["image load", "run"] {
        let said = images.runtime.say(images.words(verb, "@bad.tar"));
        assert_eq!(said.status, 1);
        assert!(said.err.contains("sha256:"), "{}", said.err);
        assert_eq!(images.image_ok("list", "-q"), "");
        images.is_clean();
    }
}

#[test]
fn many_run_and_prune_at_once_in_a_store_that_is_not_there_yet() {
    let images = Images::new();
    teller("img-many").docker_save(&images.path("app.tar"), &["app:1"]);
    let mut children = Vec::new();
    for i in 0..8 {
        let mut command = images.runtime.command(images.words("run", "@app.tar"));
        children.push((true, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
        if i % 2 == 1 {
            let mut command = images.runtime.command(images.words("image prune", "-q"));
            children.push((false, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
        }
    }
    for (run, child) in children {
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""));
        assert_eq!(told.lines().next(), run.then_some("args one two"));
    }
    images.is_clean();
    assert_eq!(images.image_ok("fsck", ""), "the store is sound\n");
}

/// Counted and not timed, since time is what others leave of the machine.
#[test]
fn a_second_run_of_an_image_makes_few_more_system_calls_than_a_bundle() {
    const MORE: usize = 350;
    let images = Images::new();
    images.load(&Image::new("img-counted"), "app:1");
    images.image_ok("unpack", "--quiet --flat app:1 @bundle");
    let path = images.path("bundle/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["args"] = json!(["/bin/true"]);
    fs::write(&path, config.to_string()).unwrap();
    let calls = |words: Vec<OsString>| {
        let (log, plain) = (images.path("strace"), images.runtime.command(words));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(&log);
        let status = strace.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null()).status();
        assert!(status.expect("strace is missing: apt-get install strace").success());
        let log = fs::read_to_string(log).unwrap();
        log.lines().filter(|line| !line.contains(" resumed>")).count()
    };
    let bundle = images.path("bundle").into_os_string();
    let of_bundle = calls(vec!["run".into(), "--bundle".into(), bundle, "img-counted-bundle".into()]);
    let of_image = |_| calls(images.words("run", "--name img-counted app:1 /bin/true"));
    let of_image: Vec<usize> = (0..3).map(of_image).collect();
    // The first makes what all have, and has nothing to remove.
    let second = of_image[1].min(of_image[2]);
    assert!(second <= of_bundle + MORE, "{of_image:?} to {of_bundle} of a bundle");
    images.is_clean();
}

#[test]
fn run_takes_the_platform_that_it_is_told_and_no_other() {
    let images = Images::new();
    let image = Image::new("platform").runs(json!({ "Cmd": ["/bin/busybox", "echo", "ran"] }));
    image.docker_save(&images.path("app.tar"), &["app:1"]);
    images.load(&image, "app:1");
    let own = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };
    for (words, told) in [
        (format!("--platform {own} @app.tar"), None),
        (format!("--platform {own} app:1"), None),
        ("--platform linux/riscv64 @app.tar".into(), Some("linux/riscv64")),
        ("--platform linux/riscv64 app:1".into(), Some("image pull --platform linux/riscv64 app:1")),
        ("--platform riscv64/of/all/things app:1".into(), Some("platform")),
    ] {
        let said = images.run(&words);
        match told {
            None => assert_eq!((said.status, said.out.trim()), (0, "ran"), "{words}: {}", said.err),
            Some(told) => {
                assert!(said.status != 0 && said.err.contains(told), "{words}: {}{}", said.out, said.err)
            }
        }
    }
    images.is_clean();
}
