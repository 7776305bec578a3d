//! docs/spec-conformance.md has a row for each field of runtime-spec 1.3, and each test that it names is there.
//! Uses: page.

mod page;
#[allow(dead_code)]
mod source;

use page::quoted;
use std::collections::BTreeSet;

/// The fields of config.json, as its schema names them, those of the state, and the keys of features.md. Places in lists and keys of maps are
/// left out; so are the mappings of ids, which are the same wherever they stand.
const FIELDS: [&str; 211] = [
    "/ociVersion",
    "/root/path",
    "/root/readonly",
    "/mounts",
    "/mounts/destination",
    "/mounts/source",
    "/mounts/type",
    "/mounts/options",
    "/mounts/uidMappings",
    "/mounts/gidMappings",
    "/process",
    "/process/terminal",
    "/process/consoleSize",
    "/process/consoleSize/height",
    "/process/consoleSize/width",
    "/process/cwd",
    "/process/env",
    "/process/args",
    "/process/rlimits",
    "/process/rlimits/type",
    "/process/rlimits/soft",
    "/process/rlimits/hard",
    "/process/apparmorProfile",
    "/process/capabilities",
    "/process/capabilities/effective",
    "/process/capabilities/bounding",
    "/process/capabilities/inheritable",
    "/process/capabilities/permitted",
    "/process/capabilities/ambient",
    "/process/noNewPrivileges",
    "/process/oomScoreAdj",
    "/process/scheduler",
    "/process/scheduler/policy",
    "/process/scheduler/nice",
    "/process/scheduler/priority",
    "/process/scheduler/flags",
    "/process/scheduler/runtime",
    "/process/scheduler/deadline",
    "/process/scheduler/period",
    "/process/selinuxLabel",
    "/process/ioPriority",
    "/process/ioPriority/class",
    "/process/ioPriority/priority",
    "/process/execCPUAffinity",
    "/process/execCPUAffinity/initial",
    "/process/execCPUAffinity/final",
    "/process/user",
    "/process/user/uid",
    "/process/user/gid",
    "/process/user/additionalGids",
    "/process/user/umask",
    "/hostname",
    "/domainname",
    "/hooks",
    "/hooks/prestart",
    "/hooks/createRuntime",
    "/hooks/createContainer",
    "/hooks/startContainer",
    "/hooks/poststart",
    "/hooks/poststop",
    "/hooks/path",
    "/hooks/args",
    "/hooks/env",
    "/hooks/timeout",
    "/annotations",
    "/linux/namespaces",
    "/linux/namespaces/type",
    "/linux/namespaces/path",
    "/linux/uidMappings",
    "/linux/gidMappings",
    "/linux/timeOffsets",
    "/linux/timeOffsets/secs",
    "/linux/timeOffsets/nanosecs",
    "/linux/devices",
    "/linux/devices/type",
    "/linux/devices/path",
    "/linux/devices/major",
    "/linux/devices/minor",
    "/linux/devices/fileMode",
    "/linux/devices/uid",
    "/linux/devices/gid",
    "/linux/netDevices",
    "/linux/netDevices/name",
    "/linux/cgroupsPath",
    "/linux/resources/devices",
    "/linux/resources/devices/allow",
    "/linux/resources/devices/type",
    "/linux/resources/devices/major",
    "/linux/resources/devices/minor",
    "/linux/resources/devices/access",
    "/linux/resources/memory/limit",
    "/linux/resources/memory/reservation",
    "/linux/resources/memory/swap",
    "/linux/resources/memory/kernel",
    "/linux/resources/memory/kernelTCP",
    "/linux/resources/memory/swappiness",
    "/linux/resources/memory/disableOOMKiller",
    "/linux/resources/memory/useHierarchy",
    "/linux/resources/memory/checkBeforeUpdate",
    "/linux/resources/cpu/shares",
    "/linux/resources/cpu/burst",
    "/linux/resources/cpu/idle",
    "/linux/resources/cpu/quota",
    "/linux/resources/cpu/period",
    "/linux/resources/cpu/realtimeRuntime",
    "/linux/resources/cpu/realtimePeriod",
    "/linux/resources/cpu/cpus",
    "/linux/resources/cpu/mems",
    "/linux/resources/blockIO/weight",
    "/linux/resources/blockIO/weightDevice",
    "/linux/resources/blockIO/throttleReadBpsDevice",
    "/linux/resources/blockIO/throttleWriteBpsDevice",
    "/linux/resources/blockIO/throttleReadIOPSDevice",
    "/linux/resources/blockIO/throttleWriteIOPSDevice",
    "/linux/resources/blockIO/leafWeight",
    "/linux/resources/blockIO/weightDevice/major",
    "/linux/resources/blockIO/weightDevice/minor",
    "/linux/resources/blockIO/weightDevice/weight",
    "/linux/resources/blockIO/throttleReadBpsDevice/major",
    "/linux/resources/blockIO/throttleReadBpsDevice/minor",
    "/linux/resources/blockIO/throttleReadBpsDevice/rate",
    "/linux/resources/blockIO/throttleWriteBpsDevice/major",
    "/linux/resources/blockIO/throttleWriteBpsDevice/minor",
    "/linux/resources/blockIO/throttleWriteBpsDevice/rate",
    "/linux/resources/blockIO/throttleReadIOPSDevice/major",
    "/linux/resources/blockIO/throttleReadIOPSDevice/minor",
    "/linux/resources/blockIO/throttleReadIOPSDevice/rate",
    "/linux/resources/blockIO/throttleWriteIOPSDevice/major",
    "/linux/resources/blockIO/throttleWriteIOPSDevice/minor",
    "/linux/resources/blockIO/throttleWriteIOPSDevice/rate",
    "/linux/resources/blockIO/weightDevice/leafWeight",
    "/linux/resources/hugepageLimits",
    "/linux/resources/hugepageLimits/pageSize",
    "/linux/resources/hugepageLimits/limit",
    "/linux/resources/network/classID",
    "/linux/resources/network/priorities",
    "/linux/resources/network/priorities/name",
    "/linux/resources/network/priorities/priority",
    "/linux/resources/pids/limit",
    "/linux/resources/rdma",
    "/linux/resources/rdma/hcaHandles",
    "/linux/resources/rdma/hcaObjects",
    "/linux/resources/unified",
    "/linux/intelRdt",
    "/linux/intelRdt/closID",
    "/linux/intelRdt/l3CacheSchema",
    "/linux/intelRdt/memBwSchema",
    "/linux/intelRdt/schemata",
    "/linux/intelRdt/enableMonitoring",
    "/linux/memoryPolicy",
    "/linux/memoryPolicy/mode",
    "/linux/memoryPolicy/nodes",
    "/linux/memoryPolicy/flags",
    "/linux/sysctl",
    "/linux/seccomp",
    "/linux/seccomp/defaultAction",
    "/linux/seccomp/defaultErrnoRet",
    "/linux/seccomp/architectures",
    "/linux/seccomp/syscalls",
    "/linux/seccomp/syscalls/names",
    "/linux/seccomp/syscalls/action",
    "/linux/seccomp/syscalls/errnoRet",
    "/linux/seccomp/syscalls/args",
    "/linux/seccomp/syscalls/args/index",
    "/linux/seccomp/syscalls/args/value",
    "/linux/seccomp/syscalls/args/valueTwo",
    "/linux/seccomp/syscalls/args/op",
    "/linux/seccomp/flags",
    "/linux/seccomp/listenerPath",
    "/linux/seccomp/listenerMetadata",
    "/linux/rootfsPropagation",
    "/linux/maskedPaths",
    "/linux/readonlyPaths",
    "/linux/mountLabel",
    "/linux/personality",
    "/linux/personality/domain",
    "/linux/personality/flags",
    "state/ociVersion",
    "state/id",
    "state/status",
    "state/pid",
    "state/bundle",
    "state/annotations",
    "containerProcessState/ociVersion",
    "containerProcessState/fds",
    "containerProcessState/pid",
    "containerProcessState/metadata",
    "containerProcessState/state",
    "features/ociVersionMin",
    "features/ociVersionMax",
    "features/hooks",
    "features/mountOptions",
    "features/annotations",
    "features/potentiallyUnsafeConfigAnnotations",
    "features/linux/namespaces",
    "features/linux/capabilities",
    "features/linux/cgroup",
    "features/linux/seccomp",
    "features/linux/apparmor",
    "features/linux/selinux",
    "features/linux/intelRdt",
    "features/linux/memoryPolicy",
    "features/linux/mountExtensions",
    "features/linux/netDevices",
    "/solaris",
    "/windows",
    "/vm",
    "/zos",
    "/freebsd",
    "/process/commandLine",
    "/process/user/username",
];

fn rows() -> Vec<Vec<String>> {
    page::rows(&page::text("spec-conformance.md"), 3)
}

#[test]
fn every_field_of_the_spec_has_one_row() {
    let mut told = BTreeSet::new();
    for cells in rows() {
        for field in quoted(&cells[0]) {
            assert!(told.insert(field.to_string()), "{field} is there twice");
        }
        assert!(!cells[1].trim().is_empty() && cells[2].contains('`'), "{cells:?}");
    }
    let fields: BTreeSet<String> = FIELDS.iter().map(ToString::to_string).collect();
    assert_eq!(fields.len(), FIELDS.len(), "a field is in the table twice");
    let missing: Vec<_> = fields.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&fields).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "no row: {missing:?}; no field: {unknown:?}");
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let rows = rows();
    let seen = page::tests_are_there(rows.iter().map(|cells| cells[2].as_str()));
    assert!(seen >= 60, "only {seen} tests are named");
}

/// oci-spec's types are the fields that can be read: whatever they know of these objects is in the table.
#[test]
fn what_is_read_of_a_config_is_in_the_table() {
    use oci_spec::runtime as oci;
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let full = json(
        r#"{"terminal": true, "consoleSize": {"height": 1, "width": 1}, "user": {"uid": 0, "gid": 0, "umask": 0, "additionalGids": [1], "username": "x"},
            "args": ["x"], "commandLine": "x", "env": ["A=b"], "cwd": "/", "capabilities": {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}], "noNewPrivileges": true, "apparmorProfile": "x", "oomScoreAdj": 1, "selinuxLabel": "x",
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
            "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "priority": 1, "flags": ["SCHED_FLAG_RECLAIM"], "runtime": 1, "deadline": 1, "period": 1},
            "execCPUAffinity": {"initial": "0", "final": "0"}}"#,
    );
    let process: oci::Process = serde_json::from_value(full).expect("a process");
    let read = serde_json::to_value(&process).expect("JSON");
    let mut pointers = Vec::new();
    walk(&read, "/process", &mut pointers);
    for pointer in pointers {
        assert!(FIELDS.contains(&pointer.as_str()), "{pointer} is not in the table");
    }
}

fn walk(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}/{name}");
                found.push(at.clone());
                walk(value, &at, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, at, found)),
        _ => {}
    }
}
