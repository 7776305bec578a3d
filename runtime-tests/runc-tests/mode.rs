//! The ways in which runc's own makefile runs its tests: as root or as a user, with what a user may have been given, with
//! systemd or without. All but the first change the machine, and want one of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, chown};
use runtime_tests::suite::host;

/// The cgroup that a user's containers may have, as the tests call it.
const CGROUP: &str = "/sys/fs/cgroup/runc-cgroups-integration-test";

/// Users of the machine: one has ranges of ids, the other has not.
const RANGED: &str = "ranged";
const RANGELESS: &str = "rangeless";

/// A user of the container's that cwd.bats wants a folder of.
const OTHER: u32 = 1024;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Mode {
    /// As the command line has it.
    pub name: String,
    rootless: bool,
    idmap: bool,
    cgroup: bool,
    systemd: bool,
}

/// What programs of the suite are started with.
#[derive(Debug, Default)]
pub struct Means {
    /// Words before each command line.
    pub before: Vec<String>,
    /// Environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Mode {
    /// `root` or `rootless`, then `+idmap`, `+cgroup`, `+systemd`.
    pub fn parse(name: &str) -> Result<Mode, String> {
        let mut words = name.split('+');
        let rootless = match words.next() {
            Some("root") => false,
            Some("rootless") => true,
            _ => return Err(format!("{name}: a mode is root or rootless, and more after a +")),
        };
        let mut mode = Mode { name: name.into(), rootless, idmap: false, cgroup: false, systemd: false };
        for word in words {
            match word {
                "idmap" if rootless => mode.idmap = true,
                "cgroup" if rootless => mode.cgroup = true,
                "systemd" => mode.systemd = true,
                _ => return Err(format!("{name}: {word} is nothing that this mode can have")),
            }
        }
        Ok(mode)
    }

    /// Makes the machine ready for it.
    pub fn prepare(&self) -> Result<Means, String> {
        let mut means = Means::default();
        let mut set = |name: &'static str, value: String| means.environment.push((name, value));
        if (self.rootless || self.systemd) && host::place() == "native" {
            return Err(format!("the mode {} wants a machine of its own: make runc-tests-vm", self.name));
        }
        if self.systemd {
            set("RUNC_USE_SYSTEMD", "1".into());
        }
        if !self.rootless {
            return Ok(means);
        }
        let name = if self.idmap { RANGED } else { RANGELESS };
        let found = User::from_name(name).map_err(|e| format!("passwd: {e}"))?;
        let user = found.ok_or_else(|| format!("this machine has no user {name}"))?;
        set("HOME", user.dir.display().to_string());
        set("USER", name.into());
        let features = [(self.idmap, "idmap"), (self.cgroup, "cgroup")];
        let features = features.iter().filter(|(has, _)| *has).map(|(_, word)| format!("{word}+"));
        set("ROOTLESS_FEATURES", features.collect());
        if self.idmap {
            let [(uid, uids), (gid, gids)] = [range("/etc/subuid", name)?, range("/etc/subgid", name)?];
            set("ROOTLESS_UIDMAP_START", uid.to_string());
            set("ROOTLESS_UIDMAP_LENGTH", uids.to_string());
            set("ROOTLESS_GIDMAP_START", gid.to_string());
            set("ROOTLESS_GIDMAP_LENGTH", gids.to_string());
            // In the container the range begins at 1000.
            let folder = Path::new("/srv/aux");
            fs::create_dir_all(folder).map_err(|e| format!("mkdir {}: {e}", folder.display()))?;
            chown(folder, Some(Uid::from_raw(uid - 1000 + OTHER)), None)
                .map_err(|e| format!("chown {}: {e}", folder.display()))?;
            set("AUX_UID", OTHER.to_string());
            set("AUX_DIR", folder.display().to_string());
        }
        if self.cgroup {
            delegate(user.gid)?;
        }
        if self.systemd {
            run("loginctl", &["enable-linger", name])?;
            // Returns when it is up.
            run("systemctl", &["start", &format!("user@{}.service", user.uid)])?;
            let folder = format!("/run/user/{}", user.uid);
            set("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={folder}/bus"));
            set("XDG_RUNTIME_DIR", folder);
        }
        let [uid, gid] = [user.uid.to_string(), user.gid.to_string()];
        let before = ["setpriv", "--reuid", &uid, "--regid", &gid, "--init-groups", "--"];
        means.before = before.map(String::from).to_vec();
        Ok(means)
    }
}

/// The first range of a user's subordinate ids: the first id, and how many.
fn range(file: &str, user: &str) -> Result<(u32, u32), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("read {file}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':'));
    let pair = line.and_then(|line| line.split_once(':'));
    let numbers = pair.and_then(|(first, count)| Some((first.parse().ok()?, count.parse().ok()?)));
    numbers.ok_or_else(|| format!("{file} gives no range to {user}"))
}

/// A cgroup that a group may make cgroups in, and move its processes to: from the root, where they are.
fn delegate(group: Gid) -> Result<(), String> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))
        .map_err(|e| format!("cgroup.controllers: {e}"))?;
    for name in controllers.split_whitespace() {
        fs::write(root.join("cgroup.subtree_control"), format!("+{name}"))
            .map_err(|e| format!("cgroup.subtree_control: +{name}: {e}"))?;
    }
    let own = Path::new(CGROUP);
    fs::create_dir_all(own).map_err(|e| format!("mkdir {CGROUP}: {e}"))?;
    let paths = [
        own.to_path_buf(),
        own.join("cgroup.subtree_control"),
        own.join("cgroup.procs"),
        root.join("cgroup.procs"),
    ];
    for (path, mode) in paths.iter().zip([0o775, 0o664, 0o664, 0o664]) {
        chown(path, None, Some(group)).map_err(|e| format!("chown {}: {e}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|e| format!("chmod {}: {e}", path.display()))?;
    }
    Ok(())
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(words).status().map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} {}: {status}", words.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_what_its_name_says() {
        let mode = Mode::parse("rootless+idmap+systemd").unwrap();
        assert!(mode.rootless && mode.idmap && mode.systemd && !mode.cgroup);
        assert!(!Mode::parse("root").unwrap().rootless);
        for name in ["", "idmap", "root+idmap", "root+cgroup", "rootless+", "rootless+x"] {
            assert!(Mode::parse(name).is_err(), "{name}");
        }
    }
}
