//! A bundle in a folder of its own: busybox as root file system, a config that a test changes. Uses serde_json.

use crate::programs;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is removed with all that lies in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one below the machine's folder for such things; the name tells which test it belongs to.
    pub fn new(name: &str) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rcrun-{name}-{}-{number}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a test mounted in a namespace of its own keeps the folder busy: nothing of the machine lies below.
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        for target in targets.filter(|t| t.starts_with(&self.0)).collect::<Vec<_>>().into_iter().rev() {
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A bundle, ready to be run.
#[derive(Debug)]
pub struct Bundle {
    folder: Folder,
    /// config.json; `save` writes it.
    pub config: Value,
}

impl Bundle {
    /// A bundle that runs `args`, with busybox in /bin: all that `runc spec` asks for, without a terminal.
    pub fn new(name: &str, args: &[&str]) -> Bundle {
        let folder = Folder::new(name);
        let root = folder.path().join("rootfs");
        fs::create_dir(&root).unwrap_or_else(|e| panic!("mkdir rootfs: {e}"));
        fill_root(&root);
        let bundle = Bundle { folder, config: default_config(args) };
        bundle.save();
        bundle
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its root file system.
    pub fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Changes the config and writes it.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Bundle {
        change(&mut self.config);
        self.save();
        self
    }

    /// Writes config.json.
    pub fn save(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("JSON");
        fs::write(self.path().join("config.json"), text).expect("write config.json");
    }
}

/// Makes the root file system of the tests in the folder `root`.
pub fn fill_root(root: &Path) {
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir(root.join(folder)).unwrap_or_else(|e| panic!("mkdir {folder}: {e}"));
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists())
        .expect("busybox is missing: apt-get install busybox-static");
    programs::copy(Path::new(busybox), &root.join("bin/busybox"));
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap_or_else(|e| panic!("link {applet}: {e}"));
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")
        .expect("passwd");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod tmp");
}

const APPLETS: [&str; 40] = [
    "cat", "chmod", "cut", "date", "dd", "echo", "env", "false", "find", "grep", "head", "hostname", "id",
    "ip", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "nc", "ps", "pwd", "readlink", "rm",
    "sed", "sh", "sleep", "sort", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty", "umount",
    "wc",
];

/// What `runc spec` writes, for `args` and without a terminal.
pub fn default_config(args: &[&str]) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                           {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
