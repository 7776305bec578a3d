//! What this kernel and machine can do, read once into a plain struct that `compile` takes.
//! Uses: sys. Tests give `compile` another host by filling the struct by hand.

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
