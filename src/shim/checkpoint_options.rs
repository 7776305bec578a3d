//! What containerd says of a checkpoint: the options of the runc shim for one. Uses: nothing of this crate.

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci;
use rcrun_runtime::container::{Cgroups, CheckpointOptions, Images};
use rcrun_runtime::{Code, Error, Result};
use std::path::PathBuf;

const TYPE: &str = "containerd.runc.v1.CheckpointOptions";

/// Reads them. `path` is the folder that containerd wants the images in; without one the options may name it.
pub fn read(path: &str, any: Option<&Any>) -> Result<CheckpointOptions> {
    let given = match any.filter(|any| !any.type_url.is_empty()) {
        None => oci::CheckpointOptions::new(),
        Some(any) if any.type_url.rsplit('/').next() == Some(TYPE) => {
            oci::CheckpointOptions::parse_from_bytes(&any.value)
                .map_err(|e| wrong(Code::Usage, format!("they cannot be read: {e}")))?
        }
        Some(any) => {
            let text = format!("type {}: rcrun takes those of the runc shim ({TYPE})", any.type_url);
            return Err(wrong(Code::Unsupported, text));
        }
    };
    let path = if path.is_empty() { given.image_path } else { path.to_string() };
    if path.is_empty() {
        return Err(wrong(Code::Usage, "no folder for the images is named".into()));
    }
    if let Some(other) = given.empty_namespaces.iter().find(|name| *name != "network") {
        let text = format!("empty_namespaces: {other}: only a network namespace can be left empty");
        return Err(wrong(Code::Unsupported, text));
    }
    let cgroups = match given.cgroups_mode.as_str() {
        "" => Cgroups::default(),
        word => Cgroups::named(word).ok_or_else(|| {
            wrong(Code::Usage, format!("cgroups_mode: {word}: it must be soft, full, strict or ignore"))
        })?,
    };
    Ok(CheckpointOptions {
        images: Images {
            path: PathBuf::from(path),
            work: Some(given.work_path).filter(|path| !path.is_empty()).map(PathBuf::from),
            tcp_established: given.open_tcp,
            ext_unix_sk: given.external_unix_sockets,
            shell_job: given.terminal,
            file_locks: given.file_locks,
            cgroups,
            empty_network: !given.empty_namespaces.is_empty(),
            ..Images::default()
        },
        leave_running: !given.exit,
        ..CheckpointOptions::default()
    })
}

fn wrong(code: Code, text: String) -> Error {
    Error::new(code, format!("checkpoint options: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(change: impl FnOnce(&mut oci::CheckpointOptions)) -> Any {
        let mut options = oci::CheckpointOptions::new();
        change(&mut options);
        Any { type_url: TYPE.into(), value: options.write_to_bytes().unwrap(), ..Any::default() }
    }

    #[test]
    fn each_option_of_the_runc_shim_has_its_place() {
        let read_back = read("/c", None).unwrap();
        assert_eq!(read_back.images, Images { path: "/c".into(), ..Images::default() });
        assert!(read_back.leave_running);
        let all = any(|options| {
            (options.exit, options.open_tcp, options.external_unix_sockets) = (true, true, true);
            (options.terminal, options.file_locks) = (true, true);
            options.empty_namespaces = vec!["network".into()];
            options.cgroups_mode = "strict".into();
            options.image_path = "/i".into();
            options.work_path = "/w".into();
        });
        let mut wanted = Images {
            path: "/i".into(),
            work: Some("/w".into()),
            tcp_established: true,
            ext_unix_sk: true,
            shell_job: true,
            file_locks: true,
            cgroups: Cgroups::Strict,
            empty_network: true,
            ..Images::default()
        };
        let read_back = read("", Some(&all)).unwrap();
        assert_eq!(read_back.images, wanted);
        assert!(!read_back.leave_running);
        // containerd reads them from there.
        wanted.path = "/c".into();
        assert_eq!(read("/c", Some(&all)).unwrap().images, wanted);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let mut other = any(|_| ());
        other.type_url = "io.kata.v1.CheckpointOptions".into();
        let mut broken = any(|_| ());
        broken.value = vec![0xff];
        for (path, any, code, word) in [
            ("", any(|_| ()), Code::Usage, "no folder"),
            ("/c", other, Code::Unsupported, "io.kata.v1"),
            ("/c", broken, Code::Usage, "cannot be read"),
            ("/c", any(|o| o.empty_namespaces = vec!["ipc".into()]), Code::Unsupported, "ipc"),
            ("/c", any(|o| o.cgroups_mode = "hard".into()), Code::Usage, "hard"),
        ] {
            let error = read(path, Some(&any)).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
