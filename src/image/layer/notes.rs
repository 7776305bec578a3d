//! What an unpack left out, told once of each sort and not once a file.
//! Knows no other module.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// A sort of thing left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Device nodes, which a user namespace cannot make.
    Device,
    /// Extended attributes that no image may set.
    Forbidden,
    /// Extended attributes that the file system does not have.
    Unsupported,
    /// Extended attributes that the kernel refuses to this user, or to this sort of file.
    Refused,
    /// Owners, where only one's own can be set.
    Owner,
    /// Owners, where there is root alone.
    Unmapped,
    /// Keywords of global headers.
    Global,
    /// Sockets, which a tar does not hold.
    Socket,
}

impl Sort {
    fn text(self) -> &'static str {
        match self {
            Sort::Device => "device nodes are left out: a user namespace makes none",
            Sort::Forbidden => "this extended attribute is not taken from an image",
            Sort::Unsupported => "the file system does not have this extended attribute",
            Sort::Refused => "the kernel refuses this extended attribute",
            Sort::Owner => "owners are left as they are: only root changes them",
            Sort::Unmapped => {
                "files of others are root's: this user has no ranges of ids (let root call `usermod --add-subuids \
                 100000-165535 --add-subgids 100000-165535 USER`, and load the image into a new store)"
            }
            Sort::Global => "keywords of global headers are not followed",
            Sort::Socket => "sockets are left out: a layer holds none",
        }
    }
}

/// All that was left out so far.
#[derive(Debug, Default)]
pub struct Notes(RefCell<BTreeMap<Sort, (u64, String)>>);

impl Notes {
    /// Notes one; `what` is asked for the first of its sort only.
    pub fn add(&self, sort: Sort, what: impl FnOnce() -> String) {
        self.0.borrow_mut().entry(sort).or_insert_with(|| (0, what())).0 += 1;
    }

    /// A sentence for each sort.
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |(sort, (count, first)): (&Sort, &(u64, String))| match count {
            1 => format!("{first}: {}", sort.text()),
            _ => format!("{first} (and {} more): {}", count - 1, sort.text()),
        };
        self.0.borrow().iter().map(sentence).collect()
    }
}
