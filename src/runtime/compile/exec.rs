//! exec and hooks in the container's namespaces: the same road with a shorter plan that begins with Join.

use super::process::{self, Surroundings};
use crate::Result;
use crate::host::Host;
use crate::plan::{Plan, Source};
use crate::spec::Spec;
use oci_spec::runtime::{Hook, Process};
use rcrun_plan::Step;

/// What `exec` adds to the container's config.json.
#[derive(Clone, Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The process to run.
    pub process: &'a Process,
    /// Join the container's session keyring.
    pub keyring: bool,
    /// fds from 3 on that the payload gets.
    pub passed_fds: u32,
    /// Variables that rcrun adds.
    pub variables: &'a [String],
}

/// Compiles a process in a running container.
pub fn exec(spec: &Spec, host: &Host, request: &ExecRequest<'_>) -> Result<Plan> {
    let mut plan = Plan { passed_fds: request.passed_fds, ..Plan::default() };
    let (user_namespace, mount) = join(spec, &mut plan);
    if request.process.terminal().unwrap_or(false) {
        process::terminal(request.process, false, &mut plan);
    } else {
        plan.push("", Step::Session);
    }
    if !mount {
        plan.push("", Step::Chroot);
    }
    let around = Surroundings {
        id: request.id,
        user_namespace,
        keyring: request.keyring,
        variables: request.variables,
        listen: false,
    };
    let filter = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    process::compile(request.process, filter, host, &around, &mut plan)?;
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
}

/// Compiles a createContainer or startContainer hook: the runtime's privileges, the container's namespaces.
pub fn hook(spec: &Spec, request: &HookRequest<'_>) -> Plan {
    let mut plan = Plan::default();
    let (_, mount) = join(spec, &mut plan);
    if !mount {
        // The root that init has by now: the machine's for createContainer, the container's for startContainer.
        plan.push("", Step::Chroot);
    }
    let path = request.hook.path().to_string_lossy().into_owned();
    plan.push("", Step::Session);
    plan.push(request.origin, Step::FindExecutable);
    plan.push("", Step::Ready);
    plan.push(request.origin, Step::Execute);
    plan.args = request.hook.args().clone().filter(|a| !a.is_empty()).unwrap_or_else(|| vec![path.clone()]);
    plan.env = request.hook.env().clone().unwrap_or_default();
    plan.candidates = vec![path];
    plan
}

/// The steps into the container's namespaces; whether it has a user and a mount namespace.
fn join(spec: &Spec, plan: &mut Plan) -> (bool, bool) {
    let kinds = process::namespaces_of(spec);
    let init = plan.slot(Source::Init);
    if kinds & libc::CLONE_NEWPID != 0 {
        plan.pid_namespace = Some(init);
    }
    // A pid namespace is joined by the parent, for its child.
    let rest = kinds & !libc::CLONE_NEWPID;
    if rest != 0 {
        plan.push("/linux/namespaces", Step::Join { slot: init, kinds: rest as u32 });
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
