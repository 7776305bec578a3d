//! Containers of an ordinary user with a systemd of his own: cgroups are delegated to it, some controllers are not.

use runtime_tests::bundle::Bundle;
use runtime_tests::runtime::{Said, said};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user whose systemd runs.
struct User {
    name: String,
    uid: u32,
}

fn succeeds(command: &mut Command) -> String {
    let said = said(&command.output().expect("execute"));
    assert_eq!(said.status, 0, "{command:?}: {}{}", said.out, said.err);
    said.out
}

impl User {
    fn new(name: &str, ranges: bool) -> User {
        succeeds(Command::new("useradd").args(["--create-home", name]));
        if !ranges {
            for file in ["/etc/subuid", "/etc/subgid"] {
                let text = fs::read_to_string(file).expect("ranges");
                let others: Vec<&str> = text.lines().filter(|line| !line.starts_with(name)).collect();
                fs::write(file, format!("{}\n", others.join("\n"))).expect("write");
            }
        }
        let uid: u32 = succeeds(Command::new("id").args(["-u", name])).trim().parse().expect("a uid");
        succeeds(Command::new("loginctl").args(["enable-linger", name]));
        // Returns when it is up.
        succeeds(Command::new("systemctl").args(["start", &format!("user@{uid}.service")]));
        let user = User { name: name.to_string(), uid };
        fs::copy(std::env::var_os("RCRUN").expect("RCRUN is not set"), user.rcrun()).expect("copy rcrun");
        fs::set_permissions(user.rcrun(), fs::Permissions::from_mode(0o755)).expect("chmod");
        user
    }

    fn rcrun(&self) -> PathBuf {
        PathBuf::from(format!("/home/{}/rcrun", self.name))
    }

    /// In the cgroup of this test, which is root's.
    fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let id = self.uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--init-groups", "--"]).args(words);
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{id}"));
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path=/run/user/{id}/bus"));
        command.env("HOME", format!("/home/{}", self.name)).stdin(Stdio::null()).current_dir("/");
        command
    }

    /// In a scope that the user's systemd has made and delegated.
    fn in_scope(&self, words: &[&str]) -> Command {
        let scope = ["systemd-run", "--user", "--scope", "--quiet", "--property=Delegate=yes", "--"];
        self.program(&[&scope[..], words].concat())
    }

    fn say(&self, words: &[&str]) -> Said {
        let rcrun = self.rcrun();
        let all = [&[rcrun.to_str().expect("UTF-8")][..], words].concat();
        said(&self.in_scope(&all).output().expect("execute rcrun"))
    }

    fn ok(&self, words: &[&str]) -> String {
        let said = self.say(words);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}: {}", said.out);
        said.out
    }

    fn bundle(&self, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
        let bundle = Bundle::new(name, &["true"]);
        let path = bundle.path().to_str().expect("UTF-8");
        fs::remove_file(bundle.path().join("config.json")).expect("remove config.json");
        succeeds(Command::new("chown").args(["-R", &self.name, path]));
        let rcrun = self.rcrun();
        succeeds(&mut self.program(&[
            rcrun.to_str().expect("UTF-8"),
            "spec",
            "--rootless",
            "--bundle",
            path,
        ]));
        let text = fs::read(bundle.path().join("config.json")).expect("config.json");
        let config: Value = serde_json::from_slice(&text).expect("JSON");
        bundle.with(|c| {
            *c = config;
            c["process"]["terminal"] = json!(false);
            c["process"]["args"] = json!(["sh", "-c", script]);
            change(c);
        })
    }

    fn create(&self, bundle: &Bundle, id: &str) {
        let (rcrun, path) = (self.rcrun(), bundle.path().to_str().expect("UTF-8"));
        let words = [rcrun.to_str().expect("UTF-8"), "create", "--bundle", path, id];
        let mut command = self.in_scope(&words);
        assert!(command.stdout(Stdio::null()).status().expect("create").success(), "create {id}");
    }

    fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).expect("JSON")
    }

    /// Where the container's first process is.
    fn cgroup(&self, id: &str) -> PathBuf {
        let pid = self.state(id)["pid"].as_i64().expect("a pid");
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup");
        Path::new("/sys/fs/cgroup").join(text.trim().strip_prefix("0::/").expect("cgroup v2"))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for id in self.say(&["list", "--quiet"]).out.lines() {
            self.say(&["delete", "--force", id]);
        }
        // What his systemd has made goes with it.
        let (service, slice) = (format!("user@{}.service", self.uid), format!("user-{}.slice", self.uid));
        for words in [
            &["loginctl", "disable-linger", &self.name][..],
            &["systemctl", "stop", &service, &slice],
            &["userdel", "--remove", "--force", &self.name],
        ] {
            let _ = Command::new(words[0]).args(&words[1..]).output();
        }
    }
}

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
