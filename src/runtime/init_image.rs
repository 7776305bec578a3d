//! The program that carries plans out, as the build script made it. Uses nothing.

/// rcrun-init: a static ELF without libc, which `launch` runs from a sealed memfd.
pub static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rcrun-init"));

#[cfg(test)]
mod tests {
    use super::INIT;

    fn number(at: usize, size: usize) -> usize {
        INIT[at..at + size].iter().rev().fold(0, |n, byte| (n << 8) | usize::from(*byte))
    }

    #[test]
    fn init_is_a_static_elf_that_nothing_is_loaded_for() {
        const EXECUTABLE: usize = 2;
        const PT_LOAD: usize = 1;
        const PT_DYNAMIC: usize = 2;
        const PT_INTERP: usize = 3;
        assert_eq!(&INIT[..6], b"\x7fELF\x02\x01");
        assert_eq!(number(16, 2), EXECUTABLE);
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let kinds: Vec<_> = (0..count).map(|i| number(table + i * size, 4)).collect();
        assert!(kinds.contains(&PT_LOAD), "{kinds:?}");
        assert!(!kinds.contains(&PT_DYNAMIC) && !kinds.contains(&PT_INTERP), "{kinds:?}");
    }

    #[test]
    fn init_has_at_most_64_kib() {
        assert!(INIT.len() <= 64 << 10, "{} bytes", INIT.len());
    }
}
