//! Mounts for a container that runs, and their end: a plan that joins its namespaces, mounts, and executes nothing.
//!
//! Nothing below the container's root is to be believed by now. What a mount is made of comes from outside (clones of the
//! machine's mounts, file systems that take paths); only where it is put is looked for inside, once, below an fd.

use super::exec::join;
use super::mounts::{self, fs_type};
use super::{Request, idmap, in_root, inside, labels, namespaces, process};
use crate::host::Host;
use crate::plan::{Plan, Planned, Source};
use crate::spec::mount::{MountOptions, PropagationKind};
use crate::spec::{Namespace, Spec};
use crate::{Code, Error, Result};
use oci_spec::runtime::{LinuxNamespaceType, Mount};
use rcrun_plan::{InRoot, Slot, Step, text::Text};
use std::path::Path;

/// File systems that take no path, and belong to a namespace of who makes them: made inside.
const OF_NAMESPACES: [&str; 7] = ["cgroup", "cgroup2", "devpts", "mqueue", "ramfs", "sysfs", "tmpfs"];

/// Compiles `mounts` of `spec` for the container of `config`, which is the same but for them. `spread`: something that is
/// shared was added before.
pub fn add(spec: &Spec, config: &Spec, spread: bool, host: &Host, request: &Request<'_>) -> Result<Plan> {
    let (mut plan, _) = enter(spec)?;
    let spaces = namespaces::compile(spec, &host.caller, &mut Plan::default())?;
    let mut follows = !spread && !spreads(config);
    for (i, entry) in spec.mounts().iter().flatten().enumerate() {
        let origin = format!("/mounts/{i}");
        let first = plan.steps.len();
        check(&origin, entry, spec)?;
        if !host.caller.clones_mounts {
            idmap::refuse(&origin, entry)?;
        }
        if OF_NAMESPACES.contains(&fs_type(entry)) || MountOptions::of(entry).bind.is_some() {
            mounts::one(&origin, entry, (spec, host), request, &spaces, &mut plan)?;
        } else {
            outside(&origin, entry, (spec, host), &mut plan)?;
        }
        finish(&origin, entry, first, follows, &mut plan);
        // Those that come later may be put on it.
        follows &= !shares(entry);
    }
    plan.push("", Step::Ready);
    if !host.caller.clones_mounts {
        inside::ask_for_trees(&mut plan);
    }
    Ok(plan)
}

/// Compiles the end of mounts: each where it lies, and its id if that is known. The last comes first.
pub fn remove(spec: &Spec, mounts: &[(&Path, Option<u64>)]) -> Result<Plan> {
    let (mut plan, proc) = enter(spec)?;
    for (i, (destination, id)) in mounts.iter().enumerate().rev() {
        let origin = format!("/mounts/{i}");
        let path = below(&origin, destination)?;
        plan.push(origin, Step::Unmount { path, id: id.unwrap_or(0), proc });
    }
    plan.push("", Step::Ready);
    Ok(plan)
}

/// The steps into the container's mounts, and a procfs of the machine's.
fn enter(spec: &Spec) -> Result<(Plan, Slot)> {
    if spec.namespace(LinuxNamespaceType::Mount) == Namespace::Inherit {
        let text =
            "the container has no mount namespace of its own: nothing is mounted there but on the machine";
        return Err(Error::new(Code::Config, text).at("/linux/namespaces"));
    }
    let mut plan = Plan::default();
    let init = plan.slot(Source::Init);
    let (host, proc) = (plan.slot(Source::HostMountNamespace), plan.slot(Source::Procfs));
    join(init, process::namespaces_of(spec), &mut plan);
    plan.push("", Step::CheckJoinedMounts { host, proc });
    Ok((plan, proc))
}

fn below(origin: &str, destination: &Path) -> Result<InRoot<Text>> {
    let path = in_root(destination);
    match path.0.0.is_empty() {
        true => Err(Error::config(
            format!("{origin}/destination"),
            "the root of a running container can be neither covered nor taken away",
        )),
        false => Ok(path),
    }
}

/// What a start can do with an entry, and nobody after it.
fn check(origin: &str, entry: &Mount, spec: &Spec) -> Result<()> {
    below(origin, entry.destination())?;
    if mounts::is_change(entry) {
        return Err(Error::unsupported(
            origin,
            "changes a mount that is there: of a running container, mounts are only added and removed",
        ));
    }
    let own_pids = spec.namespace(LinuxNamespaceType::Pid) != Namespace::Inherit;
    if fs_type(entry) == "proc" && MountOptions::of(entry).bind.is_none() && own_pids {
        return Err(Error::unsupported(
            format!("{origin}/type"),
            "a procfs shows the pid namespace of the process that makes it, and rcrun enters none of a running container with its privileges",
        ));
    }
    Ok(())
}

/// A file system of the machine's: what its options name is looked for there.
fn outside(origin: &str, entry: &Mount, (spec, host): (&Spec, &Host), plan: &mut Plan) -> Result<()> {
    let mut options = MountOptions::of(entry);
    if !host.caller.clones_mounts {
        let text = "a file system of this type is made outside of a running container, which takes root";
        return Err(Error::config(format!("{origin}/type"), text).with_code(Code::Host));
    }
    labels::mount(fs_type(entry), &mut options, spec, host);
    let idmap = idmap::of(origin, entry, &options, spec, host)?;
    let path = in_root(entry.destination());
    mounts::file_system_outside(origin, entry, path, &options, host, (false, idmap), plan)
}

/// Whether what is mounted in the container can come out on the machine.
fn spreads(config: &Spec) -> bool {
    let root = config.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref());
    matches!(root, Some("shared" | "rshared")) || config.mounts().iter().flatten().any(shares)
}

/// Whether what is mounted on this mount comes out where else it is mounted.
pub fn shares(entry: &Mount) -> bool {
    MountOptions::of(entry).propagation.iter().any(|change| change.kind == PropagationKind::Shared)
}

/// A tmpfs is read-only before it can be seen; and the parent hears which mount it is. Where mounts spread to the machine no
/// link of the container's may choose where.
fn finish(origin: &str, entry: &Mount, first: usize, follows: bool, plan: &mut Plan) {
    let options = MountOptions::of(entry);
    let read_only = fs_type(entry) == "tmpfs"
        && options.bind.is_none()
        && options.attr_set & libc::MOUNT_ATTR_RDONLY != 0;
    let attach = plan.steps[first..].iter().position(|p| matches!(p.step, Step::Attach { .. }));
    let Some(attach) = attach.map(|at| first + at) else { return };
    if let (false, Step::Attach { plain, .. }) = (follows, &mut plan.steps[attach].step) {
        *plain = true;
    }
    let planned = |step| Planned { origin: origin.to_string(), step };
    plan.steps.insert(attach + 1, planned(Step::TellMount));
    if read_only {
        plan.steps.insert(attach, planned(super::attributes(libc::MOUNT_ATTR_RDONLY, 0, 0, false)));
    }
}
