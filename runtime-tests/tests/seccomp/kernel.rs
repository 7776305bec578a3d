//! The kernel takes the filters, and they do what they say.

use oci_spec::runtime::LinuxSeccomp;
use rcrun_runtime::host::Arch;
use rcrun_runtime::seccomp::{Filter, compile};

use super::profiles;
use super::sys::under_filter;

const NATIVE: Arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };

fn filter(json: &str) -> Filter {
    compile(&serde_json::from_str::<LinuxSeccomp>(json).unwrap(), NATIVE).unwrap()
}

/// No kernel has it yet, and no profile names it.
const NEWER: i64 = 9999;

#[test]
fn dockers_profile_allows_denies_and_knows_what_is_newer() {
    let name = if NATIVE == Arch::X86_64 { "docker-default" } else { "docker-26-aarch64" };
    let filter = compile(&profiles::sample(name), NATIVE).unwrap();
    let calls = [
        (libc::SYS_getpid, 0),
        (libc::SYS_mount, 0),
        (libc::SYS_personality, 0xffff_ffff),
        (libc::SYS_personality, 0x0040_0000),
        (libc::SYS_unshare, libc::CLONE_NEWUTS as u64),
        (libc::SYS_clone3, 0),
        (NEWER, 0),
    ];
    assert_eq!(
        under_filter(&filter, &calls),
        Ok(vec![0, 0, libc::EPERM, 0, libc::EPERM, libc::EPERM, libc::ENOSYS, libc::ENOSYS])
    );
}

#[test]
fn each_flag_is_one_the_kernel_knows() {
    for flag in ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"] {
        let filter = filter(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_{flag}"]}}"#
        ));
        assert_eq!(under_filter(&filter, &[(libc::SYS_getpid, 0)]), Ok(vec![0, 0]), "{flag}");
    }
}

#[test]
fn actions_end_as_they_say() {
    for (action, expected) in [
        ("SCMP_ACT_KILL", Err(libc::SIGSYS)),
        ("SCMP_ACT_KILL_THREAD", Err(libc::SIGSYS)),
        ("SCMP_ACT_KILL_PROCESS", Err(libc::SIGSYS)),
        ("SCMP_ACT_TRAP", Err(libc::SIGSYS)),
        ("SCMP_ACT_ERRNO", Ok(vec![0, libc::EPERM])),
        // No tracer: the call fails.
        ("SCMP_ACT_TRACE", Ok(vec![0, libc::ENOSYS])),
        ("SCMP_ACT_LOG", Ok(vec![0, 0])),
    ] {
        let filter = filter(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["getppid"], "action": "{action}"}}]}}"#
        ));
        assert_eq!(under_filter(&filter, &[(libc::SYS_getppid, 0)]), expected, "{action}");
    }
}
