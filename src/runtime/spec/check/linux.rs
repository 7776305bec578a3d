//! The `linux` object. What the cgroup and seccomp modules convert, they check themselves.
//! Uses: fault, text, sysctl.

use oci_spec::runtime::{self as oci, LinuxDeviceType, LinuxNamespaceType};

use super::super::Namespace;
use super::super::fault::{Fault, Quoted};
use super::super::sysctl;
use super::text::{Checked, absolute, bounded, count, path};
use super::{entry, intel_rdt, namespace, net_devices, scheduling};

/// Docker's --privileged lists every device of the host, which may be thousands of disks.
const MAX_DEVICES: usize = 65536;
/// Engines mask a file for each processor.
const MAX_PATHS: usize = 65536;
const MAX_SYSCTLS: usize = 4096;
/// It goes over a socket in one message.
const MAX_METADATA: usize = 64 << 10;
/// UID_GID_MAP_MAX_EXTENTS of the kernel.
const MAX_MAPPINGS: usize = 340;
/// MAJOR and MINOR of the kernel's dev_t.
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

/// Checks the `linux` object, if there is one.
pub fn linux(spec: &oci::Spec) -> Checked {
    let Some(linux) = spec.linux() else { return Ok(()) };
    linux.intel_rdt().as_ref().map_or(Ok(()), intel_rdt::check)?;
    scheduling::linux(linux)?;
    net_devices::all(spec, linux)?;
    namespaces(linux)?;
    id_mappings(spec, linux)?;
    time_offsets(spec, linux)?;
    sysctls(spec, linux)?;
    devices(linux)?;
    if let Some(resources) = linux.resources() {
        self::resources(resources)?;
    }
    if let Some(cgroup) = linux.cgroups_path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
        let at = format_args!("/linux/cgroupsPath");
        path(cgroup, at)?;
        if cgroup.to_string_lossy().split('/').any(|part| part == "..") {
            let shown = cgroup.to_string_lossy();
            return Err(Fault::new(at, format_args!("{} may not contain \"..\"", Quoted(&shown))));
        }
    }
    propagation(linux)?;
    for (field, list) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        let list = list.as_deref().unwrap_or_default();
        count(list.len(), MAX_PATHS, format_args!("/linux/{field}"))?;
        for (i, found) in list.iter().enumerate() {
            absolute(found.as_ref(), format_args!("/linux/{field}/{i}"))?;
        }
        if !list.is_empty() && namespace(spec, LinuxNamespaceType::Mount) == Namespace::Inherit {
            // runc's words.
            let text = "unable to restrict sys entries without a private MNT namespace";
            return Err(Fault::new(format_args!("/linux/{field}"), text));
        }
    }
    if let Some(seccomp) = linux.seccomp() {
        agent(seccomp)?;
    }
    if let Some(label) = linux.mount_label() {
        bounded(label, 4096, format_args!("/linux/mountLabel"))?;
    }
    Ok(())
}

/// What the compiler of the filter does not look at.
fn agent(seccomp: &oci::LinuxSeccomp) -> Checked {
    if let Some(found) = seccomp.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
        absolute(found, format_args!("/linux/seccomp/listenerPath"))?;
    }
    if let Some(text) = seccomp.listener_metadata() {
        bounded(text, MAX_METADATA, format_args!("/linux/seccomp/listenerMetadata"))?;
    }
    Ok(())
}

fn namespaces(linux: &oci::Linux) -> Checked {
    let mut seen = 0u32;
    for (i, ns) in linux.namespaces().as_deref().unwrap_or_default().iter().enumerate() {
        let bit = ns.typ() as u32;
        if seen & bit != 0 {
            let kind = kind(ns.typ());
            let at = format_args!("/linux/namespaces/{i}/type");
            return Err(Fault::new(at, format_args!("duplicated {kind} namespace")));
        }
        seen |= bit;
        if let Some(found) = ns.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
            absolute(found, format_args!("/linux/namespaces/{i}/path"))?;
        }
    }
    Ok(())
}

/// The spec's word: oci-spec prints `mnt` and `net` for these two.
fn kind(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

fn id_mappings(spec: &oci::Spec, linux: &oci::Linux) -> Checked {
    let user = namespace(spec, LinuxNamespaceType::User);
    for (field, id, list) in
        [("uidMappings", "uid", linux.uid_mappings()), ("gidMappings", "gid", linux.gid_mappings())]
    {
        let list = list.as_deref().unwrap_or_default();
        if list.is_empty() {
            if user == Namespace::New {
                let text = format_args!("User namespaces enabled, but no {id} mappings found");
                return Err(Fault::new(format_args!("/linux/{field}"), text));
            }
            continue;
        }
        match user {
            Namespace::New => {}
            Namespace::Inherit => {
                let text =
                    "User namespace mappings specified, but USER namespace isn't enabled in the config";
                return Err(Fault::new(format_args!("/linux/{field}"), text));
            }
            // A map is written once, by whoever made the namespace. podman and nerdctl repeat it in the config of
            // a container that joins; it is only checked for form.
            Namespace::Join(_) => {}
        }
        mapping(&format!("/linux/{field}"), list)?;
    }
    Ok(())
}

/// What the kernel would refuse with EINVAL, and no word of which line. `base` is the list's JSON pointer.
pub fn mapping(base: &str, list: &[oci::LinuxIdMapping]) -> Checked {
    count(list.len(), MAX_MAPPINGS, format_args!("{base}"))?;
    for (i, map) in list.iter().enumerate() {
        let at = format_args!("{base}/{i}");
        if map.size() == 0 {
            return Err(Fault::new(format_args!("{base}/{i}/size"), "must be greater than zero"));
        }
        for (side, first) in [("containerID", map.container_id()), ("hostID", map.host_id())] {
            if first.checked_add(map.size()).is_none() {
                let at = format_args!("{base}/{i}/{side}");
                return Err(Fault::new(
                    at,
                    format_args!("{first} and {} more ids are beyond the largest id", map.size()),
                ));
            }
        }
        let overlap = |a: u32, a_size: u32, b: u32, b_size: u32| a < b + b_size && b < a + a_size;
        let before = list[..i].iter().position(|other| {
            overlap(map.container_id(), map.size(), other.container_id(), other.size())
                || overlap(map.host_id(), map.size(), other.host_id(), other.size())
        });
        if let Some(other) = before {
            return Err(Fault::new(at, format_args!("overlaps with mapping {other}")));
        }
    }
    Ok(())
}

/// An id without a mapping would be refused by setresuid(2) in the container, as EINVAL.
pub fn user_is_mapped(process: &oci::Process, spec: &oci::Spec) -> Checked {
    let Some(linux) = spec.linux() else { return Ok(()) };
    if namespace(spec, LinuxNamespaceType::User) != Namespace::New {
        return Ok(());
    }
    for (field, id, list) in [
        ("uid", process.user().uid(), linux.uid_mappings()),
        ("gid", process.user().gid(), linux.gid_mappings()),
    ] {
        let list = list.as_deref().unwrap_or_default();
        let inside = |map: &oci::LinuxIdMapping| {
            id.checked_sub(map.container_id()).is_some_and(|offset| offset < map.size())
        };
        if !list.is_empty() && !list.iter().any(inside) {
            let at = format_args!("/process/user/{field}");
            return Err(Fault::new(at, format_args!("{field} {id} is not mapped in /linux/{field}Mappings")));
        }
    }
    Ok(())
}

fn time_offsets(spec: &oci::Spec, linux: &oci::Linux) -> Checked {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(());
    };
    // The offsets of a namespace are frozen once a process is in it.
    if namespace(spec, LinuxNamespaceType::Time) != Namespace::New {
        let text = "time namespace offsets specified, but no new time namespace is in /linux/namespaces";
        return Err(Fault::new("/linux/timeOffsets", text));
    }
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            let text = "only the clocks \"monotonic\" and \"boottime\" have offsets";
            return Err(Fault::new(entry("/linux/timeOffsets", clock), text));
        }
        if offset.nanosecs().is_some_and(|n| n > 999_999_999) {
            let at = format_args!("/linux/timeOffsets/{clock}/nanosecs");
            return Err(Fault::new(at, "must be less than a second"));
        }
    }
    Ok(())
}

fn sysctls(spec: &oci::Spec, linux: &oci::Linux) -> Checked {
    let Some(sysctls) = linux.sysctl().as_ref().filter(|sysctls| !sysctls.is_empty()) else {
        return Ok(());
    };
    count(sysctls.len(), MAX_SYSCTLS, format_args!("/linux/sysctl"))?;
    let own = |kind| namespace(spec, kind) != Namespace::Inherit;
    let own = sysctl::Own {
        ipc: own(LinuxNamespaceType::Ipc),
        network: own(LinuxNamespaceType::Network),
        uts: own(LinuxNamespaceType::Uts),
        user: own(LinuxNamespaceType::User),
    };
    for (name, value) in sysctls {
        if let Err(why) = sysctl::allowed(name, own) {
            let at = entry("/linux/sysctl", name);
            return Err(Fault::new(at, format_args!("sysctl {} {why}", Quoted(name))));
        }
        // The kernel takes a page.
        if value.len() >= 4096 || value.contains('\0') {
            return Err(Fault::new(
                entry("/linux/sysctl", name),
                "a value has less than 4096 bytes and no NUL",
            ));
        }
    }
    Ok(())
}

fn devices(linux: &oci::Linux) -> Checked {
    let list = linux.devices().as_deref().unwrap_or_default();
    count(list.len(), MAX_DEVICES, format_args!("/linux/devices"))?;
    for (i, device) in list.iter().enumerate() {
        absolute(device.path(), format_args!("/linux/devices/{i}/path"))?;
        match device.typ() {
            LinuxDeviceType::A => {
                let at = format_args!("/linux/devices/{i}/type");
                return Err(Fault::new(at, "a device has type c, b, u or p"));
            }
            LinuxDeviceType::P => {}
            LinuxDeviceType::B | LinuxDeviceType::C | LinuxDeviceType::U => {
                for (field, value, max) in
                    [("major", device.major(), MAX_MAJOR), ("minor", device.minor(), MAX_MINOR)]
                {
                    if !(0..=max).contains(&value) {
                        let at = format_args!("/linux/devices/{i}/{field}");
                        return Err(Fault::new(at, format_args!("{value} is not between 0 and {max}")));
                    }
                }
            }
        }
        // Docker writes st_mode here, with the type of the file in it.
        if let Some(mode) = device.file_mode().filter(|mode| *mode > 0o177_777) {
            let at = format_args!("/linux/devices/{i}/fileMode");
            return Err(Fault::new(at, format_args!("{mode} is not a file mode")));
        }
        for (field, id) in [("uid", device.uid()), ("gid", device.gid())] {
            if id == Some(u32::MAX) {
                let at = format_args!("/linux/devices/{i}/{field}");
                return Err(Fault::new(at, format_args!("{} is not an id", u32::MAX)));
            }
        }
    }
    Ok(())
}

/// `linux.resources`, also where it stands alone.
pub(in crate::spec) fn resources(resources: &oci::LinuxResources) -> Checked {
    device_rules(resources)?;
    network(resources)
}

fn device_rules(resources: &oci::LinuxResources) -> Checked {
    let rules = resources.devices().as_deref().unwrap_or_default();
    count(rules.len(), MAX_DEVICES, format_args!("/linux/resources/devices"))?;
    for (i, rule) in rules.iter().enumerate() {
        if matches!(rule.typ(), Some(LinuxDeviceType::U | LinuxDeviceType::P)) {
            let at = format_args!("/linux/resources/devices/{i}/type");
            return Err(Fault::new(at, "a device rule has type a, c or b"));
        }
        for (field, value, max) in [("major", rule.major(), MAX_MAJOR), ("minor", rule.minor(), MAX_MINOR)] {
            // -1 is the wildcard.
            if let Some(value) = value.filter(|value| !(-1..=max).contains(value)) {
                let at = format_args!("/linux/resources/devices/{i}/{field}");
                return Err(Fault::new(at, format_args!("{value} is not between -1 and {max}")));
            }
        }
        let access = rule.access().as_deref().unwrap_or_default();
        if !access.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
            let at = format_args!("/linux/resources/devices/{i}/access");
            return Err(Fault::new(at, format_args!("{} is not made of r, w and m", Quoted(access))));
        }
    }
    Ok(())
}

/// cgroup v2 has no controller for these.
fn network(resources: &oci::LinuxResources) -> Checked {
    let Some(network) = resources.network() else { return Ok(()) };
    let why = "is a limit of cgroup v1, which rcrun does not support";
    if network.class_id().is_some() {
        return Err(Fault::unsupported("/linux/resources/network/classID", why));
    }
    if network.priorities().as_ref().is_some_and(|p| !p.is_empty()) {
        return Err(Fault::unsupported("/linux/resources/network/priorities", why));
    }
    Ok(())
}

fn propagation(linux: &oci::Linux) -> Checked {
    const KINDS: [&str; 8] =
        ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"];
    match linux.rootfs_propagation().as_deref() {
        Some(kind) if !kind.is_empty() && !KINDS.contains(&kind) => {
            let text = format_args!("rootfsPropagation={} is not supported", Quoted(kind)).to_string();
            Err(Fault::new("/linux/rootfsPropagation", text))
        }
        _ => Ok(()),
    }
}
