//! What is decided of a start before anything of it is made: `create` carries it out, and `check` tells what it says. Nothing
//! on the machine is changed.

use super::cgroup_place::CgroupPlace;
use super::create::Options;
use crate::cgroup::Policy;
use crate::cgroup::resources::{self, Compiled};
use crate::compile::{self, Request};
use crate::host::Host;
use crate::plan::Plan;
use crate::resctrl::{self, Groups};
use crate::spec::id::ContainerId;
use crate::spec::{Namespace, Spec};
use crate::{Result, listen_fds, mountinfo, terminal};
use oci_spec::runtime::{LinuxIntelRdt, LinuxNamespaceType};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// All that a start is made from.
pub(crate) struct Decision<'a> {
    /// What is written into the cgroup.
    pub limits: Compiled,
    /// Which devices may be used.
    pub policy: Policy,
    /// Where the cgroup is to be.
    pub place: CgroupPlace,
    /// What only root of the machine may do with cgroups is left out.
    pub rootless: bool,
    /// The socket on which the container says that it is ready.
    pub notify: Option<&'a str>,
    /// Descriptors that the payload gets: open until init has them.
    pub passed: Vec<OwnedFd>,
    /// Variables that rcrun adds.
    pub variables: Vec<String>,
    /// Where the container's root lies.
    pub rootfs: PathBuf,
    /// With --no-pivot: where procfs and sysfs of the machine are mounted.
    pub left_behind: Vec<String>,
    /// What init does.
    pub plan: Plan,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Groups of resctrl, below which mount, and what is asked of them.
    pub resctrl: Option<(Groups, PathBuf, &'a LinuxIntelRdt)>,
}

/// Decides how container `id` of `spec` starts here.
pub(crate) fn decide<'a>(
    spec: &'a Spec,
    mut host: Host,
    bundle: &Path,
    id: &ContainerId,
    options: &'a Options,
    await_start: bool,
) -> Result<Decision<'a>> {
    host.caller.groups &= !joined_denies_groups(spec);
    let wants_terminal = spec.process().as_ref().is_some_and(|p| p.terminal().unwrap_or(false));
    terminal::check_console(wants_terminal, options.console_socket.is_some(), !options.keep_terminal)?;

    let linux = spec.linux().as_ref();
    let rootless = options.rootless.unwrap_or_else(|| host.caller.is_rootless());
    let resources = linux.and_then(|l| l.resources().as_ref());
    let limits = resources.map(resources::compile).transpose()?.unwrap_or_default();
    let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
    let policy = Policy::new(rules, linux.and_then(|l| l.devices().as_deref()).unwrap_or_default())?;
    let place = match options.systemd {
        _ if options.no_cgroup => CgroupPlace::none(&limits.writes)?,
        true => CgroupPlace::by_systemd(spec, id, &limits.writes, &policy)?,
        false => CgroupPlace::by_rcrun(spec, id, &limits.writes, rootless)?,
    };

    let [fds, pid, names] = &options.listen;
    let activation =
        listen_fds::Activation { fds: fds.as_deref(), pid: pid.as_deref(), names: names.as_deref() };
    let passed = listen_fds::collect(activation, std::process::id(), options.preserve_fds)?;
    let asked = options.notify_socket.as_deref().filter(|s| !s.is_empty());
    // Without mounts of its own the container would be told of a socket that is not there.
    let mounts = spec.namespace(LinuxNamespaceType::Mount) != Namespace::Inherit;
    let notify = asked.filter(|_| mounts);
    let listen_fds::Passed { fds: passed, env: mut variables } = passed;
    if notify.is_some() {
        variables.push("NOTIFY_SOCKET=/run/notify/notify.sock".to_string());
    }
    let rootfs = bundle.join(spec.root().as_ref().map_or(Path::new(""), |r| r.path()));
    let left_behind = match options.no_pivot && spec.namespace(LinuxNamespaceType::Mount) == Namespace::New {
        true => mountinfo::seen_whole(&rootfs)?,
        false => Vec::new(),
    };
    let request = Request {
        id: id.as_str(),
        bundle,
        await_start,
        no_pivot: options.no_pivot,
        left_behind: &left_behind,
        keyring: !options.no_new_keyring,
        passed_fds: passed.len() as u32,
        variables: &variables,
        cgroup: place.cgroup.is_some(),
        notify: notify.is_some(),
    };
    let plan = compile::start(spec, &host, &request)?;
    let mut warnings: Vec<String> = spec.warnings().to_vec();
    warnings.extend(limits.warnings.iter().map(|w| format!("config.json: {}: {}", w.pointer, w.message)));
    warnings.extend(compile::warnings(spec, &host));
    warnings.extend(plan.warnings.iter().cloned());
    if options.no_cgroup && !rules.is_empty() {
        warnings.push(
            "config.json: /linux/resources/devices: without a cgroup of its own no device rule holds for the container"
                .to_string(),
        );
    }
    if asked.is_some() && notify.is_none() {
        warnings.push("NOTIFY_SOCKET: without a mount namespace the container does not get it".to_string());
    }

    let resctrl = match linux.and_then(|l| l.intel_rdt().as_ref()) {
        Some(rdt) => {
            let at = "/linux/intelRdt";
            let root = resctrl::mounted().map_err(|e| e.context(format!("config.json: {at}")).at(at))?;
            Some((Groups::find(&root, id.as_str(), rdt)?, root, rdt))
        }
        None => None,
    };
    Ok(Decision {
        limits,
        policy,
        place,
        rootless,
        notify,
        passed,
        variables,
        rootfs,
        left_behind,
        plan,
        warnings,
        resctrl,
    })
}

/// Whether the user namespace that the container joins denies setgroups(2), as those of users without ranges do: told by a
/// process in it, where the path names one.
fn joined_denies_groups(spec: &Spec) -> bool {
    let Namespace::Join(path) = spec.namespace(LinuxNamespaceType::User) else { return false };
    let process = path.to_str().and_then(|path| path.strip_suffix("/ns/user")).map(Path::new);
    process.filter(|folder| folder.starts_with("/proc")).is_some_and(|folder| {
        std::fs::read(folder.join("setgroups")).is_ok_and(|text| text.starts_with(b"deny"))
    })
}
