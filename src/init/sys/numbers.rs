//! System call numbers and the open flags that differ between architectures.

macro_rules! numbers {
    ($($name:ident $x86_64:literal $aarch64:literal,)*) => {
        $(
            #[cfg(target_arch = "x86_64")]
            #[doc = concat!("Number of ", stringify!($name), " on this architecture.")]
            pub const $name: u16 = $x86_64;
            #[cfg(target_arch = "aarch64")]
            #[doc = concat!("Number of ", stringify!($name), " on this architecture.")]
            pub const $name: u16 = $aarch64;
        )*
    };
}

numbers! {
    READ 0 63,
    WRITE 1 64,
    CLOSE 3 57,
    MMAP 9 222,
    RT_SIGACTION 13 134,
    RT_SIGPROCMASK 14 135,
    IOCTL 16 29,
    SENDFILE 40 71,
    SOCKET 41 198,
    SENDTO 44 206,
    RECVFROM 45 207,
    RECVMSG 47 212,
    SENDMSG 46 211,
    CLONE 56 220,
    EXECVE 59 221,
    GETCWD 79 17,
    CHDIR 80 49,
    FCHDIR 81 50,
    FCHMOD 91 52,
    UMASK 95 166,
    SETSID 112 157,
    SETGROUPS 116 159,
    SETRESUID 117 147,
    SETRESGID 119 149,
    CAPGET 125 90,
    CAPSET 126 91,
    PERSONALITY 135 92,
    FSTATFS 138 44,
    PIVOT_ROOT 155 41,
    PRCTL 157 167,
    CHROOT 161 51,
    UMOUNT2 166 39,
    SETHOSTNAME 170 161,
    SETDOMAINNAME 171 162,
    GETDENTS64 217 61,
    CLOCK_GETTIME 228 113,
    EXIT_GROUP 231 94,
    SET_MEMPOLICY 238 237,
    KEYCTL 250 219,
    IOPRIO_SET 251 30,
    OPENAT 257 56,
    MKDIRAT 258 34,
    MKNODAT 259 33,
    FCHOWNAT 260 54,
    UNLINKAT 263 35,
    SYMLINKAT 266 36,
    READLINKAT 267 78,
    FCHMODAT 268 53,
    UNSHARE 272 97,
    UTIMENSAT 280 88,
    ACCEPT4 288 242,
    DUP3 292 24,
    PRLIMIT64 302 261,
    SETNS 308 268,
    SCHED_SETATTR 314 274,
    SECCOMP 317 277,
    STATX 332 291,
    OPEN_TREE 428 428,
    MOVE_MOUNT 429 429,
    FSOPEN 430 430,
    FSCONFIG 431 431,
    FSMOUNT 432 432,
    CLOSE_RANGE 436 436,
    OPENAT2 437 437,
    FACCESSAT2 439 439,
    MOUNT_SETATTR 442 442,
    LANDLOCK_CREATE_RULESET 444 444,
    LANDLOCK_ADD_RULE 445 445,
    LANDLOCK_RESTRICT_SELF 446 446,
    FCHMODAT2 452 452,
}

/// Open for reading.
pub const O_RDONLY: u64 = 0;
/// Open for writing.
pub const O_WRONLY: u64 = 1;
/// Open for both.
pub const O_RDWR: u64 = 2;
/// Create.
pub const O_CREAT: u64 = 0o100;
/// Fail if it exists.
pub const O_EXCL: u64 = 0o200;
/// Do not make it the controlling terminal.
pub const O_NOCTTY: u64 = 0o400;
/// Do not wait, as for the other end of a FIFO.
pub const O_NONBLOCK: u64 = 0o4000;
/// Close on exec.
pub const O_CLOEXEC: u64 = 0o2000000;
/// Only name the file.
pub const O_PATH: u64 = 0o10000000;
/// Fail unless it is a directory.
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: u64 = 0o200000;
/// Fail unless it is a directory.
#[cfg(target_arch = "aarch64")]
pub const O_DIRECTORY: u64 = 0o40000;
/// Do not follow a symbolic link at the end.
#[cfg(target_arch = "x86_64")]
pub const O_NOFOLLOW: u64 = 0o400000;
/// Do not follow a symbolic link at the end.
#[cfg(target_arch = "aarch64")]
pub const O_NOFOLLOW: u64 = 0o100000;
