//! The plan of one start, as the parent holds it: what it does itself, what it opens, and init's steps with the place in
//! config.json that each comes from. Pure data, made by `compile`; `prepare` and `launch` carry it out.

use rcrun_plan::{Scheduler, Slot, Step, text::Text};
use serde::Serialize;
use std::path::PathBuf;

/// A start, compiled.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Namespaces that clone3 makes, CLONE_NEW* bits.
    #[serde(serialize_with = "namespace_names")]
    pub namespaces: u64,
    /// Joined in order by a first child before the other namespaces are made: a user namespace, so that it owns them, and
    /// what cannot be joined from within one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first_joins: Vec<Slot>,
    /// Written from outside when a new user namespace waits for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maps: Option<Maps>,
    /// Lines for timens_offsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offsets: Option<String>,
    /// For /proc/PID/oom_score_adj.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Moved into the container's network namespace when init waits for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<NetDevice>,
    /// Set by the parent when init has forked inside and waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_fork: Option<Scheduler>,
    /// CPUs that the parent runs on when it makes the process: those it starts on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_cpus: Option<String>,
    /// CPUs that the process runs on once it is in its cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_cpus: Option<String>,
    /// What `prepare` opens, by slot number.
    pub slots: Vec<Source>,
    /// What init does, in order.
    pub steps: Vec<Planned>,
    /// The payload's arguments.
    pub args: Vec<String>,
    /// The payload's environment.
    pub env: Vec<String>,
    /// HOME is looked up in the container's /etc/passwd for this uid and added to the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_of: Option<u32>,
    /// Paths to try for the executable.
    pub candidates: Vec<String>,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// The seccomp program, 8 bytes an instruction; printed as their number.
    #[serde(
        serialize_with = "instructions",
        rename = "filterInstructions",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub filter: Vec<u8>,
    /// All trees are cloned in init's own mount namespace, when it asks for them: rcrun may clone none of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub clones_inside: bool,
    /// fds 3 and up that are handed to the payload.
    pub passed_fds: u32,
    /// Where the root of the container that is joined lies on the machine: what is there tells why a program is not executed.
    #[serde(skip)]
    pub joined_root: Option<PathBuf>,
    /// What the user should know, though the plan compiles.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// A step and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// JSON pointer into config.json (`/mounts/3`), or empty for what every container gets.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub origin: String,
    /// The step.
    pub step: Step<Text>,
}

/// The lines of uid_map and gid_map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Maps {
    /// `container host size` lines.
    pub uid: String,
    /// `container host size` lines.
    pub gid: String,
    /// Who writes them, where rcrun itself may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unprivileged: Option<Unprivileged>,
}

/// Whose ids a mount shows: MOUNT_ATTR_IDMAP of mount_setattr(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdMap {
    /// Of a user namespace that is made for it.
    Own {
        /// Its maps.
        maps: Maps,
        /// The mounts below too.
        recursive: bool,
    },
    /// Of the user namespace that the container joins.
    Joined {
        /// Its file.
        path: PathBuf,
        /// The mounts below too.
        recursive: bool,
    },
}

/// A network device that goes into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetDevice {
    /// Its name outside.
    pub name: String,
    /// Its name inside, perhaps a template (`eth%d`).
    pub renamed: String,
}

/// How maps are written by an ordinary user (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unprivileged {
    /// The uids are more than the user's own: newuidmap(1) has to allow them.
    pub newuidmap: bool,
    /// The same for gids and newgidmap(1). Without it, setgroups(2) must be denied before.
    pub newgidmap: bool,
}

/// What a slot is, in words: `prepare` opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The container's root, cloned with all mounts below it, or only opened where there is no mount namespace.
    Root {
        /// Absolute path on the machine.
        path: PathBuf,
        /// Make a detached tree of it.
        clone: bool,
        /// Propagation of the tree: MS_SLAVE or MS_PRIVATE.
        propagation: u64,
    },
    /// The source of a bind mount, cloned.
    Bind {
        /// Path on the machine.
        path: PathBuf,
        /// With all mounts below it.
        recursive: bool,
        /// Propagation that the clone gets before anything is mounted on it; 0 keeps it in the source's peer group.
        propagation: u64,
        /// JSON pointer of the mount.
        origin: String,
        /// Cloned only when init asks for it (`Step::Receive`).
        late: bool,
        /// Its files show other owners.
        #[serde(skip_serializing_if = "Option::is_none")]
        idmap: Option<IdMap>,
    },
    /// A new file system that the parent makes: one whose mount has an id map must belong to a user namespace that owns the
    /// map's, which the container's own is not (without root a map below the container's is made, and the file system in the
    /// container's namespaces); one for a container that runs must not find its paths there.
    FileSystem {
        /// File system type.
        kind: String,
        /// fsconfig(2): keys with their values, and flags.
        options: Vec<(String, Option<String>)>,
        /// MOUNT_ATTR_* bits.
        attributes: u32,
        /// Whose owners its files show.
        #[serde(skip_serializing_if = "Option::is_none")]
        idmap: Option<IdMap>,
        /// JSON pointer of the mount.
        origin: String,
        /// Mounted only when init asks for it (`Step::Receive`).
        late: bool,
    },
    /// The machine's device node `path`, checked to be the character device, cloned for a bind mount.
    Device {
        /// Path on the machine.
        path: PathBuf,
        /// `c` or `b` and its numbers, which the node must have.
        major: u32,
        /// Minor number.
        minor: u32,
        /// It is a block device.
        block: bool,
        /// JSON pointer of the device, or empty.
        origin: String,
    },
    /// The container's part of the cgroup hierarchy, cloned from the machine's mount.
    Cgroup {
        /// Cloned only when init asks for it (`Step::Receive`).
        late: bool,
    },
    /// The namespace file at `path`.
    Namespace {
        /// Path on the machine.
        path: PathBuf,
        /// CLONE_NEW* flag that it must be of.
        #[serde(serialize_with = "namespace_name")]
        kind: i32,
        /// JSON pointer of the namespace.
        origin: String,
    },
    /// The pidfd of the container's init.
    Init,
    /// The root of the container's init, for `exec` into one without a mount namespace.
    InitRoot,
    /// The mount namespace of the machine.
    HostMountNamespace,
    /// A procfs that is mounted nowhere, of this pid namespace: labels are written there.
    Procfs,
    /// The listening socket of `start`.
    Listen,
    /// The folder with the NOTIFY_SOCKET, cloned.
    NotifyFolder,
}

impl Source {
    /// Whether it is a tree, cloned from what is mounted on the machine.
    pub fn is_tree(&self) -> bool {
        matches!(
            self,
            Source::Root { clone: true, .. }
                | Source::Bind { .. }
                | Source::FileSystem { .. }
                | Source::Device { .. }
                | Source::Cgroup { .. }
                | Source::NotifyFolder
        )
    }

    /// The CLONE_NEW* flag of a namespace slot.
    pub fn namespace_kind(&self) -> Option<i32> {
        match self {
            Source::Namespace { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

impl Plan {
    /// Whether the tree of this slot is cloned only when init asks for it.
    pub fn is_late(&self, source: &Source) -> bool {
        self.clones_inside && source.is_tree()
            || matches!(
                source,
                Source::Bind { late: true, .. }
                    | Source::FileSystem { late: true, .. }
                    | Source::Cgroup { late: true }
            )
    }

    /// How many times init asks for something, or becomes another process, before it is ready.
    pub fn questions(&self) -> usize {
        let asks = |step: &Step<Text>| {
            matches!(step, Step::Wait { .. } | Step::Receive { .. } | Step::Terminal { .. } | Step::Fork)
        };
        self.steps.iter().take_while(|p| p.step != Step::Ready).filter(|p| asks(&p.step)).count()
    }

    /// Whether a process that has forked inside may still ask for something, and so is believed: a container that is
    /// made, but no process that joins one.
    pub fn asks_inside(&self) -> bool {
        let ready = self.steps.iter().position(|p| p.step == Step::Ready);
        self.steps.iter().position(|p| p.step == Step::Fork) < ready
    }

    /// Whether init forks on its way.
    pub fn forks(&self) -> bool {
        self.steps.iter().any(|p| p.step == Step::Fork)
    }

    /// Adds a step.
    pub fn push(&mut self, origin: impl Into<String>, step: Step<Text>) {
        self.steps.push(Planned { origin: origin.into(), step });
    }

    /// Adds a slot; an equal one is shared.
    pub fn slot(&mut self, source: Source) -> Slot {
        // A tree can be moved only once, and a procfs is closed after its label: two uses of one source are two slots.
        let shareable = !matches!(
            source,
            Source::Bind { .. } | Source::FileSystem { .. } | Source::Cgroup { .. } | Source::Procfs
        );
        if let Some(i) = self.slots.iter().position(|s| shareable && *s == source) {
            return Slot(i as u16);
        }
        self.slots.push(source);
        Slot((self.slots.len() - 1) as u16)
    }
}

/// The kernel's words for CLONE_NEW* bits, in the order that they are told.
pub const NAMESPACES: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("pid", libc::CLONE_NEWPID),
    ("mount", libc::CLONE_NEWNS),
    ("network", libc::CLONE_NEWNET),
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", CLONE_NEWTIME),
];

/// Not in the libc crate for every target.
pub const CLONE_NEWTIME: i32 = 0x80;

fn names(kinds: i32) -> Vec<&'static str> {
    NAMESPACES.iter().filter(|(_, k)| kinds & k != 0).map(|(name, _)| *name).collect()
}

fn namespace_names<S: serde::Serializer>(kinds: &u64, s: S) -> Result<S::Ok, S::Error> {
    names(*kinds as i32).serialize(s)
}

fn namespace_name<S: serde::Serializer>(kind: &i32, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&names(*kind).join("+"))
}

fn instructions<S: serde::Serializer>(filter: &[u8], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64((filter.len() / 8) as u64)
}
