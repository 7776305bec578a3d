//! User namespaces: what root inside owns, sees and may do, and every other step inside one. Joined ones are in pods.rs.

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};
use runtime_tests::bundle::Folder;
use runtime_tests::inside::{
    FIRST_ID, Mounted, field, give, inside, inside_owned, own_mounts, owned, shell, try_inside,
    user_namespace,
};
use runtime_tests::runtime::Runtime;
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn root_inside_is_the_mapped_id_and_owns_the_roots_files() {
    let out = inside_owned(
        "map",
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; stat -c '%u %g' /bin/busybox /etc/passwd",
        |_| {},
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "0", "100000", "65536", "0", "0", "0", "0", "0", "0"]);
}

#[test]
fn several_mappings_are_written_in_order() {
    let out = inside_owned("maps", "cat /proc/self/uid_map /proc/self/gid_map", |c| {
        c["linux"]["uidMappings"] = json!([
            {"containerID": 0, "hostID": FIRST_ID, "size": 10}, {"containerID": 100, "hostID": 300_000, "size": 5}]);
        c["linux"]["gidMappings"] = json!([
            {"containerID": 0, "hostID": FIRST_ID, "size": 7}, {"containerID": 50, "hostID": 400_000, "size": 1}]);
    });
    let lines: Vec<String> =
        out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["0 100000 10", "100 300000 5", "0 100000 7", "50 400000 1"]);
}

#[test]
fn a_root_of_other_ids_works_as_long_as_nothing_must_be_made_in_it() {
    // Bundle::new makes it as root of the machine, who is nobody inside.
    let out =
        inside("nobody", "stat -c %u /bin/busybox; touch /etc/x 2>/dev/null || echo refused", user_namespace);
    assert_eq!(out, "65534\nrefused\n");
}

#[test]
fn files_made_inside_belong_to_the_mapped_id_outside() {
    let bundle = owned("made", "touch /tmp/made; chown 7:8 /tmp/made", |c| {
        c["root"]["readonly"] = json!(false);
        let caps = json!(["CAP_CHOWN"]);
        c["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
    });
    let ran = Runtime::new().run(&bundle, "made");
    assert_eq!(ran.status, 0, "{}", ran.err);
    let made = fs::metadata(bundle.root().join("tmp/made")).expect("made");
    assert_eq!((made.uid(), made.gid()), (FIRST_ID + 7, FIRST_ID + 8));
}

#[test]
fn proc_sys_pts_mqueue_and_cgroup_are_mounted_inside() {
    let out = inside_owned("mounts", "cat /proc/self/mountinfo", |_| {});
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        assert_eq!(Mounted::on(&out, target).kind, kind, "{out}");
    }
}

#[test]
fn devices_are_the_machines_nodes_bound() {
    let out = inside_owned(
        "devices",
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c; stat -c '%n %t:%T %u' /dev/null /dev/full /dev/fuse; \
                    cat /proc/self/mountinfo",
        |c| {
            c["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
            c["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        },
    );
    assert!(out.starts_with("3\n/dev/null 1:3 65534\n/dev/full 1:7 65534\n/dev/fuse a:e5 65534\n"), "{out}");
    for device in ["null", "zero", "full", "tty", "random", "urandom", "fuse"] {
        assert_eq!(Mounted::on(&out, &format!("/dev/{device}")).root, format!("/{device}"), "{out}");
    }
}

#[test]
fn hostname_network_and_sysctls_are_its_own() {
    let out = inside_owned(
        "own",
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; ip -o addr show up",
        |c| {
            c["domainname"] = json!("example");
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4242"});
        },
    );
    assert!(out.starts_with("box\nexample\n1\n4242\n"), "{out}");
    assert!(out.contains("127.0.0.1/8"), "{out}");
}

#[test]
fn capabilities_are_those_of_the_config_and_count_inside() {
    let all = json!(["CAP_SYS_ADMIN", "CAP_CHOWN"]);
    let out = inside_owned("caps", "cat /proc/self/status; mount -t tmpfs x /tmp && echo mounted", |c| {
        c["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    });
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&out, set), "0000000000200001", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(&out, set), "0000000000000000", "{set}");
    }
    assert!(out.ends_with("mounted\n"), "{out}");
    let none = inside_owned("nocaps", "cat /proc/self/status", |c| c["process"]["capabilities"] = json!({}));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&none, set), "0000000000000000", "{set}");
    }
}

#[test]
fn a_user_other_than_root_and_its_groups_are_mapped() {
    let bundle = owned("web", "id -u; id -g; id -G; echo $HOME; cat /proc/self/status", |c| {
        c["process"]["user"] = json!({"uid": 33, "gid": 34, "additionalGids": [5, 6]});
    });
    let said = Runtime::new().run(&bundle, "web");
    assert!(said.out.starts_with("33\n34\n34 5 6\n/srv\n"), "{}{}", said.out, said.err);
    assert_eq!(field(&said.out, "CapEff"), "0000000000000000");
}

#[test]
fn ids_without_a_mapping_are_refused_by_their_pointer() {
    for (user_, pointer) in [
        (json!({"uid": 70_000, "gid": 0}), "/process/user/uid"),
        (json!({"uid": 0, "gid": 70_000}), "/process/user/gid"),
        (json!({"uid": 0, "gid": 0, "additionalGids": [70_000]}), "/process/user"),
    ] {
        let said = try_inside("unmapped", "true", |c| {
            user_namespace(c);
            c["process"]["user"] = user_;
        });
        assert_eq!(said.status, 1, "{pointer}");
        assert!(said.err.contains(pointer), "{pointer}: {}", said.err);
    }
}

#[test]
fn create_start_and_exec_are_root_of_the_same_namespace() {
    let runtime = Runtime::new();
    let bundle = owned("exec", "exec sleep 1000", |_| {});
    let created = runtime.create(&bundle, "exec");
    assert_eq!(created.status, 0, "{}", created.err);
    runtime.ok(["start", "exec"]);
    let pid = runtime.pid("exec");
    let said = runtime.ok([
        "exec",
        "exec",
        "sh",
        "-c",
        "readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map; grep ^Cap /proc/self/status; pwd",
    ]);
    let expected = fs::read_link(format!("/proc/{pid}/ns/user")).expect("ns/user").display().to_string();
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!((lines[0], lines[1]), (expected.as_str(), "0"));
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(
        (field(&said.out, "CapInh"), field(&said.out, "CapAmb")),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!(field(&said.out, "CapEff"), "0000000020000420");
    let said = runtime.ok(["exec", "--user", "33:34", "exec", "id"]);
    assert!(said.out.starts_with("uid=33(web) gid=34"), "{}", said.out);
    assert_eq!(runtime.ok(["exec", "exec", "hostname"]).out, "box\n");
    runtime.ok(["delete", "--force", "exec"]);
}

#[test]
fn sysfs_and_mqueue_of_the_machines_network_and_ipc_are_bound() {
    own_mounts();
    // Not every machine has /dev/mqueue: this one gets a /dev with it.
    let dev = Folder::new("dev");
    mount(Some("dev"), dev.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("tmpfs");
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&dev.path().join(name), SFlag::S_IFCHR, mode, makedev(major, minor)).expect("mknod");
    }
    let mqueue = dev.path().join("mqueue");
    fs::create_dir(&mqueue).expect("mkdir");
    mount(Some("mqueue"), &mqueue, Some("mqueue"), MsFlags::empty(), None::<&str>).expect("mqueue");
    mount(Some(dev.path()), "/dev", None::<&str>, MsFlags::MS_MOVE, None::<&str>).expect("move");

    let out = inside_owned("hostnet", "cat /proc/self/mountinfo; ls /sys/class/net", |c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != "network" && n["type"] != "ipc");
    });
    let sys = Mounted::on(&out, "/sys");
    assert_eq!((sys.kind.as_str(), sys.has("ro"), sys.has("nosuid")), ("sysfs", true, true), "{out}");
    let mqueue = Mounted::on(&out, "/dev/mqueue");
    assert_eq!((mqueue.kind.as_str(), mqueue.has("noexec")), ("mqueue", true), "{out}");
    let interfaces = fs::read_dir("/sys/class/net").expect("net");
    let found = interfaces.filter(|i| {
        let name = i.as_ref().expect("entry").file_name();
        out.lines().any(|line| line == name.to_string_lossy())
    });
    assert_ne!(found.count(), 0, "{out}");
}

#[test]
fn hooks_inside_run_in_the_user_namespace() {
    let runtime = Runtime::new();
    let bundle = owned("hooks", "cat /tmp/said", |c| {
        c["root"]["readonly"] = json!(false);
    });
    let said = bundle.root().join("tmp/said");
    let write = |name: &str, path: &str| {
        json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} $(id -u) $(readlink /proc/self/ns/user) >> {path}")],
                "env": ["PATH=/bin:/usr/bin"]}])
    };
    let outside = said.display().to_string();
    let bundle = bundle.with(|c| {
        c["hooks"] = json!({
            "createRuntime": write("createRuntime", &outside),
            "createContainer": write("createContainer", &outside),
            "startContainer": write("startContainer", "/tmp/said"),
        });
    });
    fs::write(&said, "").expect("said");
    chown(&said, Some(Uid::from_raw(FIRST_ID)), Some(Gid::from_raw(FIRST_ID))).expect("chown");
    let created = runtime.create(&bundle, "hooks");
    assert_eq!(created.status, 0, "{}", created.err);
    let inside =
        fs::read_link(format!("/proc/{}/ns/user", runtime.pid("hooks"))).expect("ns").display().to_string();
    let machine = fs::read_link("/proc/self/ns/user").expect("ns").display().to_string();
    runtime.ok(["start", "hooks"]);
    let text = fs::read_to_string(&said).expect("said");
    assert_eq!(
        text,
        format!("createRuntime 0 {machine}\ncreateContainer 0 {inside}\nstartContainer 0 {inside}\n")
    );
}

#[test]
fn init_cannot_be_traced_or_read_by_others_of_its_user_namespace() {
    let runtime = Runtime::new();
    let bundle = owned("dump", "exec sleep 1000", |_| {});
    assert_eq!(runtime.create(&bundle, "dump").status, 0);
    let pid = runtime.pid("dump");
    // Its files in /proc belong to root of the machine as long as it is not dumpable (proc_pid(5)).
    let owner = fs::metadata(format!("/proc/{pid}/ns")).expect("ns").uid();
    assert_eq!(owner, 0);
    runtime.ok(["start", "dump"]);
    assert_eq!(fs::metadata(format!("/proc/{pid}/ns")).expect("ns").uid(), FIRST_ID);
}

#[test]
fn without_a_mount_namespace_it_is_a_chroot_too() {
    let out = inside_owned("userchroot", "pwd; ls /; id -u; cd ..; pwd", |c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != "mount");
        c["root"]["readonly"] = json!(false);
        c["mounts"] = json!([]);
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(out, "/\nbin\ndev\netc\nproc\nroot\nsys\ntmp\n0\n/\n");
}

#[test]
fn its_own_cgroup_is_bound_without_a_cgroup_namespace() {
    let out = inside_owned("usercg", "cat /sys/fs/cgroup/cgroup.procs; cat /proc/self/mountinfo", |c| {
        c["linux"]["namespaces"].as_array_mut().expect("namespaces").retain(|n| n["type"] != "cgroup");
        c["linux"]["cgroupsPath"] = json!("/rcrun-fields-usercg");
    });
    assert!(out.starts_with("1\n"), "{out}");
    let cgroup = Mounted::on(&out, "/sys/fs/cgroup");
    assert_eq!((cgroup.root.as_str(), cgroup.has("ro")), ("/rcrun-fields-usercg", true), "{out}");
}

#[test]
fn time_offsets_are_written_before_it_loses_its_ids() {
    let out =
        inside_owned("usertime", "cat /proc/self/timens_offsets; id -u; cut -d. -f1 /proc/uptime", |c| {
            c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "time"}));
            c["linux"]["timeOffsets"] =
                json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": -1, "nanosecs": 7}});
        });
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words[..7], ["monotonic", "-1", "7", "boottime", "1000000", "0", "0"]);
    assert!(words[7].parse::<u64>().expect("uptime") > 1_000_000, "{out}");
}

#[test]
fn binds_tmpfs_masks_and_a_writable_root_work_inside() {
    let runtime = Runtime::new();
    let script = "cat /data/file; touch /data/x 2>/dev/null || echo ro; touch /copied/more /new/dir/x && ls /copied; \
                  stat -c '%u %a' /copied/file; stat -c '%u:%g' /given; ls -A /masked | wc -l; stat -c %F /dev/p; cat /proc/self/mountinfo";
    let bundle = shell("userall", script, |c| {
        user_namespace(c);
        c["root"]["readonly"] = json!(false);
        let mounts = c["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro", "rprivate"]}));
        mounts.push(json!({"destination": "/copied", "type": "tmpfs", "source": "x", "options": ["tmpcopyup", "mode=755"]}));
        mounts.push(json!({"destination": "/new/dir", "type": "tmpfs", "source": "x"}));
        mounts.push(
            json!({"destination": "/given", "type": "tmpfs", "source": "x", "options": ["uid=5", "gid=6"]}),
        );
        c["linux"]["maskedPaths"] = json!(["/masked", "/proc/kcore"]);
        c["linux"]["devices"] = json!([{"path": "/dev/p", "type": "p", "fileMode": 0o644}]);
    });
    fs::create_dir(bundle.path().join("data")).expect("mkdir");
    fs::write(bundle.path().join("data/file"), "data\n").expect("file");
    for folder in ["copied", "masked"] {
        fs::create_dir(bundle.root().join(folder)).expect("mkdir");
        fs::write(bundle.root().join(folder).join("file"), "x").expect("file");
    }
    give(&bundle.root());
    let said = runtime.run(&bundle, "userall");
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    assert!(said.out.starts_with("data\nro\nfile\nmore\n0 644\n5:6\n0\nfifo\n"), "{}", said.out);
}

#[test]
fn no_pivot_works_inside() {
    let runtime = Runtime::new();
    let bundle = owned("usernopivot", "id -u; ls /; cd ..; pwd", |_| {});
    let path = bundle.path().to_str().expect("UTF-8");
    let said = runtime.say(["run", "--no-pivot", "--bundle", path, "usernopivot"]);
    assert_eq!(said.out, "0\nbin\ndev\netc\nproc\nroot\nsys\ntmp\n/\n", "{}", said.err);
}

#[test]
fn a_terminal_works_inside() {
    let runtime = Runtime::new();
    let bundle = owned("usertty", "exec sleep 1000", |c| c["process"]["terminal"] = json!(true));
    let path = bundle.path().join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let receiver = std::thread::spawn(move || listener.accept().expect("accept"));
    let (bundle_path, console) = (bundle.path().to_str().expect("UTF-8"), path.to_str().expect("UTF-8"));
    runtime.ok(["create", "--bundle", bundle_path, "--console-socket", console, "usertty"]);
    // The master stays in this connection's queue: closed, it would hang up the terminal.
    let connection = receiver.join().expect("accept");
    runtime.ok(["start", "usertty"]);
    let script = "stat -c '%u %t' /dev/console /dev/pts/0; readlink /proc/1/fd/0; echo x > /dev/console && echo written";
    let said = runtime.ok(["exec", "usertty", "sh", "-c", script]);
    assert_eq!(said.out, "0 88\n0 88\n/dev/pts/0\nwritten\n");
    runtime.ok(["delete", "--force", "usertty"]);
    drop(connection);
}

#[test]
fn a_bundle_that_the_mapped_ids_may_not_search_works() {
    use std::os::unix::fs::PermissionsExt;
    let runtime = Runtime::new();
    let bundle = owned("closed", "ls /; cd ..; pwd; touch /tmp/x", |c| c["root"]["readonly"] = json!(false));
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    let said = runtime.run(&bundle, "closed");
    assert_eq!(
        (said.status, said.out.as_str()),
        (0, "bin\ndev\netc\nproc\nroot\nsys\ntmp\n/\n"),
        "{}",
        said.err
    );
    assert!(bundle.root().join("tmp/x").exists());
}

#[test]
fn a_device_that_the_machine_lacks_cannot_be_bound_and_the_error_says_so() {
    let said = try_inside("lacks", "true", |c| {
        user_namespace(c);
        c["linux"]["devices"] =
            json!([{"path": "/dev/not-on-this-machine", "type": "c", "major": 1, "minor": 3}]);
    });
    assert!(said.status == 1 && said.err.contains("/linux/devices/0"), "{}", said.err);
    assert!(said.err.contains("/dev/not-on-this-machine"), "{}", said.err);
}

#[test]
fn a_device_of_other_numbers_than_the_machines_is_refused() {
    let said = try_inside("othernode", "true", |c| {
        user_namespace(c);
        c["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]);
    });
    assert!(said.status == 1 && said.err.contains("/linux/devices/0"), "{}", said.err);
}
