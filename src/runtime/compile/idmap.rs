//! Id-mapped mounts: whose owners the files of a mount show.

use super::namespaces::lines;
use crate::host::Host;
use crate::plan::{IdMap, Maps};
use crate::spec::mount::MountOptions;
use crate::spec::{Namespace, Spec};
use crate::{Code, Error, Result};
use oci_spec::runtime::{LinuxNamespaceType, Mount};

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
    if !host.caller.clones_mounts {
        return Err(Error::config(
            origin,
            "an id-mapped mount takes root: the kernel maps only what belongs to a user namespace of the caller's",
        )
        .with_code(Code::Host));
    }
    let maps = |uid, gid| Maps { uid: lines(uid), gid: lines(gid), unprivileged: None };
    if own {
        let maps = maps(entry.uid_mappings(), entry.gid_mappings());
        return Ok(Some(IdMap::Own { maps, recursive }));
    }
    let linux = spec.linux().as_ref();
    Ok(match (spec.namespace(LinuxNamespaceType::User), linux) {
        (Namespace::Join(path), _) => Some(IdMap::Joined { path: path.to_path_buf(), recursive }),
        (Namespace::New, Some(linux)) => {
            let maps = maps(linux.uid_mappings(), linux.gid_mappings());
            Some(IdMap::Own { maps, recursive })
        }
        // `spec` has refused it.
        _ => None,
    })
}
