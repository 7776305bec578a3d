//! The bundles that every runtime is given: `runc spec`, with busybox as its root file system. Writes below [`WORK`].

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::host::WORK;
use crate::{Result, fail};

/// Paths of bundles. The floor goes by the names of these folders: see payload_of in floor.c.
pub struct Bundles {
    /// Runs /bin/true.
    pub quick: PathBuf,
    /// Runs /bin/true under Docker's default seccomp profile.
    pub seccomp: PathBuf,
    /// Runs /bin/sleep, for the verbs of a container that lives.
    pub sleep: PathBuf,
    /// Runs a program of a few kilobytes, so that only the runtime's memory shows.
    pub nothing: PathBuf,
}

impl Bundles {
    /// Writes all bundles. `profile` is Docker's default profile as linux.seccomp of config.json.
    pub fn write(profile: &Path, nothing: &Path) -> Result<Self> {
        let bundle = |name: &str, args: &[&str], seccomp: Option<&Value>| -> Result<PathBuf> {
            let path = Path::new(WORK).join(name);
            fs::create_dir(&path)?;
            write_rootfs(&path.join("rootfs"), nothing)?;
            write_config(&path, args, seccomp)?;
            Ok(path)
        };
        let text = fs::read_to_string(profile)
            .or_else(|e| fail(format!("Docker's default profile {}: {e}", profile.display())))?;
        let profile: Value = serde_json::from_str(&text)?;
        Ok(Self {
            quick: bundle("true", &["/bin/true"], None)?,
            seccomp: bundle("true-seccomp", &["/bin/true"], Some(&profile))?,
            sleep: bundle("sleep", &["/bin/sleep", "100000"], None)?,
            nothing: bundle("nothing", &["/bin/nothing"], None)?,
        })
    }
}

fn write_rootfs(root: &Path, nothing: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    fs::copy(nothing, root.join("bin/nothing"))?;
    for applet in ["sh", "sleep", "true"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

fn write_config(bundle: &Path, args: &[&str], seccomp: Option<&Value>) -> Result<()> {
    let made = Command::new("runc").arg("spec").arg("--bundle").arg(bundle).status()?;
    if !made.success() {
        return fail("runc spec failed");
    }
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(args);
    if let Some(profile) = seccomp {
        config["linux"]["seccomp"] = profile.clone();
    }
    // The floor has these six written into it; with another set the ratios would compare different containers.
    let namespaces: Vec<&str> = config["linux"]["namespaces"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n["type"].as_str())
        .collect();
    if namespaces != ["pid", "network", "ipc", "uts", "mount", "cgroup"] {
        return fail(format!("runc spec asks for the namespaces {namespaces:?}: not what the floor makes"));
    }
    Ok(fs::write(path, serde_json::to_string(&config)?)?)
}
