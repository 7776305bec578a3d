//! The way through the folders of the tree: an fd for each folder from the root to the one at hand, so that entries that
//! come folder by folder cost no lookup, and each folder's times are set when it is left.
//! Uses: rustix, error, attributes, lower, name, remove, tar.
//!
//! A parent is resolved one name at a time, and each name opened with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; a symbolic
//! link is read and followed here, in the root, through this layer and what is below it. So a path means what it means
//! in the finished container, also in overlay form, where the layers below are elsewhere.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{Attributes, Birthplace, DEFAULT_ACL, get_xattr, timestamps};
use super::error::{Call, Error, Result, Shown};
use super::lower::{Below, Found, is_whiteout, open_one};
use super::notes::Notes;
use super::remove::{self, Made};
use super::tar::Time;
use super::{Form, Limits};

/// As many links as Linux follows.
const LINKS: u32 = 40;

/// Folders that the entries of a layer may need opened, each, were there as many as there may be. Archives of tools go
/// folder by folder and need less than two.
const STEPS: u64 = 16;

/// Last read and last changed.
pub type Times = (Time, Time);

/// An open folder.
pub struct Folder {
    /// Open for reading.
    pub fd: OwnedFd,
    /// Its inode.
    pub ino: u64,
    /// What it does to what is made in it.
    pub place: Birthplace,
    /// Its name in the folder before it.
    name: Vec<u8>,
    /// Nothing from below shows in it: it or one above is opaque.
    hides: bool,
    /// The times it shall have.
    times: Times,
    /// Its times are no longer those.
    touched: bool,
    /// The mode it shall have, where that would close it to its owner.
    mode: Option<u32>,
    /// It is marked as holding whiteouts.
    whiteouts: bool,
}

/// What is to be remembered of a folder of this layer once it is left.
#[derive(Clone, Copy)]
struct Left {
    times: Times,
    opaque: bool,
}

/// The tree under the root of extraction.
pub struct Tree<'a> {
    /// How files are made.
    pub attributes: Attributes,
    /// The layers below.
    pub below: Below<'a>,
    /// What was left out.
    pub notes: Notes,
    /// What the layer made, in form `Flat`.
    pub made: Made,
    /// Whether what is below mattered.
    pub looked_below: bool,
    /// Files, folders and links made.
    pub inodes: u64,
    /// Folders opened and names looked at.
    steps: u64,
    form: Form,
    limits: Limits,
    stack: Vec<Folder>,
    /// The path as the archive spells it, that led to the top of the stack.
    at: Option<Vec<u8>>,
    left: HashMap<u64, Left>,
}

/// What a folder that is not there becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is made.
    Make,
    /// The path is given up.
    GiveUp,
}

impl<'a> Tree<'a> {
    /// The tree at `root`.
    pub fn new(
        root: BorrowedFd<'_>,
        form: Form,
        limits: Limits,
        attributes: Attributes,
        below: Below<'a>,
    ) -> Result<Self> {
        let fd = rustix::fs::openat(
            root,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .call("open of the root")?;
        let stat = rustix::fs::fstat(&fd).call("fstat of the root")?;
        let mut tree = Tree {
            attributes,
            below,
            notes: Notes::default(),
            made: Made::default(),
            looked_below: false,
            inodes: 0,
            steps: 0,
            form,
            limits,
            stack: Vec::new(),
            at: Some(Vec::new()),
            left: HashMap::new(),
        };
        let folder = tree.folder(fd, &stat, Vec::new())?;
        tree.stack.push(folder);
        Ok(tree)
    }

    /// The folder at hand.
    pub fn top(&self) -> &Folder {
        &self.stack[self.stack.len() - 1]
    }

    fn top_mut(&mut self) -> &mut Folder {
        let last = self.stack.len() - 1;
        &mut self.stack[last]
    }

    /// Notes that a name of the folder at hand is this layer's.
    pub fn made(&mut self, name: &[u8]) -> Result<()> {
        self.inodes += 1;
        if self.inodes > self.limits.inodes {
            return Err(Error::limit(format!("more than {} files, folders and links", self.limits.inodes)));
        }
        if self.form == Form::Flat {
            let folder = self.top().ino;
            self.made.add(folder, name);
        }
        self.touch();
        Ok(())
    }

    /// Counts `steps`: an archive whose entries go to and fro between deep folders, or hide the same large folder again
    /// and again, is small and takes hours.
    pub fn spend(&mut self, steps: u64) -> Result<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limits.inodes.saturating_mul(STEPS) {
            return Err(Error::limit(format!(
                "more than {STEPS} folders opened for each of {} entries",
                self.limits.inodes
            )));
        }
        Ok(())
    }

    /// Notes that something in the folder at hand came or went.
    pub fn touch(&mut self) {
        self.top_mut().touched = true;
    }

    /// A folder that was there before: with the attributes and times it has.
    fn folder(&self, fd: OwnedFd, stat: &Stat, name: Vec<u8>) -> Result<Folder> {
        let acl = get_xattr(fd.as_fd(), DEFAULT_ACL.as_bytes())?.is_some();
        let mut times = Time::both(stat);
        let mut hides = self.stack.last().is_some_and(|parent| parent.hides);
        if let Some(left) = self.left.get(&stat.st_ino) {
            times = left.times;
            hides |= left.opaque;
        }
        Ok(Folder {
            fd,
            ino: stat.st_ino,
            place: Birthplace { group: group(stat), acl },
            name,
            hides,
            times,
            touched: false,
            mode: None,
            whiteouts: false,
        })
    }

    /// Goes to the folder `path`, made plain; what is missing of it is made as it is below, or 0755.
    pub fn go(&mut self, path: &[u8]) -> Result<()> {
        self.walk(path, Missing::Make).map(drop)
    }

    /// Goes to the folder `path` if there is one, in this layer or below; `false` if not.
    pub fn go_if_there(&mut self, path: &[u8]) -> Result<bool> {
        self.walk(path, Missing::GiveUp)
    }

    fn walk(&mut self, path: &[u8], missing: Missing) -> Result<bool> {
        if self.at.as_deref() == Some(path) {
            return Ok(true);
        }
        self.at = None;
        let mut parts = path.split(|&b| b == b'/').filter(|part| !part.is_empty());
        // What is on the stack already is a folder by that very name.
        let mut depth = 1;
        let mut ahead = parts.clone();
        while let Some(part) = ahead.next() {
            match self.stack.get(depth) {
                Some(folder) if folder.name == part => depth += 1,
                _ => break,
            }
            parts = ahead.clone();
        }
        self.leave_to(depth)?;
        let mut links = 0;
        // Only once a link is met.
        let mut detour: VecDeque<Vec<u8>> = VecDeque::new();
        loop {
            let owned = detour.pop_front();
            let Some(part) = owned.as_deref().or_else(|| parts.next()) else { break };
            if part == b".." {
                self.spend(1)?;
                let up = self.stack.len().saturating_sub(1).max(1);
                self.leave_to(up)?;
                continue;
            }
            match self.step(part, missing).map_err(|e| e.of(format_args!("in the folder {}", Shown(path))))? {
                Step::In => {}
                Step::Nowhere => return Ok(false),
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Error::archive(format!(
                            "the folder {}: too many symbolic links",
                            Shown(path)
                        )));
                    }
                    if target.starts_with(b"/") {
                        self.leave_to(1)?;
                    }
                    let mut rest: VecDeque<Vec<u8>> = target
                        .split(|&b| b == b'/')
                        .filter(|part| !part.is_empty() && *part != b".")
                        .map(<[u8]>::to_vec)
                        .collect();
                    rest.extend(parts.by_ref().map(<[u8]>::to_vec));
                    rest.append(&mut detour);
                    detour = rest;
                }
            }
            if self.stack.len() > self.limits.depth + 1 {
                return Err(Error::limit(format!("more than {} folders deep", self.limits.depth)));
            }
        }
        self.at = Some(path.to_vec());
        Ok(true)
    }

    /// One name further down.
    fn step(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        self.spend(1)?;
        let top = self.top();
        let fd = match open_one(top.fd.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return self.absent(name, missing, false),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let stat = rustix::fs::statat(&top.fd, name, AtFlags::SYMLINK_NOFOLLOW).call("fstatat")?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    let target = rustix::fs::readlinkat(&top.fd, name, Vec::new()).call("readlinkat")?;
                    return Ok(Step::Link(target.into_bytes()));
                }
                if self.form != Form::Flat && is_whiteout(&stat) {
                    return self.absent(name, missing, true);
                }
                return Err(no_folder(name));
            }
            Err(Errno::ACCESS) => {
                let fd = remove::open_closed(top.fd.as_fd(), name)?;
                let stat = rustix::fs::fstat(&fd).call("fstat")?;
                let mut folder = self.folder(fd, &stat, name.to_vec())?;
                folder.mode = Some(stat.st_mode & 0o7077);
                folder.touched = true;
                self.stack.push(folder);
                return Ok(Step::In);
            }
            Err(e) => return Err(Error::call("openat2", e)),
        };
        let stat = rustix::fs::fstat(&fd).call("fstat")?;
        let folder = self.folder(fd, &stat, name.to_vec())?;
        self.stack.push(folder);
        Ok(Step::In)
    }

    /// `name` is not in this layer: it is what it is below. `hidden` says that a whiteout stands there.
    fn absent(&mut self, name: &[u8], missing: Missing, hidden: bool) -> Result<Step> {
        let found = if hidden { None } else { self.look_below(name)? };
        match &found {
            Some(found) if found.kind() == FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(&found.fd, "", Vec::new()).call("readlinkat in a lower layer")?;
                return Ok(Step::Link(target.into_bytes()));
            }
            Some(found) if found.kind() != FileType::Directory => return Err(no_folder(name)),
            None if missing == Missing::GiveUp => return Ok(Step::Nowhere),
            _ => {}
        }
        if hidden {
            rustix::fs::unlinkat(&self.top().fd, name, AtFlags::empty()).call("unlinkat")?;
        }
        rustix::fs::mkdirat(&self.top().fd, name, Mode::from_raw_mode(0o700)).call("mkdirat")?;
        self.made(name)?;
        let fd = open_one(self.top().fd.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY).call("openat2")?;
        let times = match &found {
            Some(found) => {
                self.attributes.copy(found.fd.as_fd(), fd.as_fd(), &self.notes)?;
                Time::both(&found.stat)
            }
            None => {
                self.attributes.bare(fd.as_fd(), self.top().place)?;
                // No clock: the same layer gives the same tree.
                (Time::default(), Time::default())
            }
        };
        let acl = match &found {
            Some(_) => get_xattr(fd.as_fd(), DEFAULT_ACL.as_bytes())?.is_some(),
            None => false,
        };
        self.enter_new(fd, name, times, None, acl, hidden)?;
        Ok(Step::In)
    }

    /// Enters a folder that was just made. `acl`: it has a default ACL. `opaque`: what is below under its name is not to
    /// show.
    pub fn enter_new(
        &mut self,
        fd: OwnedFd,
        name: &[u8],
        times: Times,
        mode: Option<u32>,
        acl: bool,
        opaque: bool,
    ) -> Result<()> {
        let stat = rustix::fs::fstat(&fd).call("fstat")?;
        // An inode that was removed may be back under another name.
        self.left.insert(stat.st_ino, Left { times, opaque: false });
        let hides = self.top().hides;
        let place = Birthplace { group: group(&stat), acl };
        let name = name.to_vec();
        self.stack.push(Folder {
            fd,
            ino: stat.st_ino,
            place,
            name,
            hides,
            times,
            touched: true,
            mode,
            whiteouts: false,
        });
        if opaque { self.make_opaque() } else { Ok(()) }
    }

    /// Enters the folder `name`, which is there, and gives it other times.
    pub fn enter(&mut self, name: &[u8], times: Times) -> Result<()> {
        match self.step(name, Missing::GiveUp)? {
            Step::In => {}
            Step::Nowhere | Step::Link(_) => return Err(no_folder(name)),
        }
        self.set_times(times, None);
        Ok(())
    }

    /// The times, and the mode where it closes the folder, that the folder at hand gets when it is left.
    pub fn set_times(&mut self, times: Times, mode: Option<u32>) {
        let folder = self.top_mut();
        folder.times = times;
        folder.touched = true;
        folder.mode = mode;
        let (ino, hides) = (folder.ino, folder.hides);
        let opaque = self.left.get(&ino).is_some_and(|left| left.opaque);
        debug_assert!(!opaque || hides);
        self.left.insert(ino, Left { times, opaque });
    }

    /// Reads the attributes of the folder at hand again that shape what is made in it.
    pub fn refresh(&mut self) -> Result<()> {
        let folder = self.top();
        let stat = rustix::fs::fstat(&folder.fd).call("fstat")?;
        let acl = get_xattr(folder.fd.as_fd(), DEFAULT_ACL.as_bytes())?.is_some();
        self.top_mut().place = Birthplace { group: group(&stat), acl };
        Ok(())
    }

    /// Says which path the folder at hand is, where it was not `go` that went there.
    pub fn is_at(&mut self, path: &[u8]) {
        self.at = Some(path.to_vec());
    }

    /// Whether the folder at hand lets nothing through from below.
    pub fn hides(&self) -> bool {
        self.top().hides
    }

    /// Hides from the folder at hand all that is below.
    pub fn make_opaque(&mut self) -> Result<()> {
        let Some(private) = self.form.private() else { return Ok(()) };
        let folder = self.top_mut();
        folder.hides = true;
        let (ino, times) = (folder.ino, folder.times);
        let name = format!("{private}opaque");
        rustix::fs::fsetxattr(&folder.fd, &name[..], b"y", rustix::fs::XattrFlags::empty())
            .call(format_args!("setxattr {name}"))?;
        self.left.insert(ino, Left { times, opaque: true });
        Ok(())
    }

    /// Marks the folder at hand as one that holds whiteouts. overlayfs filters them when it lists a folder that it
    /// merges, or that was copied up, as the mark (an origin that is not known) says; of any other it lists them raw.
    pub fn hold_whiteouts(&mut self) -> Result<()> {
        let Some(private) = self.form.private() else { return Ok(()) };
        let folder = self.top_mut();
        if !std::mem::replace(&mut folder.whiteouts, true) {
            let name = format!("{private}origin");
            rustix::fs::fsetxattr(&folder.fd, &name[..], b"", rustix::fs::XattrFlags::empty())
                .call(format_args!("setxattr {name}"))?;
        }
        Ok(())
    }

    /// The way to the folder at hand, no link in it.
    pub fn path(&self) -> Vec<u8> {
        self.stack.iter().skip(1).map(|folder| &folder.name[..]).collect::<Vec<_>>().join(&b'/')
    }

    /// What `name` in the folder at hand is in the layers below.
    pub fn look_below(&mut self, name: &[u8]) -> Result<Option<Found>> {
        if self.form == Form::Flat || self.hides() {
            return Ok(None);
        }
        self.looked_below = true;
        self.spend((self.stack.len() * self.below.count()?) as u64)?;
        let path = self.stack.iter().skip(1).map(|folder| &folder.name[..]);
        self.below.look(path.chain(std::iter::once(name)))
    }

    /// Leaves folders until `depth` of them are open.
    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.stack.len() > depth.max(1) {
            let Some(folder) = self.stack.pop() else { break };
            settle(&folder)?;
        }
        Ok(())
    }

    /// Leaves all folders, the root too.
    pub fn finish(mut self) -> Result<(Notes, bool)> {
        self.leave_to(1)?;
        settle(self.top())?;
        Ok((self.notes, self.looked_below))
    }
}

/// Where one name leads.
enum Step {
    /// Into a folder.
    In,
    /// On to another path.
    Link(Vec<u8>),
    /// Nowhere, and nothing was made.
    Nowhere,
}

/// The group that new files get in a folder with its set-group-id bit.
fn group(stat: &Stat) -> Option<u32> {
    (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid)
}

fn no_folder(name: &[u8]) -> Error {
    Error::archive(format!("\"{}\" is no folder", Shown(name)))
}

/// Gives a folder that is left its last attributes.
fn settle(folder: &Folder) -> Result<()> {
    if let Some(mode) = folder.mode {
        rustix::fs::fchmod(&folder.fd, Mode::from_raw_mode(mode)).call("fchmod")?;
    }
    if folder.touched {
        rustix::fs::futimens(&folder.fd, &timestamps(folder.times.0, folder.times.1)).call("futimens")?;
    }
    Ok(())
}
