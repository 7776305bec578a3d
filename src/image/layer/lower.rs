//! The layers below, looked at as overlayfs would: the topmost that has a name says what it is, whiteouts and opaque
//! folders hide what is further down.
//! Uses: rustix, error, attributes, remove.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::attributes::get_xattr;
use super::error::{Call, Error, Result};
use super::remove::list;
use super::{Form, Lower};

/// The layers below, opened when first asked for.
pub struct Below<'a> {
    form: Form,
    open: Option<Lower<'a>>,
    layers: OnceCell<Vec<OwnedFd>>,
}

/// What a name is in the layers below.
pub struct Found {
    /// A folder open for reading, anything else as O_PATH.
    pub fd: OwnedFd,
    /// What fstat(2) says of it.
    pub stat: Stat,
}

/// A folder of the layers below: those that make it up, the topmost first. Empty where there is none.
#[derive(Default)]
pub struct Merged(Vec<OwnedFd>);

impl Merged {
    /// The topmost, whose attributes are those of the folder.
    pub fn top(&self) -> Option<BorrowedFd<'_>> {
        self.0.first().map(AsFd::as_fd)
    }
}

/// What a name in a folder of the layers below is.
pub enum Step {
    /// Not there.
    Nothing,
    /// A folder.
    Folder(Merged),
    /// Anything else.
    Other(Found),
}

impl Found {
    /// What it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// How often a name is looked up that is moved away meanwhile: more than a racer is likely to win.
const LOOKS: usize = 64;

/// Opens one name without following anything.
pub fn open_one(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut left = LOOKS;
    loop {
        left -= 1;
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), RESOLVE) {
            // What was found is not below `dir` any more, openat2(2): what has the name now may be.
            Err(Errno::XDEV | Errno::AGAIN) if left > 0 => {}
            opened => return opened,
        }
    }
}

/// Whether this is how overlayfs says that nothing is there.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl<'a> Below<'a> {
    /// What `open` opens.
    pub fn new(form: Form, open: Option<Lower<'a>>) -> Self {
        let open = if form == Form::Flat { None } else { open };
        Below { form, open, layers: OnceCell::new() }
    }

    fn layers(&self) -> Result<&[OwnedFd]> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        let layers = match self.open {
            Some(open) => open().map_err(|e| Error::stream("open of the layers below", e))?,
            None => Vec::new(),
        };
        Ok(self.layers.get_or_init(|| layers))
    }

    /// How many layers there are.
    pub fn count(&self) -> Result<usize> {
        Ok(self.layers()?.len())
    }

    /// What the path `parts`, none of them a symbolic link but perhaps the last, is below.
    pub fn look<'p>(&self, parts: impl Iterator<Item = &'p [u8]>) -> Result<Option<Found>> {
        let mut merged = self.root()?;
        let mut parts = parts.peekable();
        while let Some(part) = parts.next() {
            match self.step(&merged, part)? {
                Step::Nothing => return Ok(None),
                Step::Folder(next) => merged = next,
                Step::Other(found) => return Ok(parts.peek().is_none().then_some(found)),
            }
        }
        match merged.0.into_iter().next() {
            Some(fd) => {
                let stat = rustix::fs::fstat(&fd).call("fstat in a lower layer")?;
                Ok(Some(Found { fd, stat }))
            }
            None => Ok(None),
        }
    }

    /// The root of all layers.
    pub fn root(&self) -> Result<Merged> {
        let layers = self.layers()?;
        let mut merged: Vec<OwnedFd> = Vec::with_capacity(layers.len());
        for layer in layers {
            merged.push(layer.try_clone().map_err(|e| Error::call("dup of a lower layer", e))?);
            if self.is_opaque(layer.as_fd())? {
                break;
            }
        }
        Ok(Merged(merged))
    }

    /// What `name` is in the folder `merged`.
    pub fn step(&self, merged: &Merged, name: &[u8]) -> Result<Step> {
        let mut next = Vec::new();
        for dir in &merged.0 {
            let fd = match open_one(dir.as_fd(), name, OFlags::PATH) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(Error::call("openat2 in a lower layer", e)),
            };
            let stat = rustix::fs::fstat(&fd).call("fstat in a lower layer")?;
            if is_whiteout(&stat) {
                break;
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                if next.is_empty() {
                    return Ok(Step::Other(Found { fd, stat }));
                }
                break;
            }
            let fd = open_one(dir.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)
                .call("openat2 in a lower layer")?;
            let opaque = self.is_opaque(fd.as_fd())?;
            next.push(fd);
            if opaque {
                break;
            }
        }
        Ok(if next.is_empty() { Step::Nothing } else { Step::Folder(Merged(next)) })
    }

    /// All names in the folder `merged`.
    pub fn names(&self, merged: &Merged) -> Result<Vec<Vec<u8>>> {
        let mut names = std::collections::BTreeMap::new();
        for dir in &merged.0 {
            for (name, kind) in list(dir.as_fd())? {
                if names.contains_key(&name) {
                    continue;
                }
                let there = match kind {
                    FileType::CharacterDevice | FileType::Unknown => {
                        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                        let stat = rustix::fs::statat(dir, &name[..], flags);
                        !is_whiteout(&stat.call("fstatat in a lower layer")?)
                    }
                    _ => true,
                };
                names.insert(name, there);
            }
        }
        Ok(names.into_iter().filter_map(|(name, there)| there.then_some(name)).collect())
    }

    /// Whether overlayfs shows nothing from below `dir`.
    pub fn is_opaque(&self, dir: BorrowedFd<'_>) -> Result<bool> {
        let Some(private) = self.form.private() else { return Ok(false) };
        Ok(get_xattr(dir, format!("{private}opaque").as_bytes())?.is_some_and(|value| value == b"y"))
    }
}
