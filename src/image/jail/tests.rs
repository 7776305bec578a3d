//! The walls, tried from inside. The child is this test program itself, started as one of the ignored tests; as root.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::confined::{self, Places};
use super::message::{self, Request, Said};
use super::{Feed, Inmate, Jail, Order};
use crate::digest::Digest;
use crate::error::Code;
use crate::layer::{Form, Limits, Summary};

fn jail(test: &str) -> Jail {
    let test = format!("jail::tests::{test}");
    Jail::with_arguments(["--ignored", "--exact", &test, "--test-threads=1", "--nocapture"])
}

struct Prison {
    place: tempfile::TempDir,
    kept: File,
    into: File,
    lower: [File; 2],
}

impl Prison {
    fn new() -> Prison {
        assert!(rustix::process::geteuid().is_root(), "the walls are tried by root");
        let place = tempfile::tempdir().unwrap();
        for folder in ["into", "layers/sha256", "chains"] {
            std::fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        std::fs::write(place.path().join("layers/sha256/file"), "of another image").unwrap();
        std::fs::write(place.path().join("secret"), "of the machine").unwrap();
        std::fs::write(place.path().join("blob"), "of the layer").unwrap();
        let open = |name| File::open(place.path().join(name)).unwrap();
        Prison { kept: open("blob"), into: open("into"), lower: [open("layers"), open("chains")], place }
    }

    fn start(&self, jail: &Jail) -> (Inmate, Feed) {
        let order = Order {
            media_type: "application/vnd.oci.image.layer.v1.tar",
            diff_id: Digest::of(b""),
            form: Form::Overlay,
            rootless: false,
            limits: Limits::default(),
            kept: Some(self.kept.as_fd()),
            into: Some(self.into.as_fd()),
            lower: Some([self.lower[0].as_fd(), self.lower[1].as_fd()]),
        };
        jail.start(&order).unwrap()
    }
}

/// Tries all that a hostile image could want, and says what it could do that it should not.
#[test]
#[ignore = "is the child of nothing_outside_can_be_named_read_or_changed"]
fn a_prisoner() {
    let socket = confined::own_only_socket().unwrap();
    let (_, fds) = message::receive::<Request>(socket.as_fd()).unwrap().unwrap();
    let [_pipe, kept, into, layers, chains] = <[OwnedFd; 5]>::try_from(fds).unwrap();
    let parent = rustix::process::getppid().unwrap();
    let Places { kept, into, lower } =
        confined::confine(Places { kept: Some(kept), into: Some(into), lower: Some([layers, chains]) })
            .unwrap();
    let (kept, into, [layers, _]) = (kept.unwrap(), into.unwrap(), lower.unwrap());
    let mut notes: Vec<String> = Vec::new();
    let mut refused = |what: &str, done: bool| {
        if done {
            notes.push(what.to_string());
        }
    };
    for path in [
        "/etc/passwd",
        "/proc/self/exe",
        "/proc/1/root",
        "/proc/self/mem",
        "/proc/self/root",
        "/sys",
        "/dev/null",
    ] {
        refused(&format!("stat {path}"), rustix::fs::stat(path).is_ok());
    }
    let up = [".."; 40].join("/");
    for (name, fd) in [("the layer", &into), ("the layers", &layers)] {
        let above = rustix::fs::openat(fd, &*up, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let names = above.and_then(|above| rustix::fs::statat(&above, "etc/passwd", AtFlags::empty()));
        refused(&format!("passwd above {name}"), names.is_ok());
    }
    let write = |fd: &OwnedFd, name: &str| {
        rustix::fs::openat(fd, name, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR).is_ok()
    };
    refused("write into another layer", write(&layers, "sha256/new"));
    refused("open another layer for writing", write(&layers, "sha256/file"));
    let mode = rustix::fs::chmodat(&layers, "sha256/file", Mode::RWXU, AtFlags::empty());
    refused("chmod in another layer", mode.is_ok());
    refused(
        "unlink in another layer",
        rustix::fs::unlinkat(&layers, "sha256/file", AtFlags::empty()).is_ok(),
    );
    refused("write to the root", rustix::fs::mkdirat(CWD, "/new", Mode::RWXU).is_ok());
    for path in ["/blob".to_string(), format!("/proc/self/fd/{}", kept.as_raw_fd())] {
        let open = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        refused(&format!("open {path} for writing"), open.is_ok());
    }
    refused("chmod of the blob", rustix::fs::fchmod(&kept, Mode::RWXU).is_ok());
    // What a layer needs must work, or all of the above proves nothing.
    let mut blob = [0; 100];
    let read = rustix::io::pread(&kept, &mut blob, 0).unwrap_or(0);
    refused("(failed) read the blob", &blob[..read] != b"of the layer");
    let device =
        rustix::fs::mknodat(&into, "disk", FileType::BlockDevice, Mode::RWXU, rustix::fs::makedev(7, 0));
    refused("(failed) mknod", device.is_err());
    let disk = rustix::fs::openat(&into, "disk", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    refused("open a device", disk.is_ok());
    refused("(failed) create", !write(&into, "file"));
    let trusted = rustix::fs::setxattr("/layer/file", "trusted.thing", b"1", rustix::fs::XattrFlags::empty());
    refused("(failed) setxattr trusted", trusted.is_err());
    let owner =
        rustix::fs::chownat(&into, "file", Some(rustix::fs::Uid::from_raw(7)), None, AtFlags::empty());
    refused("(failed) chown", owner.is_err());
    refused("(failed) read another layer", std::fs::read("/lower/layers/sha256/file").is_err());
    refused("(failed) thread", std::thread::Builder::new().spawn(|| ()).is_err());
    use rustix::net::{AddressFamily, SocketType};
    for family in [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::NETLINK] {
        refused(&format!("socket {family:?}"), rustix::net::socket(family, SocketType::DGRAM, None).is_ok());
    }
    refused(
        "unshare",
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
            .is_err_and(|e| e != nix::errno::Errno::ENOSYS),
    );
    refused("mount", rustix::mount::mount_bind("/layer", "/lower").is_ok());
    refused("umount", rustix::mount::unmount("/layer", rustix::mount::UnmountFlags::DETACH).is_ok());
    refused("chroot", rustix::process::chroot("/layer").is_ok());
    refused(
        "exec",
        nix::unistd::execv(c"/layer/file", &[c"file"]).is_err_and(|e| e != nix::errno::Errno::ENOSYS),
    );
    refused("signal the parent", rustix::process::test_kill_process(parent).is_ok());
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD and SETFCAP, by their numbers.
    let kept: u64 = [0, 1, 3, 4, 21, 27, 31].iter().map(|bit| 1 << bit).sum();
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    for (name, set) in
        [("CapInh", 0), ("CapPrm", kept), ("CapEff", kept), ("CapAmb", 0), ("NoNewPrivs", 1), ("Seccomp", 2)]
    {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
        refused(&format!("{name}: {value}"), u64::from_str_radix(value, 16).unwrap() != set);
    }
    let said = Said::Done { diff_id: Digest::of(b""), summary: Summary { notes, ..Summary::default() } };
    message::send(socket.as_fd(), &said, &[]).unwrap();
    std::process::exit(0);
}

#[test]
fn nothing_outside_can_be_named_read_or_changed() {
    let prison = Prison::new();
    let secret = |name: &str| std::fs::metadata(prison.place.path().join(name)).unwrap();
    let before = secret("layers/sha256/file");
    let (inmate, _blob) = prison.start(&jail("a_prisoner"));
    let (summary, _) = inmate.wait(&|| Ok(None), &|| ()).unwrap();
    assert_eq!(summary.unwrap().notes, Vec::<String>::new());
    let after = secret("layers/sha256/file");
    assert_eq!((before.mode(), before.ctime_nsec()), (after.mode(), after.ctime_nsec()));
    let made = prison.place.path().join("into/file");
    assert_eq!(std::fs::metadata(made).unwrap().uid(), 7);
    assert!(std::fs::metadata(prison.place.path().join("into")).unwrap().permissions().mode() & 0o777 != 0);
    assert!(Path::new(&prison.place.path().join("into/disk")).exists());
}

#[test]
#[ignore = "is the child of without_privilege_landlock_alone_keeps_all_else_closed"]
fn a_prisoner_without_privilege() {
    let socket = confined::own_only_socket().unwrap();
    let (_, fds) = message::receive::<Request>(socket.as_fd()).unwrap().unwrap();
    let [_pipe, kept, into, layers, chains] = <[OwnedFd; 5]>::try_from(fds).unwrap();
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).unwrap();
    let Places { kept, into, lower } =
        confined::confine(Places { kept: Some(kept), into: Some(into), lower: Some([layers, chains]) })
            .unwrap();
    let (kept, into, [layers, _]) = (kept.unwrap(), into.unwrap(), lower.unwrap());
    let again = format!("/proc/self/fd/{}", kept.as_raw_fd());
    let opens = |fd: &OwnedFd, name: &str, flags: OFlags| {
        rustix::fs::openat(fd, name, flags | OFlags::CLOEXEC, Mode::RWXU).is_ok()
    };
    let tries = [
        ("read passwd", opens(&into, "/etc/passwd", OFlags::RDONLY), false),
        ("list the root", opens(&into, "/", OFlags::RDONLY), false),
        ("read what is beside", opens(&into, "../secret", OFlags::RDONLY), false),
        ("write beside", opens(&into, "../new", OFlags::WRONLY | OFlags::CREATE), false),
        ("write another layer", opens(&layers, "sha256/file", OFlags::WRONLY), false),
        ("read another layer", opens(&layers, "sha256/file", OFlags::RDONLY), true),
        ("write the blob", opens(&into, &again, OFlags::WRONLY), false),
        ("read the blob", rustix::io::pread(&kept, &mut [0; 1], 0) == Ok(1), true),
        ("write", opens(&into, "file", OFlags::WRONLY | OFlags::CREATE), true),
        ("read by its fd", std::fs::read(format!("/proc/self/fd/{}/file", into.as_raw_fd())).is_ok(), true),
    ];
    let notes = tries.iter().filter(|(_, can, may)| can != may).map(|(what, ..)| what.to_string()).collect();
    let said = Said::Done { diff_id: Digest::of(b""), summary: Summary { notes, ..Summary::default() } };
    message::send(socket.as_fd(), &said, &[]).unwrap();
    std::process::exit(0);
}

#[test]
fn without_privilege_landlock_alone_keeps_all_else_closed() {
    let prison = Prison::new();
    let (inmate, _blob) = prison.start(&jail("a_prisoner_without_privilege"));
    let (summary, _) = inmate.wait(&|| Ok(None), &|| ()).unwrap();
    assert_eq!(summary.unwrap().notes, Vec::<String>::new());
}

#[test]
#[ignore = "is the child of all_that_a_tar_can_hold_is_unpacked_in_the_jail"]
fn an_unpacker() {
    super::serve();
}

#[test]
fn all_that_a_tar_can_hold_is_unpacked_in_the_jail() {
    use crate::layer::tests::walk::{Tell, assert_same, everything, walk};
    let place = tempfile::tempdir().unwrap();
    let [made, here, fed, read] = ["made", "here", "fed", "read"].map(|name| place.path().join(name));
    for folder in [&made, &here, &fed, &read] {
        std::fs::create_dir(folder).unwrap();
    }
    everything(&made);
    let options = ["--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--format=posix", "-c", "."];
    let output = std::process::Command::new("tar").args(options).current_dir(&made).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let unpack =
        crate::layer::Unpack { form: Form::Overlay, rootless: false, limits: Limits::default(), lower: None };
    let into = File::open(&here).unwrap();
    crate::layer::unpack(&output.stdout[..], into.as_fd(), &unpack).unwrap();
    let blob = zstd::encode_all(&output.stdout[..], 3).unwrap();
    let mut copy = File::create(place.path().join("blob")).unwrap();
    let kept = File::open(place.path().join("blob")).unwrap();
    for (there, kept) in [(&fed, None), (&read, Some(kept.as_fd()))] {
        let into = File::open(there).unwrap();
        let order = Order {
            media_type: crate::document::media::LAYER_ZSTD,
            diff_id: Digest::of(b""),
            form: Form::Overlay,
            rootless: false,
            limits: Limits::default(),
            kept,
            into: Some(into.as_fd()),
            lower: None,
        };
        let (inmate, mut feed) = jail("an_unpacker").start(&order).unwrap();
        let (summary, digest) = std::thread::scope(|scope| {
            let pour = scope.spawn(|| {
                for chunk in blob.chunks(1000) {
                    if kept.is_some() {
                        std::io::Write::write_all(&mut copy, chunk).unwrap();
                    }
                    assert!(feed.give(chunk).unwrap());
                }
                // The end of the blob, for the child.
                drop(feed);
            });
            let said = inmate.wait(&|| Ok(None), &|| ()).unwrap();
            pour.join().unwrap();
            said
        });
        assert_eq!(digest, Digest::of(&output.stdout));
        assert_eq!(summary.unwrap().notes, Vec::<String>::new());
        assert_same(&walk(&here, Tell::Holes), &walk(there, Tell::Holes), "here and in the jail");
    }
}

#[test]
#[ignore = "is the child of a_child_that_dies_or_babbles_is_told_as_that"]
fn one_that_dies() {
    std::process::abort();
}

#[test]
#[ignore = "is the child of a_child_that_dies_or_babbles_is_told_as_that"]
fn one_that_panics() {
    let socket = confined::own_only_socket().unwrap();
    let _ = message::receive::<Request>(socket.as_fd()).unwrap();
    panic!("a \x1b[31mred\x1b[0m word");
}

fn ask_for_ever(question: &Said) {
    let socket = confined::own_only_socket().unwrap();
    let _ = message::receive::<Request>(socket.as_fd()).unwrap();
    while message::send(socket.as_fd(), question, &[]).is_ok() {
        let _ = message::receive::<message::Answer>(socket.as_fd());
    }
}

#[test]
#[ignore = "is the child of a_child_that_dies_or_babbles_is_told_as_that"]
fn one_that_asks_for_ever() {
    ask_for_ever(&Said::Lower);
}

#[test]
#[ignore = "is the child of a_child_that_dies_or_babbles_is_told_as_that"]
fn one_that_wants_windows_for_ever() {
    ask_for_ever(&Said::Window);
}

#[test]
fn a_child_that_dies_or_babbles_is_told_as_that() {
    let prison = Prison::new();
    for (child, why) in [
        ("one_that_dies", "without a word (signal: 6"),
        ("one_that_panics", "no message"),
        ("one_that_asks_for_ever", "the layers below twice"),
        ("one_that_wants_windows_for_ever", "a window twice"),
    ] {
        let (inmate, _blob) = prison.start(&jail(child));
        let error = inmate.wait(&|| Ok(None), &|| ()).unwrap_err();
        assert!(error.code() == Code::System && error.to_string().contains(why), "{child}: {error}");
        assert!(!error.to_string().contains('\x1b'), "{child}: {error}");
    }
}
