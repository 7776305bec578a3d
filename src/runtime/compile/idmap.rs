//! Id-mapped mounts: whose owners the files of a mount show.

use super::namespaces::lines;
use crate::host::Host;
use crate::plan::{IdMap, Maps};
use crate::spec::mount::MountOptions;
use crate::spec::{Namespace, Spec};
use crate::{Code, Error, Result};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount};
use std::fmt::Write;

/// The id map of entry `origin`, if it asks for one: its own mappings, else those of the container's user namespace.
pub(super) fn of(
    origin: &str,
    entry: &Mount,
    options: &MountOptions,
    spec: &Spec,
    host: &Host,
) -> Result<Option<IdMap>> {
    let own = entry.uid_mappings().iter().flatten().next().is_some();
    let recursive = match &options.idmap {
        Some(word) => word.recursive,
        None if own => false,
        None => return Ok(None),
    };
    let outside = host.caller.clones_mounts;
    if !outside && options.bind.is_some() {
        return Err(takes_root(
            origin,
            "an id-mapped bind mount takes root: the kernel maps only what belongs to a user namespace of the caller's",
        ));
    }
    // There /proc may be that of other processes: what writes the map would not find its own.
    if !outside && matches!(spec.namespace(LinuxNamespaceType::Mount), Namespace::Join(_)) {
        return Err(takes_root(origin, "an id-mapped mount in a mount namespace that is joined takes root"));
    }
    let linux = spec.linux().as_ref();
    let (uid, gid) = match (own, spec.namespace(LinuxNamespaceType::User), linux) {
        (true, ..) => (entry.uid_mappings(), entry.gid_mappings()),
        (false, Namespace::Join(path), _) if outside => {
            return Ok(Some(IdMap::Joined { path: path.to_path_buf(), recursive }));
        }
        (false, Namespace::New, Some(linux)) => (linux.uid_mappings(), linux.gid_mappings()),
        (false, Namespace::Join(_), _) => return Err(takes_root(origin, NOT_NEW)),
        // `spec` has refused it.
        _ => return Ok(None),
    };
    let maps = match outside {
        true => [lines(uid), lines(gid)],
        false => [inside(origin, "uid", uid, spec)?, inside(origin, "gid", gid, spec)?],
    };
    let [uid, gid] = maps;
    Ok(Some(IdMap::Own { maps: Maps { uid, gid, unprivileged: None }, recursive }))
}

/// Without root a running container gets none: what writes the maps could be looked into by its processes.
pub(super) fn refuse(origin: &str, entry: &Mount) -> Result<()> {
    let own = entry.uid_mappings().iter().flatten().next().is_some();
    match own || MountOptions::of(entry).idmap.is_some() {
        true => Err(takes_root(origin, "an id-mapped mount in a running container takes root")),
        false => Ok(()),
    }
}

const NOT_NEW: &str = "an id-mapped mount takes root where the container does not make its user namespace: rcrun does not know what that one maps";

fn takes_root(origin: &str, text: &str) -> Error {
    Error::config(origin, text).with_code(Code::Host)
}

/// The lines of a map that is written in the container's own user namespace: the machine's ids, which config.json names, as
/// the container sees them. Without root a file system is made there, and the map's namespace lies below.
fn inside(origin: &str, ids: &str, mappings: &Option<Vec<LinuxIdMapping>>, spec: &Spec) -> Result<String> {
    let linux = spec.linux().as_ref().filter(|_| spec.namespace(LinuxNamespaceType::User) == Namespace::New);
    let Some(linux) = linux else { return Err(takes_root(origin, NOT_NEW)) };
    let containers = if ids == "uid" { linux.uid_mappings() } else { linux.gid_mappings() };
    let seen = |host: u32, size: u32| {
        containers.iter().flatten().find_map(|map| {
            let first = host.checked_sub(map.host_id())?;
            (u64::from(first) + u64::from(size) <= u64::from(map.size())).then(|| map.container_id() + first)
        })
    };
    let mut text = String::new();
    for (i, map) in mappings.iter().flatten().enumerate() {
        let Some(host) = seen(map.host_id(), map.size()) else {
            let (first, size) = (map.host_id(), map.size());
            return Err(Error::config(
                format!("{origin}/{ids}Mappings/{i}/hostID"),
                format!(
                    "the {size} ids from {first} on are not in one entry of /linux/{ids}Mappings: without root a mount shows only ids that the container has"
                ),
            ));
        };
        let _ = writeln!(text, "{} {host} {}", map.container_id(), map.size());
    }
    Ok(text)
}
