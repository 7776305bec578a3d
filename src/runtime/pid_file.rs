//! `--pid-file`: engines poll for it, so it appears whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{CallContext, Code, Error, Result};

/// Writes `pid`, decimal and without a newline as runc does, to `path`: first to `.NAME` beside it, then renamed.
pub fn write(path: &Path, pid: u32) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::new(Code::Usage, format!("--pid-file {}: no file name", path.display())));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let hidden = path.with_file_name(hidden);

    let mut file = create_new(&hidden).call(format!("--pid-file: create {}", hidden.display()))?;
    let renamed = file
        .write_all(pid.to_string().as_bytes())
        .call(format!("--pid-file: write {}", hidden.display()))
        .and_then(|()| {
            fs::rename(&hidden, path).call(format!(
                "--pid-file: rename {} to {}",
                hidden.display(),
                path.display()
            ))
        });
    renamed.map_err(|first| match fs::remove_file(&hidden) {
        Ok(()) => first,
        Err(error) => first.attach(&Error::call(format!("unlink {}", hidden.display()), error)),
    })
}

/// Removes what `write` wrote; another process's file stays.
pub fn remove(path: &Path, pid: u32) -> Result<()> {
    // Reading anything but a file could block.
    if !fs::symlink_metadata(path).is_ok_and(|m| m.is_file()) {
        return Ok(());
    }
    match fs::read_to_string(path) {
        Ok(text) if text == pid.to_string() => {
            fs::remove_file(path).call(format!("unlink {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// O_EXCL, so that a link planted under the name is never followed. One that a killed runtime left is
/// removed once.
fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // 0666 and the caller's umask, as runc.
    options.write(true).create_new(true).mode(0o666);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    fn names(folder: &Folder) -> Vec<OsString> {
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect()
    }

    #[test]
    fn the_file_holds_the_decimal_pid_alone() {
        let folder = Folder::new("pid");
        let path = folder.path().join("init.pid");
        write(&path, 4711).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "4711");
        assert_eq!(names(&folder), ["init.pid"]);
    }

    #[test]
    fn an_old_file_is_replaced_by_a_new_inode() {
        let folder = Folder::new("pid");
        let path = folder.path().join("init.pid");
        fs::write(&path, "an older and longer text").unwrap();
        let old = File::open(&path).unwrap();
        write(&path, 7).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "7");
        assert_eq!(io::read_to_string(old).unwrap(), "an older and longer text");
    }

    #[test]
    fn a_link_planted_under_the_hidden_name_is_not_followed() {
        let folder = Folder::new("pid");
        let victim = folder.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(".init.pid")).unwrap();
        write(&folder.path().join("init.pid"), 7).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(folder.path().join("init.pid")).unwrap(), "7");
    }

    #[test]
    fn a_failing_rename_leaves_nothing() {
        let folder = Folder::new("pid");
        let path = folder.path().join("init.pid");
        fs::create_dir(&path).unwrap();
        let error = write(&path, 7).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EISDIR), "{error}");
        assert_eq!(names(&folder), ["init.pid"]);
    }

    #[test]
    fn only_the_file_of_the_same_pid_is_removed() {
        let folder = Folder::new("pid");
        let path = folder.path().join("init.pid");
        remove(&path, 7).unwrap();
        write(&path, 7).unwrap();
        remove(&path, 8).unwrap();
        assert_eq!(names(&folder), ["init.pid"]);
        remove(&path, 7).unwrap();
        assert!(names(&folder).is_empty());
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        assert_eq!(write(Path::new("/"), 7).unwrap_err().code(), Code::Usage);
    }
}
