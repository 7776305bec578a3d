//! Whole conversions: how words become a command line, and golden configs (`RCRUN_BLESS=1` rewrites them).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn image(config: Value) -> Config {
    let text = json!({
        "os": "linux",
        "architecture": "amd64",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [D] },
    });
    Config::parse("image", text.to_string().as_bytes(), 1).unwrap()
}

fn root() -> (tempfile::TempDir, RootFiles) {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("etc")).unwrap();
    fs::write(place.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:33::/srv:/bin/sh\n")
        .unwrap();
    fs::write(place.path().join("etc/group"), "root:x:0:\ntty:x:5:web\nwww-data:x:33:web\n").unwrap();
    let root = RootFiles::open(place.path()).unwrap();
    (place, root)
}

fn convert(image: &Config, said: &Said) -> Result<Converted> {
    let (_place, root) = root();
    let around = Surroundings { root_path: "rootfs".into(), ..Surroundings::default() };
    config(image, said, &around, &root)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

#[test]
fn entrypoint_and_command_combine_as_in_docker() {
    // The image's Entrypoint and Cmd, --entrypoint, the words after the image.
    for (entrypoint, cmd, said, command, expected) in [
        ("", "sh", None, "", Ok("sh")),
        ("/e x", "", None, "", Ok("/e x")),
        ("/e x", "a b", None, "", Ok("/e x a b")),
        ("/e x", "a b", None, "c", Ok("/e x c")),
        ("", "a b", None, "c d", Ok("c d")),
        ("/e x", "a b", Some("/o"), "", Ok("/o")),
        ("/e x", "a b", Some("/o"), "c", Ok("/o c")),
        ("/e x", "a b", Some("/with space"), "c", Ok("/with space c")),
        ("/e x", "a b", Some(""), "c", Ok("c")),
        ("/e x", "a b", Some(""), "", Err("no command is given, and --entrypoint drops that of the image")),
        ("", "", None, "", Err("no command is given, and the image has neither Entrypoint nor Cmd")),
        ("", "", None, "c", Ok("c")),
    ] {
        let image = image(json!({ "Entrypoint": words(entrypoint), "Cmd": words(cmd) }));
        let said = Said { entrypoint: said.map(String::from), command: words(command), ..Said::default() };
        let found = convert(&image, &said).map(|c| {
            let args = c.config["process"]["args"].as_array().unwrap().clone();
            args.iter().map(|a| a.as_str().unwrap()).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(found.map_err(|e| e.to_string()), expected.map(String::from).map_err(String::from));
    }
}

#[test]
fn who_says_something_wins_over_the_image() {
    let image = image(json!({ "Cmd": ["sh"], "User": "web", "WorkingDir": "/srv", "Env": ["A=1"] }));
    let silent = convert(&image, &Said::default()).unwrap().config;
    assert_eq!(silent["process"]["user"], json!({ "uid": 1000, "gid": 33, "additionalGids": [33, 5] }));
    assert_eq!(silent["process"]["cwd"], "/srv");
    let said = Said {
        user: Some("0:5".into()),
        working_dir: Some("/tmp/x".into()),
        env: vec!["A=2".into()],
        ..Said::default()
    };
    let loud = convert(&image, &said).unwrap().config;
    assert_eq!(loud["process"]["user"], json!({ "uid": 0, "gid": 5, "additionalGids": [5] }));
    assert_eq!(loud["process"]["cwd"], "/tmp/x");
    assert_eq!(loud["process"]["env"][1], "A=2");
    let empty = Said { user: Some(String::new()), ..Said::default() };
    assert_eq!(convert(&image, &empty).unwrap().config["process"]["user"]["uid"], 1000);
}

#[test]
fn what_cannot_run_is_refused_in_words() {
    let with_command = |said: Said| Said { command: words("sh"), ..said };
    for (config, said, why) in [
        (
            json!({ "User": "nope" }),
            Said::default(),
            "the image's User: user \"nope\" is not in the root's /etc/passwd",
        ),
        (
            json!({ "User": "4294967296" }),
            Said::default(),
            "the image's User: 4294967296 is no id: they go from 0 to 4294967294",
        ),
        (json!({ "User": "a\u{0}" }), Said::default(), "the image's User contains a NUL byte"),
        (json!({ "Env": ["A=\u{0}"] }), Said::default(), "the image's Env contains a NUL byte"),
        (json!({ "Volumes": { "/\u{0}": {} } }), Said::default(), "the image's Volumes contains a NUL byte"),
        (json!({ "Env": ["*"] }), Said::default(), "the image's Env[0] is \"*\", not NAME=value"),
        (
            json!({ "WorkingDir": "srv" }),
            Said::default(),
            "the image's WorkingDir is \"srv\", not an absolute path",
        ),
        (
            json!({}),
            Said { working_dir: Some("x".into()), ..Said::default() },
            "--workdir is \"x\", not an absolute path",
        ),
        (
            json!({}),
            Said { user: Some("nope".into()), ..Said::default() },
            "--user: user \"nope\" is not in the root's /etc/passwd",
        ),
        (
            json!({}),
            Said { hostname: Some("a b".into()), ..Said::default() },
            "--hostname \"a b\": not 1 to 64 letters, digits, dots and dashes",
        ),
    ] {
        let error = convert(&image(config), &with_command(said)).unwrap_err();
        assert_eq!(error.to_string(), why);
    }
    let mut windows = image(json!({}));
    windows.platform.os = "windows".into();
    let error = convert(&windows, &with_command(Said::default())).unwrap_err().to_string();
    assert_eq!(error, "the image is for \"windows\", not for \"linux\"");
}

#[test]
fn a_fifo_as_passwd_is_an_error_for_who_needs_it_only() {
    let (place, root) = root();
    let passwd = place.path().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    let user = |user: &str| {
        let image = image(json!({ "Cmd": ["sh"], "User": user }));
        config(&image, &Said::default(), &Surroundings::default(), &root)
            .map(|c| c.config["process"]["user"].clone())
    };
    let why = "the image's User: /etc/passwd in the root is a FIFO, not a file";
    assert_eq!(user("web").unwrap_err().to_string(), why);
    assert_eq!(user("1000").unwrap_err().to_string(), why);
    assert_eq!(user("").unwrap(), json!({ "uid": 0, "gid": 0 }));
    assert_eq!(user("7:8").unwrap(), json!({ "uid": 7, "gid": 8, "additionalGids": [8] }));
}

#[test]
fn limits_are_those_that_docker_sets() {
    let image = image(json!({ "Cmd": ["sh"] }));
    let said = Said {
        memory: memory("64m").unwrap(),
        cpus: Cpus::parse("1.5").unwrap(),
        pids_limit: 100,
        ..Said::default()
    };
    let resources = convert(&image, &said).unwrap().config["linux"]["resources"].clone();
    assert_eq!(resources["memory"], json!({ "limit": 67108864, "swap": 134217728 }));
    assert_eq!(resources["cpu"], json!({ "quota": 150000, "period": 100000 }));
    assert_eq!(resources["pids"], json!({ "limit": 100 }));
    for pids_limit in [0, -1] {
        let said = Said { pids_limit, ..Said::default() };
        let resources = convert(&image, &said).unwrap().config["linux"]["resources"].clone();
        assert_eq!(resources, json!({ "devices": [{ "allow": false, "access": "rwm" }] }));
    }
    let most = Said { memory: i64::MAX as u64, ..Said::default() };
    let resources = convert(&image, &most).unwrap().config["linux"]["resources"].clone();
    assert_eq!(resources["memory"]["swap"], json!(i64::MAX));
}

/// An image that uses every field.
fn full() -> Config {
    let text = json!({
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "os.features": ["x"],
        "author": "someone",
        "created": "2024-01-02T03:04:05Z",
        "config": {
            "User": "web",
            "ExposedPorts": { "80/tcp": {}, "443/tcp": {} },
            "Env": ["PATH=/bin", "LANG=C.UTF-8"],
            "Entrypoint": ["/docker-entrypoint.sh"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Volumes": { "/var/cache": {}, "/srv/data/": {} },
            "WorkingDir": "/srv",
            "Labels": { "maintainer": "someone else", "run.oci.handler": "krun", "org.opencontainers.image.author": "label" },
            "StopSignal": "SIGRTMIN+3",
            "Healthcheck": { "Test": ["x"] },
            "OnBuild": null,
        },
        "rootfs": { "type": "layers", "diff_ids": [D] },
    });
    Config::parse("image", text.to_string().as_bytes(), 1).unwrap()
}

/// Everything that can be said.
fn loud() -> (Said, Surroundings) {
    let volume = |text: &str| Volume::parse(text, Path::new("/home/me")).unwrap();
    let said = Said {
        command: words("top -b"),
        entrypoint: Some("/bin/env".into()),
        terminal: true,
        env: words("LANG=de_DE LS_COLORS ABSENT"),
        volumes: vec![volume("./src:/srv/data/src:ro"), volume("/scratch"), volume("/tmp:/var/cache:rslave")],
        user: Some("1000:tty".into()),
        working_dir: Some("/work".into()),
        read_only: true,
        hostname: Some("box".into()),
        memory: 512 << 20,
        cpus: Cpus::parse("0.5").unwrap(),
        pids_limit: 64,
        network: Network::Host,
        seccomp: Seccomp::Profile(json!({ "defaultAction": "SCMP_ACT_ALLOW" })),
    };
    let around = Surroundings {
        root_path: "/run/x/root".into(),
        environment: [("LS_COLORS".to_string(), "a=1".to_string())].into(),
        hostname: Some("unused".into()),
        hosts: Some("/run/x/hosts".into()),
        resolv_conf: Some("/run/x/resolv.conf".into()),
        hostname_file: Some("/run/x/hostname".into()),
        nested: String::new(),
        groups: Some(65536),
        selinux: false,
    };
    (said, around)
}

#[test]
fn golden_configs_are_as_they_were() {
    let least = (Said::default(), Surroundings { root_path: "rootfs".into(), ..Surroundings::default() });
    let named = Surroundings { hostname: Some("0123456789ab".into()), ..least.1.clone() };
    let (_place, root) = root();
    for (name, image, (said, around)) in [
        ("least", image(json!({ "Cmd": ["sh"] })), least),
        ("full", full(), (Said::default(), named)),
        ("loud", full(), loud()),
    ] {
        let converted = config(&image, &said, &around, &root).unwrap();
        let whole = converted.whole();
        let _: oci_spec::runtime::Spec = serde_json::from_value(whole.clone()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&converted.text()).unwrap(), whole, "{name}");
        match said.seccomp == Seccomp::Default {
            true => {
                let profile = &whole["linux"]["seccomp"];
                assert_eq!(*profile, seccomp::profile(&defaults::CAPABILITIES, "amd64"), "{name}");
            }
            false => assert_eq!(whole, converted.config, "{name}"),
        }
        let mut found = serde_json::to_string_pretty(&converted.config).unwrap();
        found.push('\n');
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/configs/{name}.json"));
        if std::env::var_os("RCRUN_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &found).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert_eq!(found, expected, "{name}: RCRUN_BLESS=1 rewrites it, if this is meant");
    }
}

#[test]
fn what_the_caller_has_to_do_is_told_beside_the_config() {
    let (_place, root) = root();
    let converted = config(&full(), &Said::default(), &Surroundings::default(), &root).unwrap();
    assert_eq!(converted.volumes, ["/srv/data", "/var/cache"]);
    assert_eq!(converted.stop_signal, "SIGRTMIN+3");
    let denied: Vec<&str> = converted.denied.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(denied, ["run.oci.handler"]);
    let (said, around) = loud();
    let converted = config(&full(), &said, &around, &root).unwrap();
    assert_eq!(converted.volumes, ["/scratch", "/srv/data"]);
}
