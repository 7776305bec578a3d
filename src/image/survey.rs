//! What each layer of an image adds, changes and removes, and what of it a later layer hides.
//! Uses: error. Reads layers in overlay form, as they lie in the store.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::layer::Form;

/// Folders in a path: an unpacked layer has no more (layer::Limits).
const DEPTH_MAX: usize = 1024;

/// Bytes and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of file data; a file with several names counts once.
    pub bytes: u64,
    /// Files, links, devices; no folders.
    pub files: u64,
}

impl Amount {
    fn add(&mut self, other: Amount) {
        self.bytes += other.bytes;
        self.files += other.files;
    }
}

/// What a layer does to a folder and all below it, or to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name; empty for the root.
    pub name: Vec<u8>,
    /// Whether it is a folder.
    pub folder: bool,
    /// What was not there before.
    pub added: Amount,
    /// What is there in another form than before; the bytes are those of the new form.
    pub changed: Amount,
    /// What lower layers had, and is gone.
    pub removed: Amount,
    /// What of this layer a later one hides.
    pub wasted: Amount,
    /// What is in it, the largest first.
    pub children: Vec<Node>,
}

impl Node {
    /// By what a tree is sorted: all that the layer stores and hides here.
    pub fn weight(&self) -> u64 {
        self.added.bytes + self.changed.bytes + self.removed.bytes
    }
}

/// A line of a layer's account.
struct Item {
    parent: usize,
    name: Vec<u8>,
    folder: bool,
    own: Amount,
    /// Of another layer's form of it, or of what it removes.
    replaces: bool,
    removed: Amount,
    hidden: bool,
}

/// The tree that the layers so far give.
#[derive(Default)]
struct Merged {
    /// The layer and the item that tell what stands here; none for a folder that no item tells.
    place: Option<(usize, usize)>,
    folder: bool,
    children: BTreeMap<Vec<u8>, Merged>,
}

/// Surveys `layers`, the lowest first. `form` is that of the folders.
pub fn survey(layers: &[impl AsFd], form: Form) -> Result<Vec<Node>> {
    let mut survey = Survey { form, accounts: Vec::new(), layer: 0, links: HashSet::new() };
    let mut merged = Merged { folder: true, ..Merged::default() };
    for (number, layer) in layers.iter().enumerate() {
        survey.layer = number;
        survey.links.clear();
        survey.accounts.push(vec![Item::folder(0, Vec::new())]);
        let root = open(layer.as_fd(), c".")?;
        survey.walk(&root, &mut merged, 0, 0).map_err(|e| e.of(format_args!("layer {number}")))?;
    }
    Ok(survey.accounts.into_iter().map(tree).collect())
}

impl Item {
    fn folder(parent: usize, name: Vec<u8>) -> Item {
        Item {
            parent,
            name,
            folder: true,
            own: Amount::default(),
            replaces: false,
            removed: Amount::default(),
            hidden: false,
        }
    }
}

struct Survey {
    form: Form,
    accounts: Vec<Vec<Item>>,
    layer: usize,
    /// Files of several names that were met in this layer.
    links: HashSet<(u64, u64)>,
}

impl Survey {
    fn walk(&mut self, dir: &OwnedFd, merged: &mut Merged, parent: usize, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::new(Code::Limit, format!("more than {DEPTH_MAX} folders within each other")));
        }
        let read = |e: Errno| Error::call("read a folder of a layer", e);
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let stat = rustix::fs::statat(dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| Error::call("fstatat in a layer", e))?;
            let key = name.to_bytes().to_vec();
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice if stat.st_rdev == 0 => {
                    if let Some(gone) = merged.children.remove(&key) {
                        let removed = self.hide(&gone);
                        let item = Item { folder: gone.folder, removed, ..Item::folder(parent, key) };
                        self.accounts[self.layer].push(item);
                    }
                }
                FileType::Directory => self.folder(dir, &name, merged, parent, depth)?,
                _ => self.file(&stat, key, merged, parent),
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        dir: &OwnedFd,
        name: &std::ffi::CStr,
        merged: &mut Merged,
        parent: usize,
        depth: usize,
    ) -> Result<()> {
        let fd = open(dir.as_fd(), name)?;
        let key = name.to_bytes().to_vec();
        let mut removed = Amount::default();
        let there = merged.children.get(&key).is_some_and(|there| there.folder);
        if !there || self.is_opaque(&fd)? {
            removed = merged.children.remove(&key).map(|gone| self.hide(&gone)).unwrap_or_default();
        }
        let account = &mut self.accounts[self.layer];
        let item = account.len();
        account.push(Item { removed, ..Item::folder(parent, key.clone()) });
        let below =
            merged.children.entry(key).or_insert_with(|| Merged { folder: true, ..Merged::default() });
        self.walk(&fd, below, item, depth + 1)
    }

    fn file(&mut self, stat: &Stat, key: Vec<u8>, merged: &mut Merged, parent: usize) {
        let mut own = Amount { bytes: 0, files: 1 };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_file && (stat.st_nlink == 1 || self.links.insert((stat.st_dev, stat.st_ino))) {
            own.bytes = stat.st_size as u64;
        }
        let before = merged.children.remove(&key);
        let mut removed = Amount::default();
        let mut replaces = false;
        if let Some(before) = &before {
            let hidden = self.hide(before);
            // A folder that became a file is a removal and an addition.
            match before.folder {
                true => removed = hidden,
                false => replaces = true,
            }
        }
        let account = &mut self.accounts[self.layer];
        let place = Some((self.layer, account.len()));
        account.push(Item { folder: false, own, replaces, removed, ..Item::folder(parent, key.clone()) });
        merged.children.insert(key, Merged { place, ..Merged::default() });
    }

    /// Marks all of `gone` as hidden, and tells how much it is.
    fn hide(&mut self, gone: &Merged) -> Amount {
        let mut amount = Amount::default();
        let mut left = vec![gone];
        while let Some(gone) = left.pop() {
            if let Some((layer, item)) = gone.place {
                let item = &mut self.accounts[layer][item];
                item.hidden = true;
                amount.add(item.own);
            }
            left.extend(gone.children.values());
        }
        amount
    }

    fn is_opaque(&self, folder: &OwnedFd) -> Result<bool> {
        let name = match self.form {
            Form::Overlay => "trusted.overlay.opaque",
            Form::UserOverlay => "user.overlay.opaque",
            Form::Flat => return Ok(false),
        };
        let mut value = [0; 8];
        match rustix::fs::fgetxattr(folder, name, &mut value) {
            Ok(length) => Ok(value[..length] == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(e) => Err(Error::call("fgetxattr of a folder of a layer", e)),
        }
    }
}

fn open(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|e| Error::call("open a folder of a layer", e))
}

/// The account of one layer as a tree. What is in a folder comes after it.
fn tree(items: Vec<Item>) -> Node {
    let parents: Vec<usize> = items.iter().map(|item| item.parent).collect();
    let mut nodes: Vec<Option<Node>> = items.into_iter().map(|item| Some(node(item))).collect();
    for at in (1..nodes.len()).rev() {
        let Some(mut node) = nodes[at].take() else { continue };
        sort(&mut node.children);
        // A folder that only leads to others tells nothing.
        if node.children.is_empty()
            && node == (Node { name: node.name.clone(), folder: true, ..Node::default() })
        {
            continue;
        }
        if let Some(parent) = &mut nodes[parents[at]] {
            for (sum, part) in [
                (&mut parent.added, node.added),
                (&mut parent.changed, node.changed),
                (&mut parent.removed, node.removed),
                (&mut parent.wasted, node.wasted),
            ] {
                sum.add(part);
            }
            parent.children.push(node);
        }
    }
    let mut root = nodes.into_iter().next().flatten().unwrap_or_default();
    sort(&mut root.children);
    root
}

fn sort(children: &mut [Node]) {
    children.sort_by(|a, b| {
        let files = |node: &Node| node.added.files + node.changed.files + node.removed.files;
        (b.weight(), files(b)).cmp(&(a.weight(), files(a))).then_with(|| a.name.cmp(&b.name))
    });
}

fn node(item: Item) -> Node {
    let Item { name, folder, own, replaces, removed, hidden, .. } = item;
    let (added, changed) = if replaces { (Amount::default(), own) } else { (own, Amount::default()) };
    let wasted = if hidden { own } else { Amount::default() };
    Node { name, folder, added, changed, removed, wasted, children: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn told(node: &Node, indent: usize, out: &mut Vec<String>) {
        let amount = |a: Amount| format!("{}/{}", a.bytes, a.files);
        out.push(format!(
            "{}{} +{} ~{} -{} !{}",
            " ".repeat(indent),
            String::from_utf8_lossy(&node.name),
            amount(node.added),
            amount(node.changed),
            amount(node.removed),
            amount(node.wasted)
        ));
        node.children.iter().for_each(|child| told(child, indent + 1, out));
    }

    #[test]
    fn each_layer_is_told_by_what_it_does_to_those_below_and_what_later_ones_do_to_it() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for folder in ["0/bin", "0/lib/deep", "0/tmp", "1/lib", "1/bin", "2/tmp", "2/lib/deep", "3/bin"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        fs::write(path("0/bin/sh"), [0; 100]).unwrap();
        fs::hard_link(path("0/bin/sh"), path("0/bin/ash")).unwrap();
        fs::write(path("0/lib/a"), [0; 30]).unwrap();
        fs::write(path("0/lib/deep/b"), [0; 7]).unwrap();
        fs::write(path("0/tmp/big"), [0; 5000]).unwrap();
        // Changes sh, removes a file.
        fs::write(path("1/bin/sh"), [0; 120]).unwrap();
        let whiteout = |name: &str| {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path(name), FileType::CharacterDevice, mode, 0).unwrap();
        };
        whiteout("1/lib/a");
        // Nothing of that name is below: it hides nothing.
        whiteout("1/lib/never");
        // An opaque folder, and a folder of which only the attributes are new.
        rustix::fs::setxattr(path("2/tmp"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
        fs::write(path("2/tmp/small"), [0; 1]).unwrap();
        // A file where a folder was.
        fs::write(path("3/lib"), [0; 2]).unwrap();
        let layers: Vec<OwnedFd> = (0..4)
            .map(|i| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(path(&i.to_string()), flags, Mode::empty()).unwrap()
            })
            .collect();
        let mut lines = Vec::new();
        survey(&layers, Form::Overlay).unwrap().iter().for_each(|layer| told(layer, 0, &mut lines));
        assert_eq!(
            lines,
            [
                " +5137/5 ~0/0 -0/0 !5037/4",
                " tmp +5000/1 ~0/0 -0/0 !5000/1",
                "  big +5000/1 ~0/0 -0/0 !5000/1",
                " bin +100/2 ~0/0 -0/0 !0/1",
                "  ash +100/1 ~0/0 -0/0 !0/0",
                "  sh +0/1 ~0/0 -0/0 !0/1",
                " lib +37/2 ~0/0 -0/0 !37/2",
                "  a +30/1 ~0/0 -0/0 !30/1",
                "  deep +7/1 ~0/0 -0/0 !7/1",
                "   b +7/1 ~0/0 -0/0 !7/1",
                " +0/0 ~120/1 -30/1 !0/0",
                " bin +0/0 ~120/1 -0/0 !0/0",
                "  sh +0/0 ~120/1 -0/0 !0/0",
                " lib +0/0 ~0/0 -30/1 !0/0",
                "  a +0/0 ~0/0 -30/1 !0/0",
                " +1/1 ~0/0 -5000/1 !0/0",
                " tmp +1/1 ~0/0 -5000/1 !0/0",
                "  small +1/1 ~0/0 -0/0 !0/0",
                " +2/1 ~0/0 -7/1 !0/0",
                " lib +2/1 ~0/0 -7/1 !0/0",
            ]
        );
    }
}
