//! Options that runc has not and crun has: who makes cgroups, where a log goes, another name for config.json, patterns for
//! ids. And the one that runc had: which CRIU.

use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::machine::own_mount_namespace;
use runtime_tests::runtime::Runtime;
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Makes a folder of the machine's empty in this thread's mount namespace, but for the null device, which processes are
/// started with.
fn empty(folder: &str) {
    let nothing = None::<&str>;
    let null = fs::File::open("/dev/null").expect("the null device");
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), nothing)
        .expect("a tmpfs of the test's own");
    if folder == "/dev" {
        fs::write("/dev/null", "").expect("a file to bind on");
        let source = format!("/proc/thread-self/fd/{}", null.as_raw_fd());
        mount(Some(source.as_str()), "/dev/null", nothing, MsFlags::MS_BIND, nothing).expect("bind");
    }
}

/// A datagram socket at a path of the machine's that only this thread's mount namespace has.
fn logger(folder: &str, name: &str) -> UnixDatagram {
    own_mount_namespace();
    empty(folder);
    let path = Path::new(folder).join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
    let socket = UnixDatagram::bind(path).expect("bind");
    // Only for the case that nothing comes: what is asked for was sent before rcrun ended.
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    socket
}

fn received(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("a line of the log");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn a_log_goes_to_the_journal_with_its_identifier_and_the_errors_code() {
    let journal = logger("/run", "systemd/journal/socket");
    let runtime = Runtime::new();
    let said = runtime.say(["--log", "journald:web", "state", "no-such-container"]);
    assert_eq!((said.status, said.err.as_str()), (1, "state no-such-container: container does not exist\n"));
    let entry = received(&journal);
    for field in
        ["PRIORITY=3", "SYSLOG_IDENTIFIER=web", "MESSAGE=state no-such-container: container does not exist"]
    {
        assert!(entry.lines().any(|line| line == field), "{field} is not in {entry}");
    }
    assert!(entry.contains("RCRUN_CODE="), "{entry}");
}

#[test]
fn a_log_goes_to_the_system_log() {
    let log = logger("/dev", "log");
    let said = Runtime::new().say(["--log=syslog:web", "state", "no-such-container"]);
    assert_eq!(said.status, 1, "{}", said.err);
    let line = received(&log);
    assert!(line.starts_with("<11>web["), "{line}");
    assert!(line.ends_with("]: state no-such-container: container does not exist"), "{line}");
}

#[test]
fn a_log_that_is_not_there_is_an_error_with_the_remedy() {
    own_mount_namespace();
    ["/run", "/dev"].into_iter().for_each(empty);
    for (place, sentence) in [
        ("journald:web", "--log journald: connect to /run/systemd/journal/socket: no such file or directory"),
        ("syslog:web", "--log syslog: connect to /dev/log: no such file or directory"),
    ] {
        let said = Runtime::new().say(["--log", place, "list"]);
        assert!(said.status == 1 && said.err.contains(sentence), "{}", said.err);
        assert!(said.err.contains("`--log FILE` does without"), "{}", said.err);
    }
    let folder = Folder::new("log");
    let path = folder.path().join("log");
    let said =
        Runtime::new().say(["--log", &format!("file:{}", path.display()), "state", "no-such-container"]);
    assert_eq!(said.status, 1);
    assert!(fs::read_to_string(&path).expect("the log").contains("container does not exist"));
}

#[test]
fn with_no_cgroup_manager_a_container_stays_in_the_callers_cgroup() {
    let runtime = Runtime::new();
    let own = |text: &str| text.lines().find(|line| line.starts_with("0::")).map(str::to_string);
    let bundle = Bundle::new("options-no-cgroup", &["cat", "/proc/self/cgroup"]).with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        config["linux"]["resources"] = json!({});
    });
    let path = bundle.path().to_str().expect("UTF-8");
    let run = ["--cgroup-manager", "disabled", "run", "--bundle", path, "options-no-cgroup"];
    let said = runtime.ok(run);
    let ours = fs::read_to_string("/proc/self/cgroup").expect("our cgroup");
    assert_eq!(own(&said.out), own(&ours), "{}", said.err);

    let bundle = bundle.with(|config| config["linux"]["resources"] = json!({"pids": {"limit": 5}}));
    let said = runtime.say(
        ["--cgroup-manager", "disabled", "run", "--bundle"]
            .into_iter()
            .chain([bundle.path().to_str().expect("UTF-8"), "options-no-cgroup"]),
    );
    assert!(
        said.status == 1 && said.err.contains("/linux/resources/pids/limit: the limit cannot be set"),
        "{}",
        said.err
    );

    let bundle = bundle.with(|config| {
        config["linux"]["resources"] = json!({});
        config["process"]["args"] = json!(["sleep", "1000"]);
    });
    let path = bundle.path().to_str().expect("UTF-8");
    let words = ["--cgroup-manager=disabled", "run", "--detach", "--bundle", path, "options-no-cgroup"];
    let said = runtime.without_pipes(&mut runtime.command(words));
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    runtime.ok(["exec", "options-no-cgroup", "true"]);
    let said = runtime.say(["update", "--pids-limit", "5", "options-no-cgroup"]);
    assert!(said.status == 1 && said.err.contains("update needs a cgroup"), "{}", said.err);
    runtime.ok(["kill", "--all", "options-no-cgroup", "KILL"]);
    runtime.wait_for_end("options-no-cgroup");
    runtime.ok(["delete", "options-no-cgroup"]);
}

#[test]
fn another_file_may_stand_in_for_config_json() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("options-config", &["echo", "config.json"]);
    let other = Folder::new("other-config");
    let file = other.path().join("other.json");
    let mut config = bundle.config.clone();
    config["process"]["args"] = json!(["echo", "other"]);
    fs::write(&file, config.to_string()).expect("a config");
    let (path, file) = (bundle.path().to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    assert_eq!(runtime.ok(["run", "--config", file, "--bundle", path, "options-config"]).out, "other\n");
    // In the bundle's folder, as by crun.
    let mut command = runtime.command(["run", "-f", file, "options-config"]);
    let output = command.current_dir(path).output().expect("execute the runtime");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "other\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = runtime.create_with(
        &bundle,
        "options-config",
        &["--config", "/nowhere/other.json", "--no-subreaper"],
    );
    assert!(
        said.status == 1 && said.err.contains("JSON specification file other.json not found"),
        "{}",
        said.err
    );

    let written = Folder::new("spec");
    runtime.ok(["spec", "--file", "mine.json", "--bundle", written.path().to_str().expect("UTF-8")]);
    assert!(written.path().join("mine.json").exists() && !written.path().join("config.json").exists());
}

#[test]
fn a_pattern_means_every_container_whose_id_it_matches() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("options-regex", &["sleep", "1000"]);
    let ids = ["options-regex-1", "options-regex-2", "options-regex-x"];
    for id in ids {
        runtime.created(&bundle, id);
        runtime.ok(["start", id]);
    }
    runtime.ok(["kill", "--regex", "^options-regex-[0-9]$", "KILL"]);
    for (id, status) in ids.into_iter().zip(["stopped", "stopped", "running"]) {
        if status == "stopped" {
            runtime.wait_for_end(id);
        }
        assert_eq!(runtime.status(id), status, "{id}");
    }
    let said = runtime.say(["kill", "-r", "options-regex-(", "KILL"]);
    assert!(said.status == 1 && said.err.contains("kill: --regex \"options-regex-(\""), "{}", said.err);
    // One of three cannot be deleted: it runs. The others are.
    let said = runtime.say(["delete", "--regex", "options-regex"]);
    assert!(said.status == 1 && said.err.contains("options-regex-x"), "{}", said.err);
    assert_eq!(runtime.ok(["list", "--quiet"]).out, "options-regex-x\n");
    runtime.ok(["delete", "--regex", "--force", "^options-regex-.$"]);
    assert_eq!(runtime.ok(["list", "--quiet"]).out, "");
    runtime.ok(["delete", "--regex", "--force", "nothing-of-that-name"]);
}

/// A program in the place of CRIU that notes what it was called with, and ends.
fn notes_its_words(folder: &Path, name: &str) -> PathBuf {
    let program = folder.join(name);
    let script = format!("#!/bin/sh\necho \"$@\" >> {}/called\n", folder.display());
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    program
}

#[test]
fn the_criu_that_is_named_is_the_one_that_is_executed() {
    let runtime = Runtime::new();
    let folder = Folder::new("criu");
    let program = notes_its_words(folder.path(), "criu-of-ours");
    let program = program.to_str().expect("UTF-8");
    let images = folder.path().join("images");
    let images = images.to_str().expect("UTF-8");
    let bundle = Bundle::new("options-criu", &["sleep", "1000"]);
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.created(&bundle, "options-criu");
    runtime.ok(["start", "options-criu"]);
    let checkpoint = ["checkpoint", "--image-path", images, "options-criu"];
    let restore = ["restore", "--detach", "--image-path", images, "--bundle", path, "options-criu-2"];
    for (times, verb) in [&checkpoint[..], &restore].into_iter().enumerate() {
        let said = runtime.say(["--criu", program].iter().chain(verb));
        assert!(said.status == 1 && said.err.contains("criu has ended without an answer"), "{}", said.err);
        let called = fs::read_to_string(folder.path().join("called")).expect("what it was called with");
        assert_eq!(called, "swrk 3\n".repeat(times + 1));
        let said = runtime.say(["--criu", "/nowhere/criu"].iter().chain(verb));
        assert!(said.status == 1 && said.err.contains("--criu"), "{}", said.err);
        assert!(said.err.contains("/nowhere/criu: no such file or directory"), "{}", said.err);
    }
    // In the folder where rcrun is called, and by a name that PATH finds.
    let mut here = runtime.command(["--criu", "./criu-of-ours"].iter().chain(&checkpoint));
    here.current_dir(folder.path());
    let mut in_path = runtime.command(["--criu=criu-of-ours"].iter().chain(&checkpoint));
    in_path.env("PATH", folder.path());
    for (times, mut command) in [here, in_path].into_iter().enumerate() {
        let output = command.output().expect("execute the runtime");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("criu has ended without an answer"), "{said}");
        let called = fs::read_to_string(folder.path().join("called")).expect("what it was called with");
        assert_eq!(called.lines().count(), times + 3);
    }
    assert_eq!(runtime.status("options-criu"), "running");
    runtime.ok(["delete", "--force", "options-criu"]);
}
