//! Containers of an ordinary user: without ranges and with them, without cgroups of his own. With delegated cgroups they are
//! in vm/rootless.rs. Each test is root, makes what the user needs in a mount namespace of its own, and calls rcrun as him.

use nix::mount::{MsFlags, mount};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::image::Image;
use runtime_tests::inside::{field, own_mounts};
use runtime_tests::machine::cgroup2_in_its_place;
use runtime_tests::programs;
use runtime_tests::runtime::{Lines, Said, said};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The user. He has no name but where a test gives him one.
const UID: u32 = 4711;
/// Not the same, so that no test mistakes one for the other.
const GID: u32 = 4712;
/// A group of the machine's that he may be in.
const SHARED: u32 = 4713;
/// The first id of his ranges.
const RANGE: u32 = 700_000;

/// A user with a folder for the state of his containers, and rcrun where he may execute it.
struct User {
    folder: Folder,
    wrapper: Vec<String>,
}

impl User {
    /// Without any range.
    fn plain(name: &str) -> User {
        let named = std::env::var_os("RUNTIME").or_else(|| std::env::var_os("RCRUN"));
        User::of(name, Path::new(&named.expect("RCRUN is not set: run the tests by `make test`")))
    }

    /// The same with another runtime.
    fn of(name: &str, binary: &Path) -> User {
        own_mounts();
        let folder = Folder::new(name);
        // The build folder may be one that only root may search.
        let copy = folder.path().join("rcrun");
        programs::copy(binary, &copy);
        for sub in ["state", "run"] {
            fs::create_dir(folder.path().join(sub)).expect("mkdir");
            chown(folder.path().join(sub), Some(UID), Some(GID)).expect("chown");
        }
        User { folder, wrapper: Vec::new() }
    }

    /// With 65536 more uids and gids.
    fn with_ranges(name: &str) -> User {
        let user = User::plain(name);
        user.give("passwd", &format!("root:x:0:0::/:/bin/sh\nranger:x:{UID}:{GID}::/:/bin/sh\n"));
        for file in ["subuid", "subgid"] {
            user.give(file, &format!("ranger:{RANGE}:65536\n"));
        }
        user
    }

    /// A file of /etc, in this mount namespace alone.
    fn give(&self, file: &str, text: &str) {
        let own = self.folder.path().join(file);
        fs::write(&own, text).expect("write");
        let target = Path::new("/etc").join(file);
        assert!(target.exists(), "{} is missing: apt-get install uidmap", target.display());
        mount(Some(&own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind");
    }

    /// rcrun is called in namespaces that unshare(1) makes with these options, as engines without root do.
    fn enter(&mut self, options: &[&str]) {
        self.wrapper = ["unshare"].iter().chain(options).map(|word| word.to_string()).collect();
        self.wrapper.push("--".to_string());
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Any program as the user, with nothing in its environment but PATH.
    fn program<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &UID.to_string(), "--regid", &GID.to_string(), "--clear-groups"]);
        command.args(["--inh-caps=-all", "--"]).args(&self.wrapper).args(words);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .current_dir("/");
        command
    }

    fn command(&self, words: &[&str]) -> Command {
        let binary = self.folder.path().join("rcrun");
        let mut all = vec![binary.into_os_string(), "--root".into(), self.state().into_os_string()];
        all.extend(words.iter().map(Into::into));
        self.program(all)
    }

    fn say(&self, words: &[&str]) -> Said {
        said(&self.command(words).output().expect("execute the runtime"))
    }

    fn ok(&self, words: &[&str]) -> String {
        let said = self.say(words);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}: {}", said.out);
        said.out
    }

    /// A bundle of his, as `rcrun spec --rootless` writes it.
    fn bundle(&self, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Bundle {
        let bundle = Bundle::new(name, args);
        for entry in walk(bundle.path()) {
            std::os::unix::fs::lchown(&entry, Some(UID), Some(GID)).expect("lchown");
        }
        fs::remove_file(bundle.path().join("config.json")).expect("remove config.json");
        let binary = self.folder.path().join("rcrun");
        let path = bundle.path().to_str().expect("UTF-8");
        let wrote = Command::new("setpriv")
            .args(["--reuid", &UID.to_string(), "--regid", &GID.to_string(), "--clear-groups", "--"])
            .args([binary.as_os_str(), OsStr::new("spec"), OsStr::new("--rootless"), OsStr::new("--bundle")])
            .arg(path)
            .status();
        assert!(wrote.expect("rcrun spec").success());
        let text = fs::read(bundle.path().join("config.json")).expect("config.json");
        let config: Value = serde_json::from_slice(&text).expect("JSON");
        bundle.with(|c| {
            *c = config;
            c["process"]["args"] = json!(args);
            c["process"]["terminal"] = json!(false);
            change(c);
        })
    }

    fn run(&self, bundle: &Bundle, id: &str) -> Said {
        self.say(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), id])
    }

    /// What a script says that runs in a container of his.
    fn inside(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
        let said = self.run(&self.bundle(id, &["sh", "-c", script], change), id);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{}", said.out);
        said.out
    }

    /// The sentence with which such a container is refused; nothing is left of it.
    fn refused(&self, id: &str, change: impl FnOnce(&mut Value)) -> String {
        let said = self.run(&self.bundle(id, &["true"], change), id);
        assert_ne!(said.status, 0, "{}", said.out);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert_eq!(fs::read_dir(self.state()).expect("the state").count(), 0);
        said.err
    }

    /// One that waits in the background, with what it says.
    fn detached(&self, bundle: &Bundle, id: &str) -> Lines {
        let (reader, writer) = std::io::pipe().expect("pipe");
        let errors = Folder::new("said");
        let file = fs::File::create(errors.path().join("err")).expect("a file for errors");
        let mut command = self.command(&["run", "--detach", "--bundle"]);
        let status = command.arg(bundle.path()).arg(id).stdout(writer).stderr(file).status();
        drop(command);
        let said = fs::read_to_string(errors.path().join("err")).expect("what was said");
        assert!(status.expect("execute the runtime").success(), "{said}");
        assert_eq!(said, "");
        Lines::of(reader.into())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for id in self.say(&["list", "--quiet"]).out.lines() {
            self.say(&["delete", "--force", id]);
        }
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// `[[inside, outside, how many], ...]`
fn maps(config: &mut Value, ids: &[[u32; 3]]) {
    let maps: Vec<Value> =
        ids.iter().map(|[a, b, n]| json!({"containerID": a, "hostID": b, "size": n})).collect();
    config["linux"]["uidMappings"] = json!(maps);
    config["linux"]["gidMappings"] = json!(maps);
}

fn with_range(config: &mut Value) {
    let both = |own: u32| json!([{"containerID": 0, "hostID": own, "size": 1}, {"containerID": 1, "hostID": RANGE, "size": 65536}]);
    config["linux"]["uidMappings"] = both(UID);
    config["linux"]["gidMappings"] = both(GID);
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn without_ranges_the_user_is_root_inside_and_alone() {
    let user = User::plain("alone");
    let out = user.inside(
        "alone",
        "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; id -g; stat -c %u:%g /bin/busybox",
        |_| {},
    );
    let expected = format!("0 {UID} 1 0 {GID} 1 deny 0 0 0:0");
    assert_eq!(words(&out), words(&expected));
}

#[test]
fn a_users_container_lives_through_all_verbs_without_a_cgroup() {
    let user = User::plain("verbs");
    let bundle = user.bundle("verbs", &["sh", "-c", "echo up; sleep 1000 & sleep 1000"], |_| {});
    let path = bundle.path().to_str().expect("UTF-8");
    let mut create = user.command(&["create", "--bundle", path, "verbs"]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("create").success());
    let state: Value = serde_json::from_str(&user.ok(&["state", "verbs"])).expect("JSON");
    assert_eq!(state["status"], "created");
    user.ok(&["start", "verbs"]);
    assert_eq!(user.ok(&["list", "--quiet"]), "verbs\n");
    let status = user.ok(&["exec", "verbs", "cat", "/proc/self/status"]);
    assert_eq!(words(field(&status, "Uid")), ["0", "0", "0", "0"]);
    assert_eq!(field(&status, "CapEff"), "0000000020000420");
    // The shell may not have started its children yet: it is one of three, and two are there in any case.
    let ids: Vec<u32> = serde_json::from_str(&user.ok(&["ps", "--format", "json", "verbs"])).expect("JSON");
    assert!(ids.contains(&(state["pid"].as_u64().expect("a pid") as u32)), "{ids:?}");
    for verb in
        [&["pause", "verbs"][..], &["update", "--pids-limit", "5", "verbs"], &["events", "--stats", "verbs"]]
    {
        let said = user.say(verb);
        assert_eq!(said.status, 1, "{}", said.out);
        assert!(
            said.err.contains("was made without one") && said.err.contains("Delegate=yes"),
            "{}",
            said.err
        );
    }
    user.ok(&["kill", "--all", "verbs", "KILL"]);
    user.ok(&["delete", "--force", "verbs"]);
    assert_eq!(user.ok(&["list", "--quiet"]), "");
}

#[test]
fn all_processes_of_a_container_without_a_cgroup_are_found() {
    let user = User::plain("all");
    let script = "trap 'echo heard' USR1; sh -c 'trap \"echo too; exit\" USR1; echo up; while :; do sleep 1000 & wait; done' & wait; wait";
    let bundle = user.bundle("all", &["sh", "-c", script], |_| {});
    let mut lines = user.detached(&bundle, "all");
    assert_eq!(lines.line(), "up");
    let ids: Vec<u32> = serde_json::from_str(&user.ok(&["ps", "--format", "json", "all"])).expect("JSON");
    assert!(ids.len() >= 2, "{ids:?}");
    user.ok(&["kill", "--all", "all", "USR1"]);
    let mut heard = [lines.line(), lines.line()];
    heard.sort();
    assert_eq!(heard, ["heard", "too"]);
}

#[test]
fn ranges_are_mapped_by_newuidmap_and_groups_can_be_set() {
    let user = User::with_ranges("ranges");
    let out =
        user.inside("ranges", "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id", |c| {
            with_range(c);
            c["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]});
        });
    let expected =
        format!("0 {UID} 1 1 {RANGE} 65536 0 {GID} 1 1 {RANGE} 65536 allow uid=5 gid=6 groups=7,8");
    assert_eq!(words(&out), words(&expected));
}

#[test]
fn what_a_user_may_read_as_one_of_a_group_his_container_may_where_it_keeps_his_groups() {
    let user = User::with_ranges("kept");
    let theirs = user.folder.path().join("theirs");
    fs::write(&theirs, "of the group\n").expect("write");
    chown(&theirs, Some(0), Some(SHARED)).expect("chown");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o640)).expect("chmod");
    for (keeps, out) in [(true, "of the group\n"), (false, "")] {
        let bundle = user.bundle("kept", &["cat", "/tmp/theirs"], |c| {
            with_range(c);
            let mounts = c["mounts"].as_array_mut().expect("mounts");
            mounts.push(json!({"destination": "/tmp/theirs", "source": theirs, "options": ["bind", "ro"]}));
            if keeps {
                c["annotations"] = json!({"run.oci.keep_original_groups": "1"});
            }
        });
        let binary = user.folder.path().join("rcrun");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &UID.to_string(), "--regid", &GID.to_string()]);
        command.args(["--groups", &SHARED.to_string(), "--inh-caps=-all", "--"]).arg(binary);
        command.arg("--root").arg(user.state()).args(["run", "--bundle"]).arg(bundle.path()).arg("kept");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        let said = said(&command.output().expect("execute the runtime"));
        assert_eq!((said.status == 0, said.out.as_str()), (keeps, out), "{}", said.err);
    }
}

#[test]
fn root_inside_may_be_an_id_that_is_not_the_users() {
    let user = User::with_ranges("other");
    let out = user.inside("other", "cat /proc/self/uid_map; stat -c %u /bin/busybox", |c| {
        maps(c, &[[0, RANGE, 65536]]);
    });
    assert_eq!(words(&out), words(&format!("0 {RANGE} 65536 65534")));
}

#[test]
fn a_source_that_only_the_user_may_reach_is_bound_whoever_root_inside_is() {
    let user = User::with_ranges("reach");
    let secret = user.folder.path().join("run/secret");
    fs::create_dir(&secret).expect("mkdir");
    fs::write(secret.join("file"), "bound\n").expect("write");
    chown(&secret, Some(UID), Some(GID)).expect("chown");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).expect("chmod");
    let out = user.inside("reach", "cat /tmp/file", |c| {
        maps(c, &[[0, RANGE, 65536]]);
        c["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/tmp/file", "source": secret.join("file"), "options": ["bind", "ro"]}));
        c["mounts"].as_array_mut().expect("mounts").insert(
            0,
            json!({
            "destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
        );
    });
    assert_eq!(out, "bound\n");
}

#[test]
fn devices_are_bound_and_sys_is_the_machines_read_only_with_all_below() {
    let user = User::plain("sys");
    let script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; cat /proc/self/mountinfo";
    let out = user.inside("sys", script, |_| {});
    assert!(out.starts_with("3\n"), "{out}");
    let mounted = |target: &str| {
        let lines = out.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.filter(|words| words.get(4) == Some(&target)).collect::<Vec<_>>()
    };
    for device in ["null", "zero", "full", "tty", "random", "urandom"] {
        assert_eq!(mounted(&format!("/dev/{device}"))[0][3], format!("/{device}"), "{out}");
    }
    assert_eq!(mounted("/proc").len(), 1, "{out}");
    for words in out.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
        if words.get(4).is_some_and(|target| *target == "/sys" || target.starts_with("/sys/")) {
            assert!(words[5].starts_with("ro"), "{words:?}");
        }
    }
}

#[test]
fn without_a_cgroup_and_a_cgroup_namespace_nothing_of_the_machines_cgroups_is_shown() {
    let user = User::plain("hidden-cgroups");
    let script = "ls -A /sys/fs/cgroup; touch /sys/fs/cgroup/x 2>/dev/null || echo refused; grep ' /sys/fs/cgroup ' /proc/self/mountinfo | tail -n 1";
    let out = user.inside("hidden-cgroups", script, |c| {
        // As runc's `spec --rootless` has it.
        let kinds = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
        kinds.retain(|entry| entry["type"] != "cgroup");
    });
    assert!(out.starts_with("refused\n") && out.contains(" - tmpfs cgroup ro"), "{out}");
}

/// A cgroup of the user's below the machine's, at /sys/fs/cgroup in this mount namespace whatever the machine has there.
struct Canary(PathBuf);

impl Canary {
    fn new() -> Canary {
        let canary = Canary(cgroup2_in_its_place().join(format!("rcrun-canary-{}", std::process::id())));
        fs::create_dir(&canary.0).expect("a cgroup");
        // As systemd gives a user his.
        for owned in [canary.0.clone(), canary.0.join("cgroup.procs"), canary.0.join("cgroup.max.depth")] {
            chown(owned, Some(UID), Some(GID)).expect("chown");
        }
        canary
    }

    /// What a container with the machine's cgroup namespace, and such mounts, has made of it.
    fn harmed(&self, user: &User, id: &str, change: impl FnOnce(&mut Value)) -> Option<String> {
        let own = self.0.display();
        let script = format!("mkdir {own}/inside; echo 7 > {own}/cgroup.max.depth; echo ran");
        let bundle = user.bundle(id, &["sh", "-c", &script], |config| {
            config["linux"]["namespaces"]
                .as_array_mut()
                .expect("namespaces")
                .retain(|n| n["type"] != "cgroup");
            change(config);
        });
        let said = user.run(&bundle, id);
        assert_eq!((said.status, said.out.as_str()), (0, "ran\n"), "{}", said.err);
        let depth = fs::read_to_string(self.0.join("cgroup.max.depth")).expect("cgroup.max.depth");
        let made = fs::remove_dir(self.0.join("inside")).is_ok();
        (made || depth != "max\n").then(|| format!("a cgroup was made: {made}, cgroup.max.depth is {depth}"))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("inside"));
        let _ = fs::remove_dir(&self.0);
    }
}

/// /sys comes with all that is mounted below it, as `spec --rootless` has it. Debian's runc 1.1.5 is the first with the mend,
/// so that it holds too; that the attack is one is seen where config.json binds the hierarchy on purpose.
#[test]
fn cve_2023_25809_a_users_container_with_the_machines_cgroup_namespace_writes_to_no_cgroup() {
    let user = User::plain("25809");
    let canary = Canary::new();
    assert_eq!(canary.harmed(&user, "25809", |_| {}), None);
    let bound = |config: &mut Value| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        let cgroup =
            mounts.iter_mut().find(|m| m["destination"] == "/sys/fs/cgroup").expect("/sys/fs/cgroup");
        *cgroup = json!({"destination": "/sys/fs/cgroup", "type": "bind", "source": "/sys/fs/cgroup", "options": ["rbind"]});
    };
    assert!(canary.harmed(&user, "25809-bound", bound).is_some(), "the attack is none");
    fs::write(canary.0.join("cgroup.max.depth"), "max").expect("cgroup.max.depth");
    let runc = User::of("25809-runc", Path::new("/usr/sbin/runc"));
    assert_eq!(canary.harmed(&runc, "25809-runc", |_| {}), None, "runc");
}

#[test]
fn a_network_of_its_own_brings_a_sysfs_of_its_own() {
    let user = User::plain("net");
    let out = user.inside("net", "ls /sys/class/net; ip -o addr show up", |c| {
        c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "network"}));
        for mount in c["mounts"].as_array_mut().expect("mounts") {
            if mount["destination"] == "/sys" {
                *mount =
                    json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]});
            }
        }
    });
    assert!(out.starts_with("lo\n") && out.contains("127.0.0.1/8"), "{out}");
}

#[test]
fn a_users_container_has_a_terminal() {
    let user = User::plain("tty");
    let bundle = user.bundle("tty", &["sh", "-c", "tty; stat -c %u /dev/console"], |c| {
        c["process"]["terminal"] = json!(true);
    });
    let run = format!(
        "{} --root {} run --bundle {} tty",
        user.folder.path().join("rcrun").display(),
        user.state().display(),
        bundle.path().display()
    );
    let said = said(&user.program(["script", "-qec", &run, "/dev/null"]).output().expect("script"));
    assert_eq!(
        (said.status, words(&said.out.replace("^@", ""))),
        (0, vec!["/dev/pts/0", "0"]),
        "{}",
        said.err
    );
}

#[test]
fn hooks_run_as_the_user_and_inside_as_root() {
    let user = User::plain("hooks");
    let log = user.folder.path().join("run/log");
    let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} $(id -u) >> {}", log.display())]}]);
    user.inside("hooks", "true", |c| {
        c["root"]["readonly"] = json!(false);
        let shared = user.folder.path().join("run");
        c["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": shared, "source": shared, "options": ["bind", "rw"]}));
        for name in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            c["hooks"][name] = hook(name);
        }
    });
    let text = fs::read_to_string(&log).expect("the log");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut expected = vec![
        format!("createRuntime {UID}"),
        "createContainer 0".to_string(),
        "startContainer 0".to_string(),
        format!("poststart {UID}"),
        format!("poststop {UID}"),
    ];
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn what_a_user_cannot_have_is_refused_in_one_sentence_with_the_remedy() {
    let user = User::with_ranges("cannot");
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &[&str]); 8] = [
        (
            "limit",
            |c| c["linux"]["resources"] = json!({"memory": {"limit": 100 << 20}}),
            &["/linux/resources/memory/limit", "systemd-run --user --scope --property=Delegate=yes"],
        ),
        (
            "path",
            |c| c["linux"]["cgroupsPath"] = json!("/rcrun-rootless/x"),
            &["/linux/cgroupsPath", "systemd-run"],
        ),
        (
            "namespace",
            |c| {
                let kinds = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
                kinds.retain(|entry| entry["type"] != "user");
                c["linux"].as_object_mut().expect("linux").retain(|key, _| !key.ends_with("Mappings"));
            },
            &["has no user namespace", "rcrun spec --rootless"],
        ),
        (
            "range",
            |c| maps(c, &[[0, RANGE, 65537]]),
            &["/linux/uidMappings", "newuidmap refuses", "/etc/subuid"],
        ),
        (
            "groups",
            |c| c["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [7]}),
            &["/process/user/additionalGids", "/etc/subgid"],
        ),
        (
            "rlimit",
            |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 999_999_999}]),
            &["/process/rlimits/0", "CAP_SYS_RESOURCE"],
        ),
        (
            "bind",
            |c| {
                c["mounts"].as_array_mut().expect("mounts").push(json!({
                    "destination": "/tmp", "source": "/proc/..", "options": ["bind"]}));
            },
            &["use rbind"],
        ),
        (
            "pts",
            |c| {
                for mount in c["mounts"].as_array_mut().expect("mounts") {
                    if mount["type"] == "devpts" {
                        mount["options"] = json!(["newinstance", "ptmxmode=0666", "gid=5"]);
                    }
                }
            },
            &["/mounts/2", "has no mapping in linux.gidMappings"],
        ),
    ];
    for (id, change, expected) in cases {
        let told = user.refused(id, change);
        for part in expected {
            assert!(told.contains(part), "{id}: {told}");
        }
    }
}

#[test]
fn a_users_container_has_a_clock_of_its_own() {
    let user = User::plain("clock");
    let out = user.inside("clock", "cut -d. -f1 /proc/uptime", |c| {
        c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "time"}));
        c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 100_000_000}});
    });
    assert!(out.trim().parse::<u64>().expect("seconds") > 100_000_000, "{out}");
}

#[test]
fn a_users_container_has_a_notify_socket() {
    let user = User::plain("notify");
    let bundle = user.bundle("notify", &["sh", "-c", "echo $NOTIFY_SOCKET; ls /run/notify"], |c| {
        // What is made for it lies on a file system of the container's own.
        c["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/run", "type": "tmpfs", "source": "tmpfs"}));
    });
    fs::create_dir(bundle.root().join("run")).expect("mkdir");
    let socket = user.folder.path().join("run/notify");
    let _listener = std::os::unix::net::UnixDatagram::bind(&socket).expect("bind");
    chown(&socket, Some(UID), Some(GID)).expect("chown");
    let mut command = user.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), "notify"]);
    let said = said(&command.env("NOTIFY_SOCKET", &socket).output().expect("execute the runtime"));
    assert_eq!((said.out.as_str(), said.err.as_str()), ("/run/notify/notify.sock\nnotify.sock\n", ""));
}

/// An image in a file that he may read: a file of others, a set-user-id program, and what a second layer removes.
fn saved(user: &User, name: &str) -> String {
    let path = user.folder.path().join("app.tar");
    Image::new(name)
        .layer(|layer| {
            for folder in ["etc", "srv/old", "gone"] {
                fs::create_dir_all(layer.join(folder)).expect("mkdir");
            }
            fs::write(layer.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")
                .expect("write");
            fs::write(layer.join("srv/data"), "data").expect("write");
            fs::write(layer.join("srv/old/file"), "old").expect("write");
            fs::write(layer.join("gone/file"), "gone").expect("write");
            chown(layer.join("srv/data"), Some(33), Some(34)).expect("chown");
            fs::set_permissions(layer.join("srv/data"), fs::Permissions::from_mode(0o4640)).expect("chmod");
        })
        .layer(|layer| {
            fs::create_dir_all(layer.join("srv/old")).expect("mkdir");
            fs::write(layer.join(".wh.gone"), "").expect("write");
            fs::write(layer.join("srv/old/.wh..wh..opq"), "").expect("write");
            fs::write(layer.join("srv/old/new"), "new").expect("write");
        })
        .runs(json!({ "Cmd": ["cat", "/srv/data"] }))
        .docker_save(&path, &["app:1"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    path.to_str().expect("UTF-8").to_string()
}

impl User {
    /// A command with a place for images.
    fn of_images(&self, words: &[&str]) -> Said {
        let mut command = self.command(words);
        said(
            &command
                .env("XDG_DATA_HOME", self.folder.path().join("run"))
                .output()
                .expect("execute the runtime"),
        )
    }

    fn images_ok(&self, words: &[&str]) -> String {
        let said = self.of_images(words);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}: {}", said.out);
        said.out
    }

    /// Nothing is left of any container of an image.
    fn is_clean(&self) {
        self.images_ok(&["image", "list"]);
        let store = self.folder.path().join("run/rcrun");
        for folder in [self.state(), store.join("containers"), store.join("leases"), store.join("tmp")] {
            let left = fs::read_dir(&folder).into_iter().flatten().flatten();
            let left = left.filter(|e| !e.file_name().to_string_lossy().starts_with("spare-"));
            let left: Vec<_> = left.map(|e| e.path()).collect();
            assert_eq!(left, Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn an_image_of_a_user_has_all_owners_that_his_ranges_have() {
    let user = User::with_ranges("images");
    let tar = saved(&user, "images");
    user.images_ok(&["image", "load", "--quiet", &tar]);
    // Seen from outside: 33 is the 33rd of the range, in which 1 is the first.
    let all = walk(&user.folder.path().join("run/rcrun/layers"));
    let data =
        all.iter().find(|path| path.ends_with("srv/data")).expect("unpacked").metadata().expect("stat");
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o7777), (RANGE + 32, RANGE + 33, 0o4640));
    let script = "stat -c '%u:%g %a' /srv/data; ls -d /gone /srv/old/*; cat /proc/self/uid_map | wc -l; \
                  mkdir /made && touch /made/file && chown 33:34 /made/file /made && chmod 700 /made && id -u";
    let said = user.of_images(&["run", "app:1", "sh", "-c", script]);
    assert_eq!(
        said.out.lines().collect::<Vec<_>>(),
        ["33:34 4640", "/srv/old/new", "2", "0"],
        "{}",
        said.err
    );
    assert_eq!((said.status, said.err.trim()), (0, "ls: /gone: No such file or directory"));
    assert_eq!(user.images_ok(&["run", "-u", "web", "app:1"]), "data");
    assert_eq!(user.images_ok(&["run", "-u", "web", "app:1", "id", "-u"]), "33\n");
    user.is_clean();
}

#[test]
fn a_container_of_a_users_image_is_met_by_later_commands() {
    let user = User::with_ranges("images-later");
    let tar = saved(&user, "images-later");
    user.images_ok(&["image", "load", "--quiet", &tar]);
    // Who holds a pipe of the test is waited for.
    let mut start = user.command(&["run", "--detach", "--name", "later", "app:1", "sleep", "1000"]);
    start.env("XDG_DATA_HOME", user.folder.path().join("run")).stdout(Stdio::null());
    assert!(start.status().expect("execute the runtime").success());
    let script =
        "mkdir /made && touch /made/file && chown 33:34 /made/file /made && chmod 700 /made && id -u; id -g";
    assert_eq!(user.images_ok(&["exec", "later", "sh", "-c", script]), "0\n0\n");
    assert_eq!(user.images_ok(&["exec", "--user", "33:34", "later", "id", "-u"]), "33\n");
    let list: Value = serde_json::from_str(&user.images_ok(&["list", "--format", "json"])).expect("JSON");
    assert_eq!(list[0]["owner"], "ranger");
    assert_eq!(user.images_ok(&["image", "diff", "later"]), "A /made\nA /made/file\n");
    user.images_ok(&["image", "commit", "--quiet", "later", "app:2"]);
    user.images_ok(&["kill", "later", "KILL"]);
    user.images_ok(&["delete", "--force", "later"]);
    assert_eq!(user.images_ok(&["run", "app:2", "stat", "-c", "%u %a", "/made"]), "33 700\n");
    assert_eq!(user.images_ok(&["image", "fsck"]), "the store is sound\n");
    user.is_clean();
}

#[test]
fn a_user_without_ranges_has_images_whose_files_are_all_roots() {
    let user = User::plain("images-alone");
    let tar = saved(&user, "images-alone");
    let loaded = user.of_images(&["image", "load", "--quiet", &tar]);
    assert_eq!(loaded.status, 0, "{}", loaded.err);
    assert!(
        loaded.err.contains("this user has no ranges of ids") && loaded.err.contains("--add-subuids"),
        "{}",
        loaded.err
    );
    let script =
        "stat -c '%u:%g %a' /srv/data; ls /srv/old; cat /proc/self/uid_map | wc -l; id -u; mkdir /made";
    assert_eq!(user.images_ok(&["run", "app:1", "sh", "-c", script]), "0:0 4640\nnew\n1\n0\n");
    for root in ["0", "0:0", "root"] {
        assert_eq!(user.images_ok(&["run", "-u", root, "app:1", "id", "-u"]), "0\n", "{root}");
    }
    for other in ["1000", "1000:1000", "0:1"] {
        let refused = user.of_images(&["run", "-u", other, "app:1"]);
        let told = ["/process/user", "/etc/subuid", "root alone", "--add-subuids"];
        assert!(told.iter().all(|word| refused.err.contains(word)), "{other}: {}", refused.err);
    }
    let refused = user.of_images(&["run", "-u", "web", "app:1"]);
    assert!(refused.status != 0 && refused.err.contains("/etc/subgid"), "{}", refused.err);
    user.is_clean();
}

#[test]
fn a_user_unpacks_an_image_into_a_bundle_of_his_own() {
    let user = User::with_ranges("images-bundle");
    let tar = saved(&user, "images-bundle");
    let bundle = user.folder.path().join("run/bundle");
    let bundle = bundle.to_str().expect("UTF-8");
    let refused = user.of_images(&["image", "unpack", &tar, bundle]);
    assert!(refused.status != 0 && refused.err.contains("--flat"), "{}", refused.err);
    user.images_ok(&["image", "unpack", "--quiet", "--flat", &tar, bundle]);
    assert_eq!(user.images_ok(&["run", "--bundle", bundle, "images-bundle"]), "data");
    user.is_clean();
    // What belongs to others he removes where he is root.
    user.images_ok(&["image", "prune", "--quiet"]);
}

#[test]
fn who_is_logged_in_without_a_runtime_folder_is_the_user_and_not_the_root_that_he_becomes() {
    let user = User::with_ranges("images-login");
    let nowhere = None::<&str>;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), nowhere).expect("mount on /run");
    for number in [0, UID] {
        let folder = Path::new("/run/containers").join(number.to_string());
        fs::create_dir_all(&folder).expect("mkdir");
        // What it says is met, and told with the file's name, before anybody is asked.
        fs::write(folder.join("auth.json"), "no JSON").expect("write");
    }
    let said = user.of_images(&["image", "pull", "localhost:1/app:1"]);
    assert!(
        said.status != 0 && said.err.contains(&format!("/run/containers/{UID}/auth.json")),
        "{}",
        said.err
    );
}

#[test]
fn a_second_container_joins_the_namespaces_of_the_first() {
    let user = User::plain("pod");
    let first = user.bundle("pod-first", &["sh", "-c", "echo up; exec sleep 1000"], |_| {});
    assert_eq!(user.detached(&first, "pod-first").line(), "up");
    let state: Value = serde_json::from_str(&user.ok(&["state", "pod-first"])).expect("JSON");
    let pid = state["pid"].as_i64().expect("a pid");
    let out =
        user.inside("pod-second", "cat /proc/1/cmdline | tr '\\0' ' '; readlink /proc/self/ns/user", |c| {
            for namespace in c["linux"]["namespaces"].as_array_mut().expect("namespaces") {
                let kind = namespace["type"].as_str().expect("a type").to_string();
                if ["user", "ipc", "uts", "pid"].contains(&kind.as_str()) {
                    namespace["path"] = json!(format!("/proc/{pid}/ns/{kind}"));
                }
            }
            c["linux"].as_object_mut().expect("linux").retain(|key, _| !key.ends_with("Mappings"));
            c.as_object_mut().expect("a config").remove("hostname");
        });
    let own = fs::read_link(format!("/proc/{pid}/ns/user")).expect("its user namespace");
    assert_eq!(out, format!("sleep 1000 {}\n", own.display()));
}

#[test]
fn a_lower_oom_score_than_the_users_own_stays_out() {
    let user = User::plain("oom");
    let out =
        user.inside("oom", "cat /proc/self/oom_score_adj", |c| c["process"]["oomScoreAdj"] = json!(-900));
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("the own one");
    assert_eq!(out, own);
    let out =
        user.inside("oom", "cat /proc/self/oom_score_adj", |c| c["process"]["oomScoreAdj"] = json!(900));
    assert_eq!(out, "900\n");
}

#[test]
fn the_file_that_init_runs_from_cannot_be_written_by_the_user() {
    // His own memfd, with mode 0555: what keeps him off are its seals.
    let user = User::plain("hidden");
    let bundle = user.bundle("hidden", &["true"], |_| {});
    let path = bundle.path().to_str().expect("UTF-8");
    let mut create = user.command(&["create", "--bundle", path, "hidden"]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("create").success());
    let state: Value = serde_json::from_str(&user.ok(&["state", "hidden"])).expect("JSON");
    let pid = state["pid"].as_i64().expect("a pid");
    let open = user
        .program(["sh", "-c", &format!("chmod 755 /proc/{pid}/exe; echo x >> /proc/{pid}/exe")])
        .output()
        .expect("sh");
    assert!(!open.status.success(), "{}", String::from_utf8_lossy(&open.stderr));
    // What it holds is init still: it goes on.
    user.ok(&["start", "hidden"]);
    user.ok(&["delete", "--force", "hidden"]);
}

#[test]
fn as_root_of_a_user_namespace_it_works_as_an_engine_without_root_calls_it() {
    let mut user = User::with_ranges("engine");
    let ways = [
        &["-U", "-r", "-m"][..],
        &["-U", "-r"],
        &["-U", "-r", "-m", "-n"],
        &["-U", "-m", "--map-root-user", "--map-auto"],
    ];
    for (i, options) in ways.iter().enumerate() {
        user.enter(options);
        let id = format!("engine{i}");
        let without = |c: &mut Value| {
            let kinds = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
            kinds.retain(|entry| entry["type"] != "user");
            c["linux"].as_object_mut().expect("linux").retain(|key, _| !key.ends_with("Mappings"));
            c["process"]["oomScoreAdj"] = json!(-900);
        };
        let script = "id -u; echo x > /dev/null; head -c 3 /dev/zero | wc -c; grep -c ' /dev/null ' /proc/self/mountinfo";
        assert_eq!(words(&user.inside(&id, script, without)), ["0", "3", "1"], "{options:?}");
        // With a user namespace below.
        let out = user.inside(&id, "cat /proc/self/uid_map", |c| maps(c, &[[0, 0, 1]]));
        assert_eq!(words(&out), ["0", "0", "1"], "{options:?}");
    }
}

#[test]
fn the_state_of_a_users_containers_lies_in_his_runtime_folder() {
    let user = User::plain("place");
    let run = user.folder.path().join("run");
    let binary = user.folder.path().join("rcrun");
    let list = |set: Option<&Path>| {
        let mut command = user.program([binary.as_os_str(), OsStr::new("list")]);
        set.map(|folder| command.env("XDG_RUNTIME_DIR", folder));
        said(&command.output().expect("rcrun list"))
    };
    assert_eq!(list(Some(&run)).status, 0);
    let without = list(None);
    assert_eq!(without.status, 1);
    assert!(without.err.contains("XDG_RUNTIME_DIR") && without.err.contains("--root"), "{}", without.err);
    fs::create_dir(run.join("rcrun")).expect("mkdir");
    chown(run.join("rcrun"), Some(UID + 1), None).expect("chown");
    let foreign = list(Some(&run));
    assert_eq!(foreign.status, 1);
    assert!(foreign.err.contains("belongs to uid"), "{}", foreign.err);
}

/// A tmpfs whose root's files are shown as those of 10, or of these ids of the machine.
fn with_owners(hosts: [u32; 2]) -> Value {
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 100}]);
    json!({
        "destination": "/tmp", "type": "tmpfs", "source": "scratch", "options": ["idmap", "mode=717", "nodev"],
        "uidMappings": map(hosts[0]), "gidMappings": map(hosts[1]),
    })
}

#[test]
fn a_tmpfs_of_a_users_container_shows_the_owners_of_its_map() {
    let user = User::with_ranges("owners");
    let script =
        "stat -c '%u:%g %a' /tmp; touch /tmp/own; stat -c %u:%g /tmp/own; grep ' /tmp ' /proc/self/mountinfo";
    // (mappings of its own, what the root of the tmpfs shows)
    for (name, own, expected) in [("owners-own", true, "10:20 717"), ("owners-containers", false, "0:0 717")]
    {
        let out = user.inside(name, script, |c| {
            with_range(c);
            // 1 of the container is the first of the range.
            let mut entry = with_owners([RANGE + 9, RANGE + 19]);
            // Who has no place in the map makes no files (EOVERFLOW).
            c["process"]["user"] = json!({"uid": 12, "gid": 23});
            if !own {
                entry.as_object_mut().expect("a mount").retain(|key, _| !key.ends_with("Mappings"));
            }
            c["mounts"].as_array_mut().expect("mounts").push(entry);
        });
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..2], [expected, "12:23"], "{out}");
        assert!(lines[2].contains("idmapped") && lines[2].contains("nodev"), "{out}");
    }
    let refused = |name: &str, change: &dyn Fn(&mut Value), words: &[&str]| {
        let told = user.refused(name, |c| {
            with_range(c);
            change(c);
        });
        assert!(words.iter().all(|word| told.contains(word)), "{name}: {told}");
    };
    let add = |c: &mut Value, entry: Value| c["mounts"].as_array_mut().expect("mounts").push(entry);
    refused(
        "owners-others",
        &|c| add(c, with_owners([RANGE + 9, RANGE + 65_500])),
        &[
            "/gidMappings/0/hostID",
            "the 100 ids from",
            "without root a mount shows only ids that the container has",
        ],
    );
    refused(
        "owners-bind",
        &|c| {
            let mut entry = with_owners([RANGE, RANGE]);
            entry["type"] = json!("bind");
            entry["source"] = json!("/usr");
            entry["options"] = json!(["rbind", "idmap"]);
            add(c, entry);
        },
        &["an id-mapped bind mount takes root"],
    );
    for (name, key, value, words) in [
        (
            "owners-size",
            "options",
            json!(["idmap", "size=much"]),
            &["/mounts/", "size=much", "fsconfig"] as &[&str],
        ),
        ("owners-kind", "type", json!("ramfs"), &["/mounts/", "does not support id-mapped mounts"]),
    ] {
        let change = |c: &mut Value| {
            let mut entry = with_owners([RANGE, RANGE]);
            entry[key] = value.clone();
            add(c, entry);
        };
        refused(name, &change, words);
    }
}

#[test]
fn a_tmpfs_of_a_users_container_is_its_roots_who_need_not_be_the_user() {
    let user = User::with_ranges("owners-other");
    let out = user.inside("owners-other", "stat -c %u:%g /tmp", |c| {
        maps(c, &[[0, RANGE, 65536]]);
        c["mounts"].as_array_mut().expect("mounts").push(with_owners([RANGE + 10, RANGE + 20]));
    });
    assert_eq!(out, "10:20\n");
}

#[test]
fn an_id_mapped_tmpfs_is_not_added_to_a_users_container() {
    let user = User::with_ranges("added");
    let bundle = user.bundle("added", &["sh", "-c", "echo up; exec sleep 1000"], with_range);
    assert_eq!(user.detached(&bundle, "added").line(), "up");
    let list = user.folder.path().join("list.json");
    fs::write(&list, json!([with_owners([RANGE + 9, RANGE + 19])]).to_string()).expect("a list");
    let said = user.say(&["mounts", "add", "added", list.to_str().expect("UTF-8")]);
    assert!(said.status != 0 && said.err.contains("in a running container takes root"), "{}", said.err);
    user.ok(&["delete", "--force", "added"]);
}

#[test]
fn mounts_are_added_to_a_users_container_from_what_he_sees_of_the_machine() {
    for (id, user) in
        [("user-mounts", User::plain("user-mounts")), ("ranger-mounts", User::with_ranges("ranger-mounts"))]
    {
        let source = Folder::new("of-the-machine");
        fs::write(source.path().join("word"), "from outside\n").expect("a file");
        let bundle = user.bundle(id, &["sh", "-c", "echo up; exec sleep 1000"], |config| {
            config["root"]["readonly"] = json!(false);
        });
        let mut lines = user.detached(&bundle, id);
        assert_eq!(lines.line(), "up", "{id}");
        let list = user.folder.path().join("list.json");
        let mounts = json!([
            {"destination": "/tmp/bind", "source": source.path(), "options": ["rbind", "ro"]},
            {"destination": "/tmp/scratch", "type": "tmpfs"},
        ]);
        fs::write(&list, mounts.to_string()).expect("a list");
        let list = list.to_str().expect("UTF-8");
        user.ok(&["mounts", "add", id, list]);
        let script =
            "cat /tmp/bind/word; echo x > /tmp/scratch/x; touch /tmp/bind/y 2>/dev/null || echo read-only";
        assert_eq!(user.ok(&["exec", id, "sh", "-c", script]), "from outside\nread-only\n", "{id}");
        user.ok(&["mounts", "remove", id, list]);
        assert_eq!(
            user.ok(&["exec", id, "sh", "-c", "ls -A /tmp/bind /tmp/scratch | grep -v :; true"]).trim(),
            "",
            "{id}"
        );
        user.ok(&["delete", "--force", id]);
    }
}
