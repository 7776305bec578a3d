//! What the module does on the real kernel, in cgroups of the tests' own. They need root, and say so without it.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FileType, inotify, makedev, mknodat};
use rustix::process::{Signal, geteuid};

use super::file::{read_value, write_control};
use super::*;

const LONG: Duration = Duration::from_secs(20);

fn hierarchy() -> Hierarchy {
    assert!(geteuid().is_root(), "these tests make cgroups and device nodes: run them as root");
    Hierarchy::find().unwrap()
}

/// A path of this test's own, which is removed with all below and inside it, however the test ends.
struct Place {
    hierarchy: Hierarchy,
    path: String,
}

impl Place {
    fn new(name: &str) -> Place {
        Place { hierarchy: hierarchy(), path: format!("/rcrun-test-{}-{name}", std::process::id()) }
    }

    fn at(&self, below: &str) -> CgroupPath {
        CgroupPath::parse(&format!("{}{below}", self.path)).unwrap()
    }

    fn create(&self, below: &str) -> Cgroup {
        Cgroup::create(&self.hierarchy, &self.at(below), &[]).unwrap()
    }

    fn dir(&self, below: &str) -> PathBuf {
        self.hierarchy.path().join(self.at(below).relative())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(Some(cgroup)) = Cgroup::open(&self.hierarchy, &self.at("")) {
            let cleaned =
                cgroup.thaw(LONG).and_then(|()| cgroup.kill_all()).and_then(|()| cgroup.destroy(LONG));
            if let (Err(error), false) = (cleaned, std::thread::panicking()) {
                panic!("clean-up: {error}");
            }
        }
    }
}

/// A process in a cgroup, killed and reaped at the end.
struct Payload(Child);

impl Payload {
    fn sleeping(cgroup: &Cgroup) -> Payload {
        Payload::enters(cgroup, Command::new("sleep").arg("1000"))
    }

    fn enters(cgroup: &Cgroup, command: &mut Command) -> Payload {
        let payload = Payload(command.spawn().unwrap());
        write_control(cgroup, "cgroup.procs", &payload.0.id().to_string()).unwrap();
        payload
    }

    fn signal_of_death(&mut self) -> Option<i32> {
        self.0.wait().unwrap().signal()
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_cgroup_is_made_with_those_above_it_and_removed_without_them() {
    let place = Place::new("make");
    let cgroup = place.create("/a/b");
    assert_eq!(cgroup.created(), 3);
    assert!(place.dir("/a/b").is_dir());
    assert_eq!(cgroup.events().unwrap(), Some(Events { populated: false, frozen: false }));
    cgroup.destroy(LONG).unwrap();
    assert!(!place.dir("/a/b").exists() && place.dir("/a").is_dir());
    // Gone: every question has an answer, and destroying it again is no error.
    assert_eq!(cgroup.events().unwrap(), None);
    assert!(cgroup.processes().unwrap().is_empty());
    assert!(!cgroup.is_frozen().unwrap());
    assert!(cgroup.wait_empty(Duration::ZERO).unwrap());
    assert_eq!(cgroup.oom_kills().unwrap(), None);
    cgroup.kill_all().unwrap();
    cgroup.destroy(Duration::ZERO).unwrap();
    assert!(cgroup.freeze(LONG).unwrap_err().to_string().contains("is gone"));
    assert!(Cgroup::open(&place.hierarchy, &place.at("/a/b")).unwrap().is_none());
}

#[test]
fn who_watches_a_cgroup_that_is_gone_has_the_count_that_was_left() {
    let place = Place::new("left");
    let cgroup = place.create("");
    let payload = Payload::sleeping(&cgroup);
    let mut notices = Notices::open(&cgroup).unwrap().unwrap();
    assert_eq!(notices.take().unwrap(), []);
    // As `leave_oom_kills` does, where a memory controller counts.
    rustix::fs::fsetxattr(&cgroup, super::notices::KILLS, b"2", rustix::fs::XattrFlags::empty()).unwrap();
    drop(payload);
    cgroup.destroy(LONG).unwrap();
    assert_eq!(notices.take().unwrap(), [Notice::OomKill, Notice::Ended]);
    assert_eq!(notices.take().unwrap(), [Notice::Ended]);
}

#[test]
fn who_watches_a_cgroup_remembers_what_it_showed_at_the_end_when_it_is_gone() {
    let place = Place::new("last");
    let cgroup = place.create("");
    let mut notices = Notices::open(&cgroup).unwrap().unwrap();
    let mut payload =
        Payload::enters(&cgroup, Command::new("sh").args(["-c", "read x"]).stdin(Stdio::piped()));
    assert_eq!(notices.take().unwrap(), []);
    assert_eq!(*notices.last(), Shown::default());
    drop(payload.0.stdin.take());
    assert!(cgroup.wait_empty(LONG).unwrap());
    assert_eq!(notices.take().unwrap(), [Notice::Ended]);
    let used = |shown: &Shown| shown.cpu.as_ref().map(|cpu| cpu.total);
    assert!(used(notices.last()) > Some(0), "{:?}", notices.last());
    cgroup.destroy(LONG).unwrap();
    // Nothing is not zero.
    assert_eq!(cgroup.shown(), Shown::default());
    assert!(cgroup.stats().unwrap_err().to_string().contains("is gone"));
    assert_eq!(notices.take().unwrap(), [Notice::Ended]);
    assert!(used(notices.last()) > Some(0), "{:?}", notices.last());
}

#[test]
fn abandoning_removes_those_above_that_were_made_and_no_others() {
    let place = Place::new("abandon");
    let first = place.create("/pods/one");
    let second = place.create("/pods/deep/two");
    assert_eq!(second.created(), 2);
    second.abandon(LONG).unwrap();
    assert!(!place.dir("/pods/deep").exists() && place.dir("/pods/one").is_dir());
    // In use by now: stays.
    let other = place.create("/pods/other");
    first.abandon(LONG).unwrap();
    assert!(!place.dir("/pods/one").exists() && place.dir("/pods/other").is_dir());
    assert_eq!(other.created(), 1);
}

#[test]
fn containers_that_come_and_go_below_one_parent_do_not_disturb_each_other() {
    let place = Place::new("race");
    let _top = place.create("");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for round in 0..100 {
                    // Each may make the parent, and each removes it as soon as it is empty.
                    let cgroup = place.create(&format!("/pods/{worker}-{round}"));
                    cgroup.abandon(LONG).unwrap();
                }
            });
        }
    });
    let left = place.dir("/pods");
    assert!(!left.exists() || fs::read_dir(left).unwrap().all(|entry| !entry.unwrap().path().is_dir()));
}

#[test]
fn an_existing_cgroup_is_taken_only_empty_and_thawed() {
    let place = Place::new("existing");
    let first = place.create("/c");
    let error = Cgroup::create(&place.hierarchy, &place.at("/c"), &[]).unwrap_err();
    assert!(error.to_string().contains("another container is being made in cgroup"), "{error}");
    drop(first);
    let again = place.create("/c");
    assert_eq!(again.created(), 0);
    drop(again);
    let cgroup = Cgroup::open(&place.hierarchy, &place.at("/c")).unwrap().unwrap();

    write_control(&cgroup, "cgroup.freeze", "1").unwrap();
    let error = Cgroup::create(&place.hierarchy, &place.at("/c"), &[]).unwrap_err();
    assert!(error.to_string().contains("container's cgroup unexpectedly frozen"), "{error}");
    cgroup.thaw(LONG).unwrap();

    let payload = Payload::sleeping(&cgroup);
    let error = Cgroup::create(&place.hierarchy, &place.at("/c"), &[]).unwrap_err();
    assert!(error.to_string().contains("container's cgroup is not empty: 1 process(es) found"), "{error}");
    assert!(place.dir("/c").is_dir(), "what was there before is not removed");
    drop(payload);
}

#[test]
fn what_a_killed_create_left_is_removed_only_unmarked_and_empty() {
    let place = Place::new("unused");
    let _top = place.create("");
    let left = || Cgroup::open(&place.hierarchy, &place.at("/c")).unwrap().unwrap();
    let cgroup = place.create("/c");
    left().remove_unused().unwrap();
    assert!(place.dir("/c").is_dir(), "somebody makes a container in it");
    cgroup.mark("other").unwrap();
    drop(cgroup);
    assert_eq!(left().owner().unwrap().as_deref(), Some("other"));
    left().remove_unused().unwrap();
    assert!(place.dir("/c").is_dir(), "it is somebody's");
    left().destroy(LONG).unwrap();

    drop(place.create("/c"));
    let payload = Payload::sleeping(&left());
    left().remove_unused().unwrap();
    assert!(place.dir("/c").is_dir(), "a process is in it");
    drop(payload);
    assert!(left().wait_empty(LONG).unwrap());
    fs::create_dir(place.dir("/c/below")).unwrap();
    left().remove_unused().unwrap();
    assert!(place.dir("/c/below").is_dir(), "others lie below");
    fs::remove_dir(place.dir("/c/below")).unwrap();
    left().remove_unused().unwrap();
    assert!(!place.dir("/c").exists());
}

#[test]
fn a_frozen_tree_stands_still_until_it_is_thawed() {
    let place = Place::new("freeze");
    let cgroup = place.create("");
    let below = place.create("/below");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "read go; while read line; do echo $line; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut payload = Payload::enters(&below, &mut shell);
    let (mut to, stdout) = (payload.0.stdin.take().unwrap(), payload.0.stdout.take().unwrap());
    let mut from = BufReader::new(stdout);
    let mut line = String::new();
    to.write_all(b"go\none\n").unwrap();
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");

    cgroup.freeze(LONG).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    assert!(!below.is_frozen().unwrap(), "only the one that was told");
    assert_eq!(below.events().unwrap(), Some(Events { populated: true, frozen: true }));
    to.write_all(b"two\n").unwrap();
    // It has work to do and does not do it: nothing comes within 50 ms.
    let mut fds = [rustix::event::PollFd::new(from.get_ref(), rustix::event::PollFlags::IN)];
    let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&wait)).unwrap(), 0);

    cgroup.thaw(LONG).unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    line.clear();
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "two\n");
}

#[test]
fn a_frozen_cgroup_is_frozen_all_the_way_down_also_where_it_has_processes_of_its_own() {
    let place = Place::new("inner");
    let top = place.create("");
    let _own = Payload::sleeping(&top);
    let below = place.create("/a/b");
    let _others: Vec<Payload> = (0..20).map(|_| Payload::sleeping(&below)).collect();
    for round in 0..200 {
        top.freeze(LONG).unwrap();
        let events = below.events().unwrap().unwrap();
        assert!(events.frozen, "in round {round} the kernel says so of the upper one first");
        top.thaw(LONG).unwrap();
    }
}

#[test]
fn a_tree_below_a_frozen_one_is_said_not_to_thaw() {
    let place = Place::new("above");
    let (above, cgroup) = (place.create(""), place.create("/c"));
    let _payload = Payload::sleeping(&cgroup);
    above.freeze(LONG).unwrap();
    let error = cgroup.thaw(Duration::from_millis(30)).unwrap_err();
    assert!(error.to_string().contains("a cgroup above it is frozen"), "{error}");
    above.thaw(LONG).unwrap();
}

#[test]
fn a_freeze_that_does_not_come_about_is_undone() {
    let place = Place::new("timeout");
    let cgroup = place.create("");
    // More processes that want to run than processors: the ones that wait for one cannot freeze before they had it,
    // so with no time given the answer is there before they are frozen.
    let spinners: Vec<_> = (0..std::thread::available_parallelism().unwrap().get() + 2)
        .map(|_| Payload::enters(&cgroup, Command::new("sh").args(["-c", "while :; do :; done"])))
        .collect();
    let error = cgroup.freeze(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("did not freeze within 0ns"), "{error}");
    drop(spinners);
    assert!(!cgroup.is_frozen().unwrap());
}

#[test]
fn killing_reaches_the_whole_tree_and_frozen_processes_and_is_waited_for() {
    let place = Place::new("kill");
    // No process in the upper one itself: that passes its controllers on (the "no internal process" rule).
    let (cgroup, beside, below) = (place.create(""), place.create("/w"), place.create("/x/y"));
    let mut payloads = [Payload::sleeping(&beside), Payload::sleeping(&below), Payload::sleeping(&below)];
    let mut ids: Vec<u32> = payloads.iter().map(|payload| payload.0.id()).collect();
    ids.sort_unstable();
    assert_eq!(cgroup.processes().unwrap(), ids);
    assert_eq!(below.processes().unwrap().len(), 2);
    assert!(!cgroup.wait_empty(Duration::from_millis(20)).unwrap());

    let error = cgroup.destroy(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EBUSY));
    assert!(error.to_string().contains(&ids[0].to_string()), "{error}");
    assert!(place.dir("/x/y").is_dir());

    cgroup.freeze(LONG).unwrap();
    cgroup.kill_all().unwrap();
    // Nobody has reaped them: zombies do not hold the cgroup.
    assert!(cgroup.wait_empty(LONG).unwrap());
    cgroup.destroy(LONG).unwrap();
    assert!(!place.dir("").exists());
    for payload in &mut payloads {
        assert_eq!(payload.signal_of_death(), Some(Signal::KILL.as_raw()));
    }
}

#[test]
fn destroying_waits_for_the_last_process_without_looking_again_and_again() {
    let place = Place::new("wait");
    let cgroup = place.create("");
    let mut payload = Payload::sleeping(&cgroup);
    let pid = rustix::process::Pid::from_child(&payload.0);
    let reads = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&reads, place.dir("/cgroup.events"), inotify::WatchFlags::ACCESS).unwrap();
    let waiter = std::thread::spawn(move || cgroup.destroy(LONG));
    // It has read that the cgroup is populated, and next it polls.
    rustix::io::read(&reads, &mut [0_u8; 512]).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    waiter.join().unwrap().unwrap();
    assert!(!place.dir("").exists());
    assert_eq!(payload.signal_of_death(), Some(Signal::TERM.as_raw()));
}

#[test]
fn what_the_payload_made_below_goes_too_however_deep() {
    let place = Place::new("below");
    let cgroup = place.create("");
    for at in ["/one", "/one/a", "/one/b", "/two/x/y/z", "/a name with spaces"] {
        fs::create_dir_all(place.dir(at)).unwrap();
    }
    let mut deep = place.dir("/deep");
    for _ in 0..300 {
        fs::create_dir(&deep).unwrap();
        deep.push("d");
    }
    assert!(cgroup.processes().unwrap().is_empty());
    cgroup.destroy(LONG).unwrap();
    assert!(!place.dir("").exists());
}

#[test]
fn controllers_are_passed_down_to_the_new_cgroup() {
    let place = Place::new("controllers");
    let offered = read_value(&place.hierarchy, "cgroup.controllers").unwrap();
    let cgroup = place.create("/a/b");
    let mut mine: Vec<_> =
        read_value(&cgroup, "cgroup.controllers").unwrap().split_whitespace().map(str::to_string).collect();
    let mut expected: Vec<_> = offered.split_whitespace().map(str::to_string).collect();
    mine.sort();
    expected.sort();
    assert_eq!(mine, expected);
}

fn write(file: &str, value: &str, pointer: &str, missing_ok: bool) -> Write {
    Write {
        file: file.to_string().into(),
        value: value.into(),
        or_else: None,
        pointer: format!("/linux/resources/{pointer}"),
        controller: file.split('.').next().unwrap().to_string().into(),
        missing_ok,
    }
}

#[test]
fn limits_are_written_and_a_missing_one_is_told_with_its_reason() {
    let place = Place::new("apply");
    let cgroup = place.create("");
    cgroup.apply(&[write("cgroup.max.depth", "7", "unified/cgroup.max.depth", false)]).unwrap();
    assert_eq!(read_value(&cgroup, "cgroup.max.depth").unwrap(), "7\n");

    // A file that the kernel does not have: a default is let go, a limit is not, and a second file is tried.
    cgroup.apply(&[write("nocontroller.max", "max", "pids/limit", true)]).unwrap();
    let mut second = write("nocontroller.max", "1", "blockIO/weight", false);
    second.or_else = Some(("cgroup.max.depth", "9".into()));
    cgroup.apply(&[second]).unwrap();
    assert_eq!(read_value(&cgroup, "cgroup.max.depth").unwrap(), "9\n");

    for (file, pointer, expected) in [
        (
            "nocontroller.max",
            "pids/limit",
            "config.json: /linux/resources/pids/limit: nocontroller.max can't be set to \"5\": controller \"nocontroller\" not available",
        ),
        (
            "nocontroller.max",
            "unified/nocontroller.max",
            "unified resource \"nocontroller.max\" can't be set: controller \"nocontroller\" not available",
        ),
        ("nodot", "unified/nodot", "must be in the form CONTROLLER.PARAMETER"),
        ("cgroup.nosuch", "unified/cgroup.nosuch", "this kernel has no cgroup.nosuch"),
    ] {
        let error = cgroup.apply(&[write(file, "5", pointer, false)]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.pointer(), Some(format!("/linux/resources/{pointer}").as_str()));
    }
    let error =
        cgroup.apply(&[write("cgroup.max.depth", "many", "unified/cgroup.max.depth", false)]).unwrap_err();
    assert!(error.to_string().contains("invalid argument"), "{error}");
}

#[test]
fn below_a_threaded_cgroup_only_threaded_controllers_are_possible() {
    let place = Place::new("threaded");
    let top = place.create("");
    let member = place.create("/member");
    // A cgroup that passes domain controllers on cannot become the root of threaded ones.
    for controller in read_value(&top, "cgroup.subtree_control").unwrap().split_whitespace() {
        write_control(&top, "cgroup.subtree_control", &format!("-{controller}")).unwrap();
    }
    write_control(&member, "cgroup.type", "threaded").unwrap();

    let error =
        Cgroup::create(&place.hierarchy, &place.at("/c"), &[write("memory.max", "5", "memory/limit", false)])
            .unwrap_err();
    assert!(error.to_string().contains("cannot have controller \"memory\""), "{error}");
    assert_eq!(error.pointer(), Some("/linux/resources/memory/limit"));
    assert!(!place.dir("/c").exists(), "what create made is removed when it fails");

    let cgroup = place.create("/c");
    assert_eq!(read_value(&cgroup, "cgroup.type").unwrap(), "threaded\n");
    // A threaded cgroup cannot be killed by cgroup.kill, nor its processes be read.
    let mut payload = Payload::sleeping(&cgroup);
    assert_eq!(cgroup.processes().unwrap(), [payload.0.id()]);
    cgroup.kill_all().unwrap();
    assert_eq!(payload.signal_of_death(), Some(Signal::KILL.as_raw()));
    assert!(cgroup.wait_empty(LONG).unwrap());
    cgroup.destroy(LONG).unwrap();
}

fn policy(json: &str) -> Policy {
    Policy::new(&serde_json::from_str::<Vec<_>>(json).unwrap(), &[]).unwrap()
}

/// A shell in a cgroup that opens what it is told to, and a folder with device nodes to be told.
struct Opener {
    payload: Payload,
    answers: BufReader<std::process::ChildStdout>,
    nodes: PathBuf,
}

impl Opener {
    fn new(cgroup: &Cgroup) -> Opener {
        let nodes = std::env::temp_dir().join(format!("rcrun-nodes-{}", std::process::id()));
        fs::create_dir(&nodes).unwrap();
        let loop_ = r#"while read op path; do if (case $op in r) exec <"$path";; w) exec >"$path";; m) exec mknod "$path" c 1 11;; esac) 2>/tmp/null.$$; then echo yes; else cat /tmp/null.$$; fi; rm -f /tmp/null.$$; done"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", loop_]).env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut payload = Payload::enters(cgroup, &mut shell);
        let answers = BufReader::new(payload.0.stdout.take().unwrap());
        Opener { payload, answers, nodes }
    }

    fn node(&self, name: &str, major: u32, minor: u32) -> PathBuf {
        let path = self.nodes.join(name);
        let mode = Mode::from_raw_mode(0o600);
        mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)).unwrap();
        path
    }

    fn says(&mut self, op: &str, path: &Path) -> String {
        let to = self.payload.0.stdin.as_mut().unwrap();
        writeln!(to, "{op} {}", path.display()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.nodes);
    }
}

#[test]
fn the_device_program_denies_allows_and_is_replaced_while_it_is_in_force() {
    let place = Place::new("devices");
    let cgroup = place.create("");
    let mut opener = Opener::new(&cgroup);
    let (null, kmsg) = (opener.node("null", 1, 3), opener.node("kmsg", 1, 11));
    assert_eq!(opener.says("r", &kmsg), "yes", "without a program");

    let deny = DeviceProgram::load(&policy(r#"[{"allow":false,"access":"rwm"}]"#)).unwrap().unwrap();
    cgroup.attach_devices(&deny).unwrap();
    let denied = opener.says("r", &kmsg);
    assert!(denied.ends_with("Operation not permitted"), "{denied}");
    assert_eq!(opener.says("r", &null), "yes");
    assert_eq!(opener.says("w", &null), "yes");
    let made = opener.nodes.join("made");
    assert_eq!(opener.says("m", &made), "yes", "mknod is allowed for any device");
    assert!(opener.says("r", &made).ends_with("Operation not permitted"));

    let read =
        DeviceProgram::load(&policy(r#"[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]"#))
            .unwrap()
            .unwrap();
    cgroup.replace_devices(Some(&read), Whose::Anybodys).unwrap();
    assert_eq!(crate::sys::bpf::attached(cgroup.as_fd()).unwrap().len(), 1, "in its place, not beside it");
    assert_eq!(opener.says("r", &kmsg), "yes");
    assert!(opener.says("w", &kmsg).ends_with("Operation not permitted"));

    // Two of them, as a foreign one may be there: both give way.
    cgroup.attach_devices(&deny).unwrap();
    assert!(opener.says("r", &kmsg).ends_with("Operation not permitted"));
    cgroup
        .replace_devices(Some(&DeviceProgram::load(&policy("[]")).unwrap().unwrap()), Whose::Anybodys)
        .unwrap();
    assert_eq!(crate::sys::bpf::attached(cgroup.as_fd()).unwrap().len(), 1);
    assert!(opener.says("r", &kmsg).ends_with("Operation not permitted"));

    let none = DeviceProgram::load(&policy(r#"[{"allow":true,"access":"rwm"}]"#)).unwrap();
    assert!(none.is_none());
    cgroup.replace_devices(None, Whose::Anybodys).unwrap();
    assert!(crate::sys::bpf::attached(cgroup.as_fd()).unwrap().is_empty());
    assert_eq!(opener.says("r", &kmsg), "yes");
}

#[test]
fn the_verifier_takes_the_longest_list_and_every_shape_of_rule() {
    hierarchy();
    let many: Vec<String> = (0..2000)
        .map(|index| {
            format!(r#"{{"allow":{},"type":"c","major":{index},"minor":7,"access":"r"}}"#, index % 2 == 0)
        })
        .collect();
    let mut shapes = vec![many.join(",")];
    for kind in ["a", "b", "c"] {
        for (major, minor) in [(-1, -1), (5, -1), (-1, 7), (5, 7)] {
            for access in ["r", "w", "m", "rw", "rwm"] {
                for allow in [true, false] {
                    shapes.push(format!(
                        r#"{{"allow":true,"type":"b","major":8,"access":"rw"}},{{"allow":{allow},"type":"{kind}","major":{major},"minor":{minor},"access":"{access}"}}"#
                    ));
                }
            }
        }
    }
    for rules in shapes {
        let policy = policy(&format!("[{rules}]"));
        let loaded = DeviceProgram::load(&policy).unwrap_or_else(|error| panic!("{error}: {rules:.300}"));
        assert_eq!(loaded.is_none(), policy.allows_everything());
    }
}

#[test]
fn a_program_that_the_verifier_refuses_comes_with_its_reason() {
    hierarchy();
    // exit without a result.
    let program = [0x95_u64];
    assert!(crate::sys::bpf::load_device_program(&program).is_err());
    assert!(crate::sys::bpf::verifier_log(&program).contains("R0 !read_ok"));
}
