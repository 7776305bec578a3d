//! The process of a config, or of an exec. Uses: fault, scheduling, text.

use std::fmt::Arguments;

use oci_spec::runtime as oci;

use super::super::fault::{Fault, Quoted};
use super::scheduling;
use super::text::{Checked, absolute, bounded, count, string};

/// MAX_ARG_STRLEN of execve(2), which counts the NUL.
const MAX_ARG_STRLEN: usize = 128 << 10;
/// What execve(2) takes at most of all strings and their pointers: three quarters of _STK_LIM.
const MAX_ARGS: usize = 6 << 20;
/// NGROUPS_MAX.
const MAX_GROUPS: usize = 65536;
/// To setresuid(2) and chown(2) this id means "leave it".
const NO_ID: u32 = u32::MAX;

/// Checks `process`, which stands at the JSON pointer `base`.
pub fn process(process: &oci::Process, base: &str) -> Checked {
    unsupported(process, base)?;
    if let Some(size) = process.console_size() {
        for (field, value) in [("height", size.height()), ("width", size.width())] {
            if value > u64::from(u16::MAX) {
                let at = format_args!("{base}/consoleSize/{field}");
                return Err(Fault::new(
                    at,
                    format_args!("{value} is too large for a terminal (at most 65535)"),
                ));
            }
        }
    }
    user(process.user(), base)?;

    let args = process.args().as_deref().unwrap_or_default();
    match args {
        // config.md: "at least one entry is REQUIRED". (`process` itself may be missing until `start`.)
        [] => return Err(Fault::new(format_args!("{base}/args"), "args must not be empty")),
        [command, ..] if command.is_empty() => {
            // Docker makes exit status 127 of these words, as for runc.
            let text = "the command is empty: executable file not found in $PATH";
            return Err(Fault::new(format_args!("{base}/args/0"), text));
        }
        _ => {}
    }
    let env = process.env().as_deref().unwrap_or_default();
    strings(args, env, format_args!("{base}"))?;
    for (i, variable) in env.iter().enumerate() {
        // As runc: such an entry is a mistake of whoever wrote it, and getenv(3) never finds it.
        let why = match variable.find('=') {
            None => "invalid environment variable: missing '='",
            Some(0) => "invalid environment variable: name cannot be empty",
            Some(_) => continue,
        };
        return Err(Fault::new(
            format_args!("{base}/env/{i}"),
            format_args!("{why} in {}", Quoted(variable)),
        ));
    }

    let cwd = format_args!("{base}/cwd");
    if process.cwd().as_os_str().is_empty() {
        return Err(Fault::new(cwd, "Cwd property must not be empty"));
    }
    absolute(process.cwd(), cwd)?;
    rlimits(process.rlimits().as_deref().unwrap_or_default(), base)?;
    if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
        let at = format_args!("{base}/oomScoreAdj");
        return Err(Fault::new(at, format_args!("{score} is not between -1000 and 1000")));
    }
    scheduling::process(process, base)?;
    for (field, label) in
        [("apparmorProfile", process.apparmor_profile()), ("selinuxLabel", process.selinux_label())]
    {
        if let Some(label) = label {
            bounded(label, 4096, format_args!("{base}/{field}"))?;
        }
    }
    Ok(())
}

/// The strings of one execve(2).
pub fn strings(args: &[String], env: &[String], base: Arguments<'_>) -> Checked {
    let mut total = 0;
    for (field, list) in [("args", args), ("env", env)] {
        for (i, text) in list.iter().enumerate() {
            if text.len() >= MAX_ARG_STRLEN {
                let long = text.len();
                return Err(Fault::new(
                    format_args!("{base}/{field}/{i}"),
                    format_args!(
                        "argument list too long: {long} bytes, execve takes less than {MAX_ARG_STRLEN} in one string"
                    ),
                ));
            }
            string(text, format_args!("{base}/{field}/{i}"))?;
            // Each has a NUL and a pointer.
            total += text.len() + 1 + size_of::<usize>();
        }
        if total > MAX_ARGS {
            return Err(Fault::new(
                format_args!("{base}/{field}"),
                format_args!(
                    "argument list too long: args and env are {total} bytes, execve takes {MAX_ARGS}"
                ),
            ));
        }
    }
    Ok(())
}

fn unsupported(process: &oci::Process, base: &str) -> Checked {
    let fields = [
        ("commandLine", process.command_line().is_some(), "is a field of Windows containers"),
        (
            "user/username",
            process.user().username().as_ref().is_some_and(|u| !u.is_empty()),
            "is a field of Windows containers, use uid and gid",
        ),
    ];
    match fields.into_iter().find(|(_, there, _)| *there) {
        Some((field, _, why)) => Err(Fault::unsupported(format_args!("{base}/{field}"), why)),
        None => Ok(()),
    }
}

fn user(user: &oci::User, base: &str) -> Checked {
    for (field, id) in [("uid", user.uid()), ("gid", user.gid())] {
        if id == NO_ID {
            return Err(Fault::new(format_args!("{base}/user/{field}"), format_args!("{id} is not an id")));
        }
    }
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        let at = format_args!("{base}/user/umask");
        return Err(Fault::new(at, format_args!("{umask} is larger than 511 (octal 777)")));
    }
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    count(groups.len(), MAX_GROUPS, format_args!("{base}/user/additionalGids"))?;
    match groups.iter().position(|gid| *gid == NO_ID) {
        Some(i) => {
            let at = format_args!("{base}/user/additionalGids/{i}");
            Err(Fault::new(at, format_args!("{NO_ID} is not an id")))
        }
        None => Ok(()),
    }
}

fn rlimits(rlimits: &[oci::PosixRlimit], base: &str) -> Checked {
    let mut seen = 0u32;
    for (i, limit) in rlimits.iter().enumerate() {
        let kind = limit.typ();
        let bit = 1 << kind as u32;
        if seen & bit != 0 {
            return Err(Fault::new(
                format_args!("{base}/rlimits/{i}/type"),
                format_args!("duplicated rlimit {kind}"),
            ));
        }
        seen |= bit;
        if limit.soft() > limit.hard() {
            let (soft, hard) = (limit.soft(), limit.hard());
            return Err(Fault::new(
                format_args!("{base}/rlimits/{i}/soft"),
                format_args!("the soft limit {soft} of {kind} is above the hard limit {hard}"),
            ));
        }
    }
    Ok(())
}
