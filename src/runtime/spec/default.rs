//! The config.json that `rcrun spec` writes: runc's, field by field and in its order. Pure.
//! Uses: spec's version.
//!
//! It differs from runc 1.1's where newer runc does too (no ambient capabilities, /sys/devices/virtual/tpm
//! is masked), in the host name, and in always having a cgroup namespace, which runc adds on cgroup v2.

use super::OCI_VERSION;

/// Whose config it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Root: a network namespace and device rules.
    Root,
    /// A user without privileges: a user namespace in which `uid` and `gid` are 0.
    Rootless {
        /// The caller's effective uid.
        uid: u32,
        /// The caller's effective gid.
        gid: u32,
    },
}

/// The text of the config: JSON, indented by tabs, no newline at the end, as runc writes it.
pub fn text(whose: For) -> String {
    let rootless = whose != For::Root;
    let mut out = Text::default();
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    out.object(None, |top| {
        top.string("ociVersion", OCI_VERSION);
        top.object(Some("process"), |process| {
            process.raw("terminal", "true");
            process.object(Some("user"), |user| {
                user.raw("uid", "0");
                user.raw("gid", "0");
            });
            process.strings("args", &["sh"]);
            process.strings(
                "env",
                &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            );
            process.string("cwd", "/");
            process.object(Some("capabilities"), |sets| {
                for set in ["bounding", "effective", "permitted"] {
                    sets.strings(set, &caps);
                }
            });
            process.list("rlimits", |limits| {
                limits.object(None, |limit| {
                    limit.string("type", "RLIMIT_NOFILE");
                    limit.raw("hard", "1024");
                    limit.raw("soft", "1024");
                });
            });
            process.raw("noNewPrivileges", "true");
        });
        top.object(Some("root"), |root| {
            root.string("path", "rootfs");
            root.raw("readonly", "true");
        });
        top.string("hostname", "rcrun");
        top.list("mounts", |mounts| {
            for (destination, kind, source, options) in MOUNTS {
                // sysfs belongs to whoever owns the network namespace.
                let bind_sys = rootless && *destination == "/sys";
                let options: Vec<&str> = std::iter::once("rbind")
                    .filter(|_| bind_sys)
                    .chain(options.iter().copied())
                    // The group tty has no mapping.
                    .filter(|option| !rootless || !option.starts_with("gid="))
                    .collect();
                mounts.object(None, |mount| {
                    mount.string("destination", destination);
                    mount.string("type", if bind_sys { "none" } else { kind });
                    mount.string("source", if bind_sys { "/sys" } else { source });
                    if !options.is_empty() {
                        mount.strings("options", &options);
                    }
                });
            }
        });
        top.object(Some("linux"), |linux| {
            match whose {
                For::Root => linux.object(Some("resources"), |resources| {
                    resources.list("devices", |devices| {
                        devices.object(None, |rule| {
                            rule.raw("allow", "false");
                            rule.string("access", "rwm");
                        });
                    });
                }),
                For::Rootless { uid, gid } => {
                    for (field, id) in [("uidMappings", uid), ("gidMappings", gid)] {
                        linux.list(field, |maps| {
                            maps.object(None, |map| {
                                map.raw("containerID", "0");
                                map.raw("hostID", &id.to_string());
                                map.raw("size", "1");
                            });
                        });
                    }
                }
            }
            linux.list("namespaces", |namespaces| {
                let kinds = match whose {
                    For::Root => ["pid", "network", "ipc", "uts", "mount", "cgroup"],
                    For::Rootless { .. } => ["pid", "ipc", "uts", "mount", "cgroup", "user"],
                };
                for kind in kinds {
                    namespaces.object(None, |ns| ns.string("type", kind));
                }
            });
            linux.strings("maskedPaths", MASKED);
            linux.strings("readonlyPaths", READONLY);
        });
    });
    out.text
}

type MountLine = (&'static str, &'static str, &'static str, &'static [&'static str]);

const MOUNTS: &[MountLine] = &[
    ("/proc", "proc", "proc", &[]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
    "/sys/devices/virtual/tpm",
];

const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// JSON in Go's layout. The strings written are constants without anything to escape.
#[derive(Default)]
struct Text {
    text: String,
    depth: usize,
}

impl Text {
    fn line(&mut self, name: Option<&str>) {
        if !self.text.is_empty() && !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&"\t".repeat(self.depth));
        if let Some(name) = name {
            self.text.push_str(&format!("\"{name}\": "));
        }
    }

    fn block(&mut self, name: Option<&str>, ends: [char; 2], inside: impl FnOnce(&mut Text)) {
        self.line(name);
        self.text.push(ends[0]);
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.text.push('\n');
        self.text.push_str(&"\t".repeat(self.depth));
        self.text.push(ends[1]);
    }

    fn object(&mut self, name: Option<&str>, inside: impl FnOnce(&mut Text)) {
        self.block(name, ['{', '}'], inside);
    }

    fn list(&mut self, name: &str, inside: impl FnOnce(&mut Text)) {
        self.block(Some(name), ['[', ']'], inside);
    }

    fn raw(&mut self, name: &str, value: &str) {
        self.line(Some(name));
        self.text.push_str(value);
    }

    fn string(&mut self, name: &str, value: &str) {
        self.raw(name, &format!("\"{value}\""));
    }

    fn strings(&mut self, name: &str, values: &[&str]) {
        self.list(name, |list| {
            for value in values {
                list.line(None);
                list.text.push_str(&format!("\"{value}\""));
            }
        });
    }
}
