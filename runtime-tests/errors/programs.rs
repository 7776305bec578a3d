//! Programs that cannot be executed.

use super::scene::{ROOT, mounted, program, read_only};
use super::{Case, Told, case, told};
use crate::runtime::Said;
use nix::mount::MsFlags;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

const PART: &str = "programs";
const FIELD: &str = "/process/args/0";

fn one(
    name: &'static str,
    told: Told,
    act: impl Fn(&mut super::Scene) -> Said + Send + Sync + 'static,
) -> Case {
    case(PART, name, told, act)
}

/// The head of an ELF file for another machine: one that no emulator is registered for.
pub(super) fn foreign_elf() -> Vec<u8> {
    let mut elf = vec![0; 4096];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16] = 2;
    elf[18] = 50; // EM_IA_64
    elf[20] = 1;
    elf[52] = 64;
    elf
}

pub(super) fn cases() -> Vec<Case> {
    let at = |name: &str| format!("{ROOT}/{name}");
    vec![
        one(
            "a program that is not in $PATH",
            told("execute", FIELD, &["exec: \"nginx\": executable file not found in $PATH"]),
            |s| s.args(&["nginx"]).run(),
        ),
        one(
            "a program by an absolute path that is not there",
            told("execute", FIELD, &["exec: \"/usr/bin/nginx\"", "no such file or directory"]),
            |s| s.args(&["/usr/bin/nginx"]).run(),
        ),
        one(
            "a program by a relative path that is not there",
            told("execute", FIELD, &["exec: \"./nginx\"", "no such file or directory"]),
            |s| s.args(&["./nginx"]).run(),
        ),
        one(
            "no PATH in the environment",
            told("execute", FIELD, &["executable file not found in $PATH", "process.env sets no PATH"]),
            |s| s.put("/process/env", json!(["TERM=xterm"])).args(&["true"]).run(),
        ),
        one(
            "a program that is a folder",
            told("execute", FIELD, &["exec: \"/etc\"", "is a directory"]),
            |s| s.args(&["/etc"]).run(),
        ),
        one(
            "a program that nobody may execute",
            told("execute", FIELD, &["exec /run.sh:", "permission denied", "chmod"]),
            move |s| {
                program(&at("run.sh"), "#!/bin/sh\n", 0o644);
                s.args(&["/run.sh"]).run()
            },
        ),
        one(
            "a program that the user may not execute",
            told("execute", FIELD, &["exec /run.sh:", "permission denied", "uid 1000"]),
            move |s| {
                program(&at("run.sh"), "#!/bin/sh\n", 0o700);
                s.put("/process/user/uid", json!(1000)).args(&["/run.sh"]).run()
            },
        ),
        one(
            "a program in a folder that the user may not enter",
            told("execute", FIELD, &["exec /root/run.sh:", "permission denied"]),
            move |s| {
                program(&at("root/run.sh"), "#!/bin/sh\n", 0o755);
                fs::set_permissions(at("root"), fs::Permissions::from_mode(0o700)).expect("chmod");
                s.put("/process/user/uid", json!(1000)).args(&["/root/run.sh"]).run()
            },
        ),
        one(
            "a program for another architecture",
            told("execute", FIELD, &["exec /ia64:", "exec format error", "architecture"]),
            move |s| {
                program(&at("ia64"), foreign_elf(), 0o755);
                s.args(&["/ia64"]).run()
            },
        ),
        one(
            "a program that is empty",
            told("execute", FIELD, &["exec /empty:", "exec format error", "empty"]),
            move |s| {
                program(&at("empty"), "", 0o755);
                s.args(&["/empty"]).run()
            },
        ),
        one(
            "a script without a first line",
            told("execute", FIELD, &["exec /run.sh:", "exec format error", "#!"]),
            move |s| {
                program(&at("run.sh"), "echo hello\n", 0o755);
                s.args(&["/run.sh"]).run()
            },
        ),
        one(
            "a script whose interpreter is missing",
            told("execute", FIELD, &["exec: \"/run.sh\"", "no such file or directory", "/bin/bash"]),
            move |s| {
                program(&at("run.sh"), "#!/bin/bash\n", 0o755);
                s.args(&["/run.sh"]).run()
            },
        ),
        one(
            "a script with line ends of Windows",
            told("execute", FIELD, &["exec: \"/run.sh\"", "no such file or directory", "carriage return"]),
            move |s| {
                program(&at("run.sh"), "#!/bin/sh\r\necho hello\r\n", 0o755);
                s.args(&["/run.sh"]).run()
            },
        ),
        one(
            "a script whose interpreter nobody may execute",
            told("execute", FIELD, &["exec /run.sh:", "permission denied", "/etc/passwd"]),
            move |s| {
                program(&at("run.sh"), "#!/etc/passwd\n", 0o755);
                s.args(&["/run.sh"]).run()
            },
        ),
        one(
            "a dynamic program without its loader",
            told("execute", FIELD, &["exec: \"/env\"", "no such file or directory", "/lib64/ld-linux"]),
            move |s| {
                fs::copy("/usr/bin/env", at("env")).expect("copy");
                s.args(&["/env"]).run()
            },
        ),
        one(
            "a program on a mount with noexec",
            told("execute", FIELD, &["exec /bin/true:", "permission denied", "noexec"]),
            |s| {
                mounted(ROOT, None, ROOT, MsFlags::MS_BIND, None);
                mounted(ROOT, None, ROOT, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOEXEC, None);
                s.args(&["/bin/true"]).run()
            },
        ),
        one(
            "a program that is a link to nowhere",
            told("execute", FIELD, &["exec: \"/run.sh\"", "no such file or directory"]),
            move |s| {
                symlink("/nowhere", at("run.sh")).expect("symlink");
                s.args(&["/run.sh"]).run()
            },
        ),
        one(
            "a program that is a link to itself",
            told("execute", FIELD, &["exec /run.sh:", "too many levels of symbolic links"]),
            move |s| {
                symlink("run.sh", at("run.sh")).expect("symlink");
                s.args(&["/run.sh"]).run()
            },
        ),
        one(
            "a program that is a pipe",
            told("execute", FIELD, &["exec /pipe:", "permission denied", "regular file"]),
            move |s| {
                nix::unistd::mkfifo(at("pipe").as_str(), nix::sys::stat::Mode::from_bits_truncate(0o777))
                    .expect("mkfifo");
                s.args(&["/pipe"]).run()
            },
        ),
        one(
            "a program below a file",
            told("execute", FIELD, &["exec: \"/etc/passwd/x\"", "not a directory"]),
            |s| s.args(&["/etc/passwd/x"]).run(),
        ),
        one(
            "a working directory that is a file",
            told("system", "/process/cwd", &["/etc/passwd", "not a directory"]),
            |s| s.put("/process/cwd", json!("/etc/passwd")).run(),
        ),
        one(
            "a working directory that is missing on a read-only root",
            told("system", "/process/cwd", &["/srv/app", "read-only file system"]),
            |s| {
                read_only(ROOT);
                s.put("/process/cwd", json!("/srv/app")).run()
            },
        ),
        one(
            "a working directory through a link to itself",
            told("system", "/process/cwd", &["/loop", "too many levels of symbolic links"]),
            move |s| {
                symlink("loop", at("loop")).expect("symlink");
                s.put("/process/cwd", json!("/loop")).run()
            },
        ),
        one(
            "a limit above what the kernel allows",
            told(
                "system",
                "/process/rlimits/0",
                &["RLIMIT_NOFILE", "operation not permitted", "CAP_SYS_RESOURCE"],
            ),
            |s| {
                s.through(&["setpriv", "--bounding-set=-sys_resource"]);
                s.put(
                    "/process/rlimits/0",
                    json!({ "type": "RLIMIT_NOFILE", "hard": 1_u64 << 40, "soft": 1024 }),
                )
                .run()
            },
        ),
    ]
}
