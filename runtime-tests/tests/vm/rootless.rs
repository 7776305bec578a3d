//! Containers of an ordinary user with a systemd of his own: cgroups are delegated to it, some controllers are not.

use crate::user::User;
use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::said;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn limits_hold_in_a_cgroup_that_is_delegated_to_the_users_systemd() {
    for ranges in [true, false] {
        let name = format!("limits-{ranges}");
        let user = User::new(&name, ranges);
        let bundle = user.bundle(&name, "sleep 1000", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 7}});
            if ranges {
                let text = fs::read_to_string("/etc/subuid").expect("ranges");
                let own = text.lines().find(|line| line.starts_with(&name)).expect("a range");
                let first: u32 = own.split(':').nth(1).expect("its first").parse().expect("an id");
                let map = json!([{"containerID": 0, "hostID": user.uid, "size": 1},
                                 {"containerID": 1, "hostID": first, "size": 65536}]);
                c["linux"]["uidMappings"] = map.clone();
                c["linux"]["gidMappings"] = map;
            }
        });
        user.create(&bundle, &name);
        user.ok(&["start", &name]);
        let cgroup = user.cgroup(&name);
        let service = format!("user@{}.service", user.uid);
        assert!(
            cgroup.to_string_lossy().contains(&service) && cgroup.ends_with(&name),
            "{}",
            cgroup.display()
        );
        assert_eq!(fs::metadata(&cgroup).expect("the cgroup").uid(), user.uid);
        let read =
            |file: &str| fs::read_to_string(cgroup.join(file)).expect("a control file").trim().to_string();
        assert_eq!((read("memory.max"), read("pids.max")), ((64 << 20).to_string(), "7".to_string()));

        assert_eq!(user.ok(&["exec", &name, "cat", "/proc/self/cgroup"]), "0::/\n");
        user.ok(&["update", "--memory", "32m", &name]);
        assert_eq!(read("memory.max"), (32 << 20).to_string());
        user.ok(&["pause", &name]);
        assert_eq!(user.state(&name)["status"], "paused");
        user.ok(&["resume", &name]);
        let stats: Value = serde_json::from_str(&user.ok(&["events", "--stats", &name])).expect("JSON");
        assert!(stats["data"]["pids"]["current"].as_u64() >= Some(1), "{stats}");
        user.ok(&["kill", "--all", &name, "KILL"]);
        user.ok(&["delete", "--force", &name]);
        assert!(!cgroup.exists());
    }
}

#[test]
fn a_controller_that_is_not_delegated_is_named_with_the_file_that_delegates_it() {
    let user = User::new("undelegated", true);
    let bundle = user.bundle("undelegated", "true", |c| {
        c["linux"]["resources"] = json!({"blockIO": {"weight": 500}});
    });
    let said = user.say(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), "undelegated"]);
    assert_eq!(said.status, 1, "{}", said.out);
    for part in ["\"io\" is not delegated", "/etc/systemd/system/user@.service.d/delegate.conf", "Delegate="]
    {
        assert!(said.err.contains(part), "{}", said.err);
    }
    assert_eq!(user.ok(&["list", "--quiet"]), "");
}

#[test]
fn outside_of_the_users_systemd_there_is_no_cgroup_and_no_limit() {
    let user = User::new("outside", false);
    let rcrun = user.rcrun();
    let run = |bundle: &Bundle| {
        let path = bundle.path().to_str().expect("UTF-8");
        let words = [rcrun.to_str().expect("UTF-8"), "run", "--bundle", path, "outside"];
        said(&user.program(&words).output().expect("execute rcrun"))
    };
    let free = run(&user.bundle("outside", "echo up", |_| {}));
    assert_eq!((free.status, free.out.as_str(), free.err.as_str()), (0, "up\n", ""));
    let limited = run(&user.bundle("outside", "echo up", |c| {
        c["linux"]["resources"] = json!({"pids": {"limit": 7}});
    }));
    assert_eq!(limited.status, 1, "{}", limited.out);
    assert!(limited.err.contains("/linux/resources/pids/limit"), "{}", limited.err);
    assert!(limited.err.contains("systemd-run --user --scope --property=Delegate=yes"), "{}", limited.err);
}
