//! What containerd's configuration says of the runtime: the options of the runc shim. Pure.

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci;
use rcrun_runtime::{Code, Error, Result};

/// Where containers' states lie where the options name no other place; a folder for each of containerd's namespaces.
const ROOT: &str = "/run/containerd/rcrun";

/// The options that rcrun has an answer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// chroot in place of pivot_root.
    pub no_pivot_root: bool,
    /// Stay in the shim's session keyring.
    pub no_new_keyring: bool,
    /// Cgroups are scopes of systemd's.
    pub systemd_cgroup: bool,
    /// The cgroup that the shim goes to.
    pub shim_cgroup: String,
    /// Whose pipes are.
    pub io_uid: u32,
    /// The same of the group.
    pub io_gid: u32,
    /// Where containers' states lie.
    pub root: String,
    /// What was named and is not used; to be told.
    pub unused: Vec<String>,
}

/// Reads them. None are given where `any` is missing or names no type.
pub fn read(any: Option<&Any>) -> Result<Options> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Options::default()) };
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != "containerd.runc.v1.Options" {
        return Err(Error::new(
            Code::Unsupported,
            format!(
                "runtime options of type {name}: rcrun takes those of the runc shim (containerd.runc.v1.Options)"
            ),
        ));
    }
    let given = oci::Options::parse_from_bytes(&any.value)
        .map_err(|e| Error::new(Code::Usage, format!("runtime options cannot be read: {e}")))?;
    let mut unused = Vec::new();
    for (name, value) in [
        ("BinaryName", &given.binary_name),
        ("CriuImagePath", &given.criu_image_path),
        ("CriuWorkPath", &given.criu_work_path),
    ] {
        if !value.is_empty() {
            unused.push(format!("the option {name} = {value} is not used: this shim does all by itself"));
        }
    }
    Ok(Options {
        no_pivot_root: given.no_pivot_root,
        no_new_keyring: given.no_new_keyring,
        systemd_cgroup: given.systemd_cgroup,
        shim_cgroup: given.shim_cgroup,
        io_uid: given.io_uid,
        io_gid: given.io_gid,
        root: given.root,
        unused,
    })
}

impl Options {
    /// The state root of the containers of `namespace`.
    pub fn state_root(&self, namespace: &str) -> std::path::PathBuf {
        let root = if self.root.is_empty() { ROOT } else { &self.root };
        std::path::Path::new(root).join(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(options: &oci::Options) -> Any {
        Any {
            type_url: "types.containerd.io/containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    #[test]
    fn options_are_those_of_the_runc_shim() {
        assert_eq!(read(None).unwrap(), Options::default());
        assert_eq!(
            read(Some(&Any::default())).unwrap().state_root("k8s.io").as_os_str(),
            "/run/containerd/rcrun/k8s.io"
        );
        let mut given = oci::Options::new();
        given.no_pivot_root = true;
        given.io_uid = 7;
        given.systemd_cgroup = true;
        given.root = "/run/other".into();
        given.binary_name = "/usr/sbin/runc".into();
        let read_back = read(Some(&any(&given))).unwrap();
        assert!(read_back.no_pivot_root && !read_back.no_new_keyring && read_back.systemd_cgroup);
        assert_eq!((read_back.io_uid, read_back.io_gid), (7, 0));
        assert_eq!(read_back.state_root("moby").as_os_str(), "/run/other/moby");
        assert_eq!(read_back.unused.len(), 1);
    }

    #[test]
    fn options_of_another_type_are_refused_by_name() {
        let mut other = any(&oci::Options::new());
        other.type_url = "runtimeoptions.v1.Options".into();
        let error = read(Some(&other)).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
        assert!(error.to_string().contains("runtimeoptions.v1.Options"), "{error}");
    }
}
