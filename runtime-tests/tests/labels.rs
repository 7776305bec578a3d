//! Labels of AppArmor and SELinux where neither is on: they change nothing. Where AppArmor is on, vm::labels has the rest.

use runtime_tests::inside::inside;
use serde_json::json;

#[test]
fn a_label_changes_nothing_where_its_module_is_off() {
    let off = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'));
    assert!(!off, "this machine has AppArmor: the test belongs where it is off");
    let seen = inside("labels", "cat /proc/self/attr/current 2>/dev/null; echo up", |c| {
        c["process"]["apparmorProfile"] = json!("docker-default");
        c["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
        c["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    });
    assert_eq!(seen, "up\n");
}
