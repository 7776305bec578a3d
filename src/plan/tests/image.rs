//! Images: what goes in comes out, for every step there is; and whatever bytes init is given, decoding them ends with a
//! plan or without one, never with a panic.

use rcrun_plan::image::{HEADER_SIZE, Header, NO_HOME, Parts, Steps, Table, encode};
use rcrun_plan::record::{Kind, REPORT_SIZE, Report};
use rcrun_plan::text::{Text, Z};
use rcrun_plan::{Barrier, InRoot, Scheduler, Slot, Step, Within};

/// One sample of each variant; the match makes a variant without a sample an error of compilation.
macro_rules! samples {
    ($text:ident, $($name:ident $({ $($field:tt: $value:expr),* $(,)? })?;)*) => {
        fn samples<S>($text: impl Fn(&'static str) -> S) -> Vec<Step<S>> {
            fn has_a_sample<S>(step: &Step<S>) {
                match step {
                    $(Step::$name { .. } => {})*
                }
            }
            let all = vec![$(Step::$name $({ $($field: $value),* })?),*];
            all.iter().for_each(has_a_sample);
            all
        }
    };
}

samples! {
    text,
    Join { slot: Slot(0), kinds: 0x2000_0000 };
    Unshare { kinds: u32::MAX };
    Wait { barrier: Barrier::ContainerHooks };
    BecomeRoot;
    CheckMountNamespace { host: Slot(u16::MAX) };
    SetPropagation { propagation: u64::MAX };
    AttachRoot { slot: Slot(1), path: text("/a b/ü") };
    UseRoot { slot: Slot(128) };
    JoinedRoot;
    Receive { first: Slot(2), count: 300 };
    Directory { path: InRoot(text("")), mode: 0o755 };
    MountPoint { path: InRoot(text("a/b")), like: Slot(3) };
    File { path: InRoot(text("c")) };
    FsOpen { kind: text("tmpfs") };
    FsString { key: text("size"), value: text("65536k") };
    FsFlag { key: text("ro") };
    FsMount { attributes: 0xe };
    Tree { slot: Slot(4) };
    Clone { path: InRoot(text("d")), recursive: true };
    Root;
    MountedAt { path: InRoot(text("e")) };
    Attributes { set: 1, clear: 2, propagation: 3, recursive: false };
    CopyUp { path: InRoot(text("f")) };
    InheritMode { path: InRoot(text("g")) };
    Attach { path: InRoot(text("proc")), plain: true };
    Keep { number: 31 };
    Mask { path: InRoot(text("proc/kcore")), within: Some(Within { mount: 31, from: 5 }), null: Slot(5) };
    ReadOnly { path: InRoot(text("proc/sys")), within: None };
    Node { path: InRoot(text("dev/x")), mode: 0o20666, major: 1, minor: u32::MAX, uid: 2, gid: 3 };
    Symlink { target: text("pts/ptmx"), path: InRoot(text("dev/ptmx")), replace: true };
    Pivot;
    Chroot;
    Detach { path: text("/proc") };
    MoveRoot;
    Loopback;
    Hostname { name: text("web") };
    Domainname { name: text("example.org") };
    PrivateProc;
    Sysctl { path: text("net/ipv4/ip_forward"), value: text("1") };
    Terminal { ptmx: InRoot(text("dev/pts/ptmx")), console: true, columns: 80, rows: 24, uid: 1000 };
    Session { controlling: true };
    Fork;
    AwaitScheduler;
    Keyring { name: text("_ses.web") };
    Umask { mask: 0o22 };
    Rlimit { resource: 7, soft: 1024, hard: u64::MAX };
    Personality { domain: 8 };
    Scheduler {
        0: Scheduler { policy: 6, flags: 0x7f, nice: -20, priority: 99, runtime: 1, deadline: 1 << 40, period: u64::MAX }
    };
    IoPriority { value: 3 << 13 | 7, group: true };
    MemoryNodes { word: 15, bits: 1 << 63 };
    MemoryPolicy { mode: 1 << 15 | 6 };
    Label { proc: Slot(7), name: text("apparmor/exec"), value: text("exec web") };
    LandlockRules { files: 0xffff, ports: 3, scopes: 3 };
    LandlockPath { path: InRoot(text("usr")), access: 0xd };
    LandlockPort { port: u16::MAX, access: 2 };
    LandlockRestrict;
    OwnStdio { uid: 33 };
    NoNewPrivileges;
    ChangeDirectory { path: InRoot(text("srv")), early: true };
    BoundingSet { keep: 1 << 40, last: 40 };
    Ids { uid: 33, gid: 34, groups: true };
    Capabilities { effective: 1, permitted: 3, inheritable: 1 << 63 };
    Ambient { set: 5 };
    FindExecutable;
    Ready;
    AwaitStart { listen: Slot(6) };
    Filter { flags: 2 };
    Execute;
    CheckJoinedMounts { host: Slot(0), proc: Slot(8) };
    TellMount;
    Unmount { path: InRoot(text("data")), id: u64::MAX, proc: Slot(8) };
}

/// What a plan's parts come to in memory.
fn image() -> Vec<u8> {
    encode(&Parts {
        steps: &samples(Text::from),
        slots: &[3, 4, -1],
        groups: &[4, 24, 27],
        filter: &[0x20, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0xff, 0x7f],
        args: &["sh", "-c", "", "ü"],
        env: &["PATH=/bin", "A="],
        candidates: &["/bin/sh", "./sh"],
        parent: 9,
        home: true,
        first_own_fd: 5,
        stamps: None,
    })
    .expect("the parts hold no NUL")
}

fn header() -> Header {
    Header::decode(&image()).expect("an image has a header")
}

fn number(image: &[u8], at: usize, size: usize) -> u64 {
    image[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// The texts that a table of offsets leads to.
fn texts(image: &[u8], table: Table) -> Vec<String> {
    let at = |i: u32| number(image, (table.offset + i * 8) as usize, 8) as usize;
    assert_eq!(at(table.count), 0, "a table of pointers ends with a zero");
    (0..table.count)
        .filter(|i| at(*i) != 0)
        .map(|i| {
            let bytes = &image[at(i)..];
            let end = bytes.iter().position(|b| *b == 0).expect("a text ends with NUL");
            String::from_utf8(bytes[..end].to_vec()).expect("UTF-8")
        })
        .collect()
}

#[test]
fn every_step_comes_out_as_it_went_in() {
    let image = image();
    let came: Vec<Step<Z>> = Steps::new(&image, &header())
        .expect("the steps lie in the image")
        .map(|step| step.expect("a step"))
        .collect();
    let leaked = |s: &'static str| Z::new(format!("{s}\0").leak().as_bytes()).expect("a text");
    assert_eq!(came, samples(leaked));
}

#[test]
fn everything_else_comes_out_as_it_went_in() {
    let (image, header) = (image(), header());
    assert_eq!(header.length as usize, image.len());
    assert_eq!((header.parent, header.first_own_fd), (9, 5));
    let numbers = |table: Table| -> Vec<i32> {
        (0..table.count).map(|i| number(&image, (table.offset + i * 4) as usize, 4) as i32).collect()
    };
    assert_eq!(numbers(header.slots), [3, 4, -1]);
    assert_eq!(numbers(header.groups), [4, 24, 27]);
    let filter = header.filter.offset as usize;
    assert_eq!(header.filter.count, 2);
    assert_eq!(image[filter..filter + 16], [0x20, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0xff, 0x7f]);
    assert_eq!(texts(&image, header.args), ["sh", "-c", "", "ü"]);
    // The last entry is HOME's, which the parent tells when init is ready.
    assert_eq!(texts(&image, header.env), ["PATH=/bin", "A="]);
    assert_eq!((header.home, header.env.count), (2, 3));
    assert_eq!(texts(&image, header.candidates), ["/bin/sh", "./sh"]);
    assert_eq!(Header::decode(&header.encode()), None, "a header alone is shorter than it says");
    assert_eq!(Header::decode(&[&header.encode()[..], &image[HEADER_SIZE..]].concat()), Some(header));
}

#[test]
fn an_empty_plan_without_home_is_an_image_too() {
    let image = encode(&Parts {
        steps: &[],
        slots: &[],
        groups: &[],
        filter: &[],
        args: &[],
        env: &[],
        candidates: &[],
        parent: 3,
        home: false,
        first_own_fd: 3,
        stamps: None,
    })
    .expect("nothing holds no NUL");
    let header = Header::decode(&image).expect("an image has a header");
    assert_eq!(header.home, NO_HOME);
    assert_eq!(Steps::new(&image, &header).expect("the steps lie in the image").count(), 0);
}

#[test]
fn a_nul_in_a_text_is_refused_wherever_it_stands() {
    let step = [Step::Hostname { name: Text::from("a\0b") }];
    let plain = Parts {
        steps: &[],
        slots: &[],
        groups: &[],
        filter: &[],
        args: &[],
        env: &[],
        candidates: &[],
        parent: 3,
        home: false,
        first_own_fd: 3,
        stamps: None,
    };
    assert_eq!(encode(&Parts { steps: &step, ..plain }), Err("a step holds a NUL"));
    for parts in [
        Parts { args: &["a\0"], ..plain },
        Parts { env: &["\0"], ..plain },
        Parts { candidates: &["a\0b"], ..plain },
    ] {
        assert_eq!(encode(&parts), Err("text holds a NUL"));
    }
}

/// Reads all of an image as init does, up to the first thing that is wrong. How many steps there were, or None.
fn read(bytes: &[u8]) -> Option<usize> {
    let header = Header::decode(bytes)?;
    assert!(header.length as usize <= bytes.len());
    for (table, size, closing) in [
        (header.slots, 4, 0),
        (header.groups, 4, 0),
        (header.filter, 8, 0),
        (header.args, 8, 1),
        (header.env, 8, 1),
        (header.candidates, 8, 1),
    ] {
        let end = u64::from(table.offset) + (u64::from(table.count) + closing) * size;
        assert!(end <= u64::from(header.length), "a table lies outside of the image");
        assert_eq!(table.offset % 8, 0, "a table is not aligned");
    }
    assert!(header.home == NO_HOME || header.home < header.env.count);
    Steps::new(bytes, &header)?.take_while(Result::is_ok).count().into()
}

#[test]
fn an_image_that_was_cut_is_none() {
    let image = image();
    for length in 0..image.len() {
        assert_eq!(read(&image[..length]), None, "cut to {length} bytes");
    }
    assert_eq!(read(&image), Some(samples(Text::from).len()));
}

#[test]
fn an_image_that_says_it_is_shorter_never_gives_all_steps() {
    let mut image = image();
    for length in 0..image.len() {
        image[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        let count = read(&image);
        assert!(count.is_none_or(|n| n < samples(Text::from).len()), "{length}: {count:?}");
    }
}

/// Marsaglia's xorshift: the same bytes in every run.
fn noise(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn bytes_that_are_no_image_are_none() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for length in 0..2000 {
        let bytes: Vec<u8> = (0..length).map(|_| noise(&mut state) as u8).collect();
        assert_eq!(read(&bytes), None, "{length} random bytes");
        assert_eq!(read(&vec![0; length]), None, "{length} zeros");
    }
}

#[test]
fn an_image_with_any_byte_changed_is_read_within_its_bounds_or_refused() {
    let whole = image();
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, whole[at].wrapping_add(1)] {
            let mut image = whole.clone();
            image[at] = value;
            read(&image);
        }
    }
    let mut state = 0x2545_f491_4f6c_dd1d;
    for _ in 0..20_000 {
        let mut image = whole.clone();
        for _ in 0..1 + noise(&mut state) % 8 {
            let at = noise(&mut state) as usize % image.len();
            image[at] = noise(&mut state) as u8;
        }
        read(&image);
    }
}

#[test]
fn steps_of_random_bytes_are_a_step_or_an_error() {
    let (mut state, whole) = (0x0bad_cafe_dead_beef, image());
    let start = header().steps.offset as usize;
    for _ in 0..5_000 {
        let mut image = whole.clone();
        image[start..].fill_with(|| noise(&mut state) as u8);
        read(&image);
    }
}

#[test]
fn a_text_is_bytes_that_end_with_their_only_nul() {
    for (bytes, right) in [
        (b"a\0" as &[u8], true),
        (b"\0", true),
        (b"\xff\xfe\0", true),
        (b"", false),
        (b"a", false),
        (b"a\0b\0", false),
        (b"\0\0", false),
    ] {
        assert_eq!(Z::new(bytes).map(Z::with_nul), right.then_some(bytes), "{bytes:?}");
    }
    assert_eq!(Z::new(b"ab\0").expect("a text").bytes(), b"ab");
}

#[test]
fn a_report_comes_out_as_it_went_in_and_nothing_else_is_one() {
    let kinds = [
        Kind::Failed,
        Kind::Barrier,
        Kind::Terminal,
        Kind::Ready,
        Kind::Executing,
        Kind::Trees,
        Kind::Forked,
        Kind::Listener,
        Kind::Mounted,
    ];
    for kind in kinds {
        let report = Report { kind, call: 0x1234, step: u32::MAX, errno: -1, detail: u64::MAX - 1 };
        assert_eq!(Report::decode(&report.encode()), Some(report));
        assert_eq!(Report::decode(&report.encode()[1..]), None);
        assert_eq!(Report::decode(&[&report.encode()[..], &[0]].concat()), None);
    }
    for kind in (0..=u16::MAX).filter(|n| !(1..=9).contains(n)) {
        let mut bytes = [0; REPORT_SIZE];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        assert_eq!(Report::decode(&bytes), None, "kind {kind}");
    }
    for barrier in [Barrier::Maps, Barrier::RuntimeHooks, Barrier::ContainerHooks, Barrier::NetDevices] {
        assert_eq!(Barrier::from_number(barrier as u16), Some(barrier));
    }
    assert!([0, 5, u16::MAX].into_iter().all(|n| Barrier::from_number(n).is_none()));
}

/// struct sched_attr of linux/sched/types.h: u32 size and policy, u64 flags, s32 nice, u32 priority, u64 runtime, deadline and
/// period, u32 util_min and util_max.
#[test]
fn a_scheduler_is_laid_out_as_the_kernel_reads_it() {
    let to = Scheduler { policy: 6, flags: 5, nice: -3, priority: 99, runtime: 10, deadline: 20, period: 30 };
    let bytes: Vec<u8> = to.attr().iter().flat_map(|word| word.to_le_bytes()).collect();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!((word(0), word(4), long(8)), (56, 6, 5));
    assert_eq!((word(16) as i32, word(20)), (-3, 99));
    assert_eq!((long(24), long(32), long(40), long(48), bytes.len()), (10, 20, 30, 0, 56));
}
