//! What a cgroup has used, from whatever files it has, in the shape of runc's `events` (types/events.go): names, units
//! and what is left out when it is zero. Figures of v1 that v2 has not are zero.

use std::collections::BTreeMap;

use rustix::fs::Dir;
use rustix::io::Errno;
use serde::Serialize;

use super::Cgroup;
use super::file::read_list;
use crate::error::CallContext;
use crate::{Error, Result};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: Cpu,
    /// Processors and memory nodes.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages, by their size.
    pub hugetlb: BTreeMap<String, HugeTlb>,
    /// Nothing yet.
    pub intel_rdt: Nothing,
    /// runc has here what it was told of a veth of its own; it is told none.
    pub network_interfaces: Option<()>,
}

/// `{}`
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Nothing {}

/// CPU time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// How much.
    pub usage: CpuUsage,
    /// How often cpu.max was reached.
    pub throttling: Throttling,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// Of both kinds.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

impl CpuUsage {
    /// Of cpu.stat.
    pub(super) fn of(cpu_stat: &BTreeMap<String, u64>) -> CpuUsage {
        let micro = |key: &str| cpu_stat.get(key).copied().unwrap_or(0).saturating_mul(1000);
        CpuUsage { total: micro("usage_usec"), kernel: micro("system_usec"), user: micro("user_usec") }
    }
}

/// Of cpu.max.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which something ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those in which it was stopped.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// For how many nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Processors and memory nodes in effect; the rest is v1's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuSet {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// v1
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// v1
    pub mem_hardwall: u64,
    /// v1
    pub mem_exclusive: u64,
    /// v1
    pub memory_migrate: u64,
    /// v1
    pub memory_spread_page: u64,
    /// v1
    pub memory_spread_slab: u64,
    /// v1
    pub memory_pressure: u64,
    /// v1
    pub sched_load_balance: u64,
    /// v1
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Of files.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together, as in v1.
    pub swap: MemoryEntry,
    /// v1
    pub kernel: MemoryEntry,
    /// v1
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
    /// memory.events: runc does not show them, containerd does.
    #[serde(skip)]
    pub events: BTreeMap<String, u64>,
}

/// A limit and what is used of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// The greatest number for none.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// At most, so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often it was reached.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// At most; 0 for no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices; of runc's lists those that v2 has figures for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// A figure of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlkioEntry {
    /// Of the device.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Of the device.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// Read, Write or Discard.
    pub op: &'static str,
    /// How much.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HugeTlb {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// How often the limit was reached.
    pub failcnt: u64,
}

/// Pressure stall information: the share of time in which something waited.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Psi {
    /// Some waited.
    pub some: PsiData,
    /// All waited.
    pub full: PsiData,
}

/// Per cent over the last 10, 60 and 300 seconds, and microseconds in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PsiData {
    /// 10 seconds
    pub avg10: f64,
    /// 60 seconds
    pub avg60: f64,
    /// 300 seconds
    pub avg300: f64,
    /// Since the cgroup was made.
    pub total: u64,
}

// serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Cgroup {
    /// What it has used so far.
    pub fn stats(&self) -> Result<Stats> {
        let text = |file: &str| self.file(file);
        // Every cgroup has this one (cgroup-v2.rst, "CPU Interface Files"): without it all figures would be zeros of nothing.
        let cpu_stat = text("cpu.stat")?;
        if cpu_stat.is_empty() {
            return Err(self.gone());
        }
        let cpu_stat = keyed(&cpu_stat);
        let micro = |key: &str| cpu_stat.get(key).copied().unwrap_or(0).saturating_mul(1000);
        let count = |key: &str| cpu_stat.get(key).copied().unwrap_or(0);
        let cpu = Cpu {
            usage: CpuUsage::of(&cpu_stat),
            throttling: Throttling {
                periods: count("nr_periods"),
                throttled_periods: count("nr_throttled"),
                throttled_time: micro("throttled_usec"),
            },
            psi: psi(&text("cpu.pressure")?),
        };
        let (bytes, requests) = io(&text("io.stat")?);
        Ok(Stats {
            cpu,
            cpuset: CpuSet {
                cpus: list(&text("cpuset.cpus.effective")?),
                mems: list(&text("cpuset.mems.effective")?),
                ..CpuSet::default()
            },
            memory: self.memory_stats()?,
            pids: Pids {
                current: number(&text("pids.current")?),
                // `max` is 0.
                limit: text("pids.max")?.trim().parse().unwrap_or(0),
            },
            blkio: Blkio {
                io_service_bytes_recursive: bytes,
                io_serviced_recursive: requests,
                psi: psi(&text("io.pressure")?),
            },
            hugetlb: self.huge_pages()?,
            intel_rdt: Nothing {},
            network_interfaces: None,
        })
    }

    fn memory_stats(&self) -> Result<Memory> {
        let raw = keyed(&self.file("memory.stat")?);
        let entry = |name: &str| -> Result<MemoryEntry> {
            let file = |end: &str| self.file(&format!("{name}.{end}"));
            let events = keyed(&file("events")?);
            Ok(MemoryEntry {
                limit: number(&file("max")?),
                usage: number(&file("current")?),
                max: number(&file("peak")?),
                failcnt: events.get("max").copied().unwrap_or(0),
            })
        };
        let (usage, swap) = (entry("memory")?, entry("memory.swap")?);
        let swap = MemoryEntry {
            limit: if swap.limit == u64::MAX { swap.limit } else { swap.limit.saturating_add(usage.limit) },
            usage: swap.usage.saturating_add(usage.usage),
            // Peaks of the two are not of one moment.
            max: 0,
            failcnt: swap.failcnt,
        };
        let cache = raw.get("file").copied().unwrap_or(0);
        let psi = psi(&self.file("memory.pressure")?);
        let events = keyed(&self.file("memory.events")?);
        Ok(Memory { cache, usage, swap, raw, psi, events, ..Memory::default() })
    }

    fn huge_pages(&self) -> Result<BTreeMap<String, HugeTlb>> {
        let what = || format!("list cgroup {}", self.path());
        let mut found = BTreeMap::new();
        for entry in Dir::read_from(self).call(what())? {
            let entry = entry.call(what())?;
            let name = entry.file_name().to_string_lossy();
            let Some(size) = name.strip_prefix("hugetlb.").and_then(|name| name.strip_suffix(".current"))
            else {
                continue;
            };
            if size.contains('.') {
                continue;
            }
            // What is reserved counts: a fault beyond it would kill.
            let rsvd = self.file(&format!("hugetlb.{size}.rsvd.current"))?;
            let usage = if rsvd.is_empty() { self.file(&name)? } else { rsvd };
            let events = keyed(&self.file(&format!("hugetlb.{size}.events"))?);
            let failcnt = events.get("max").copied().unwrap_or(0);
            found.insert(size.to_string(), HugeTlb { usage: number(&usage), failcnt });
        }
        Ok(found)
    }

    /// What `file` says; nothing where it is missing, and where the kernel has switched its figures off (PSI: EOPNOTSUPP).
    fn file(&self, file: &str) -> Result<String> {
        match read_list(self, file) {
            Ok(text) => Ok(text),
            Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(String::new()),
            Err(Errno::NODEV) => Err(self.gone()),
            Err(errno) => Err(Error::call(format!("read {file} of cgroup {}", self.path()), errno)),
        }
    }
}

/// Lines `KEY NUMBER`.
pub(super) fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_string(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// A number, or `max`; nothing is 0.
fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// `0-2,5`
fn list(text: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

/// io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`, as bytes and as requests.
pub(super) fn io(text: &str) -> (Vec<BlkioEntry>, Vec<BlkioEntry>) {
    const BYTES: [(&str, &str); 3] = [("rbytes", "Read"), ("wbytes", "Write"), ("dbytes", "Discard")];
    const REQUESTS: [(&str, &str); 3] = [("rios", "Read"), ("wios", "Write"), ("dios", "Discard")];
    let of = |keys: &[(&str, &'static str)]| {
        let mut entries = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let device = words.next().and_then(|word| word.split_once(':'));
            let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse()))
            else {
                continue;
            };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let op = keys.iter().find(|(name, _)| *name == key).map(|(_, op)| *op);
                if let (Some(op), Ok(value)) = (op, value.parse()) {
                    entries.push(BlkioEntry { major, minor, op, value });
                }
            }
        }
        entries
    };
    (of(&BYTES), of(&REQUESTS))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same of `full`; None without such lines.
fn psi(text: &str) -> Option<Psi> {
    let mut psi = Psi::default();
    let mut seen = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let data = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        seen = true;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
                "total" => data.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    seen.then_some(psi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_files_become_figures() {
        assert_eq!(
            keyed("a 1\nb x\nc 18446744073709551615\n"),
            [("a".into(), 1), ("c".into(), u64::MAX)].into()
        );
        assert_eq!((number("max\n"), number("7\n"), number("")), (u64::MAX, 7, 0));
        for (text, expected) in [("", &[][..]), ("0-2,5\n", &[0, 1, 2, 5]), ("3\n", &[3])] {
            assert_eq!(list(text), expected, "{text:?}");
        }
        let (bytes, requests) = io("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=6\n254:0 \nodd\n");
        let shown = |entries: &[BlkioEntry]| {
            entries
                .iter()
                .map(|e| format!("{}:{} {} {}", e.major, e.minor, e.op, e.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&bytes), ["8:16 Read 1", "8:16 Write 2", "8:16 Discard 0"]);
        assert_eq!(shown(&requests), ["8:16 Read 3", "8:16 Write 4", "8:16 Discard 6"]);
        assert_eq!(psi(""), None);
        let found = psi(
            "some avg10=1.50 avg60=0.20 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        );
        let found = found.expect("pressure");
        assert_eq!(
            (found.some.avg10, found.some.avg60, found.some.total, found.full.total),
            (1.5, 0.2, 77, 5)
        );
    }

    #[test]
    fn what_is_zero_is_left_out_where_runc_leaves_it_out() {
        let text = serde_json::to_string(&Stats::default()).unwrap();
        let memory = r#"{"limit":0,"failcnt":0}"#;
        let expected = [
            r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"#,
            r#""mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"#,
            r#""sched_load_balance":0,"sched_relax_domain_level":0},"memory":{"#,
            &format!(r#""usage":{memory},"swap":{memory},"kernel":{memory},"kernelTCP":{memory}"#),
            r#"},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#,
        ];
        assert_eq!(text, expected.concat());
    }
}
