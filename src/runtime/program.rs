//! Why a program was not executed. An errno of execve(2) names no file: of a script or a program with a loader it may be
//! about another than the one that was asked for. What lies in the root file system tells which. Uses: failure, plan, prepare,
//! resolve.

use crate::plan::{Plan, Source};
use crate::prepare::regular_file;
use crate::resolve::open_within;
use crate::{Code, Error, failure};
use rcrun_plan::Step;
use rcrun_plan::record::Report;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// What is read of a program: a script's first line and an ELF file's headers lie in its first page.
const HEAD: usize = 4096;
const EXECUTE: u32 = 0o111;

/// The sentence for a failing step, with what the program's file tells.
pub fn failure(plan: &Plan, report: &Report) -> Error {
    let error = failure::of_step(plan, report);
    if error.code() != Code::Execute {
        return error;
    }
    // What the image has, and not what is mounted in it: nothing there, nothing is said. A file system of a container's that
    // runs is not asked: it may never answer.
    let reason = root(plan).and_then(|root| reason(plan, report, root.as_fd()));
    error.hint(reason.as_deref())
}

fn root(plan: &Plan) -> Option<OwnedFd> {
    let own = plan.slots.iter().find_map(|slot| match slot {
        Source::Root { path, .. } => Some(path),
        _ => None,
    });
    let path = own.or(plan.joined_root.as_ref())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

/// What lies at a path of the image, on its own file system alone.
fn look(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    open_within(root, path, OFlags::PATH, how)
}

fn reason(plan: &Plan, report: &Report, root: BorrowedFd<'_>) -> Option<String> {
    let path = plan.candidates.get(report.detail as usize).or(plan.candidates.first())?;
    let file = look(root, path).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match report.errno {
        libc::EACCES if !is_regular => Some(format!("{path} is not a regular file")),
        libc::EACCES => denied(plan, path, file.as_fd(), &stat, root),
        libc::ENOENT if is_regular => missing(path, &head(root, path)?, root),
        libc::ENOEXEC if is_regular => Some(foreign(path, &head(root, path)?)),
        _ => None,
    }
}

/// The first bytes of a regular file.
fn head(root: BorrowedFd<'_>, path: &str) -> Option<Vec<u8>> {
    let (file, _) = regular_file(look(root, path).ok()?.as_fd()).ok()?;
    let mut bytes = vec![0; HEAD];
    let read = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

fn denied(
    plan: &Plan,
    path: &str,
    file: BorrowedFd<'_>,
    stat: &Stat,
    root: BorrowedFd<'_>,
) -> Option<String> {
    let mode = stat.st_mode & 0o7777;
    if mode & EXECUTE == 0 {
        return Some(format!("{path} has mode {mode:04o}: `chmod +x` makes it executable"));
    }
    if rustix::fs::fstatvfs(file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        return Some("the root file system lies on a mount with noexec".into());
    }
    if let Some(interpreter) = head(root, path).as_deref().and_then(interpreter)
        && let Ok(file) = look(root, &interpreter)
        && rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_mode & EXECUTE == 0)
    {
        return Some(format!("the interpreter of {path}, {interpreter}, is not executable"));
    }
    // Owners are those of the machine: through id maps they say nothing.
    let mapped = plan.maps.is_some() || plan.steps.iter().any(|planned| planned.step == Step::BecomeRoot);
    let (uid, gid) = plan.steps.iter().find_map(|planned| match planned.step {
        Step::Ids { uid, gid, .. } if !mapped => Some((uid, gid)),
        _ => None,
    })?;
    let may = |stat: &Stat| {
        let group = stat.st_gid == gid || plan.groups.contains(&stat.st_gid);
        let shift = if stat.st_uid == uid {
            6
        } else if group {
            3
        } else {
            0
        };
        stat.st_mode >> shift & 1 == 1
    };
    let told = |path: &str, stat: &Stat| {
        format!(
            "{path} has mode {:04o} and belongs to {}:{}, the process is uid {uid}, gid {gid}",
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid
        )
    };
    let folders = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]);
    for folder in folders {
        let stat = look(root, folder).and_then(rustix::fs::fstat).ok()?;
        if !may(&stat) {
            return Some(told(folder, &stat));
        }
    }
    (!may(stat)).then(|| told(path, stat))
}

/// The program is there: what it needs is not.
fn missing(path: &str, head: &[u8], root: BorrowedFd<'_>) -> Option<String> {
    let interpreter = interpreter(head);
    let (kind, needed) = match &interpreter {
        Some(interpreter) => ("interpreter", interpreter.clone()),
        None => ("loader", loader(head)?),
    };
    if let Some(name) = needed.strip_suffix('\r') {
        return Some(format!(
            "{path} is there: its first line ends in a carriage return, so that its interpreter is {name}\\r: give it line ends of Unix"
        ));
    }
    match look(root, &needed) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            Some(format!("{path} is there: its {kind} {needed} is missing in the root file system"))
        }
        // Another file system may have it, a rename may have raced.
        _ => None,
    }
}

/// No program of this machine's.
fn foreign(path: &str, head: &[u8]) -> String {
    let machine = |head: &[u8]| u16::from_le_bytes([head[18], head[19]]);
    match head {
        [] => format!("{path} is empty"),
        [b'#', b'!', ..] => format!("the interpreter of {path} is no program of this machine's architecture"),
        head if head.starts_with(b"\x7fELF") && head.len() > 20 => format!(
            "{path} is a program for another architecture, {}: this machine is {}",
            architecture(if head[5] == 2 { machine(head).swap_bytes() } else { machine(head) }),
            std::env::consts::ARCH
        ),
        _ => format!(
            "{path} is neither a program nor a script: a script's first line is #! and its interpreter"
        ),
    }
}

/// elf(5), e_machine.
fn architecture(machine: u16) -> String {
    let name = match machine {
        3 => "x86 (32 bits)",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm (32 bits)",
        50 => "ia64",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        other => return format!("machine {other} of elf(5)"),
    };
    name.to_string()
}

/// What a script's first line names.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    std::str::from_utf8(word).ok().map(String::from)
}

/// PT_INTERP of an ELF file of 64 bits and this machine's order of bytes.
fn loader(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?)));
    let long = |at: usize| {
        usize::try_from(u64::from_le_bytes(head.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
    };
    let (first, size, count) = (long(32)?, half(54)?, half(56)?);
    let headers = (0..count).filter_map(|i| first.checked_add(i * size));
    let found =
        headers.take_while(|at| at.checked_add(40).is_some_and(|end| end <= head.len())).find(|at| {
            head.get(*at..*at + 4).and_then(|kind| kind.try_into().ok()).map(u32::from_le_bytes)
                == Some(PT_INTERP)
        })?;
    let (offset, length) = (long(found + 8)?, long(found + 32)?);
    let name = head.get(offset..offset.checked_add(length)?)?.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        for (text, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! /usr/bin/env python3\nx", Some("/usr/bin/env")),
            ("#!/bin/sh\r\n", Some("/bin/sh\r")),
            ("#!\n", None),
            ("echo", None),
            ("", None),
        ] {
            assert_eq!(interpreter(text.as_bytes()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_loader_of_a_program_is_found_and_nothing_in_what_is_cut_or_lies() {
        let own = std::fs::read("/usr/bin/env").unwrap();
        let whole = &own[..HEAD];
        let found = loader(whole).unwrap();
        assert!(found.starts_with("/lib") && found.contains("ld-linux"), "{found}");
        for length in 0..HEAD {
            let cut = loader(&whole[..length]);
            assert!(cut.is_none() || cut.as_deref() == Some(&found), "{length}");
        }
        let mut lies = whole.to_vec();
        lies[32..40].fill(0xff);
        assert_eq!(loader(&lies), None);
    }

    #[test]
    fn what_is_no_program_of_this_machine_is_told() {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 183;
        assert!(foreign("/x", &elf).contains("aarch64"));
        elf[5] = 2;
        elf[18..20].copy_from_slice(&[0, 22]);
        assert!(foreign("/x", &elf).contains("s390x"));
        assert_eq!(foreign("/x", b""), "/x is empty");
    }
}
