//! What this machine has of what rcrun uses, found by trying it: for `rcrun doctor`. Uses: cgroup, host, sys, systemd.

mod cgroup;
mod kernel;
mod users;

use crate::host::Caller;
use serde::Serialize;

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// It is not there, and rcrun does without it.
    Without,
    /// It is not there, and containers need it.
    Missing,
}

/// One line of what `rcrun doctor` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to.
    pub area: &'static str,
    /// What was tried.
    pub name: &'static str,
    /// How it went.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What rcrun does with it, or without it.
    pub effect: String,
    /// What to do about it, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The whole.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `root`, `user`, or `root of a user namespace`: what is needed depends on it.
    pub role: &'static str,
    /// All that this role needs is there.
    pub healthy: bool,
    /// In the order in which they are shown.
    pub findings: Vec<Finding>,
}

/// What was tried, before it is known how it went.
struct Trial {
    area: &'static str,
    name: &'static str,
    needed: bool,
    effect: &'static str,
    without: &'static str,
    remedy: &'static str,
}

fn trial(
    area: &'static str,
    name: &'static str,
    needed: bool,
    effect: &'static str,
    without: &'static str,
    remedy: &'static str,
) -> Trial {
    Trial { area, name, needed, effect, without, remedy }
}

impl Trial {
    /// Of `found`, an error says that it is not there.
    fn finding(&self, found: Result<String, String>) -> Finding {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
        let (state, found, effect, remedy) = match (found, self.needed) {
            (Ok(found), _) => (State::Ok, found, self.effect, None),
            (Err(found), true) => (State::Missing, found, self.without, some(self.remedy)),
            (Err(found), false) => (State::Without, found, self.without, some(self.remedy)),
        };
        Finding { area: self.area, name: self.name, state, found, effect: effect.to_string(), remedy }
    }
}

/// Looks at everything. The process must have one thread.
pub fn examine() -> Report {
    let caller = Caller::read();
    let mut findings = kernel::examine(&caller);
    findings.extend(cgroup::examine(&caller));
    findings.extend(users::examine(&caller));
    Report { role: role(&caller), healthy: healthy(&findings), findings }
}

fn role(caller: &Caller) -> &'static str {
    match (caller.is_rootless(), caller.uid) {
        (false, _) => "root",
        (true, 0) => "root of a user namespace",
        (true, _) => "user",
    }
}

fn healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Missing)
}

/// An errno in words.
fn told(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no such call, or a filter hides it".to_string(),
        Some(errno) => crate::error::errno_text(errno),
        None => error.to_string(),
    }
}

/// A file in `PATH`.
fn program(name: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let files =
        std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    let mut files =
        files.filter(|f| f.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0));
    files.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: Trial = Trial {
        area: "kernel",
        name: "openat2",
        needed: true,
        effect: "paths stay below the root",
        without: "nothing can be made",
        remedy: "boot another kernel",
    };

    #[test]
    fn a_remedy_is_told_only_where_something_lacks() {
        let fine = TRIAL.finding(Ok("there".into()));
        assert_eq!(
            (fine.state, fine.effect.as_str(), fine.remedy.as_deref()),
            (State::Ok, TRIAL.effect, None)
        );
        let missing = TRIAL.finding(Err("ENOSYS".into()));
        assert_eq!((missing.state, missing.remedy.as_deref()), (State::Missing, Some("boot another kernel")));
        let optional = Trial { needed: false, remedy: "", ..TRIAL }.finding(Err("no".into()));
        assert_eq!((optional.state, optional.remedy), (State::Without, None));
    }

    #[test]
    fn only_what_is_needed_makes_a_machine_unhealthy() {
        let finding =
            |needed, ok| Trial { needed, ..TRIAL }.finding(if ok { Ok("".into()) } else { Err("".into()) });
        for (needed, ok, expected) in
            [(true, true, true), (true, false, false), (false, false, true), (false, true, true)]
        {
            assert_eq!(healthy(&[finding(true, true), finding(needed, ok)]), expected);
        }
    }

    #[test]
    fn the_role_is_that_of_the_caller() {
        let user = Caller { uid: 7, privileged: false, ..Caller::ROOT };
        let guest = Caller { user_namespace: true, ..Caller::ROOT };
        let roles = [Caller::ROOT, user, guest].map(|caller| role(&caller));
        assert_eq!(roles, ["root", "user", "root of a user namespace"]);
    }
}
