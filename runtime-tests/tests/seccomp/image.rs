//! The profile that containers of images have: against Docker's, against what it says of capabilities, and on this
//! machine's kernel.

use oci_spec::runtime::LinuxSeccomp;
use rcrun_image::bundle::seccomp::profile;
use rcrun_runtime::host::Arch;
use rcrun_runtime::seccomp::machine::{self, Data};
use rcrun_runtime::seccomp::{Filter, compile};

use super::profiles;
use super::sys::under_filter;

const DOCKERS: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

fn with(capabilities: &[&str], architecture: &str) -> LinuxSeccomp {
    let value = profile(capabilities, architecture);
    serde_json::from_value(value).unwrap()
}

/// With the capabilities that a container has.
pub fn dockers_capabilities() -> LinuxSeccomp {
    with(&DOCKERS, "amd64")
}

/// Its shapes.
pub fn profiles() -> [(&'static str, LinuxSeccomp); 4] {
    [
        ("Docker's capabilities", dockers_capabilities()),
        ("a 32-bit image", with(&DOCKERS, "386")),
        ("no capability", with(&[], "amd64")),
        ("what mounts", with(&["CAP_SYS_ADMIN", "CAP_NET_RAW"], "amd64")),
    ]
}

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const DENIED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const NO_FAMILY: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;

fn answer(filter: &Filter, call: &str, args: [u64; 6]) -> u32 {
    let data =
        Data::native(call, Arch::X86_64, args).unwrap_or_else(|| panic!("{call} is no call of x86_64"));
    machine::run(&filter.program, &data).expect("a program that seccomp(2) takes")
}

/// Calls, what Docker's profile answers where no argument is set, what ours does, and why. Where Docker's default is
/// named, numbers above all that it knows get ENOSYS from it as well.
const DIFFERENCES: [(&str, u32, u32, &str); 10] = [
    (
        "setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr",
        UNKNOWN,
        ALLOWED,
        "new names of what fsetxattr, fgetxattr and ioctl do",
    ),
    ("mseal", UNKNOWN, ALLOWED, "a process forbids itself to change its memory"),
    (
        "statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
        UNKNOWN,
        ALLOWED,
        "what /proc/self/mountinfo and /proc/self/attr tell",
    ),
    ("uretprobe uprobe", DENIED, ALLOWED, "the breakpoint of a tracer outside would kill the program"),
    ("unshare", DENIED, ALLOWED, "without a flag for a namespace it does what clone may"),
    ("fanotify_mark", ALLOWED, DENIED, "of no use without fanotify_init"),
    ("epoll_ctl_old epoll_wait_old", ALLOWED, UNKNOWN, "no kernel has them"),
    ("socket socketpair", ALLOWED, NO_FAMILY, "family 0 is none"),
    (
        "_sysctl afs_syscall create_module get_kernel_syms getpmsg lookup_dcookie nfsservctl putpmsg query_module \
         security sysfs tuxcall uselib ustat vserver",
        DENIED,
        UNKNOWN,
        "no kernel has them, or only old ones: as programs know it",
    ),
    ("open_tree_attr", UNKNOWN, DENIED, "a capability opens it, as it does open_tree"),
];

/// Between the numbers that x86_64 had and those that all architectures share; of no call.
const NOBODYS: std::ops::RangeInclusive<u32> = 337..=423;

#[test]
fn every_difference_from_dockers_profile_has_its_reason() {
    let ours = compile(&dockers_capabilities(), Arch::X86_64).unwrap();
    assert_eq!(ours.warnings, [""; 0]);
    let dockers = compile(&profiles::sample("docker-default"), Arch::X86_64).unwrap();
    let mut expected = std::collections::BTreeMap::new();
    for (calls, docker, our, reason) in DIFFERENCES {
        for call in calls.split_whitespace() {
            if let Some(data) = Data::native(call, Arch::X86_64, [0; 6]) {
                assert!(expected.insert(data.number, (call, docker, our, reason)).is_none(), "{call} twice");
            }
        }
    }
    let mut wrong = String::new();
    let arch = Data::native("read", Arch::X86_64, [0; 6]).unwrap().arch;
    for number in 0..1000 {
        let data = Data { number, arch, big_endian: false, args: [0; 6] };
        let run = |filter: &Filter| machine::run(&filter.program, &data).unwrap();
        let (docker, our) = (run(&dockers), run(&ours));
        let told = match NOBODYS.contains(&number) {
            true => Some((DENIED, UNKNOWN)),
            false => expected.get(&number).map(|(_, docker, our, _)| (*docker, *our)),
        };
        if (docker, our) != told.unwrap_or((docker, docker)) {
            wrong += &format!("{number}: Docker {docker:#x}, ours {our:#x}, the table {told:x?}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Sets only the upper half of the first argument, at which the kernel does not look.
const HIGH: u64 = 1 << 40;

#[test]
fn arguments_decide_where_the_kernel_looks_at_them() {
    let ours = compile(&dockers_capabilities(), Arch::X86_64).unwrap();
    let dockers = compile(&profiles::sample("docker-default"), Arch::X86_64).unwrap();
    let namespaces = [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    let mut table = vec![
        // Call, first and second argument, Docker's answer, ours.
        ("clone", 0x11, 0, ALLOWED, ALLOWED),
        ("clone", libc::CLONE_VM as u64 | libc::CLONE_THREAD as u64, 0, ALLOWED, ALLOWED),
        ("unshare", libc::CLONE_FILES as u64 | libc::CLONE_FS as u64, 0, DENIED, ALLOWED),
        ("unshare", 0x80, 0, DENIED, DENIED),
        ("personality", 0, 0, ALLOWED, ALLOWED),
        ("personality", 0x2_0008, 0, ALLOWED, ALLOWED),
        ("personality", 0xffff_ffff, 0, ALLOWED, ALLOWED),
        ("personality", u64::MAX, 0, DENIED, ALLOWED),
        // Debuggers and sanitizers turn off the randomization of their own child.
        ("personality", 0x4_0000, 0, DENIED, ALLOWED),
        ("personality", 0x4_0008, 0, DENIED, ALLOWED),
        ("personality", 0x40_0000, 0, DENIED, DENIED),
        ("personality", 0x10_0000, 0, DENIED, DENIED),
        ("socket", 1, 0, ALLOWED, ALLOWED),
        ("socket", 2, 0, ALLOWED, ALLOWED),
        ("socket", 10, 0, ALLOWED, ALLOWED),
        ("socket", 16, 0, ALLOWED, ALLOWED),
        ("socket", 17, 0, ALLOWED, ALLOWED),
        ("socket", HIGH | 2, 0, ALLOWED, ALLOWED),
        ("socket", 40, 0, DENIED, NO_FAMILY),
        // Docker compares 64 bits, and lets this vsock through.
        ("socket", HIGH | 40, 0, ALLOWED, NO_FAMILY),
        ("socketpair", 1, 0, ALLOWED, ALLOWED),
        ("socketpair", 30, 0, ALLOWED, NO_FAMILY),
        ("ioctl", 1, 0x5401, ALLOWED, ALLOWED),
        ("ioctl", 1, 0x5413, ALLOWED, ALLOWED),
        ("ioctl", 1, 0x5412, ALLOWED, DENIED),
        ("ioctl", 1, HIGH | 0x5412, ALLOWED, DENIED),
        ("ioctl", u64::MAX, 0x541c, ALLOWED, DENIED),
        ("ioctl", u64::MAX, u64::MAX, ALLOWED, ALLOWED),
    ];
    for flag in namespaces {
        table.push(("clone", flag | 0x11, 0, DENIED, DENIED));
        table.push(("unshare", flag, 0, DENIED, DENIED));
    }
    // Amateur radio, IPX, X.25, RDS, PPP, CAN, TIPC, Bluetooth, RxRPC, ALG, NFC, KCM, XDP, MCTP: what modules have that
    // the kernel loads for whoever asks, and what had errors that gave root.
    for family in [3, 4, 9, 21, 24, 29, 30, 31, 33, 38, 39, 41, 44, 45] {
        table.push(("socket", family, 0, ALLOWED, NO_FAMILY));
    }
    for (call, first, second, docker, our) in table {
        let args = [first, second, 0, 0, 0, 0];
        assert_eq!(answer(&ours, call, args), our, "{call} {first:#x} {second:#x}");
        assert_eq!(answer(&dockers, call, args), docker, "{call} {first:#x} {second:#x}, by Docker's");
    }
}

#[test]
fn each_capability_opens_what_the_kernel_asks_it_for() {
    let none = compile(&with(&[], "amd64"), Arch::X86_64).unwrap();
    for (capabilities, calls) in [
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYS_CHROOT", "chroot"),
        (
            "SYS_ADMIN",
            "mount umount2 pivot_root setns open_tree move_mount fsopen fsmount fsconfig fspick mount_setattr \
             open_tree_attr sethostname setdomainname quotactl quotactl_fd fanotify_init fanotify_mark",
        ),
        ("BPF SYS_ADMIN", "bpf"),
        ("PERFMON SYS_ADMIN", "perf_event_open"),
        ("SYSLOG", "syslog"),
        ("SYS_BOOT", "reboot"),
        ("SYS_MODULE", "init_module finit_module delete_module"),
        ("SYS_NICE", "mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages"),
        ("SYS_PACCT", "acct"),
        ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise userfaultfd"),
        ("SYS_RAWIO", "iopl ioperm"),
        ("SYS_TIME", "settimeofday clock_settime"),
        ("SYS_TTY_CONFIG", "vhangup"),
    ] {
        for capability in capabilities.split(' ') {
            let has = compile(&with(&[&format!("CAP_{capability}")], "amd64"), Arch::X86_64).unwrap();
            for call in calls.split_whitespace() {
                assert_eq!(answer(&none, call, [0; 6]), DENIED, "{call} without a capability");
                assert_eq!(answer(&has, call, [0; 6]), ALLOWED, "{call} with CAP_{capability}");
            }
        }
    }
    let administrator = compile(&with(&["CAP_SYS_ADMIN"], "amd64"), Arch::X86_64).unwrap();
    for (call, args) in [
        ("clone", [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]),
        ("unshare", [libc::CLONE_NEWNS as u64, 0, 0, 0, 0, 0]),
        ("clone3", [0; 6]),
        ("ioctl", [0, 0x5412, 0, 0, 0, 0]),
    ] {
        assert_eq!(answer(&administrator, call, args), ALLOWED, "{call}");
    }
    assert_eq!(answer(&none, "clone3", [0; 6]), UNKNOWN);
    assert_eq!(answer(&none, "socket", [17, 0, 0, 0, 0, 0]), NO_FAMILY);
    for call in
        "add_key keyctl request_key kexec_load kexec_file_load swapon swapoff io_uring_setup io_uring_enter \
                 io_uring_register"
            .split_whitespace()
    {
        assert_eq!(answer(&administrator, call, [0; 6]), DENIED, "{call}");
    }
}

/// A 32-bit x86 program says the family in memory.
#[test]
fn only_a_32_bit_image_has_the_call_that_hides_the_family() {
    const I386: u32 = 0x4000_0003;
    const SOCKETCALL: u32 = 102;
    const SOCKET: u32 = 359;
    for (architecture, socketcall) in [("amd64", DENIED), ("386", ALLOWED)] {
        let filter = compile(&with(&DOCKERS, architecture), Arch::X86_64).unwrap();
        let run = |number, first| {
            let data = Data { number, arch: I386, big_endian: false, args: [first, 0, 0, 0, 0, 0] };
            machine::run(&filter.program, &data).unwrap()
        };
        // SYS_SOCKET, SYS_CONNECT, SYS_SOCKETPAIR
        assert_eq!([1, 3, 8].map(|call| run(SOCKETCALL, call)), [socketcall; 3], "{architecture}");
        assert_eq!([2, 38].map(|family| run(SOCKET, family)), [ALLOWED, NO_FAMILY], "{architecture}");
    }
}

#[test]
fn the_kernel_answers_what_the_profile_says() {
    let native = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };
    let filter = compile(&dockers_capabilities(), native).unwrap();
    let calls = [
        (libc::SYS_getpid, 0),
        (libc::SYS_mount, 0),
        (libc::SYS_bpf, 0),
        (libc::SYS_io_uring_setup, 1),
        (libc::SYS_keyctl, 0),
        (libc::SYS_unshare, libc::CLONE_NEWUSER as u64),
        (libc::SYS_unshare, libc::CLONE_FILES as u64),
        (libc::SYS_personality, 0x40_0000),
        (libc::SYS_socket, 38),
        (libc::SYS_socket, HIGH | 38),
        (libc::SYS_clone3, 0),
        // No kernel has it yet.
        (9999, 0),
    ];
    use libc::{EAFNOSUPPORT, ENOSYS, EPERM};
    assert_eq!(
        under_filter(&filter, &calls),
        Ok(vec![
            0,
            0,
            EPERM,
            EPERM,
            EPERM,
            EPERM,
            EPERM,
            0,
            EPERM,
            EAFNOSUPPORT,
            EAFNOSUPPORT,
            ENOSYS,
            ENOSYS
        ])
    );
}
