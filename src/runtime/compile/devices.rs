//! linux.devices and what every container gets in /dev (config-linux.md, "Default Devices" and "/dev symbolic links").

use super::in_root;
use crate::plan::{Plan, Source};
use crate::spec::Spec;
use crate::{Error, Result};
use oci_spec::runtime::LinuxDeviceType;
use rcrun_plan::{InRoot, Step, text::Text};
use std::path::{Path, PathBuf};

/// Name, major and minor number of the devices that every container has.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/tty", 5, 0),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
];

const SYMLINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("/proc/kcore", "dev/core"),
];

struct Node {
    origin: String,
    path: InRoot<Text>,
    host: PathBuf,
    kind: u32,
    mode: u32,
    major: u32,
    minor: u32,
    uid: u32,
    gid: u32,
}

pub(super) fn compile(spec: &Spec, bind: bool, plan: &mut Plan) -> Result<()> {
    let mut nodes = Vec::new();
    for (i, device) in spec.linux().iter().flat_map(|l| l.devices().iter().flatten()).enumerate() {
        let origin = format!("/linux/devices/{i}");
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(Error::config(
                    format!("{origin}/type"),
                    "is a, which names no device: use c, b, u or p",
                ));
            }
        };
        // mknod ignores the numbers of a fifo, and an existing one has whatever its file system gives it.
        let number = |n: i64, field: &str| match kind {
            libc::S_IFIFO => Ok(0),
            _ => u32::try_from(n).map_err(|_| {
                Error::config(format!("{origin}/{field}"), format!("{n} is not a device number"))
            }),
        };
        nodes.push(Node {
            path: in_root(device.path()),
            host: device.path().clone(),
            kind,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            major: number(device.major(), "major")?,
            minor: number(device.minor(), "minor")?,
            uid: device.uid().unwrap_or_default(),
            gid: device.gid().unwrap_or_default(),
            origin,
        });
    }
    for (path, major, minor) in DEFAULT_DEVICES {
        let path = InRoot(Text::from(path));
        if nodes.iter().any(|n| n.path == path) {
            continue;
        }
        let host = Path::new("/").join(&path.0.0);
        nodes.push(Node {
            origin: String::new(),
            path,
            host,
            kind: libc::S_IFCHR,
            mode: 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
        });
    }

    plan.push("", Step::Directory { path: InRoot("dev".into()), mode: 0o755 });
    for node in nodes {
        // mknod(2) of a device is refused in a user namespace: the machine's own node is bound there.
        if bind && node.kind != libc::S_IFIFO {
            let slot = plan.slot(Source::Device {
                path: node.host,
                major: node.major,
                minor: node.minor,
                block: node.kind == libc::S_IFBLK,
                origin: format!("{}#bind", node.origin),
            });
            plan.push(node.origin.clone(), Step::File { path: node.path.clone() });
            plan.push(node.origin.clone(), Step::Tree { slot });
            plan.push(node.origin, Step::Attach { path: node.path, plain: false });
            continue;
        }
        plan.push(
            node.origin,
            Step::Node {
                path: node.path,
                mode: node.kind | node.mode,
                major: node.major,
                minor: node.minor,
                uid: node.uid,
                gid: node.gid,
            },
        );
    }
    for (target, path) in SYMLINKS {
        plan.push("", Step::Symlink { target: target.into(), path: InRoot(path.into()), replace: false });
    }
    // The container's own instance of devpts, whatever the image has there.
    plan.push(
        "",
        Step::Symlink { target: "pts/ptmx".into(), path: InRoot("dev/ptmx".into()), replace: true },
    );
    Ok(())
}
