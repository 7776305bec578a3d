//! How the kernel is to run the process: execution domain, CPU scheduling, I/O priority, NUMA memory policy, CPUs of an
//! exec. The numbers are the kernel's (linux/sched.h, linux/ioprio.h, linux/mempolicy.h, linux/personality.h).

use crate::plan::Plan;
use crate::spec::list;
use crate::{Error, Result};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process,
};
use rcrun_plan::{MOST_NODES, Scheduler, Step};

/// A fork resets the policy.
const SCHED_FLAG_RESET_ON_FORK: u32 = 1;
const SCHED_DEADLINE: u32 = 6;

/// The steps that take privileges which the payload may not have. `forks`: a fork is still to come, and the process is
/// still in the process group of whoever called rcrun.
pub(super) fn compile(process: &Process, linux: Option<&Linux>, forks: bool, plan: &mut Plan) -> Result<()> {
    if let Some(personality) = linux.and_then(|l| l.personality().as_ref()) {
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        plan.push("/linux/personality", Step::Personality { domain });
    }
    if let Some(to) = process.scheduler().as_ref().map(scheduler) {
        let carried = to.policy != SCHED_DEADLINE && to.flags & SCHED_FLAG_RESET_ON_FORK == 0;
        match forks && !carried {
            true => plan.after_fork = Some(to),
            false => plan.push("/process/scheduler", Step::Scheduler(to)),
        }
    }
    if let Some(priority) = process.io_priority() {
        let value = io_priority(priority);
        plan.push("/process/ioPriority", Step::IoPriority { value, group: !forks });
    }
    if let Some(policy) = linux.and_then(|l| l.memory_policy().as_ref()) {
        memory_policy(policy, plan)?;
    }
    Ok(())
}

fn scheduler(of: &oci_spec::runtime::Scheduler) -> Scheduler {
    use {LinuxSchedulerFlag as F, LinuxSchedulerPolicy as P};
    let policy = match of.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => 4,
        P::SchedIdle => 5,
        P::SchedDeadline => SCHED_DEADLINE,
    };
    let flag = |flag: &F| match flag {
        F::SchedResetOnFork => SCHED_FLAG_RESET_ON_FORK,
        F::SchedFlagReclaim => 0x2,
        F::SchedFlagDLOverrun => 0x4,
        F::SchedFlagKeepPolicy => 0x8,
        F::SchedFlagKeepParams => 0x10,
        F::SchedFlagUtilClampMin => 0x20,
        F::SchedFlagUtilClampMax => 0x40,
    };
    Scheduler {
        policy,
        flags: of.flags().iter().flatten().map(flag).fold(0, |all, one| all | one),
        nice: of.nice().unwrap_or(0),
        priority: of.priority().unwrap_or(0).unsigned_abs(),
        runtime: of.runtime().unwrap_or(0),
        deadline: of.deadline().unwrap_or(0),
        period: of.period().unwrap_or(0),
    }
}

fn io_priority(of: &LinuxIOPriority) -> u32 {
    let class = match of.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << 13 | of.priority() as u32 & 0x1fff
}

fn memory_policy(of: &LinuxMemoryPolicy, plan: &mut Plan) -> Result<()> {
    use {MemoryPolicyFlagType as F, MemoryPolicyModeType as M};
    let mode = match of.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &F| match flag {
        F::MpolFStaticNodes => 1 << 15,
        F::MpolFRelativeNodes => 1 << 14,
        F::MpolFNumaBalancing => 1 << 13,
    };
    let mode = of.flags().iter().flatten().map(flag).fold(mode, |all, one| all | one);
    let nodes = list::bits(of.nodes().as_deref().unwrap_or_default(), MOST_NODES)
        .map_err(|why| Error::config("/linux/memoryPolicy/nodes", why))?;
    for (word, bits) in nodes.into_iter().enumerate().filter(|(_, bits)| *bits != 0) {
        plan.push("/linux/memoryPolicy/nodes", Step::MemoryNodes { word: word as u8, bits });
    }
    plan.push("/linux/memoryPolicy", Step::MemoryPolicy { mode });
    Ok(())
}

/// Where an exec runs before and after it is in its cgroup; not for the container's first process, says the spec.
pub(super) fn processors(process: &Process, plan: &mut Plan) {
    let Some(affinity) = process.exec_cpu_affinity() else { return };
    let given = |cpus: &Option<String>| cpus.clone().filter(|cpus| !cpus.is_empty());
    plan.initial_cpus = given(affinity.initial());
    plan.final_cpus = given(affinity.cpu_affinity_final());
}
