//! Nothing that a container mounts, however privileged, reaches the machine, also where the machine's mounts are shared, as
//! systemd makes them.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::{Runtime, said};
use serde_json::json;
use std::process::Command;

/// Runs the bundle in a mount namespace whose /dev is shared, and tells what is mounted on /dev/null there afterwards.
const SHARED_DEV: &str = r#"
mount --bind /dev /dev && mount --make-shared /dev || exit 99
"$0" --root "$1" run --bundle "$2" "$3" || exit 98
echo on the machine:
cut -d ' ' -f 5 /proc/self/mountinfo | grep -x /dev/null
exit 0"#;

fn run_with_shared_dev(runtime: &Runtime, bundle: &Bundle, id: &str) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", SHARED_DEV])
        .args([runtime.binary(), runtime.root(), bundle.path()])
        .arg(id)
        .output()
        .expect("execute unshare");
    let said = said(&output);
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    said.out
}

#[test]
fn a_mount_over_a_masked_path_stays_in_the_container() {
    let runtime = Runtime::new();
    let script =
        "mount --bind /bin/busybox /secret && cut -d ' ' -f 5 /proc/self/mountinfo | grep -cx /secret";
    let bundle = Bundle::new("masked", &["sh", "-c", script]).with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        }
        config["linux"]["maskedPaths"] = json!(["/secret"]);
    });
    std::fs::write(bundle.root().join("secret"), "").expect("a file to mask");
    // The mask, and what was mounted on it.
    assert_eq!(run_with_shared_dev(&runtime, &bundle, "masked"), "2\non the machine:\n");
}

#[test]
fn a_mount_over_a_device_of_a_user_namespace_stays_in_the_container() {
    let runtime = Runtime::new();
    let script =
        "mount --bind /bin/busybox /dev/null && cut -d ' ' -f 5 /proc/self/mountinfo | grep -cx /dev/null";
    let bundle = Bundle::new("device", &["sh", "-c", script]).with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        }
        let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    });
    for folder in ["", "dev", "proc", "sys"] {
        std::os::unix::fs::chown(bundle.root().join(folder), Some(100000), Some(100000)).expect("chown");
    }
    assert_eq!(run_with_shared_dev(&runtime, &bundle, "device"), "2\non the machine:\n");
}
