//! Rows of the table of limits to properties of a unit. Pure.
//!
//! systemd must know each limit that it could write itself: whenever it realises a unit's cgroup (SetUnitProperties, a
//! daemon-reload), it writes all files of a controller as its properties say. What it cannot say (hugetlb, rdma, misc,
//! cpu.max.burst) it does not touch. After it the files are written as well: its cpu.max is rounded.

use super::value::{Property, Value};
use crate::cgroup::{Change, Write};

/// What systemd's bus has for "no limit" and for "unset".
const INFINITY: u64 = u64::MAX;

/// The kernel's default, for `max` or a quota alone.
const PERIOD: u64 = 100_000;

/// The properties that say the same as the rows.
pub fn of_writes(writes: &[Write]) -> Vec<Property> {
    let rows = writes.iter().flat_map(|write| {
        // systemd makes io.bfq.weight from IOWeight itself: the row's figure for io.weight is the one it wants.
        let second = write.or_else.as_ref().map(|(file, value)| (*file, value.as_str()));
        of(&write.file, &write.value).or_else(|| second.and_then(|(file, value)| of(file, value)))
    });
    rows.flatten().collect()
}

/// The properties that say what the files said before.
pub fn of_old(changes: &[Change]) -> Vec<Property> {
    let rows = changes.iter().filter_map(|change| of(&change.file, change.old.as_deref()?));
    rows.flatten().collect()
}

/// None where no property says it, or where the kernel will refuse it in words of its own.
fn of(file: &str, value: &str) -> Option<Vec<Property>> {
    let value = value.trim();
    let one = |name: &str, value| Some(vec![Property::new(name, value)]);
    match file {
        "memory.max" => one("MemoryMax", bytes(value)?),
        "memory.high" => one("MemoryHigh", bytes(value)?),
        "memory.low" => one("MemoryLow", bytes(value)?),
        "memory.min" => one("MemoryMin", bytes(value)?),
        "memory.swap.max" => one("MemorySwapMax", bytes(value)?),
        "memory.zswap.max" => one("MemoryZSwapMax", bytes(value)?),
        "pids.max" => one("TasksMax", number_or_max(value)?),
        "cpu.weight" => one("CPUWeight", Value::Uint64(value.parse().ok()?)),
        // systemd's weight for "idle" is 0 (CGROUP_WEIGHT_IDLE, since 252).
        "cpu.idle" => one("CPUWeight", Value::Uint64(if value == "1" { 0 } else { INFINITY })),
        "cpu.max" => cpu_max(value),
        "cpuset.cpus" => one("AllowedCPUs", mask(value)?),
        "cpuset.mems" => one("AllowedMemoryNodes", mask(value)?),
        "io.weight" => match value.split_once(' ') {
            None => one("IOWeight", Value::Uint64(value.parse().ok()?)),
            Some(("default", weight)) => one("IOWeight", Value::Uint64(weight.trim().parse().ok()?)),
            Some((_, "default")) => None,
            Some((device, weight)) => one("IODeviceWeight", per_device(device, weight.trim().parse().ok()?)?),
        },
        "io.latency" => {
            let (device, target) = value.split_once(" target=")?;
            one("IODeviceLatencyTargetUSec", per_device(device, target.parse().ok()?)?)
        }
        "io.max" => io_max(value),
        _ => None,
    }
}

fn number_or_max(value: &str) -> Option<Value> {
    if value == "max" { Some(Value::Uint64(INFINITY)) } else { value.parse().ok().map(Value::Uint64) }
}

/// As the kernel reads a size (memparse): a suffix is a power of 1024.
fn bytes(value: &str) -> Option<Value> {
    let suffix = value.chars().last()?.to_ascii_uppercase();
    match "KMGTPE".find(suffix) {
        Some(power) => {
            let unit = 1_u64 << (10 * (power + 1));
            value[..value.len() - 1].parse::<u64>().ok()?.checked_mul(unit).map(Value::Uint64)
        }
        None => number_or_max(value),
    }
}

/// Microseconds of CPU in a second. systemd keeps whole percent: what is between two is rounded up, as with runc, so that
/// cgroups below may have what the container may.
fn cpu_max(value: &str) -> Option<Vec<Property>> {
    let mut words = value.split_whitespace();
    let quota = words.next()?;
    let period =
        words.next().map_or(Some(PERIOD), |period| period.parse().ok()).filter(|period| *period > 0)?;
    let per_second = match quota {
        "max" => INFINITY,
        quota => {
            let exact = u128::from(quota.parse::<u64>().ok()?) * 1_000_000 / u128::from(period);
            u64::try_from(exact.next_multiple_of(10_000)).ok()?
        }
    };
    Some(vec![
        Property::new("CPUQuotaPerSecUSec", Value::Uint64(per_second)),
        Property::new("CPUQuotaPeriodUSec", Value::Uint64(period)),
    ])
}

/// A list of CPUs or memory nodes as a bit mask, lowest byte first. An empty one takes the limit away.
fn mask(list: &str) -> Option<Value> {
    const BITS: usize = 1 << 13;
    let mut mask: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last >= BITS {
            return None;
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0);
        }
        (first..=last).for_each(|bit| mask[bit / 8] |= 1 << (bit % 8));
    }
    Some(Value::Array("y".to_string(), mask.into_iter().map(Value::Byte).collect()))
}

/// `a(st)` of one device. The path needs no node of that name: systemd takes the numbers from it where it has one.
fn per_device(device: &str, number: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    let entry =
        Value::Struct(vec![Value::text(format!("/dev/block/{major}:{minor}")), Value::Uint64(number)]);
    Some(Value::Array("(st)".to_string(), vec![entry]))
}

fn io_max(value: &str) -> Option<Vec<Property>> {
    let (device, limits) = value.split_once(' ')?;
    let one = |limit: &str| {
        let (key, rate) = limit.split_once('=')?;
        let name = match key {
            "rbps" => "IOReadBandwidthMax",
            "wbps" => "IOWriteBandwidthMax",
            "riops" => "IOReadIOPSMax",
            "wiops" => "IOWriteIOPSMax",
            _ => return None,
        };
        let rate = if rate == "max" { INFINITY } else { rate.parse().ok()? };
        Some(Property::new(name, per_device(device, rate)?))
    };
    limits.split_whitespace().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(file: &str, value: &str) -> String {
        let one = |p: Property| match p.value {
            Value::Uint64(INFINITY) => format!("{}=inf", p.name),
            Value::Uint64(number) => format!("{}={number}", p.name),
            Value::Array(_, list) => {
                let entry = |value: &Value| match value {
                    Value::Byte(byte) => format!("{byte:#04x}"),
                    Value::Struct(fields) => match fields.as_slice() {
                        [Value::Text(path), Value::Uint64(INFINITY)] => format!("{path} inf"),
                        [Value::Text(path), Value::Uint64(rate)] => format!("{path} {rate}"),
                        other => panic!("{other:?}"),
                    },
                    other => panic!("{other:?}"),
                };
                format!("{}=[{}]", p.name, list.iter().map(entry).collect::<Vec<_>>().join(","))
            }
            other => panic!("{other:?}"),
        };
        of(file, value)
            .map_or("none".to_string(), |list| list.into_iter().map(one).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_row_has_the_property_that_says_the_same() {
        for (file, value, expected) in [
            ("memory.max", "1048576", "MemoryMax=1048576"),
            ("memory.max", "max", "MemoryMax=inf"),
            ("memory.max", "64M", "MemoryMax=67108864"),
            ("memory.high", "1g", "MemoryHigh=1073741824"),
            ("memory.low", "5", "MemoryLow=5"),
            ("memory.min", "0", "MemoryMin=0"),
            ("memory.swap.max", "0", "MemorySwapMax=0"),
            ("memory.zswap.max", "0", "MemoryZSwapMax=0"),
            ("memory.max", "lots", "none"),
            ("pids.max", "10", "TasksMax=10"),
            ("pids.max", "max", "TasksMax=inf"),
            ("cpu.weight", "174", "CPUWeight=174"),
            ("cpu.idle", "1", "CPUWeight=0"),
            ("cpu.idle", "0", "CPUWeight=inf"),
            ("cpu.max", "50000 100000", "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000"),
            ("cpu.max", "50000", "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000"),
            // 33.333 % is told as 34.
            ("cpu.max", "10000 30000", "CPUQuotaPerSecUSec=340000 CPUQuotaPeriodUSec=30000"),
            ("cpu.max", "1000 1000000", "CPUQuotaPerSecUSec=10000 CPUQuotaPeriodUSec=1000000"),
            ("cpu.max", "max 50000", "CPUQuotaPerSecUSec=inf CPUQuotaPeriodUSec=50000"),
            ("cpu.max", "max 0", "none"),
            ("cpu.max.burst", "5", "none"),
            ("cpuset.cpus", "0-1,9", "AllowedCPUs=[0x03,0x02]"),
            ("cpuset.cpus", "\n", "AllowedCPUs=[]"),
            ("cpuset.mems", "0", "AllowedMemoryNodes=[0x01]"),
            ("cpuset.cpus", "1-0", "none"),
            ("cpuset.cpus", "99999999", "none"),
            ("io.weight", "300", "IOWeight=300"),
            ("io.weight", "default 300", "IOWeight=300"),
            ("io.weight", "8:0 300", "IODeviceWeight=[/dev/block/8:0 300]"),
            ("io.weight", "8:0 default", "none"),
            ("io.latency", "8:0 target=75", "IODeviceLatencyTargetUSec=[/dev/block/8:0 75]"),
            (
                "io.max",
                "8:16 rbps=7 wiops=max",
                "IOReadBandwidthMax=[/dev/block/8:16 7] IOWriteIOPSMax=[/dev/block/8:16 inf]",
            ),
            ("io.max", "../x:1 rbps=7", "none"),
            ("hugetlb.2MB.max", "0", "none"),
            ("rdma.max", "m hca_handle=3", "none"),
            ("memory.oom.group", "1", "none"),
        ] {
            assert_eq!(told(file, value), expected, "{file}: {value:?}");
        }
    }

    #[test]
    fn a_weight_that_bfq_takes_otherwise_is_told_as_for_io_weight() {
        let write = Write {
            file: "io.bfq.weight".into(),
            value: "500".into(),
            or_else: Some(("io.weight", "4950".into())),
            pointer: "/linux/resources/blockIO/weight".into(),
            controller: "io".into(),
            missing_ok: false,
        };
        assert_eq!(of_writes(&[write]), [Property::new("IOWeight", Value::Uint64(4950))]);
    }

    #[test]
    fn what_the_files_said_is_told_again_after_a_failure() {
        let change = |file: &str, old: Option<&str>| Change {
            file: file.into(),
            old: old.map(str::to_string),
            new: "1".into(),
        };
        let changes = [
            change("pids.max", Some("max")),
            change("memory.reclaim", None),
            change("devices", Some("3 rules")),
        ];
        assert_eq!(of_old(&changes), [Property::new("TasksMax", Value::Uint64(u64::MAX))]);
    }
}
