//! Labels of AppArmor and SELinux. Where the module is off they have no effect, as with runc: Docker and podman write them
//! regardless.

use crate::host::Host;
use crate::plan::{Plan, Source};
use crate::spec::Spec;
use crate::spec::mount::MountOptions;
use oci_spec::runtime::Process;
use rcrun_plan::Step;

/// A label of a process, or else that of the container's own, where its module is `on`.
fn given<'a>(
    process: &'a Process,
    container: Option<&'a Process>,
    label: fn(&'a Process) -> &'a Option<String>,
    on: bool,
) -> Option<&'a str> {
    let of = |process: &'a Process| label(process).as_deref().filter(|label| !label.is_empty());
    of(process).or_else(|| container.and_then(of)).filter(|_| on)
}

/// The label that the session keyring is made with.
pub(super) fn keyring(process: &Process, container: Option<&Process>, host: &Host, plan: &mut Plan) {
    if let Some(label) = given(process, container, Process::selinux_label, host.selinux) {
        let proc = plan.slot(Source::Procfs);
        let (name, value) = ("keycreate".into(), label.into());
        plan.push("/process/selinuxLabel", Step::Label { proc, name, value });
    }
}

/// The labels that execve(2) gives to the process: before no_new_privs, which would keep the kernel from it.
pub(super) fn process(process: &Process, container: Option<&Process>, host: &Host, plan: &mut Plan) {
    if let Some(profile) = given(process, container, Process::apparmor_profile, host.apparmor) {
        let proc = plan.slot(Source::Procfs);
        // attr/exec belongs to the first module of all that use it; attr/apparmor is there since Linux 5.8.
        let (name, value) = ("apparmor/exec".into(), format!("exec {profile}").into());
        plan.push("/process/apparmorProfile", Step::Label { proc, name, value });
    }
    if let Some(label) = given(process, container, Process::selinux_label, host.selinux) {
        let proc = plan.slot(Source::Procfs);
        plan.push("/process/selinuxLabel", Step::Label { proc, name: "exec".into(), value: label.into() });
    }
}

/// Gives a new file system of type `kind` the label for all of its files, unless it has a word for that itself. procfs,
/// sysfs, mqueue and the cgroups label each file by its kind.
pub(super) fn mount(kind: &str, options: &mut MountOptions, spec: &Spec, host: &Host) {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let Some(label) = label.filter(|label| host.selinux && !label.is_empty()) else { return };
    let by_itself = matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
    let words = ["context", "fscontext", "defcontext", "rootcontext"];
    if !by_itself && !options.superblock.iter().any(|(key, _)| words.contains(&key.as_str())) {
        options.superblock.push(("context".to_string(), Some(label.to_string())));
    }
}
