//! The architectures of the spec, as the kernel tells them apart in seccomp_data.
//! Uses: syscalls.

use oci_spec::runtime::Arch as Name;

use super::syscalls::{Column, Numbers, SYSCALLS};
use crate::host;

/// Set in x32's numbers; both x32 and native calls come with AUDIT_ARCH_X86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// ARM's private calls (breakpoint, cacheflush, set_tls) lie far above the table's end.
const ARM_PRIVATE: u32 = 0x000f_0000;

/// One architecture of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    /// What seccomp_data.arch holds.
    pub audit: u32,
    /// Its numbers.
    pub column: Column,
    /// Arguments are compared in full; else in their low halves only, as libseccomp does, also for x32.
    pub wide: bool,
    /// The high half of an argument comes first in memory.
    pub big_endian: bool,
    /// Has socketcall(2) and ipc(2), which carry other calls.
    multiplexes: bool,
}

/// A system call that the tables know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Its place in the table.
    pub row: usize,
    carried: u8,
    numbers: &'static Numbers,
}

/// Engines sort their names, with a few left out: how many rows after the last one to look at before the whole table.
const NEXT_ROWS: usize = 6;

/// Looks a name up, first in the rows that follow `near`; `None` when no architecture has such a call.
pub(super) fn call(name: &str, near: usize) -> Option<Call> {
    let row = match SYSCALLS.iter().skip(near).take(NEXT_ROWS).position(|(other, _, _)| *other == name) {
        Some(after) => near + after,
        None => SYSCALLS.binary_search_by(|(other, _, _)| (*other).cmp(name)).ok()?,
    };
    let (_, carried, numbers) = &SYSCALLS[row];
    Some(Call { row, carried: *carried, numbers })
}

impl Architecture {
    /// The architecture called `name` in config.json, on a machine of architecture `native`.
    pub(super) fn new(name: Name, native: host::Arch) -> Architecture {
        let (column, wide, big_endian) = match name {
            Name::ScmpArchNative => return Architecture::native(native),
            Name::ScmpArchX86 => (Column::X86, false, false),
            Name::ScmpArchX86_64 => (Column::X86_64, true, false),
            Name::ScmpArchX32 => (Column::X32, false, false),
            Name::ScmpArchArm => (Column::Arm, false, false),
            Name::ScmpArchAarch64 => (Column::Aarch64, true, false),
            Name::ScmpArchMips => (Column::Mips, false, true),
            Name::ScmpArchMips64 => (Column::Mips64, true, true),
            Name::ScmpArchMips64n32 => (Column::Mips64n32, false, true),
            Name::ScmpArchMipsel => (Column::Mips, false, false),
            Name::ScmpArchMipsel64 => (Column::Mips64, true, false),
            Name::ScmpArchMipsel64n32 => (Column::Mips64n32, false, false),
            Name::ScmpArchPpc => (Column::Ppc, false, true),
            Name::ScmpArchPpc64 => (Column::Ppc64, true, true),
            Name::ScmpArchPpc64le => (Column::Ppc64, true, false),
            Name::ScmpArchS390 => (Column::S390, false, true),
            Name::ScmpArchS390x => (Column::S390x, true, true),
            Name::ScmpArchParisc => (Column::Parisc, false, true),
            Name::ScmpArchParisc64 => (Column::Parisc64, true, true),
            Name::ScmpArchRiscv64 => (Column::Riscv64, true, false),
            Name::ScmpArchLoongarch64 => (Column::Loongarch64, true, false),
            Name::ScmpArchM68k => (Column::M68k, false, true),
            Name::ScmpArchSh => (Column::Sh, false, false),
            Name::ScmpArchSheb => (Column::Sh, false, true),
        };
        // oci-spec numbers its architectures by AUDIT_ARCH_*, but for x32, which the kernel does not tell apart.
        let audit = if column == Column::X32 { Name::ScmpArchX86_64 } else { name } as u32;
        let multiplexes = matches!(
            column,
            Column::X86
                | Column::M68k
                | Column::Mips
                | Column::Ppc
                | Column::Ppc64
                | Column::S390
                | Column::S390x
                | Column::Sh
        );
        Architecture { audit, column, wide, big_endian, multiplexes }
    }

    /// The architecture of native calls.
    pub(super) fn native(native: host::Arch) -> Architecture {
        let name = match native {
            host::Arch::X86_64 => Name::ScmpArchX86_64,
            host::Arch::Aarch64 => Name::ScmpArchAarch64,
        };
        Architecture::new(name, native)
    }

    /// The number of `call` when made directly.
    pub(super) fn number(&self, call: &Call) -> Option<u32> {
        u32::try_from(call.numbers[self.column as usize]).ok()
    }

    /// The number of the call that carries `call`, and the first argument by which it is asked for.
    pub(super) fn carrier(&self, call: &Call) -> Option<(u32, u32)> {
        let (carrier, first) = match call.carried {
            _ if !self.multiplexes => return None,
            0 => return None,
            n @ 200.. => ("ipc", n - 200),
            n => ("socketcall", n - 100),
        };
        Some((self.number(&self::call(carrier, 0)?)?, u32::from(first)))
    }

    /// Whether `number` tells how new the kernel was that the profile's author knew.
    pub(super) fn tells_age(&self, number: u32) -> bool {
        self.column != Column::Arm || number < ARM_PRIVATE
    }

    /// s390 hands calls with large numbers on as 0 when it does not know them.
    pub(super) fn zero_is_unknown(&self) -> bool {
        matches!(self.column, Column::S390 | Column::S390x)
    }

    /// Offset in seccomp_data of one half of argument `index`.
    pub(super) fn offset(&self, index: u8, high: bool) -> u32 {
        16 + 8 * u32::from(index) + if high != self.big_endian { 4 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_binary_search() {
        assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn numbers_are_those_of_the_kernels_headers() {
        let table = [
            ("futex_waitv", Name::ScmpArchX86_64, Some(449)),
            ("set_mempolicy_home_node", Name::ScmpArchAarch64, Some(450)),
            ("cachestat", Name::ScmpArchX86, Some(451)),
            ("fchmodat2", Name::ScmpArchX32, Some(0x4000_0000 + 452)),
            ("map_shadow_stack", Name::ScmpArchX86_64, Some(453)),
            ("futex_requeue", Name::ScmpArchRiscv64, Some(456)),
            ("statmount", Name::ScmpArchMips, Some(4457)),
            ("lsm_list_modules", Name::ScmpArchMips64, Some(5461)),
            ("mseal", Name::ScmpArchMips64n32, Some(6462)),
            ("removexattrat", Name::ScmpArchPpc64le, Some(466)),
            ("open_tree_attr", Name::ScmpArchS390x, Some(467)),
            ("file_getattr", Name::ScmpArchM68k, Some(468)),
            ("file_setattr", Name::ScmpArchSh, Some(469)),
            ("openat2", Name::ScmpArchLoongarch64, Some(437)),
            ("open", Name::ScmpArchAarch64, None),
            ("cacheflush", Name::ScmpArchArm, Some(0x000f_0002)),
            ("socket", Name::ScmpArchS390, Some(359)),
            ("recv", Name::ScmpArchX86, None),
        ];
        for (name, arch, number) in table {
            let arch = Architecture::new(arch, host::Arch::X86_64);
            assert_eq!(arch.number(&call(name, 0).unwrap()), number, "{name}");
        }
    }

    #[test]
    fn carriers_are_those_of_the_architecture() {
        let find = |name, arch| Architecture::new(arch, host::Arch::X86_64).carrier(&call(name, 0).unwrap());
        assert_eq!(find("socket", Name::ScmpArchX86), Some((102, 1)));
        assert_eq!(find("shmget", Name::ScmpArchMips), Some((4117, 23)));
        assert_eq!(find("socket", Name::ScmpArchX86_64), None);
        assert_eq!(find("openat", Name::ScmpArchX86), None);
    }
}
