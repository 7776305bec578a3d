//! Landlock: which rights the kernel is told to deny, and where it allows them. The bits are those of linux/landlock.h; what
//! a kernel knows of them is told by its version.

use super::in_root;
use crate::host::Host;
use crate::plan::Plan;
use crate::spec::Spec;
use crate::spec::landlock::{ANNOTATION, Rules, Scope};
use crate::{Code, Error, Result};
use rcrun_plan::Step;
use std::path::Path;

const EXECUTE: u64 = 1;
const READ: u64 = 1 << 2 | 1 << 3;
/// Write, remove, make nodes of each kind, link across folders, truncate, ioctl of devices.
const WRITE: u64 = 1 << 1 | 0x1ff << 4 | 1 << 13 | 1 << 14 | 1 << 15;
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;

const ORIGIN: &str = "/annotations/org.rcrun.landlock";

/// The annotation's value.
pub(super) fn annotation(spec: &Spec) -> Option<&str> {
    spec.annotations().as_ref()?.get(ANNOTATION).map(String::as_str)
}

/// The rights on files that this kernel knows.
fn known(kernel: (u32, u32)) -> u64 {
    let since = |version: (u32, u32), bit: u64| if kernel >= version { 1 << bit } else { 0 };
    0x1fff | since((5, 19), 13) | since((6, 2), 14) | since((6, 10), 15)
}

/// The steps, which come while init may still do all: what follows them is not restricted, but for the payload.
pub(super) fn compile(value: &str, host: &Host, plan: &mut Plan) -> Result<()> {
    let rules = Rules::parse(value).map_err(|why| Error::config(ORIGIN, why))?;
    let too_old = |what: &str, version: &str| {
        let text = format!("{what} takes Linux {version} or later");
        Error::config(ORIGIN, text).with_code(Code::Host)
    };
    let files = if rules.of_files() { known(host.kernel) } else { 0 };
    let mut ports = 0;
    for (bit, list) in [(BIND_TCP, &rules.bind_tcp), (CONNECT_TCP, &rules.connect_tcp)] {
        ports |= if list.is_some() { bit } else { 0 };
    }
    if ports != 0 && host.kernel < (6, 7) {
        return Err(too_old("Landlock for TCP ports", "6.7"));
    }
    let scopes = rules.scope.iter().flatten().fold(0, |all, scope| {
        all | match scope {
            Scope::AbstractUnixSocket => 1,
            Scope::Signal => 1 << 1,
        }
    });
    if scopes != 0 && host.kernel < (6, 12) {
        return Err(too_old("a scope of Landlock", "6.12"));
    }
    if files | ports | scopes == 0 {
        return Ok(());
    }
    plan.push(ORIGIN, Step::LandlockRules { files, ports, scopes });
    for (access, list) in
        [(READ, &rules.read), (READ | EXECUTE, &rules.execute), (READ | WRITE, &rules.write)]
    {
        for path in list.iter().flatten() {
            let path = in_root(Path::new(path));
            plan.push(ORIGIN, Step::LandlockPath { path, access: access & files });
        }
    }
    for (access, list) in [(BIND_TCP, &rules.bind_tcp), (CONNECT_TCP, &rules.connect_tcp)] {
        for port in list.iter().flatten() {
            plan.push(ORIGIN, Step::LandlockPort { port: *port, access });
        }
    }
    plan.push(ORIGIN, Step::LandlockRestrict);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Arch, Caller};

    fn host(kernel: (u32, u32)) -> Host {
        let arch = Arch::X86_64;
        let (apparmor, selinux, caller) = (false, false, Caller::ROOT);
        Host { kernel, last_cap: 40, bounding: !0, arch, apparmor, selinux, caller }
    }

    #[test]
    fn what_a_kernel_does_not_know_is_left_out_of_files_and_refused_of_ports_and_scopes() {
        for (value, kernel, expected) in [
            (r#"{"read": []}"#, (5, 14), Ok(Some((0x1fff, 0, 0)))),
            (r#"{"read": []}"#, (5, 19), Ok(Some((0x3fff, 0, 0)))),
            (r#"{"read": []}"#, (6, 2), Ok(Some((0x7fff, 0, 0)))),
            (r#"{"read": []}"#, (6, 10), Ok(Some((0xffff, 0, 0)))),
            (r#"{"bindTcp": []}"#, (6, 7), Ok(Some((0, 1, 0)))),
            (r#"{"connectTcp": [], "bindTcp": [1]}"#, (6, 7), Ok(Some((0, 3, 0)))),
            (r#"{"scope": ["signal"]}"#, (6, 12), Ok(Some((0, 0, 2)))),
            ("{}", (5, 14), Ok(None)),
            (r#"{"scope": []}"#, (5, 14), Ok(None)),
            (r#"{"bindTcp": []}"#, (6, 6), Err("Landlock for TCP ports takes Linux 6.7 or later")),
            (r#"{"scope": ["signal"]}"#, (6, 11), Err("a scope of Landlock takes Linux 6.12 or later")),
            (r#"{"read": 1}"#, (6, 12), Err("invalid type")),
        ] {
            let mut plan = Plan::default();
            match (compile(value, &host(kernel), &mut plan), expected) {
                (Ok(()), Ok(handled)) => {
                    let first = plan.steps.first().map(|planned| match planned.step {
                        Step::LandlockRules { files, ports, scopes } => (files, ports, scopes),
                        ref other => panic!("{other:?}"),
                    });
                    assert_eq!(first, handled, "{value} on {kernel:?}");
                    assert_eq!(plan.steps.last().map(|p| &p.step), handled.map(|_| &Step::LandlockRestrict));
                }
                (Err(error), Err(words)) => {
                    assert_eq!(error.pointer(), Some(ORIGIN));
                    assert!(error.to_string().contains(words), "{error}");
                }
                (outcome, _) => panic!("{value} on {kernel:?}: {outcome:?}"),
            }
        }
    }
}
