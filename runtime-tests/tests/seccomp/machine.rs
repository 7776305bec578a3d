//! The machine that runs classic BPF programs in the kernel, as far as seccomp's checker lets them use it.

use rcrun_runtime::seccomp::Instruction;

/// What a program can read: `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    pub number: u32,
    pub arch: u32,
    pub big_endian: bool,
    pub args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..=60 if offset.is_multiple_of(4) => {
                let whole = self.args[(offset as usize - 16) / 8];
                let first = offset.is_multiple_of(8);
                if first == self.big_endian { (whole >> 32) as u32 } else { whole as u32 }
            }
            _ => panic!("load of offset {offset}"),
        }
    }
}

/// The action that `program` returns.
pub fn run(program: &[Instruction], data: &Data) -> u32 {
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        let holds = match code {
            0x20 => {
                accumulator = data.word(k);
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
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            _ => panic!("instruction {code:#x} at {at}"),
        };
        at += 1 + usize::from(if holds { jt } else { jf });
    }
}
