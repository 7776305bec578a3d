//! The compiler without a kernel or libseccomp: faults, warnings, flags, and programs short enough to read.
//! The comparison with libseccomp is in runtime-tests.

use serde_json::{Value, json};

use super::*;
use crate::Code;

fn compiled(profile: Value) -> Result<Filter> {
    compile(&serde_json::from_value(profile).unwrap(), host::Arch::X86_64)
}

fn rule(rule: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL"}, rule]})
}

#[test]
fn faults_name_the_field() {
    let arg = |index: u32| json!({"index": index, "value": 1, "op": "SCMP_CMP_EQ"});
    let table = [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}),
            Code::Config,
            "/linux/seccomp/defaultAction",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            Code::Config,
            "/linux/seccomp/listenerMetadata",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                   "syscalls": [{"names": ["open", "write"], "action": "SCMP_ACT_NOTIFY"}]}),
            Code::Config,
            "/linux/seccomp/syscalls/0/action",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            Code::Config,
            "/linux/seccomp/defaultErrnoRet",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}),
            Code::Config,
            "/linux/seccomp/defaultErrnoRet",
        ),
        (
            rule(json!({"names": ["open"], "action": "SCMP_ACT_NOTIFY"})),
            Code::Config,
            "/linux/seccomp/syscalls/1/action",
        ),
        (
            rule(json!({"names": ["open"], "action": "SCMP_ACT_LOG", "errnoRet": 1})),
            Code::Config,
            "/linux/seccomp/syscalls/1/errnoRet",
        ),
        (
            rule(json!({"names": [], "action": "SCMP_ACT_LOG"})),
            Code::Config,
            "/linux/seccomp/syscalls/1/names",
        ),
        (
            rule(json!({"names": ["open", ""], "action": "SCMP_ACT_LOG"})),
            Code::Config,
            "/linux/seccomp/syscalls/1/names/1",
        ),
        (
            rule(json!({"names": ["open"], "action": "SCMP_ACT_LOG", "args": [arg(5), arg(6)]})),
            Code::Config,
            "/linux/seccomp/syscalls/1/args/1/index",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["open"], "action": "SCMP_ACT_LOG", "args": [arg(0)]},
                {"names": ["open"], "action": "SCMP_ACT_TRAP", "args": [arg(0)]},
            ]}),
            Code::Config,
            "/linux/seccomp/syscalls/1",
        ),
    ];
    for (profile, code, pointer) in table {
        let error = compiled(profile.clone()).expect_err(&profile.to_string());
        assert_eq!((error.code(), error.pointer()), (code, Some(pointer)), "{error}");
    }
}

#[test]
fn a_program_that_no_kernel_takes_is_an_error() {
    let rules: Vec<_> = (0..3000u64)
        .map(|value| {
            json!({"names": ["ioctl"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 1, "value": value << 32 | value, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let error = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})).unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/seccomp"));
    assert!(error.to_string().contains("4096"), "{error}");
}

#[test]
fn unknown_names_are_ignored_with_a_warning() {
    let filter = compiled(rule(json!({"names": ["open", "opne"], "action": "SCMP_ACT_LOG"}))).unwrap();
    let without = compiled(rule(json!({"names": ["open"], "action": "SCMP_ACT_LOG"}))).unwrap();
    assert_eq!(filter.program, without.program);
    assert_eq!(
        filter.warnings,
        [
            "config.json: /linux/seccomp/syscalls/1/names/1: there is no system call \"opne\": the name is ignored"
        ]
    );
}

#[test]
fn flags_are_the_kernels_bits() {
    let flag = |name: &str| format!("SECCOMP_FILTER_FLAG_{name}");
    let table = [
        (json!(null), 4, 0),
        (json!([]), 0, 0),
        (json!([flag("TSYNC")]), 1, 0),
        (json!([flag("LOG"), flag("SPEC_ALLOW")]), 6, 0),
        (json!([flag("WAIT_KILLABLE_RECV")]), 0, 1),
    ];
    for (flags, bits, warnings) in table {
        let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags})).unwrap();
        assert_eq!((filter.flags, filter.warnings.len()), (bits, warnings), "{flags}");
    }
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[test]
fn one_forbidden_call_is_one_comparison() {
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X32"],
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]}));
    assert_eq!(
        filter.unwrap().program,
        [
            op(0x20, 0, 0, 4),
            op(0x15, 1, 0, 0xc000_003e),
            op(0x06, 0, 0, 0),
            op(0x20, 0, 0, 0),
            op(0x15, 1, 0, 0x4000_0000 + 79),
            op(0x15, 0, 1, 79),
            op(0x06, 0, 0, 0x0005_0001),
            op(0x06, 0, 0, 0x7fff_0000),
        ]
    );
}

#[test]
fn a_rule_is_asked_where_an_earlier_one_begins_with_a_condition_that_always_holds() {
    let arg = |index: u32, op: &str, value: u64| json!({"index": index, "value": value, "valueTwo": value, "op": format!("SCMP_CMP_{op}")});
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_TRAP", "syscalls": [
        {"names": ["futex"], "action": "SCMP_ACT_LOG", "args": [arg(2, "GE", 0), arg(5, "MASKED_EQ", 40)]},
        {"names": ["futex"], "action": "SCMP_ACT_KILL_THREAD", "args": [arg(2, "LT", 0xffff_ffff)]},
    ]}))
    .unwrap();
    // The greatest argument that both rules are about, and its neighbour, with and without the bits of the mask.
    let table = [
        (0, 0, libc::SECCOMP_RET_KILL_THREAD),
        (0xffff_fffe, 0, libc::SECCOMP_RET_KILL_THREAD),
        (0xffff_ffff, 0, libc::SECCOMP_RET_TRAP),
        (1 << 32, 0, libc::SECCOMP_RET_TRAP),
        (0xffff_ffff, 40, libc::SECCOMP_RET_LOG),
        (1 << 32, 40, libc::SECCOMP_RET_LOG),
    ];
    for (third, sixth, action) in table {
        let args = [0, 0, third, 0, 0, sixth];
        let call = machine::Data::native("futex", host::Arch::X86_64, args).unwrap();
        assert_eq!(machine::run(&filter.program, &call), Some(action), "{args:x?}");
    }
}

#[test]
fn a_condition_that_always_holds_costs_nothing() {
    let program = |args: Value| {
        compiled(json!({"defaultAction": "SCMP_ACT_TRAP",
            "syscalls": [{"names": ["futex"], "action": "SCMP_ACT_LOG", "args": args}]}))
        .unwrap()
        .program
    };
    let always = json!({"index": 2, "value": 0, "op": "SCMP_CMP_GE"});
    let one = json!({"index": 5, "value": 1, "op": "SCMP_CMP_EQ"});
    assert_eq!(program(json!([always, one])), program(json!([one])));
}

#[test]
fn arguments_are_compared_in_halves_of_the_architectures_byte_order() {
    let loads = |arch: &str| {
        let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch],
            "syscalls": [{"names": ["riscv_flush_icache", "s390_sthyi", "cacheflush"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]}]}));
        let program = filter.unwrap().program;
        program.iter().filter(|i| i.code == 0x20 && i.k >= 16).map(|i| i.k).collect::<Vec<_>>()
    };
    // High half, low half; 32-bit architectures have but the low one.
    assert_eq!(loads("SCMP_ARCH_RISCV64"), [28, 24]);
    assert_eq!(loads("SCMP_ARCH_S390X"), [24, 28]);
    assert_eq!(loads("SCMP_ARCH_MIPS"), [28]);
    assert_eq!(loads("SCMP_ARCH_MIPSEL"), [24]);
    assert_eq!(loads("SCMP_ARCH_SH"), [24]);
    assert_eq!(loads("SCMP_ARCH_SHEB"), [28]);
    assert_eq!(loads("SCMP_ARCH_M68K"), [28]);
}

#[test]
fn all_architectures_of_the_spec_fit_in_one_program() {
    let names = [
        "NATIVE",
        "X86",
        "X86_64",
        "X32",
        "ARM",
        "AARCH64",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ];
    let architectures: Vec<_> = names.iter().map(|n| format!("SCMP_ARCH_{n}")).collect();
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures,
        "syscalls": [{"names": ["read", "openat", "socket"], "action": "SCMP_ACT_ALLOW"}]}))
    .unwrap();
    // NATIVE is x86_64, and x32 shares its value.
    let tests: Vec<_> = names
        .iter()
        .filter(|n| **n != "NATIVE" && **n != "X32")
        .map(|n| {
            serde_json::from_value::<oci_spec::runtime::Arch>(json!(format!("SCMP_ARCH_{n}"))).unwrap() as u32
        })
        .collect();
    for audit in tests {
        assert!(filter.program.iter().any(|i| i.code == 0x15 && i.k == audit), "{audit:#x}");
    }
}
