//! Folders that are made before somebody needs them, and removed after: making and removing them waits for the disk, and
//! what is done beside a container that runs nobody waits for. Uses: error, folder.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;

use super::{Folder, LEASE, Store, lock, unique};
use crate::error::{Code, Error, Result};

/// What is in a folder from its begin on, empty, besides the file of its lease.
#[derive(Debug)]
pub struct Outfit {
    /// Folders, 0700.
    pub folders: &'static [&'static str],
    /// Files, 0644.
    pub files: &'static [&'static str],
}

/// How the names of what is removed later begin, in tmp.
pub(super) const DISCARDED: &str = "discarded-";
/// How the names of folders begin that are ready, in tmp. The number goes up with each change of what is in them: those of
/// another number are swept away.
pub(super) const SPARE: &str = "spare-1-";
/// More of them are not left to anybody.
pub(super) const DISCARDED_MAX: usize = 16;
/// So many have come together before a process that leaves one removes them, and so many are made ahead: a thread costs more
/// than one of them.
const BATCH: usize = 8;
/// Of the thread: [`Folder::remove_tree`] goes some levels deep by calls.
const STACK: usize = 256 << 10;

impl Store {
    /// Makes the folder `name` of `kind`, which the caller keeps in the store beside what is the store's own, with `outfit`;
    /// all folders of a store have the same. It comes to its place locked, so that nobody takes it for that of a dead process;
    /// the fd holds the lock. `None` if it is there.
    pub fn establish(&self, kind: &str, name: &str, outfit: &Outfit) -> Result<Option<OwnedFd>> {
        let kind = self.top.make(kind)?;
        for spare in &self.spares {
            let Some(folder) = self.tmp.find(spare)? else { continue };
            // No name is used twice: what is there under this one is what was locked.
            if folder.try_lock()? {
                match self.tmp.hand_over(spare, &kind, name) {
                    Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {}
                    handed => return Ok(handed?.then(|| folder.into_fd())),
                }
            }
        }
        let workspace = self.workspace()?;
        furnish(&workspace.folder, outfit)?;
        match self.tmp.hand_over(&workspace.name, &kind, name)? {
            true => workspace.folder.again().map(|folder| Some(folder.into_fd())),
            false => Ok(None),
        }
    }

    /// Removes what [`Store::open_in_haste`] left, if enough of it has come together, and makes folders of `outfit` for those
    /// who come later, if none is left; beside the caller. What is not done when the process ends, a later one does. The thread
    /// has the caller's mask of signals.
    pub fn tidy(&mut self, outfit: &'static Outfit) -> Result<Option<JoinHandle<()>>> {
        // One of them is the caller's now.
        let spares = self.spares.len().saturating_sub(1);
        if spares > 0 && self.discarded.len() < BATCH {
            return Ok(None);
        }
        let (top, tmp) = (self.top.again()?, self.tmp.again()?);
        let names = std::mem::take(&mut self.discarded);
        let work = move || {
            for name in names {
                // Whoever discarded it holds its lock until it has ended.
                if let Ok(Some(folder)) = tmp.find(&name)
                    && folder.try_lock().unwrap_or(false)
                {
                    if is_wanted(&tmp) && refurnish(&tmp, &name, &folder, outfit).is_ok() {
                        continue;
                    }
                    let _ = tmp.remove_tree(&name);
                }
            }
            // What cannot be made now is not missed.
            while is_wanted(&tmp) && make(&top, &tmp, outfit).is_ok() {}
        };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
        thread.map(Some).map_err(|e| Error::call("clone of a thread", e))
    }

    /// The folders that are ready, for who removes them.
    pub(super) fn spares(&self) -> Result<Vec<String>> {
        spares(&self.tmp)
    }
}

fn spares(tmp: &Folder) -> Result<Vec<String>> {
    let mut names = tmp.names()?;
    names.retain(|name| name.starts_with(SPARE));
    Ok(names)
}

/// Whether one more is. Others make them too.
fn is_wanted(tmp: &Folder) -> bool {
    spares(tmp).is_ok_and(|there| there.len() < BATCH)
}

/// Makes one that is ready.
fn make(top: &Folder, tmp: &Folder, outfit: &Outfit) -> Result<()> {
    let name = unique();
    let folder = {
        // Or it would be taken for that of a dead process.
        let _lock = lock(top, FlockOperation::LockShared)?;
        tmp.make_new(&name).map_err(|e| Error::call("mkdir in tmp", e))?;
        let folder = tmp.open(&name)?;
        if !folder.try_lock()? {
            return Err(Error::new(Code::Damaged, format!("tmp/{name} is locked by another process")));
        }
        folder
    };
    furnish(&folder, outfit)?;
    publish(tmp, &name)
}

/// Makes one that is ready of what is in tmp as `name`. Of what was in it nothing stays.
fn refurnish(tmp: &Folder, name: &str, folder: &Folder, outfit: &Outfit) -> Result<()> {
    folder.empty()?;
    furnish(folder, outfit)?;
    publish(tmp, name)
}

fn publish(tmp: &Folder, name: &str) -> Result<()> {
    tmp.hand_over(name, tmp, &format!("{SPARE}{}", unique())).map(drop)
}

fn furnish(folder: &Folder, outfit: &Outfit) -> Result<()> {
    for name in outfit.folders {
        folder.make_new(name).map_err(|e| Error::call(format_args!("mkdir {name}"), e))?;
    }
    for (name, mode) in outfit.files.iter().map(|name| (*name, 0o644)).chain([(LEASE, 0o600)]) {
        let file = folder.create(name).map_err(|e| Error::call(format_args!("create {name}"), e))?;
        // Whatever the caller's umask is.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .map_err(|e| Error::call(format_args!("fchmod {name}"), e))?;
    }
    Ok(())
}
