//! config.json to checked types: `load` and `parse` are the only ways to a `Spec`, so whoever holds one
//! holds a config that was checked. The types are oci-spec's; this module owns them and its corners.
//! Uses: error. Reads config.json and nothing else.

pub mod default;
pub mod fields;
pub mod id;
pub mod landlock;
pub mod list;
pub mod mount;
pub mod of_crun;
pub(crate) mod path;
pub mod sysctl;

mod check;
mod fault;
mod json;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{self as oci, LinuxNamespaceType};

use crate::error::{CallContext, Code, Error, Result};
use fault::Fault;

pub(crate) use json::readable;

/// The newest runtime-spec whose fields rcrun knows, as `ociVersion` of what it writes itself.
pub const OCI_VERSION: &str = "1.3.0";

/// Largest config.json or process.json that is read. Docker's with its seccomp profile is 60 kB; a
/// privileged one on a host with thousands of devices stays below 1 MB.
pub const MAX_SIZE: u64 = 16 << 20;

/// A checked config.json.
#[derive(Debug)]
pub struct Spec {
    oci: oci::Spec,
    warnings: Vec<String>,
}

/// A checked process, as `exec --process` reads it or as the flags of `exec` make it.
#[derive(Debug)]
pub struct Process {
    oci: oci::Process,
    warnings: Vec<String>,
}

/// Checked resources, as `update` takes them.
#[derive(Debug)]
pub struct Resources {
    oci: oci::LinuxResources,
}

impl Resources {
    /// They have device rules and nothing else.
    pub fn devices_alone(&self) -> bool {
        let mut devices = oci::LinuxResources::default();
        devices.set_devices(self.oci.devices().clone());
        self.oci == devices
    }
}

impl Deref for Resources {
    type Target = oci::LinuxResources;

    fn deref(&self) -> &oci::LinuxResources {
        &self.oci
    }
}

/// Where a container's namespace of one type comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace<'a> {
    /// Not in the list: the container stays in rcrun's own.
    Inherit,
    /// Listed without a path.
    New,
    /// Listed with a path.
    Join(&'a Path),
}

impl Spec {
    /// Things a person should hear about although the config is accepted: unknown capabilities and the like.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same config with the mounts of `text`, a list as `mounts` is, in the place of its own.
    pub fn with_mounts(&self, text: &[u8]) -> Result<Spec> {
        let mut oci = self.oci.clone();
        oci.set_mounts(Some(list_of_mounts(text)?));
        match check::mounts(&oci, &mut Vec::new()) {
            Ok(()) => Ok(Spec { oci, warnings: Vec::new() }),
            Err(fault) => Err(fault.in_file("config.json").in_part("/mounts", MOUNTS)),
        }
    }

    /// Where the namespace of type `kind` comes from.
    pub fn namespace(&self, kind: LinuxNamespaceType) -> Namespace<'_> {
        check::namespace(&self.oci, kind)
    }

    /// It has a pid namespace of its own, which ends with its first process.
    pub fn own_pids(&self) -> bool {
        self.namespace(LinuxNamespaceType::Pid) == Namespace::New
    }
}

impl Deref for Spec {
    type Target = oci::Spec;

    fn deref(&self) -> &oci::Spec {
        &self.oci
    }
}

impl Process {
    /// Checks a process that was put together from flags.
    pub fn checked(oci: oci::Process) -> Result<Process> {
        check::process(&oci, "").map_err(|fault| fault.in_file("process.json"))?;
        Ok(Process { oci, warnings: Vec::new() })
    }

    /// Things a person should hear about although the process is accepted.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Deref for Process {
    type Target = oci::Process;

    fn deref(&self) -> &oci::Process {
        &self.oci
    }
}

/// Reads and checks the config.json at `path`.
pub fn load(path: &Path) -> Result<Spec> {
    parse(&read(path)?)
}

/// Reads and checks the process at `path`, for `exec --process`: a shell gives a pipe there (`<(...)`), and whoever calls
/// waits for nobody but himself.
pub fn load_process(path: &Path) -> Result<Process> {
    parse_process(&read_kind(path, true)?)
}

/// Checks the text of a config.json.
pub fn parse(text: &[u8]) -> Result<Spec> {
    parse_spec(text).map_err(|fault| fault.in_file("config.json"))
}

/// Checks the text of a process.json: the `process` object of a config.json, alone.
pub fn parse_process(text: &[u8]) -> Result<Process> {
    let read = || -> std::result::Result<Process, Fault> {
        let mut warnings = Vec::new();
        let text = json::utf8(text)?;
        let whole = json::with_user(text);
        let text = whole.as_deref().unwrap_or(text);
        let oci: oci::Process = json::read(text, &["capabilities"], &mut warnings)?;
        check::process(&oci, "")?;
        Ok(Process { oci, warnings })
    };
    read().map_err(|fault| fault.in_file("process.json"))
}

/// Checks the text of a `linux.resources` object, alone.
pub fn parse_resources(text: &[u8]) -> Result<Resources> {
    let read = || -> std::result::Result<Resources, Fault> {
        let text = json::utf8(text)?;
        let mut oci: oci::LinuxResources = json::read(text, &[], &mut Vec::new())?;
        json::dropped_limit(text, "/pids/limit", &mut oci)?;
        Ok(Resources { oci })
    };
    let resources = read().map_err(|fault| fault.in_file("resources"))?;
    let checked = check::resources(&resources.oci).map_err(|fault| fault.in_file("config.json"));
    checked.map(|()| resources).map_err(|error| error.in_part("/linux/resources", "resources"))
}

/// What a list of mounts, alone, is called in errors.
pub const MOUNTS: &str = "mounts";

/// Where the mounts of a list lie.
pub fn parse_destinations(text: &[u8]) -> Result<Vec<PathBuf>> {
    let mounts = list_of_mounts(text)?;
    let checked = check::destinations(&mounts).map_err(|fault| fault.in_file("config.json"));
    checked.map_err(|error| error.in_part("/mounts", MOUNTS))?;
    Ok(mounts.into_iter().map(|mount| mount.destination().clone()).collect())
}

fn list_of_mounts(text: &[u8]) -> Result<Vec<oci::Mount>> {
    json::utf8(text)
        .and_then(|text| json::read(text, &[], &mut Vec::new()))
        .map_err(|fault| fault.in_file(MOUNTS))
}

fn parse_spec(text: &[u8]) -> std::result::Result<Spec, Fault> {
    let mut warnings = Vec::new();
    let text = json::utf8(text)?;
    let mut oci: oci::Spec = json::read(text, &["process", "capabilities"], &mut warnings)?;
    json::dropped_fields(text, &mut oci)?;
    check::spec(&oci, &mut warnings)?;
    Ok(Spec { oci, warnings })
}

/// The text of a config.json or process.json: a regular file of at most `MAX_SIZE` bytes.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_kind(path, false)
}

fn read_kind(path: &Path, pipe: bool) -> Result<Vec<u8>> {
    let open = || format!("open {}", path.display());
    // O_NONBLOCK: a FIFO of that name would wait for a writer (the class of CVE-2021-29136).
    let wait = if pipe { 0 } else { libc::O_NONBLOCK };
    let file = File::options().read(true).custom_flags(wait | libc::O_NOCTTY).open(path);
    let file = match file {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // runc's words; "no such file or directory" would make Docker exit with 127.
            let text = format!("JSON specification file {name} not found in {}", folder.display());
            let bundle = "a bundle is a folder with a config.json and a root file system: `rcrun spec` writes a config.json";
            let hint = (name == "config.json").then_some(bundle);
            return Err(Error::new(Code::Config, text).with_errno(libc::ENOENT).hint(hint));
        }
        other => other.call(open())?,
    };
    let size = file.metadata().call(format!("stat {}", path.display()))?;
    if !(size.is_file() || pipe && size.file_type().is_fifo()) {
        return Err(Error::new(Code::Config, format!("{} is not a regular file", path.display())));
    }
    let mut text = Vec::with_capacity(usize::try_from(size.len().min(MAX_SIZE)).unwrap_or(0) + 1);
    file.take(MAX_SIZE + 1).read_to_end(&mut text).call(format!("read {}", path.display()))?;
    if text.len() as u64 > MAX_SIZE {
        let text = format!("{} is larger than {} MiB", path.display(), MAX_SIZE >> 20);
        return Err(Error::new(Code::Config, text));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
