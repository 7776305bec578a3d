//! How the kernel is to run a process: what would be EINVAL there, and no word of which field. Uses: fault, list, text.

use oci_spec::runtime::{
    self as oci, LinuxSchedulerPolicy as Policy, MemoryPolicyFlagType as MemoryFlag,
    MemoryPolicyModeType as Mode,
};

use super::super::fault::{Fault, Quoted};
use super::super::list;
use super::text::{Checked, bounded};

/// scheduler, ioPriority and execCPUAffinity of the process at the JSON pointer `base`.
pub fn process(process: &oci::Process, base: &str) -> Checked {
    if let Some(found) = process.scheduler() {
        scheduler(found, base)?;
    }
    if let Some(priority) = process.io_priority().filter(|found| !(0..=7).contains(&found.priority())) {
        let at = format_args!("{base}/ioPriority/priority");
        return Err(Fault::new(at, format_args!("{} is not between 0 and 7", priority.priority())));
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        for (field, cpus) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
            let at = format_args!("{base}/execCPUAffinity/{field}");
            let cpus = cpus.as_deref().unwrap_or_default();
            bounded(cpus, MOST_LIST, at)?;
            list::bits(cpus, list::MOST_CPUS).map_err(|why| Fault::new(at, why))?;
        }
    }
    Ok(())
}

/// No list needs more: eight thousand numbers of four digits.
const MOST_LIST: usize = 64 << 10;

fn scheduler(found: &oci::Scheduler, base: &str) -> Checked {
    let policy = *found.policy();
    let refuse = |field: &str, why: String| Err(Fault::new(format_args!("{base}/scheduler/{field}"), why));
    if let Some(nice) = found.nice().filter(|nice| !(-20..=19).contains(nice)) {
        return refuse("nice", format!("{nice} is not between -20 and 19"));
    }
    let priority = found.priority().unwrap_or(0);
    let realtime = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    if priority != 0 && !realtime {
        return refuse("priority", format!("is for SCHED_FIFO and SCHED_RR only, not for {policy}"));
    }
    if realtime && !(1..=99).contains(&priority) {
        return refuse("priority", format!("{priority} is not between 1 and 99, which {policy} takes"));
    }
    for (field, value) in
        [("runtime", found.runtime()), ("deadline", found.deadline()), ("period", found.period())]
    {
        if value.is_some_and(|value| value != 0) && policy != Policy::SchedDeadline {
            return refuse(field, format!("is for SCHED_DEADLINE only, not for {policy}"));
        }
    }
    Ok(())
}

/// personality and memoryPolicy of the `linux` object.
pub fn linux(linux: &oci::Linux) -> Checked {
    let flags = linux.personality().iter().flat_map(|found| found.flags().iter().flatten());
    if let Some((i, flag)) = flags.enumerate().next() {
        let at = format_args!("/linux/personality/flags/{i}");
        return Err(Fault::unsupported(
            at,
            format_args!("{} is not known: the spec defines none", Quoted(flag)),
        ));
    }
    linux.memory_policy().as_ref().map_or(Ok(()), memory_policy)
}

fn memory_policy(found: &oci::LinuxMemoryPolicy) -> Checked {
    let at = format_args!("/linux/memoryPolicy/nodes");
    let text = found.nodes().as_deref().unwrap_or_default();
    bounded(text, MOST_LIST, at)?;
    let nodes = list::bits(text, rcrun_plan::MOST_NODES).map_err(|why| Fault::new(at, why))?;
    let (mode, some) = (found.mode(), nodes.iter().any(|word| *word != 0));
    match mode {
        Mode::MpolDefault | Mode::MpolLocal if some => {
            return Err(Fault::new(at, format_args!("{mode} takes no nodes")));
        }
        Mode::MpolBind | Mode::MpolInterleave | Mode::MpolPreferredMany | Mode::MpolWeightedInterleave
            if !some =>
        {
            return Err(Fault::new(at, format_args!("{mode} takes at least one node")));
        }
        _ => {}
    }
    let has = |flag| found.flags().iter().flatten().any(|found| *found == flag);
    if has(MemoryFlag::MpolFStaticNodes) && has(MemoryFlag::MpolFRelativeNodes) {
        let text = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        return Err(Fault::new("/linux/memoryPolicy/flags", text));
    }
    Ok(())
}
