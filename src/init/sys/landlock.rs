//! The three calls of landlock(7).
#![allow(unsafe_code)]

use super::{Fd, Result, done, n, numbers::*, open};

/// landlock_create_ruleset(2).
pub fn create(files: u64, ports: u64, scopes: u64) -> Result<Fd> {
    // An older kernel takes the longer structure as long as what it does not know is zero.
    let attr = [files, ports, scopes];
    // SAFETY: attr is struct landlock_ruleset_attr as of Linux 6.12, 24 bytes.
    unsafe { open(LANDLOCK_CREATE_RULESET, [attr.as_ptr() as usize, 24, 0, 0, 0, 0]) }
}

/// landlock_add_rule(2), LANDLOCK_RULE_PATH_BENEATH.
pub fn add_path(ruleset: i32, path: i32, access: u64) -> Result<()> {
    // It is packed: 8 bytes of rights, 4 of fd.
    #[repr(C, packed)]
    struct Beneath {
        access: u64,
        fd: i32,
    }
    let rule = Beneath { access, fd: path };
    // SAFETY: rule is struct landlock_path_beneath_attr.
    unsafe { done(LANDLOCK_ADD_RULE, [n(ruleset), 1, &raw const rule as usize, 0, 0, 0]) }
}

/// landlock_add_rule(2), LANDLOCK_RULE_NET_PORT.
pub fn add_port(ruleset: i32, port: u16, access: u64) -> Result<()> {
    let rule = [access, u64::from(port)];
    // SAFETY: rule is struct landlock_net_port_attr, 16 bytes.
    unsafe { done(LANDLOCK_ADD_RULE, [n(ruleset), 2, rule.as_ptr() as usize, 0, 0, 0]) }
}

/// landlock_restrict_self(2).
pub fn restrict(ruleset: i32) -> Result<()> {
    // SAFETY: no pointer.
    unsafe { done(LANDLOCK_RESTRICT_SELF, [n(ruleset), 0, 0, 0, 0, 0]) }
}
