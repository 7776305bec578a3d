//! Entries of `mounts` that make no new mount: they change the one that is there.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};

/// What the container sees of its mounts on /tmp: options and optional fields.
fn tmp_after(name: &str, change: Value) -> (i32, String, String) {
    let runtime = Runtime::new();
    let bundle = Bundle::new(name, &["grep", " /tmp ", "/proc/self/mountinfo"]).with(|config| {
        let Some(mounts) = config["mounts"].as_array_mut() else { panic!("the config has mounts") };
        let options = ["nosuid", "mode=755"];
        mounts.push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options }));
        mounts.push(change);
        config["root"]["readonly"] = json!(false);
    });
    let said = runtime.run(&bundle, name);
    (said.status, said.out, said.err)
}

#[test]
fn remount_changes_what_is_mounted_and_mounts_nothing() {
    for (name, options) in
        [("remount", json!(["remount", "ro"])), ("remount-bind", json!(["bind", "remount", "ro"]))]
    {
        let (status, out, err) = tmp_after(name, json!({ "destination": "/tmp", "options": options }));
        assert_eq!((status, out.lines().count()), (0, 1), "{name}: {out}{err}");
        let fields: Vec<&str> = out.split(' ').collect();
        let set: Vec<&str> = fields[5].split(',').collect();
        assert!(set.contains(&"ro") && set.contains(&"nosuid"), "{name}: {out}");
        assert!(out.contains(" - tmpfs tmpfs rw"), "the file system itself stays as it is: {out}");
    }
}

#[test]
fn propagation_alone_changes_what_is_mounted() {
    let (status, out, err) =
        tmp_after("propagation", json!({ "destination": "/tmp", "options": ["shared"] }));
    assert_eq!((status, out.lines().count()), (0, 1), "{out}{err}");
    assert!(out.contains(" shared:"), "{out}");
}

#[test]
fn remount_with_an_option_of_the_file_system_is_refused_by_name() {
    let change = json!({ "destination": "/tmp", "type": "tmpfs", "options": ["remount", "size=1m"] });
    let (status, _, err) = tmp_after("remount-size", change);
    assert_eq!(status, 1);
    assert!(err.contains("/options") && err.contains("\"size\" with remount"), "{err}");
}
