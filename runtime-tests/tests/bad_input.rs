//! What is wrong is refused in one sentence, soon, and leaves nothing behind: ids, words, and files that the command line
//! names. Broken configs and hosts are the corpus of `errors`.

use runtime_tests::broken_configs::{broken_configs, good_config};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::{Runtime, Said, said};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The processes on the machine that run rcrun-init or that belong to a container of `root`.
fn inits(marker: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.windows(marker.len()).any(|w| w == marker.as_bytes())
            && pid != std::process::id().to_string()
        {
            found.insert(pid);
        }
    }
    found
}

/// Runs a command that must end within 20 seconds. Its processes are known by a variable.
fn soon<S: AsRef<OsStr>>(runtime: &Runtime, marker: &str, args: &[S], here: &Path) -> Said {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "20"]).arg(runtime.binary()).arg("--root").arg(runtime.root()).args(args);
    runtime.without_pipes(command.env("RCRUN_TEST", marker).current_dir(here).stdin(Stdio::null()))
}

fn assert_refused(runtime: &Runtime, marker: &str, said: &Said, what: &str) {
    assert_eq!(said.status, 1, "{what}: {}{}", said.out, said.err);
    assert_eq!(said.out, "", "{what}");
    assert_eq!(said.err.lines().count(), 1, "{what}: one sentence: {}", said.err);
    assert!(said.err.ends_with('\n'), "{what}");
    // A mebibyte of somebody's text is no sentence.
    assert!(said.err.len() < 1500, "{what}: {} bytes of error: {:.300}", said.err.len(), said.err);
    assert!(!said.err.contains("panicked"), "{what}: {}", said.err);
    assert!(!said.err.chars().any(|c| c.is_control() && c != '\n'), "{what}: {:?}", said.err);
    let left: Vec<_> =
        fs::read_dir(runtime.root()).expect("state root").flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{what}: left in the state root: {left:?}");
    let left = inits(&format!("RCRUN_TEST={marker}"));
    assert!(left.is_empty(), "{what}: processes are left: {left:?}");
}

#[test]
fn check_tells_of_a_broken_config_what_create_tells() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("broken", &["true"]);
    let id = format!("broken-{}", std::process::id());
    let all = broken_configs();
    assert!(all.len() >= 60, "{}", all.len());
    for broken in all {
        fs::write(bundle.path().join("config.json"), &broken.text).expect("write");
        let args = [OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new(&id)];
        let said = soon(&runtime, &id, &args, Path::new("/"));
        assert_refused(&runtime, &id, &said, broken.name);
        // It says the same first, and what to do about it.
        let words = ["check", "--format=json"].map(OsStr::new);
        let checked =
            soon(&runtime, &id, &[&words[..], &[bundle.path().as_os_str()]].concat(), Path::new("/"));
        let report: Value = serde_json::from_str(&checked.out).expect("JSON");
        let first = &report["findings"][0];
        let [level, pointer, message, remedy] =
            ["level", "pointer", "message", "remedy"].map(|key| first[key].as_str().unwrap_or_default());
        assert_eq!((checked.status, level), (1, "error"), "{}: {}", broken.name, checked.out);
        let same = said.err.contains(pointer) && said.err.contains(message);
        assert!(same && !remedy.is_empty(), "{}: {first} is not {}", broken.name, said.err);
    }
}

#[test]
fn the_config_that_the_broken_ones_are_made_from_is_good() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("good", &["true"]).with(|config| *config = good_config());
    let said = runtime.run(&bundle, "good");
    assert_eq!((said.status, said.err.as_str()), (0, ""));
}

#[test]
fn a_config_without_process_is_created_and_refused_by_start_and_run() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("no-process", &["true"])
        .with(|config| drop(config.as_object_mut().expect("an object").remove("process")));
    let said = runtime.run(&bundle, "no-process");
    assert_eq!(said.status, 1);
    assert!(said.err.contains("/process: is missing: there is nothing to start"), "{}", said.err);
    assert_eq!(runtime.ok(["list", "-q"]).out, "", "run is refused before anything is made");
    runtime.created(&bundle, "no-process");
    let said = runtime.say(["start", "no-process"]);
    assert_eq!((said.status, said.err.lines().count()), (1, 1), "{}", said.err);
    assert!(said.err.contains("/process: is missing: there is nothing to start"), "{}", said.err);
    assert_eq!(runtime.status("no-process"), "created");
    runtime.ok(["delete", "no-process"]);
}

#[test]
fn an_id_that_is_no_name_is_refused_by_every_verb() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("ids", &["true"]);
    let long = "x".repeat(300);
    let mebi = "y".repeat(100_000);
    for id in [
        "..",
        ".",
        "../x",
        "a/b",
        "/",
        "/etc",
        "",
        "a b",
        "a\nb",
        "ä",
        ".x",
        "a\\b",
        "x\u{1b}[2J",
        &long,
        &mebi,
    ] {
        for verb in ["create", "run", "start", "state", "kill", "delete", "ps", "pause", "resume"] {
            let mut args: Vec<&OsStr> = vec![verb.as_ref()];
            if matches!(verb, "create" | "run") {
                args.extend([OsStr::new("--bundle"), bundle.path().as_os_str()]);
            }
            args.push(id.as_ref());
            let said = soon(&runtime, "ids", &args, Path::new("/"));
            assert_refused(&runtime, "ids", &said, &format!("{verb} {id:.40?}"));
        }
        let said = soon(&runtime, "ids", &["delete", "--force", id], Path::new("/"));
        assert_refused(&runtime, "ids", &said, &format!("delete --force {id:.40?}"));
        let said = soon(&runtime, "ids", &["exec", id, "true"], Path::new("/"));
        assert_eq!((said.status, said.err.lines().count()), (255, 1), "exec {id:.40?}: {}", said.err);
    }
}

#[test]
fn words_that_are_no_utf_8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let runtime = Runtime::new();
    let bundle = Bundle::new("bytes", &["true"]);
    let odd = OsStr::from_bytes(b"a\xff");
    for args in [
        vec![OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), odd],
        vec![OsStr::new("state"), odd],
        vec![odd],
        vec![OsStr::new("kill"), OsStr::new("x"), odd],
    ] {
        let said = soon(&runtime, "bytes", &args, Path::new("/"));
        assert_refused(&runtime, "bytes", &said, &format!("{args:?}"));
    }
}

#[test]
fn a_config_that_is_no_regular_file_is_refused() {
    let runtime = Runtime::new();
    type Make = fn(&Path);
    let table: [(&str, Make, &str); 8] = [
        ("missing", |_| {}, "config.json not found in"),
        ("a folder", |p| fs::create_dir(p).expect("mkdir"), "config.json"),
        ("a fifo", |p| nix::unistd::mkfifo(p, nix::sys::stat::Mode::S_IRUSR).expect("mkfifo"), "config.json"),
        ("a dangling symlink", |p| symlink("nowhere", p).expect("symlink"), "config.json not found in"),
        ("a symlink to itself", |p| symlink("config.json", p).expect("symlink"), "config.json"),
        ("a device", |p| symlink("/dev/zero", p).expect("symlink"), "config.json"),
        ("empty", |p| fs::write(p, "").expect("write"), "config.json"),
        (
            "of 20 MiB",
            |p| fs::write(p, format!("{{\"x\":\"{}\"}}", "y".repeat(20 << 20))).expect("write"),
            "config.json",
        ),
    ];
    for (name, make, phrase) in table {
        let bundle = Bundle::new("config", &["true"]);
        let path = bundle.path().join("config.json");
        fs::remove_file(&path).expect("remove");
        make(&path);
        let args =
            [OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new("config")];
        let said = soon(&runtime, "config", &args, Path::new("/"));
        assert_refused(&runtime, "config", &said, name);
        assert!(said.err.contains(phrase), "{name}: {}", said.err);
    }
}

#[test]
fn a_bundle_that_is_none_is_refused() {
    let runtime = Runtime::new();
    let folder = Folder::new("nobundle");
    fs::write(folder.path().join("file"), "").expect("write");
    symlink("loop", folder.path().join("loop")).expect("symlink");
    for name in ["missing", "file", "loop", "missing/../file", ""] {
        let path = if name.is_empty() { PathBuf::new() } else { folder.path().join(name) };
        for verb in ["create", "run"] {
            let args = [OsStr::new(verb), OsStr::new("--bundle"), path.as_os_str(), OsStr::new("nobundle")];
            let said = soon(&runtime, "nobundle", &args, folder.path());
            assert_refused(&runtime, "nobundle", &said, &format!("{verb} --bundle {name:?}"));
        }
    }
}

#[test]
fn a_root_that_is_no_folder_is_refused_and_named() {
    let runtime = Runtime::new();
    type Make = fn(&Path);
    let table: [(&str, Make); 6] = [
        ("missing", |_| {}),
        // runc too takes none: who may write the bundle must not choose a folder elsewhere.
        ("a symlink to a folder", |p| symlink("elsewhere", p).expect("symlink")),
        ("a file", |p| fs::write(p, "").expect("write")),
        ("a dangling symlink", |p| symlink("nowhere", p).expect("symlink")),
        ("a symlink to itself", |p| symlink("rootfs", p).expect("symlink")),
        ("a fifo", |p| nix::unistd::mkfifo(p, nix::sys::stat::Mode::S_IRUSR).expect("mkfifo")),
    ];
    for (name, make) in table {
        let bundle = Bundle::new("root", &["true"]);
        fs::rename(bundle.root(), bundle.path().join("elsewhere")).expect("rename");
        make(&bundle.root());
        let args =
            [OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new("root")];
        let said = soon(&runtime, "root", &args, Path::new("/"));
        assert_refused(&runtime, "root", &said, name);
        assert!(said.err.contains("rootfs") && said.err.contains("/root/path"), "{name}: {}", said.err);
    }
}

#[test]
fn a_root_folder_that_is_broken_is_refused_and_list_lives_with_what_lies_in_it() {
    let runtime = Runtime::new();
    // What a killed create, an older version or a person may leave.
    fs::create_dir(runtime.root().join("empty")).expect("mkdir");
    fs::create_dir(runtime.root().join("garbage")).expect("mkdir");
    fs::write(runtime.root().join("garbage/state.json"), "{\"pid\": ").expect("write");
    fs::create_dir(runtime.root().join("folder")).expect("mkdir");
    fs::create_dir(runtime.root().join("folder/state.json")).expect("mkdir");
    fs::write(runtime.root().join("file"), "").expect("write");
    symlink("/etc", runtime.root().join("link")).expect("symlink");
    let listed = runtime.ok(["list", "--quiet"]).out;
    assert_eq!(listed, "empty\nfolder\ngarbage\n");
    runtime.ok(["list"]);
    for id in ["garbage", "folder"] {
        let said = runtime.say(["state", id]);
        assert_eq!((said.status, said.err.lines().count()), (1, 1), "{id}: {}", said.err);
    }
    for id in ["empty", "garbage", "folder"] {
        runtime.ok(["delete", "--force", id]);
        assert!(!runtime.root().join(id).exists(), "{id}");
    }
    assert_eq!(runtime.say(["state", "link"]).status, 1);
    runtime.ok(["delete", "--force", "link"]);
    assert!(Path::new("/etc/passwd").exists());
    // The root itself.
    let file = runtime.root().join("file");
    let bundle = Bundle::new("badroot", &["true"]);
    let output = Command::new(runtime.binary())
        .arg("--root")
        .arg(&file)
        .args([OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new("x")])
        .output()
        .expect("execute");
    let said = said(&output);
    assert_eq!((said.status, said.err.lines().count()), (1, 1), "{}", said.err);
    assert!(said.err.contains("file"), "{}", said.err);
}

#[test]
fn sockets_and_files_that_do_not_work_are_named_and_leave_nothing() {
    let runtime = Runtime::new();
    let folder = Folder::new("files");
    fs::write(folder.path().join("file"), "").expect("write");
    let [file, nowhere] =
        ["file", "no/where"].map(|n| folder.path().join(n).to_str().expect("UTF-8").to_string());
    let tty = Bundle::new("files", &["true"]).with(|config| config["process"]["terminal"] = true.into());
    let plain = Bundle::new("files", &["true"]);
    for (bundle, options, phrase) in [
        (&tty, vec!["--console-socket", file.as_str()], "--console-socket"),
        (&tty, vec!["--console-socket", nowhere.as_str()], "--console-socket"),
        (&tty, vec![], "cannot allocate tty if runc will detach without setting console socket"),
        (
            &plain,
            vec!["--console-socket", file.as_str()],
            "cannot use console socket if runc will not detach or allocate tty",
        ),
        (&plain, vec!["--pid-file", nowhere.as_str()], "no/"),
        (&plain, vec!["--pidfd-socket", nowhere.as_str()], "--pidfd-socket"),
        (&plain, vec!["--preserve-fds", "1000"], "preserved-fd"),
        (&plain, vec!["--preserve-fds", "many"], "--preserve-fds"),
        (&plain, vec!["--preserve-fds", "4294967295"], "--preserve-fds"),
        (&plain, vec!["--no-such-option"], "no-such-option"),
        (&plain, vec!["--pid-file"], ""),
    ] {
        let mut args: Vec<&OsStr> = vec!["create".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str()];
        args.push("files".as_ref());
        args.extend(options.iter().map(OsStr::new));
        let said = soon(&runtime, "files", &args, Path::new("/"));
        assert_refused(&runtime, "files", &said, &format!("{options:?}"));
        assert!(said.err.contains(phrase), "{options:?}: {}", said.err);
    }
    let kind = fs::symlink_metadata(folder.path().join("file")).expect("there").file_type();
    assert!(kind.is_file() && !kind.is_socket(), "the file is as it was");
}

#[test]
fn a_process_file_that_is_wrong_is_refused_and_the_container_goes_on() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("procfile", &["sh", "-c", "echo up; exec sleep 1000"]);
    assert_eq!(runtime.detached(&bundle, "procfile").line(), "up");
    let folder = Folder::new("procfile");
    let path = folder.path().join("process.json");
    let pid_file = folder.path().join("pid");
    let mebi =
        format!("{{\"cwd\":\"/\",\"user\":{{\"uid\":0,\"gid\":0}},\"args\":[\"{}\"]}}", "x".repeat(1 << 20));
    for (text, phrase) in [
        ("", "process.json"),
        ("{", "process.json"),
        ("[]", ""),
        ("{\"args\":[]}", "/cwd"),
        ("{\"cwd\":\"/\",\"user\":{\"uid\":0,\"gid\":0}}", "args"),
        ("{\"cwd\":\"tmp\",\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"true\"]}", "cwd"),
        ("{\"cwd\":\"/\",\"user\":{\"uid\":\"root\",\"gid\":0},\"args\":[\"true\"]}", "uid"),
        ("{\"cwd\":\"/\",\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"a\\u0000b\"]}", "NUL"),
        ("{\"cwd\":\"/nowhere\",\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"true\"]}", "/nowhere"),
        (&mebi, "args"),
    ] {
        fs::write(&path, text).expect("write");
        let mut command = runtime.command([
            OsStr::new("exec"),
            OsStr::new("--process"),
            path.as_os_str(),
            OsStr::new("--pid-file"),
            pid_file.as_os_str(),
            OsStr::new("procfile"),
        ]);
        let said = said(&command.output().expect("execute"));
        assert_eq!((said.status, said.err.lines().count()), (255, 1), "{text:.100}: {:.400}", said.err);
        assert!(said.err.contains(phrase), "{text:.100}: {:.400}", said.err);
        assert!(said.err.len() < 1500, "{text:.100}: {} bytes", said.err.len());
        assert!(!pid_file.exists(), "{text:.100}: the pid file tells conmon that the process ran");
    }
    let pids: Vec<i32> =
        serde_json::from_str(&runtime.ok(["ps", "--format", "json", "procfile"]).out).expect("pids");
    assert_eq!(pids.len(), 1);
    assert_eq!(runtime.status("procfile"), "running");
}

#[test]
fn odd_paths_are_taken_or_refused_and_never_half() {
    use std::os::unix::ffi::OsStrExt;
    let runtime = Runtime::new();
    let folder = Folder::new("odd");
    let names: [&[u8]; 5] = [b"with space", b"new\nline", b"quote\"s'", "größe".as_bytes(), b"no\xffutf"];
    for name in names {
        let bundle = Bundle::new("odd", &["echo", "in"]);
        let path = folder.path().join(OsStr::from_bytes(name));
        fs::rename(bundle.path(), &path).expect("rename");
        let args = ["run".as_ref(), "--keep".as_ref(), "--bundle".as_ref(), path.as_os_str(), "odd".as_ref()];
        let said = soon(&runtime, "odd", &args, Path::new("/"));
        if std::str::from_utf8(name).is_err() {
            assert_refused(&runtime, "odd", &said, "a bundle whose path is no UTF-8");
        } else {
            assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, "in\n", ""), "{path:?}");
            assert_eq!(runtime.state("odd")["bundle"], path.to_str().expect("UTF-8"));
            assert_eq!(runtime.ok(["list"]).out.lines().count(), 2, "a path does not forge a row");
            runtime.ok(["delete", "odd"]);
        }
    }
    // Deeper than a socket's address reaches (unix(7)).
    let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).expect("mkdir");
    let bundle = Bundle::new("deep", &["echo", "deep"]);
    let at = |words: &[&OsStr]| {
        let mut command = Command::new(runtime.binary());
        command.arg("--root").arg(&deep).args(words).stdin(Stdio::null());
        runtime.without_pipes(&mut command)
    };
    let deep_id = OsStr::new("odd-deep");
    let said = at(&["create".as_ref(), "--bundle".as_ref(), bundle.path().as_os_str(), deep_id]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let said = at(&["start".as_ref(), deep_id]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let said = at(&["delete".as_ref(), "-f".as_ref(), deep_id]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
}

#[test]
fn a_container_without_a_process_is_created_and_never_started() {
    let runtime = Runtime::new();
    let bundle = Bundle::new("noprocess", &["true"]).with(|config| {
        config.as_object_mut().expect("object").remove("process");
    });
    let path = bundle.path().as_os_str();
    let said = soon(
        &runtime,
        "run",
        &["run".as_ref(), "--bundle".as_ref(), path, "noprocess".as_ref()],
        Path::new("/"),
    );
    assert_refused(&runtime, "run", &said, "run");
    assert!(said.err.contains("/process"), "{}", said.err);
    runtime.created(&bundle, "noprocess");
    let said = runtime.say(["start", "noprocess"]);
    assert_eq!((said.status, said.err.lines().count()), (1, 1), "{}", said.err);
    assert!(said.err.contains("/process"), "{}", said.err);
    assert_eq!(runtime.status("noprocess"), "created");
    runtime.ok(["delete", "noprocess"]);
}
