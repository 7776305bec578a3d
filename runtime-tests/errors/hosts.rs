//! A machine that is full, read-only, or lacks what a start needs; sockets, pid files and descriptors that a caller names.

use super::scene::{BUNDLE, STATE, Scene, mounted, read_only};
use super::{Case, case, told};
use nix::mount::{MntFlags, MsFlags, umount2};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

const PART: &str = "hosts";
const FILES: &str = "terminals and files";

/// A state root of so much room.
fn small_state(options: &str) {
    mounted("tmpfs", Some("tmpfs"), STATE, MsFlags::empty(), Some(options));
}

fn full(folder: &str) {
    // Until the kernel says that it is full.
    let filler = fs::File::create(format!("{folder}/filler")).expect("create");
    let mut filler = std::io::BufWriter::new(filler);
    while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    let _ = filler.into_parts();
}

fn terminal(s: &mut Scene) -> &mut Scene {
    s.put("/process/terminal", json!(true))
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = hosts();
    all.extend(files());
    all
}

fn hosts() -> Vec<Case> {
    vec![
        case(
            PART,
            "a state root whose disk is full",
            told("system", "", &["/mnt/state", "no space left on device"]),
            |s| {
                small_state("size=64k,mode=711");
                full(STATE);
                s.create()
            },
        ),
        case(
            PART,
            "a state root without an inode left",
            told("system", "", &["/mnt/state", "no space left on device"]),
            |s| {
                small_state("nr_inodes=1,mode=711");
                s.create()
            },
        ),
        case(
            PART,
            "a state root that is read-only",
            told("system", "", &["/mnt/state", "read-only file system"]),
            |s| {
                read_only(STATE);
                s.create()
            },
        ),
        case(
            PART,
            "a state root that is a file",
            told("system", "", &["/mnt/state", "not a directory"]),
            |s| {
                fs::remove_dir(STATE).expect("rmdir");
                fs::write(STATE, "").expect("write");
                s.create()
            },
        ),
        case(
            PART,
            "a state root that is a link to nowhere",
            told("system", "", &["/mnt/state", "symbolic link"]),
            |s| {
                fs::remove_dir(STATE).expect("rmdir");
                symlink("/mnt/nowhere", STATE).expect("symlink");
                s.create()
            },
        ),
        case(
            PART,
            "a state root on a read-only disk that has no folder for it",
            told("system", "", &["/run/rcrun", "read-only file system"]),
            |s| {
                read_only("/run");
                s.option("--root").option("/run/rcrun").create()
            },
        ),
        case(PART, "too few descriptors", told("system", "", &["too many open files", "ulimit -n"]), |s| {
            s.through(&["prlimit", "--nofile=6:6"]).create()
        }),
        case(
            PART,
            "no /proc",
            told("system", "", &["/proc/self/cgroup", "no such file or directory", "procfs on /proc"]),
            |s| {
                umount2("/proc", MntFlags::MNT_DETACH).expect("umount");
                s.create()
            },
        ),
        case(
            PART,
            "something else on /proc",
            told("system", "", &["/proc/self/cgroup", "no such file or directory", "procfs on /proc"]),
            |s| {
                mounted("tmpfs", Some("tmpfs"), "/proc", MsFlags::empty(), None);
                s.create()
            },
        ),
        case(
            PART,
            "no /dev of the machine",
            told("system", "/linux/maskedPaths", &["open /dev/null", "no such file or directory"]),
            |s| {
                mounted("tmpfs", Some("tmpfs"), "/dev", MsFlags::empty(), None);
                s.create()
            },
        ),
        case(
            PART,
            "a user who is not root",
            told("host", "/linux/namespaces", &["rcrun is not root", "spec --rootless"]),
            |s| {
                // The checkout may lie below a folder that is root's alone.
                s.with_copy().through(&["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]).create()
            },
        ),
        case(
            PART,
            "root without the capability to make namespaces",
            told("host", "/linux/namespaces", &["has no CAP_SYS_ADMIN"]),
            |s| s.through(&["setpriv", "--bounding-set=-sys_admin"]).create(),
        ),
        case(
            PART,
            "a namespace limit that is reached",
            told("system", "", &["clone3", "no space left on device", "/proc/sys/user/max"]),
            |s| {
                let script = "echo 0 >/proc/sys/user/max_uts_namespaces && exec \"$@\"";
                s.through(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
                    .create()
            },
        ),
        case(
            PART,
            "a log that cannot be written",
            told("system", "", &["open the log /mnt/nowhere/log", "no such file or directory"]).unnamed(),
            |s| s.option("--log").option("/mnt/nowhere/log").create(),
        ),
    ]
}

fn files() -> Vec<Case> {
    vec![
        case(
            FILES,
            "a terminal without a console socket",
            told(
                "usage",
                "/process/terminal",
                &["cannot allocate tty if runc will detach without setting console socket"],
            ),
            |s| terminal(s).create(),
        ),
        case(
            FILES,
            "a console socket without a terminal",
            told(
                "usage",
                "/process/terminal",
                &["cannot use console socket if runc will not detach or allocate tty"],
            ),
            |s| s.say(&["create", "--bundle", BUNDLE, "--console-socket", "/mnt/socket", "ID"]),
        ),
        case(
            FILES,
            "a console socket that is missing",
            told("system", "", &["--console-socket", "/mnt/socket", "no such file or directory"]),
            |s| terminal(s).say(&["create", "--bundle", BUNDLE, "--console-socket", "/mnt/socket", "ID"]),
        ),
        case(
            FILES,
            "a console socket that nobody serves",
            told("system", "", &["--console-socket", "/mnt/socket", "connection refused"]),
            |s| {
                drop(std::os::unix::net::UnixListener::bind("/mnt/socket").expect("bind"));
                terminal(s).say(&["create", "--bundle", BUNDLE, "--console-socket", "/mnt/socket", "ID"])
            },
        ),
        case(
            FILES,
            "a console socket that is a file",
            told("system", "", &["--console-socket", "config.json", "connection refused"]),
            |s| {
                terminal(s).say(&[
                    "create",
                    "--bundle",
                    BUNDLE,
                    "--console-socket",
                    "/mnt/bundle/config.json",
                    "ID",
                ])
            },
        ),
        case(
            FILES,
            "a terminal on a root without devpts",
            told(
                "system",
                "/process/terminal",
                &["make the terminal", "no such file or directory", "devpts mount on /dev/pts"],
            ),
            |s| {
                s.with(|config| drop(config["mounts"].as_array_mut().expect("list").remove(2)));
                terminal(s);
                let _listener = std::os::unix::net::UnixListener::bind("/mnt/socket").expect("bind");
                s.say(&["create", "--bundle", BUNDLE, "--console-socket", "/mnt/socket", "ID"])
            },
        ),
        case(
            FILES,
            "a pid file in a folder that is missing",
            told("system", "", &["--pid-file", "/mnt/nowhere", "no such file or directory"]),
            |s| s.say(&["create", "--bundle", BUNDLE, "--pid-file", "/mnt/nowhere/pid", "ID"]),
        ),
        case(
            FILES,
            "a pid file in a read-only folder",
            told("system", "", &["--pid-file", "/mnt/pids", "read-only file system"]),
            |s| {
                fs::create_dir("/mnt/pids").expect("mkdir");
                read_only("/mnt/pids");
                s.say(&["create", "--bundle", BUNDLE, "--pid-file", "/mnt/pids/pid", "ID"])
            },
        ),
        case(
            FILES,
            "a pid file on a full disk",
            told("system", "", &["--pid-file", "/mnt/pids", "no space left on device"]),
            |s| {
                fs::create_dir("/mnt/pids").expect("mkdir");
                mounted("tmpfs", Some("tmpfs"), "/mnt/pids", MsFlags::empty(), Some("size=16k"));
                full("/mnt/pids");
                s.say(&["create", "--bundle", BUNDLE, "--pid-file", "/mnt/pids/pid", "ID"])
            },
        ),
        case(
            FILES,
            "descriptors that the caller has not",
            told("system", "", &["preserved-fd 0 (of 5)", "bad file descriptor"]),
            |s| s.say(&["create", "--bundle", BUNDLE, "--preserve-fds", "5", "ID"]),
        ),
    ]
}
