//! Where cgroup2 is mounted, and which cgroup rcrun itself is in.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};

use super::file::read_list;
use crate::error::CallContext;
use crate::mountinfo::{Mount, unescape};
use crate::{Code, Error, Result};

/// CGROUP2_SUPER_MAGIC of linux/magic.h.
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// The mount of cgroup2 that containers' cgroups are made below.
#[derive(Debug)]
pub struct Hierarchy {
    dir: OwnedFd,
    path: PathBuf,
}

impl Hierarchy {
    /// Finds it: /sys/fs/cgroup on a host with v2 alone, /sys/fs/cgroup/unified on a hybrid one, else the first
    /// cgroup2 in mountinfo. The superblock decides, not the name.
    pub fn find() -> Result<Hierarchy> {
        for path in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            if let Some(found) = Hierarchy::at(Path::new(path))? {
                return Ok(found);
            }
        }
        let mountinfo = File::open("/proc/self/mountinfo").call("open /proc/self/mountinfo")?;
        let path = cgroup2_mount(BufReader::new(mountinfo)).call("read /proc/self/mountinfo")?;
        if let Some(path) = path
            && let Some(found) = Hierarchy::at(&path)?
        {
            return Ok(found);
        }
        Err(Error::new(
            Code::Host,
            "no cgroup v2 hierarchy is mounted on this machine (looked at /sys/fs/cgroup, /sys/fs/cgroup/unified and /proc/self/mountinfo): boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 on /sys/fs/cgroup",
        ))
    }

    /// The hierarchy mounted at `path`, if cgroup2 is.
    pub fn at(path: &Path) -> Result<Option<Hierarchy>> {
        let dir = match openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => dir,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(Error::call(format!("open {}", path.display()), errno)),
        };
        let statfs = fstatfs(&dir).call(format!("statfs {}", path.display()))?;
        // f_type's integer type differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let magic = statfs.f_type as u64;
        Ok((magic == CGROUP2_SUPER_MAGIC).then(|| Hierarchy { dir, path: path.to_path_buf() }))
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// rcrun's own cgroup: the `0::` line of /proc/self/cgroup.
    pub fn own_path(&self) -> Result<String> {
        let text = read_list(CWD, "/proc/self/cgroup")
            .call("read /proc/self/cgroup")
            .map_err(|error| error.hint(Some("rcrun needs the machine's procfs on /proc, readable")))?;
        match line_of_v2(&text) {
            Some(path) => Ok(path.to_string()),
            None => Err(Error::new(Code::Host, "/proc/self/cgroup has no line for cgroup v2 (\"0::\")")),
        }
    }
}

impl AsFd for Hierarchy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The path of v2 in the text of a `/proc/PID/cgroup`.
pub fn line_of_v2(proc_pid_cgroup: &str) -> Option<&str> {
    proc_pid_cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The first mount of type cgroup2 whose root is the hierarchy's, behind which nothing is read; else the first of any root.
fn cgroup2_mount(mountinfo: impl BufRead) -> io::Result<Option<PathBuf>> {
    let mut second_best = None;
    for line in mountinfo.split(b'\n') {
        let line = line?;
        let Some(mount) = Mount::of(&line).filter(|mount| mount.kind == b"cgroup2") else { continue };
        let point = PathBuf::from(OsString::from_vec(unescape(mount.point)));
        if mount.root == b"/" {
            return Ok(Some(point));
        }
        second_best.get_or_insert(point);
    }
    Ok(second_best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_read_from_mountinfo() {
        let v1 = b"32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";
        let sub = b"40 31 0:38 /docker/0a /mnt/sub rw shared:1 master:2 - cgroup2 cgroup2 rw\n";
        let odd = b"41 31 0:38 / /mnt/my\\040cgroups rw,relatime shared:5 - cgroup2 none rw,nsdelegate\n";
        // Any user may have mounted something where no UTF-8 is.
        let latin = b"42 31 0:99 / /home/andr\xe9 rw - fuse.sshfs andr\xe9@box: rw\n";
        let rows: [(&[&[u8]], _); 6] = [
            (&[], None),
            (&[v1], None),
            (&[v1, sub], Some("/mnt/sub")),
            (&[v1, sub, odd], Some("/mnt/my cgroups")),
            (&[latin, odd, sub], Some("/mnt/my cgroups")),
            (&[b"garbage\n - cgroup2\n 1 2 3 4 5 -\n"], None),
        ];
        for (lines, expected) in rows {
            let mountinfo = lines.concat();
            let shown = String::from_utf8_lossy(&mountinfo);
            assert_eq!(cgroup2_mount(&mountinfo[..]).unwrap(), expected.map(PathBuf::from), "{shown}");
        }
    }

    #[test]
    fn mountinfo_is_read_as_far_as_the_hierarchy() {
        let first = b"41 31 0:38 / /mnt/cgroups rw - cgroup2 none rw\n";
        let rest = [&b"42 31 0:99 / /srv rw - tmpfs none rw\n"[..]; 2000].concat();
        let mut mountinfo = io::Cursor::new([&first[..], &rest].concat());
        assert_eq!(cgroup2_mount(&mut mountinfo).unwrap(), Some(PathBuf::from("/mnt/cgroups")));
        assert_eq!(mountinfo.position(), first.len() as u64);
    }

    #[test]
    fn the_own_cgroup_is_the_line_of_hierarchy_zero() {
        assert_eq!(
            line_of_v2("9:name=systemd:/\n10::/no\n0::/user.slice/a b.scope\n"),
            Some("/user.slice/a b.scope")
        );
        assert_eq!(line_of_v2("4:memory:/x\n"), None);
    }

    #[test]
    fn the_machine_has_a_hierarchy_and_rcrun_is_in_it() {
        let hierarchy = Hierarchy::find().unwrap();
        assert!(hierarchy.own_path().unwrap().starts_with('/'));
        assert!(Hierarchy::at(Path::new("/proc")).unwrap().is_none());
        assert!(Hierarchy::at(Path::new("/no/such/place")).unwrap().is_none());
    }
}
