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
    /// SELinux is enabled (selinuxfs is mounted).
    pub selinux: bool,
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
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        })
    }
}

impl Arch {
    /// The architecture of this rcrun.
    #[cfg(target_arch = "x86_64")]
    pub const BUILT_FOR: Arch = Arch::X86_64;
    /// The architecture of this rcrun.
    #[cfg(target_arch = "aarch64")]
    pub const BUILT_FOR: Arch = Arch::Aarch64;
}
