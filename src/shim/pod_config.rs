//! What a sandbox is asked to be: by Kubernetes (runtime.v1.PodSandboxConfig), by a config.json, or by nothing but the path of a
//! network namespace. Pure. Uses: fields.

use crate::fields::Fields;
use containerd_shim_protos::protobuf;
use rcrun_runtime::spec::sysctl::{self, Own};
use rcrun_runtime::{Code, Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a namespace of the pod comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// It is the machine's.
    #[default]
    Machine,
    /// It is made.
    New,
    /// It is there.
    Path(PathBuf),
}

/// The pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodConfig {
    /// Its network namespace.
    pub network: From,
    /// Its ipc namespace.
    pub ipc: From,
    /// Its uts namespace.
    pub uts: From,
    /// Its name in that; empty for the machine's.
    pub hostname: String,
    /// The same.
    pub domainname: String,
    /// Files below /proc/sys, and what is written to them.
    pub sysctls: BTreeMap<String, String>,
    /// The cgroup that those of its containers are below: a path, or a slice of systemd's. Empty where it is not told.
    pub cgroup_parent: String,
}

/// What counts of a config.json here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    hostname: String,
    domainname: String,
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
    sysctl: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<PathBuf>,
}

// NamespaceMode of the CRI; POD is 0.
const CONTAINER: u64 = 1;
const NODE: u64 = 2;

const NO_PIDS: &str = "a pid namespace for the whole pod needs a first process, and a sandbox of rcrun has none: use sandboxer = \"podsandbox\", or shareProcessNamespace: false";
const NO_USERS: &str = "a user namespace for the whole pod needs a process of its own, and a sandbox of rcrun has none: use sandboxer = \"podsandbox\", or hostUsers: true";

impl PodConfig {
    /// As Kubernetes has it.
    pub fn of_cri(bytes: &[u8], netns: &str) -> Result<PodConfig> {
        let broken = |e: protobuf::Error| Error::new(Code::Usage, format!("PodSandboxConfig: {e}"));
        // PodSandboxConfig: hostname 2, linux 8. LinuxPodSandboxConfig: cgroup_parent 1, security_context 2, sysctls 3.
        // LinuxSandboxSecurityContext: namespace_options 1. NamespaceOption: network 1, pid 2, ipc 3, userns_options 5.
        let config = Fields::read(bytes).map_err(broken)?;
        let linux = config.message(8).map_err(broken)?.unwrap_or_default();
        let security = linux.message(2).map_err(broken)?.unwrap_or_default();
        let modes = security.message(1).map_err(broken)?.unwrap_or_default();
        if !matches!(modes.number(2), CONTAINER | NODE) {
            return Err(Error::new(Code::Unsupported, NO_PIDS));
        }
        if modes.message(5).map_err(broken)?.is_some_and(|users| users.number(1) != NODE) {
            return Err(Error::new(Code::Unsupported, NO_USERS));
        }
        let on_machines_network = modes.number(1) == NODE;
        let mut pod = PodConfig {
            network: if on_machines_network { From::Machine } else { network(netns) },
            ipc: if modes.number(3) == NODE { From::Machine } else { From::New },
            // containerd's own pods are called what the machine is where they have its network.
            uts: if on_machines_network { From::Machine } else { From::New },
            hostname: config.text(2),
            cgroup_parent: linux.text(1),
            ..PodConfig::default()
        };
        let mut sysctls = BTreeMap::new();
        for entry in linux.all(3) {
            let entry = Fields::read(entry).map_err(broken)?;
            sysctls.insert(entry.text(1), entry.text(2));
        }
        pod.set(sysctls)?;
        Ok(pod)
    }

    /// As a config.json has it. A mount or cgroup namespace is that of a first process, and there is none.
    pub fn of_spec(config: &[u8], netns: &str) -> Result<PodConfig> {
        let spec: Spec = serde_json::from_slice(config)
            .map_err(|e| Error::new(Code::Config, format!("config.json of the sandbox: {e}")))?;
        let mut pod =
            PodConfig { hostname: spec.hostname, domainname: spec.domainname, ..PodConfig::default() };
        for Namespace { kind, path } in spec.linux.namespaces {
            let from = path.filter(|path| !path.as_os_str().is_empty()).map_or(From::New, From::Path);
            match kind.as_str() {
                "network" if from == From::New => pod.network = network(netns),
                "network" => pod.network = from,
                "ipc" => pod.ipc = from,
                "uts" => pod.uts = from,
                "mount" | "cgroup" => {}
                "pid" => return Err(Error::new(Code::Unsupported, NO_PIDS)),
                "user" => return Err(Error::new(Code::Unsupported, NO_USERS)),
                other => {
                    let text = format!("a sandbox of rcrun has no {other} namespace");
                    return Err(Error::new(Code::Unsupported, text));
                }
            }
        }
        pod.set(spec.linux.sysctl)?;
        Ok(pod)
    }

    /// Where nothing is told but a network.
    pub fn plain(netns: &str) -> PodConfig {
        PodConfig { network: network(netns), ipc: From::New, uts: From::New, ..PodConfig::default() }
    }

    fn set(&mut self, sysctls: BTreeMap<String, String>) -> Result<()> {
        let own = Own {
            ipc: self.ipc != From::Machine,
            network: self.network != From::Machine,
            uts: self.uts != From::Machine,
            user: false,
        };
        for (name, value) in sysctls {
            let file = sysctl::allowed(&name, own)
                .map_err(|why| Error::new(Code::Config, format!("sysctl {name:?} {why}")))?;
            self.sysctls.insert(file, value);
        }
        Ok(())
    }
}

fn network(netns: &str) -> From {
    if netns.is_empty() { From::New } else { From::Path(netns.into()) }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A field with bytes in it, as protobuf writes it.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()][..], content].concat()
    }

    fn cri(modes: &[u8], sysctl: Option<(&str, &str)>) -> Vec<u8> {
        let mut linux = [bytes(1, b"/kubepods/pod1"), bytes(2, &bytes(1, modes))].concat();
        if let Some((name, value)) = sysctl {
            linux.extend(bytes(3, &[bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat()));
        }
        [bytes(2, b"web-0"), bytes(8, &linux)].concat()
    }

    #[test]
    fn kubernetes_pod_is_a_network_and_what_is_shared_in_it() {
        let netns = "/run/netns/cni-1";
        let pod = PodConfig::of_cri(&cri(&[2 << 3, 1], Some(("net.core.somaxconn", "7"))), netns).unwrap();
        let expected = PodConfig {
            network: From::Path(netns.into()),
            ipc: From::New,
            uts: From::New,
            hostname: "web-0".into(),
            domainname: String::new(),
            sysctls: [("net/core/somaxconn".to_string(), "7".to_string())].into(),
            cgroup_parent: "/kubepods/pod1".into(),
        };
        assert_eq!(pod, expected);
        let on_machine = PodConfig::of_cri(&cri(&[1 << 3, 2, 2 << 3, 2, 3 << 3, 2], None), "").unwrap();
        assert_eq!(
            (on_machine.network, on_machine.ipc, on_machine.uts),
            (From::Machine, From::Machine, From::Machine)
        );
        for (modes, sysctl, why) in [
            (&[][..], None, "a pid namespace for the whole pod"),
            (&[2 << 3, 1, 5 << 3 | 2, 0], None, "a user namespace for the whole pod"),
            (&[1 << 3, 2, 2 << 3, 1], Some(("net.core.somaxconn", "7")), "host network namespace"),
            (&[2 << 3, 1], Some(("vm.swappiness", "7")), "vm.swappiness"),
        ] {
            let error = PodConfig::of_cri(&cri(modes, sysctl), netns).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let users_of_the_node = cri(&[2 << 3, 1, 5 << 3 | 2, 2, 1 << 3, 2], None);
        assert!(PodConfig::of_cri(&users_of_the_node, netns).is_ok());
        assert!(PodConfig::of_cri(b"\x0a\x05abc", netns).is_err());
    }

    #[test]
    fn a_config_says_which_namespaces_the_pod_has() {
        let of = |namespaces: serde_json::Value, netns: &str| {
            let config = serde_json::json!({"hostname": "h", "linux": {"namespaces": namespaces}});
            PodConfig::of_spec(config.to_string().as_bytes(), netns)
        };
        let pod =
            of(serde_json::json!([{"type": "ipc"}, {"type": "network"}, {"type": "mount"}]), "/n").unwrap();
        assert_eq!((pod.network, pod.ipc, pod.uts), (From::Path("/n".into()), From::New, From::Machine));
        let pod = of(serde_json::json!([{"type": "network", "path": "/own"}]), "/n").unwrap();
        assert_eq!((pod.network, pod.hostname.as_str()), (From::Path("/own".into()), "h"));
        for (kind, code) in
            [("pid", Code::Unsupported), ("user", Code::Unsupported), ("time", Code::Unsupported)]
        {
            assert_eq!(of(serde_json::json!([{"type": kind}]), "").unwrap_err().code(), code, "{kind}");
        }
        assert_eq!(PodConfig::of_spec(b"{", "").unwrap_err().code(), Code::Config);
        assert_eq!(PodConfig::plain("").network, From::New);
    }
}
