//! linux.namespaces, uidMappings, gidMappings, timeOffsets: what clone3 makes, what is joined, and in which order.

use crate::host::Caller;
use crate::plan::{CLONE_NEWTIME, Maps, Plan, Source, Unprivileged};
use crate::spec::Spec;
use crate::{Code, Error, Result};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType};
use rcrun_plan::{Barrier, Step};
use std::fmt::Write;

/// What the rest of the compiler asks about namespaces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spaces {
    /// CLONE_NEW* of those that are made.
    pub new: i32,
    /// CLONE_NEW* of those that are joined by path.
    pub joined: i32,
    /// In a user namespace that is not the machine's, new or joined.
    pub user: bool,
    /// In a mount namespace that is not the machine's, new or joined.
    pub mount: bool,
    /// `lo` must be brought up.
    pub new_loopback: bool,
    /// rcrun itself is in a user namespace that is not the machine's.
    pub nested: bool,
    /// setgroups(2) is not denied where the process runs.
    pub groups: bool,
}

impl Spaces {
    /// The namespace is made by this start (so it is owned by the container's user namespace).
    pub fn makes(&self, kind: i32) -> bool {
        self.new & kind != 0
    }

    /// The container's user namespace owns its namespace of this kind: made here, or joined together with the user
    /// namespace, as the containers of a pod do.
    pub fn owns(&self, kind: i32) -> bool {
        let pod = self.joined & libc::CLONE_NEWUSER != 0 && self.joined & kind != 0;
        // Where rcrun is in a user namespace, what it joins is its engine's; what it has inherited may be the machine's.
        let engine = self.nested && !self.user && self.joined & kind != 0;
        self.makes(kind) || pod || engine || !self.user && !self.nested
    }

    /// Device nodes cannot be made, those of the machine are bound.
    pub fn binds_devices(&self) -> bool {
        self.user || self.nested
    }
}

/// The CLONE_NEW* flag of a namespace of config.json.
pub(crate) fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

pub(crate) fn compile(spec: &Spec, caller: &Caller, plan: &mut Plan) -> Result<Spaces> {
    let mut spaces = Spaces { nested: caller.user_namespace, groups: caller.groups, ..Spaces::default() };
    let mut joins = Vec::new();
    let linux = spec.linux().as_ref();
    for (i, namespace) in linux.iter().flat_map(|l| l.namespaces().iter().flatten()).enumerate() {
        let kind = flag(namespace.typ());
        let origin = format!("/linux/namespaces/{i}");
        match namespace.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
            Some(path) => {
                let slot = plan.slot(Source::Namespace { path: path.clone(), kind, origin: origin.clone() });
                joins.push((origin, slot, kind));
                spaces.joined |= kind;
                spaces.user |= kind == libc::CLONE_NEWUSER;
                spaces.mount |= kind == libc::CLONE_NEWNS;
            }
            None => spaces.new |= kind,
        }
    }
    spaces.user |= spaces.makes(libc::CLONE_NEWUSER);
    spaces.mount |= spaces.makes(libc::CLONE_NEWNS);
    spaces.new_loopback = spaces.makes(libc::CLONE_NEWNET);
    if !spaces.user && !caller.privileged {
        return Err(Error::config(
            "/linux/namespaces",
            "has no user namespace, and rcrun is not root, or has no CAP_SYS_ADMIN: add {\"type\": \"user\"} with /linux/uidMappings and gidMappings (`rcrun spec --rootless` writes such a config), or run rcrun as root",
        )
        .with_code(Code::Host));
    }
    plan.namespaces = (spaces.new & !libc::CLONE_NEWCGROUP) as u64;

    if spaces.makes(libc::CLONE_NEWUSER) {
        let linux = linux.ok_or_else(|| Error::config("/linux", "is missing"))?;
        let unprivileged = (!caller.privileged).then(|| Unprivileged {
            newuidmap: !is_only(linux.uid_mappings(), caller.uid),
            newgidmap: !is_only(linux.gid_mappings(), caller.gid),
        });
        spaces.groups &= unprivileged.is_none_or(|how| how.newgidmap);
        plan.maps =
            Some(Maps { uid: lines(linux.uid_mappings()), gid: lines(linux.gid_mappings()), unprivileged });
    }
    if spaces.makes(CLONE_NEWTIME) {
        plan.time_offsets = linux.and_then(time_offsets);
    }
    if spaces.makes(libc::CLONE_NEWUSER) {
        plan.push("/linux/uidMappings", Step::Wait { barrier: Barrier::Maps });
    }
    if spaces.user {
        plan.push("/linux/namespaces", Step::BecomeRoot);
    }
    // Once in a user namespace, those of others can no longer be joined: a first child joins them while it still has the
    // machine's capabilities, the user namespace last. A time namespace cannot be joined by a child that shares its
    // parent's memory (EUSERS).
    // Who has no capabilities gets them there, so that it comes first, and the others are its own.
    joins.sort_by_key(|(_, _, kind)| (*kind == libc::CLONE_NEWUSER) == caller.privileged);
    for (origin, slot, kind) in joins {
        if spaces.user && kind != CLONE_NEWTIME {
            plan.first_joins.push(slot);
        } else {
            plan.push(origin, Step::Join { slot, kinds: kind as u32 });
        }
        // A pid namespace takes only children (setns(2)), and a procfs shows the namespace of whoever mounts it.
        if kind == libc::CLONE_NEWPID && !spaces.user {
            plan.push("", Step::Fork);
        }
    }
    if spaces.makes(libc::CLONE_NEWCGROUP) {
        plan.push("/linux/namespaces", Step::Unshare { kinds: libc::CLONE_NEWCGROUP as u32 });
    }
    Ok(spaces)
}

/// The one map that an ordinary user may write: of nobody but itself.
fn is_only(mappings: &Option<Vec<LinuxIdMapping>>, id: u32) -> bool {
    matches!(mappings.as_deref(), Some([map]) if map.host_id() == id && map.size() == 1)
}

pub(super) fn lines(mappings: &Option<Vec<LinuxIdMapping>>) -> String {
    mappings.iter().flatten().fold(String::new(), |mut text, m| {
        let _ = writeln!(text, "{} {} {}", m.container_id(), m.host_id(), m.size());
        text
    })
}

fn time_offsets(linux: &oci_spec::runtime::Linux) -> Option<String> {
    let offsets = linux.time_offsets().as_ref().filter(|o| !o.is_empty())?;
    let mut offsets: Vec<_> = offsets.iter().collect();
    offsets.sort_by_key(|(clock, _)| *clock);
    Some(offsets.iter().fold(String::new(), |mut text, (clock, offset)| {
        let _ = writeln!(
            text,
            "{clock} {} {}",
            offset.secs().unwrap_or_default(),
            offset.nanosecs().unwrap_or_default()
        );
        text
    }))
}
