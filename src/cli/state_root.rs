//! Where the state of containers lies when `--root` does not say, and whether an ordinary user may trust that place.
//! Uses: args.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rcrun_runtime::{Code, Error, Result, sys};

use crate::args::global::{DEFAULT_ROOT, Globals};

/// The folder of containers.
pub fn find(globals: &Globals) -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR");
    let root = match &globals.root {
        Some(root) => root.clone(),
        None => default(uid, runtime, || {
            // As runc: root of a user namespace is somebody who has a session, unless he says that he is root.
            !sys::namespace::is_initial_user() && std::env::var_os("USER").is_none_or(|user| user != "root")
        })?,
    };
    if uid != 0 {
        check(&root, uid)?;
    }
    Ok(root)
}

fn default(uid: u32, runtime: Option<OsString>, guest: impl FnOnce() -> bool) -> Result<PathBuf> {
    let runtime = runtime.filter(|folder| Path::new(folder).is_absolute());
    match runtime {
        Some(folder) if uid != 0 || guest() => Ok(Path::new(&folder).join("rcrun")),
        None if uid != 0 => Err(Error::new(
            Code::Usage,
            "XDG_RUNTIME_DIR is not set, so there is no place for the state of a user's containers: log in with a session (or let root call `loginctl enable-linger`), or give one by --root",
        )),
        _ => Ok(DEFAULT_ROOT.into()),
    }
}

/// What lies in the folder is believed: which process a pid is, which cgroup is killed.
fn check(root: &Path, uid: u32) -> Result<()> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    // What is not there is made by the first create, with mode 0711.
    let Ok(data) = root.metadata() else { return Ok(()) };
    let others = data.mode() & OTHERS_WRITE != 0 && data.mode() & STICKY == 0;
    let whose = match data.uid() {
        0 => None,
        owner if owner == uid => None,
        owner => Some(format!("belongs to uid {owner}")),
    };
    match whose
        .or_else(|| others.then(|| format!("can be written by others (mode {:o})", data.mode() & 0o7777)))
    {
        None => Ok(()),
        Some(why) => Err(Error::new(
            Code::Usage,
            format!(
                "--root {}: {why}: who else writes there decides which processes rcrun kills; give a folder of your own",
                root.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_state_lies_in_his_runtime_folder_and_roots_in_run() {
        let some = |text: &str| Some(OsString::from(text));
        for (uid, runtime, guest, expected) in [
            (0, None, false, Some("/run/rcrun")),
            (0, some("/run/user/0"), false, Some("/run/rcrun")),
            (0, some("/run/user/7"), true, Some("/run/user/7/rcrun")),
            (0, None, true, Some("/run/rcrun")),
            (7, some("/run/user/7"), false, Some("/run/user/7/rcrun")),
            (7, some("relative"), false, None),
            (7, some(""), false, None),
            (7, None, false, None),
        ] {
            let found = default(uid, runtime.clone(), || guest).ok();
            assert_eq!(found, expected.map(PathBuf::from), "uid {uid}, {runtime:?}, guest {guest}");
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("rcrun-root-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let own = folder.metadata().unwrap().uid();
        let mode = |mode| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
        for (bits, uid, fine) in
            [(0o711, own, true), (0o1777, own, true), (0o777, own, false), (0o720, own, false)]
        {
            mode(bits);
            assert_eq!(check(&folder, uid).is_ok(), fine, "{bits:o}");
        }
        std::os::unix::fs::chown(&folder, Some(12), None).expect("as root");
        mode(0o755);
        let error = check(&folder, 13).unwrap_err().to_string();
        std::fs::remove_dir(&folder).unwrap();
        assert!(error.contains("belongs to uid 12"), "{error}");
        assert!(check(&folder, 13).is_ok());
    }
}
