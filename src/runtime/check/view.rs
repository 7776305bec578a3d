//! What a container will see at a path: its root with the mounts of config.json on it, as far as that can be told before
//! they are made. Nothing is mounted and nothing is opened but to be looked at. Uses: prepare, resolve.

use crate::Result;
use crate::error::CallContext;
use crate::prepare::regular_file;
use crate::resolve::open_in_root;
use rustix::fs::{FileType, OFlags, Stat};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

/// The most links that the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// The root, and what is mounted on it.
pub(super) struct View {
    layers: Vec<Layer>,
}

struct Layer {
    /// Where, below the root; the root is empty.
    at: String,
    what: What,
}

/// What is mounted somewhere.
pub(super) enum What {
    /// A folder or file of the machine.
    Tree(OwnedFd),
    /// A tmpfs.
    Empty,
    /// What cannot be looked into before it is made.
    Unseen,
}

/// What lies at a path.
pub(super) enum Found {
    /// This file, at this path without links.
    There { file: OwnedFd, stat: Stat, path: String },
    /// A folder that a mount brings with it.
    Folder { path: String },
    /// Nothing, from here on.
    Missing { path: String },
    /// A component of the path is no folder.
    NotFolder { path: String },
    /// Its links lead in a circle.
    Circle,
    /// Nobody can tell before the start.
    Unseen { path: String },
    /// This user may not look there.
    Denied { path: String },
}

impl View {
    /// The root alone.
    pub fn new(root: OwnedFd) -> View {
        View { layers: vec![Layer { at: String::new(), what: What::Tree(root) }] }
    }

    /// Puts something on `destination`.
    pub fn mount(&mut self, destination: &str, what: What) {
        let at = match self.find(destination) {
            Found::There { path, .. }
            | Found::Folder { path }
            | Found::Missing { path }
            | Found::NotFolder { path }
            | Found::Unseen { path }
            | Found::Denied { path } => path,
            Found::Circle => return,
        };
        self.layers.push(Layer { at, what });
    }

    /// What `path` leads to, through links.
    pub fn find(&self, path: &str) -> Found {
        let parts = |text: &str| -> Vec<String> {
            text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_string).collect()
        };
        let mut left: VecDeque<String> = parts(path).into();
        let mut here: Vec<String> = Vec::new();
        let mut links = 0;
        let mut last = self.look("");
        while let Some(part) = left.pop_front() {
            if part == ".." {
                here.pop();
                last = self.look(&here.join("/"));
                continue;
            }
            here.push(part);
            let path = here.join("/");
            let whole = |here: &[String], left: &VecDeque<String>| {
                here.iter().chain(left).cloned().collect::<Vec<_>>().join("/")
            };
            last = self.look(&path);
            match &last {
                Found::Missing { .. } => return Found::Missing { path: whole(&here, &left) },
                Found::Unseen { .. } => return Found::Unseen { path: whole(&here, &left) },
                Found::Denied { .. } => return Found::Denied { path },
                Found::There { file, stat, .. } => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => {
                        links += 1;
                        if links > MOST_LINKS {
                            return Found::Circle;
                        }
                        let Ok(target) = rustix::fs::readlinkat(file, "", Vec::new()) else {
                            return Found::Unseen { path };
                        };
                        let target = target.to_string_lossy();
                        here.pop();
                        if target.starts_with('/') {
                            here.clear();
                        }
                        for part in parts(&target).into_iter().rev() {
                            left.push_front(part);
                        }
                        last = self.look(&here.join("/"));
                    }
                    FileType::Directory => {}
                    _ if left.is_empty() => {}
                    _ => return Found::NotFolder { path },
                },
                Found::Folder { .. } | Found::NotFolder { .. } | Found::Circle => {}
            }
        }
        last
    }

    /// What lies at `path`, whose components are no links.
    fn look(&self, path: &str) -> Found {
        let path = path.to_string();
        let below = |at: &str, path: &str| {
            let rest = path.strip_prefix(at)?;
            match at.is_empty() || rest.is_empty() {
                true => Some(rest.to_string()),
                false => rest.strip_prefix('/').map(str::to_string),
            }
        };
        // What comes last covers what was there.
        let covering = self.layers.iter().rev().find_map(|layer| Some((layer, below(&layer.at, &path)?)));
        let Some((layer, rest)) = covering else { return Found::Unseen { path } };
        let found = match &layer.what {
            What::Unseen => return Found::Unseen { path },
            What::Empty if rest.is_empty() => return Found::Folder { path },
            What::Empty => None,
            What::Tree(root) => {
                let file = match rest.as_str() {
                    "" => rustix::io::fcntl_dupfd_cloexec(root, 3),
                    rest => open_in_root(root.as_fd(), rest, OFlags::PATH | OFlags::NOFOLLOW),
                };
                match file.and_then(|file| rustix::fs::fstat(&file).map(|stat| (file, stat))) {
                    Ok(found) => Some(found),
                    Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                        return Found::Denied { path };
                    }
                    Err(_) => None,
                }
            }
        };
        match found {
            Some((file, stat)) => Found::There { file, stat, path },
            // A mount point is made with the folders above it.
            None if self.layers.iter().any(|other| other.at.starts_with(&format!("{path}/"))) => {
                Found::Folder { path }
            }
            None => Found::Missing { path },
        }
    }

    /// The first bytes of the file that was found; an error where it is no regular file.
    pub fn head(file: &OwnedFd, most: usize) -> Result<Vec<u8>> {
        use std::io::Read;
        let (opened, _) = regular_file(file.as_fd()).call("open")?;
        let mut bytes = Vec::new();
        opened.take(most as u64).read_to_end(&mut bytes).call("read")?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;
    use rustix::fs::{CWD, Mode};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    fn told(found: Found) -> String {
        match found {
            Found::There { path, .. } => format!("there {path}"),
            Found::Folder { path } => format!("folder {path}"),
            Found::Missing { path } => format!("missing {path}"),
            Found::NotFolder { path } => format!("no folder {path}"),
            Found::Circle => "circle".into(),
            Found::Unseen { path } => format!("unseen {path}"),
            Found::Denied { path } => format!("denied {path}"),
        }
    }

    #[test]
    fn a_path_is_seen_through_the_mounts_that_will_be_there() {
        let scratch = Folder::new("check-view");
        let [root, host] = ["root", "host"].map(|name| scratch.path().join(name));
        for folder in ["root/usr/bin", "root/var", "root/opt", "host/sub"] {
            fs::create_dir_all(scratch.path().join(folder)).unwrap();
        }
        for file in ["root/usr/bin/sh", "root/opt/old", "host/tool", "host/sub/deep"] {
            fs::write(scratch.path().join(file), "x").unwrap();
        }
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("around", root.join("around")).unwrap();
        symlink("../../../usr/bin/sh", root.join("usr/bin/up")).unwrap();
        let mut view = View::new(open(&root));
        view.mount("/opt", What::Tree(open(&host)));
        view.mount("/run", What::Empty);
        view.mount("/var/run/a/b", What::Tree(open(&host.join("tool"))));
        view.mount("/proc", What::Unseen);
        for (path, expected) in [
            ("/", "there "),
            ("/bin/sh", "there usr/bin/sh"),
            ("/usr/bin/up", "there usr/bin/sh"),
            ("/../bin/../bin/./sh", "there usr/bin/sh"),
            ("/opt/tool", "there opt/tool"),
            ("/opt/old", "missing opt/old"),
            ("/opt/sub/deep", "there opt/sub/deep"),
            ("/run", "folder run"),
            ("/var/run/x/y", "missing run/x/y"),
            ("/run/a", "folder run/a"),
            ("/run/a/b", "there run/a/b"),
            ("/run/a/b/c", "no folder run/a/b"),
            ("/bin/sh/x", "no folder usr/bin/sh"),
            ("/around/x", "circle"),
            ("/proc/self/exe", "unseen proc/self/exe"),
            ("/nowhere/at/all", "missing nowhere/at/all"),
        ] {
            assert_eq!(told(view.find(path)), expected, "{path}");
        }
        let Found::There { file, .. } = view.find("/opt/tool") else { panic!("it is there") };
        assert_eq!(View::head(&file, 10).unwrap(), b"x");
    }

    #[test]
    fn of_a_file_that_is_no_regular_one_nothing_is_read() {
        let scratch = Folder::new("check-head");
        let path = scratch.path().join("fifo");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [&path, scratch.path(), Path::new("/dev/zero")] {
            let error = View::head(&open(path), 10).unwrap_err();
            assert_eq!(error.errno(), Some(libc::EINVAL), "{}: {error}", path.display());
        }
    }
}
