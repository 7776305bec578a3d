//! `rcrun update`: its options, each with the field of `linux.resources` that it is about. Uses: flags.

use std::path::PathBuf;

use clap::Arg;

use super::flags::{list, path, switch, text};
use super::resolve::Matches;
use super::usage;
use rcrun_runtime::Result;

/// `rcrun update`
#[derive(Debug, PartialEq, Eq)]
pub struct Update {
    /// The container.
    pub id: String,
    /// What is to change.
    pub wanted: Wanted,
    /// `--l3-cache-schema`, `--mem-bw-schema`: of its class of resctrl.
    pub schemata: Schemata,
    /// `--dry-run`: print what would change.
    pub dry_run: bool,
    /// `--safe`: reclaim memory first, and rather give up than kill.
    pub safe: bool,
}

/// New lines for `schemata`, each of which may be of several domains.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Schemata {
    /// Caches.
    pub l3_cache: Option<String>,
    /// Memory bandwidth.
    pub memory_bandwidth: Option<String>,
}

impl Schemata {
    /// None is wanted.
    pub fn is_empty(&self) -> bool {
        *self == Schemata::default()
    }
}

/// Where the new limits stand.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `--resources -`
    Stdin,
    /// `--resources FILE`
    File(PathBuf),
    /// In options, by their names in `LIMITS`.
    Options(Vec<(&'static Limit, Vec<String>)>),
}

/// An option for one limit.
#[derive(Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    value: &'static str,
    help: &'static str,
    /// What it says.
    pub kind: Kind,
}

/// How the value of an option is read, and the JSON pointer in `linux.resources` that it goes to, or the file of `unified`.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, with a suffix or not; -1 is no limit.
    Bytes(&'static str),
    /// A number.
    Number(&'static str),
    /// A number that is not 0: in config.json that says nothing.
    Positive(&'static str),
    /// A word as it is.
    Word(&'static str),
    /// Bytes for a file; `max` or -1 is no limit.
    BytesOf(&'static str),
    /// A number for a file.
    NumberOf(&'static str),
    /// true or false for a file.
    SwitchOf(&'static str),
    /// Devices and their limits for io.max.
    Devices(&'static str),
    /// Nothing is done, and that is told, as runc does.
    Obsolete,
}

/// All of them.
pub const LIMITS: &[Limit] = &[
    limit("memory", "BYTES", "Memory at most, such as 512m; -1 for no limit", Kind::Bytes("/memory/limit")),
    limit(
        "memory-swap",
        "BYTES",
        "Memory and swap together at most; -1 for no limit",
        Kind::Bytes("/memory/swap"),
    ),
    limit("memory-reservation", "BYTES", "The same as --memory-low", Kind::Bytes("/memory/reservation")),
    limit(
        "memory-high",
        "BYTES",
        "Above it, memory is reclaimed and allocation slow",
        Kind::BytesOf("memory.high"),
    ),
    limit("memory-low", "BYTES", "Below it, memory is reclaimed last of all", Kind::BytesOf("memory.low")),
    limit("memory-min", "BYTES", "Below it, memory is never reclaimed", Kind::BytesOf("memory.min")),
    limit(
        "oom-group",
        "BOOL",
        "true: the OOM killer kills all processes or none",
        Kind::SwitchOf("memory.oom.group"),
    ),
    limit("cpu-quota", "USEC", "CPU time in a period at most; -1 for no limit", Kind::Positive("/cpu/quota")),
    limit("cpu-period", "USEC", "Length of a period", Kind::Positive("/cpu/period")),
    limit("cpu-burst", "USEC", "Unused CPU time that may be saved up", Kind::Number("/cpu/burst")),
    limit(
        "cpu-share",
        "N",
        "Weight in v1's figures: 2 to 262144, 1024 is the default",
        Kind::Positive("/cpu/shares"),
    ),
    limit("cpu-weight", "N", "Weight: 1 to 10000, 100 is the default", Kind::NumberOf("cpu.weight")),
    limit("cpu-idle", "0|1", "1: run only when nobody else wants the processor", Kind::Number("/cpu/idle")),
    limit("cpuset-cpus", "LIST", "Processors, such as 0-3,7", Kind::Word("/cpu/cpus")),
    limit("cpuset-mems", "LIST", "Memory nodes", Kind::Word("/cpu/mems")),
    limit("pids-limit", "N", "Processes and threads at most; -1 for no limit", Kind::Number("/pids/limit")),
    limit("blkio-weight", "N", "Weight for block devices: 10 to 1000", Kind::Positive("/blockIO/weight")),
    limit(
        "io-max",
        "DEVICE LIMIT...",
        "rbps, wbps, riops, wiops of a device (repeatable)",
        Kind::Devices("io.max"),
    ),
    limit("cpu-rt-period", "USEC", "", Kind::Number("/cpu/realtimePeriod")),
    limit("cpu-rt-runtime", "USEC", "", Kind::Number("/cpu/realtimeRuntime")),
    limit("kernel-memory", "BYTES", "", Kind::Obsolete),
    limit("kernel-memory-tcp", "BYTES", "", Kind::Obsolete),
];

const fn limit(name: &'static str, value: &'static str, help: &'static str, kind: Kind) -> Limit {
    Limit { name, value, help, kind }
}

/// The options as the parser needs them. Those without a help are not shown: v2 has nothing for them.
pub(super) fn flags() -> Vec<Arg> {
    let mut flags = vec![
        path("resources", "FILE", "Read a linux.resources object from FILE (-: standard input)").short('r'),
        text("l3-cache-schema", "SCHEMA", "Caches of its resctrl class, such as L3:0=f"),
        text("mem-bw-schema", "SCHEMA", "Memory bandwidth of its resctrl class, such as MB:0=20"),
        switch("dry-run", "Print what would change: file, old and new value"),
        switch("safe", "Reclaim memory first, and give up rather than kill"),
    ];
    flags.extend(LIMITS.iter().map(|limit| match limit.kind {
        Kind::Devices(_) => list(limit.name, limit.value, limit.help),
        _ => text(limit.name, limit.value, limit.help).hide(limit.help.is_empty()),
    }));
    flags
}

pub(super) fn resolved(id: String, options: &Matches) -> Result<Update> {
    let given: Vec<_> = LIMITS
        .iter()
        .map(|limit| (limit, options.all::<String>(limit.name)))
        // As in Go, an empty word is none.
        .filter(|(_, words)| words.iter().any(|word| !word.is_empty()))
        .collect();
    let schemata = Schemata {
        l3_cache: options.word("l3-cache-schema"),
        memory_bandwidth: options.word("mem-bw-schema"),
    };
    let wanted = match options.path("resources") {
        Some(_) if !given.is_empty() => {
            let name = given[0].0.name;
            return Err(usage(format!(
                "--resources says all about the limits: --{name} may not stand beside it"
            )));
        }
        Some(file) if file.as_os_str() == "-" => Wanted::Stdin,
        Some(file) => Wanted::File(file),
        None if given.is_empty() && schemata.is_empty() => {
            return Err(usage("nothing is to be changed: give --resources FILE or an option for a limit"));
        }
        None => Wanted::Options(given),
    };
    Ok(Update { id, wanted, schemata, dry_run: options.on("dry-run"), safe: options.on("safe") })
}
