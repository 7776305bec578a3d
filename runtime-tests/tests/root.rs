//! root.path and root.readonly, masked and read-only paths, sysctls, host and domain name, and --no-pivot.

use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::inside::{Mounted, inside, own_mounts, shell, try_inside};
use runtime_tests::runtime::{Lines, Runtime, said};
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn a_read_only_root_takes_no_files_and_a_writable_one_does() {
    for (readonly, expected) in [(true, "refused\n"), (false, "made\n")] {
        let runtime = Runtime::new();
        let bundle = shell("readonly", "touch /made 2>/dev/null && echo made || echo refused", |c| {
            c["root"]["readonly"] = json!(readonly);
        });
        let said = runtime.run(&bundle, "readonly");
        assert_eq!(said.out, expected, "{}", said.err);
        assert_eq!(bundle.root().join("made").exists(), !readonly);
    }
    let unset = inside("unset", "touch /made && echo made", |c| {
        c["root"].as_object_mut().expect("root").remove("readonly");
    });
    assert_eq!(unset, "made\n");
}

#[test]
fn a_read_only_root_leaves_the_bundle_writable_and_mounts_in_it_too() {
    let runtime = Runtime::new();
    let bundle = shell("leaves", "touch /tmp/x /dev/shm/y && cat /proc/self/mountinfo", |c| {
        c["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({"destination": "/tmp", "type": "tmpfs", "source": "x"}));
    });
    let said = runtime.run(&bundle, "leaves");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(Mounted::all(&said.out)[0].has("ro") && Mounted::on(&said.out, "/tmp").has("rw"), "{}", said.out);
    fs::write(bundle.root().join("after"), "x").expect("the bundle is writable");
}

#[test]
fn an_absolute_and_a_relative_root_are_the_same() {
    let runtime = Runtime::new();
    let bundle = shell("absolute", "ls /etc", |_| {});
    let absolute = bundle.root();
    let bundle = bundle.with(|c| c["root"]["path"] = json!(absolute));
    assert_eq!(runtime.run(&bundle, "absolute").out, "passwd\n");
}

#[test]
fn a_root_that_is_missing_a_file_or_a_link_is_refused() {
    let runtime = Runtime::new();
    for (path, words) in [
        ("nowhere", "no such file or directory"),
        ("config.json", "not a directory"),
        ("link", "not a directory"),
    ] {
        let bundle = Bundle::new("noroot", &["true"]).with(|c| c["root"]["path"] = json!(path));
        std::os::unix::fs::symlink("rootfs", bundle.path().join("link")).expect("symlink");
        let said = runtime.run(&bundle, "noroot");
        assert_eq!(said.status, 1, "{path}");
        let text = said.err.to_lowercase();
        assert!(text.contains("/root/path") && text.contains(words), "{path}: {}", said.err);
    }
}

#[test]
fn masked_paths_hide_folders_and_files_and_missing_ones_are_passed_over() {
    let script = "ls -A /secret | wc -l; cat /etc/file; ls -A /proc/scsi 2>/dev/null | wc -l; touch /secret/x 2>/dev/null || echo refused; \
                  stat -c '%F %t:%T' /etc/file; cat /etc/link; cat /proc/self/mountinfo";
    let runtime = Runtime::new();
    let bundle = shell("masked", script, |c| {
        c["root"]["readonly"] = json!(false);
        c["linux"]["maskedPaths"] = json!([
            "/secret",
            "/secret2",
            "/etc/file",
            "/etc/file2",
            "/not/there",
            "/etc/passwd/below",
            "/proc/kcore",
            "/etc/link"
        ]);
    });
    let root = bundle.root();
    for name in ["secret", "secret2"] {
        fs::create_dir(root.join(name)).expect("mkdir");
        fs::write(root.join(name).join("x"), "secret").expect("write");
    }
    for name in ["file", "file2", "target"] {
        fs::write(root.join("etc").join(name), "secret").expect("write");
    }
    std::os::unix::fs::symlink("/etc/target", root.join("etc/link")).expect("symlink");
    let said = runtime.run(&bundle, "masked");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.starts_with("0\n0\nrefused\ncharacter special file 1:3\n"), "{}", said.out);
    for (target, kind) in
        [("/secret", "tmpfs"), ("/secret2", "tmpfs"), ("/etc/file", "devtmpfs"), ("/etc/target", "devtmpfs")]
    {
        assert_eq!(Mounted::on(&said.out, target).kind, kind, "{}", said.out);
    }
    let mask = Mounted::on(&said.out, "/secret");
    assert!(mask.has("ro") && mask.has("nosuid") && mask.has("nodev") && mask.has("noexec"), "{mask:?}");
    assert!(!root.join("not").exists());
    assert_eq!(fs::read_to_string(root.join("secret/x")).expect("x"), "secret");
}

#[test]
fn read_only_paths_are_read_only_with_all_below_them() {
    let script = "touch /a/x 2>/dev/null || echo a; touch /a/below/x 2>/dev/null || echo below; echo x 2>/dev/null > /etc/file || echo file; \
                  echo 1 2>/dev/null > /proc/sys/kernel/msgmax || echo sys; touch /free && echo free; cat /proc/self/mountinfo";
    let runtime = Runtime::new();
    let bundle = shell("readonlypaths", script, |c| {
        c["root"]["readonly"] = json!(false);
        c["mounts"].as_array_mut().expect("mounts").push(
            json!({"destination": "/a/below", "type": "tmpfs", "source": "x", "options": ["nosuid", "nodev", "noexec", "mode=777"]}),
        );
        c["linux"]["readonlyPaths"] = json!(["/a", "/etc/file", "/not/there", "/proc/sys"]);
    });
    fs::create_dir(bundle.root().join("a")).expect("mkdir");
    fs::write(bundle.root().join("etc/file"), "").expect("write");
    let said = runtime.run(&bundle, "readonlypaths");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.starts_with("a\nbelow\nfile\nsys\nfree\n"), "{}", said.out);
    let below = Mounted::on(&said.out, "/a/below");
    assert!(below.has("ro") && below.has("nosuid") && below.has("nodev") && below.has("noexec"), "{below:?}");
    assert!(Mounted::on(&said.out, "/proc/sys").has("ro"));
}

#[test]
fn sysctls_are_set_in_the_namespaces_of_the_container_only() {
    let rows = [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/lo/forwarding", "/proc/sys/net/ipv4/conf/lo/forwarding", "1"),
        ("net.ipv4.ping_group_range", "/proc/sys/net/ipv4/ping_group_range", "0 5"),
        ("kernel.msgmax", "/proc/sys/kernel/msgmax", "4243"),
        ("kernel.shmmni", "/proc/sys/kernel/shmmni", "77"),
        ("kernel.sem", "/proc/sys/kernel/sem", "250 32000 32 127"),
        ("fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max", "11"),
    ];
    let files: Vec<&str> = rows.iter().map(|(_, file, _)| *file).collect();
    let machine: Vec<String> = files.iter().map(|f| fs::read_to_string(f).unwrap_or_default()).collect();
    let seen = inside("sysctl", &format!("cat {}", files.join(" ")), |c| {
        c["linux"]["sysctl"] = rows.iter().map(|(name, _, value)| (name.to_string(), json!(value))).collect();
    });
    for (line, (name, _, value)) in seen.lines().zip(rows) {
        assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), value, "{name}");
    }
    let after: Vec<String> = files.iter().map(|f| fs::read_to_string(f).unwrap_or_default()).collect();
    assert_eq!(after, machine);
}

#[test]
fn a_sysctl_of_the_machine_or_with_a_value_that_is_refused_names_its_entry() {
    for (name, value, words) in [
        ("vm.swappiness", "10", "/linux/sysctl/vm.swappiness"),
        ("kernel.core_pattern", "|/x", "/linux/sysctl/kernel.core_pattern"),
        ("net.ipv4.ip_forward", "many", "/linux/sysctl/net.ipv4.ip_forward"),
        ("net.nothing", "1", "/linux/sysctl/net.nothing"),
    ] {
        let said = try_inside("nosysctl", "true", |c| c["linux"]["sysctl"] = json!({name: value}));
        assert_eq!(said.status, 1, "{name}");
        assert!(said.err.contains(words), "{name}: {}", said.err);
    }
}

#[test]
fn host_and_domain_name_are_set_inside_only() {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
    let seen = inside("names", "hostname; cat /proc/sys/kernel/domainname", |c| {
        c["hostname"] = json!("a-host.example");
        c["domainname"] = json!("a-domain.example");
    });
    assert_eq!(seen, "a-host.example\na-domain.example\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname"), machine);
    for field in ["hostname", "domainname"] {
        let said = try_inside("nouts", "true", |c| {
            c.as_object_mut().expect("config").remove("hostname");
            c[field] = json!("x");
            c["linux"]["namespaces"].as_array_mut().expect("namespaces").retain(|n| n["type"] != "uts");
        });
        assert!(said.status == 1 && said.err.contains(&format!("/{field}")), "{field}: {}", said.err);
    }
}

#[test]
fn no_pivot_moves_the_root_and_leaves_the_same_container() {
    own_mounts();
    let runtime = Runtime::new();
    let script = "ls /; cd ..; pwd; ls -d /proc/1/root/..; touch /x 2>/dev/null || echo readonly; cat /proc/1/comm >/dev/null && echo $$; stat -c %t:%T /dev/null";
    let bundle = shell("nopivot", script, |_| {});
    let before = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let path = bundle.path().to_str().expect("UTF-8");
    let said = runtime.say(["run", "--no-pivot", "--bundle", path, "nopivot"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert_eq!(said.out, "bin\ndev\netc\nproc\nroot\nsys\ntmp\n/\n/proc/1/root/..\nreadonly\n1\n1:3\n");
    assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo"), before);
    let sleeper = Bundle::new("nopivot2", &["sleep", "1000"]);
    let path = sleeper.path().to_str().expect("UTF-8");
    // Its output goes nowhere: a pipe would be held open by the container.
    let detached = ["run", "--detach", "--no-pivot", "--bundle", path, "nopivot2"];
    let status =
        runtime.command(detached).stdout(Stdio::null()).stderr(Stdio::inherit()).status().expect("run");
    assert!(status.success());
    assert_eq!(runtime.ok(["exec", "nopivot2", "ls", "/etc"]).out, "passwd\n");
    runtime.ok(["delete", "--force", "nopivot2"]);
}

#[test]
fn beside_no_pivot_no_user_namespace_inside_can_mount_a_procfs_without_masks() {
    own_mounts();
    let runtime = Runtime::new();
    // `proc` of the container has masks, so that what is to be refused is refused for the machine's alone.
    let script =
        "unshare -U -r -m -p -f sh -c 'mount -t proc proc /proc && echo mounted || echo refused' 2>&1";
    for user in [false, true] {
        let bundle = shell("barred", script, |c| {
            for set in ["bounding", "effective", "permitted"] {
                c["process"]["capabilities"][set].as_array_mut().expect("set").push(json!("CAP_SETFCAP"));
            }
            if user {
                c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
                let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                c["linux"]["uidMappings"] = map.clone();
                c["linux"]["gidMappings"] = map;
            }
        });
        let path = bundle.path().to_str().expect("UTF-8");
        let said = runtime.say(["run", "--no-pivot", "--bundle", path, "barred"]);
        assert!(said.out.ends_with("refused\n"), "{user}: {} {}", said.out, said.err);
    }
}

#[test]
fn with_no_pivot_a_procfs_that_was_mounted_in_the_bundle_is_not_the_containers() {
    own_mounts();
    let runtime = Runtime::new();
    let bundle = shell("chrooted", "cat /proc/1/comm; readlink /proc/self | wc -c", |_| {});
    let proc = bundle.root().join("proc");
    fs::create_dir_all(&proc).expect("mkdir");
    let none = None::<&str>;
    nix::mount::mount(Some("proc"), &proc, Some("proc"), nix::mount::MsFlags::empty(), none).expect("mount");
    let path = bundle.path().to_str().expect("UTF-8");
    let said = runtime.say(["run", "--no-pivot", "--bundle", path, "chrooted"]);
    nix::mount::umount(&proc).expect("umount");
    // One digit and the end of the line: a pid of its own namespace.
    assert_eq!((said.out.as_str(), said.status), ("sh\n2\n", 0), "{}", said.err);
}

#[test]
fn masked_and_read_only_paths_may_meet_repeat_and_lie_in_one_another() {
    let runtime = Runtime::new();
    let script = "ls -A /a | wc -l; ls -A /b | wc -l; touch /b/x 2>/dev/null || echo refused; cat /c/file";
    let bundle = shell("meet", script, |c| {
        c["root"]["readonly"] = json!(false);
        c["linux"]["maskedPaths"] = json!(["/a", "/a", "/a/below", "/b", "/c/file", "/c/file"]);
        c["linux"]["readonlyPaths"] = json!(["/b", "/b", "/c", "/c/file", "/"]);
    });
    for name in ["a", "a/below", "b", "c"] {
        fs::create_dir(bundle.root().join(name)).expect("mkdir");
    }
    fs::write(bundle.root().join("c/file"), "secret").expect("file");
    let said = runtime.run(&bundle, "meet");
    assert_eq!((said.status, said.out.as_str()), (0, "0\n0\nrefused\n"), "{}", said.err);
}

#[test]
fn a_root_on_a_read_only_mount_works_and_what_would_be_made_there_is_an_error() {
    use nix::mount::{MsFlags, mount};
    own_mounts();
    let runtime = Runtime::new();
    let bundle = shell("rofs", "ls /; echo x > /dev/null; readlink /dev/ptmx", |_| {});
    let root = bundle.root();
    for flags in [MsFlags::MS_BIND, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY] {
        mount(Some(&root), &root, None::<&str>, flags, None::<&str>).expect("bind");
    }
    let said = runtime.run(&bundle, "rofs");
    assert_eq!(
        (said.status, said.out.as_str()),
        (0, "bin\ndev\netc\nproc\nroot\nsys\ntmp\npts/ptmx\n"),
        "{}",
        said.err
    );
    let bundle = bundle.with(|c| c["process"]["cwd"] = json!("/not/there"));
    let said = runtime.run(&bundle, "rofs2");
    assert!(
        said.status == 1 && said.err.contains("/process/cwd") && said.err.contains("EROFS"),
        "{}",
        said.err
    );
}

#[test]
fn mounts_below_the_bundles_root_come_along() {
    use nix::mount::{MsFlags, mount};
    own_mounts();
    let runtime = Runtime::new();
    let bundle = shell("along", "cat /tmp/x; cat /proc/self/mountinfo", |_| {});
    let tmp = bundle.root().join("tmp");
    mount(Some("x"), &tmp, Some("tmpfs"), MsFlags::MS_NOEXEC, None::<&str>).expect("tmpfs");
    fs::write(tmp.join("x"), "below\n").expect("x");
    let said = runtime.run(&bundle, "along");
    assert!(said.status == 0 && said.out.starts_with("below\n"), "{}{}", said.out, said.err);
    let found = Mounted::on(&said.out, "/tmp");
    assert!(found.has("noexec") && found.has("rw"), "{found:?}");
}

#[test]
fn a_container_that_is_started_in_a_chroot_has_no_way_out_of_its_root() {
    use nix::mount::{MsFlags, mount};
    own_mounts();
    let runtime = Runtime::new();
    let script = "busybox nsenter --mount=/proc/self/ns/mnt cat /marker; exec sleep 1000";
    let bundle = shell("chroot", script, |c| {
        let all = json!(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
        c["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    });
    fs::write(bundle.root().join("marker"), "the container's\n").expect("marker");
    // The machine, where no marker is: its root's mount twice, and the second is not the namespace's root.
    let chroot = Folder::new("chroot");
    mount(Some("/"), chroot.path(), None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .expect("bind the machine's root");
    let in_chroot = |words: &[&str]| {
        let command = runtime.command(words);
        let mut inside = Command::new("chroot");
        inside.arg(chroot.path()).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        inside
    };
    let (reader, writer) = std::io::pipe().expect("pipe");
    let path = bundle.path().to_str().expect("UTF-8");
    let mut run = in_chroot(&["run", "--detach", "--bundle", path, "chroot"]);
    let status =
        run.stdout(writer.try_clone().expect("dup")).stderr(writer).status().expect("execute chroot");
    drop(run);
    assert!(status.success());
    assert_eq!(Lines::of(reader.into()).line(), "the container's", "what its own namespace begins with");
    let exec = ["exec", "chroot", "cat", "/marker"];
    for mut exec in [in_chroot(&exec), runtime.command(exec)] {
        let said = said(&exec.output().expect("execute it"));
        assert_eq!((said.status, &*said.out), (0, "the container's\n"), "{}", said.err);
    }
}
