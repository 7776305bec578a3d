//! Root file systems of an attacker: each name that a start makes or mounts on is something else, a link of every kind, a
//! FIFO, a file, a folder. The runtime fails with one sentence or mounts inside the root; the machine stays as it was.

use runtime_tests::bundle::Bundle;
use runtime_tests::machine::{mounts, own_mount_namespace, tree};
use runtime_tests::runtime::{Runtime, Said, said};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every name below the root that a start makes, opens or mounts on.
const NAMES: [&str; 30] = [
    "proc",
    "sys",
    "dev",
    "dev/pts",
    "dev/shm",
    "dev/mqueue",
    "dev/null",
    "dev/zero",
    "dev/full",
    "dev/tty",
    "dev/random",
    "dev/urandom",
    "dev/console",
    "dev/ptmx",
    "dev/pts/ptmx",
    "dev/fd",
    "dev/stdin",
    "dev/stdout",
    "dev/stderr",
    "dev/core",
    "dev/extra",
    "work",
    "mnt",
    "mnt/folder",
    "mnt/file",
    "run",
    "run/scratch",
    "etc/passwd",
    "sys/fs/cgroup",
    "var/copied",
];

/// What makes it at a place, given the canary.
type Put = fn(&Path, &Path);

/// What stands there instead.
const INSTEADS: [(&str, Put); 13] = [
    ("a link to the canary, which exists on the machine only", |place, canary| link(place, canary)),
    ("a link up to it", |place, canary| {
        link(place, Path::new(&format!("{}{}", "../".repeat(30), canary.display())));
    }),
    ("a link to a file of it", |place, canary| link(place, &canary.join("secret"))),
    ("a link to a name in it that is not there", |place, canary| link(place, &canary.join("new"))),
    ("a link to what root and machine both have", |place, _| link(place, Path::new("/etc"))),
    ("a link to nothing", |place, _| link(place, Path::new("/rcrun-nowhere/at/all"))),
    ("a link to itself", |place, _| link(place, Path::new(place.file_name().expect("a name")))),
    ("a link to the root", |place, _| link(place, Path::new("/"))),
    // The bundle's folder, if it were followed.
    ("a magic link of the runtime itself", |place, _| link(place, Path::new("/proc/self/cwd"))),
    ("a FIFO", |place, _| {
        nix::unistd::mkfifo(place, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("mkfifo");
    }),
    ("a socket", |place, _| drop(UnixListener::bind(place).expect("a socket"))),
    ("a file", |place, _| fs::write(place, "of the image").expect("a file")),
    ("a folder", |place, _| fs::create_dir(place).expect("a folder")),
];

const SECRET: &str = "of the machine";

fn link(place: &Path, to: &Path) {
    symlink(to, place).expect("a link");
}

/// Makes room at a place.
fn clear(place: &Path) {
    let _ = fs::remove_dir_all(place);
    let _ = fs::remove_file(place);
    fs::create_dir_all(place.parent().expect("a parent")).expect("the folder above");
}

/// With a tmpfs on /dev, as engines do it, or with all of /dev made in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dev {
    Mounted,
    OfTheImage,
}

/// What is done with the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Run,
    CreateStartExec,
    CreateWithTerminal,
}

fn configure(config: &mut Value, dev: Dev, canary: &Path) {
    config["root"]["readonly"] = json!(false);
    config["process"]["cwd"] = json!("/work");
    config["linux"]["devices"] =
        json!([{"path": "/dev/extra", "type": "c", "major": 1, "minor": 5, "fileMode": 438}]);
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    if dev == Dev::OfTheImage {
        mounts.retain(|m| m["destination"] != "/dev");
    }
    let good = canary.with_file_name("good");
    mounts.extend([
        json!({"destination": "/mnt/folder", "type": "bind", "source": good, "options": ["rbind"]}),
        json!({"destination": "/mnt/file", "type": "bind", "source": good.join("file"), "options": ["bind"]}),
        json!({"destination": "/run/scratch", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/var/copied", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
    ]);
}

/// A command that has to end: a FIFO as /etc/passwd would hold one that waits for a writer for ever.
fn within_time(runtime: &Runtime, args: &[&OsStr]) -> Said {
    let command = runtime.command(args);
    let mut limited = Command::new("timeout");
    limited.args(["--signal=KILL", "20"]).arg(command.get_program()).args(command.get_args());
    let out = tempfile(runtime, "out");
    let err = tempfile(runtime, "err");
    let status = limited
        .stdin(std::process::Stdio::null())
        .stdout(fs::File::create(&out).expect("a file"))
        .stderr(fs::File::create(&err).expect("a file"))
        .status()
        .expect("timeout");
    let (stdout, stderr) = (fs::read(out).expect("out"), fs::read(err).expect("err"));
    let said = said(&std::process::Output { status, stdout, stderr });
    assert!(![124, 137].contains(&said.status), "{args:?} does not end");
    said
}

fn tempfile(runtime: &Runtime, name: &str) -> PathBuf {
    runtime.root().with_extension(name)
}

/// True when it succeeded; a failure is one sentence.
fn succeeded(said: &Said, place: &str) -> bool {
    if said.status == 0 {
        return true;
    }
    assert_eq!((said.status, said.err.trim().lines().count()), (1, 1), "{place}: {}{}", said.out, said.err);
    assert!(!said.err.contains("panicked"), "{place}: {}", said.err);
    false
}

fn go(way: Way, dev: Dev) {
    own_mount_namespace();
    let runtime = Runtime::new();
    let script = "cat /proc/self/mountinfo; cat /proc/keys /proc/timer_list; ls /work; cat /*/secret /*/*/secret; exit 0";
    let before_mounts = mounts();
    let (mut went, mut refused) = (0, 0);
    for name in NAMES {
        for (instead, put) in INSTEADS {
            let place = format!("{name} is {instead}, {dev:?}, {way:?}");
            let script = if way == Way::Run { script } else { "sleep 1000" };
            let bundle = Bundle::new("hostile", &["sh", "-c", script]);
            let canary = bundle.path().join("canary");
            fs::create_dir_all(canary.join("deep")).expect("a canary");
            fs::create_dir_all(bundle.path().join("good")).expect("a source");
            for (file, text) in
                [("canary/secret", SECRET), ("canary/deep/secret", SECRET), ("good/file", "good")]
            {
                fs::write(bundle.path().join(file), text).expect("a file");
            }
            let bundle = bundle.with(|config| {
                configure(config, dev, &canary);
                config["process"]["terminal"] = json!(way == Way::CreateWithTerminal);
            });
            let target = bundle.root().join(name);
            clear(&target);
            put(&target, &canary);
            let before = tree(bundle.path(), &[&bundle.root()]);
            // The cgroup has the id's name: tests run side by side.
            let id = format!("hostile-{way:?}-{dev:?}-{}", std::process::id());
            match attempt(&runtime, &bundle, way, &id, &place) {
                true => went += 1,
                false => refused += 1,
            }
            assert_eq!(tree(bundle.path(), &[&bundle.root()]), before, "{place}");
            assert_eq!(mounts(), before_mounts, "{place}");
            assert!(!Path::new("/rcrun-nowhere").exists(), "{place}");
            assert_eq!(runtime.ok(["list", "-q"]).out, "", "{place}");
        }
    }
    println!("{dev:?}, {way:?}: {went} went, {refused} were refused");
    // Both happen: a FIFO can be no mount point for proc, and a link to nothing is made below the root.
    assert!(went > 100 && refused > 10, "{went} went, {refused} refused");
}

fn attempt(runtime: &Runtime, bundle: &Bundle, way: Way, id: &str, place: &str) -> bool {
    let here = bundle.path().as_os_str();
    let name = id;
    let id = OsStr::new(id);
    if way == Way::Run {
        let said = within_time(runtime, &[OsStr::new("run"), OsStr::new("--bundle"), here, id]);
        assert!(!said.out.contains(SECRET), "{place}: the payload reads the machine");
        let went = succeeded(&Said { err: last_sentence(&said), ..said }, place);
        if went {
            let text = fs::read_to_string(tempfile(runtime, "out")).expect("out");
            for (at, kind) in [("/proc", " - proc "), ("/sys", " - sysfs ")] {
                let there = text.lines().any(|l| l.split(' ').nth(4) == Some(at) && l.contains(kind));
                assert!(there, "{place}: no {kind} on {at}: {text}");
            }
            // /proc/keys is masked by an empty file, whatever the image has as /dev/null.
            let masked =
                text.lines().any(|l| l.split(' ').nth(3) == Some("/null") && l.contains(" /proc/keys "));
            assert!(masked, "{place}: /proc/keys is not masked: {text}");
        }
        return went;
    }
    let console = tempfile(runtime, "sock");
    let _ = fs::remove_file(&console);
    let listener = UnixListener::bind(&console).expect("a console socket");
    let mut words = vec![OsStr::new("create"), OsStr::new("--bundle"), here];
    if way == Way::CreateWithTerminal {
        words.extend([OsStr::new("--console-socket"), console.as_os_str()]);
    }
    words.push(id);
    let mut went = succeeded(&within_time(runtime, &words), place);
    if went {
        went = succeeded(&within_time(runtime, &[OsStr::new("start"), id]), place);
    }
    if went {
        let words = ["exec", "--cwd", "/", name, "cat", "/proc/self/mountinfo"].map(OsStr::new);
        let said = within_time(runtime, &words);
        // A link to the root as a mount point hides the root itself, and with it the program: that is the image's doing.
        let alone = (said.status, said.err.trim().lines().count()) == (255, 1);
        assert!(said.out.contains(" - proc ") || alone, "{place}: {}", said.err);
    }
    runtime.ok(["delete", "--force", name]);
    drop(listener);
    went
}

/// The runtime's own words: the payload's complaints came before.
fn last_sentence(said: &Said) -> String {
    said.err.lines().last().unwrap_or_default().to_string()
}

#[test]
fn run_of_a_hostile_root_with_a_mounted_dev_leaves_the_machine_alone() {
    go(Way::Run, Dev::Mounted);
}

#[test]
fn run_of_a_hostile_root_whose_dev_is_the_images_leaves_the_machine_alone() {
    go(Way::Run, Dev::OfTheImage);
}

#[test]
fn create_start_and_exec_in_a_hostile_root_leave_the_machine_alone() {
    go(Way::CreateStartExec, Dev::OfTheImage);
}

#[test]
fn a_terminal_in_a_hostile_root_with_a_mounted_dev_leaves_the_machine_alone() {
    go(Way::CreateWithTerminal, Dev::Mounted);
}

#[test]
fn a_terminal_in_a_hostile_root_whose_dev_is_the_images_leaves_the_machine_alone() {
    go(Way::CreateWithTerminal, Dev::OfTheImage);
}

#[test]
fn no_fd_of_the_runtime_is_a_working_directory() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let up = "cat ../../../../../../../../../../etc/hostname ../secret; pwd; exit 0";
    for fd in 3..=64 {
        let cwd = format!("/proc/self/fd/{fd}");
        let bundle = Bundle::new("cwd", &["sh", "-c", up]).with(|c| c["process"]["cwd"] = json!(cwd));
        fs::write(bundle.path().join("secret"), SECRET).expect("a secret");
        let said = runtime.run(&bundle, "cwd");
        assert!(!said.out.contains(SECRET), "{cwd}: {}", said.out);
        assert_eq!((said.status, said.err.lines().count()), (1, 1), "{cwd}: {}{}", said.out, said.err);
        assert!(said.err.contains("cwd"), "{cwd}: {}", said.err);
    }
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn exec_reaches_the_machine_by_no_working_directory() {
    own_mount_namespace();
    let runtime = Runtime::new();
    let bundle = Bundle::new("exec", &["sleep", "1000"]);
    fs::write(bundle.path().join("secret"), SECRET).expect("a secret");
    for (name, to) in [
        ("own-cwd", "/proc/self/cwd".to_string()),
        ("own-root", "/proc/self/root".to_string()),
        ("first-root", "/proc/1/root".to_string()),
        ("own-fd", "/proc/self/fd/7".to_string()),
        ("up", "../".repeat(40)),
        ("bundle", bundle.path().display().to_string()),
        ("loop", "loop".to_string()),
    ] {
        symlink(to, bundle.root().join(name)).expect("a link");
    }
    assert_eq!(runtime.create(&bundle, "exec-cwd").status, 0);
    runtime.ok(["start", "exec-cwd"]);
    let fds = (3..=64).map(|fd| format!("/proc/self/fd/{fd}"));
    let links =
        ["/own-cwd", "/own-root", "/first-root", "/own-fd", "/up", "/bundle", "/loop"].map(String::from);
    for cwd in fds.chain(links) {
        let script = "cat ../secret ../../secret ./secret; pwd; ls -d ../../../../../../../../bin/busybox";
        let said = runtime.say(["exec", "--cwd", &cwd, "exec-cwd", "sh", "-c", script]);
        assert!(!said.out.contains(SECRET), "{cwd}: {}", said.out);
        if cwd == "/up" {
            assert_eq!(said.out.lines().next(), Some("/"), "{cwd}: {}", said.err);
        } else {
            // 255: rcrun itself failed, the command never ran.
            assert_eq!((said.status, said.err.lines().count()), (255, 1), "{cwd}: {}{}", said.out, said.err);
        }
    }
}

#[test]
fn home_of_a_hostile_passwd_is_the_root_folder() {
    own_mount_namespace();
    let runtime = Runtime::new();
    type Put = fn(&Path);
    let huge: Put = |path| {
        let mut text = "filler:x:99:99::/filler:/bin/sh\n".repeat(100_000);
        text.push_str("late:x:0:0::/late:/bin/sh\n");
        fs::write(path, text).expect("a huge file");
    };
    let endless: Put = |path| fs::File::create(path).and_then(|f| f.set_len(1 << 40)).expect("a sparse file");
    let fifo: Put = |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let folder: Put = |path| fs::create_dir(path).expect("mkdir");
    let link: Put = |path| symlink("/dev/zero", path).expect("a link");
    let binary: Put = |path| fs::write(path, "root:x:0:0::/a\u{0}b:/bin/sh\n").expect("a file");
    for (kind, put) in [
        ("huge", huge),
        ("endless", endless),
        ("fifo", fifo),
        ("folder", folder),
        ("link", link),
        ("binary", binary),
    ] {
        let bundle = Bundle::new("passwd", &["sh", "-c", "echo $HOME"]);
        let path = bundle.root().join("etc/passwd");
        fs::remove_file(&path).expect("unlink");
        put(&path);
        let words =
            [OsStr::new("run"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new("passwd")];
        let said = within_time(&runtime, &words);
        assert_eq!((said.status, said.out.as_str()), (0, "/\n"), "{kind}: {}", said.err);
    }
}
