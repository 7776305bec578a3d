//! `linux.resources` to the writes into cgroup v2's control files that it asks for. Pure.
//! The conversions from v1's terms, which the spec and engines speak, are runc's; their sources are in comments.

use std::borrow::Cow;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources,
    LinuxThrottleDevice,
};

use crate::{Error, Result};

/// What cpu.max's period is where nothing is said (Documentation/admin-guide/cgroup-v2.rst).
const DEFAULT_PERIOD: u64 = 100_000;

/// One value to be written into one control file: a row of the table that all drivers share (field, file, value). Where
/// systemd makes the cgroup, a file stands for the property that it is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The control file.
    pub file: Cow<'static, str>,
    /// What is written, without a newline.
    pub value: String,
    /// A second file and its value, for when the first is not there.
    pub or_else: Option<(&'static str, String)>,
    /// The JSON pointer of the field that asks for it.
    pub pointer: String,
    /// The controller that has the file.
    pub controller: Cow<'static, str>,
    /// The value is what a cgroup without the controller has anyway: a missing file is no failure.
    pub missing_ok: bool,
}

impl Write {
    /// Whether the controller is one that a threaded cgroup cannot have (cgroup-v2.rst, "Threads").
    pub fn needs_domain(&self) -> bool {
        !self.missing_ok && !matches!(&*self.controller, "cpu" | "cpuset" | "pids" | "perf_event" | "cgroup")
    }
}

/// A field that has no effect on cgroup v2, and why. It must be told, never dropped silently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The field.
    pub pointer: String,
    /// The reason, to follow the pointer and a colon.
    pub message: String,
}

/// `linux.resources`, compiled (`devices` apart, which become a program).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The writes, in the order they are to be made.
    pub writes: Vec<Write>,
    /// The fields without effect.
    pub warnings: Vec<Warning>,
    /// `memory.checkBeforeUpdate`: an update must not set a limit below the usage. A new cgroup has none.
    pub check_before_update: bool,
}

/// Compiles `linux.resources`. In runc's order, and `unified` last, so that it overrides what was converted.
pub fn compile(resources: &LinuxResources) -> Result<Compiled> {
    let mut compiled = Compiled::default();
    let out = &mut compiled;
    if let Some(pids) = resources.pids() {
        pids_limit(out, pids.limit());
    }
    if let Some(memory) = resources.memory() {
        compile_memory(out, memory)?;
    }
    if let Some(block_io) = resources.block_io() {
        compile_block_io(out, block_io)?;
    }
    if let Some(cpu) = resources.cpu() {
        compile_cpu(out, cpu)?;
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        compile_hugepages(out, index, limit)?;
    }
    if let Some(rdma) = resources.rdma() {
        let mut devices: Vec<_> = rdma.iter().collect();
        devices.sort_by_key(|(name, _)| name.as_str());
        for (name, limit) in devices {
            compile_rdma(out, name, limit)?;
        }
    }
    if let Some(network) = resources.network() {
        compile_network(out, network);
    }
    if let Some(unified) = resources.unified() {
        let mut files: Vec<_> = unified.iter().collect();
        files.sort();
        for (file, value) in files {
            compile_unified(out, file, value)?;
        }
    }
    Ok(compiled)
}

impl Compiled {
    fn write(&mut self, pointer: &str, controller: &'static str, file: &'static str, value: impl ToString) {
        self.push(pointer, controller, file, value, false);
    }

    fn push(
        &mut self,
        pointer: &str,
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        missing_ok: bool,
    ) {
        self.writes.push(Write {
            file: file.into(),
            value: value.to_string(),
            or_else: None,
            pointer: in_resources(pointer),
            controller: controller.into(),
            missing_ok,
        });
    }

    fn warn(&mut self, pointer: &str, message: impl Into<String>) {
        self.warnings.push(Warning { pointer: in_resources(pointer), message: message.into() });
    }
}

fn in_resources(pointer: &str) -> String {
    format!("/linux/resources/{pointer}")
}

fn refuse<T>(pointer: &str, message: impl std::fmt::Display) -> Result<T> {
    Err(Error::config(in_resources(pointer), message))
}

/// -1 is no limit. 0 becomes 1, as with runc: the container's init counts, systemd's TasksMax knows no 0 either,
/// and clone3 into a cgroup whose pids.max is 0 fails. Engines of before spec 1.3 write 0 for "unset", and oci-spec
/// reads an absent limit as 0: where the controller is missing, 0 does not count as a limit.
fn pids_limit(out: &mut Compiled, limit: i64) {
    let value = match limit {
        ..0 => "max".to_string(),
        0 => "1".to_string(),
        _ => limit.to_string(),
    };
    out.push("pids/limit", "pids", "pids.max", value, limit <= 0);
}

fn compile_memory(out: &mut Compiled, memory: &LinuxMemory) -> Result<()> {
    let field = |name: &str, value: Option<i64>| match value.unwrap_or(0) {
        value @ -1.. => Ok(value),
        value => refuse(&format!("memory/{name}"), format!("{value} is neither a size nor -1 (no limit)")),
    };
    let limit = field("limit", memory.limit())?;
    let reservation = field("reservation", memory.reservation())?;
    let swap = field("swap", memory.swap())?;

    // Swap before memory: where both shrink, pages pushed out by the smaller memory.max then find no more swap
    // than they may keep; where both grow, the order does not matter.
    if let Some(value) = swap_max(swap, limit)? {
        // Without swap accounting the file is missing: no swap to limit, and none to forbid.
        let missing_ok = value == "max" || value == "0";
        out.push("memory/swap", "memory", "memory.swap.max", value, missing_ok);
    }
    if limit != 0 {
        out.push("memory/limit", "memory", "memory.max", max_or(limit), limit == -1);
    }
    if reservation != 0 {
        out.push("memory/reservation", "memory", "memory.low", max_or(reservation), reservation == -1);
    }

    #[allow(deprecated)]
    let kernel = memory.kernel();
    for (name, value) in [("kernel", kernel), ("kernelTCP", memory.kernel_tcp())] {
        // 0 and -1 ask for no limit, which is what they get.
        if !matches!(value, None | Some(0 | -1)) {
            out.warn(
                &format!("memory/{name}"),
                "cgroup v2 has no separate limit for kernel memory: it counts for memory.limit",
            );
        }
    }
    if memory.swappiness().is_some() {
        out.warn(
            "memory/swappiness",
            "cgroup v2 has no swappiness of a cgroup's own: the host's vm.swappiness applies",
        );
    }
    if memory.disable_oom_killer() == Some(true) {
        out.warn("memory/disableOOMKiller", "cgroup v2 cannot switch the OOM killer off");
    }
    if memory.use_hierarchy() == Some(false) {
        out.warn("memory/useHierarchy", "cgroup v2 always accounts hierarchically");
    }
    out.check_before_update = memory.check_before_update().unwrap_or(false);
    Ok(())
}

/// The spec's `swap` is memory plus swap, v2's memory.swap.max is swap alone
/// (ConvertMemorySwapToCgroupV2Value of opencontainers/cgroups).
fn swap_max(swap: i64, memory: i64) -> Result<Option<String>> {
    const POINTER: &str = "memory/swap";
    let value = match (swap, memory) {
        // Docker's --memory=-1 sends no swap: no limit on either.
        (0, -1) => -1,
        (0, _) => return Ok(None),
        (-1, _) => -1,
        (swap, -1) => swap,
        (_, 0) => return refuse(POINTER, "unable to set swap limit without memory limit"),
        (swap, memory) if swap < memory => {
            return refuse(POINTER, format!("memory+swap limit {swap} should be >= memory limit {memory}"));
        }
        (swap, memory) => swap - memory,
    };
    Ok(Some(max_or(value)))
}

fn max_or(value: i64) -> String {
    if value == -1 { "max".to_string() } else { value.to_string() }
}

fn compile_cpu(out: &mut Compiled, cpu: &LinuxCpu) -> Result<()> {
    for (name, value) in [
        ("realtimeRuntime", cpu.realtime_runtime()),
        ("realtimePeriod", cpu.realtime_period().map(|period| i64::try_from(period).unwrap_or(i64::MAX))),
    ] {
        if value.is_some_and(|value| value != 0) {
            return Err(Error::unsupported(
                in_resources(&format!("cpu/{name}")),
                "cgroup v2 has no limits for realtime scheduling (v1's cpu.rt_* files)",
            ));
        }
    }

    let idle = match cpu.idle() {
        None => false,
        Some(value @ (0 | 1)) => {
            // Before cpu.weight: taking idle away sets the weight back to its default.
            out.push("cpu/idle", "cpu", "cpu.idle", value, value == 0);
            value == 1
        }
        Some(value) => return refuse("cpu/idle", format!("{value} is neither 0 nor 1")),
    };
    match cpu.shares().unwrap_or(0) {
        0 => {}
        // The kernel answers a weight for an idle cgroup with EINVAL.
        _ if idle => out.warn("cpu/shares", "has no effect on a cgroup that cpu.idle makes idle"),
        shares => out.write("cpu/shares", "cpu", "cpu.weight", weight_from_shares(shares)),
    }

    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if quota != 0 || period != 0 {
        let value = if quota > 0 { quota.to_string() } else { "max".to_string() };
        let pointer = if quota != 0 { "cpu/quota" } else { "cpu/period" };
        let period = if period == 0 { DEFAULT_PERIOD } else { period };
        out.push(pointer, "cpu", "cpu.max", format!("{value} {period}"), quota <= 0);
    }
    if let Some(burst) = cpu.burst() {
        // After cpu.max: a burst may not exceed the quota. (apply() tries the other order when both shrink.)
        out.push("cpu/burst", "cpu", "cpu.max.burst", burst, burst == 0);
    }
    for (name, file, value) in [("cpus", "cpuset.cpus", cpu.cpus()), ("mems", "cpuset.mems", cpu.mems())] {
        if let Some(list) = value.as_deref().filter(|list| !list.is_empty()) {
            let pointer = format!("cpu/{name}");
            single_line(&pointer, list)?;
            out.write(&pointer, "cpuset", file, list);
        }
    }
    Ok(())
}

/// v1's shares (2 to 262144, default 1024) to v2's weight (1 to 10000, default 100): a parabola in log2 through
/// (2, 1), (1024, 100) and (262144, 10000), rounded up. runc 1.3.2, crun 1.23 and containerd use the same one; the
/// straight line of before gave 1024 shares a weight of 39.
fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        // Exactly 100, which a floating point error of one unit would round up to 101.
        1024 => 100,
        262_144.. => 10_000,
        _ => {
            // At most 2^18, so the conversions are exact and the result lies within 1 to 10000.
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            {
                let l = (shares as f64).log2();
                let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
                10_f64.powf(exponent).ceil() as u64
            }
        }
    }
}

fn compile_block_io(out: &mut Compiled, block_io: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = weight("blockIO/weight", block_io.weight())? {
        weigh(out, "blockIO/weight", weight.to_string(), io_weight(weight).to_string());
    }
    if block_io.leaf_weight().unwrap_or(0) != 0 {
        out.warn("blockIO/leafWeight", LEAF_WEIGHT);
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        let pointer = format!("blockIO/weightDevice/{index}");
        let id = device_id(&pointer, device.major(), device.minor())?;
        if let Some(weight) = weight(&format!("{pointer}/weight"), device.weight())? {
            weigh(
                out,
                &format!("{pointer}/weight"),
                format!("{id} {weight}"),
                format!("{id} {}", io_weight(weight)),
            );
        }
        if device.leaf_weight().unwrap_or(0) != 0 {
            out.warn(&format!("{pointer}/leafWeight"), LEAF_WEIGHT);
        }
    }
    for (field, key, devices) in [
        ("throttleReadBpsDevice", "rbps", block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "wiops", block_io.throttle_write_iops_device()),
    ] {
        for (index, device) in devices.iter().flatten().enumerate() {
            throttle(out, &format!("blockIO/{field}/{index}"), key, device)?;
        }
    }
    Ok(())
}

const LEAF_WEIGHT: &str = "cgroup v2 has no leaf weight (it belonged to v1's CFQ scheduler)";

/// A weight that is set: 10 to 1000 by the spec, and 0 for unset.
fn weight(pointer: &str, weight: Option<u16>) -> Result<Option<u16>> {
    match weight {
        None | Some(0) => Ok(None),
        Some(10..=1000) => Ok(weight),
        Some(weight) => refuse(pointer, format!("{weight} is not between 10 and 1000")),
    }
}

/// v1's 10 to 1000 to io.weight's 1 to 10000 (ConvertBlkIOToIOWeightValue).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

/// io.bfq.weight is there when the BFQ scheduler is loaded, and takes v1's figures; io.weight is iocost's.
fn weigh(out: &mut Compiled, pointer: &str, bfq: String, io: String) {
    out.write(pointer, "io", "io.bfq.weight", bfq);
    if let Some(write) = out.writes.last_mut() {
        write.or_else = Some(("io.weight", io));
    }
}

fn throttle(out: &mut Compiled, pointer: &str, key: &str, device: &LinuxThrottleDevice) -> Result<()> {
    let id = device_id(pointer, device.major(), device.minor())?;
    // In v1 a rate of 0 takes the limit away; io.max answers 0 with ERANGE.
    let rate = if device.rate() == 0 { "max".to_string() } else { device.rate().to_string() };
    out.push(&format!("{pointer}/rate"), "io", "io.max", format!("{id} {key}={rate}"), device.rate() == 0);
    Ok(())
}

fn device_id(pointer: &str, major: i64, minor: i64) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => refuse(pointer, format!("{major}:{minor} is no device number")),
    }
}

fn compile_hugepages(out: &mut Compiled, index: usize, limit: &LinuxHugepageLimit) -> Result<()> {
    let pointer = format!("hugepageLimits/{index}");
    let size = limit.page_size();
    let digits = size.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
    // The size becomes part of a file's name.
    if digits.is_empty()
        || digits.len() + 2 != size.len()
        || digits.starts_with('0')
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return refuse(&format!("{pointer}/pageSize"), format!("{size:?} is no page size such as \"2MB\""));
    }
    let value = match limit.limit() {
        value @ -1.. => max_or(value),
        value => {
            return refuse(
                &format!("{pointer}/limit"),
                format!("{value} is neither a size nor -1 (no limit)"),
            );
        }
    };
    let missing_ok = limit.limit() == -1;
    let pointer = format!("{pointer}/limit");
    out.push(&pointer, "hugetlb", format!("hugetlb.{size}.max"), &value, missing_ok);
    // Without a limit on reservations, mmap(MAP_HUGETLB) succeeds and the later fault kills by SIGBUS.
    out.push(&pointer, "hugetlb", format!("hugetlb.{size}.rsvd.max"), &value, missing_ok);
    Ok(())
}

fn compile_rdma(out: &mut Compiled, device: &str, limit: &LinuxRdma) -> Result<()> {
    let pointer = format!("rdma/{}", escape(device));
    if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c == '\0') {
        return refuse(&pointer, format!("{device:?} is no name of an RDMA device"));
    }
    let mut value = device.to_string();
    for (key, limit) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
        if let Some(limit) = limit {
            value += &format!(" {key}={limit}");
        }
    }
    if value != device {
        out.write(&pointer, "rdma", "rdma.max", value);
    }
    Ok(())
}

fn compile_network(out: &mut Compiled, network: &LinuxNetwork) {
    if network.class_id().unwrap_or(0) != 0 {
        out.warn(
            "network/classID",
            "cgroup v2 has no net_cls controller: match the cgroup by its path in the firewall",
        );
    }
    if network.priorities().as_ref().is_some_and(|priorities| !priorities.is_empty()) {
        out.warn("network/priorities", "cgroup v2 has no net_prio controller");
    }
}

/// Of the files that every cgroup has those that a container may ask for. A pid in cgroup.procs would make a process of the
/// machine one of the container, and `delete` would kill it.
const UNIFIED_OF_THE_CORE: [&str; 3] = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];

fn compile_unified(out: &mut Compiled, file: &str, value: &str) -> Result<()> {
    let pointer = format!("unified/{}", escape(file));
    if file.is_empty() || file.contains(['/', '\0']) || file == "." || file == ".." {
        return refuse(&pointer, format!("unified resource {file:?} must be a file name (no slashes)"));
    }
    if value.contains('\0') {
        return refuse(&pointer, "contains a NUL");
    }
    if file.starts_with("cgroup.") && !UNIFIED_OF_THE_CORE.contains(&file) {
        return refuse(
            &pointer,
            format!(
                "{file} is no limit: it moves, kills or freezes processes, or changes what the cgroup is"
            ),
        );
    }
    let controller = file.split('.').next().unwrap_or(file).to_string();
    // Files such as io.max take one line a write.
    let lines: Vec<_> = value.lines().filter(|line| !line.is_empty()).collect();
    // cpuset.cpus takes an empty line for "as the parent has it".
    for line in if lines.is_empty() { vec![""] } else { lines } {
        // An empty write(2) never reaches the kernel's file.
        let line = if line.is_empty() { "\n" } else { line };
        out.push(&pointer, "", file.to_string(), line, false);
        if let Some(write) = out.writes.last_mut() {
            write.controller = controller.clone().into();
        }
    }
    Ok(())
}

/// The kernel reads a value up to its first NUL or newline: what follows would be dropped silently.
fn single_line(pointer: &str, value: &str) -> Result<()> {
    if value.contains(['\0', '\n']) {
        refuse(pointer, format!("{value:?} contains a NUL or newline"))
    } else {
        Ok(())
    }
}

/// A key as a JSON pointer's token (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
#[path = "resources_test.rs"]
mod tests;
