//! Whether the kernel will execute a file: what its first bytes say, and whom they ask for. Pure. Uses: host.

use crate::host::Arch;

/// Bytes of a file that are enough: the kernel reads 256 to find out what it is, and program headers lie near the start.
pub(super) const HEAD: usize = 16 << 10;

/// What a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ELF file that this processor runs, by itself or by its interpreter.
    Elf { interpreter: Option<String> },
    /// An ELF file of another processor.
    Foreign { machine: String },
    /// A script that begins with `#!`.
    Script { interpreter: String },
    /// None of these.
    Unknown,
}

/// EM_* of elf.h.
const MACHINES: [(u16, &str); 9] = [
    (3, "i386"),
    (8, "MIPS"),
    (20, "PowerPC"),
    (21, "PowerPC64"),
    (22, "S/390"),
    (40, "ARM"),
    (62, "x86-64"),
    (183, "AArch64"),
    (243, "RISC-V"),
];

/// What `head`, the beginning of a file, says.
pub(super) fn kind(head: &[u8], native: Arch) -> Kind {
    if head.starts_with(b"\x7fELF") {
        return elf(head, native).unwrap_or(Kind::Unknown);
    }
    let Some(line) = head.strip_prefix(b"#!") else { return Kind::Unknown };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    match line.trim_matches([' ', '\t']).split([' ', '\t']).next() {
        Some(interpreter) if !interpreter.is_empty() => Kind::Script { interpreter: interpreter.to_string() },
        _ => Kind::Unknown,
    }
}

fn elf(head: &[u8], native: Arch) -> Option<Kind> {
    let (wide, little) = (head.get(4)? == &2, head.get(5)? == &1);
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(size)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    };
    let machine = number(18, 2)? as u16;
    let runs = match native {
        // 32-bit programs are the kernel's to take or refuse; most are built to take them.
        Arch::X86_64 => little && matches!(machine, 62 | 3),
        Arch::Aarch64 => little && matches!(machine, 183 | 40),
    };
    if !runs {
        let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| name.to_string());
        return Some(Kind::Foreign { machine: name.unwrap_or_else(|| format!("machine {machine}")) });
    }
    // PT_INTERP of the program headers.
    let (headers, size, count) = match wide {
        true => (number(32, 8)?, number(54, 2)?, number(56, 2)?),
        false => (number(28, 4)?, number(42, 2)?, number(44, 2)?),
    };
    for i in 0..count {
        // Of 16 bits each: the product is no more than 32.
        let at = usize::try_from(headers.checked_add(i * size)?).ok()?;
        // Beyond what was read: whoever executes it finds out.
        let Some(kind) = number(at, 4) else { break };
        if kind != 3 {
            continue;
        }
        let (offset, length) = match wide {
            true => (number(at + 8, 8)?, number(at + 32, 8)?),
            false => (number(at + 4, 4)?, number(at + 16, 4)?),
        };
        let from = usize::try_from(offset).ok()?;
        let text = head.get(from..from.checked_add(usize::try_from(length).ok()?)?)?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        return Some(Kind::Elf { interpreter: Some(String::from_utf8_lossy(text).into_owned()) });
    }
    Some(Kind::Elf { interpreter: None })
}

/// Whether an entry of binfmt_misc (its file's text) takes a file that begins so (binfmt-misc.rst).
pub(super) fn taken(entry: &str, head: &[u8]) -> bool {
    let value = |key: &str| entry.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let bytes = |text: &str| -> Option<Vec<u8>> {
        let pairs = text.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    };
    if entry.lines().next() != Some("enabled") {
        return false;
    }
    let Some(magic) = value("magic ").and_then(bytes) else { return false };
    let mask = value("mask ").and_then(bytes).unwrap_or_else(|| vec![0xff; magic.len()]);
    let offset = value("offset ").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let Some(there) = head.get(offset..offset.saturating_add(magic.len())) else { return false };
    there.iter().zip(&magic).zip(&mask).all(|((byte, magic), mask)| byte & mask == magic & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with a program header for its interpreter.
    fn made(class: u8, machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut file = vec![0; 512];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        let (phoff, size, count, fields) = match class {
            2 => (32, 54, 56, [8, 32]),
            _ => (28, 42, 44, [4, 16]),
        };
        file[phoff] = 64;
        file[size] = 56;
        file[count] = 2;
        file[64] = 1;
        if let Some(text) = interpreter {
            file[120] = 3;
            file[120 + fields[0]] = 200;
            file[120 + fields[1]] = text.len() as u8 + 1;
            file[200..200 + text.len()].copy_from_slice(text.as_bytes());
        }
        file
    }

    #[test]
    fn a_program_is_known_by_its_first_bytes() {
        let elf = |interpreter: Option<&str>| Kind::Elf { interpreter: interpreter.map(str::to_string) };
        let foreign = |machine: &str| Kind::Foreign { machine: machine.to_string() };
        let script = |interpreter: &str| Kind::Script { interpreter: interpreter.to_string() };
        let linker = "/lib64/ld-linux-x86-64.so.2";
        for (head, native, expected) in [
            (made(2, 62, None), Arch::X86_64, elf(None)),
            (made(2, 62, Some(linker)), Arch::X86_64, elf(Some(linker))),
            (made(1, 3, Some("/lib/ld-linux.so.2")), Arch::X86_64, elf(Some("/lib/ld-linux.so.2"))),
            (made(2, 183, None), Arch::X86_64, foreign("AArch64")),
            (made(2, 62, None), Arch::Aarch64, foreign("x86-64")),
            (made(2, 999, None), Arch::X86_64, foreign("machine 999")),
            (b"\x7fELF".to_vec(), Arch::X86_64, Kind::Unknown),
            (b"#! /bin/sh -e\necho".to_vec(), Arch::X86_64, script("/bin/sh")),
            (b"#!/usr/bin/env python3".to_vec(), Arch::X86_64, script("/usr/bin/env")),
            (b"#!\n".to_vec(), Arch::X86_64, Kind::Unknown),
            (b"echo hello\n".to_vec(), Arch::X86_64, Kind::Unknown),
            (Vec::new(), Arch::X86_64, Kind::Unknown),
        ] {
            assert_eq!(kind(&head, native), expected);
        }
    }

    #[test]
    fn headers_that_lead_beyond_all_numbers_are_read_as_far_as_they_go() {
        for class in [1, 2] {
            let whole = made(class, 62, Some("/lib/ld.so"));
            for from in 20..whole.len() {
                for to in [from + 1, from + 2, from + 4, from + 8, whole.len()] {
                    let mut head = whole.clone();
                    head[from..to.min(whole.len())].fill(0xff);
                    // Whatever it is taken for: it is no script, and it is of this processor.
                    let kind = kind(&head, Arch::X86_64);
                    assert!(
                        matches!(kind, Kind::Elf { .. } | Kind::Unknown),
                        "{class} {from}..{to}: {kind:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_emulator_takes_what_begins_as_it_says() {
        let entry = |first: &str, mask: &str| {
            format!("{first}\ninterpreter /usr/bin/qemu\nflags: F\noffset 2\nmagic 4c46b7\nmask {mask}\n")
        };
        let head = b"\x7fELF\xb6";
        assert!(taken(&entry("enabled", "fffffe"), &[head[0], head[1], head[2], head[3], 0xb6]));
        assert!(!taken(&entry("enabled", "ffffff"), head));
        assert!(!taken(&entry("disabled", "fffffe"), head));
        assert!(!taken("enabled\ninterpreter /x\nextension .py\n", head));
        assert!(!taken(&entry("enabled", "fffffe"), b"\x7f"));
    }
}
