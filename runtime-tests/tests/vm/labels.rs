//! AppArmor is on in the QEMU machine: the kernel itself tells whether a profile was asked for.

use runtime_tests::inside::{inside, shell, try_inside};
use runtime_tests::runtime::Runtime;
use serde_json::json;

#[test]
fn an_apparmor_profile_is_asked_for_at_the_kernel_by_run_and_exec() {
    let on =
        std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").expect("the kernel has AppArmor");
    assert!(on.starts_with('Y'), "{on}");
    let label = inside("unconfined", "cat /proc/self/attr/apparmor/current", |c| {
        c["process"]["apparmorProfile"] = json!("unconfined");
    });
    assert_eq!(label.trim(), "unconfined");
    // Only the kernel knows which profiles are loaded.
    let said = try_inside("noprofile", "true", |c| {
        c["process"]["apparmorProfile"] = json!("rcrun-test-no-such-profile");
    });
    assert_eq!(said.status, 1);
    for words in ["/process/apparmorProfile", "rcrun-test-no-such-profile", "ENOENT", "apparmor_parser"] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    let runtime = Runtime::new();
    let bundle = shell("labelled", "echo up; exec sleep 1000", |_| {});
    let mut lines = runtime.detached(&bundle, "labelled");
    assert_eq!(lines.line(), "up");
    let exec = |profile: &str| {
        runtime.say(["exec", "--apparmor", profile, "labelled", "cat", "/proc/self/attr/apparmor/current"])
    };
    assert_eq!(exec("unconfined").out.trim(), "unconfined");
    let said = exec("rcrun-test-no-such-profile");
    assert_eq!(said.status, 255);
    assert!(said.err.contains("rcrun-test-no-such-profile"), "{}", said.err);
    runtime.ok(["delete", "--force", "labelled"]);
}
