//! What a container gets when nobody says otherwise: Docker's defaults, entry by entry. Pure. Uses: said, seccomp.

use serde_json::{Value, json};

use super::said::{Network, Said, Seccomp, Surroundings};

/// Docker's fourteen.
pub(super) const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Destination, type, source, options.
type MountLine = (&'static str, &'static str, &'static str, &'static [&'static str]);

pub(super) const MOUNTS: [MountLine; 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
];

/// The same in three sets. Inheritable stays empty (CVE-2022-24769), and with it ambient: a user other than root has
/// none after execve.
pub(super) fn capabilities() -> Value {
    json!({ "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES })
}

/// `linux` of the config, for an image, but for the seccomp profile of our own.
pub(super) fn linux(said: &Said, around: &Surroundings) -> Value {
    let mut namespaces = vec!["pid", "mount", "ipc", "uts", "cgroup"];
    // The runtime adds the devices that every container has.
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if said.memory > 0 {
        // Docker gives as much swap as memory; the spec's swap is the sum of both.
        let swap = said.memory.saturating_mul(2).min(i64::MAX as u64);
        resources["memory"] = json!({ "limit": said.memory, "swap": swap });
    }
    if let Some(cpus) = said.cpus {
        resources["cpu"] = json!({ "quota": cpus.quota, "period": cpus.period });
    }
    if said.pids_limit > 0 {
        resources["pids"] = json!({ "limit": said.pids_limit });
    }
    let mut linux = json!({
        "resources": resources,
        "maskedPaths": MASKED,
        "readonlyPaths": READONLY,
    });
    if said.network == Network::None {
        namespaces.push("network");
        // Nobody else's ports are in there, and ping needs no more.
        linux["sysctl"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": format!("0 {}", around.groups.unwrap_or(i32::MAX as u32)),
        });
    }
    linux["namespaces"] = namespaces.into_iter().map(|kind| json!({ "type": kind })).collect();
    if let Seccomp::Profile(profile) = &said.seccomp {
        linux["seccomp"] = profile.clone();
    }
    linux
}

/// The text of /etc/hosts for a container that has a loopback device only.
pub fn hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost {hostname}\n\
         ::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n"
    )
}
