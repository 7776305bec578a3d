//! Folders that nothing was in before: what was removed just before slows the next write on some file systems.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Result;
use crate::host::WORK;

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// An empty folder: a tmpfs of its own, or under a new name in a folder that the caller chose.
pub struct Fresh {
    path: PathBuf,
    mounted: bool,
}

impl Fresh {
    /// `on` is the folder that the caller chose.
    pub fn new(on: Option<&Path>, prefix: &str) -> Result<Fresh> {
        let name = format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = on.unwrap_or(Path::new(WORK)).join(name);
        fs::create_dir(&path)?;
        if on.is_none() {
            // What is not in use costs nothing; half of the memory, the default, is too little on small machines.
            mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=90%"))?;
        }
        Ok(Fresh { path, mounted: on.is_none() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A tmpfs goes at once; a folder stays until the end, since removing it slows what is timed next.
    pub fn remove(self) -> Result<()> {
        if self.mounted {
            // With what a tool left mounted in it: podman's store is a mount of itself.
            umount2(&self.path, MntFlags::MNT_DETACH)?;
            fs::remove_dir(&self.path)?;
        }
        Ok(())
    }
}

/// Removes the folders of a benchmark that a caller chose the place of.
pub fn remove_all(on: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(on)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// How many files, folders and links are below `folder`.
pub fn entries(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += entries(&entry.path())?;
        }
    }
    Ok(count)
}
