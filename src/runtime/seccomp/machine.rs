//! The machine that runs classic BPF programs in the kernel, as far as seccomp's checker lets them use it: what a filter
//! answers to a call that has not been made yet.
//! Uses: arch.

use super::Instruction;
use super::arch::{Architecture, call};
use crate::host;

/// What a program can read: `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Number of the system call.
    pub number: u32,
    /// AUDIT_ARCH_*.
    pub arch: u32,
    /// The high half of an argument comes first.
    pub big_endian: bool,
    /// The arguments.
    pub args: [u64; 6],
}

impl Data {
    /// The call `name` on a machine of architecture `native`, if it has one.
    pub fn native(name: &str, native: host::Arch, args: [u64; 6]) -> Option<Data> {
        let arch = Architecture::native(native);
        let number = arch.number(&call(name, 0)?)?;
        Some(Data { number, arch: arch.audit, big_endian: arch.big_endian, args })
    }

    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            16..=60 if offset.is_multiple_of(4) => {
                let whole = self.args[(offset as usize - 16) / 8];
                let first = offset.is_multiple_of(8);
                Some(if first == self.big_endian { (whole >> 32) as u32 } else { whole as u32 })
            }
            _ => None,
        }
    }
}

/// The action (`SECCOMP_RET_*`) that `program` returns; None for a program that seccomp(2) would not take.
pub fn run(program: &[Instruction], data: &Data) -> Option<u32> {
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        let holds = match code {
            0x20 => {
                accumulator = data.word(k)?;
                at += 1;
                continue;
            }
            0x54 => {
                accumulator &= k;
                at += 1;
                continue;
            }
            0x05 => {
                at += 1 + k as usize;
                continue;
            }
            0x06 => return Some(k),
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            _ => return None,
        };
        at += 1 + usize::from(if holds { jt } else { jf });
    }
}
