//! The fields of config.json by their names: what is none of them means nothing to a runtime, and is mostly a slip.
//! Pure. Uses: nothing.

use serde_json::Value;

/// The fields of each object, by its place: `*` is any entry of a list or of a map. tests.rs compares them with oci-spec's.
pub(super) const FIELDS: [(&str, &str); 43] = [
    (
        "",
        "ociVersion process root hostname domainname mounts hooks annotations linux solaris windows vm zos freebsd",
    ),
    (
        "/process",
        "terminal consoleSize user args commandLine env cwd capabilities rlimits noNewPrivileges apparmorProfile oomScoreAdj selinuxLabel ioPriority scheduler execCPUAffinity",
    ),
    ("/process/consoleSize", "height width"),
    ("/process/user", "uid gid umask additionalGids username"),
    ("/process/capabilities", "bounding effective inheritable permitted ambient"),
    ("/process/rlimits/*", "type hard soft"),
    ("/process/ioPriority", "class priority"),
    ("/process/scheduler", "policy nice priority flags runtime deadline period"),
    ("/process/execCPUAffinity", "initial final"),
    ("/root", "path readonly"),
    ("/mounts/*", "destination type source options uidMappings gidMappings"),
    ("/mounts/*/uidMappings/*", "containerID hostID size"),
    ("/mounts/*/gidMappings/*", "containerID hostID size"),
    ("/hooks", "prestart createRuntime createContainer startContainer poststart poststop"),
    ("/hooks/*/*", "path args env timeout"),
    (
        "/linux",
        "uidMappings gidMappings sysctl resources cgroupsPath namespaces devices seccomp rootfsPropagation maskedPaths readonlyPaths mountLabel intelRdt personality timeOffsets memoryPolicy netDevices",
    ),
    ("/linux/uidMappings/*", "containerID hostID size"),
    ("/linux/gidMappings/*", "containerID hostID size"),
    ("/linux/namespaces/*", "type path"),
    ("/linux/devices/*", "path type major minor fileMode uid gid"),
    ("/linux/timeOffsets/*", "secs nanosecs"),
    ("/linux/netDevices/*", "name"),
    ("/linux/personality", "domain flags"),
    ("/linux/memoryPolicy", "mode nodes flags"),
    ("/linux/intelRdt", "closID schemata l3CacheSchema memBwSchema enableMonitoring enableCMT enableMBM"),
    ("/linux/resources", "devices memory cpu pids blockIO hugepageLimits network rdma unified"),
    ("/linux/resources/devices/*", "allow type major minor access"),
    (
        "/linux/resources/memory",
        "limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy checkBeforeUpdate",
    ),
    ("/linux/resources/cpu", "shares quota burst period realtimeRuntime realtimePeriod cpus mems idle"),
    ("/linux/resources/pids", "limit"),
    (
        "/linux/resources/blockIO",
        "weight leafWeight weightDevice throttleReadBpsDevice throttleWriteBpsDevice throttleReadIOPSDevice throttleWriteIOPSDevice",
    ),
    ("/linux/resources/blockIO/weightDevice/*", "major minor weight leafWeight"),
    ("/linux/resources/blockIO/throttleReadBpsDevice/*", "major minor rate"),
    ("/linux/resources/blockIO/throttleWriteBpsDevice/*", "major minor rate"),
    ("/linux/resources/blockIO/throttleReadIOPSDevice/*", "major minor rate"),
    ("/linux/resources/blockIO/throttleWriteIOPSDevice/*", "major minor rate"),
    ("/linux/resources/hugepageLimits/*", "pageSize limit"),
    ("/linux/resources/network", "classID priorities"),
    ("/linux/resources/network/priorities/*", "name priority"),
    ("/linux/resources/rdma/*", "hcaHandles hcaObjects"),
    (
        "/linux/seccomp",
        "defaultAction defaultErrnoRet architectures flags listenerPath listenerMetadata syscalls",
    ),
    ("/linux/seccomp/syscalls/*", "names action errnoRet args"),
    ("/linux/seccomp/syscalls/*/args/*", "index value valueTwo op"),
];

/// Fields that the spec calls deprecated, or that it has for cgroup v1 alone, and what stands in their place.
const DEPRECATED: [(&str, &str); 5] = [
    (
        "/hooks/prestart",
        "createRuntime hooks run at the same time, createContainer ones in the container's namespaces",
    ),
    ("/linux/resources/memory/kernel", "the kernel's own memory is part of /linux/resources/memory/limit"),
    ("/linux/resources/memory/kernelTCP", "the memory of sockets is part of /linux/resources/memory/limit"),
    ("/linux/intelRdt/enableCMT", "enableMonitoring makes a monitoring group"),
    ("/linux/intelRdt/enableMBM", "enableMonitoring makes a monitoring group"),
];

/// A field that no runtime knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its JSON pointer.
    pub pointer: String,
    /// Its name.
    pub name: String,
    /// The names that its object has.
    pub known: Vec<&'static str>,
}

/// A field that is there and better were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deprecated {
    /// Its JSON pointer.
    pub pointer: &'static str,
    /// What to use in its place.
    pub instead: &'static str,
}

/// The fields of `config` that the spec has not.
pub fn unknown(config: &Value) -> Vec<Unknown> {
    let mut found = Vec::new();
    walk(config, &mut Vec::new(), &mut String::new(), &mut found);
    found
}

/// The fields of `config` that are deprecated.
pub fn deprecated(config: &Value) -> Vec<Deprecated> {
    let there = |pointer: &str| match config.pointer(pointer) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    let of_table = DEPRECATED.into_iter().filter(|(pointer, _)| there(pointer));
    of_table.map(|(pointer, instead)| Deprecated { pointer, instead }).collect()
}

/// The row whose place is `path`.
fn row(path: &[String]) -> Option<Vec<&'static str>> {
    let is = |place: &str| {
        let tokens = place.split('/').skip(1);
        tokens.clone().count() == path.len()
            && tokens.zip(path).all(|(token, name)| token == "*" || token == name)
    };
    let found = FIELDS.iter().find(|(place, _)| is(place));
    found.map(|(_, fields)| fields.split_whitespace().collect())
}

fn walk(tree: &Value, path: &mut Vec<String>, at: &mut String, found: &mut Vec<Unknown>) {
    let end = at.len();
    match tree {
        Value::Array(list) => {
            for (i, entry) in list.iter().enumerate() {
                at.push_str(&format!("/{i}"));
                path.push(i.to_string());
                walk(entry, path, at, found);
                path.pop();
                at.truncate(end);
            }
        }
        Value::Object(fields) => {
            let known = row(path);
            for (name, value) in fields {
                at.push_str(&format!("/{}", name.replace('~', "~0").replace('/', "~1")));
                match &known {
                    Some(known) if !known.contains(&name.as_str()) => {
                        let (pointer, name) = (at.clone(), name.clone());
                        found.push(Unknown { pointer, name, known: known.clone() });
                    }
                    _ => {
                        path.push(name.clone());
                        walk(value, path, at, found);
                        path.pop();
                    }
                }
                at.truncate(end);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
