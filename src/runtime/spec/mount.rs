//! Mount options: what each word of runtime-spec's table and of runc means to the calls that mount by fd.
//! Pure. Uses: nothing.
//!
//! One word can mean two things there. `ro` is a flag of the mount (mount_setattr) and one of the
//! file system (fsconfig); mount(2), which runc calls, sets both on a new file system.

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
};
use oci_spec::runtime::Mount;

/// How much of the source a bind mount takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// The one mount (`bind`).
    Plain,
    /// The mounts below it too (`rbind`).
    Recursive,
}

/// Which way mount events travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationKind {
    /// Both ways.
    Shared,
    /// From the master only.
    Slave,
    /// None.
    Private,
    /// None, and it cannot be the source of a bind mount.
    Unbindable,
}

/// A change of propagation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// Which way.
    pub kind: PropagationKind,
    /// For the mounts below it too.
    pub recursive: bool,
}

/// The options of one mount, sorted by the call that takes them. Of contradicting words the last one
/// counts, but `rbind` is not taken back by `bind`, nor a recursive attribute by a plain one: those are
/// two calls, the recursive one comes last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// A bind mount; `None` is a new file system, or a change to what is there.
    pub bind: Option<Bind>,
    /// Changes what is mounted at the destination already, with these attributes and options.
    pub remount: bool,
    /// `MOUNT_ATTR_*` to set on the mount.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` to clear on the mount. The kernel clears first: with an access time mode in
    /// `attr_set`, all of `MOUNT_ATTR__ATIME` is in here, or mount_setattr(2) gives EINVAL.
    pub attr_clear: u64,
    /// As `attr_set`, for the mount and all below it.
    pub rec_attr_set: u64,
    /// As `attr_clear`, for the mount and all below it.
    pub rec_attr_clear: u64,
    /// For fsconfig(2), in order: flags of the superblock (`ro`, `sync`) and the file system's own words, with
    /// their value. A bind mount makes no superblock, so its caller leaves them (runtime-spec's own
    /// tests and Docker write some there).
    pub superblock: Vec<(String, Option<String>)>,
    /// Changes of propagation, in order.
    pub propagation: Vec<Propagation>,
    /// Fill the new tmpfs with what it covers.
    pub tmpcopyup: bool,
    /// `idmap` or `ridmap`.
    pub idmap: Option<IdMapWord>,
}

/// `idmap` or `ridmap`, where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapWord {
    /// Its place among the options.
    pub at: usize,
    /// For the mounts below it too (`ridmap`).
    pub recursive: bool,
}

impl MountOptions {
    /// The options of `mount`. Type `bind` without a word for it is a plain bind mount, as for crun.
    pub fn of(mount: &Mount) -> MountOptions {
        let kind = mount.typ().as_deref().unwrap_or_default();
        let mut options = MountOptions::parse(kind, mount.options().as_deref().unwrap_or_default());
        if kind == "bind" && options.bind.is_none() {
            options.bind = Some(Bind::Plain);
        }
        options
    }

    /// Sorts `words`, the options of a mount of type `kind`.
    pub fn parse(kind: &str, words: &[String]) -> MountOptions {
        let mut options = MountOptions::default();
        for (i, word) in words.iter().enumerate() {
            match meaning(word) {
                Some(Meaning::IdMap(recursive)) => options.idmap = Some(IdMapWord { at: i, recursive }),
                Some(meaning) => options.apply(meaning, kind),
                None => options.data(word),
            }
        }
        options
    }

    fn apply(&mut self, meaning: Meaning, kind: &str) {
        use Meaning::*;
        match meaning {
            Default | IdMap(_) => {}
            BindMount(how) => {
                if self.bind != Some(Bind::Recursive) {
                    self.bind = Some(how);
                }
            }
            Remount => self.remount = true,
            Set(bit) => mark(&mut self.attr_set, &mut self.attr_clear, bit),
            Clear(bit) => mark(&mut self.attr_clear, &mut self.attr_set, bit),
            Atime(change) => change.apply(&mut self.attr_set, &mut self.attr_clear),
            RecSet(bit) => mark(&mut self.rec_attr_set, &mut self.rec_attr_clear, bit),
            RecClear(bit) => mark(&mut self.rec_attr_clear, &mut self.rec_attr_set, bit),
            RecAtime(change) => change.apply(&mut self.rec_attr_set, &mut self.rec_attr_clear),
            ReadOnly => {
                mark(&mut self.attr_set, &mut self.attr_clear, MOUNT_ATTR_RDONLY);
                self.flag("ro", "rw");
            }
            ReadWrite => {
                mark(&mut self.attr_clear, &mut self.attr_set, MOUNT_ATTR_RDONLY);
                self.flag("rw", "ro");
            }
            Superblock(word, opposite) => self.flag(word, opposite),
            Iversion(word) => {
                // MS_I_VERSION has no name in fsconfig(2). ext4 has its own; the others count always or never.
                if kind == "ext4" {
                    self.superblock.retain(|(key, value)| key != "i_version" || value.is_some());
                    if word == "iversion" {
                        self.superblock.push(("i_version".to_string(), None));
                    }
                }
            }
            Acl(word) => {
                // MS_POSIXACL likewise: where ACLs can be switched, the file system takes the word itself.
                if matches!(kind, "ext2" | "ext3" | "ext4" | "f2fs" | "btrfs" | "reiserfs" | "jfs") {
                    self.flag(word, if word == "acl" { "noacl" } else { "acl" });
                }
            }
            Propagate(kind, recursive) => self.propagation.push(Propagation { kind, recursive }),
            TmpCopyUp => self.tmpcopyup = true,
        }
    }

    fn flag(&mut self, word: &str, opposite: &str) {
        self.superblock.retain(|(key, value)| value.is_some() || (key != word && key != opposite));
        self.superblock.push((word.to_string(), None));
    }

    /// Words for the file system. mount(2) takes them as one text with commas between, so that one string
    /// of a config may hold several; a comma in quotes (SELinux contexts) or after a backslash (overlay's
    /// folders) is part of a value.
    fn data(&mut self, text: &str) {
        let mut quoted = false;
        let mut escaped = false;
        let split = |c: char| {
            let cut = c == ',' && !quoted && !escaped;
            quoted ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            cut
        };
        for option in text.split(split).filter(|option| !option.is_empty()) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            // The quotes are mount(2)'s, not the label's.
            let value = value.map(|v| match key {
                "context" | "fscontext" | "defcontext" | "rootcontext" => v.trim_matches('"'),
                _ => v,
            });
            self.superblock.push((key.to_string(), value.map(str::to_string)));
        }
    }
}

fn mark(to: &mut u64, from: &mut u64, bit: u64) {
    *to |= bit;
    *from &= !bit;
}

#[derive(Clone, Copy)]
enum Meaning {
    Default,
    BindMount(Bind),
    Remount,
    Set(u64),
    Clear(u64),
    Atime(AtimeChange),
    RecSet(u64),
    RecClear(u64),
    RecAtime(AtimeChange),
    ReadOnly,
    ReadWrite,
    Superblock(&'static str, &'static str),
    Iversion(&'static str),
    Acl(&'static str),
    Propagate(PropagationKind, bool),
    TmpCopyUp,
    IdMap(bool),
}

/// Access time is one of three modes, not bits, and relatime, the kernel's default, is the number 0.
#[derive(Clone, Copy)]
enum AtimeChange {
    /// This mode.
    Mode(u64),
    /// Not this mode: the default one, if it was this or if nothing was said.
    Not(u64),
}

impl AtimeChange {
    fn apply(self, set: &mut u64, clear: &mut u64) {
        let named = *clear & MOUNT_ATTR__ATIME != 0;
        let mode = match self {
            AtimeChange::Mode(mode) => mode,
            AtimeChange::Not(mode) if !named || *set & MOUNT_ATTR__ATIME == mode => MOUNT_ATTR_RELATIME,
            AtimeChange::Not(_) => return,
        };
        *set = *set & !MOUNT_ATTR__ATIME | mode;
        *clear |= MOUNT_ATTR__ATIME;
    }
}

fn meaning(word: &str) -> Option<Meaning> {
    OPTIONS.binary_search_by(|(name, _)| (*name).cmp(word)).ok().map(|i| OPTIONS[i].1)
}

/// Whether `word` says something of a file system that is made. A bind mount makes none, and mount(2) ignores the word there.
pub fn is_of_a_new_file_system(word: &str) -> bool {
    use Meaning::{Acl, Iversion, Superblock, TmpCopyUp};
    match meaning(word) {
        Some(meaning) => matches!(meaning, Superblock(..) | Iversion(_) | Acl(_) | TmpCopyUp),
        None => !word.is_empty(),
    }
}

/// The names that are not left to the file system, sorted, for `rcrun features`.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

// Sorted by name, for the binary search.
static OPTIONS: &[(&str, Meaning)] = {
    use AtimeChange::{Mode, Not};
    use Meaning::*;
    use PropagationKind::*;
    &[
        ("acl", Acl("acl")),
        ("async", Superblock("async", "sync")),
        ("atime", Atime(Not(MOUNT_ATTR_NOATIME))),
        ("bind", BindMount(Bind::Plain)),
        ("defaults", Default),
        ("dev", Clear(MOUNT_ATTR_NODEV)),
        ("diratime", Clear(MOUNT_ATTR_NODIRATIME)),
        ("dirsync", Superblock("dirsync", "")),
        ("exec", Clear(MOUNT_ATTR_NOEXEC)),
        ("idmap", IdMap(false)),
        ("iversion", Iversion("iversion")),
        ("lazytime", Superblock("lazytime", "nolazytime")),
        // What the kernel says about a mount by fd goes to that fd, not to its log: there is nothing to silence.
        ("loud", Default),
        ("mand", Superblock("mand", "nomand")),
        ("noacl", Acl("noacl")),
        ("noatime", Atime(Mode(MOUNT_ATTR_NOATIME))),
        ("nodev", Set(MOUNT_ATTR_NODEV)),
        ("nodiratime", Set(MOUNT_ATTR_NODIRATIME)),
        ("noexec", Set(MOUNT_ATTR_NOEXEC)),
        ("noiversion", Iversion("noiversion")),
        ("nolazytime", Superblock("nolazytime", "lazytime")),
        ("nomand", Superblock("nomand", "mand")),
        ("norelatime", Atime(Not(MOUNT_ATTR_RELATIME))),
        ("nostrictatime", Atime(Not(MOUNT_ATTR_STRICTATIME))),
        ("nosuid", Set(MOUNT_ATTR_NOSUID)),
        ("nosymfollow", Set(MOUNT_ATTR_NOSYMFOLLOW)),
        ("private", Propagate(Private, false)),
        ("ratime", RecAtime(Not(MOUNT_ATTR_NOATIME))),
        ("rbind", BindMount(Bind::Recursive)),
        ("rdev", RecClear(MOUNT_ATTR_NODEV)),
        ("rdiratime", RecClear(MOUNT_ATTR_NODIRATIME)),
        ("relatime", Atime(Mode(MOUNT_ATTR_RELATIME))),
        ("remount", Remount),
        ("rexec", RecClear(MOUNT_ATTR_NOEXEC)),
        ("ridmap", IdMap(true)),
        ("rnoatime", RecAtime(Mode(MOUNT_ATTR_NOATIME))),
        ("rnodev", RecSet(MOUNT_ATTR_NODEV)),
        ("rnodiratime", RecSet(MOUNT_ATTR_NODIRATIME)),
        ("rnoexec", RecSet(MOUNT_ATTR_NOEXEC)),
        ("rnorelatime", RecAtime(Not(MOUNT_ATTR_RELATIME))),
        ("rnostrictatime", RecAtime(Not(MOUNT_ATTR_STRICTATIME))),
        ("rnosuid", RecSet(MOUNT_ATTR_NOSUID)),
        ("rnosymfollow", RecSet(MOUNT_ATTR_NOSYMFOLLOW)),
        ("ro", ReadOnly),
        ("rprivate", Propagate(Private, true)),
        ("rrelatime", RecAtime(Mode(MOUNT_ATTR_RELATIME))),
        ("rro", RecSet(MOUNT_ATTR_RDONLY)),
        ("rrw", RecClear(MOUNT_ATTR_RDONLY)),
        ("rshared", Propagate(Shared, true)),
        ("rslave", Propagate(Slave, true)),
        ("rstrictatime", RecAtime(Mode(MOUNT_ATTR_STRICTATIME))),
        ("rsuid", RecClear(MOUNT_ATTR_NOSUID)),
        ("rsymfollow", RecClear(MOUNT_ATTR_NOSYMFOLLOW)),
        ("runbindable", Propagate(Unbindable, true)),
        ("rw", ReadWrite),
        ("shared", Propagate(Shared, false)),
        // As "loud".
        ("silent", Default),
        ("slave", Propagate(Slave, false)),
        ("strictatime", Atime(Mode(MOUNT_ATTR_STRICTATIME))),
        ("suid", Clear(MOUNT_ATTR_NOSUID)),
        ("symfollow", Clear(MOUNT_ATTR_NOSYMFOLLOW)),
        ("sync", Superblock("sync", "async")),
        ("tmpcopyup", TmpCopyUp),
        ("unbindable", Propagate(Unbindable, false)),
    ]
};

#[cfg(test)]
mod tests;
