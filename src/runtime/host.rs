//! What this kernel and machine can do, read once into a plain struct that `compile` takes.
//! Uses: sys. Tests give `compile` another host by filling the struct by hand.

use crate::{Code, Error, Result, sys};

/// Facts of the machine that change what a plan looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Kernel release, major and minor.
    pub kernel: (u32, u32),
    /// Highest capability number the kernel knows (`/proc/sys/kernel/cap_last_cap`).
    pub last_cap: u32,
    /// Capabilities of rcrun's own bounding set, a bit each: what cannot be granted is warned about.
    pub bounding: u64,
    /// The architecture that seccomp programs see for native calls.
    pub arch: Arch,
    /// AppArmor is enabled (`/sys/module/apparmor/parameters/enabled` says Y).
    pub apparmor: bool,
    /// SELinux is enabled: selinuxfs is mounted, and a policy is loaded.
    pub selinux: bool,
    /// What rcrun itself may do here.
    pub caller: Caller,
}

/// Who rcrun runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// It has CAP_SYS_ADMIN in its own user namespace: it makes namespaces without a user namespace, and writes any id map.
    pub privileged: bool,
    /// Its user namespace is not the machine's: no device nodes, no device programs.
    pub user_namespace: bool,
    /// It may clone the mounts of its own mount namespace.
    pub clones_mounts: bool,
    /// setgroups(2) is not denied in its user namespace.
    pub groups: bool,
}

impl Caller {
    /// root of the machine.
    pub const ROOT: Caller =
        Caller { uid: 0, gid: 0, privileged: true, user_namespace: false, clones_mounts: true, groups: true };

    /// Who this process is.
    pub fn read() -> Caller {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let privileged = sys::capability::is_admin();
        let user_namespace = !sys::namespace::is_initial_user();
        // A mount namespace of the machine's is no more root's once it is in a user namespace: only the kernel knows.
        let clones_mounts = privileged && (!user_namespace || sys::mount::may_clone());
        let denied = user_namespace
            && std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"));
        Caller { uid, gid, privileged, user_namespace, clones_mounts, groups: !denied }
    }

    /// It is not root of the machine: what only root may do is left out where runc leaves it out.
    pub fn is_rootless(&self) -> bool {
        self.uid != 0 || self.user_namespace || !self.privileged
    }
}

/// Processor architectures that rcrun is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// AMD64, with i386 and x32 as its sub-architectures.
    X86_64,
    /// ARM64, with 32-bit ARM as its sub-architecture.
    Aarch64,
}

impl Host {
    /// Reads the facts of this machine.
    pub fn read() -> Result<Host> {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        let mut parts = release.split(|c: char| !c.is_ascii_digit()).filter_map(|p| p.parse().ok());
        let kernel = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if kernel < (5, 14) {
            return Err(Error::new(
                Code::Host,
                format!(
                    "this kernel is Linux {release}; rcrun needs 5.14 or later (cgroup.kill, mount_setattr)"
                ),
            ));
        }
        let mut bounding = 0;
        let mut last_cap = 0;
        for (cap, held) in (0..64).map_while(|cap| Some((cap, sys::capability::in_bounding_set(cap)?))) {
            last_cap = cap;
            bounding |= u64::from(held) << cap;
        }
        Ok(Host {
            kernel,
            last_cap,
            bounding,
            arch: Arch::BUILT_FOR,
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|t| t.starts_with(b"Y")),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists() && has_selinux_policy(),
            caller: Caller::read(),
        })
    }
}

/// Until a policy is loaded every process has the context `kernel`, and no label or `context=` of a mount means anything.
fn has_selinux_policy() -> bool {
    std::fs::read("/proc/thread-self/attr/current").map_or(true, |context| !without_policy(&context))
}

fn without_policy(context: &[u8]) -> bool {
    matches!(context, b"kernel" | b"kernel\0")
}

impl Arch {
    /// The architecture of this rcrun.
    #[cfg(target_arch = "x86_64")]
    pub const BUILT_FOR: Arch = Arch::X86_64;
    /// The architecture of this rcrun.
    #[cfg(target_arch = "aarch64")]
    pub const BUILT_FOR: Arch = Arch::Aarch64;
}

#[cfg(test)]
mod tests {
    use super::without_policy;

    #[test]
    fn a_context_of_a_policy_has_parts_and_the_one_before_it_has_none() {
        for (context, expected) in [
            (&b"kernel\0"[..], true),
            (b"kernel", true),
            (b"system_u:system_r:kernel_t:s0\0", false),
            (b"kernel_generic_helper_t\0", false),
            (b"", false),
        ] {
            assert_eq!(without_policy(context), expected);
        }
    }
}
