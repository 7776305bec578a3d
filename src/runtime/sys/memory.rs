//! Pages that a start is sure to touch, asked for in one call instead of a fault each (2 us, more in a virtual machine);
//! and pages that were needed and are not for now.
#![allow(unsafe_code)]

use std::io;

/// What a start uses of its stack below `main`, measured: more would be pages for nothing. The kernel maps 128 KiB of it at
/// exec (setup_arg_pages, fs/exec.c).
const STACK: usize = 84 << 10;

/// Makes the next pages of the stack present. A kernel before 5.14 has no MADV_POPULATE_WRITE, which is no harm.
pub fn populate_stack() {
    let here = 0u8;
    let page = 4096;
    let top = std::ptr::from_ref(&here) as usize & !(page - 1);
    // SAFETY: populating changes no content; where part of the range is not mapped the call fails and does nothing.
    unsafe {
        libc::madvise((top - STACK) as *mut libc::c_void, STACK, libc::MADV_POPULATE_WRITE);
    }
}

/// Lets go of this program's own code and constants: a process that has done its work, and waits, needs a tenth of them.
/// They stay in the page cache, from where what is needed comes back.
pub fn let_go_of_program() -> io::Result<()> {
    let own = std::fs::read_link("/proc/self/exe")?;
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    for (start, end) in unchanged_parts(&smaps, &own.to_string_lossy()) {
        // SAFETY: the kernel says that no page of this private mapping differs from the file, and as it cannot be written
        // none ever will: whoever reads or executes it meanwhile finds the same bytes again.
        if unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The mappings of the program `own` that cannot be written and have no page of their own (as those have that were
/// relocated before they became read-only), from the text of /proc/PID/smaps.
fn unchanged_parts(smaps: &str, own: &str) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            if anonymous.trim() == "0 kB" {
                parts.extend(candidate);
            }
            candidate = None;
        } else if !line.split(' ').next().is_some_and(|word| word.ends_with(':')) {
            candidate = read_only_part(line, own);
        }
    }
    parts
}

fn read_only_part(line: &str, own: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let mode = words.next()?;
    // Behind it are the offset, the device and the inode, which is 0 where there is no file.
    let of_file = words.nth(2)? != "0";
    let number = |text| usize::from_str_radix(text, 16).ok();
    let wanted = mode.starts_with("r-") && mode.ends_with('p') && of_file && line.ends_with(own);
    if wanted { Some((number(start)?, number(end)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_differ_from_the_file_is_let_go_of() {
        for (line, anonymous, expected) in [
            ("00400000-00401000 r--p 00000000 fe:00 77   /bin/shim", 0, vec![(0x40_0000, 0x40_1000)]),
            ("00401000-00403000 r-xp 00001000 fe:00 77   /bin/shim", 0, vec![(0x40_1000, 0x40_3000)]),
            ("00401000-00403000 r--p 00001000 fe:00 77   /bin/shim", 4, vec![]),
            ("00403000-00404000 rw-p 00003000 fe:00 77   /bin/shim", 0, vec![]),
            ("00404000-00405000 r--p 00000000 fe:00 78   /lib/other", 0, vec![]),
            ("00404000-00405000 r--s 00000000 fe:00 77   /bin/shim", 0, vec![]),
            ("7ffc0000-7ffd0000 r--p 00000000 00:00 0", 0, vec![]),
        ] {
            let smaps = format!("{line}\nSize: 4 kB\nAnonymous:       {anonymous} kB\nVmFlags: rd mr\n");
            assert_eq!(unchanged_parts(&smaps, "/bin/shim"), expected, "{line}");
        }
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        let resident = || {
            let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        // Reading all of it makes it present.
        let own = std::fs::read("/proc/self/exe").unwrap();
        let words: usize = own.iter().filter(|byte| **byte == b' ').count();
        let before = resident();
        let_go_of_program().unwrap();
        let after = resident();
        assert!(words > 0 && after < before, "{before} kB, and then {after} kB");
    }
}
