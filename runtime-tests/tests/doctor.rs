//! `rcrun doctor`, as root and as an ordinary user.

use runtime_tests::bundle::Folder;
use runtime_tests::programs;
use runtime_tests::runtime::{Runtime, Said, said};
use serde_json::Value;
use std::process::Command;

fn doctor(wrapper: &[&str], format: &str) -> Said {
    let folder = Folder::new("doctor");
    let copy = folder.path().join("rcrun");
    programs::copy(Runtime::new().binary(), &copy);
    let mut words: Vec<&str> = wrapper.to_vec();
    let binary = copy.to_str().expect("UTF-8");
    words.extend([binary, "doctor", "--format", format]);
    said(
        &Command::new(words[0])
            .args(&words[1..])
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .output()
            .expect("rcrun doctor"),
    )
}

const AS_USER: [&str; 6] = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups"];

fn state<'a>(report: &'a Value, name: &str) -> &'a str {
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.and_then(|finding| finding["state"].as_str()).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn a_machine_that_runs_these_tests_is_healthy_for_root_and_for_a_user() {
    for (wrapper, role) in [(&[][..], "root"), (&AS_USER, "user")] {
        let said = doctor(wrapper, "json");
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{}", said.out);
        let report: Value = serde_json::from_str(&said.out).expect("JSON");
        assert_eq!((report["role"].as_str(), report["healthy"].as_bool()), (Some(role), Some(true)));
        for name in
            ["openat2", "clone3", "fsopen, fsmount, mount_setattr", "CLONE_INTO_CGROUP", "user namespaces"]
        {
            assert_eq!(state(&report, name), "ok", "{role}: {report}");
        }
        for finding in report["findings"].as_array().expect("findings") {
            assert!(finding["effect"].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
            assert!(finding["state"] != "ok" || finding.get("remedy").is_none(), "{finding}");
        }
    }
}

#[test]
fn a_user_without_ranges_is_told_how_to_get_some() {
    let said = doctor(&AS_USER, "table");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.starts_with("rcrun as user:\n"), "{}", said.out);
    assert!(said.out.contains("usermod --add-subuids"), "{}", said.out);
    assert!(said.out.contains("nor XDG_RUNTIME_DIR says where the user's bus is"), "{}", said.out);
}

#[test]
fn where_user_namespaces_are_forbidden_a_user_is_told_and_root_is_not_bothered() {
    // In a user namespace of its own, whose limit is nobody else's.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let said = doctor(&["unshare", "-U", "-r", "-m", "sh", "-c", forbid, "sh"], "json");
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(report["role"], "root of a user namespace");
    assert_eq!(state(&report, "user namespaces"), "missing");
    let findings = report["findings"].as_array().expect("findings");
    let finding = findings.iter().find(|finding| finding["name"] == "user namespaces").expect("the finding");
    assert!(
        finding["found"].as_str().is_some_and(|text| text.contains("user.max_user_namespaces is 0")),
        "{finding}"
    );
    assert!(
        finding["remedy"].as_str().is_some_and(|text| text.contains("user.max_user_namespaces")),
        "{finding}"
    );
}

#[test]
fn what_cannot_be_tried_without_a_user_namespace_is_not_laid_at_the_kernels_door() {
    // The limit of the namespace that the user is in: his own are counted below it.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all -- \"$@\"";
    let said = doctor(&["unshare", "-U", "-r", "-m", "sh", "-c", forbid, "sh"], "json");
    assert_eq!(said.status, 1, "{}{}", said.out, said.err);
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    for name in ["open_tree", "fsopen, fsmount, mount_setattr"] {
        let findings = report["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["name"] == name).expect(name);
        assert_eq!(finding["remedy"], "see `user namespaces` below", "{finding}");
    }
}
