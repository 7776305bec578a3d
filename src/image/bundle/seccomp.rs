//! The seccomp profile of a container whose image says nothing of one, and nobody else does: an allow-list in groups of
//! one purpose, and what each capability opens. Pure. docs/adr/0012 has the reasons.
//!
//! What is refused, and how:
//!
//! - ENOSYS, the default: calls that are not named, among them all that are newer than this table. Programs fall back,
//!   as on a kernel that lacks them. So clone3 is refused: its flags lie in memory, where no filter sees them, and glibc
//!   and musl then use clone.
//! - EPERM: calls that a capability opens which the container lacks, so that it hears what the kernel would say, and
//!   what is open to nobody (`NEVER`).
//! - EAFNOSUPPORT: families of sockets, as from a kernel without their modules.
//!
//! Where the kernel looks at 32 bits of an argument, so do the rules: the upper half may hold anything.

mod given;

use serde_json::Value;

use super::defaults;
use crate::error::Result;

/// linux.seccomp of a profile that a person gives, in Docker's format or the spec's, for a container of an image under a
/// kernel of `release`.
pub fn given(text: &[u8], release: &str) -> Result<Value> {
    given::given(text, &defaults::CAPABILITIES, release)
}

/// Names of calls as JSON has them: strings, a comma between two. Made by the compiler of words with a space between two: at a
/// start nothing is left to do but to copy them.
#[derive(Clone, Copy)]
struct Names(&'static str);

macro_rules! names {
    ($words:expr) => {{
        const JSON: [u8; size_of_json($words)] = json($words);
        const TEXT: &str = match str::from_utf8(&JSON) {
            Ok(text) => text,
            Err(_) => panic!("the words are UTF-8"),
        };
        Names(TEXT)
    }};
}

const fn size_of_json(words: &str) -> usize {
    let mut size = words.len() + 2;
    let mut i = 0;
    while i < words.len() {
        if words.as_bytes()[i] == b' ' {
            size += 2;
        }
        i += 1;
    }
    size
}

/// None of the words has a character that JSON says in another way.
const fn json<const SIZE: usize>(words: &str) -> [u8; SIZE] {
    let mut json = [b'"'; SIZE];
    let (mut from, mut to) = (0, 1);
    while from < words.len() {
        match words.as_bytes()[from] {
            b' ' => {
                json[to + 1] = b',';
                to += 3;
            }
            letter => {
                assert!(letter.is_ascii_alphanumeric() || letter == b'_');
                json[to] = letter;
                to += 1;
            }
        }
        from += 1;
    }
    json
}

/// Grouped by what it is for; a call that some architecture lacks has no effect there.
const ALLOWED: [Names; 11] = [
    // Files by path.
    names!(
        "\
     access chdir chmod chown chown32 creat faccessat faccessat2 fchmodat fchmodat2 fchownat file_getattr \
     file_setattr fstatat64 futimesat getcwd getxattr getxattrat lchown lchown32 lgetxattr link linkat \
     listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat \
     name_to_handle_at newfstatat open openat openat2 readlink readlinkat removexattr removexattrat rename \
     renameat renameat2 rmdir setxattr setxattrat stat stat64 statfs statfs64 statx symlink symlinkat \
     truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes"
    ),
    // Open files and pipes.
    names!(
        "\
     _llseek arm_fadvise64_64 arm_sync_file_range cachestat close close_range copy_file_range dup dup2 dup3 \
     fadvise64 fadvise64_64 fallocate fchdir fchmod fchown fchown32 fcntl fcntl64 fdatasync fgetxattr \
     flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 \
     getdents getdents64 lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead \
     readv sendfile sendfile64 splice sync sync_file_range sync_file_range2 syncfs tee vmsplice write writev"
    ),
    // Waiting for files; the older of the two asynchronous interfaces.
    names!(
        "\
     _newselect epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 \
     inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents \
     io_pgetevents io_pgetevents_time64 io_setup io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 \
     select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
     timerfd_settime64"
    ),
    // What /proc/self/mountinfo and /proc/self/attr tell and take, too.
    names!("listmount lsm_get_self_attr lsm_list_modules lsm_set_self_attr statmount"),
    // A process's own memory.
    names!(
        "\
     brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
     mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
     remap_file_pages"
    ),
    // Processes and threads. The kernel lets a process trace only what it could be itself, and since 4.8 a tracer does
    // not get around a filter. The breakpoints of a machine's own tracers call uprobe and uretprobe.
    names!(
        "\
     arch_prctl breakpoint cacheflush execve execveat exit exit_group fork get_robust_list get_thread_area \
     getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get \
     ioprio_set modify_ldt pidfd_open prctl prlimit64 process_mrelease process_vm_readv process_vm_writev \
     ptrace restart_syscall rseq sched_get_priority_max sched_get_priority_min sched_getaffinity \
     sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
     sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield set_robust_list \
     set_thread_area set_tid_address set_tls setpgid setpriority setrlimit setsid ugetrlimit uprobe \
     uretprobe vfork wait4 waitid waitpid"
    ),
    // Users, groups, capabilities, and giving rights away.
    names!(
        "\
     capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid \
     getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset \
     landlock_restrict_self seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
     setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid \
     setuid32"
    ),
    // Signals and futexes.
    names!(
        "\
     futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake kill pause pidfd_send_signal \
     rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill"
    ),
    // Time, which adjtimex and clock_adjtime without a capability only read; names and numbers of the machine.
    names!(
        "\
     adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer getrandom gettimeofday nanosleep \
     setitimer sysinfo time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
     timer_settime timer_settime64 times uname"
    ),
    // Sockets, once there is one.
    names!(
        "\
     accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
     recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown"
    ),
    // System V's and POSIX's messages, semaphores and shared memory.
    names!(
        "\
     ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
     semtimedop_time64 shmat shmctl shmdt shmget"
    ),
];

/// One of the capabilities opens the calls: those that the kernel asks for.
const OPENED: [(&[&str], Names); 14] = [
    (&["CAP_DAC_READ_SEARCH"], names!("open_by_handle_at")),
    (&["CAP_SYS_CHROOT"], names!("chroot")),
    (
        &["CAP_SYS_ADMIN"],
        names!(
            "\
         fanotify_init fanotify_mark fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree \
         open_tree_attr pivot_root quotactl quotactl_fd setdomainname sethostname setns umount umount2"
        ),
    ),
    (&["CAP_BPF", "CAP_SYS_ADMIN"], names!("bpf")),
    (&["CAP_PERFMON", "CAP_SYS_ADMIN"], names!("perf_event_open")),
    (&["CAP_SYSLOG"], names!("syslog")),
    (&["CAP_SYS_BOOT"], names!("reboot")),
    (&["CAP_SYS_MODULE"], names!("delete_module finit_module init_module")),
    (
        &["CAP_SYS_NICE"],
        names!(
            "\
         get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node"
        ),
    ),
    (&["CAP_SYS_PACCT"], names!("acct")),
    (&["CAP_SYS_PTRACE"], names!("kcmp pidfd_getfd process_madvise userfaultfd")),
    (&["CAP_SYS_RAWIO"], names!("ioperm iopl")),
    (&["CAP_SYS_TIME"], names!("clock_settime clock_settime64 settimeofday stime")),
    (&["CAP_SYS_TTY_CONFIG"], names!("vhangup")),
];

/// Machine-wide, whoever asks: kernels, swap, keyrings that no namespace holds. io_uring makes calls that no filter sees.
const NEVER: Names = names!(
    "\
    add_key io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load keyctl request_key \
    swapoff swapon"
);

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// CLONE_NEWTIME, for unshare. With clone this bit belongs to the signal.
const NEW_TIME: u64 = 0x80;
const INT: u64 = 0xffff_ffff;

/// PER_LINUX (nothing) and PER_LINUX32 (8), with UNAME26 and ADDR_NO_RANDOMIZE or without. Others make memory executable
/// or map page 0.
const PERSONALITIES: u64 = 8 | 0x2_0000 | 0x4_0000;

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
/// Wants CAP_NET_RAW.
const AF_PACKET: u64 = 17;

/// Types into another process's terminal, and pastes into a console.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

const EPERM: u64 = 1;
const ENOSYS: u64 = 38;
const EAFNOSUPPORT: u64 = 97;

/// A rule of the profile.
struct Rule {
    /// Of calls.
    calls: Vec<Names>,
    /// What the call gives; `None` where it is allowed.
    errno: Option<u64>,
    /// When.
    condition: Option<Condition>,
}

/// Of an argument.
#[derive(Clone, Copy)]
enum Condition {
    /// These bits of it are these.
    Masked { index: u64, mask: u64, value: u64 },
    /// Holds always, and is tried last: conditions on later arguments and equalities come before it in every runtime.
    Always,
}

/// linux.seccomp for a container with `capabilities` on this machine. `architecture` is the image's, in Go's word.
pub fn profile(capabilities: &[&str], architecture: &str) -> Value {
    serde_json::from_str(&text(capabilities, architecture)).expect("the profile is JSON")
}

/// The same as config.json has it. Not made as a [`Value`], of a string for each of 400 calls: that would take longer than
/// all else of a config.json.
pub(super) fn text(capabilities: &[&str], architecture: &str) -> String {
    let mut text = String::with_capacity(TEXT_SIZE);
    text.push_str("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":");
    text.push_str(&ENOSYS.to_string());
    text.push_str(",\"architectures\":[");
    list(&mut text, architectures());
    text.push_str("],\"syscalls\":[");
    for (i, rule) in rules(capabilities, architecture).iter().enumerate() {
        text.push_str(if i == 0 { "" } else { "," });
        rule.write(&mut text);
    }
    text.push_str("]}");
    text
}

/// More than it has.
const TEXT_SIZE: usize = 12 << 10;

fn rules(capabilities: &[&str], architecture: &str) -> Vec<Rule> {
    let has = |any: &[&str]| any.iter().any(|name| capabilities.contains(name));
    let mut allowed = ALLOWED.to_vec();
    let mut denied = vec![NEVER];
    for (opened_by, calls) in OPENED {
        if has(opened_by) { &mut allowed } else { &mut denied }.push(calls);
    }
    let namespaces = has(&["CAP_SYS_ADMIN"]);
    if namespaces {
        allowed.push(names!("clone clone3 ioctl unshare"));
    }
    // A 32-bit x86 program names the family in memory. Where it has this call, it has all families; so only images that
    // are 32-bit have it. It stands first: rules for the calls that it carries then are not rules for it.
    let carrier =
        if architecture == "386" { allow(names!("socketcall")) } else { deny(names!("socketcall"), EPERM) };
    let mut rules = vec![carrier, Rule { calls: allowed, errno: None, condition: None }];

    if !namespaces {
        rules.extend(only(names!("clone"), &[masked(0, NEW_NAMESPACES, 0)], EPERM));
        rules.extend(only(names!("unshare"), &[masked(0, NEW_NAMESPACES | NEW_TIME, 0)], EPERM));
        for request in [TIOCSTI, TIOCLINUX] {
            rules.push(deny(names!("ioctl"), EPERM).when(masked(1, INT, request)));
        }
        rules.push(allow(names!("ioctl")).when(Condition::Always));
    }
    // The second one only asks.
    let personalities = [masked(0, INT & !PERSONALITIES, 0), masked(0, INT, INT)];
    rules.extend(only(names!("personality"), &personalities, EPERM));
    let mut families = vec![AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];
    families.extend(has(&["CAP_NET_RAW"]).then_some(AF_PACKET));
    let families: Vec<Condition> = families.into_iter().map(|family| masked(0, INT, family)).collect();
    rules.extend(only(names!("socket"), &families, EAFNOSUPPORT));
    rules.extend(only(names!("socketpair"), &[masked(0, INT, AF_UNIX)], EAFNOSUPPORT));
    rules.push(Rule { calls: denied, errno: Some(EPERM), condition: None });
    rules
}

/// Those that this machine's kernel executes.
fn architectures() -> &'static [Names] {
    match std::env::consts::ARCH {
        "x86_64" => &[names!("SCMP_ARCH_X86_64 SCMP_ARCH_X86 SCMP_ARCH_X32")],
        "aarch64" => &[names!("SCMP_ARCH_AARCH64 SCMP_ARCH_ARM")],
        _ => &[],
    }
}

fn allow(call: Names) -> Rule {
    Rule { calls: vec![call], errno: None, condition: None }
}

fn deny(call: Names, errno: u64) -> Rule {
    Rule { calls: vec![call], errno: Some(errno), condition: None }
}

/// `call` is allowed where one of `conditions` holds, and gets `errno` elsewhere.
fn only(call: Names, conditions: &[Condition], errno: u64) -> Vec<Rule> {
    let allowed = conditions.iter().map(|condition| allow(call).when(*condition));
    allowed.chain([deny(call, errno).when(Condition::Always)]).collect()
}

fn masked(index: u64, mask: u64, value: u64) -> Condition {
    Condition::Masked { index, mask, value }
}

fn list(text: &mut String, groups: &[Names]) {
    for (i, Names(names)) in groups.iter().enumerate() {
        text.push_str(if i == 0 { "" } else { "," });
        text.push_str(names);
    }
}

impl Rule {
    fn when(self, condition: Condition) -> Rule {
        Rule { condition: Some(condition), ..self }
    }

    fn write(&self, text: &mut String) {
        text.push_str("{\"names\":[");
        list(text, &self.calls);
        text.push_str(match self.errno {
            None => "],\"action\":\"SCMP_ACT_ALLOW\"",
            Some(_) => "],\"action\":\"SCMP_ACT_ERRNO\"",
        });
        if let Some(errno) = self.errno {
            text.push_str(&format!(",\"errnoRet\":{errno}"));
        }
        let condition = self.condition.map(|condition| match condition {
            Condition::Masked { index, mask, value } => format!(
                "{{\"index\":{index},\"value\":{mask},\"valueTwo\":{value},\"op\":\"SCMP_CMP_MASKED_EQ\"}}"
            ),
            Condition::Always => "{\"index\":0,\"value\":0,\"op\":\"SCMP_CMP_GE\"}".to_string(),
        });
        if let Some(condition) = condition {
            text.push_str(&format!(",\"args\":[{condition}]"));
        }
        text.push('}');
    }
}
