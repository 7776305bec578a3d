//! To which user a container's cgroup is given (config-linux.md, "Cgroup ownership"). Uses: spec.

use crate::spec::{Namespace, Spec};
use oci_spec::runtime::LinuxNamespaceType;
use std::path::Path;

/// The uid on the machine of the container's process, where the cgroup is to be its own: it has a new cgroup namespace,
/// and in it a writable cgroup file system.
pub fn cgroup_owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let mut mounts = spec.mounts().iter().flatten();
    let writable = mounts.any(|mount| {
        mount.source().as_deref() == Some(Path::new("cgroup"))
            && mount.destination().components().eq(Path::new("/sys/fs/cgroup").components())
            && !mount.options().iter().flatten().any(|option| option == "ro")
    });
    if !writable || spec.namespace(LinuxNamespaceType::Cgroup) != Namespace::New {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    if spec.namespace(LinuxNamespaceType::User) == Namespace::Inherit {
        return Some(uid);
    }
    linux.uid_mappings().iter().flatten().find_map(|map| {
        let offset = uid.checked_sub(map.container_id()).filter(|offset| *offset < map.size())?;
        map.host_id().checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;
    use serde_json::json;

    #[test]
    fn the_cgroup_is_given_away_only_where_it_can_be_written_from_inside() {
        let new = json!([{"type": "cgroup"}, {"type": "mount"}, {"type": "pid"}]);
        let user = json!([{"type": "cgroup"}, {"type": "mount"}, {"type": "user"}]);
        let none = json!([{"type": "mount"}]);
        let mount = |options| json!([{"destination": "/sys/fs/cgroup/", "type": "cgroup", "source": "cgroup", "options": options}]);
        let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 10, "hostID": 5, "size": 100}]);
        for (namespaces, mounts, uid, expected) in [
            (&new, mount(json!(["nosuid"])), 7, Some(7)),
            (&new, mount(json!(["nosuid", "ro"])), 7, None),
            (&new, json!([]), 7, None),
            (&none, mount(json!(["rw"])), 7, None),
            (&user, mount(json!(["rw"])), 0, Some(100_000)),
            (&user, mount(json!(["rw"])), 12, Some(7)),
        ] {
            let mut config = json!({
                "ociVersion": "1.0.2",
                "root": {"path": "rootfs"},
                "process": {"cwd": "/", "args": ["sh"], "user": {"uid": uid, "gid": 0}},
                "mounts": mounts,
                "linux": {"namespaces": namespaces}
            });
            if namespaces == &user {
                config["linux"]["uidMappings"] = maps.clone();
                config["linux"]["gidMappings"] = maps.clone();
            }
            let spec = parse(config.to_string().as_bytes()).unwrap();
            assert_eq!(cgroup_owner(&spec), expected, "{config}");
        }
    }
}
