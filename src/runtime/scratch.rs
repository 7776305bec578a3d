//! Test folders, gone when the test ends, and programs in them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new empty folder below the system's temporary one.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rcrun-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("create a folder for the test");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a program that can be executed at once. A process of its own does it: of this one some thread may bear a child
/// meanwhile that has the file open for writing until it executes something else (ETXTBSY).
pub(crate) fn program(at: &Path, text: impl AsRef<[u8]>) {
    let mut command = Command::new("install");
    command.args(["--mode=755", "/dev/stdin"]).arg(at).stdin(Stdio::piped());
    let mut writer = command.spawn().expect("execute install");
    let written = writer.stdin.take().expect("a pipe").write_all(text.as_ref());
    assert!(writer.wait().expect("wait").success() && written.is_ok(), "write {}", at.display());
}
