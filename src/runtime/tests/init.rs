//! rcrun-init as it is embedded, run on small plans: without a container around it, with the answers played by the test.

#[path = "../scratch.rs"]
mod scratch;

use rcrun_plan::image::{Parts, encode};
use rcrun_plan::record::{FOUND_BY_INIT, GO_ON, Kind, REPORT_SIZE, Report};
use rcrun_plan::text::Text;
use rcrun_plan::{InRoot, Slot, Step};
use rcrun_runtime::init_image::INIT;
use scratch::Folder;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const CLONE_NEWNS: u32 = 0x0002_0000;
const CLONE_NEWUTS: u32 = 0x0400_0000;
const CLONE_NEWNET: u32 = 0x4000_0000;
const MS_PRIVATE: u64 = 1 << 18;

fn t(text: &str) -> Text {
    text.into()
}

fn at(path: &str) -> InRoot<Text> {
    InRoot(path.into())
}

struct Running {
    child: Child,
    socket: OwnedFd,
}

struct Payload<'a> {
    args: &'a [&'a str],
    env: &'a [&'a str],
    candidates: &'a [&'a str],
    home: bool,
}

const TRUE: Payload<'static> = Payload { args: &["true"], env: &[], candidates: &["/bin/true"], home: false };

/// Starts init on a plan. Its fds are those that this process leaves open over exec, closed here afterwards.
fn start(folder: &Path, steps: &[Step<Text>], slots: Vec<OwnedFd>, payload: &Payload<'_>) -> Running {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    // A new file each time: the one before may still be executed, and is not to be written then.
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let program = folder.join(format!("rcrun-init-{}", STARTED.fetch_add(1, Ordering::Relaxed)));
    scratch::program(&program, INIT);
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).unwrap();
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC).unwrap();
    let numbers: Vec<i32> = slots.iter().map(AsRawFd::as_raw_fd).collect();
    let image = encode(&Parts {
        steps,
        slots: &numbers,
        groups: &[],
        filter: &[],
        args: payload.args,
        env: payload.env,
        candidates: payload.candidates,
        parent: theirs.as_raw_fd(),
        home: payload.home,
        first_own_fd: 3,
        stamps: None,
    })
    .unwrap();
    let plan = rustix::fs::memfd_create("plan", rustix::fs::MemfdFlags::empty()).unwrap();
    let mut file = std::fs::File::from(plan);
    file.write_all(&image).unwrap();
    let child = Command::new(&program)
        .arg(file.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Running { child, socket: ours }
}

impl Running {
    fn report(&self) -> Option<Report> {
        let mut record = [0; 64];
        let (length, _) =
            rustix::net::recv(&self.socket, &mut record, rustix::net::RecvFlags::empty()).unwrap();
        (length == REPORT_SIZE).then(|| Report::decode(&record[..length]).unwrap())
    }

    fn answer(&self, home: &[u8]) {
        let answer = [&[GO_ON], home].concat();
        rustix::net::send(&self.socket, &answer, rustix::net::SendFlags::empty()).unwrap();
    }

    fn finish(mut self) -> (i32, String) {
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code().unwrap(), said)
    }
}

fn tree(path: &Path) -> OwnedFd {
    use rustix::mount::{OpenTreeFlags, open_tree};
    open_tree(rustix::fs::CWD, path, OpenTreeFlags::OPEN_TREE_CLONE).unwrap()
}

/// Keeps the plans of two tests from inheriting each other's fds.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner())
}

#[test]
fn payload_gets_arguments_environment_and_home() {
    let _alone = alone();
    let folder = Folder::new("payload");
    let payload = Payload {
        args: &["sh", "-c", "echo $0 $1 $A $HOME; ls /proc/self/fd | wc -l", "x", "y z"],
        env: &["A=b"],
        candidates: &["/nowhere/sh", "/etc/passwd/sh", "/bin/sh"],
        home: true,
    };
    let init = start(folder.path(), &[Step::FindExecutable, Step::Ready, Step::Execute], vec![], &payload);
    assert_eq!(init.report().unwrap().kind, Kind::Ready);
    init.answer(b"/home/me");
    assert_eq!(init.report().unwrap().kind, Kind::Executing);
    assert_eq!(init.report(), None);
    // ls has stdin, stdout, stderr and the directory itself.
    assert_eq!(init.finish(), (0, "x y z b /home/me\n4\n".into()));
}

#[test]
fn parent_that_goes_away_before_its_word_takes_init_with_it() {
    let _alone = alone();
    let folder = Folder::new("orphan");
    let mut init = start(folder.path(), &[Step::FindExecutable, Step::Ready, Step::Execute], vec![], &TRUE);
    assert_eq!(init.report().unwrap().kind, Kind::Ready);
    drop(init.socket);
    assert_eq!(init.child.wait().unwrap().code(), Some(1));
}

#[test]
fn failures_name_step_call_errno_and_candidate() {
    let _alone = alone();
    let folder = Folder::new("failures");
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let plain = plain.to_str().unwrap();
    let absent: &[&str] = &["/nowhere/sh"];
    let not_executable: &[&str] = &["/nowhere/sh", plain];
    let directory: &[&str] = &["/bin"];
    for (candidates, errno, detail) in
        [(absent, libc::ENOENT, 0), (not_executable, libc::EACCES, 1), (directory, libc::EISDIR, 0)]
    {
        let payload = Payload { candidates, ..TRUE };
        let init = start(
            folder.path(),
            &[Step::Session { controlling: false }, Step::FindExecutable, Step::Execute],
            vec![],
            &payload,
        );
        let report = init.report().unwrap();
        assert_eq!((report.kind, report.step, report.errno, report.detail), (Kind::Failed, 1, errno, detail));
        assert_eq!(init.finish().0, 1);
    }
    let init = start(folder.path(), &[Step::Execute], vec![], &TRUE);
    let report = init.report().unwrap();
    assert_eq!((report.call, report.step, report.errno), (FOUND_BY_INIT, 0, libc::EINVAL));
    // An executable that is none: the kernel says so to the execve itself.
    let broken = folder.path().join("broken");
    scratch::program(&broken, "\x7fELF");
    let payload = Payload { candidates: &[broken.to_str().unwrap()], ..TRUE };
    let init = start(folder.path(), &[Step::FindExecutable, Step::Execute], vec![], &payload);
    assert_eq!(init.report().unwrap().kind, Kind::Executing);
    let report = init.report().unwrap();
    assert_eq!((report.kind, i64::from(report.call)), (Kind::Failed, libc::SYS_execve));
    assert_eq!(report.errno, libc::ENOEXEC);
}

#[test]
fn machine_mount_namespace_is_refused() {
    let _alone = alone();
    let folder = Folder::new("namespace");
    let namespace = || rustix::fs::open("/proc/self/ns/mnt", rustix::fs::OFlags::RDONLY, 0.into()).unwrap();
    let check = Step::CheckMountNamespace { host: Slot(0) };
    let init = start(folder.path(), std::slice::from_ref(&check), vec![namespace()], &TRUE);
    let report = init.report().unwrap();
    assert_eq!((report.kind, report.step, report.call), (Kind::Failed, 0, FOUND_BY_INIT));
    let steps = [Step::Unshare { kinds: CLONE_NEWNS }, check, Step::FindExecutable, Step::Execute];
    let init = start(folder.path(), &steps, vec![namespace()], &TRUE);
    assert_eq!(init.report().unwrap().kind, Kind::Executing);
    assert_eq!(init.finish().0, 0);
}

#[test]
fn start_is_answered_on_a_connection_and_outlives_a_starter_that_says_nothing() {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    };
    let _alone = alone();
    let folder = Folder::new("start");
    let socket = |flags| socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let address = SocketAddrUnix::new(folder.path().join("start.sock")).unwrap();
    let listening = socket(SocketFlags::empty());
    bind(&listening, &address).unwrap();
    listen(&listening, 8).unwrap();
    let steps = [Step::FindExecutable, Step::Ready, Step::AwaitStart { listen: Slot(0) }, Step::Execute];
    let mut init = start(folder.path(), &steps, vec![listening], &TRUE);
    assert_eq!(init.report().unwrap().kind, Kind::Ready);
    init.answer(b"");
    assert_eq!(init.report(), None, "init closes the first socket");
    let silent = socket(SocketFlags::CLOEXEC);
    connect(&silent, &address).unwrap();
    drop(silent);
    let starter = socket(SocketFlags::CLOEXEC);
    connect(&starter, &address).unwrap();
    init.socket = starter;
    init.answer(b"");
    assert_eq!(init.report().unwrap().kind, Kind::Executing);
    assert_eq!(init.report(), None);
    assert_eq!(init.finish().0, 0);
}

#[test]
fn root_is_made_pivoted_to_masked_and_left_alone_outside() {
    let _alone = alone();
    let folder = Folder::new("root");
    let root = folder.path().join("root");
    for path in ["bin", "lib", "lib64", "usr", "etc", "secret", "tmp/deep", "shut"] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    std::fs::write(root.join("secret/key"), "s").unwrap();
    std::fs::write(root.join("etc/shadow"), "s").unwrap();
    std::fs::write(root.join("etc/passwd"), "s").unwrap();
    std::fs::write(root.join("tmp/deep/file"), "copied\n").unwrap();
    std::fs::set_permissions(root.join("tmp/deep/file"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::os::unix::fs::symlink("file", root.join("tmp/deep/link")).unwrap();
    std::os::unix::fs::symlink("../../../../../made/by/link", root.join("hostile")).unwrap();
    let mut slots =
        vec![rustix::fs::open("/proc/self/ns/mnt", rustix::fs::OFlags::RDONLY, 0.into()).unwrap()];
    slots.push(tree(&root));
    slots.push(tree(Path::new("/dev/null")));
    let mut steps = vec![
        Step::Unshare { kinds: CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWNET },
        Step::CheckMountNamespace { host: Slot(0) },
        Step::SetPropagation { propagation: MS_PRIVATE },
        Step::AttachRoot { slot: Slot(1), path: t(root.to_str().unwrap()) },
    ];
    for (number, path) in ["/bin", "/lib", "/lib64", "/usr"].iter().enumerate() {
        let slot = Slot(3 + number as u16);
        slots.push(tree(&std::fs::canonicalize(path).unwrap()));
        steps.push(Step::MountPoint { path: at(&path[1..]), like: slot });
        steps.push(Step::Tree { slot });
        steps.push(Step::Attach { path: at(&path[1..]), plain: false });
    }
    let new = |kind: &str| [Step::FsOpen { kind: t(kind) }, Step::FsMount { attributes: 0 }];
    steps.push(Step::Directory { path: at("proc"), mode: 0o755 });
    steps.extend(new("proc"));
    steps.push(Step::Attach { path: at("proc"), plain: true });
    steps.push(Step::Directory { path: at("dev"), mode: 0o755 });
    steps.extend(new("tmpfs"));
    steps.push(Step::Attach { path: at("dev"), plain: false });
    steps.push(Step::Node { path: at("dev/zero"), mode: 0o020666, major: 1, minor: 5, uid: 7, gid: 8 });
    steps.push(Step::Symlink { target: t("/proc/self/fd"), path: at("dev/fd"), replace: true });
    steps.extend(new("tmpfs"));
    steps.push(Step::CopyUp { path: at("tmp") });
    steps.push(Step::InheritMode { path: at("tmp") });
    steps.push(Step::Attach { path: at("tmp"), plain: false });
    steps.push(Step::File { path: at("hostile/file") });
    steps.extend([
        Step::Loopback,
        Step::Hostname { name: t("inside") },
        Step::PrivateProc,
        Step::Sysctl { path: t("net/ipv4/ip_forward"), value: t("1") },
        Step::Pivot,
        Step::Mask { path: at("secret"), within: None, null: Slot(2) },
        Step::Mask { path: at("shut"), within: None, null: Slot(2) },
        Step::Mask { path: at("etc/shadow"), within: None, null: Slot(2) },
        Step::Mask { path: at("etc/passwd"), within: None, null: Slot(2) },
        Step::Mask { path: at("etc/absent"), within: None, null: Slot(2) },
        Step::ReadOnly { path: at("etc"), within: None },
        Step::Umask { mask: 0o27 },
        Step::Rlimit { resource: libc::RLIMIT_NOFILE, soft: 33, hard: 44 },
        Step::NoNewPrivileges,
        Step::ChangeDirectory { path: at("tmp"), early: true },
        Step::BoundingSet { keep: 1, last: 40 },
        Step::Ids { uid: 5, gid: 6, groups: true },
        Step::ChangeDirectory { path: at("tmp"), early: false },
        Step::Capabilities { effective: 1, permitted: 1, inheritable: 1 },
        Step::Ambient { set: 1 },
        Step::FindExecutable,
        Step::Ready,
        Step::Execute,
    ]);
    let script = "id -u; id -g; id -G; pwd; hostname; umask; ulimit -n; ls /secret /shut; cat /etc/shadow; \
        (echo > /etc/x) 2>/dev/null || echo read-only; cat /proc/sys/net/ipv4/ip_forward; \
        stat -c '%A %u %g %t %T' /dev/zero; readlink /dev/fd; cat deep/file; stat -c %a deep/file; \
        readlink deep/link; ls /made/by/link; grep -E 'Cap|NoNew' /proc/self/status; \
        grep -c . /proc/self/mountinfo; ls /; cat /sys/class/net/lo/operstate 2>/dev/null; kill -0 $$";
    let env = ["PATH=/bin:/usr/bin"];
    let payload = Payload { args: &["sh", "-c", script], env: &env, candidates: &["/bin/sh"], home: false };
    let init = start(folder.path(), &steps, slots, &payload);
    let report = init.report().unwrap();
    assert_eq!(report.kind, Kind::Ready, "{report:?} {:?}", steps[report.step as usize]);
    init.answer(b"");
    assert_eq!(init.report().unwrap().kind, Kind::Executing);
    assert_eq!(init.report(), None);
    let (status, said) = init.finish();
    let said: Vec<_> = said.lines().collect();
    let wanted = [
        "5",
        "6",
        "6",
        "/tmp",
        "inside",
        "0027",
        "33",
        "/secret:",
        "",
        "/shut:",
        "read-only",
        "1",
        "crw-rw-rw- 7 8 1 5",
        "/proc/self/fd",
        "copied",
        "4755",
        "file",
        "file",
        "CapInh:\t0000000000000001",
        "CapPrm:\t0000000000000001",
        "CapEff:\t0000000000000001",
        "CapBnd:\t0000000000000001",
        "CapAmb:\t0000000000000001",
        "NoNewPrivs:\t1",
    ];
    assert_eq!(&said[..wanted.len()], &wanted[..], "{said:#?}");
    assert_eq!(status, 0);
    assert!(root.join("made/by/link/file").is_file(), "made below the root, where the link leads there");
    assert!(!Path::new("/made").exists());
    assert_eq!(std::fs::read_dir(root.join("dev")).unwrap().count(), 0);
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(std::fs::metadata(root.join("etc")).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn proc_through_a_symlink_is_refused() {
    let _alone = alone();
    let folder = Folder::new("proc");
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", root.join("proc")).unwrap();
    let steps = [
        Step::Unshare { kinds: CLONE_NEWNS },
        Step::SetPropagation { propagation: MS_PRIVATE },
        Step::AttachRoot { slot: Slot(0), path: t(root.to_str().unwrap()) },
        Step::Directory { path: at("proc"), mode: 0o755 },
        Step::FsOpen { kind: t("proc") },
        Step::FsMount { attributes: 0 },
        Step::Attach { path: at("proc"), plain: true },
    ];
    let init = start(folder.path(), &steps, vec![tree(&root)], &TRUE);
    let report = init.report().unwrap();
    assert_eq!((report.kind, report.step, report.errno), (Kind::Failed, 6, libc::ELOOP));
    assert_eq!(i64::from(report.call), libc::SYS_openat2);
}
