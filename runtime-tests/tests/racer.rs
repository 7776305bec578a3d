//! A racer exchanges a mount target between a folder and a link to the machine (renameat2, RENAME_EXCHANGE) while 500
//! containers start (CVE-2021-30465, CVE-2024-45310): the machine's files and mounts stay as they are.

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::machine::{mounts, own_mount_namespace, tree};
use runtime_tests::runtime::Runtime;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CONTAINERS: u32 = 500;

/// What is exchanged, and with what link.
struct Pair {
    target: PathBuf,
    link: PathBuf,
}

impl Pair {
    fn new(target: PathBuf, to: &Path) -> Pair {
        fs::create_dir_all(&target).expect("a mount target");
        let link = target.with_file_name(format!("{}-link", target.file_name().unwrap().to_string_lossy()));
        symlink(to, &link).expect("a link");
        Pair { target, link }
    }

    fn exchange(&self) {
        let exchanged = renameat2(AT_FDCWD, &self.target, AT_FDCWD, &self.link, RenameFlags::RENAME_EXCHANGE);
        exchanged.unwrap_or_else(|e| panic!("renameat2 {}: {e}", self.target.display()));
    }
}

fn race(name: &str, containers: u32) {
    own_mount_namespace();
    let runtime = Runtime::new();
    let host = Folder::new("host");
    let canary = host.path().join("canary");
    fs::create_dir_all(canary.join("deep")).expect("a canary");
    fs::write(canary.join("deep/secret"), "of the machine\n").expect("a secret");
    let source = Folder::new("source");
    fs::write(source.path().join("mark"), "bound\n").expect("a mark");
    let volume = Folder::new("volume");
    // The racer moves mount points after the mounts as well, so the payload may miss them; never may it see the secret.
    let script = "echo started; cat /vol/*/mark /data/*/mark /vol/*/deep/secret /data/*/deep/secret /data/*/secret \
                  /proc/deep/secret /dev/deep/secret 2>/dev/null; exit 0";
    let bundle = Bundle::new(name, &["sh", "-c", script]).with(|config| {
        config["root"]["readonly"] = json!(false);
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        let volume = volume.path();
        mounts.push(json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]}));
        for (destination, bind) in
            [("/vol/bind", true), ("/vol/tmp", false), ("/data/bind", true), ("/data/tmp", false), ("/vol/new/a/b", false)]
        {
            mounts.push(match bind {
                true => json!({"destination": destination, "type": "bind", "source": source.path(), "options": ["rbind"]}),
                false => json!({"destination": destination, "type": "tmpfs", "source": "racer", "options": ["tmpcopyup"]}),
            });
        }
    });
    let before_mounts = mounts();
    let pairs: Vec<Pair> = vec![
        Pair::new(volume.path().join("bind"), &canary),
        Pair::new(volume.path().join("tmp"), &canary),
        Pair::new(volume.path().join("new"), &canary),
        Pair::new(bundle.root().join("data/bind"), &canary.join("deep")),
        Pair::new(
            bundle.root().join("data/tmp"),
            Path::new(&format!("{}{}", "../".repeat(20), canary.display())),
        ),
        Pair::new(bundle.root().join("proc"), &canary),
        Pair::new(bundle.root().join("dev"), &canary),
    ];
    let before = tree(host.path(), &[]);
    let (over, exchanges) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut started, mut bound, mut refused) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for pair in &pairs {
                    pair.exchange();
                }
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..containers {
                let said = runtime.run(&bundle, "racer");
                assert!(!said.out.contains("of the machine"), "the payload reads the machine: {}", said.out);
                bound += u32::from(said.out.contains("bound"));
                if said.out.starts_with("started") {
                    started += 1;
                    continue;
                }
                assert_eq!((said.status, said.err.lines().count()), (1, 1), "{}{}", said.out, said.err);
                refused += 1;
            }
        }));
        over.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    println!(
        "{name}: {started} started, {bound} with the bind in sight, {refused} refused, {} exchanges",
        exchanges.into_inner()
    );
    assert!(bound > 0 && bound < containers, "{bound} of {containers}: the race has only one outcome");
    assert_eq!(tree(host.path(), &[]), before);
    assert_eq!(mounts(), before_mounts);
    assert_eq!(runtime.ok(["list", "-q"]).out, "");
}

#[test]
fn masks_find_a_mount_whose_folder_was_renamed_before_them() {
    let runtime = Runtime::new();
    let script = "while ! [ -e /proc/self/stat ]; do sleep 0.01; done; wc -c </proc/timer_list; \
                  grep -c ' /proc/sys ro' /proc/self/mountinfo; grep -c ' /sys/firmware ro' /proc/self/mountinfo";
    let bundle = Bundle::new("renamed", &["sh", "-c", script]).with(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/sys/firmware"]);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        // After the mounts, before the masks, and from the machine's mount namespace: it may rename what is mounted on in
        // the container's. A decoy lies in its place.
        let away =
            "cd rootfs && mv proc away && mkdir -p proc/sys && echo decoy > proc/timer_list && mv sys away2";
        let back = "cd rootfs && mv proc decoy && mv away2 sys && mv away proc";
        let hook = |line: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", line]}]);
        config["hooks"] = json!({"createRuntime": hook(away), "poststart": hook(back)});
    });
    let said = runtime.run(&bundle, "renamed");
    assert_eq!((said.status, said.out.as_str()), (0, "0\n1\n1\n"), "{}", said.err);
}

#[test]
fn mount_targets_that_are_exchanged_with_links_lead_no_mount_to_the_machine() {
    race("racer-1", CONTAINERS / 2);
}

#[test]
fn a_second_volume_raced_at_the_same_time_leads_no_mount_to_the_machine_either() {
    race("racer-2", CONTAINERS / 2);
}
