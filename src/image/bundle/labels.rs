//! Annotations: what the image says of itself, without what a runtime or an engine would act on. Pure. Uses: document.
//!
//! config.json is trusted, an image is not: a label that becomes an annotation with power would let the image choose its
//! own sandbox (CVE-2026-53488, CVE-2026-94603).

use std::collections::BTreeMap;

use crate::document::Config;

/// Keys that are no annotation when they come from an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which keys, compared without case.
    pub keys: Keys,
    /// Who would act on them, and how.
    pub why: &'static str,
}

/// A set of keys.
#[derive(Debug, PartialEq, Eq)]
pub enum Keys {
    /// This one.
    Is(&'static str),
    /// Those that begin so.
    Begin(&'static str),
    /// Those whose part before the `/` is this domain or one below it.
    Domain(&'static str),
    /// Those of which a part between `.`, `-`, `_` and `/` is this word.
    Word(&'static str),
}

/// What no image may say.
pub const DENIED: &[Denied] = &[
    Denied { keys: Keys::Word("rcrun"), why: "rcrun's own keys" },
    Denied {
        keys: Keys::Begin("run.oci."),
        why: "crun: handler, hooks, seccomp receivers, groups, cgroup delegation, time namespace",
    },
    Denied { keys: Keys::Begin("krun."), why: "crun with libkrun: the machine that a container gets" },
    Denied { keys: Keys::Begin("org.systemd.property."), why: "runc, crun: properties of the systemd unit" },
    Denied {
        keys: Keys::Begin("org.criu."),
        why: "runc, crun: a configuration file that CRIU reads on the host",
    },
    Denied { keys: Keys::Begin("org.opencontainers.runc."), why: "runc's own keys" },
    Denied { keys: Keys::Is("bundle"), why: "runc: the label by which it finds a container's bundle" },
    Denied { keys: Keys::Begin("module.wasm."), why: "crun, runwasi: run the entrypoint as WebAssembly" },
    Denied { keys: Keys::Begin("run.wasi."), why: "runwasi: which engine runs the entrypoint" },
    Denied {
        keys: Keys::Begin("io.kubernetes."),
        why: "containerd, CRI-O, shims: which sandbox it belongs to",
    },
    Denied { keys: Keys::Begin("io.cri-containerd"), why: "containerd: kind and image of the container" },
    Denied { keys: Keys::Begin("io.containerd."), why: "containerd's shim: which containers share a shim" },
    Denied { keys: Keys::Begin("containerd.io/"), why: "containerd: restart and where logs go" },
    Denied { keys: Keys::Begin("nerdctl/"), why: "nerdctl's hook on the host: networks, ports, state" },
    Denied { keys: Keys::Begin("io.podman."), why: "podman: privileges, runtime, autoupdate" },
    Denied { keys: Keys::Begin("io.container."), why: "podman, CRI-O: who manages the container" },
    Denied { keys: Keys::Begin("io.crio."), why: "CRI-O: its own keys" },
    Denied {
        keys: Keys::Begin("io.katacontainers."),
        why: "Kata: kernel, hypervisor and agent of the machine",
    },
    Denied { keys: Keys::Begin("com.github.containers.virtcontainers."), why: "Kata, before" },
    Denied { keys: Keys::Begin("dev.gvisor."), why: "gVisor: flags of the sandbox and its mounts" },
    Denied { keys: Keys::Begin("dev.containerd."), why: "containerd: its own keys" },
    Denied { keys: Keys::Domain("k8s.io"), why: "Kubernetes; cdi.k8s.io: devices of the host" },
    Denied { keys: Keys::Domain("kubernetes.io"), why: "Kubernetes: seccomp and AppArmor profiles" },
    Denied { keys: Keys::Domain("crio.io"), why: "CRI-O: CPUs, interrupts, OCI hooks" },
    Denied { keys: Keys::Domain("cri-o.io"), why: "CRI-O: seccomp profiles, user namespaces" },
    Denied { keys: Keys::Domain("nri.io"), why: "NRI plugins: devices, mounts, limits" },
    Denied { keys: Keys::Domain("nri.containerd.io"), why: "NRI plugins: devices, mounts, limits" },
    Denied { keys: Keys::Domain("workload.openshift.io"), why: "CRI-O: CPUs of a workload" },
    Denied { keys: Keys::Is(""), why: "an annotation has a key (runtime-spec)" },
];

impl Keys {
    fn have(&self, key: &str) -> bool {
        match *self {
            Keys::Is(whole) => key == whole,
            Keys::Begin(start) => key.starts_with(start),
            Keys::Domain(domain) => {
                let own = key.split('/').next().unwrap_or(key);
                own.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            Keys::Word(word) => key.split(['.', '-', '_', '/']).any(|part| part == word),
        }
    }
}

/// The reason why the label `key` of an image is no annotation of its container, if there is one.
pub fn denied(key: &str) -> Option<&'static Denied> {
    let key = key.trim().to_ascii_lowercase();
    DENIED.iter().find(|denied| denied.keys.have(&key))
}

type Annotations = (BTreeMap<String, String>, Vec<(String, &'static Denied)>);

/// The annotations of a container of `image`, and the labels that are none.
pub(super) fn annotations(image: &Config) -> Annotations {
    let implicit = [
        ("os", some(&image.platform.os)),
        ("architecture", some(&image.platform.architecture)),
        ("variant", image.platform.variant.clone()),
        ("os.version", image.os_version.clone()),
        ("os.features", some(&image.os_features.join(","))),
        ("author", image.author.clone()),
        ("created", image.created.clone()),
        ("stopSignal", some(&image.config.stop_signal)),
        ("exposedPorts", some(&image.config.exposed_ports.keys().cloned().collect::<Vec<_>>().join(","))),
    ];
    let mut annotations: BTreeMap<String, String> = implicit
        .into_iter()
        .filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?)))
        .collect();
    let mut without = Vec::new();
    for (key, value) in &image.config.labels {
        match denied(key) {
            Some(why) => without.push((key.clone(), why)),
            None => {
                annotations.insert(key.clone(), value.clone());
            }
        }
    }
    (annotations, without)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_gains_power() {
        for key in [
            "run.oci.handler",
            "run.oci.hooks.stdout",
            "RUN.OCI.keep_original_groups",
            " run.oci.handler",
            "krun.ram_mib",
            "org.systemd.property.DevicePolicy",
            "org.criu.config",
            "bundle",
            "module.wasm.image/variant",
            "io.kubernetes.cri.sandbox-id",
            "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel",
            "io.containerd.runc.v2.group",
            "containerd.io/restart.loguri",
            "nerdctl/networks",
            "io.podman.annotations.checkpoint.runtime.name",
            "io.katacontainers.config.hypervisor.path",
            "dev.gvisor.internal.overlay",
            "cdi.k8s.io/gpu",
            "container.apparmor.security.beta.kubernetes.io/app",
            "irq-load-balancing.crio.io",
            "seccomp-profile.kubernetes.cri-o.io",
            "devices.nri.io/container.app",
            "oci.runtimes.nri.containerd.io",
            "resources.workload.openshift.io/app",
            "rcrun.seccomp",
            "org.rcrun/x",
            "io.github.rcrun.y",
            "",
        ] {
            assert!(denied(key).is_some(), "{key:?}");
        }
    }

    #[test]
    fn what_only_tells_is_kept() {
        for key in [
            "maintainer",
            "org.opencontainers.image.source",
            "org.label-schema.name",
            "io.buildah.version",
            "com.docker.compose.project",
            "io.k8s.display-name",
            "io.openshift.tags",
            "io.artifacthub.package/kubernetes.io",
            "notk8s.io/x",
            "bundles",
            "org.opencontainers.image.stopSignal",
            "io.rcrunner.x",
        ] {
            assert_eq!(denied(key), None, "{key:?}");
        }
    }

    #[test]
    fn labels_win_over_what_the_config_says_elsewhere() {
        let mut image = Config { author: Some("a".into()), ..Config::default() };
        image.platform.os = "linux".into();
        image.os_features = vec!["x".into(), "y".into()];
        for (key, value) in [
            ("org.opencontainers.image.author", "label"),
            ("org.opencontainers.image.created", ""),
            ("run.oci.handler", "krun"),
        ] {
            image.config.labels.insert(key.into(), value.into());
        }
        let (found, without) = annotations(&image);
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            found,
            [
                ("org.opencontainers.image.author", "label"),
                ("org.opencontainers.image.created", ""),
                ("org.opencontainers.image.os", "linux"),
                ("org.opencontainers.image.os.features", "x,y"),
            ]
        );
        assert_eq!(without.len(), 1);
        assert!(without[0].1.why.starts_with("crun: handler"), "{without:?}");
    }
}
