//! What a container has used, as containerd reads it: io.containerd.cgroups.v2.Metrics. Pure.

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
};
use containerd_shim_protos::protobuf::MessageField;
use rcrun_runtime::cgroup::stats::{Memory, Psi, PsiData, Stats};
use std::collections::BTreeMap;

/// The same figures.
pub fn of(stats: &Stats) -> Metrics {
    let usage = &stats.cpu.usage;
    let throttling = &stats.cpu.throttling;
    Metrics {
        pids: MessageField::some(PidsStat {
            current: stats.pids.current,
            limit: if stats.pids.limit == 0 { u64::MAX } else { stats.pids.limit },
            ..PidsStat::default()
        }),
        cpu: MessageField::some(CPUStat {
            usage_usec: usage.total / 1000,
            user_usec: usage.user / 1000,
            system_usec: usage.kernel / 1000,
            nr_periods: throttling.periods,
            nr_throttled: throttling.throttled_periods,
            throttled_usec: throttling.throttled_time / 1000,
            psi: pressure(stats.cpu.psi.as_ref()),
            ..CPUStat::default()
        }),
        memory: MessageField::some(memory(&stats.memory)),
        memory_events: MessageField::some(memory_events(&stats.memory.events)),
        io: MessageField::some(io(stats)),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| HugeTlbStat {
                current: pages.usage,
                failcnt: pages.failcnt,
                pagesize: size.clone(),
                ..HugeTlbStat::default()
            })
            .collect(),
        ..Metrics::default()
    }
}

fn memory(memory: &Memory) -> MemoryStat {
    let raw = |key: &str| memory.raw.get(key).copied().unwrap_or(0);
    let (usage, swap) = (&memory.usage, &memory.swap);
    MemoryStat {
        anon: raw("anon"),
        file: raw("file"),
        kernel_stack: raw("kernel_stack"),
        slab: raw("slab"),
        sock: raw("sock"),
        shmem: raw("shmem"),
        file_mapped: raw("file_mapped"),
        file_dirty: raw("file_dirty"),
        file_writeback: raw("file_writeback"),
        anon_thp: raw("anon_thp"),
        inactive_anon: raw("inactive_anon"),
        active_anon: raw("active_anon"),
        inactive_file: raw("inactive_file"),
        active_file: raw("active_file"),
        unevictable: raw("unevictable"),
        slab_reclaimable: raw("slab_reclaimable"),
        slab_unreclaimable: raw("slab_unreclaimable"),
        pgfault: raw("pgfault"),
        pgmajfault: raw("pgmajfault"),
        workingset_refault: raw("workingset_refault_anon") + raw("workingset_refault_file"),
        workingset_activate: raw("workingset_activate_anon") + raw("workingset_activate_file"),
        workingset_nodereclaim: raw("workingset_nodereclaim"),
        pgrefill: raw("pgrefill"),
        pgscan: raw("pgscan"),
        pgsteal: raw("pgsteal"),
        pgactivate: raw("pgactivate"),
        pgdeactivate: raw("pgdeactivate"),
        pglazyfree: raw("pglazyfree"),
        pglazyfreed: raw("pglazyfreed"),
        thp_fault_alloc: raw("thp_fault_alloc"),
        thp_collapse_alloc: raw("thp_collapse_alloc"),
        usage: usage.usage,
        usage_limit: usage.limit,
        max_usage: usage.max,
        // There both are one figure.
        swap_usage: swap.usage.saturating_sub(usage.usage),
        swap_limit: if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_sub(usage.limit) },
        psi: pressure(memory.psi.as_ref()),
        ..MemoryStat::default()
    }
}

fn memory_events(events: &BTreeMap<String, u64>) -> MemoryEvents {
    let count = |key: &str| events.get(key).copied().unwrap_or(0);
    MemoryEvents {
        low: count("low"),
        high: count("high"),
        max: count("max"),
        oom: count("oom"),
        oom_kill: count("oom_kill"),
        oom_group_kill: count("oom_group_kill"),
        ..MemoryEvents::default()
    }
}

fn io(stats: &Stats) -> IOStat {
    let mut devices: BTreeMap<(u64, u64), IOEntry> = BTreeMap::new();
    let bytes = stats.blkio.io_service_bytes_recursive.iter().map(|entry| (true, entry));
    let requests = stats.blkio.io_serviced_recursive.iter().map(|entry| (false, entry));
    for (of_bytes, entry) in bytes.chain(requests) {
        let device = devices.entry((entry.major, entry.minor)).or_insert_with(|| IOEntry {
            major: entry.major,
            minor: entry.minor,
            ..IOEntry::default()
        });
        match (of_bytes, entry.op) {
            (true, "Read") => device.rbytes = entry.value,
            (true, "Write") => device.wbytes = entry.value,
            (false, "Read") => device.rios = entry.value,
            (false, "Write") => device.wios = entry.value,
            // containerd has no figure for what is discarded.
            _ => {}
        }
    }
    IOStat {
        usage: devices.into_values().collect(),
        psi: pressure(stats.blkio.psi.as_ref()),
        ..IOStat::default()
    }
}

fn pressure(psi: Option<&Psi>) -> MessageField<PSIStats> {
    let data = |data: &PsiData| {
        MessageField::some(PSIData {
            avg10: data.avg10,
            avg60: data.avg60,
            avg300: data.avg300,
            total: data.total,
            ..PSIData::default()
        })
    };
    psi.map(|psi| PSIStats { some: data(&psi.some), full: data(&psi.full), ..PSIStats::default() }).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcrun_runtime::cgroup::stats::{BlkioEntry, MemoryEntry};

    #[test]
    fn figures_come_in_containerds_units() {
        let mut stats = Stats::default();
        stats.cpu.usage.total = 7_000;
        stats.memory.usage = MemoryEntry { limit: 100, usage: 40, ..MemoryEntry::default() };
        stats.memory.swap = MemoryEntry { limit: u64::MAX, usage: 50, ..MemoryEntry::default() };
        stats.memory.raw.insert("anon".into(), 5);
        stats.memory.events.insert("oom_kill".into(), 2);
        stats.blkio.io_service_bytes_recursive =
            vec![BlkioEntry { major: 8, minor: 1, op: "Write", value: 9 }];
        stats.blkio.io_serviced_recursive = vec![BlkioEntry { major: 8, minor: 1, op: "Write", value: 3 }];
        let metrics = of(&stats);
        assert_eq!((metrics.cpu.usage_usec, metrics.pids.limit), (7, u64::MAX));
        let memory = &metrics.memory;
        assert_eq!((memory.usage, memory.usage_limit, memory.anon), (40, 100, 5));
        assert_eq!((memory.swap_usage, memory.swap_limit), (10, u64::MAX));
        assert_eq!(metrics.memory_events.oom_kill, 2);
        let [device] = &metrics.io.usage[..] else { panic!("{:?}", metrics.io) };
        assert_eq!((device.major, device.wbytes, device.wios, device.rbytes), (8, 9, 3, 0));
        assert!(metrics.cpu.psi.is_none());
    }
}
