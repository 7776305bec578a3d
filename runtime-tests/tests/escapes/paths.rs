//! Mount points and files of an attacker: links, and links that come in the moment between a look and its use.

use crate::victim::{
    Canary, Loot, Round, Stays, at_each_moment, clear, holds, holds_where_runc_falls, id, is_runc, ran,
};
use runtime_tests::bundle::{Bundle, Folder};
use runtime_tests::runtime::Runtime;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

/// A volume that is shared with an attacker, with mounts of the config below it. `taken` is exchanged with a link to
/// the canary.
fn shared(runtime: &Runtime, name: &str, at: &str, taken: &str, stays: Stays) -> Loot {
    let id = id(name);
    let build = || {
        let [volume, source] = ["volume", "source"].map(Folder::new);
        let place = volume.path().join(taken);
        let link = volume.path().join("link");
        let canary = Canary::new();
        fs::create_dir(&place).expect("mkdir");
        symlink(canary.path(), &link).expect("a link");
        let bundle = Bundle::new(name, &["true"]).with(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.push(
                json!({"destination": "/tmp", "type": "bind", "source": volume.path(), "options": ["bind"]}),
            );
            let destination = format!("/tmp/{at}");
            mounts.push(json!({"destination": destination, "type": "bind", "source": source.path(), "options": ["bind"]}));
        });
        Round { bundle, canary, pair: (place, link), _folders: vec![volume, source] }
    };
    let part = format!("tmp/{taken}");
    at_each_moment(runtime, (&id, &["run"], &part), stays, build, |round| round.canary.harmed())
}

#[test]
fn cve_2024_45310_no_folder_is_made_behind_a_link_that_comes_at_any_moment() {
    holds_where_runc_falls(|runtime| shared(runtime, "cve-45310", "new/a/b", "new", Stays::ForGood));
}

#[test]
fn cve_2021_30465_no_mount_goes_through_a_link_that_comes_at_any_moment() {
    holds(|runtime| shared(runtime, "cve-30465", "target", "target", Stays::ForOneCall));
}

#[test]
fn cve_2019_18837_a_mount_point_behind_a_link_is_made_inside() {
    let links: [fn(&Canary) -> std::path::PathBuf; 3] = [Canary::path, Canary::climbing, Canary::dangling];
    holds(|runtime| {
        links.iter().find_map(|to| {
            let canary = Canary::new();
            let source = Folder::new("source");
            fs::write(source.path().join("file"), "bound").expect("a file");
            let script = "cat /mnt/file /mnt/folder/file /mnt/deep/new/file; exit 0";
            let bundle = Bundle::new("cve-18837", &["sh", "-c", script]).with(|config| {
                config["root"]["readonly"] = json!(false);
                let mounts = config["mounts"].as_array_mut().expect("mounts");
                let file = source.path().join("file");
                for (at, from) in [("folder", source.path()), ("file", &file), ("deep/new", source.path())] {
                    mounts.push(json!({"destination": format!("/mnt/{at}"), "type": "bind", "source": from, "options": ["bind"]}));
                }
            });
            for name in ["folder", "file", "deep"] {
                let place = bundle.root().join("mnt").join(name);
                clear(&place);
                symlink(to(&canary), place).expect("a link");
            }
            ran(runtime, &bundle, "18837");
            canary.harmed()
        })
    });
}

const OPENED: &str = "somebody reads it";
const ENDED: &str = "the runtime has ended";

/// Somebody who writes to the FIFO, and never does, is found by who opens it to read.
#[test]
fn cve_2021_29136_a_fifo_as_passwd_is_not_waited_for() {
    holds_where_runc_falls(|runtime| {
        let bundle = Bundle::new("cve-fifo", &["true"]).with(|config| {
            // Without HOME it is looked for in passwd.
            config["process"]["env"] = json!(["PATH=/bin"]);
        });
        let fifo = bundle.root().join("etc/passwd");
        clear(&fifo);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        let id = id("fifo");
        let mut command = runtime.command(["run", "--bundle"]);
        command.arg(bundle.path()).arg(&id).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("execute the runtime");
        let (tell, told) = channel();
        let opened = tell.clone();
        let at = fifo.clone();
        // Opening it to write waits for who reads: the runtime, or ourselves when it has ended.
        let writer = std::thread::spawn(move || {
            let file = fs::File::options().write(true).open(at).expect("open the FIFO");
            let _ = opened.send(OPENED);
            file
        });
        let ended = std::thread::spawn(move || {
            child.wait().expect("wait for the runtime");
            let _ = tell.send(ENDED);
        });
        // Who only looks what it is ends all the same; who waits does so as long as there is a writer.
        let most = Duration::from_secs(if is_runc(runtime) { 3 } else { 60 });
        let mut heard = told.recv_timeout(most);
        if heard == Ok(OPENED) {
            heard = told.recv_timeout(most);
        }
        let waits = heard != Ok(ENDED);
        // Lets go of a writer whom nobody reads.
        let options = &mut fs::File::options();
        drop(options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).expect("open the FIFO"));
        // With the writer goes what the runtime waits for.
        drop(writer.join().expect("the writer"));
        ended.join().expect("the runtime");
        waits.then(|| "the runtime waits for who writes /etc/passwd".into())
    });
}

/// What a program that enters the root loads of it: names as the C library of the machine has them, each a FIFO that would
/// hold whoever opens it.
#[test]
fn cve_2019_14271_no_library_or_table_of_names_of_the_image_is_opened() {
    holds(|runtime| {
        let bundle = Bundle::new("cve-14271", &["true"]).with(|config| {
            config["process"]["env"] = json!(["PATH=/bin", "HOME=/"]);
        });
        let mut fifos = Vec::new();
        for name in [
            "etc/nsswitch.conf",
            "etc/ld.so.cache",
            "etc/ld.so.preload",
            "etc/resolv.conf",
            "lib/libc.so.6",
            "lib/libnss_files.so.2",
            "lib/x86_64-linux-gnu/libnss_files.so.2",
            "lib64/libnss_files.so.2",
            "usr/lib/x86_64-linux-gnu/libnss_files.so.2",
            "usr/lib/locale/locale-archive",
        ] {
            let place = bundle.root().join(name);
            clear(&place);
            nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
            fifos.push(place);
        }
        let command = runtime.command(["run", "--bundle"]);
        let mut limited = std::process::Command::new("timeout");
        limited.args(["--signal=KILL", "60"]).arg(command.get_program()).args(command.get_args());
        limited.arg(bundle.path()).arg(id("14271")).stdin(Stdio::null());
        let said = runtime.without_pipes(&mut limited);
        (said.status != 0).then(|| format!("{}: {}", said.status, said.err))
    });
}

/// A folder of the machine that an fd of the runtime leads to, by any number of steps up.
pub fn up_from(fd: i32, canary: &Canary, name: &str) -> String {
    Path::new(&format!("/proc/self/fd/{fd}")).join(canary.climbing()).join(name).display().to_string()
}
