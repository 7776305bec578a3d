//! What this rcrun supports, in the JSON of the spec's features.md: `rcrun features`, and `-info` of the shim. What the runtime
//! recognizes comes from its own tables, so that the answer cannot drift from what is done. Uses: compile, plan, spec.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::compile::CAPABILITIES;
use crate::plan;
use crate::spec::of_crun::{HOOKS_STDERR, HOOKS_STDOUT, KEEP_GROUPS};
use crate::spec::{landlock, mount};

/// The version of the runtime spec that rcrun implements.
pub const SPEC: &str = "1.3.0";

/// The names in the runtime's tables.
struct Known<'a> {
    /// Options of mounts.
    mount_options: &'a [&'a str],
    /// Namespaces, as config.json writes them.
    namespaces: &'a [&'a str],
    /// Capabilities, `CAP_CHOWN` and so on.
    capabilities: &'a [&'a str],
    /// Actions of seccomp rules.
    actions: &'a [&'a str],
    /// Operators of seccomp arguments.
    operators: &'a [&'a str],
    /// Architectures of seccomp filters.
    archs: &'a [&'a str],
    /// Flags of seccomp filters.
    flags: &'a [&'a str],
}

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Vec<&'static str>,
    mount_options: Vec<String>,
    linux: Linux,
    annotations: BTreeMap<String, String>,
    #[serde(rename = "potentiallyUnsafeConfigAnnotations")]
    unsafe_annotations: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<String>,
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: Vec<String>,
    flags: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Vec<String>,
    operators: Vec<String>,
    archs: Vec<String>,
    known_flags: Vec<String>,
    supported_flags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

/// Also where the machine lacks it: the document tells of the runtime, not of where it runs.
const SUPPORTED: Enabled = Enabled { enabled: true };

/// Annotations that change what is done (features.md). They reach systemd, the rules of Landlock, whose groups the processes
/// have, and files of the machine. One that ends with a dot is a prefix.
const UNSAFE_ANNOTATIONS: [&str; 5] =
    ["org.systemd.property.", landlock::ANNOTATION, KEEP_GROUPS, HOOKS_STDOUT, HOOKS_STDERR];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// The document of this rcrun, with the commit that it was built from where the caller knows it.
pub fn document(commit: Option<&str>) -> Features {
    let mount_options: Vec<&str> = mount::names().collect();
    let capabilities: Vec<String> = CAPABILITIES.iter().map(|c| format!("CAP_{c}")).collect();
    let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).collect();
    let mut document = features(&Known {
        mount_options: &mount_options,
        namespaces: &plan::NAMESPACES.map(|(name, _)| name),
        capabilities: &capabilities,
        actions: &ACTIONS,
        operators: &OPERATORS,
        archs: &ARCHITECTURES,
        flags: &FLAGS,
    });
    if let Some(commit) = commit {
        document.annotations.insert("org.rcrun.commit".to_string(), commit.to_string());
    }
    document
}

/// The document for a runtime that recognizes `known`.
fn features(known: &Known) -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC,
        hooks: vec![
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ],
        mount_options: sorted(known.mount_options),
        linux: Linux {
            namespaces: sorted(known.namespaces),
            capabilities: known.capabilities.iter().map(|c| c.to_string()).collect(),
            cgroup: Cgroup { v1: false, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: Seccomp {
                enabled: true,
                actions: sorted(known.actions),
                operators: sorted(known.operators),
                archs: sorted(known.archs),
                known_flags: sorted(known.flags),
                supported_flags: sorted(known.flags),
            },
            apparmor: SUPPORTED,
            selinux: SUPPORTED,
            intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
            memory_policy: MemoryPolicy { modes: sorted(&MEMORY_MODES), flags: sorted(&MEMORY_FLAGS) },
            mount_extensions: MountExtensions { idmap: SUPPORTED },
            net_devices: SUPPORTED,
        },
        annotations: BTreeMap::from([(
            "org.rcrun.version".to_string(),
            env!("CARGO_PKG_VERSION").to_string(),
        )]),
        unsafe_annotations: UNSAFE_ANNOTATIONS.to_vec(),
    }
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_keys_that_engines_read() {
        let known = Known {
            mount_options: &["rw", "rro", "ro", "ro"],
            namespaces: &["pid", "mount"],
            capabilities: &["CAP_CHOWN", "CAP_AUDIT_READ"],
            actions: &["SCMP_ACT_KILL", "SCMP_ACT_ALLOW"],
            operators: &["SCMP_CMP_EQ"],
            archs: &["SCMP_ARCH_X86_64"],
            flags: &["SECCOMP_FILTER_FLAG_LOG"],
        };
        let json = serde_json::to_value(features(&known)).unwrap();
        for (pointer, expected) in [
            ("/ociVersionMin", r#""1.0.0""#),
            ("/ociVersionMax", r#""1.3.0""#),
            (
                "/hooks",
                r#"["prestart","createRuntime","createContainer","startContainer","poststart","poststop"]"#,
            ),
            ("/mountOptions", r#"["ro","rro","rw"]"#),
            ("/linux/namespaces", r#"["mount","pid"]"#),
            ("/linux/capabilities", r#"["CAP_CHOWN","CAP_AUDIT_READ"]"#),
            ("/linux/cgroup", r#"{"rdma":true,"systemd":true,"systemdUser":true,"v1":false,"v2":true}"#),
            ("/linux/seccomp/enabled", "true"),
            ("/linux/seccomp/actions", r#"["SCMP_ACT_ALLOW","SCMP_ACT_KILL"]"#),
            ("/linux/seccomp/operators", r#"["SCMP_CMP_EQ"]"#),
            ("/linux/seccomp/archs", r#"["SCMP_ARCH_X86_64"]"#),
            ("/linux/seccomp/knownFlags", r#"["SECCOMP_FILTER_FLAG_LOG"]"#),
            ("/linux/seccomp/supportedFlags", r#"["SECCOMP_FILTER_FLAG_LOG"]"#),
            ("/linux/apparmor/enabled", "true"),
            ("/linux/selinux/enabled", "true"),
            ("/linux/intelRdt", r#"{"enabled":true,"monitoring":true,"schemata":true}"#),
            (
                "/linux/memoryPolicy/modes",
                r#"["MPOL_BIND","MPOL_DEFAULT","MPOL_INTERLEAVE","MPOL_LOCAL","MPOL_PREFERRED","MPOL_PREFERRED_MANY","MPOL_WEIGHTED_INTERLEAVE"]"#,
            ),
            (
                "/linux/memoryPolicy/flags",
                r#"["MPOL_F_NUMA_BALANCING","MPOL_F_RELATIVE_NODES","MPOL_F_STATIC_NODES"]"#,
            ),
            ("/linux/mountExtensions/idmap/enabled", "true"),
            ("/linux/netDevices/enabled", "true"),
            ("/annotations/org.rcrun.version", concat!("\"", env!("CARGO_PKG_VERSION"), "\"")),
            (
                "/potentiallyUnsafeConfigAnnotations",
                r#"["org.systemd.property.","org.rcrun.landlock","run.oci.keep_original_groups","run.oci.hooks.stdout","run.oci.hooks.stderr"]"#,
            ),
        ] {
            let found = json.pointer(pointer).map(|value| value.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{pointer}");
        }
    }

    /// What `features` lists is what a config may say: its words are read by the types that read a config.
    #[test]
    fn every_word_that_is_listed_is_one_of_the_spec() {
        use oci_spec::runtime::{MemoryPolicyFlagType, MemoryPolicyModeType};
        for mode in MEMORY_MODES {
            mode.parse::<MemoryPolicyModeType>().unwrap_or_else(|e| panic!("{mode}: {e}"));
        }
        for flag in MEMORY_FLAGS {
            flag.parse::<MemoryPolicyFlagType>().unwrap_or_else(|e| panic!("{flag}: {e}"));
        }
    }
}
