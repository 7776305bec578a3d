//! An ordinary user with a systemd of his own.

use runtime_tests::bundle::Bundle;
use runtime_tests::programs;
use runtime_tests::runtime::{Said, said};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user whose systemd runs.
pub struct User {
    /// In passwd(5).
    pub name: String,
    /// Not root's.
    pub uid: u32,
}

fn succeeds(command: &mut Command) -> String {
    let said = said(&command.output().expect("execute"));
    assert_eq!(said.status, 0, "{command:?}: {}{}", said.out, said.err);
    said.out
}

impl User {
    /// Makes one, whose ranges of ids stay only with `ranges`.
    pub fn new(name: &str, ranges: bool) -> User {
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
        let rcrun = std::env::var_os("RCRUN").expect("RCRUN is not set");
        programs::copy(Path::new(&rcrun), &user.rcrun());
        user
    }

    /// His copy of the binary.
    pub fn rcrun(&self) -> PathBuf {
        PathBuf::from(format!("/home/{}/rcrun", self.name))
    }

    /// In the cgroup of this test, which is root's.
    pub fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let id = self.uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--init-groups", "--"]).args(words);
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{id}"));
        command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path=/run/user/{id}/bus"));
        command
            .env("USER", &self.name)
            .env("HOME", format!("/home/{}", self.name))
            .stdin(Stdio::null())
            .current_dir("/");
        command
    }

    /// In a scope that the user's systemd has made and delegated.
    pub fn in_scope(&self, words: &[&str]) -> Command {
        let scope = ["systemd-run", "--user", "--scope", "--quiet", "--property=Delegate=yes", "--"];
        self.program(&[&scope[..], words].concat())
    }

    /// Calls rcrun.
    pub fn say(&self, words: &[&str]) -> Said {
        let rcrun = self.rcrun();
        let all = [&[rcrun.to_str().expect("UTF-8")][..], words].concat();
        said(&self.in_scope(&all).output().expect("execute rcrun"))
    }

    /// The same, and it succeeds without a warning.
    pub fn ok(&self, words: &[&str]) -> String {
        let said = self.say(words);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}: {}", said.out);
        said.out
    }

    /// A bundle of his whose program is `script`.
    pub fn bundle(&self, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
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

    /// Creates a container.
    pub fn create(&self, bundle: &Bundle, id: &str) {
        let (rcrun, path) = (self.rcrun(), bundle.path().to_str().expect("UTF-8"));
        let words = [rcrun.to_str().expect("UTF-8"), "create", "--bundle", path, id];
        let mut command = self.in_scope(&words);
        assert!(command.stdout(Stdio::null()).status().expect("create").success(), "create {id}");
    }

    /// What `state` says.
    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).expect("JSON")
    }

    /// Where the container's first process is.
    pub fn cgroup(&self, id: &str) -> PathBuf {
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
