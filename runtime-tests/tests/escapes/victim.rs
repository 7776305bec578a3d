//! Who is attacked, what an attack comes to, and an attacker who is always in time. Uses runtime-tests.

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::FIRST_ID;
use runtime_tests::machine::{cgroup2_in_its_place, mounts, own_mount_namespace, tree};
use runtime_tests::path_calls::{Which, stopped_before_each};
use runtime_tests::runtime::Runtime;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the attacker has got, in words; nothing where the runtime holds.
pub type Loot = Option<String>;

const RUNC: &str = "/usr/sbin/runc";

/// The runc that these attacks were tried on. Another one may have been mended: there they only tell.
const MEASURED: &str = "1.1.5+ds1-1+deb12u1";

/// Debian's crun, for what is crun's alone, and its version.
const CRUN: &str = "/usr/bin/crun";
const MEASURED_CRUN: &str = "crun version 1.8.1\n";

/// The attack gets nothing from the runtime under test. Told beside it: what it gets from runc.
pub fn holds(attack: impl Fn(&Runtime) -> Loot) {
    own_mount_namespace();
    println!("runc: {:?}", attack(&Runtime::of(PathBuf::from(RUNC))));
    assert_eq!(attack(&Runtime::new()), None);
}

/// The same, and runc falls: the attack bites.
pub fn holds_where_runc_falls(attack: impl Fn(&Runtime) -> Loot) {
    own_mount_namespace();
    falls(RUNC, MEASURED, &attack);
    assert_eq!(attack(&Runtime::new()), None);
}

/// The same, and crun falls. Told beside it: what runc gives.
pub fn holds_where_crun_falls(attack: impl Fn(&Runtime) -> Loot) {
    own_mount_namespace();
    cgroup2_in_its_place();
    falls(CRUN, MEASURED_CRUN, &attack);
    println!("runc: {:?}", attack(&Runtime::of(PathBuf::from(RUNC))));
    assert_eq!(attack(&Runtime::new()), None);
}

/// One attempt is enough but on a loaded machine, where a start of runc's ended once before half of its calls were raced.
fn falls(binary: &str, measured: &str, attack: impl Fn(&Runtime) -> Loot) {
    let loot = (0..5).find_map(|_| attack(&Runtime::of(PathBuf::from(binary))));
    println!("{binary}: {loot:?}");
    let version = Command::new(binary).arg("--version").output().expect("ask for the version").stdout;
    if String::from_utf8_lossy(&version).contains(measured) {
        assert!(loot.is_some(), "{binary} {measured} holds: the attack is none");
    }
}

pub fn is_crun(runtime: &Runtime) -> bool {
    runtime.binary() == Path::new(CRUN)
}

pub fn is_runc(runtime: &Runtime) -> bool {
    runtime.binary() == Path::new(RUNC)
}

/// Maps beside the path of a user namespace: runc 1.1.5 joins none without, and the specification allows them.
pub fn mapped_for_runc(config: &mut Value) {
    let map = json!([{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

/// Folders of the machine that no container may read or change.
pub struct Canary {
    host: Folder,
    before: BTreeMap<PathBuf, String>,
    mounts: String,
}

/// What lies in it.
pub const SECRET: &str = "of the machine";

impl Canary {
    pub fn new() -> Canary {
        let host = Folder::new("canary");
        fs::create_dir_all(host.path().join("canary/deep")).expect("a canary");
        for file in ["secret", "deep/secret", "ptmx", "null"] {
            fs::write(host.path().join("canary").join(file), SECRET).expect("a file of it");
        }
        let before = tree(host.path(), &[]);
        Canary { host, before, mounts: mounts() }
    }

    /// The folder. Its name is the machine's: no root file system has it.
    pub fn path(&self) -> PathBuf {
        self.host.path().join("canary")
    }

    /// Up from any folder, and down to it.
    pub fn climbing(&self) -> PathBuf {
        Path::new(&"../".repeat(30)).join(self.path().strip_prefix("/").expect("an absolute path"))
    }

    /// A name in it that is not there.
    pub fn dangling(&self) -> PathBuf {
        self.path().join("new")
    }

    /// What has changed of it or of the test's mounts.
    pub fn harmed(&self) -> Loot {
        let after = tree(self.host.path(), &[]);
        if after != self.before {
            let new = after.iter().filter(|(path, words)| self.before.get(*path) != Some(words));
            let gone = self.before.keys().filter(|path| !after.contains_key(*path));
            let names: Vec<_> = new.map(|(path, _)| path).chain(gone).map(|path| path.display()).collect();
            return Some(format!("changed or gone on the machine: {names:?}"));
        }
        (mounts() != self.mounts).then(|| "mounted on the machine".into())
    }
}

/// Takes away what stands at a place, and sees to the folder above.
pub fn clear(place: &Path) {
    let _ = fs::remove_dir_all(place);
    let _ = fs::remove_file(place);
    fs::create_dir_all(place.parent().expect("a parent")).expect("the folder above");
}

/// An id that only this test has, machine-wide.
pub fn id(name: &str) -> String {
    format!("cve-{name}-{}", std::process::id())
}

/// Runs a bundle to its end: its output, or none where the runtime has refused it, in one sentence.
pub fn ran(runtime: &Runtime, bundle: &Bundle, name: &str) -> Option<String> {
    let said = runtime.run(bundle, &id(name));
    if said.status != 0 && !is_runc(runtime) {
        assert_eq!(said.err.lines().count(), 1, "{}{}", said.out, said.err);
    }
    (said.status == 0).then_some(said.out)
}

/// One round of a race: what is run, and what the attacker exchanges meanwhile.
pub struct Round {
    pub bundle: Bundle,
    pub canary: Canary,
    pub pair: (PathBuf, PathBuf),
    /// They live as long as the round.
    pub _folders: Vec<Folder>,
}

impl Round {
    fn exchange(&self) {
        let (one, other) = &self.pair;
        let exchanged = renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE);
        exchanged.unwrap_or_else(|e| panic!("renameat2 {}: {e}", one.display()));
    }
}

/// How long the attacker's link stays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// To the end.
    ForGood,
    /// For one call: who looks again afterwards sees nothing.
    ForOneCall,
}

/// The exchange comes before each call of the runtime's children that names a path, one by one, in a start of its own. Of
/// runc, which makes thousands, before those whose path has `part` in it.
pub fn at_each_moment(
    runtime: &Runtime,
    (id, verb, part): (&str, &[&str], &str),
    stays: Stays,
    build: impl Fn() -> Round,
    loot: impl Fn(&Round) -> Loot,
) -> Loot {
    let which = if is_runc(runtime) { Which::Naming(part) } else { Which::OfChildren };
    for moment in 0.. {
        let round = build();
        let bundle = [OsStr::new("--bundle"), round.bundle.path().as_os_str(), OsStr::new(id)];
        let command = runtime.command(verb.iter().map(OsStr::new).chain(bundle));
        let ended = stopped_before_each(&command, which, |call| {
            if call == moment || (stays == Stays::ForOneCall && call == moment + 1) {
                round.exchange();
            }
        });

        let found = loot(&round);
        runtime.say(["delete", "--force", id]);
        if let Some(loot) = found {
            return Some(format!("exchanged before call {moment} of {}: {loot}", ended.calls));
        }
        if ended.calls <= moment {
            println!("{}: {moment} moments of {verb:?}, {ended:?}", runtime.binary().display());
            // Else nothing was raced.
            assert!(moment >= 3 || is_runc(runtime), "{verb:?} makes {moment} calls");
            return None;
        }
    }
    None
}
