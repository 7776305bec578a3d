//! Which cgroup an ordinary user's container may have: one that the user may make, and move a process into (cgroups(7),
//! "Delegation containment").

use std::path::Path;

use rustix::fs::{Access, AtFlags, accessat};

use super::{CgroupPath, Hierarchy};
use crate::{Code, Error, Result};

/// Where a container goes for whom not all cgroups are.
#[derive(Debug)]
pub enum Place {
    /// In this cgroup.
    In(CgroupPath),
    /// In none of its own, since none may be made: why not.
    Nowhere(String),
}

/// The cgroup for container `id` of a caller who may not make every cgroup. What config.json names is taken or refused; else
/// it lies where root's would, beside rcrun's own, or below that where only that is delegated.
pub fn place(hierarchy: &Hierarchy, cgroups_path: Option<&Path>, id: &str) -> Result<Place> {
    let own = hierarchy.own_path()?;
    let named = cgroups_path.is_some_and(|path| !path.as_os_str().is_empty());
    let outside = own.split('/').any(|name| name == "..");
    if outside && !named {
        return Ok(Place::Nowhere(format!("rcrun's own cgroup ({own}) is outside of its cgroup namespace")));
    }
    let first = CgroupPath::for_container(cgroups_path, id, || Ok(own.clone()))?;
    let Some(refused) = why_not(hierarchy, &first, &own) else { return Ok(Place::In(first)) };
    if named {
        return Err(Error::new(
            Code::Host,
            format!(
                "config.json: /linux/cgroupsPath: cgroup {first} cannot be had: {refused}{}",
                remedy(&own)
            ),
        )
        .at("/linux/cgroupsPath"));
    }
    let below = CgroupPath::parse(&format!("{}/{id}", own.trim_end_matches('/')))?;
    Ok(match why_not(hierarchy, &below, &own) {
        None => Place::In(below),
        Some(_) => Place::Nowhere(format!("{refused}{}", remedy(&own))),
    })
}

fn remedy(own: &str) -> String {
    format!(
        "; rcrun runs in cgroup {own}: start it in a scope that is delegated, with `systemd-run --user --scope --property=Delegate=yes rcrun ...`, or let systemd make the cgroup, with --systemd-cgroup"
    )
}

/// What keeps this process from making `path` and a child in it.
fn why_not(hierarchy: &Hierarchy, path: &CgroupPath, own: &str) -> Option<String> {
    let may = |relative: &str, access: Access| {
        let relative = if relative.is_empty() { "." } else { relative };
        accessat(hierarchy, relative, access, AtFlags::EACCESS)
    };
    // The deepest one that is there.
    let mut above = path.relative();
    let there = loop {
        above = above.rsplit_once('/').map_or("", |(above, _)| above);
        match may(above, Access::EXISTS) {
            Err(rustix::io::Errno::NOENT) if !above.is_empty() => {}
            _ => break above,
        }
    };
    if may(there, Access::WRITE_OK).is_err() {
        return Some(format!("this user may make no cgroup in /{there}"));
    }
    // A process is moved, or born, only by who may write to this file of the cgroup that its old and its new place share.
    let common = common(own, path.as_str());
    let procs = format!("{common}/cgroup.procs");
    let procs = procs.trim_start_matches('/');
    if may(procs, Access::WRITE_OK).is_err() {
        return Some(format!(
            "this user may move no process within cgroup /{}",
            common.trim_start_matches('/')
        ));
    }
    None
}

/// The deepest cgroup that both lie in, without `/` at its end.
fn common<'a>(own: &'a str, other: &str) -> &'a str {
    let mut length = 0;
    for (one, two) in own.split('/').zip(other.split('/')) {
        if one != two {
            break;
        }
        length += one.len() + 1;
    }
    &own[..length.saturating_sub(1).min(own.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cgroups_share_what_their_paths_have_in_common() {
        for (own, other, expected) in [
            ("/", "/web", ""),
            ("/user.slice/a.scope", "/user.slice/web", "/user.slice"),
            ("/user.slice/a.scope", "/user.slice/a.scope/web", "/user.slice/a.scope"),
            ("/user.slice/a.scope", "/user.slic/web", ""),
            ("/a/b/c", "/a/b", "/a/b"),
        ] {
            assert_eq!(common(own, other), expected, "{own} and {other}");
        }
    }
}
