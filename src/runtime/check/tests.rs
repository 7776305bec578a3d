//! What `check` tells of broken configs is what `create` would, and each of it at once.

use super::*;
use crate::scratch::Folder;
use runtime_tests::broken_configs::{broken_configs, good_config};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A bundle with a static program in its root, or what the kernel takes for one.
fn bundle(name: &str, config: &str) -> Folder {
    let folder = Folder::new(name);
    for part in ["rootfs/bin", "rootfs/etc", "rootfs/proc", "rootfs/dev"] {
        fs::create_dir_all(folder.path().join(part)).unwrap();
    }
    program(&folder, "bin/true", &elf());
    fs::write(folder.path().join("config.json"), config).unwrap();
    folder
}

fn elf() -> Vec<u8> {
    let mut file = vec![0; 128];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file
}

fn program(folder: &Folder, path: &str, text: &[u8]) {
    let path = folder.path().join("rootfs").join(path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn checked(folder: &Folder) -> Report {
    check(&Options { bundle: folder.path().to_path_buf(), ..Options::default() })
}

/// The errors as `pointer: message`, without those of the machine that the test happens to run on.
fn errors(report: &Report) -> Vec<String> {
    let of_config = |finding: &&Finding| {
        finding.level == Level::Error && !(finding.code == "host" && finding.pointer == "/linux/namespaces")
    };
    let told = report.findings.iter().filter(of_config);
    told.map(|finding| format!("{}: {}", finding.pointer, finding.message)).collect()
}

fn with(changes: &[(&str, Value)]) -> String {
    let mut config = good_config();
    for (at, value) in changes {
        let (above, name) = at.rsplit_once('/').unwrap();
        match config.pointer_mut(above).unwrap_or_else(|| panic!("{above}")) {
            Value::Array(list) if name == "-" => list.push(value.clone()),
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value.clone(),
            Value::Object(fields) => drop(fields.insert(name.to_string(), value.clone())),
            other => panic!("{other}"),
        }
    }
    config.to_string()
}

#[test]
fn the_first_error_of_each_broken_config_is_the_one_of_create_and_comes_with_a_remedy() {
    let mut wrong = String::new();
    for broken in broken_configs() {
        let folder = bundle("check-broken", &broken.text);
        let report = checked(&folder);
        let Some(first) = report.findings.first().filter(|finding| finding.level == Level::Error) else {
            wrong += &format!("{}: no error\n", broken.name);
            continue;
        };
        let parsed = spec::parse(broken.text.as_bytes()).err();
        // What `spec` refuses; the rest is refused by what comes after it, and the black-box test compares that.
        if let Some(error) = &parsed
            && !error.to_string().contains(&first.message)
        {
            wrong += &format!("{}: {} is not {error}\n", broken.name, first.message);
        }
        if first.remedy.as_deref().unwrap_or_default().is_empty() {
            wrong += &format!("{}: no remedy for {}: {}\n", broken.name, first.pointer, first.message);
        }
        // One fault is one error: what only follows from it is not told. Without a mount namespace several fields are wrong.
        let of_spec = |finding: &&Finding| finding.level == Level::Error && finding.code != "host";
        let all: Vec<&Finding> = report.findings.iter().filter(of_spec).collect();
        if all.len() > 1 && !broken.name.contains("without mount namespace") {
            wrong += &format!("{}: {all:#?}\n", broken.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn all_faults_of_a_config_are_told_at_once_where_they_stood() {
    let folder = bundle(
        "check-all",
        &with(&[
            ("/ociVersion", json!("2.0.0")),
            ("/process/cwd", json!(5)),
            ("/process/env/-", json!("NOVALUE")),
            ("/process/env/-", json!("=x")),
            ("/mounts/0", json!({"destination": 3})),
            ("/mounts/-", json!({"destination": "/a", "type": "bind"})),
            ("/linux/namespaces/1/type", json!("net")),
            ("/linux/maskedPaths/0", json!("proc/kcore")),
            ("/root/readOnly", json!(true)),
        ]),
    );
    let report = checked(&folder);
    let mut told: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Error && finding.code != "host")
        .map(|finding| finding.pointer.as_str())
        .collect();
    told.sort_unstable();
    let expected = [
        "/linux/maskedPaths/0",
        "/linux/namespaces/1/type",
        "/mounts/0/destination",
        "/mounts/2/source",
        "/ociVersion",
        "/process/cwd",
        "/process/env/1",
        "/process/env/2",
    ];
    assert_eq!(told, expected, "{report:#?}");
    let slip = report.findings.iter().find(|finding| finding.pointer == "/root/readOnly").unwrap();
    assert_eq!((slip.level, slip.remedy.as_deref()), (Level::Warning, Some("did you mean `readonly`?")));
    assert_eq!(report.errors + report.warnings + report.notes, report.findings.len());
}

#[test]
fn what_the_root_lacks_is_told_before_it_is_missed() {
    type Make = fn(&Folder);
    /// Name, what is put into the config, what is done to the bundle, how the one error begins.
    type Row<'a> = (&'a str, &'a [(&'a str, Value)], Make, &'a str);
    let table: [Row<'_>; 16] = [
        ("a good one", &[], |_| {}, ""),
        (
            "no root",
            &[],
            |f| fs::rename(f.path().join("rootfs"), f.path().join("x")).unwrap(),
            "/root/path: open",
        ),
        (
            "empty root",
            &[],
            |f| {
                fs::remove_dir_all(f.path().join("rootfs")).unwrap();
                fs::create_dir(f.path().join("rootfs")).unwrap();
            },
            "/root/path: the folder is empty",
        ),
        (
            "not there",
            &[("/process/args", json!(["/bin/app"]))],
            |_| {},
            "/process/args/0: there is no /bin/app in the root",
        ),
        (
            "not in PATH",
            &[("/process/args", json!(["app"]))],
            |_| {},
            "/process/args/0: \"app\" is in no folder of PATH: executable file not found in $PATH",
        ),
        (
            "no PATH",
            &[("/process/args", json!(["true"])), ("/process/env", json!(["A=b"]))],
            |_| {},
            "/process/env: there is no PATH",
        ),
        (
            "not executable",
            &[("/process/args", json!(["data"]))],
            |f| fs::write(f.path().join("rootfs/bin/data"), "x").unwrap(),
            "/process/args/0: /bin/data is not executable: permission denied",
        ),
        ("a folder", &[("/process/args", json!(["/bin"]))], |_| {}, "/process/args/0: /bin is no file"),
        (
            "neither program nor script",
            &[("/process/args", json!(["text"]))],
            |f| program(f, "bin/text", b"echo hello\n"),
            "/process/args/0: /bin/text is neither a program nor a script: exec format error",
        ),
        (
            "another processor",
            &[("/process/args", json!(["s390"]))],
            |f| {
                let mut file = elf();
                file[18..20].copy_from_slice(&22_u16.to_le_bytes());
                program(f, "bin/s390", &file);
            },
            "/process/args/0: /bin/s390 is a program for S/390",
        ),
        (
            "no interpreter",
            &[("/process/args", json!(["script"]))],
            |f| program(f, "bin/script", b"#!/usr/bin/env python3\n"),
            "/process/args/0: /bin/script is a script for /usr/bin/env, which is not in the root",
        ),
        (
            "an interpreter behind a link",
            &[("/process/args", json!(["script"]))],
            |f| {
                program(f, "bin/script", b"#!/sbin/true -x\n");
                symlink("bin", f.path().join("rootfs/sbin")).unwrap();
            },
            "",
        ),
        (
            "cwd is a file",
            &[("/process/cwd", json!("/bin/true"))],
            |_| {},
            "/process/cwd: /bin/true is no folder",
        ),
        (
            "a mount below a file",
            &[("/mounts/-", json!({"destination": "/bin/true/x", "type": "tmpfs"}))],
            |_| {},
            "/mounts/2/destination: /bin/true is no folder",
        ),
        (
            "no source",
            &[("/mounts/-", json!({"destination": "/a", "type": "bind", "source": "nowhere"}))],
            |_| {},
            "/mounts/2/source: open",
        ),
        (
            "a hook that is not there",
            &[("/hooks", json!({"poststart": [{"path": "/nowhere/hook"}]}))],
            |_| {},
            "/hooks/poststart/0/path: there is no file /nowhere/hook",
        ),
    ];
    for (name, changes, make, expected) in table {
        let mut config: Value = serde_json::from_str(&with(&[])).unwrap();
        config["hooks"] = json!({});
        let folder = bundle("check-root", &config.to_string());
        let text = with(changes);
        fs::write(folder.path().join("config.json"), text).unwrap();
        make(&folder);
        let all = errors(&checked(&folder));
        let all: Vec<&String> = all.iter().filter(|line| !line.contains("CAP_MKNOD")).collect();
        match expected {
            "" => assert!(all.is_empty(), "{name}: {all:?}"),
            _ => assert!(all.len() == 1 && all[0].starts_with(expected), "{name}: {all:#?}"),
        }
    }
}

#[test]
fn a_mount_that_another_hides_is_a_warning() {
    let mount = |destination: &str| json!({"destination": destination, "type": "tmpfs"});
    let folder =
        bundle("check-hidden", &with(&[("/mounts/-", mount("/run/a")), ("/mounts/-", mount("/run"))]));
    let report = checked(&folder);
    let found = report.findings.iter().find(|finding| finding.pointer == "/mounts/2/destination").unwrap();
    assert_eq!(found.level, Level::Warning);
    assert_eq!(found.message, "it is hidden by /mounts/3, which is mounted on /run later");
}

#[test]
fn a_word_that_a_bind_mount_leaves_aside_is_a_note() {
    let mount = |destination: &str, kind: &str, options: Value| json!({"destination": destination, "type": kind, "source": "/tmp", "options": options});
    let all = json!([
        "rbind",
        "ro",
        "nosuid",
        "noatime",
        "rprivate",
        "size=64k",
        "mode=755",
        "sync",
        "acl",
        "tmpcopyup"
    ]);
    let changes = [
        ("/mounts/-", mount("/a", "bind", all.clone())),
        ("/mounts/-", mount("/b", "none", json!(["bind", "rw", "rslave", "rro", "noexec", "defaults"]))),
        ("/mounts/-", mount("/c", "tmpfs", json!(["size=64k", "mode=755", "sync", "tmpcopyup"]))),
    ];
    let report = checked(&bundle("check-binds", &with(&changes)));
    let notes = report.findings.iter().filter(|finding| finding.message.contains("a bind mount makes none"));
    let told: Vec<(Level, &str, &str)> = notes
        .map(|finding| {
            let word = finding.message.split('"').nth(1).unwrap_or_default();
            (finding.level, finding.pointer.as_str(), word)
        })
        .collect();
    let expected: Vec<(Level, String, &str)> =
        (5..10).map(|j| (Level::Note, format!("/mounts/2/options/{j}"), all[j].as_str().unwrap())).collect();
    let told: Vec<_> = told.into_iter().map(|(level, at, word)| (level, at.to_string(), word)).collect();
    assert_eq!(told, expected, "{report:#?}");
}

#[test]
fn a_bundle_that_is_none_is_one_error() {
    for (path, expected) in
        [("/nowhere/at/all", "bundle /nowhere/at/all: "), ("/proc", "JSON specification file")]
    {
        let report = check(&Options { bundle: path.into(), ..Options::default() });
        assert_eq!((report.errors, report.findings.len()), (1, 1));
        assert!(report.findings[0].message.starts_with(expected), "{report:?}");
    }
}
