#!/usr/bin/env python3
"""Writes src/runtime/seccomp/syscalls.rs: which number each system call has on each architecture.

Two sources, joined: libseccomp's own tables, asked through its public functions, and the kernel's
exported headers for what libseccomp does not know (newer calls, loongarch64, m68k, sh). Where both
know a number they have to agree; a difference is printed, and libseccomp's number taken.

usage: generate.py UAPI_DIR... > syscalls.rs      (see README.md)
"""
import ctypes
import os
import re
import sys

# column, libseccomp's token (None: libseccomp 2.5 has no such architecture), header, base the header leaves out
COLUMNS = [
    ("X86", 0x40000003, "x86/asm/unistd_32.h"),
    ("X86_64", 0xC000003E, "x86/asm/unistd_64.h"),
    ("X32", 0x4000003E, "x86/asm/unistd_x32.h"),
    ("ARM", 0x40000028, "arm/asm/unistd-eabi.h"),
    ("AARCH64", 0xC00000B7, "arm64/asm/unistd_64.h"),
    ("LOONGARCH64", None, "loongarch/asm/unistd_64.h"),
    ("M68K", None, "m68k/asm/unistd_32.h"),
    ("MIPS", 0x00000008, "mips/asm/unistd_o32.h"),
    ("MIPS64", 0x80000008, "mips/asm/unistd_n64.h"),
    ("MIPS64N32", 0xA0000008, "mips/asm/unistd_n32.h"),
    ("PARISC", 0x0000000F, "parisc/asm/unistd_32.h"),
    ("PARISC64", 0x8000000F, "parisc/asm/unistd_64.h"),
    ("PPC", 0x00000014, "powerpc/asm/unistd_32.h"),
    ("PPC64", 0x80000015, "powerpc/asm/unistd_64.h"),
    ("RISCV64", 0xC00000F3, "riscv/asm/unistd_64.h"),
    ("S390", 0x00000016, "s390/asm/unistd_32.h"),
    ("S390X", 0x80000016, "s390/asm/unistd_64.h"),
    ("SH", None, "sh/asm/unistd_32.h"),
]
BASES = {"__NR_Linux": {"MIPS": 4000, "MIPS64": 5000, "MIPS64N32": 6000},
         "__X32_SYSCALL_BIT": {"X32": 0x40000000}, "__NR_SYSCALL_BASE": {"ARM": 0}}
DEFINE = re.compile(r"#define\s+__NR_(\w+)\s+(?:\((\w+)\s*\+\s*(\d+)\)|(\d+))\s*$")
PRIVATE = range(0x0F0000, 0x0F0010)  # ARM's own calls: breakpoint, cacheflush, set_tls ...


def from_libseccomp(token, names):
    """name -> number of one architecture, as libseccomp resolves it."""
    lib = ctypes.CDLL("libseccomp.so.2")
    to_name = lib.seccomp_syscall_resolve_num_arch
    to_name.restype = ctypes.c_void_p
    to_name.argtypes = [ctypes.c_uint32, ctypes.c_int]
    to_number = lib.seccomp_syscall_resolve_name_arch
    to_number.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    bit = 0x40000000 if token == 0x4000003E else 0
    table = {}
    for number in list(range(0, 8000)) + list(PRIVATE):
        found = to_name(token, number | bit)
        if found:
            table[ctypes.string_at(found).decode()] = number | bit
    for name in names:
        number = to_number(token, name.encode())
        if number >= 0:
            table[name] = number  # aliases share a number: the scan above finds only one of them
    return table


def carried(name):
    """libseccomp's pseudo number of a call that socketcall(2) (101 and up) or ipc(2) (201 and up) carries, else 0."""
    lib = ctypes.CDLL("libseccomp.so.2")
    number = -lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(0x40000003), name.encode())
    return number if 100 < number <= 120 or 200 < number <= 224 else 0


def from_headers(column, header, folders):
    """name -> number of one architecture, from the first folder whose header has the name."""
    table = {}
    for folder in folders:
        path = os.path.join(folder, header)
        if not os.path.exists(path):
            continue
        for line in open(path, encoding="ascii"):
            match = DEFINE.match(line)
            if match and match[1] not in ("Linux", "syscalls") and not match[1].startswith("Linux_"):
                base = BASES[match[2]][column] if match[2] else 0
                table.setdefault(match[1], base + int(match[3] or match[4]))
    if not table:
        sys.exit(f"{header}: in none of {folders}")
    return table


def main():
    folders = sys.argv[1:]
    if not folders:
        sys.exit(__doc__)
    headers = {c: from_headers(c, h, folders) for c, _, h in COLUMNS}
    names = set().union(*headers.values())
    for _ in range(2):  # twice: the first round finds names that only libseccomp has
        library = {c: from_libseccomp(t, names) if t is not None else {} for c, t, _ in COLUMNS}
        names |= set().union(*library.values())
    rows = {}
    for name in sorted(n for n in names if not re.fullmatch(r"(reserved|unused)\d+", n)):  # gaps in mips' headers
        row = []
        for column, _, _ in COLUMNS:
            ours, theirs = headers[column].get(name), library[column].get(name)
            if ours is not None and theirs is not None and ours != theirs:
                print(f"{name} on {column}: header {ours}, libseccomp {theirs}", file=sys.stderr)
            number = theirs if theirs is not None else ours
            row.append(-1 if number is None else number)
        rows[name] = row
    out = sys.stdout.write
    out("""//! The number of each system call on each architecture.
//! Generated: change runtime-tests/seccomp-tables/generate.py, which asks libseccomp and the kernel's headers.

/// Columns of [`SYSCALLS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
""")
    for column, _, _ in COLUMNS:
        out(f"    {''.join(w.capitalize() for w in column.split('_', 1)) if column != 'X86_64' else 'X86_64'},\n")
    out("}\n\n/// Numbers in the order of [`Column`]; -1 where the architecture lacks the call. x32's carry bit 30.\n")
    out(f"pub(super) type Numbers = [i32; {len(COLUMNS)}];\n\n")
    out("""/// Sorted by name. The second field is not 0 for what some architectures multiplex: 100 and socketcall(2)'s
/// first argument, or 200 and ipc(2)'s.
#[rustfmt::skip]
""")
    out(f"pub(super) static SYSCALLS: [(&str, u8, Numbers); {len(rows)}] = [\n")
    for name, row in rows.items():
        out(f"    (\"{name}\", {carried(name)}, [{', '.join(map(str, row))}]),\n")
    out("];\n")


main()
