//! Makes the seeds of all targets: `seeds FOLDER`. Those of images are what their tests made, which ran with
//! RCRUN_SEEDS=FOLDER before; those of containers are the configs of the golden plans and the samples of what engines write.
//! Uses: rcrun_fuzz, rcrun_image::compression, serde_json, tar.
//!
//! Layers come from the tests as they are. Archives hold layers far larger than what a fuzzer can change well, and nobody
//! reads them to select an image: they are cut short. Documents are the archives' members.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rcrun_image::compression::decompress;
use serde_json::{Value, json};

/// Members of archives, and layers, that are larger are cut or left out.
const SMALL: usize = 4 << 10;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nshort\nbad:x:4294967295:0::/:/bin/sh\nnegative:x:-1:-1::/:\n\
    worse:x:7:x::/:/bin/sh\nempty:x:::::\nweb:x:1000:33:Web,,,:/srv:/bin/sh\nweb:x:0:0:second:/:/bin/sh\n1000:x:5:5::/:\n";
const GROUP: &str = "root:x:0:\ntty:x:5:web\nwww-data:x:33:web,other\naudio:x:29:other,web\nagain:x:5:web\nbad:x:x:web\n\
    over:x:4294967296:web\nfive:x:2000:1000\n";
const USERS: &[&str] = &[
    "",
    "0",
    "root",
    "1000",
    "1000:1000",
    "web",
    "web:",
    "web:tty",
    "web:0",
    "1000:tty",
    ":5",
    ":tty",
    ":",
    " ",
    "-1",
    "+0",
    "bad",
    "negative",
    "worse",
    "empty",
    "short",
    "# a comment",
    "4294967294",
    "4294967295:0",
    "0:4294967296",
    "0:0:0",
    "web:over",
    "web:bad",
    "web:nobody",
];
const NAMES: &[&str] = &[
    "app",
    "app:1",
    "a/b/c:latest",
    "localhost:5000/app:1",
    "[::1]:5000/app",
    "docker.io/library/app",
    "index.docker.io/a",
    "registry.test/a-b_c__d.e/f:v1.2-3",
    "app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha256:../../x",
    "../x",
    "a//b",
    "a:..",
    "linux/amd64",
    "linux/arm64/v8",
    "linux/arm/v7",
    "512m",
    "1.5g",
    ".5k",
    "64 MiB",
    "1.5",
    "0.01",
    "2",
    "/data",
    "/a:/b",
    "./a:/b:ro,Z,rshared",
    "/a/../b:/c/../d:rw",
    "/data:ro",
];

/// For ids, users, cgroups, units, sysctls, lists, Landlock.
const IDS: &[&str] = &[
    "web",
    "_x+1-a.b",
    ".x",
    "..",
    "a/b",
    "0",
    "1000:1000",
    "007",
    "4294967294:0",
    "4294967295",
    "18446744073709551616",
    "1:-2",
    "-1",
    "/docker/0a1b",
    "//docker/./0a1b/",
    "../host",
    "/a/../../b",
    "pods/web",
    "system.slice:docker:0a1b",
    "a-b.slice:cri:x",
    "-:x:y",
    "-.slice::x+y",
    "user.slice:x:y.slice",
    "net.ipv4.ip_forward",
    "net/ipv4/conf/eno2.100/rp_filter",
    "net.ipv4.conf.eno2/100.rp_filter",
    "net/../kernel/core_pattern",
    "kernel.shmmax",
    "fs.mqueue.msg_max",
    "0-3,7",
    " 1 , 4 - 5 ,,",
    "3-1",
    "8191",
    "8192",
    "{\"read\":[\"/\"],\"execute\":[\"/bin\"],\"write\":[],\"bindTcp\":[80],\"scope\":[\"signal\"]}",
    "{\"read\":[\"x\"]}",
];
/// What `state.json` says beside what each has.
const STATES: &[&str] = &[
    "{}",
    r#"{"cgroup":["/sys/fs/cgroup","/web"]}"#,
    r#"{"cgroup":["/sys/fs/cgroup","web"]}"#,
    r#"{"cgroup":["/","/a/../.."]}"#,
    r#"{"cgroup":["",""]}"#,
    r#"{"process":{"pid":1,"start_time":0,"init_file":[0,0]}}"#,
    r#"{"process":{"pid":-1,"start_time":18446744073709551615,"init_file":[1,2]}}"#,
    r#"{"process":{"pid":0,"start_time":1,"init_file":[1,2]}}"#,
    r#"{"process":{"pid":2147483648,"start_time":1,"init_file":[1,2]}}"#,
    r#"{"process":{"pid":4194304,"start_time":1,"init_file":[1]}}"#,
    r#"{"annotations":{"a":"b","c":""}}"#,
    r#"{"annotations":{"a":1}}"#,
    r#"{"unit":{"name":"rcrun-web.scope","user":false}}"#,
    r#"{"hooks":true,"startable":false,"noPivot":true,"leftBehind":["/proc","/sys"]}"#,
    r#"{"variables":["A=b"],"notify":true}"#,
    r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"r"}]}"#,
    r#"{"devices":[{"allow":false,"type":"x"}]}"#,
    r#"{"end":{"exitCode":1}}"#,
    r#"{"id":"another","created":"2026-01-01T00:00:00.000000001Z"}"#,
    r#"{"bundle":"relative","rootfs":""}"#,
    r#"{"owner":4294967296}"#,
    r#"{"unknown":[[[[]]]]}"#,
];

fn main() {
    let folder = std::env::args_os().nth(1).expect("seeds FOLDER");
    let folder = Path::new(&folder);
    let layers = read_all(&folder.join("layer"));
    let archives = read_all(&folder.join("archive"));
    // One of each sort is enough, the smallest.
    for layer in layers.iter().filter(|layer| (1..=SMALL).contains(&layer.len())).take(40) {
        keep(folder, "compression", &gzip(layer));
        keep(folder, "compression", &zstd(layer));
        keep(folder, "compression", &[gzip(layer), gzip(b"another member")].concat());
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        keep(folder, "compression", &[skippable, zstd(layer), zstd(b"another frame")].concat());
    }
    for (number, archive) in archives.iter().enumerate() {
        let Some(small) = cut(archive, folder) else { continue };
        keep(folder, "archive", &small);
        // Each way to compress has its own way in, and one of either shows it.
        match number % 8 {
            0 => keep(folder, "archive", &gzip(&small)),
            1 => keep(folder, "archive", &zstd(&small)),
            _ => {}
        }
    }
    for user in USERS {
        keep(folder, "passwd", format!("{user}\n{PASSWD}\0{GROUP}").as_bytes());
    }
    for name in NAMES {
        keep(folder, "name", name.as_bytes());
    }
    of_containers(folder);
    for target in rcrun_fuzz::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(folder.join(target.name)).expect("each target has seeds") {
            let entry = entry.expect("readdir");
            // libFuzzer would cut them, and what is cut is broken at once.
            if entry.metadata().expect("lstat").len() > target.longest as u64 {
                fs::remove_file(entry.path()).expect("unlink");
            } else {
                count += 1;
            }
        }
        assert!(count >= 20, "{} has {count} seeds only", target.name);
        println!("{count} seeds of {}", target.name);
    }
}

fn of_containers(folder: &Path) {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut configs: Vec<PathBuf> = Vec::new();
    for (at, ending) in [("src/runtime/tests/plans", "config.json"), ("runtime-tests/samples/config", "")] {
        for entry in fs::read_dir(tree.join(at)).expect("configs of tests") {
            configs.push(entry.expect("readdir").path().join(ending));
        }
    }
    configs.retain(|path| path.extension().is_some_and(|ending| ending == "json") && path.is_file());
    for path in &configs {
        let text = fs::read(path).expect("read");
        let mut config: Value = serde_json::from_slice(&text).expect("a config is JSON");
        // Most of an engine's config is its profile, and that is another target's.
        if let Some(rules) = config.pointer_mut("/linux/seccomp/syscalls").and_then(Value::as_array_mut) {
            rules.truncate(2);
            rules
                .iter_mut()
                .filter_map(|rule| rule["names"].as_array_mut())
                .for_each(|names| names.truncate(3));
        }
        let small = config.to_string().into_bytes();
        keep(folder, "config", &small);
        if let Some(process) = config.get("process") {
            keep(folder, "config", process.to_string().as_bytes());
        }
        if let Some(resources) = config.pointer("/linux/resources") {
            keep(folder, "config", resources.to_string().as_bytes());
        }
        if let Some(image) = rcrun_fuzz::image(&small) {
            keep(folder, "plan", &image);
            // Without its first word, as the target puts one there.
            keep(folder, "plan", &image[8..]);
        }
        if let Some(seccomp) = config.pointer("/linux/seccomp") {
            keep(folder, "seccomp", seccomp.to_string().as_bytes());
        }
        for mount in config["mounts"].as_array().into_iter().flatten() {
            let options = mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let lines: Vec<&str> = mount["type"].as_str().into_iter().chain(options).collect();
            keep(folder, "mount_options", lines.join("\n").as_bytes());
        }
    }
    // Rules, actions and values by their numbers: each seed is another walk through them.
    let mut dice = 1u64;
    for length in (8..200).step_by(8) {
        let walk: Vec<u8> = (0..length)
            .map(|_| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 40) as u8
            })
            .collect();
        keep(folder, "seccomp", &walk);
        keep(folder, "start", &walk);
    }
    for id in IDS {
        keep(folder, "ids", id.as_bytes());
    }
    for more in STATES {
        let mut state = json!({
            "ociVersion": "1.3.0", "id": "web", "bundle": "/b", "rootfs": "/b/rootfs", "created": "now", "owner": 0,
            "cgroup": null, "ownPids": true, "hooks": false, "startable": true, "noPivot": false, "keyring": true,
        });
        let more: Value = serde_json::from_str(more).expect("JSON");
        more.as_object().into_iter().flatten().for_each(|(key, value)| state[key] = value.clone());
        keep(folder, "state", state.to_string().as_bytes());
    }
    // Executing alone starts it; with anything else it fails.
    keep(folder, "start", &[5; 25]);
    for kind in 0..9u8 {
        keep(folder, "start", &[&[kind; 25][..], &[5; 25]].concat());
    }
}

fn read_all(folder: &Path) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = fs::read_dir(folder)
        .expect("the tests of images left seeds")
        .map(|entry| fs::read(entry.expect("readdir").path()).expect("read"))
        .collect();
    all.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    all
}

fn keep(folder: &Path, target: &str, input: &[u8]) {
    let folder = folder.join(target);
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    fs::create_dir_all(&folder).expect("mkdir");
    fs::write(folder.join(format!("{:016x}", hasher.finish())), input).expect("write");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("write to memory");
    encoder.finish().expect("write to memory")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).expect("write to memory")
}

/// `archive` with its large members cut, if it is a tar of any sort. Its documents become seeds.
fn cut(archive: &[u8], folder: &Path) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    decompress(archive, None, 64 << 20).ok()?.read_to_end(&mut plain).ok()?;
    let mut small = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(&plain[..]).entries().ok()? {
        let mut entry = entry.ok()?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        if matches!(content.first(), Some(b'{' | b'[')) && content.len() <= SMALL {
            keep(folder, "manifest", &content);
        }
        content.truncate(SMALL);
        let mut header = entry.header().clone();
        header.set_size(content.len() as u64);
        header.set_cksum();
        small.append(&header, &content[..]).ok()?;
    }
    small.into_inner().ok()
}
