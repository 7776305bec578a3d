//! Configs that no runtime should accept, each with the place and the words of the sentence that says so.
//! Used by rcrun-runtime's unit tests and, through the command line, by the black-box tests.

use serde_json::{Value, json};

/// One broken config.json.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What is wrong with it, as the name of a test.
    pub name: &'static str,
    /// The text of config.json.
    pub text: String,
    /// The JSON pointer that the error names.
    pub pointer: String,
    /// Words of the sentence.
    pub phrase: &'static str,
}

/// A small config that is accepted: every broken one is this one with a single fault.
pub fn good_config() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "broken",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }
        ],
        "annotations": { "org.example.key": "value" },
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

/// What is done to the good config.
enum Fault {
    /// This value goes there; an index one past the end of a list appends.
    Put(&'static str, Value),
    /// This field goes away.
    Take(&'static str),
    /// The text is this.
    Text(String),
}

/// All of them.
pub fn broken_configs() -> Vec<Broken> {
    use Fault::{Put, Take, Text};
    let long = |n: usize| "x".repeat(n);
    let mebi = || json!("x".repeat(1 << 20));
    let good = || good_config().to_string();
    let map = |container: u32, host: u32, size: u32| json!({ "containerID": container, "hostID": host, "size": size });
    let user_ns = |maps: Value, uid: u32| {
        let mut config = good_config();
        config["process"]["user"]["uid"] = json!(uid);
        config["linux"]["namespaces"].as_array_mut().expect("list").push(json!({ "type": "user" }));
        config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
        config["linux"]["uidMappings"] = maps;
        Text(config.to_string())
    };
    let without_namespace = |kind: &str| {
        let mut config = good_config();
        let list = config["linux"]["namespaces"].as_array_mut().expect("list");
        list.retain(|ns| ns["type"] != kind);
        config
    };
    let with = |mut config: Value, at: &str, value: Value| {
        put(&mut config, at, value);
        Text(config.to_string())
    };
    let bind =
        |options: Value| json!({ "destination": "/mnt", "type": "bind", "source": "/", "options": options });

    let table: Vec<(&'static str, Fault, &'static str, &'static str)> = vec![
        // The document.
        ("empty file", Text(String::new()), "", "not valid JSON"),
        ("only spaces", Text(" \n ".into()), "", "not valid JSON"),
        ("not JSON", Text("ociVersion: 1.0.2".into()), "", "not valid JSON"),
        ("cut in the middle", Text(good()[..200].into()), "", "not valid JSON"),
        ("text after the end", Text(good() + "x"), "", "not valid JSON"),
        ("a list", Text("[]".into()), "/ociVersion", "is required"),
        ("null", Text("null".into()), "", "invalid type"),
        ("nested without end", Text("[".repeat(100_000)), "", "recursion limit"),
        (
            "a field twice",
            Text(good().replacen('{', "{\"hostname\":\"a\",", 1)),
            "/hostname",
            "is there twice",
        ),
        ("a lone surrogate", Text(good().replace("\"broken\"", "\"\\ud800\"")), "", "not valid JSON"),
        ("a NUL in a field nobody knows", Put("/x/1", json!({ "a\0": 1 })), "/x", "NUL"),
        // Version.
        ("no version", Take("/ociVersion"), "/ociVersion", "is required"),
        ("version is a number", Put("/ociVersion", json!(1.0)), "/ociVersion", "invalid type"),
        ("version of two parts", Put("/ociVersion", json!("1.0")), "/ociVersion", "semantic version"),
        (
            "version with a zero before",
            Put("/ociVersion", json!("1.00.2")),
            "/ociVersion",
            "semantic version",
        ),
        ("version in words", Put("/ociVersion", json!("one")), "/ociVersion", "semantic version"),
        ("version 2", Put("/ociVersion", json!("2.0.0")), "/ociVersion", "not supported"),
        ("version 0", Put("/ociVersion", json!("0.9.0")), "/ociVersion", "not supported"),
        // Platforms.
        ("solaris", Put("/solaris", json!({})), "/solaris", "Linux containers only"),
        ("windows", Put("/windows", json!({ "layerFolders": ["c"] })), "/windows", "Linux containers only"),
        ("zos", Put("/zos", json!({})), "/zos", "Linux containers only"),
        ("freebsd", Put("/freebsd", json!({})), "/freebsd", "Linux containers only"),
        ("vm", Put("/vm", json!({ "kernel": { "path": "/k" } })), "/vm", "Linux containers only"),
        // Root.
        ("no root", Take("/root"), "/root", "must be specified"),
        ("no root path", Take("/root/path"), "/root/path", "may not be empty"),
        ("root path is a list", Put("/root/path", json!(["/"])), "/root/path", "invalid type"),
        ("root path with a NUL", Put("/root/path", json!("/a\0b")), "/root/path", "NUL"),
        ("root path of a mebibyte", Put("/root/path", mebi()), "/root/path", "file name too long"),
        (
            "root path with a long name",
            Put("/root/path", json!(long(256))),
            "/root/path",
            "file name too long",
        ),
        ("readonly is a word", Put("/root/readonly", json!("yes")), "/root/readonly", "invalid type"),
        // Process.
        ("process is a word", Put("/process", json!("sh")), "/process", "invalid type"),
        ("no user", Take("/process/user"), "/process/user", "is required"),
        ("uid is a name", Put("/process/user/uid", json!("root")), "/process/user/uid", "invalid type"),
        ("uid below zero", Put("/process/user/uid", json!(-1)), "/process/user/uid", "invalid value"),
        (
            "uid wraps",
            Put("/process/user/uid", json!(4_294_967_296_u64)),
            "/process/user/uid",
            "invalid value",
        ),
        ("uid is no id", Put("/process/user/uid", json!(u32::MAX)), "/process/user/uid", "is not an id"),
        ("gid is no id", Put("/process/user/gid", json!(u32::MAX)), "/process/user/gid", "is not an id"),
        (
            "a group is no id",
            Put("/process/user/additionalGids", json!([1, u32::MAX])),
            "/process/user/additionalGids/1",
            "is not an id",
        ),
        ("umask too large", Put("/process/user/umask", json!(0o1000)), "/process/user/umask", "octal 777"),
        ("user by name", Put("/process/user/username", json!("root")), "/process/user/username", "Windows"),
        ("empty arguments", Put("/process/args", json!([])), "/process/args", "args must not be empty"),
        ("no arguments", Take("/process/args"), "/process/args", "args must not be empty"),
        (
            "empty command",
            Put("/process/args/0", json!("")),
            "/process/args/0",
            "executable file not found in $PATH",
        ),
        ("args is a word", Put("/process/args", json!("sh")), "/process/args", "invalid type"),
        (
            "argument of a mebibyte",
            Put("/process/args/1", mebi()),
            "/process/args/1",
            "argument list too long",
        ),
        ("argument with a NUL", Put("/process/args/1", json!("a\0")), "/process/args/1", "NUL"),
        (
            "arguments of 8 MiB",
            Put("/process/args", json!(vec![long(1 << 16); 128])),
            "/process/args",
            "argument list too long",
        ),
        ("variable without =", Put("/process/env/1", json!("HOME")), "/process/env/1", "missing '='"),
        (
            "variable without name",
            Put("/process/env/1", json!("=1")),
            "/process/env/1",
            "name cannot be empty",
        ),
        ("variable with a NUL", Put("/process/env/1", json!("A=\0")), "/process/env/1", "NUL"),
        (
            "variable of a mebibyte",
            Put("/process/env/1", json!(format!("A={}", long(1 << 20)))),
            "/process/env/1",
            "argument list too long",
        ),
        ("no cwd", Take("/process/cwd"), "/process/cwd", "is required"),
        ("empty cwd", Put("/process/cwd", json!("")), "/process/cwd", "must not be empty"),
        ("relative cwd", Put("/process/cwd", json!("tmp")), "/process/cwd", "absolute path"),
        (
            "terminal too high",
            Put("/process/consoleSize", json!({ "height": 65536, "width": 80 })),
            "/process/consoleSize/height",
            "too large",
        ),
        (
            "rlimit nobody knows",
            Put("/process/rlimits/0/type", json!("RLIMIT_FOO")),
            "/process/rlimits/0/type",
            "unknown variant",
        ),
        (
            "rlimit twice",
            Put("/process/rlimits/1", json!({ "type": "RLIMIT_NOFILE", "hard": 1, "soft": 1 })),
            "/process/rlimits/1/type",
            "duplicated rlimit RLIMIT_NOFILE",
        ),
        (
            "soft above hard",
            Put("/process/rlimits/0/soft", json!(1025)),
            "/process/rlimits/0/soft",
            "above the hard limit",
        ),
        (
            "oom score too high",
            Put("/process/oomScoreAdj", json!(1001)),
            "/process/oomScoreAdj",
            "-1000 and 1000",
        ),
        (
            "capability is a number",
            Put("/process/capabilities/bounding/0", json!(5)),
            "/process/capabilities/bounding/0",
            "invalid type",
        ),
        (
            "scheduler without priority",
            Put("/process/scheduler", json!({ "policy": "SCHED_FIFO" })),
            "/process/scheduler/priority",
            "between 1 and 99",
        ),
        (
            "scheduler nobody knows",
            Put("/process/scheduler", json!({ "policy": "SCHED_FAIR" })),
            "/process/scheduler/policy",
            "unknown variant",
        ),
        (
            "too nice",
            Put("/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 })),
            "/process/scheduler/nice",
            "between -20 and 19",
        ),
        (
            "deadline of a batch",
            Put("/process/scheduler", json!({ "policy": "SCHED_BATCH", "deadline": 1 })),
            "/process/scheduler/deadline",
            "SCHED_DEADLINE only",
        ),
        (
            "priority of nobody",
            Put("/process/scheduler", json!({ "policy": "SCHED_OTHER", "priority": 1 })),
            "/process/scheduler/priority",
            "SCHED_RR only",
        ),
        (
            "io priority",
            Put("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 })),
            "/process/ioPriority/priority",
            "between 0 and 7",
        ),
        (
            "exec affinity",
            Put("/process/execCPUAffinity", json!({ "initial": "3-1" })),
            "/process/execCPUAffinity/initial",
            "3-1",
        ),
        ("command line", Put("/process/commandLine", json!("cmd")), "/process/commandLine", "Windows"),
        // Names.
        ("long hostname", Put("/hostname", json!(long(65))), "/hostname", "at most 64"),
        ("hostname of a mebibyte", Put("/hostname", mebi()), "/hostname", "at most 64"),
        (
            "hostname of the machine",
            Text(without_namespace("uts").to_string()),
            "/hostname",
            "private UTS namespace",
        ),
        ("long domainname", Put("/domainname", json!(long(65))), "/domainname", "at most 64"),
        // Mounts.
        ("mounts is an object", Put("/mounts", json!({})), "/mounts", "invalid type"),
        (
            "no destination",
            Put("/mounts/2", json!({ "type": "tmpfs" })),
            "/mounts/2/destination",
            "is required",
        ),
        (
            "empty destination",
            Put("/mounts/1/destination", json!("")),
            "/mounts/1/destination",
            "may not be empty",
        ),
        (
            "destination with a NUL",
            Put("/mounts/1/destination", json!("/a\0")),
            "/mounts/1/destination",
            "NUL",
        ),
        (
            "destination of a mebibyte",
            Put("/mounts/1/destination", mebi()),
            "/mounts/1/destination",
            "file name too long",
        ),
        (
            "bind without source",
            Put("/mounts/2", json!({ "destination": "/m", "options": ["bind"] })),
            "/mounts/2/source",
            "needs a source",
        ),
        (
            "no type",
            Put("/mounts/2", json!({ "destination": "/m", "source": "x" })),
            "/mounts/2/type",
            "needs a type",
        ),
        ("option is a number", Put("/mounts/1/options/0", json!(1)), "/mounts/1/options/0", "invalid type"),
        ("option of a mebibyte", Put("/mounts/1/options/0", mebi()), "/mounts/1/options/0", "at most 4095"),
        (
            "too many mounts",
            Put("/mounts", json!(vec![json!({ "destination": "/m", "type": "tmpfs" }); 5000])),
            "/mounts",
            "at most 4096",
        ),
        (
            "tmpfs on /proc",
            Put("/mounts/0/type", json!("tmpfs")),
            "/mounts/0/destination",
            "not of type proc",
        ),
        (
            "tmpfs in /proc",
            Put("/mounts/1/destination", json!("/proc/sys")),
            "/mounts/1/destination",
            "inside /proc",
        ),
        (
            "tmpfs in /proc by a detour",
            Put("/mounts/1/destination", json!("/x/../proc/./self")),
            "/mounts/1/destination",
            "inside /proc",
        ),
        (
            "idmap",
            Put("/mounts/2", bind(json!(["rbind", "idmap"]))),
            "/mounts/2/options/1",
            "needs uidMappings",
        ),
        ("ridmap", Put("/mounts/2", bind(json!(["ridmap"]))), "/mounts/2/options/0", "needs uidMappings"),
        (
            "mount mappings",
            Put("/mounts/1/uidMappings", json!([map(0, 0, 1)])),
            "/mounts/1/uidMappings",
            "need each other",
        ),
        // Hooks.
        (
            "relative hook",
            Put("/hooks", json!({ "poststart": [{ "path": "true" }] })),
            "/hooks/poststart/0/path",
            "absolute path",
        ),
        (
            "hook without path",
            Put("/hooks", json!({ "prestart": [{}] })),
            "/hooks/prestart/0/path",
            "is required",
        ),
        (
            "hook without time",
            Put("/hooks", json!({ "createRuntime": [{ "path": "/a", "timeout": 0 }] })),
            "/hooks/createRuntime/0/timeout",
            "greater than zero",
        ),
        (
            "hook with a NUL",
            Put("/hooks", json!({ "poststop": [{ "path": "/a", "args": ["a", "\0"] }] })),
            "/hooks/poststop/0/args/1",
            "NUL",
        ),
        // Annotations.
        ("annotation is a number", Put("/annotations/a", json!(1)), "/annotations/a", "invalid type"),
        ("annotation without key", Put("/annotations/", json!("x")), "/annotations/", "may not be empty"),
        ("annotation with a NUL", Put("/annotations/a", json!("\0")), "/annotations/a", "NUL"),
        // Namespaces.
        (
            "namespace nobody knows",
            Put("/linux/namespaces/0/type", json!("pids")),
            "/linux/namespaces/0/type",
            "unknown variant",
        ),
        (
            "namespace twice",
            Put("/linux/namespaces/5", json!({ "type": "mount" })),
            "/linux/namespaces/5/type",
            "duplicated mount namespace",
        ),
        (
            "relative namespace",
            Put("/linux/namespaces/1/path", json!("ns/net")),
            "/linux/namespaces/1/path",
            "absolute path",
        ),
        (
            "masks without mount namespace",
            with(without_namespace("mount"), "/root/readonly", json!(false)),
            "/linux/maskedPaths",
            "private MNT namespace",
        ),
        (
            "read-only root without mount namespace",
            Text(without_namespace("mount").to_string()),
            "/root/readonly",
            "needs a mount namespace",
        ),
        // Ids.
        (
            "mappings without user namespace",
            Put("/linux/uidMappings", json!([map(0, 0, 1)])),
            "/linux/uidMappings",
            "USER namespace isn't enabled",
        ),
        (
            "user namespace without mappings",
            user_ns(json!([]), 0),
            "/linux/uidMappings",
            "no uid mappings found",
        ),
        (
            "mapping of no ids",
            user_ns(json!([map(0, 0, 0)]), 0),
            "/linux/uidMappings/0/size",
            "greater than zero",
        ),
        (
            "mapping beyond the last id",
            user_ns(json!([map(0, u32::MAX, 1)]), 0),
            "/linux/uidMappings/0/hostID",
            "beyond the largest",
        ),
        (
            "mappings overlap",
            user_ns(json!([map(0, 0, 10), map(9, 100, 1)]), 0),
            "/linux/uidMappings/1",
            "overlaps",
        ),
        (
            "too many mappings",
            user_ns((0..341).map(|i| map(i, i, 1)).collect(), 0),
            "/linux/uidMappings",
            "at most 340",
        ),
        ("user is not mapped", user_ns(json!([map(0, 1000, 10)]), 10), "/process/user/uid", "is not mapped"),
        // Time.
        (
            "offsets without time namespace",
            Put("/linux/timeOffsets", json!({ "monotonic": { "secs": 1 } })),
            "/linux/timeOffsets",
            "no new time namespace",
        ),
        (
            "offset of another clock",
            with(
                {
                    let mut config = good_config();
                    put(&mut config, "/linux/namespaces/5", json!({ "type": "time" }));
                    config
                },
                "/linux/timeOffsets",
                json!({ "realtime": { "secs": 1 } }),
            ),
            "/linux/timeOffsets/realtime",
            "have offsets",
        ),
        // Sysctls.
        (
            "sysctl of the machine",
            Put("/linux/sysctl", json!({ "kernel.core_pattern": "|/x" })),
            "/linux/sysctl/kernel.core_pattern",
            "separate kernel namespace",
        ),
        (
            "sysctl by a detour",
            Put("/linux/sysctl", json!({ "net/../kernel/core_pattern": "x" })),
            "/linux/sysctl/net~1..~1kernel~1core_pattern",
            "not the name of a sysctl",
        ),
        (
            "sysctl of the hostname",
            Put("/linux/sysctl", json!({ "kernel.hostname": "x" })),
            "/linux/sysctl/kernel.hostname",
            "conflicts",
        ),
        (
            "sysctl without ipc namespace",
            with(without_namespace("ipc"), "/linux/sysctl", json!({ "kernel.msgmax": "1" })),
            "/linux/sysctl/kernel.msgmax",
            "hosts ipc namespace",
        ),
        (
            "sysctl without network namespace",
            with(without_namespace("network"), "/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" })),
            "/linux/sysctl/net.ipv4.ip_forward",
            "host network namespace",
        ),
        (
            "sysctl of a mebibyte",
            Put("/linux/sysctl", json!({ "net.ipv4.ip_forward": long(1 << 20) })),
            "/linux/sysctl/net.ipv4.ip_forward",
            "less than 4096",
        ),
        // Devices.
        (
            "relative device",
            Put("/linux/devices", json!([{ "path": "null", "type": "c", "major": 1, "minor": 3 }])),
            "/linux/devices/0/path",
            "absolute path",
        ),
        (
            "device of any type",
            Put("/linux/devices", json!([{ "path": "/dev/x", "type": "a" }])),
            "/linux/devices/0/type",
            "c, b, u or p",
        ),
        (
            "device nobody knows",
            Put("/linux/devices", json!([{ "path": "/dev/x", "type": "z" }])),
            "/linux/devices/0/type",
            "unknown variant",
        ),
        (
            "device below zero",
            Put("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": -1, "minor": 3 }])),
            "/linux/devices/0/major",
            "between 0 and 4095",
        ),
        (
            "device too high",
            Put("/linux/devices", json!([{ "path": "/dev/x", "type": "b", "major": 8, "minor": 1 << 20 }])),
            "/linux/devices/0/minor",
            "between 0 and 1048575",
        ),
        (
            "device rule for a pipe",
            Put("/linux/resources/devices/0/type", json!("p")),
            "/linux/resources/devices/0/type",
            "a, c or b",
        ),
        (
            "device rule with another access",
            Put("/linux/resources/devices/0/access", json!("rwx")),
            "/linux/resources/devices/0/access",
            "made of r, w and m",
        ),
        // The rest of linux.
        (
            "memory limit in words",
            Put("/linux/resources/memory", json!({ "limit": "64m" })),
            "/linux/resources/memory/limit",
            "invalid type",
        ),
        (
            "network class",
            Put("/linux/resources/network", json!({ "classID": 1 })),
            "/linux/resources/network/classID",
            "cgroup v1",
        ),
        (
            "cgroup above",
            Put("/linux/cgroupsPath", json!("/a/../../b")),
            "/linux/cgroupsPath",
            "may not contain",
        ),
        ("cgroup with a NUL", Put("/linux/cgroupsPath", json!("/a\0")), "/linux/cgroupsPath", "NUL"),
        (
            "propagation nobody knows",
            Put("/linux/rootfsPropagation", json!("sharded")),
            "/linux/rootfsPropagation",
            "is not supported",
        ),
        (
            "relative mask",
            Put("/linux/maskedPaths/0", json!("proc/kcore")),
            "/linux/maskedPaths/0",
            "absolute path",
        ),
        (
            "empty read-only path",
            Put("/linux/readonlyPaths/0", json!("")),
            "/linux/readonlyPaths/0",
            "may not be empty",
        ),
        (
            "RDT",
            Put("/linux/intelRdt", json!({ "closID": "../x" })),
            "/linux/intelRdt/closID",
            "no name of a group",
        ),
        (
            "RDT info",
            Put("/linux/intelRdt", json!({ "closID": "info" })),
            "/linux/intelRdt/closID",
            "no name of a group",
        ),
        (
            "RDT bandwidth",
            Put("/linux/intelRdt", json!({ "memBwSchema": "L3:0=f" })),
            "/linux/intelRdt/memBwSchema",
            "begins with MB:",
        ),
        (
            "landlock",
            Put("/annotations", json!({ "org.rcrun.landlock": "{\"read\": [\"usr\"]}" })),
            "/annotations/org.rcrun.landlock",
            "no absolute path",
        ),
        (
            "network devices",
            Put("/linux/netDevices", json!({ "eth0/1": {} })),
            "/linux/netDevices/eth0~11",
            "no name of a network device",
        ),
        (
            "network device with two templates",
            Put("/linux/netDevices", json!({ "eth1": { "name": "a%d%d" } })),
            "/linux/netDevices/eth1/name",
            "no name of a network device",
        ),
        (
            "network device with a long name",
            Put("/linux/netDevices", json!({ "eth1": { "name": "x".repeat(16) } })),
            "/linux/netDevices/eth1/name",
            "no name of a network device",
        ),
        (
            "network devices of one name",
            Put("/linux/netDevices", json!({ "eth1": { "name": "a" }, "eth2": { "name": "a" } })),
            "/linux/netDevices/eth2/name",
            "name of another",
        ),
        (
            "memory policy",
            Put("/linux/memoryPolicy", json!({ "mode": "MPOL_LOCAL", "nodes": "0" })),
            "/linux/memoryPolicy/nodes",
            "takes no nodes",
        ),
        (
            "memory policy without nodes",
            Put("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND" })),
            "/linux/memoryPolicy/nodes",
            "at least one node",
        ),
        (
            "memory node too large",
            Put("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "1024" })),
            "/linux/memoryPolicy/nodes",
            "at most 1023",
        ),
        (
            "memory policy of two minds",
            Put(
                "/linux/memoryPolicy",
                json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
            ),
            "/linux/memoryPolicy/flags",
            "exclude each other",
        ),
        (
            "personality",
            Put("/linux/personality", json!({ "domain": "LINUX32", "flags": ["WHOLE_SECONDS"] })),
            "/linux/personality/flags/0",
            "is not known",
        ),
        (
            "seccomp action nobody knows",
            Put("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_FOO" })),
            "/linux/seccomp/defaultAction",
            "unknown variant",
        ),
        (
            "seccomp listener",
            Put("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "run/s" })),
            "/linux/seccomp/listenerPath",
            "absolute",
        ),
        (
            "seccomp metadata",
            Put(
                "/linux/seccomp",
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x".repeat(65537) }),
            ),
            "/linux/seccomp/listenerMetadata",
            "65537",
        ),
    ];
    let broken = |(name, fault, pointer, phrase): (_, Fault, &str, _)| {
        let mut config = good_config();
        let text = match fault {
            Put(at, value) => {
                put(&mut config, at, value);
                config.to_string()
            }
            Take(at) => {
                take(&mut config, at);
                config.to_string()
            }
            Text(text) => text,
        };
        Broken { name, text, pointer: pointer.to_string(), phrase }
    };
    table.into_iter().map(broken).collect()
}

fn parent<'a>(config: &'a mut Value, at: &'static str) -> (&'a mut Value, &'static str) {
    let (above, name) = at.rsplit_once('/').expect("a pointer begins with a slash");
    (config.pointer_mut(above).unwrap_or_else(|| panic!("{above} is not in the good config")), name)
}

/// Puts a value at a JSON pointer; an index one past the end of a list appends, and objects that are missing are made.
pub fn put(config: &mut Value, at: &str, value: Value) {
    let (above, name) = at.rsplit_once('/').expect("a pointer begins with a slash");
    if config.pointer(above).is_none() {
        put(config, above, json!({}));
    }
    match config.pointer_mut(above).expect("just made") {
        Value::Array(list) => {
            let i: usize = name.parse().expect("an index");
            if i == list.len() {
                list.push(value);
            } else {
                list[i] = value;
            }
        }
        Value::Object(fields) => {
            fields.insert(name.to_string(), value);
        }
        other => panic!("{above} is {other}"),
    }
}

fn take(config: &mut Value, at: &'static str) {
    let (above, name) = parent(config, at);
    let gone = above.as_object_mut().and_then(|fields| fields.remove(name));
    assert!(gone.is_some(), "{at} is not in the good config");
}
