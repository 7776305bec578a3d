//! Compiles a checked config.json, the facts of the host and a request to a plan. Pure: no I/O, no environment, no clock.
//! Uses: spec, host, seccomp, plan.
//!
//! The order of the steps is the order of `start` below; golden plans in tests/plans pin it.

mod cgroup_owner;
mod devices;
mod exec;
mod idmap;
mod inside;
mod kept;
mod labels;
mod landlock;
mod mounts;
mod namespaces;
mod option;
mod process;
pub mod running;
mod scheduling;

pub use cgroup_owner::cgroup_owner;
pub(crate) use mounts::is_change;
pub(crate) use process::given as given_capabilities;

pub use exec::{ExecRequest, HookPlace, HookRequest, exec, hook};
pub use process::CAPABILITIES;

use self::kept::Kept;
use crate::host::Host;
use crate::plan::{NetDevice, Plan, Source};
use crate::spec::Spec;
use crate::spec::path::below_root;
use crate::{Error, Result};
use rcrun_plan::{Barrier, InRoot, Slot, Step, text::Text};
use std::path::{Path, PathBuf};

/// What the command line adds to config.json.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle's absolute path: relative paths of config.json start there.
    pub bundle: &'a Path,
    /// Wait on the listening socket for `start` (create), instead of going on at once (run).
    pub await_start: bool,
    /// --no-pivot: chroot instead of pivot_root, for a root on a ramdisk.
    pub no_pivot: bool,
    /// With `no_pivot`: where procfs and sysfs of the machine are mounted, what lies below others first.
    pub left_behind: &'a [String],
    /// Join a session keyring of its own.
    pub keyring: bool,
    /// fds from 3 on that the payload gets.
    pub passed_fds: u32,
    /// Variables that rcrun adds (LISTEN_FDS, NOTIFY_SOCKET), `NAME=value`.
    pub variables: &'a [String],
    /// The container has a cgroup of its own.
    pub cgroup: bool,
    /// Mount the folder of the NOTIFY_SOCKET at /run/notify.
    pub notify: bool,
}

impl<'a> Request<'a> {
    /// `create` of the bundle without any option.
    pub fn create(id: &'a str, bundle: &'a Path) -> Self {
        Request {
            id,
            bundle,
            await_start: true,
            no_pivot: false,
            left_behind: &[],
            keyring: true,
            passed_fds: 0,
            variables: &[],
            cgroup: true,
            notify: false,
        }
    }
}

/// A path of config.json as a path below the root: lexically cleaned, `..` stops at the root.
pub(crate) fn in_root(path: &Path) -> InRoot<Text> {
    InRoot(Text(below_root(path)))
}

/// Compiles the start of a container.
pub fn start(spec: &Spec, host: &Host, request: &Request<'_>) -> Result<Plan> {
    let mut plan = Plan { passed_fds: request.passed_fds, ..Plan::default() };
    let spaces = namespaces::compile(spec, &host.caller, &mut plan)?;
    let root = spec.root().as_ref().ok_or_else(|| Error::config("/root", "is missing"))?;
    let root_path = request.bundle.join(root.path());
    let terminal = spec.process().as_ref().is_some_and(|p| p.terminal().unwrap_or(false));

    if spaces.new_loopback {
        plan.push("/linux/namespaces", Step::Loopback);
    }
    net_devices(spec, &mut plan);
    if let Some(name) = spec.hostname() {
        plan.push("/hostname", Step::Hostname { name: name.as_str().into() });
    }
    if let Some(name) = spec.domainname() {
        plan.push("/domainname", Step::Domainname { name: name.as_str().into() });
    }
    sysctl(spec, &mut plan);
    let kept = Kept::of(spec)?;
    if spaces.mount {
        build_root(spec, host, request, &spaces, &root_path, &kept, &mut plan)?;
    } else {
        refuse_mounts(spec)?;
        let slot = plan.slot(Source::Root { path: root_path, clone: false, propagation: 0 });
        plan.push("/root/path", Step::UseRoot { slot });
        hook_barriers(spec, &mut plan);
        plan.push("/root/path", Step::Chroot);
    }
    if let Some(process) = spec.process() {
        if terminal {
            process::terminal(process, spaces.mount, &mut plan);
        }
        plan.push("", Step::Session { controlling: terminal });
    }
    if spaces.mount {
        finish_root(spec, root.readonly().unwrap_or(false), &kept, &mut plan);
    }
    match spec.process() {
        Some(process) => process::compile(
            process,
            spec.linux().as_ref(),
            host,
            &process::Surroundings {
                id: request.id,
                container: spec.process().as_ref(),
                user_namespace: spaces.user,
                groups: spaces.groups,
                keeps_groups: spec.keeps_groups(),
                landlock: landlock::annotation(spec),
                keyring: request.keyring,
                variables: request.variables,
                listen: request.await_start,
                forks: false,
            },
            &mut plan,
        )?,
        None => {
            // Created without a process: `start` refuses it (runtime.md), so nothing comes after the wait.
            plan.push("", Step::Ready);
            let listen = plan.slot(Source::Listen);
            plan.push("", Step::AwaitStart { listen });
            plan.push("/process", Step::Execute);
        }
    }
    check_mounts_have_their_namespace(&plan, spaces.mount)?;
    if !host.caller.clones_mounts {
        inside::ask_for_trees(&mut plan);
    }
    Ok(plan)
}

/// Before sysctls, which may be of a device.
fn net_devices(spec: &Spec, plan: &mut Plan) {
    let devices = spec.linux().iter().flat_map(|l| l.net_devices().iter().flatten());
    plan.net_devices = devices
        .map(|(name, device)| {
            let given = device.name().clone().filter(|given| !given.is_empty());
            NetDevice { name: name.clone(), renamed: given.unwrap_or_else(|| name.clone()) }
        })
        .collect();
    plan.net_devices.sort_by(|a, b| a.name.cmp(&b.name));
    if !plan.net_devices.is_empty() {
        plan.push("/linux/netDevices", Step::Wait { barrier: Barrier::NetDevices });
    }
}

fn sysctl(spec: &Spec, plan: &mut Plan) {
    let Some(sysctl) = spec.linux().as_ref().and_then(|l| l.sysctl().as_ref()).filter(|s| !s.is_empty())
    else {
        return;
    };
    plan.push("/linux/sysctl", Step::PrivateProc);
    let mut pairs: Vec<_> = sysctl.iter().collect();
    pairs.sort();
    for (key, value) in pairs {
        // sysctl(8): with a slash first, slashes separate and dots belong to names; else the other way round.
        let slash_first = key.find(['/', '.']).is_some_and(|at| key.as_bytes()[at] == b'/');
        let path: String = match slash_first {
            true => key.clone(),
            false => key
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    c => c,
                })
                .collect(),
        };
        plan.push(
            format!("/linux/sysctl/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Sysctl { path: path.into(), value: value.as_str().into() },
        );
    }
}

fn build_root(
    spec: &Spec,
    host: &Host,
    request: &Request<'_>,
    spaces: &namespaces::Spaces,
    root_path: &Path,
    kept: &Kept<'_>,
    plan: &mut Plan,
) -> Result<()> {
    let propagation = spec.linux().as_ref().and_then(|l| l.rootfs_propagation().clone());
    let keeps_private =
        matches!(propagation.as_deref(), Some("private" | "rprivate" | "unbindable" | "runbindable"));
    let outward = if keeps_private { libc::MS_PRIVATE } else { libc::MS_SLAVE };
    let machine = plan.slot(Source::HostMountNamespace);
    plan.push("", Step::CheckMountNamespace { host: machine });
    plan.push("/linux/rootfsPropagation", Step::SetPropagation { propagation: outward });
    let slot = plan.slot(Source::Root { path: root_path.to_path_buf(), clone: true, propagation: outward });
    let path = root_path.to_str().unwrap_or_default().into();
    plan.push("/root/path", Step::AttachRoot { slot, path });

    mounts::compile(spec, host, request, spaces, kept, plan)?;
    if !mounts::dev_is_bind(spec) {
        devices::compile(spec, spaces.binds_devices(), plan)?;
    }
    hook_barriers(spec, plan);
    if let Some(process) = spec.process() {
        // An image's working folder may not exist: runc makes it, so engines rely on it.
        let path = in_root(process.cwd());
        if !path.0.0.is_empty() {
            plan.push("/process/cwd", Step::Directory { path, mode: 0o755 });
        }
    }
    if request.no_pivot {
        for path in request.left_behind {
            plan.push("/root/path", Step::Detach { path: path.as_str().into() });
        }
        plan.push("/root/path", Step::MoveRoot);
    } else {
        plan.push("/root/path", Step::Pivot);
    }
    Ok(())
}

fn hook_barriers(spec: &Spec, plan: &mut Plan) {
    let Some(hooks) = spec.hooks() else { return };
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    let any = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|l| !l.is_empty());
    if any(prestart) || any(hooks.create_runtime()) {
        plan.push("/hooks", Step::Wait { barrier: Barrier::RuntimeHooks });
    }
    if any(hooks.create_container()) {
        plan.push("/hooks/createContainer", Step::Wait { barrier: Barrier::ContainerHooks });
    }
}

/// What must come after everything has been made below the root: read-only, masks, propagation.
fn finish_root(spec: &Spec, readonly: bool, kept: &Kept<'_>, plan: &mut Plan) {
    mounts::finish(spec, plan);
    if readonly {
        plan.push("/root/readonly", Step::Root);
        plan.push("/root/readonly", attributes(libc::MOUNT_ATTR_RDONLY, 0, 0, false));
    }
    let Some(linux) = spec.linux() else { return };
    for (i, path) in linux.readonly_paths().iter().flatten().enumerate() {
        let path = in_root(Path::new(path));
        let within = kept.within(&path);
        plan.push(format!("/linux/readonlyPaths/{i}"), Step::ReadOnly { path, within });
    }
    if let Some(masked) = linux.masked_paths().as_ref().filter(|m| !m.is_empty()) {
        let null = null_device(plan);
        for (i, path) in masked.iter().enumerate() {
            let path = in_root(Path::new(path));
            let within = kept.within(&path);
            plan.push(format!("/linux/maskedPaths/{i}"), Step::Mask { path, within, null });
        }
    }
    // Last: what is unbindable could not be bound onto itself read-only.
    if let Some(name) = linux.rootfs_propagation().as_deref().filter(|n| !n.is_empty()) {
        let recursive = name.starts_with('r');
        let kind = match name.strip_prefix('r').unwrap_or(name) {
            "shared" => libc::MS_SHARED,
            "slave" => libc::MS_SLAVE,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => libc::MS_PRIVATE,
        };
        plan.push("/linux/rootfsPropagation", Step::Root);
        plan.push("/linux/rootfsPropagation", attributes(0, 0, kind, recursive));
    }
}

fn null_device(plan: &mut Plan) -> Slot {
    let path = PathBuf::from("/dev/null");
    plan.slot(Source::Device { path, major: 1, minor: 3, block: false, origin: "/linux/maskedPaths".into() })
}

pub(crate) fn attributes(set: u64, clear: u64, propagation: u64, recursive: bool) -> Step<Text> {
    Step::Attributes { set, clear, propagation, recursive }
}

/// `mounts` itself is a warning of `spec`: the conformance suite has configs with mounts and without the namespace.
/// root.readonly, maskedPaths and readonlyPaths are refused by `spec`.
fn refuse_mounts(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let refuse = |pointer: &str, there: bool| match there {
        true => Err(Error::config(
            pointer,
            "needs a mount namespace: add {\"type\": \"mount\"} to /linux/namespaces, or nothing would keep it off the machine",
        )),
        false => Ok(()),
    };
    refuse("/linux/devices", linux.is_some_and(|l| l.devices().as_ref().is_some_and(|m| !m.is_empty())))?;
    refuse("/linux/rootfsPropagation", linux.is_some_and(|l| l.rootfs_propagation().is_some()))
}

/// The rule that no plan may touch the machine's own mounts, checked on the finished plan whatever made it.
fn check_mounts_have_their_namespace(plan: &Plan, own: bool) -> Result<()> {
    let first = |wanted: fn(&Step<Text>) -> bool| plan.steps.iter().position(|p| wanted(&p.step));
    let touches = |step: &Step<Text>| {
        matches!(
            step,
            Step::SetPropagation { .. }
                | Step::AttachRoot { .. }
                | Step::Attach { .. }
                | Step::Attributes { .. }
                | Step::Mask { .. }
                | Step::ReadOnly { .. }
                | Step::Pivot
                | Step::Detach { .. }
                | Step::MoveRoot
        )
    };
    match (first(touches), first(|s| matches!(s, Step::CheckMountNamespace { .. }))) {
        (None, _) => Ok(()),
        (Some(touch), Some(check)) if own && check < touch => Ok(()),
        _ => Err(Error::config(
            "/linux/namespaces",
            "mounts and pivot_root need a mount namespace, new or joined",
        )),
    }
}

/// What a user should know of a plan that compiles.
pub fn warnings(spec: &Spec, host: &Host) -> Vec<String> {
    let user = spec
        .linux()
        .iter()
        .flat_map(|l| l.namespaces().iter().flatten())
        .any(|n| n.typ() == oci_spec::runtime::LinuxNamespaceType::User);
    let Some(process) = spec.process() else { return Vec::new() };
    match process::ungrantable(process, host) {
        names if names.is_empty() || user => Vec::new(),
        names => vec![format!(
            "config.json: /process/capabilities: {} cannot be granted: rcrun itself does not have them",
            names.join(", ")
        )],
    }
}
