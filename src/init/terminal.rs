//! The container's terminal: made from its own devpts, checked by inode, its peer taken without a path.

use crate::{
    in_root::{Root, open_name},
    parent::Parent,
    process::own,
    sys::{
        Failure, Fd, Result,
        errno::{EEXIST, ELOOP, ENODEV, ENOENT, EPERM},
        file::{self, DEVPTS_SUPER_MAGIC, S_IFCHR, S_IFLNK},
        mount,
        numbers::{O_CREAT, O_EXCL, O_NOCTTY, O_PATH, O_RDONLY, O_RDWR},
        process::setsid,
    },
};
use core::ffi::CStr;
use rcrun_plan::record::{Kind, Report};

const TIOCSCTTY: u32 = 0x540e;

/// What the step says.
#[allow(missing_docs)]
pub struct Terminal<'a> {
    pub ptmx: &'a CStr,
    pub console: bool,
    pub columns: u16,
    pub rows: u16,
    pub uid: u32,
}

/// Makes the terminal stdin, stdout and stderr; its master goes to the parent, its number as the detail.
pub fn set_up(root: &Root, parent: &Parent, to: &Terminal<'_>, step: u32) -> Result<()> {
    const TIOCSWINSZ: u32 = 0x5414;
    const TIOCGPTPEER: u32 = 0x5441;
    const TIOCSPTLCK: u32 = 0x4004_5431;
    const TIOCGPTN: u32 = 0x8004_5430;

    let master = open_ptmx(root, to.ptmx)?;
    file::ioctl_bytes(master.raw(), TIOCSPTLCK, &mut [0; 40])?;
    let mut number = [0; 40];
    file::ioctl_bytes(master.raw(), TIOCGPTN, &mut number)?;
    let number = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
    // By path, /dev/pts/N could be anything (CVE-2025-52565).
    let flags = (O_RDWR | O_NOCTTY | crate::sys::numbers::O_CLOEXEC) as usize;
    let peer = Fd::own(file::ioctl(master.raw(), TIOCGPTPEER, flags)? as i32);
    own(peer.raw(), to.uid)?;
    if to.columns != 0 || to.rows != 0 {
        // struct winsize: rows, columns, two of pixels.
        let mut size = [0; 40];
        size[0..2].copy_from_slice(&to.rows.to_le_bytes());
        size[2..4].copy_from_slice(&to.columns.to_le_bytes());
        file::ioctl_bytes(master.raw(), TIOCSWINSZ, &mut size)?;
    }
    for stdio in 0..3 {
        file::dup_onto(peer.raw(), stdio)?;
    }
    if to.console {
        put_on_console(root, &peer)?;
    }
    let report = Report { kind: Kind::Terminal, call: 0, step, errno: 0, detail: u64::from(number) };
    parent.tell_with_fd(report, &master)
}

/// setsid(2), which fails for what leads a process group already; then stdin as the controlling terminal.
pub fn start_session(controlling: bool) -> Result<()> {
    match setsid() {
        Ok(()) | Err(Failure { errno: EPERM, .. }) => {}
        Err(failure) => return Err(failure),
    }
    if controlling {
        file::ioctl(0, TIOCSCTTY, 0)?;
    }
    Ok(())
}

fn open_ptmx(root: &Root, path: &CStr) -> Result<Fd> {
    let is_ptmx = |fd: &Fd| -> Result<bool> { Ok(file::stat_fd(fd.raw())?.is_device(S_IFCHR, 5, 2)) };
    // Looked at before it is opened: opening a device can have an effect of its own.
    if !is_ptmx(&root.open(path, O_PATH, false)?)? {
        return Err(Failure::found(ENODEV));
    }
    let master = root.open(path, O_RDWR | O_NOCTTY, false)?;
    if !is_ptmx(&master)? || file::file_system(master.raw())? != DEVPTS_SUPER_MAGIC {
        return Err(Failure::found(ENODEV));
    }
    Ok(master)
}

/// Binds the peer onto dev/console, a name that must not be a link.
fn put_on_console(root: &Root, peer: &Fd) -> Result<()> {
    let (dev, name) = root.parent_of(c"dev/console")?;
    let target = match open_name(&dev, name) {
        Err(Failure { errno: ENOENT, .. }) => {
            match file::openat(dev.raw(), name, O_CREAT | O_EXCL | O_RDONLY, 0o600) {
                Ok(_) | Err(Failure { errno: EEXIST, .. }) => open_name(&dev, name)?,
                Err(failure) => return Err(failure),
            }
        }
        outcome => outcome?,
    };
    if file::stat_fd(target.raw())?.kind() == S_IFLNK {
        return Err(Failure::found(ELOOP));
    }
    let console = mount::clone_tree(peer.raw(), false)?;
    mount::move_mount(console.raw(), target.raw())
}
