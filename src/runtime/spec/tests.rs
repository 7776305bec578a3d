//! Whole configs: the defaults against runc's, what engines emit, and the broken ones.

use std::fs;
use std::path::PathBuf;

use runtime_tests::broken_configs::{broken_configs, good_config};
use serde_json::{Value, json};

use super::default::{For, text};
use super::*;

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime-tests/samples")
}

fn good_with(at: &str, value: Value) -> Vec<u8> {
    let mut config = good_config();
    let (above, name) = at.rsplit_once('/').unwrap();
    config.pointer_mut(above).unwrap()[name] = value;
    serde_json::to_vec(&config).unwrap()
}

#[test]
fn the_good_config_is_good() {
    let spec = parse(good_config().to_string().as_bytes()).unwrap();
    assert_eq!(spec.warnings(), [] as [&str; 0]);
    assert_eq!(spec.hostname().as_deref(), Some("broken"));
}

#[test]
fn every_broken_config_gives_one_sentence_that_names_the_field() {
    let table = broken_configs();
    assert!(table.len() >= 60, "{}", table.len());
    let mut wrong = Vec::new();
    for broken in &table {
        let error = match parse(broken.text.as_bytes()) {
            Ok(_) => {
                wrong.push(format!("{}: is accepted", broken.name));
                continue;
            }
            Err(error) => error,
        };
        let sentence = error.to_string();
        let pointer = error.pointer().unwrap_or("none");
        // A NUL may be told at its key.
        let named =
            pointer == broken.pointer || broken.phrase == "NUL" && pointer.starts_with(&broken.pointer);
        let whole = !sentence.contains('\n') && sentence.len() < 500 && sentence.contains(pointer);
        if !named || !whole || !sentence.contains(broken.phrase) || !sentence.starts_with("config.json: ") {
            wrong.push(format!("{}: {pointer}: {sentence}", broken.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_engines_emit_is_accepted() {
    let mut seen = 0;
    for entry in fs::read_dir(samples().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        seen += 1;
        let spec = load(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(spec.warnings(), [] as [&str; 0], "{}", path.display());
    }
    assert!(seen >= 6, "only {seen} samples");
}

#[test]
fn the_default_config_is_runcs() {
    for (whose, sample) in
        [(For::Root, "runc-spec.json"), (For::Rootless { uid: 0, gid: 0 }, "runc-spec-rootless.json")]
    {
        let runc = fs::read_to_string(samples().join("config").join(sample)).unwrap();
        // The differences that the module tells.
        let caps: String = ["AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"]
            .map(|cap| format!("\t\t\t\t\"CAP_{cap}\""))
            .join(",\n");
        let ambient = format!(",\n\t\t\t\"ambient\": [\n{caps}\n\t\t\t]");
        assert!(runc.contains(&ambient));
        let expected = runc
            .replace("1.0.2-dev", OCI_VERSION)
            .replace("\"hostname\": \"runc\"", "\"hostname\": \"rcrun\"")
            .replace(&ambient, "")
            .replace("\t\t\t\"/proc/scsi\"\n", "\t\t\t\"/proc/scsi\",\n\t\t\t\"/sys/devices/virtual/tpm\"\n")
            .replace(
                "\t\t\t\t\"type\": \"mount\"\n\t\t\t}",
                "\t\t\t\t\"type\": \"mount\"\n\t\t\t},\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}",
            );
        assert_eq!(text(whose), expected, "{sample}");
        parse(text(whose).as_bytes()).unwrap();
    }
}

#[test]
fn a_rootless_default_maps_its_caller() {
    let config: Value = serde_json::from_str(&text(For::Rootless { uid: 1000, gid: 100 })).unwrap();
    assert_eq!(config.pointer("/linux/uidMappings/0/hostID"), Some(&json!(1000)));
    assert_eq!(config.pointer("/linux/gidMappings/0/hostID"), Some(&json!(100)));
}

#[test]
fn any_version_1_is_accepted() {
    for version in ["1.0.0", "1.0.0-rc5", "1.0.2-dev", "1.1.0+dev", "1.3.0", "1.42.0", "1.2.3-a.b+c.d"] {
        parse(&good_with("/ociVersion", json!(version))).unwrap_or_else(|e| panic!("{version}: {e}"));
    }
}

#[test]
fn an_unknown_capability_is_warned_about_and_not_granted() {
    let spec = parse(&good_with("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_MAGIC"]))).unwrap();
    assert_eq!(
        spec.warnings(),
        ["/process/capabilities/bounding: unknown capability \"CAP_MAGIC\" is not granted"]
    );
    let sets = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
}

#[test]
fn an_unknown_capability_does_not_hide_another_fault() {
    let mut config = good_config();
    config["process"]["capabilities"]["bounding"] = json!(["CAP_MAGIC"]);
    config["process"]["user"]["uid"] = json!("root");
    let error = parse(config.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.pointer(), Some("/process/user/uid"));
}

#[test]
fn unknown_fields_are_ignored() {
    let mut config = good_config();
    config["future"] = json!({ "windows": 1 });
    config["process"]["future"] = json!([1, 2]);
    config["linux"]["future"] = json!("freebsd");
    parse(config.to_string().as_bytes()).unwrap();
}

#[test]
fn a_backslash_before_u0000_is_no_nul() {
    let spec = parse(&good_with("/process/args", json!(["/bin/echo", "\\u0000"]))).unwrap();
    assert_eq!(spec.process().as_ref().unwrap().args().as_ref().unwrap()[1], "\\u0000");
}

#[test]
fn an_absent_pids_limit_is_not_the_limit_0() {
    for (pids, kept) in [(json!({}), false), (json!({ "limit": 0 }), true), (json!({ "limit": 7 }), true)] {
        let spec = parse(&good_with("/linux/resources/pids", pids.clone())).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert_eq!(resources.pids().is_some(), kept, "{pids}");
    }
}

#[test]
fn a_config_without_process_can_be_created() {
    let mut config = good_config();
    config.as_object_mut().unwrap().remove("process");
    parse(config.to_string().as_bytes()).unwrap();
}

#[test]
fn mounts_without_a_mount_namespace_are_warned_about() {
    let spec = parse(
        json!({
            "ociVersion": "1.0.0", "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc" }]
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    assert_eq!(spec.warnings(), ["/mounts: without a mount namespace nothing is mounted"]);
}

#[test]
fn a_namespace_is_inherited_new_or_joined() {
    let list = json!([{ "type": "pid" }, { "type": "network", "path": "/run/netns/a" }, { "type": "uts", "path": "" }, { "type": "mount" }]);
    let spec = parse(&good_with("/linux/namespaces", list)).unwrap();
    for (kind, whence) in [
        (LinuxNamespaceType::Pid, Namespace::New),
        (LinuxNamespaceType::Network, Namespace::Join(Path::new("/run/netns/a"))),
        (LinuxNamespaceType::Uts, Namespace::New),
        (LinuxNamespaceType::Ipc, Namespace::Inherit),
    ] {
        assert_eq!(spec.namespace(kind), whence, "{kind:?}");
    }
}

#[test]
fn mounts_that_engines_make_around_proc_are_accepted() {
    for mount in [
        json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] }),
        json!({ "destination": "/proc/", "type": "proc", "source": "proc" }),
        json!({ "destination": "/proc/meminfo", "type": "bind", "source": "/var/lib/lxcfs/proc/meminfo", "options": ["bind"] }),
        json!({ "destination": "/procfs", "type": "tmpfs" }),
        json!({ "destination": "/mnt/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "relative", "type": "tmpfs" }),
        json!({ "destination": "/x", "options": ["rslave"] }),
        json!({ "destination": "/x", "options": ["remount", "ro"] }),
        json!({ "destination": "/x", "type": "bind", "source": "/y", "options": ["rbind", "size=1m"] }),
    ] {
        parse(&good_with("/mounts", json!([mount]))).unwrap_or_else(|e| panic!("{mount}: {e}"));
    }
}

#[test]
fn a_process_for_exec_is_checked_as_the_one_of_a_config() {
    let good = json!({ "user": { "uid": 1, "gid": 2 }, "args": ["sh"], "cwd": "/" });
    parse_process(good.to_string().as_bytes()).unwrap();
    for (field, value, pointer) in [
        ("args", json!([]), "/args"),
        ("args", json!(null), "/args"),
        ("cwd", json!("x"), "/cwd"),
        ("env", json!(["X"]), "/env/0"),
        ("user", json!({ "uid": "1" }), "/user/uid"),
        ("env", json!(["A=\0"]), "/env/0"),
    ] {
        let mut process = good.clone();
        process[field] = value;
        let error = parse_process(process.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.pointer(), Some(pointer), "{error}");
        assert!(error.to_string().starts_with("process.json: "), "{error}");
    }
    let mut process = good.clone();
    process["capabilities"] = json!({ "effective": ["CAP_MAGIC"] });
    let process = parse_process(process.to_string().as_bytes()).unwrap();
    assert_eq!(process.warnings().len(), 1);
    let mut flags = oci::Process::default();
    flags.set_cwd("relative".into());
    assert_eq!(Process::checked(flags).unwrap_err().pointer(), Some("/cwd"));
}

#[test]
fn only_a_regular_file_of_bounded_size_is_read() {
    let folder = std::env::temp_dir().join(format!("rcrun-spec-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let at = |name: &str| folder.join(name);
    let error = load(&at("config.json")).unwrap_err();
    assert!(error.to_string().starts_with("JSON specification file config.json not found in "), "{error}");
    fs::create_dir(at("folder")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in ["folder", "fifo"] {
        let error = load(&at(name)).unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file"), "{error}");
    }
    let large = fs::File::create(at("large")).unwrap();
    large.set_len(MAX_SIZE + 1).unwrap();
    assert!(load(&at("large")).unwrap_err().to_string().contains("larger than 16 MiB"));
    fs::write(at("good"), good_config().to_string()).unwrap();
    load(&at("good")).unwrap();
    fs::remove_dir_all(&folder).unwrap();
}
