//! Roots, mount targets, sources and devices that are not what the config says.

use super::scene::{BUNDLE, ROOT, Scene, mounted, read_only};
use super::{Case, case, told};
use crate::runtime::Said;
use nix::mount::MsFlags;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

const PART: &str = "roots and mounts";
/// One past the mounts of the config.
const FIELD: &str = "/mounts/7";

fn with_mount(s: &mut Scene, mount: Value) -> Said {
    s.put(FIELD, mount).create()
}

fn bind(source: &str, destination: &str) -> Value {
    json!({ "type": "bind", "source": source, "destination": destination, "options": ["rbind"] })
}

fn at(name: &str) -> String {
    format!("{ROOT}/{name}")
}

fn without_root() {
    fs::rename(ROOT, format!("{BUNDLE}/elsewhere")).expect("rename");
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = roots();
    all.extend(targets());
    all.extend(sources());
    all.extend(options());
    all.extend(devices());
    all
}

fn roots() -> Vec<Case> {
    vec![
        case(
            PART,
            "a bundle that is missing",
            told("system", "", &["/mnt/nowhere", "no such file or directory"]),
            |s| s.say(&["create", "--bundle", "/mnt/nowhere", "ID"]),
        ),
        case(
            PART,
            "a bundle that is a file",
            told("system", "", &["/mnt/bundle/config.json", "not a directory"]),
            |s| s.say(&["create", "--bundle", "/mnt/bundle/config.json", "ID"]),
        ),
        case(
            PART,
            "a bundle without config.json",
            told("config", "", &["config.json", "/mnt/bundle", "rcrun spec"]),
            |s| {
                fs::remove_file(format!("{BUNDLE}/config.json")).expect("remove");
                s.create()
            },
        ),
        case(
            PART,
            "a config.json that is a folder",
            told("config", "", &["config.json", "regular file"]),
            |s| {
                let path = format!("{BUNDLE}/config.json");
                fs::remove_file(&path).expect("remove");
                fs::create_dir(&path).expect("mkdir");
                s.create()
            },
        ),
        case(
            PART,
            "a root that is missing",
            told("system", "/root/path", &["/mnt/bundle/rootfs", "no such file or directory"]),
            |s| {
                without_root();
                s.create()
            },
        ),
        case(
            PART,
            "a root that is a file",
            told("system", "/root/path", &["/mnt/bundle/rootfs", "not a directory"]),
            |s| {
                without_root();
                fs::write(ROOT, "").expect("write");
                s.create()
            },
        ),
        case(
            PART,
            "a root that is a link to a folder",
            told("system", "/root/path", &["/mnt/bundle/rootfs", "symbolic link"]),
            |s| {
                without_root();
                symlink("elsewhere", ROOT).expect("symlink");
                s.create()
            },
        ),
        case(
            PART,
            "a root that is empty and read-only",
            told("system", "/mounts/0", &["/proc", "read-only file system"]),
            |s| {
                without_root();
                fs::create_dir(ROOT).expect("mkdir");
                read_only(ROOT);
                s.create()
            },
        ),
        case(
            PART,
            "/proc in the root is a link",
            told("system", "/mounts/0", &["/proc", "symbolic link"]),
            |s| {
                fs::remove_dir(at("proc")).expect("rmdir");
                symlink("etc", at("proc")).expect("symlink");
                s.create()
            },
        ),
        case(
            PART,
            "/sys in the root is a link",
            told("system", "/mounts/5", &["/sys", "symbolic link"]),
            |s| {
                fs::remove_dir(at("sys")).expect("rmdir");
                symlink("etc", at("sys")).expect("symlink");
                s.create()
            },
        ),
        case(
            PART,
            "/dev in the root is a link to itself",
            told("system", "/mounts/1", &["/dev", "too many levels of symbolic links"]),
            |s| {
                fs::remove_dir(at("dev")).expect("rmdir");
                symlink("dev", at("dev")).expect("symlink");
                s.create()
            },
        ),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        case(
            PART,
            "a mount on a missing place in a read-only file system",
            told("system", FIELD, &["/srv/data", "read-only file system"]),
            |s| {
                read_only(ROOT);
                with_mount(s, bind("/mnt/bundle/rootfs/etc", "/srv/data"))
            },
        ),
        case(
            PART,
            "a mount below a file",
            told("system", FIELD, &["/etc/passwd/data", "not a directory"]),
            |s| with_mount(s, bind("/mnt/bundle/rootfs/etc", "/etc/passwd/data")),
        ),
        case(
            PART,
            "a file mounted on a folder",
            told("system", FIELD, &["/etc", "not a directory", "a file on a file"]),
            |s| with_mount(s, bind("/mnt/bundle/rootfs/etc/passwd", "/etc")),
        ),
        case(
            PART,
            "a folder mounted on a file",
            told("system", FIELD, &["/etc/passwd", "not a directory"]),
            |s| with_mount(s, bind("/mnt/bundle/rootfs/tmp", "/etc/passwd")),
        ),
        case(PART, "a tmpfs on a file", told("system", FIELD, &["/etc/passwd", "not a directory"]), |s| {
            with_mount(s, json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/etc/passwd" }))
        }),
        case(
            PART,
            "a mount target that is a link to itself",
            told("system", FIELD, &["/data", "too many levels of symbolic links"]),
            |s| {
                symlink("data", at("data")).expect("symlink");
                with_mount(s, bind("/mnt/bundle/rootfs/etc", "/data"))
            },
        ),
        case(
            PART,
            "a root without room for a mount target",
            told("system", FIELD, &["/data", "no space left on device"]),
            |s| {
                mounted("tmpfs", Some("tmpfs"), &at("etc"), MsFlags::empty(), Some("nr_inodes=1"));
                with_mount(s, bind("/mnt/bundle/rootfs/tmp", "/etc/data"))
            },
        ),
    ]
}

fn sources() -> Vec<Case> {
    vec![
        case(
            PART,
            "a bind mount whose source is missing",
            told("system", "/mounts/7/source", &["/mnt/data", "no such file or directory"]),
            |s| with_mount(s, bind("/mnt/data", "/data")),
        ),
        case(
            PART,
            "a bind mount whose source lies below a file",
            told("system", "/mounts/7/source", &["/mnt/bundle/config.json/x", "not a directory"]),
            |s| with_mount(s, bind("/mnt/bundle/config.json/x", "/data")),
        ),
        case(
            PART,
            "a bind mount whose source is a link to itself",
            told("system", "/mounts/7/source", &["/mnt/loop", "too many levels of symbolic links"]),
            |s| {
                symlink("loop", "/mnt/loop").expect("symlink");
                with_mount(s, bind("/mnt/loop", "/data"))
            },
        ),
        case(
            PART,
            "a bind mount whose source is relative and missing",
            told("system", "/mounts/7/source", &["data", "no such file or directory"]),
            |s| with_mount(s, bind("data", "/data")),
        ),
        case(
            PART,
            "a file system that the kernel has not",
            told("system", FIELD, &["nosuchfs", "no such device", "/proc/filesystems"]),
            |s| with_mount(s, json!({ "type": "nosuchfs", "source": "x", "destination": "/data" })),
        ),
        case(PART, "a disk that is missing", told("system", FIELD, &["/dev/nosuchdisk"]), |s| {
            with_mount(s, json!({ "type": "ext4", "source": "/dev/nosuchdisk", "destination": "/data" }))
        }),
        case(
            PART,
            "an overlay without its lower folder",
            told("system", FIELD, &["overlay", "/mnt/lower", "no such file or directory"]),
            |s| {
                with_mount(
                    s,
                    json!({ "type": "overlay", "source": "overlay", "destination": "/data", "options": ["lowerdir=/mnt/lower"] }),
                )
            },
        ),
        case(PART, "an overlay of no folders", told("system", FIELD, &["overlay", "lowerdir"]), |s| {
            with_mount(s, json!({ "type": "overlay", "source": "overlay", "destination": "/data" }))
        }),
        case(
            PART,
            "an overlay whose work folder lies in another file system",
            told("system", FIELD, &["overlay", "workdir"]),
            |s| {
                for name in ["lower", "upper", "work"] {
                    fs::create_dir(format!("/mnt/{name}")).expect("mkdir");
                }
                mounted("tmpfs", Some("tmpfs"), "/mnt/work", MsFlags::empty(), None);
                with_mount(
                    s,
                    json!({ "type": "overlay", "source": "overlay", "destination": "/data",
                "options": ["lowerdir=/mnt/lower", "upperdir=/mnt/upper", "workdir=/mnt/work"] }),
                )
            },
        ),
    ]
}

fn options() -> Vec<Case> {
    let tmpfs = |options: Value| json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/data", "options": options });
    vec![
        case(
            PART,
            "an option that the file system does not know",
            told("system", FIELD, &["tmpfs", "colour=red"]),
            move |s| with_mount(s, tmpfs(json!(["colour=red"]))),
        ),
        case(PART, "a size that is no number", told("system", FIELD, &["tmpfs", "size=big"]), move |s| {
            with_mount(s, tmpfs(json!(["size=big"])))
        }),
        case(PART, "a mode that is no number", told("system", FIELD, &["tmpfs", "mode=rwx"]), move |s| {
            with_mount(s, tmpfs(json!(["mode=rwx"])))
        }),
        case(
            PART,
            "a terminal file system for a group that is not mapped",
            told("system", "/mounts/2", &["devpts", "gid=5"]),
            |s| {
                s.with(|config| {
                    config["linux"]["namespaces"]
                        .as_array_mut()
                        .expect("list")
                        .push(json!({ "type": "user" }));
                    for field in ["uidMappings", "gidMappings"] {
                        config["linux"][field] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1 }]);
                    }
                })
                .create()
            },
        ),
        case(
            PART,
            "an id-mapped mount of a file system that has none",
            told("system", FIELD, &["MOUNT_ATTR_IDMAP", "does not support id-mapped mounts"]),
            |s| {
                let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
                with_mount(
                    s,
                    json!({ "type": "bind", "source": "/proc", "destination": "/data", "options": ["bind", "idmap"],
                "uidMappings": maps, "gidMappings": maps }),
                )
            },
        ),
        case(PART, "a remount where nothing is mounted", told("system", FIELD, &["remount", "/tmp"]), |s| {
            with_mount(
                s,
                json!({ "type": "bind", "source": "", "destination": "/tmp", "options": ["bind", "remount", "ro"] }),
            )
        }),
        case(
            PART,
            "a sysctl that the kernel has not",
            told(
                "system",
                "/linux/sysctl/net.nosuch.value",
                &["net.nosuch.value", "no such file or directory"],
            ),
            |s| s.put("/linux/sysctl", json!({ "net.nosuch.value": "1" })).create(),
        ),
        case(
            PART,
            "a sysctl with a value that is none",
            told(
                "system",
                "/linux/sysctl/net.ipv4.ip_forward",
                &["net.ipv4.ip_forward", "invalid argument", "maybe"],
            ),
            |s| s.put("/linux/sysctl", json!({ "net.ipv4.ip_forward": "maybe" })).create(),
        ),
    ]
}

fn devices() -> Vec<Case> {
    let device = |path: &str| json!([{ "path": path, "type": "c", "major": 10, "minor": 229 }]);
    vec![
        case(PART, "a device where a folder is", told("system", "/linux/devices/0", &["/etc"]), move |s| {
            s.put("/linux/devices", device("/etc")).create()
        }),
        case(
            PART,
            "a device below a file",
            told("system", "/linux/devices/0", &["/etc/passwd/fuse", "not a directory"]),
            move |s| s.put("/linux/devices", device("/etc/passwd/fuse")).create(),
        ),
        case(
            PART,
            "a device on a read-only root",
            told("system", "/linux/devices/0", &["/fuse", "read-only file system"]),
            move |s| {
                read_only(ROOT);
                s.put("/linux/devices", device("/fuse")).create()
            },
        ),
        case(
            PART,
            "a network device that the machine has not",
            told("host", "/linux/netDevices/eth77", &["eth77"]),
            |s| s.put("/linux/netDevices", json!({ "eth77": {} })).create(),
        ),
        case(PART, "RDT on a machine without resctrl", told("host", "/linux/intelRdt", &["resctrl"]), |s| {
            s.put("/linux/intelRdt", json!({ "closID": "gold", "l3CacheSchema": "L3:0=f" })).create()
        }),
    ]
}
