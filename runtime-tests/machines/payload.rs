//! What is handed into a machine: builds the test programs, chooses their tests, packs all with the script that runs it.

use crate::tiers::{Tier, Tiers};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Seconds that so many tests of one target may take in a machine, so that one that hangs does not silence the others. On a
/// host with ten times the work that it can do, `vm` was seen to take 20 a test in UML.
fn target_limit(tier: Tier, tests: usize) -> usize {
    if tier == Tier::Qemu { 600.max(45 * tests) } else { 240.max(30 * tests) }
}

/// The tests of one target that run in one machine.
#[derive(Debug)]
pub struct Chosen {
    /// The target's name.
    pub target: String,
    /// Its program.
    pub program: PathBuf,
    /// Names of tests, as the program itself calls them.
    pub tests: Vec<String>,
}

impl Chosen {
    /// The full name of one of its tests begins so.
    pub fn has(&self, beginning: &str) -> bool {
        self.tests.iter().any(|test| format!("{}::{test}", self.target).starts_with(beginning))
    }
}

/// Builds these test targets; their programs.
pub fn build(targets: &[&str]) -> Result<BTreeMap<String, PathBuf>, String> {
    if targets.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "test",
        "--locked",
        "--no-run",
        "--message-format=json-render-diagnostics",
        "-p",
        "runtime-tests",
    ]);
    for target in targets {
        cargo.args(["--test", target]);
    }
    let output = cargo.stderr(Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo test --no-run: {}", output.status));
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = BTreeMap::new();
    for message in messages.filter(|m| m["target"]["kind"][0] == "test") {
        if let (Some(name), Some(program)) =
            (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            found.insert(name.to_string(), PathBuf::from(program));
        }
    }
    match targets.iter().find(|target| !found.contains_key(**target)) {
        Some(missing) => Err(format!("cargo built no program for the test target {missing}")),
        None => Ok(found),
    }
}

/// The names of all tests of these programs, by target.
pub fn list(programs: &BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut all = BTreeMap::new();
    for (target, program) in programs {
        let output = Command::new(program).args(["--list", "--format", "terse"]).output();
        let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        let tests = list.lines().filter_map(|line| line.strip_suffix(": test")).map(String::from);
        all.insert(target.clone(), tests.collect());
    }
    Ok(all)
}

/// The tests of this tier whose full names begin with one of `only` (all, when it is empty).
pub fn choose(
    tiers: &Tiers,
    tier: Tier,
    programs: &BTreeMap<String, PathBuf>,
    lists: &BTreeMap<String, Vec<String>>,
    only: &[String],
) -> Vec<Chosen> {
    let mut all = Vec::new();
    for (target, tests) in lists {
        let wanted = |test: &&String| {
            let full = format!("{target}::{test}");
            tiers.of(&full).contains(&tier)
                && (only.is_empty() || only.iter().any(|o| full.starts_with(o.as_str())))
        };
        let tests: Vec<String> = tests.iter().filter(wanted).cloned().collect();
        if !tests.is_empty() {
            all.push(Chosen { target: target.clone(), program: programs[target].clone(), tests });
        }
    }
    all
}

/// The line before a target's output.
pub fn heading(target: &str) -> String {
    format!("== {target}")
}

/// The script that runs the chosen tests, and fails when one fails or leaves a cgroup behind.
pub fn script(tier: Tier, chosen: &[Chosen]) -> String {
    let mut script = String::from(LEFT);
    for one in chosen {
        let names: Vec<String> = one.tests.iter().map(|test| format!("'{test}'")).collect();
        script += &format!("echo '{}'\n", heading(&one.target));
        script += &format!(
            "timeout -s KILL {} tests/{} --exact {} </dev/null || failed=1\nleft\n",
            target_limit(tier, one.tests.len()),
            one.target,
            names.join(" ")
        );
    }
    script + "exit $failed\n"
}

/// Cgroups that are not systemd's. What one target left is told once.
const LEFT: &str = r#"failed=0 known=
left() {
    local found
    found=$(find /sys/fs/cgroup -mindepth 1 -type d ! -name '*.slice' ! -name '*.service' ! -name '*.scope' ! -name '*.mount')
    [ "$found" = "$known" ] || { echo "cgroups are left: $found"; failed=1; }
    known=$found
}
"#;

/// Packs rcrun with the shim beside it, the programs, what tests read and what lies at `carry` into `work/payload.tar`, with
/// `script` to be run.
pub fn pack(
    work: &Path,
    rcrun: &Path,
    chosen: &[Chosen],
    carry: &[PathBuf],
    script: &str,
) -> Result<PathBuf, String> {
    let stage = work.join("payload");
    let fail = |what: &str, e: std::io::Error| format!("{what}: {e}");
    fs::remove_dir_all(&stage).ok();
    fs::create_dir_all(stage.join("tests")).map_err(|e| fail("mkdir", e))?;
    strip(rcrun, &stage.join("rcrun"))?;
    let shim = "containerd-shim-rcrun-v2";
    strip(&rcrun.with_file_name(shim), &stage.join(shim))?;
    for one in chosen {
        strip(&one.program, &stage.join("tests").join(&one.target))?;
    }
    for path in carry {
        run(Command::new("cp").arg("-a").arg(path).arg(&stage))?;
    }
    // Tests find their files where they were built.
    let manifest = env!("CARGO_MANIFEST_DIR");
    let files = stage.join("runtime-tests");
    fs::create_dir(&files).map_err(|e| fail("mkdir", e))?;
    for folder in ["programs", "samples"] {
        run(Command::new("cp").arg("-a").arg(Path::new(manifest).join(folder)).arg(&files))?;
    }
    let whole = format!(
        "#!/bin/bash\n# Written by runtime-tests/machines.\nexport RCRUN=/srv/rcrun/rcrun\n\
         mkdir -p '{manifest}' && rmdir '{manifest}' && ln -s /srv/rcrun/runtime-tests '{manifest}'\n{script}"
    );
    fs::write(stage.join("run"), whole).map_err(|e| fail("write run", e))?;
    fs::set_permissions(stage.join("run"), fs::Permissions::from_mode(0o755))
        .map_err(|e| fail("chmod run", e))?;
    let tar = work.join("payload.tar");
    run(Command::new("tar").arg("-C").arg(&stage).arg("-cf").arg(&tar).arg("."))?;
    fs::remove_dir_all(&stage).map_err(|e| fail("remove the stage", e))?;
    Ok(tar)
}

/// Copies a program without its debug information: nine tenths of it, which the machines would have to unpack.
fn strip(from: &Path, to: &Path) -> Result<(), String> {
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from))
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
