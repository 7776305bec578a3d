//! A child that enters the namespaces of init and clones mounts there: an ordinary user owns nothing of the machine's mount
//! namespace, but all of the copy that its new user namespace has. It makes file systems there too, whose owners the kernel
//! maps for that namespace alone.
//!
//! It keeps the caller's user, groups and access rights, which init, as root of the user namespace, may not have. Between
//! fork and exit it makes system calls only: the process that forks may have many threads.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::mount::{MountAttributes, SET_ID_MAP};
use super::user_namespace::UserNamespace;

/// A tree that may be asked for.
#[derive(Debug)]
pub enum Wanted {
    /// What is mounted there already.
    Mounted(Mounted),
    /// A new file system.
    New(New),
}

/// A new file system whose files show other owners.
#[derive(Debug)]
pub struct New {
    /// Its type.
    pub kind: CString,
    /// fsconfig(2): keys with their values, and flags.
    pub options: Vec<(CString, Option<CString>)>,
    /// MOUNT_ATTR_* bits.
    pub attributes: u32,
    /// The contents of uid_map and gid_map, in ids of init's user namespace.
    pub maps: [Vec<u8>; 2],
}

/// What is mounted already.
#[derive(Debug)]
pub struct Mounted {
    /// Absolute path.
    pub path: CString,
    /// With all mounts below it.
    pub recursive: bool,
    /// Propagation that the clone gets; 0 keeps it.
    pub propagation: u64,
    /// Device and inode that must lie there.
    pub file: (u64, u64),
}

/// The child.
#[derive(Debug)]
pub struct Trees {
    pid: libc::pid_t,
    socket: Option<OwnedFd>,
}

/// A failed call.
#[derive(Debug)]
pub struct Failed {
    /// Which.
    pub call: &'static str,
    /// Of a call for an option of a new file system: which.
    pub option: usize,
    /// Its error.
    pub error: io::Error,
}

/// The calls that can fail, by the number in a reply; 0 is success.
const CALLS: [&str; 16] = [
    "nothing",
    "setns into the container",
    "open",
    "fstat",
    "stat: another file lies there now",
    "open_tree",
    "mount_setattr",
    "unshare a mount namespace",
    "fsopen",
    "fsconfig",
    "fsconfig FSCONFIG_CMD_CREATE",
    "fsmount",
    "user namespace for an id map",
    "open its id map",
    "write its id map",
    SET_ID_MAP,
];

/// A call, with the number of an option in multiples of `OPTION`; and its errno.
type Reply = [i32; 2];

const OPTION: usize = 256;

impl Trees {
    /// Forks it; `kinds` are the CLONE_NEW* bits of init's namespaces to enter. Without the mount namespace among them it
    /// makes one: a copy of this process's, which belongs to init's user namespace.
    pub fn fork(init: BorrowedFd<'_>, kinds: c_int, wanted: &[Option<Wanted>]) -> Result<Trees, Failed> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| Failed { call: "socketpair", option: 0, error: e.into() })?;
        // SAFETY: the child makes system calls on what exists already, and leaves by _exit: no lock, no allocation, no
        // destructor of this process's.
        match unsafe { libc::fork() } {
            -1 => Err(Failed { call: "fork", option: 0, error: io::Error::last_os_error() }),
            0 => serve(theirs.as_raw_fd(), init.as_raw_fd(), kinds, wanted),
            pid => Ok(Trees { pid, socket: Some(ours) }),
        }
    }

    /// The tree of `wanted[index]`, detached.
    pub fn get(&self, index: u16) -> Result<OwnedFd, Failed> {
        let gone = || Failed {
            call: "clone in the container's mount namespace",
            option: 0,
            error: io::ErrorKind::BrokenPipe.into(),
        };
        let socket = self.socket.as_ref().ok_or_else(gone)?;
        rustix::net::send(socket, &index.to_ne_bytes(), SendFlags::NOSIGNAL).map_err(|_| gone())?;
        let mut bytes = [0; size_of::<Reply>()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Failed { call: "recvmsg", option: 0, error: e.into() }),
                Ok(message) => break message.bytes,
            }
        };
        if length != bytes.len() {
            return Err(gone());
        }
        let number = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let tree = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match (number(0), tree) {
            (0, Some(tree)) => Ok(tree),
            (call, _) => Err(Failed {
                call: CALLS.get(call as usize % OPTION).copied().unwrap_or("clone"),
                option: call as usize / OPTION,
                error: io::Error::from_raw_os_error(number(4)),
            }),
        }
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        // End of file ends it.
        self.socket = None;
        // SAFETY: waits for a child of ours, which exits now; EINTR is tried again.
        unsafe {
            while libc::waitpid(self.pid, std::ptr::null_mut(), 0) < 0
                && *libc::__errno_location() == libc::EINTR
            {}
        }
    }
}

/// The child's life.
fn serve(socket: RawFd, init: RawFd, kinds: c_int, wanted: &[Option<Wanted>]) -> ! {
    // SAFETY: system calls with integers and with what lives in this process's copy of its parent's memory.
    unsafe {
        // Before it enters: nobody inside shall look into what is a copy of rcrun.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        let entered = match (libc::setns(init, kinds), kinds & libc::CLONE_NEWNS) {
            (0, 0) if libc::unshare(libc::CLONE_NEWNS) != 0 => [7, errno()],
            (0, _) => [0, 0],
            _ => [1, errno()],
        };
        // The other end of init's socket and of this one must be nobody's but the parent's.
        if socket > 0 {
            libc::syscall(libc::SYS_close_range, 0, socket - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, socket + 1, u32::MAX, 0);
        loop {
            let mut index = [0_u8; 2];
            match libc::recv(socket, index.as_mut_ptr().cast(), index.len(), 0) {
                2 => {}
                -1 if errno() == libc::EINTR => continue,
                _ => libc::_exit(0),
            }
            let index = usize::from(u16::from_ne_bytes(index));
            let (reply, tree) = match (entered, wanted.get(index).and_then(Option::as_ref)) {
                ([0, _], Some(wanted)) => match made(wanted) {
                    Ok(tree) => ([0, 0], Some(tree)),
                    Err(reply) => (reply, None),
                },
                ([0, _], None) => ([2, libc::EBADF], None),
                (failed, _) => (failed, None),
            };
            answer(socket, reply, tree.as_ref().map(AsRawFd::as_raw_fd));
        }
    }
}

fn errno() -> i32 {
    // SAFETY: this thread's own cell.
    unsafe { *libc::__errno_location() }
}

fn made(wanted: &Wanted) -> Result<OwnedFd, Reply> {
    match wanted {
        Wanted::Mounted(mounted) => clone(mounted),
        Wanted::New(new) => make(new),
    }
}

/// The reply to a call of rustix's that has failed.
fn failed(call: i32) -> impl Fn(rustix::io::Errno) -> Reply {
    move |errno| [call, errno.raw_os_error()]
}

fn make(new: &New) -> Result<OwnedFd, Reply> {
    let context = rustix::mount::fsopen(&*new.kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(8))?;
    for (option, (key, value)) in new.options.iter().enumerate() {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, &**key, &**value),
            None => rustix::mount::fsconfig_set_flag(&context, &**key),
        }
        .map_err(failed(9 + (option * OPTION) as i32))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(failed(10))?;
    let attributes = MountAttrFlags::from_bits_retain(new.attributes);
    let mount =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed(11))?;
    let owners = with_maps(&new.maps)?;
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: owners.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    match super::mount::set_attributes(borrow(&mount), false, &attributes) {
        Ok(()) => Ok(mount),
        Err(error) => Err([15, error.raw_os_error().unwrap_or_default()]),
    }
}

/// A user namespace below the one that this process is in, with these maps.
fn with_maps(maps: &[Vec<u8>; 2]) -> Result<OwnedFd, Reply> {
    let number = |call: i32, error: io::Error| [call, error.raw_os_error().unwrap_or_default()];
    let made = UserNamespace::new(true).map_err(|error| number(12, error))?;
    let open = |file: &str, flags: OFlags| {
        // On the stack: nothing is allocated here.
        let mut path = [0_u8; 64];
        let mut rest = path.as_mut_slice();
        write!(rest, "/proc/{}/{file}\0", made.pid()).map_err(|_| [13, libc::ENAMETOOLONG])?;
        let path = CStr::from_bytes_until_nul(&path).map_err(|_| [13, libc::ENAMETOOLONG])?;
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(failed(13))
    };
    for (file, map) in ["uid_map", "gid_map"].into_iter().zip(maps) {
        let file = open(file, OFlags::WRONLY)?;
        // One write: the kernel takes a map whole or not at all.
        rustix::io::write(&file, map).map_err(failed(14))?;
    }
    open("ns/user", OFlags::RDONLY)
}

fn clone(wanted: &Mounted) -> Result<OwnedFd, Reply> {
    // SAFETY: paths end with NUL, buffers live, and each fd is taken over once.
    unsafe {
        let owned = |fd: c_int, call: i32| match fd {
            -1 => Err([call, errno()]),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        };
        let file = owned(libc::open(wanted.path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC), 2)?;
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(file.as_raw_fd(), &mut stat) != 0 {
            return Err([3, errno()]);
        }
        if (stat.st_dev as u64, stat.st_ino as u64) != wanted.file {
            return Err([4, libc::ESTALE]);
        }
        const OPEN_TREE_CLONE: c_int = 1;
        let recursive = if wanted.recursive { libc::AT_RECURSIVE } else { 0 };
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | recursive;
        let tree = libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), c"".as_ptr(), flags);
        let tree = owned(tree as c_int, 5)?;
        let attributes = MountAttributes { propagation: wanted.propagation, ..MountAttributes::default() };
        if wanted.propagation != 0 && super::mount::set_attributes(borrow(&tree), true, &attributes).is_err()
        {
            return Err([6, errno()]);
        }
        Ok(tree)
    }
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}

/// One record, with a tree where there is one.
fn answer(socket: RawFd, reply: Reply, tree: Option<RawFd>) {
    // Room for one fd, aligned as cmsg(3) wants it.
    let mut room = [0_u64; 4];
    // SAFETY: the message's parts live in this frame; `room` holds CMSG_SPACE of one fd, which CMSG_FIRSTHDR and
    // CMSG_DATA point into.
    unsafe {
        let mut part =
            libc::iovec { iov_base: reply.as_ptr().cast_mut().cast(), iov_len: size_of::<Reply>() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if let Some(tree) = tree {
            let length = size_of::<RawFd>() as u32;
            message.msg_control = room.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(length) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(tree);
        }
        libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL);
    }
}
