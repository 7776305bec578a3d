//! exec and hooks in the container's namespaces: the same road with a shorter plan that begins with Join.
//!
//! What executes stays outside of the container's pid namespace until it has the payload's credentials, and forks into it
//! then (`Step::Fork`): nothing inside can trace, open or even see a process with the runtime's privileges
//! (CVE-2016-9962), whatever capabilities it has. Hooks fork there too, with the runtime's privileges, which is what they
//! are for.

use super::in_root;
use super::process::{self, Surroundings};
use super::{landlock, scheduling};
use crate::host::Host;
use crate::plan::{Plan, Source};
use crate::spec::Spec;
use crate::{Result, seccomp};
use oci_spec::runtime::{Hook, Process};
use rcrun_plan::{Slot, Step};
use std::path::Path;

/// What `exec` adds to the container's config.json.
#[derive(Clone, Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The container's root on the machine.
    pub root: Option<&'a Path>,
    /// The process to run.
    pub process: &'a Process,
    /// Join the container's session keyring.
    pub keyring: bool,
    /// fds from 3 on that the payload gets.
    pub passed_fds: u32,
    /// Variables that rcrun adds.
    pub variables: &'a [String],
}

impl<'a> ExecRequest<'a> {
    /// Without any option.
    pub fn new(id: &'a str, process: &'a Process) -> Self {
        ExecRequest { id, root: None, process, keyring: true, passed_fds: 0, variables: &[] }
    }
}

/// Compiles a process in a running container.
pub fn exec(spec: &Spec, host: &Host, request: &ExecRequest<'_>) -> Result<Plan> {
    let joined_root = request.root.map(Path::to_path_buf);
    let mut plan = Plan { passed_fds: request.passed_fds, joined_root, ..Plan::default() };
    let kinds = process::namespaces_of(spec);
    let init = plan.slot(Source::Init);
    let (user_namespace, mount) = join(init, kinds, &mut plan);
    let forks = kinds & libc::CLONE_NEWPID != 0;
    let terminal = request.process.terminal().unwrap_or(false);
    if terminal {
        process::terminal(request.process, false, &mut plan);
    }
    if !forks {
        plan.push("", Step::Session { controlling: terminal });
    }
    if !mount {
        plan.push("", Step::Chroot);
    }
    let around = Surroundings {
        id: request.id,
        container: spec.process().as_ref(),
        user_namespace,
        groups: host.caller.groups,
        keeps_groups: spec.keeps_groups(),
        landlock: landlock::annotation(spec),
        keyring: request.keyring,
        variables: request.variables,
        listen: false,
        forks,
    };
    scheduling::processors(request.process, &mut plan);
    process::compile(request.process, spec.linux().as_ref(), host, &around, &mut plan)?;
    plan.oom_score_adj = request.process.oom_score_adj();
    Ok(plan)
}

/// A hook that runs in the container's namespaces.
#[derive(Clone, Debug)]
pub struct HookRequest<'a> {
    /// The hook.
    pub hook: &'a Hook,
    /// JSON pointer of the hook.
    pub origin: &'a str,
    /// Where it runs.
    pub place: HookPlace<'a>,
}

/// Where a hook runs in the container's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPlace<'a> {
    /// Before pivot_root, with the machine's paths and in the container's root, as with runc: createContainer.
    Machine {
        /// Where that lies.
        root: &'a Path,
    },
    /// In the container, behind its seccomp filter: startContainer.
    Container,
}

/// Compiles a createContainer or startContainer hook: the runtime's privileges, the container's namespaces.
pub fn hook(spec: &Spec, host: &Host, request: &HookRequest<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    let kinds = process::namespaces_of(spec);
    let init = plan.slot(Source::Init);
    let (_, mount) = join(init, kinds, &mut plan);
    if !mount {
        // The root that init has by now: the machine's for createContainer, the container's for startContainer.
        plan.push("", Step::Chroot);
    }
    if let HookPlace::Machine { root } = request.place {
        plan.push("/root/path", Step::ChangeDirectory { path: in_root(root), early: false });
    }
    let path = request.hook.path().to_string_lossy().into_owned();
    plan.push(request.origin, Step::FindExecutable);
    plan.push("", Step::Ready);
    if kinds & libc::CLONE_NEWPID != 0 {
        plan.push("", Step::Fork);
    }
    plan.push("", Step::Session { controlling: false });
    let profile = spec
        .linux()
        .as_ref()
        .and_then(|l| l.seccomp().as_ref())
        .filter(|_| request.place == HookPlace::Container);
    if let Some(profile) = profile {
        process::filter(seccomp::compile(profile, host.arch)?, &mut plan);
    }
    plan.push(request.origin, Step::Execute);
    plan.args = request.hook.args().clone().filter(|a| !a.is_empty()).unwrap_or_else(|| vec![path.clone()]);
    plan.env = request.hook.env().clone().unwrap_or_default();
    plan.candidates = vec![path];
    Ok(plan)
}

/// The steps into the container's namespaces of `kinds`; whether user and mount namespace are among them.
pub(super) fn join(init: Slot, kinds: i32, plan: &mut Plan) -> (bool, bool) {
    if kinds != 0 {
        plan.push("/linux/namespaces", Step::Join { slot: init, kinds: kinds as u32 });
    }
    let user = kinds & libc::CLONE_NEWUSER != 0;
    if user {
        plan.push("/linux/namespaces", Step::BecomeRoot);
    }
    let mount = kinds & libc::CLONE_NEWNS != 0;
    if mount {
        plan.push("", Step::JoinedRoot);
    } else {
        let slot = plan.slot(Source::InitRoot);
        plan.push("", Step::UseRoot { slot });
    }
    (user, mount)
}
