//! The vocabulary of a container start: steps, slots, records, and how they are laid out in the
//! sealed memory that rcrun-init maps. Pure data: no fd, pid or time. Uses serde and postcard only.
//!
//! `Step` is generic over its text: the compiler writes `Step<Text>` (owning), init reads
//! `Step<&str>`-like borrowed text that ends with NUL, so that it can be handed to the kernel as it lies.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod image;
pub mod record;
pub mod text;

use serde::{Deserialize, Serialize};

/// The number of something that `prepare` opens in the parent; what it is stands in the parent's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

/// A path below the container's root: relative, no `.` and no `..`, never empty but for the root itself.
/// It is only ever resolved with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InRoot<S>(pub S);

/// How many mounts `Step::Keep` can keep.
pub const MOST_KEPT: u8 = 32;

/// Where a path lies that leads into a mount of the plan's own. It is looked for there first, whatever was renamed above
/// the mount meanwhile: another mount namespace may rename a directory that is mounted on in this one (rename(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// The number of a kept mount.
    pub mount: u8,
    /// Where in the path its part below that mount begins.
    pub from: u16,
}

/// How many memory nodes a policy can name: MAX_NUMNODES of the kernel is at most this.
pub const MOST_NODES: usize = 1024;

/// What sched_setattr(2) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_* bits.
    pub flags: u32,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE: nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE: nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE: nanoseconds.
    pub period: u64,
}

impl Scheduler {
    /// struct sched_attr, as it has been since Linux 5.3, in words of a little-endian machine: 56 bytes, of which the last
    /// are clamps of the utilization.
    pub fn attr(&self) -> [u64; 7] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let size = size_of::<[u64; 7]>() as u32;
        let nice = self.nice.cast_unsigned();
        [
            pair(size, self.policy),
            u64::from(self.flags),
            pair(nice, self.priority),
            self.runtime,
            self.deadline,
            self.period,
            0,
        ]
    }
}

/// One thing that init does. Steps work on a few registers: *root* (the container's root), *mount*
/// (the mount being made), *proc* (a private procfs), *parent* (the socket to the process that waits).
///
/// Each line names what in the kernel forces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step<S> {
    /// setns(2) into the namespace, or with a pidfd the namespaces, in `slot`. `kinds` is a CLONE_NEW* mask.
    Join {
        /// A namespace file, or a pidfd (Linux 5.8).
        slot: Slot,
        /// CLONE_NEW* bits.
        kinds: u32,
    },
    /// unshare(2). A cgroup namespace is made here and not by clone: its root is the cgroup of the process
    /// that makes it, and CLONE_INTO_CGROUP moves the child only after its namespaces are copied.
    Unshare {
        /// CLONE_NEW* bits.
        kinds: u32,
    },
    /// Tell the parent that it is at a barrier and wait for its answer: user_namespaces(7) wants the maps
    /// written from outside; hooks run outside too.
    Wait {
        /// What the parent does meanwhile.
        barrier: Barrier,
    },
    /// setresgid(0), setresuid(0) in a new user namespace, then empty inheritable and ambient sets: they were
    /// raised only to keep the capabilities over the exec of init with an unmapped uid (capabilities(7)).
    BecomeRoot,
    /// Fail unless the mount namespace differs from the one in `host`: nothing may be mounted on the machine.
    CheckMountNamespace {
        /// The parent's mount namespace.
        host: Slot,
    },
    /// mount_setattr("/", AT_RECURSIVE) of propagation: what is mounted here must not reach the machine.
    SetPropagation {
        /// MS_SLAVE, MS_PRIVATE ...
        propagation: u64,
    },
    /// *root* := the detached tree in `slot`, attached on `path` (pivot_root(2) wants a mount, and nothing can be mounted
    /// on a detached tree). createRuntime and createContainer hooks look for the mounts under the bundle's root.path, so it
    /// lies there; on `/` where a user namespace may not search that path (EACCES).
    AttachRoot {
        /// Tree made by open_tree(OPEN_TREE_CLONE).
        slot: Slot,
        /// The root's absolute path on the machine.
        path: S,
    },
    /// *root* := the directory in `slot`, not mounted: for containers without a mount namespace.
    UseRoot {
        /// An O_PATH directory.
        slot: Slot,
    },
    /// *root* := `/` of the mount namespace that was joined.
    JoinedRoot,
    /// Ask the parent for the trees of `count` slots from `first` on, which it clones now: since Linux 6.8 mountinfo lists
    /// mounts by their age, and those of config.json must be listed in their order.
    Receive {
        /// The first slot.
        first: Slot,
        /// How many.
        count: u16,
    },
    /// mkdir -p below *root*; what is there stays as it is.
    Directory {
        /// Which.
        path: InRoot<S>,
        /// Mode of the directories that are made.
        mode: u32,
    },
    /// What a bind mount is put on: a directory or an empty file, as the tree in `like` is one or the other.
    MountPoint {
        /// Where.
        path: InRoot<S>,
        /// The tree to be mounted.
        like: Slot,
    },
    /// An empty file to mount on, with the directories above it.
    File {
        /// Which.
        path: InRoot<S>,
    },
    /// fsopen(2) of a new file system.
    FsOpen {
        /// File system type.
        kind: S,
    },
    /// fsconfig(2) with a string.
    FsString {
        /// Key.
        key: S,
        /// Value.
        value: S,
    },
    /// fsconfig(2) with a flag.
    FsFlag {
        /// Key.
        key: S,
    },
    /// *mount* := fsmount(2) of the file system that is configured now.
    FsMount {
        /// MOUNT_ATTR_* bits.
        attributes: u32,
    },
    /// *mount* := the detached tree in `slot`.
    Tree {
        /// Tree made by open_tree(OPEN_TREE_CLONE).
        slot: Slot,
    },
    /// *mount* := a clone of what lies at `path` below *root*.
    Clone {
        /// Which.
        path: InRoot<S>,
        /// With all mounts below it.
        recursive: bool,
    },
    /// *mount* := the mount that *root* is.
    Root,
    /// *mount* := the mount whose root lies at `path` below *root*: what has to wait until all is made, such as
    /// read-only.
    MountedAt {
        /// Which.
        path: InRoot<S>,
    },
    /// mount_setattr(2) on *mount*.
    Attributes {
        /// MOUNT_ATTR_* bits to set.
        set: u64,
        /// MOUNT_ATTR_* bits to clear first.
        clear: u64,
        /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE, or 0 to leave it.
        propagation: u64,
        /// The mounts below as well.
        recursive: bool,
    },
    /// tmpcopyup: copy what lies at `path` below *root* into *mount*, with modes, owners, times and links; nothing where
    /// there is nothing.
    CopyUp {
        /// Which directory.
        path: InRoot<S>,
    },
    /// Give the root of *mount* the mode of the directory at `path`: runc's rule for a tmpfs without mode= over a directory
    /// that exists. Nothing where there is nothing.
    InheritMode {
        /// Which directory.
        path: InRoot<S>,
    },
    /// move_mount(2) of *mount* onto `path`.
    Attach {
        /// Where.
        path: InRoot<S>,
        /// No component may be a symlink: /proc and /sys (CVE-2023-27561).
        plain: bool,
    },
    /// Keep *mount* under a number, for paths `Within` it.
    Keep {
        /// The number, less than `MOST_KEPT`.
        number: u8,
    },
    /// Hide `path`: an empty read-only tmpfs over a directory, /dev/null over anything else; nothing where there is
    /// nothing. The tmpfs and the null device are mounted once and cloned afterwards (a superblock per mask is slow).
    Mask {
        /// What to hide.
        path: InRoot<S>,
        /// The mount that it lies in, if the plan has made one.
        within: Option<Within>,
        /// A detached clone of the machine's /dev/null, checked to be 1:3.
        null: Slot,
    },
    /// Bind `path` onto itself, read-only with all below; nothing where there is nothing.
    ReadOnly {
        /// Which.
        path: InRoot<S>,
        /// The mount that it lies in, if the plan has made one.
        within: Option<Within>,
    },
    /// mknodat(2), then owner and mode; an equal node that exists is taken over.
    Node {
        /// Where.
        path: InRoot<S>,
        /// S_IFCHR, S_IFBLK or S_IFIFO with the permission bits.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Owner, inside the user namespace.
        uid: u32,
        /// Group, inside the user namespace.
        gid: u32,
    },
    /// symlinkat(2).
    Symlink {
        /// What the link says.
        target: S,
        /// Where it lies.
        path: InRoot<S>,
        /// Remove a file that is in the way (an image's /dev/ptmx); else what exists stays.
        replace: bool,
    },
    /// fchdir(*root*), pivot_root(".", "."), umount2(".", MNT_DETACH): pivot_root(2), the last example in NOTES.
    Pivot,
    /// fchdir(*root*), chroot("."): without a mount namespace.
    Chroot,
    /// umount2(2) with MNT_DETACH of what is mounted at `path` of the machine; where it is locked, an empty directory is
    /// put over it. With --no-pivot the machine's mounts stay in the namespace, and where a procfs or sysfs is seen
    /// whole, the kernel lets a user namespace mount another without masks (mnt_already_visible in fs/namespace.c).
    Detach {
        /// An absolute path on the machine.
        path: S,
    },
    /// fchdir(*root*), move_mount of it onto `/`, chroot("."): --no-pivot, for a root on a ramdisk, which cannot be pivoted.
    MoveRoot,
    /// Bring up `lo`: a new network namespace has it down.
    Loopback,
    /// sethostname(2).
    Hostname {
        /// The name.
        name: S,
    },
    /// setdomainname(2).
    Domainname {
        /// The name.
        name: S,
    },
    /// *proc* := a detached procfs of our own: nobody else can mount over it or move it.
    PrivateProc,
    /// Write `value` to sys/`path` in *proc*.
    Sysctl {
        /// `net/ipv4/ip_forward`.
        path: S,
        /// What to write.
        value: S,
    },
    /// Open `ptmx` below *root*, check that it is 5:2 on a devpts, send it to the parent, and make its peer (TIOCGPTPEER)
    /// stdin, stdout and stderr.
    Terminal {
        /// `dev/pts/ptmx`.
        ptmx: InRoot<S>,
        /// Bind the peer onto /dev/console.
        console: bool,
        /// Characters a line; 0 leaves the kernel's.
        columns: u16,
        /// Lines.
        rows: u16,
        /// Owner of the terminal.
        uid: u32,
    },
    /// setsid(2).
    Session {
        /// stdin becomes the controlling terminal (TIOCSCTTY).
        controlling: bool,
    },
    /// fork: the plan goes on in a sibling (CLONE_PARENT), a child of *parent*, in the pid namespace that was joined for
    /// children; this process tells its pid and exits. Before this step nothing inside can see or trace init: with `exec` it
    /// comes when init has no more privilege than the payload.
    Fork,
    /// Wait for the word of *parent*, which sets from outside what fork does not carry over: SCHED_DEADLINE forks only with
    /// SCHED_FLAG_RESET_ON_FORK, and with that flag the child has the default policy.
    AwaitScheduler,
    /// keyctl(KEYCTL_JOIN_SESSION_KEYRING): else keys of the machine's session are seen inside.
    Keyring {
        /// Name of the new keyring.
        name: S,
    },
    /// umask(2).
    Umask {
        /// The mask.
        mask: u32,
    },
    /// setrlimit(2).
    Rlimit {
        /// RLIMIT_*.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// personality(2): the execution domain, which execve(2) keeps.
    Personality {
        /// PER_*.
        domain: u32,
    },
    /// sched_setattr(2) of init: raising a priority takes CAP_SYS_NICE, so it comes before the payload's capabilities.
    Scheduler(Scheduler),
    /// ioprio_set(2).
    IoPriority {
        /// The class in the bits from 13 on, the level below.
        value: u32,
        /// Of the process group, which is init's own once it has a session; else of init alone.
        group: bool,
    },
    /// Sets one word of *nodes*, the memory nodes of the `MemoryPolicy` that follows.
    MemoryNodes {
        /// Which word of 64 nodes, less than `MOST_NODES / 64`.
        word: u8,
        /// A bit for each node.
        bits: u64,
    },
    /// set_mempolicy(2) with *nodes*; children and execve(2) keep it.
    MemoryPolicy {
        /// MPOL_* with MPOL_F_* bits.
        mode: u32,
    },
    /// Write `value` to the file self/attr/`name` of the procfs in `proc`: security labels that execve(2) or keyctl(2) give
    /// (apparmor(7), selinux(8)).
    Label {
        /// A procfs that nobody else can reach; it is closed after the step.
        proc: Slot,
        /// `exec`, `keycreate`, `apparmor/exec`.
        name: S,
        /// What to write.
        value: S,
    },
    /// *ruleset* := landlock_create_ruleset(2) (Linux 5.13; network 6.7; scopes 6.12).
    LandlockRules {
        /// LANDLOCK_ACCESS_FS_* that are denied but where a rule allows them.
        files: u64,
        /// LANDLOCK_ACCESS_NET_*.
        ports: u64,
        /// LANDLOCK_SCOPE_*.
        scopes: u64,
    },
    /// landlock_add_rule(2): what may be done at `path` and below it. Of a file, only what can be done to files.
    LandlockPath {
        /// Which.
        path: InRoot<S>,
        /// LANDLOCK_ACCESS_FS_* bits.
        access: u64,
    },
    /// landlock_add_rule(2): what may be done with a TCP port.
    LandlockPort {
        /// Which.
        port: u16,
        /// LANDLOCK_ACCESS_NET_* bits.
        access: u64,
    },
    /// landlock_restrict_self(2) with *ruleset*: it takes no_new_privs or CAP_SYS_ADMIN; children and execve(2) keep it.
    LandlockRestrict,
    /// fchown(2) of stdin, stdout, stderr, but for /dev/null: a process that is not root could not reopen them.
    OwnStdio {
        /// Owner.
        uid: u32,
    },
    /// PR_SET_NO_NEW_PRIVS.
    NoNewPrivileges,
    /// openat2 below *root*, fchdir, and getcwd must lie under the root (CVE-2024-21626). The first of two steps may
    /// fail with EACCES: a directory that only the user can enter.
    ChangeDirectory {
        /// Which.
        path: InRoot<S>,
        /// EACCES is not yet an error.
        early: bool,
    },
    /// PR_CAPBSET_DROP of all but `keep`.
    BoundingSet {
        /// Capabilities to keep, a bit each.
        keep: u64,
        /// The highest capability that the kernel knows.
        last: u32,
    },
    /// PR_SET_KEEPCAPS, setgroups(2) of the plan's groups, setresgid(2), setresuid(2).
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// False where /proc/self/setgroups says deny (user_namespaces(7)), and where an annotation keeps the groups of
        /// whoever called rcrun: those stay.
        groups: bool,
    },
    /// capset(2).
    Capabilities {
        /// Effective set.
        effective: u64,
        /// Permitted set.
        permitted: u64,
        /// Inheritable set.
        inheritable: u64,
    },
    /// PR_CAP_AMBIENT_CLEAR_ALL, then PR_CAP_AMBIENT_RAISE of each.
    Ambient {
        /// The set.
        set: u64,
    },
    /// Find the first candidate of the plan that is a file the user may execute.
    FindExecutable,
    /// All is set up: tell the parent, wait until it has committed the state. Its answer may carry HOME.
    Ready,
    /// accept(2) on the listening socket in `slot` and wait for the word; from now on that connection is *parent*.
    AwaitStart {
        /// A listening SOCK_SEQPACKET socket in the state directory.
        listen: Slot,
    },
    /// seccomp(SECCOMP_SET_MODE_FILTER) with the plan's program. Few system calls may come after it.
    Filter {
        /// SECCOMP_FILTER_FLAG_* bits.
        flags: u32,
    },
    /// Tell *parent* that execve is next, then do it. After end of file on *parent* the payload runs.
    Execute,
    /// Fail unless the mount namespace that was joined differs from the one in `host`. Nothing below `/` is to be believed
    /// there: which namespace it is, a procfs of the parent's tells.
    CheckJoinedMounts {
        /// The parent's mount namespace.
        host: Slot,
        /// A procfs that nobody else can reach.
        proc: Slot,
    },
    /// Tell *parent* the id of *mount* (statx(2), STATX_MNT_ID), by which it is found again whatever was renamed above it.
    TellMount,
    /// umount2(2) with MNT_DETACH of the mount whose root lies at `path` below *root*, if it has this id. umount2 takes paths
    /// only, and one that nobody can lead elsewhere is that of init's own fd in a procfs.
    Unmount {
        /// Which.
        path: InRoot<S>,
        /// Its id; 0 for any, and then no component of the path may be a link.
        id: u64,
        /// A procfs that nobody else can reach.
        proc: Slot,
    },
}

/// What the parent does while init waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u16)]
pub enum Barrier {
    /// Write uid_map, gid_map.
    Maps = 1,
    /// Run prestart and createRuntime hooks.
    RuntimeHooks = 2,
    /// Run createContainer hooks, in the container's namespaces.
    ContainerHooks = 3,
    /// Move network devices into init's network namespace.
    NetDevices = 4,
}

impl Barrier {
    /// From its number in a record.
    pub fn from_number(n: u16) -> Option<Self> {
        [Barrier::Maps, Barrier::RuntimeHooks, Barrier::ContainerHooks, Barrier::NetDevices]
            .into_iter()
            .find(|b| *b as u16 == n)
    }
}
