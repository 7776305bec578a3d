//! Gives birth to init, hears its reports, answers its barriers. Uses: failure, idmap, plan,
//! prepare's fds, program, sys, words.

use crate::error::CallContext;
use crate::plan::{Plan, Source};
use crate::prepare::{clone_late, private_proc};
use crate::sys::birth::{Birth, Newborn, bear};
use crate::sys::mount::SET_ID_MAP;
use crate::sys::trees::{Trees, Wanted};
use crate::{Code, Error, Result, failure, idmap, init_image, program, words};
use rcrun_plan::image::{Parts, encode};
use rcrun_plan::record::{GO_ON, Kind, REPORT_SIZE, Report};
use rcrun_plan::{Barrier, text::Text};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::DumpableBehavior;
use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A sibling says its terminal, wants its trees, and waits: there is never more before its forker is heard.
const MOST_HELD: usize = 4;

/// A child that carries out its plan.
pub struct Init<'a> {
    plan: &'a Plan,
    slots: Vec<OwnedFd>,
    newborn: Newborn,
    /// What clones trees in its mount namespace, where this process may clone none.
    trees: Option<Trees>,
    /// What forked the newborn, and exits.
    forker: Option<Newborn>,
    /// What the newborn said before its forker told of it.
    held: VecDeque<Record>,
    socket: OwnedFd,
    executing: bool,
    /// Device and inode of the file that init runs from: while /proc/PID/exe is it, the payload does not run yet.
    pub file: (u64, u64),
}

/// What init says.
#[derive(Debug)]
pub enum Event {
    /// It waits for something to be done outside.
    Barrier(Barrier),
    /// The container's terminal: its master, and its number below /dev/pts.
    Terminal(OwnedFd, u64),
    /// It has got the trees that it asked for.
    Trees,
    /// The mount of this step is attached, and has this id.
    Mounted(u32, u64),
    /// It goes on as another process: its pid has changed.
    Forked,
    /// Its filter is loaded, and this is the listener for the agent. It waits.
    Listener(OwnedFd),
    /// All is set up; it waits for the state to be committed.
    Ready,
    /// The payload runs.
    Running,
}

/// Makes the child that carries out `plan`, born in `cgroup`, with `stdio` or this process's own. It notes in `stamps` when
/// each of its steps begins.
pub fn launch<'a>(
    plan: &'a Plan,
    slots: Vec<OwnedFd>,
    cgroup: Option<BorrowedFd<'_>>,
    stdio: Option<[BorrowedFd<'_>; 3]>,
    stamps: Option<BorrowedFd<'_>>,
) -> Result<Init<'a>> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .call("socketpair for init")?;
    if plan.forks() {
        rustix::net::sockopt::set_socket_passcred(&ours, true).call("SO_PASSCRED for init")?;
    }
    let init = init_file(plan)?;
    let stat = rustix::fs::fstat(&init).call("fstat of init")?;
    let image = sealed("rcrun-plan", &layout(plan, &slots, theirs.as_raw_fd(), stamps)?, Mode::RUSR, false)?;

    let first_own_fd = 3 + plan.passed_fds;
    let mut keep: Vec<RawFd> = plan
        .slots
        .iter()
        .zip(&slots)
        .filter(|(source, _)| !plan.is_late(source))
        .map(|(_, fd)| fd.as_raw_fd())
        .collect();
    keep.extend([theirs.as_raw_fd(), image.as_raw_fd()]);
    keep.extend(stamps.map(|fd| fd.as_raw_fd()));
    let first_joins: Vec<(RawFd, i32)> = plan
        .first_joins
        .iter()
        .map(|slot| {
            let i = usize::from(slot.0);
            (slots[i].as_raw_fd(), plan.slots[i].namespace_kind().unwrap_or_default())
        })
        .collect();
    let new_user = libc::CLONE_NEWUSER as u64;
    let among_others = first_joins.iter().any(|(_, kind)| *kind == libc::CLONE_NEWPID);
    let joins_user = first_joins.iter().any(|(_, kind)| *kind == libc::CLONE_NEWUSER);
    let proc = match plan.time_offsets {
        Some(_) => Some(private_proc()?),
        None => None,
    };
    let argument = CString::new(image.as_raw_fd().to_string()).unwrap_or_default();
    let birth = Birth {
        namespaces: plan.namespaces,
        cgroup,
        first_joins: &first_joins,
        unreadable: among_others,
        raise_capabilities: joins_user || plan.namespaces & new_user != 0,
        time_offsets: proc.as_ref().zip(plan.time_offsets.as_ref()).map(|(p, t)| (p.as_fd(), t.as_bytes())),
        stdio,
        keep: &keep,
        first_own_fd,
        init: init.as_fd(),
        argument: &argument,
    };
    if among_others {
        // The newborn has this process's memory until its exec. Undumpable, that belongs to the machine's user namespace,
        // whatever capabilities others in the pid namespace have in theirs.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .call("prctl PR_SET_DUMPABLE")?;
    }
    let newborn = bear(&birth).map_err(|death| {
        let errno = death.error.raw_os_error().unwrap_or_default();
        let error = Error::call(format!("start of init: {}", death.call), death.error)
            .hint(failure::birth_hint(death.call, errno));
        match failure::birth_field(plan, death.call) {
            Some((field, what)) => error.context(format!("{field}: {what}")).at(field),
            None => error,
        }
    })?;
    // What init has, and nobody else needs, is closed here: a pipe or a mount must not live longer than its user.
    let late = plan.slots.iter().any(|source| plan.is_late(source));
    let slots = if late { slots } else { Vec::new() };
    Ok(Init {
        plan,
        slots,
        newborn,
        trees: None,
        forker: None,
        held: VecDeque::new(),
        socket: ours,
        executing: false,
        file: (stat.st_dev, stat.st_ino),
    })
}

/// rcrun-init, sealed: the container sees it as /proc/1/exe and can neither write it nor find rcrun behind it
/// (CVE-2019-5736).
fn init_file(plan: &Plan) -> Result<OwnedFd> {
    // 0111: see sys::birth for why root must not be able to read it.
    let mut mode = Mode::XUSR | Mode::XGRP | Mode::XOTH;
    // An ordinary user writes the id maps of a dumpable process only; in a user namespace just made it is alone.
    if plan.maps.as_ref().is_some_and(|maps| maps.unprivileged.is_some()) {
        mode |= Mode::RUSR | Mode::RGRP | Mode::ROTH;
    }
    match sealed("rcrun-init", init_image::INIT, mode, true) {
        // vm.memfd_noexec=2 refuses executable memfds.
        Err(e) if e.errno() == Some(libc::EACCES) => init_on_tmpfs(mode),
        other => other,
    }
}

/// The other way: a file on a tmpfs that is mounted nowhere and read-only.
fn init_on_tmpfs(mode: Mode) -> Result<OwnedFd> {
    use crate::sys::mount::{MountAttributes, set_attributes};
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).call("fsopen tmpfs for init")?;
    fsconfig_create(context.as_fd()).call("fsconfig tmpfs for init")?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .call("fsmount tmpfs for init")?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&mount, "rcrun-init", flags, mode).call("create init on a tmpfs")?;
    write_all(&file, init_image::INIT)?;
    drop(file);
    let readonly = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    set_attributes(mount.as_fd(), false, &readonly).call("mount_setattr of init's tmpfs")?;
    rustix::fs::openat(&mount, "rcrun-init", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call("open init on a tmpfs")
}

fn sealed(name: &str, bytes: &[u8], mode: Mode, executable: bool) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let kind = if executable { MemfdFlags::EXEC } else { MemfdFlags::NOEXEC_SEAL };
    let fd = match rustix::fs::memfd_create(name, flags | kind) {
        // Before Linux 6.3 there is neither flag.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    }
    .call(format!("memfd_create {name}"))?;
    write_all(&fd, bytes)?;
    if executable {
        rustix::fs::fchmod(&fd, mode).call(format!("fchmod {name}"))?;
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&fd, seals).call(format!("seal {name}"))?;
    Ok(fd)
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::write(fd, bytes).call("write to memory")?;
        bytes = &bytes[n..];
    }
    Ok(())
}

fn layout<'a>(
    plan: &'a Plan,
    slots: &[OwnedFd],
    parent: RawFd,
    stamps: Option<BorrowedFd<'_>>,
) -> Result<Vec<u8>> {
    let steps: Vec<rcrun_plan::Step<Text>> = plan.steps.iter().map(|p| p.step.clone()).collect();
    let late = |source: &Source, fd: &OwnedFd| if plan.is_late(source) { -1 } else { fd.as_raw_fd() };
    let fds: Vec<i32> = plan.slots.iter().zip(slots).map(|(source, fd)| late(source, fd)).collect();
    let texts = |list: &'a [String]| -> Vec<&'a str> { list.iter().map(String::as_str).collect() };
    encode(&Parts {
        steps: &steps,
        slots: &fds,
        groups: &plan.groups,
        filter: &plan.filter,
        args: &texts(&plan.args),
        env: &texts(&plan.env),
        candidates: &texts(&plan.candidates),
        parent,
        home: plan.home_of.is_some(),
        first_own_fd: 3 + plan.passed_fds,
        stamps: stamps.map(|fd| fd.as_raw_fd()),
    })
    .map_err(|what| Error::new(Code::Config, format!("the plan cannot be laid out: {what}")))
}

impl Init<'_> {
    /// Its pid in this pid namespace.
    pub fn pid(&self) -> i32 {
        self.newborn.pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.newborn.pidfd.as_fd()
    }

    /// Waits for the next report.
    pub fn next_event(&mut self) -> Result<Event> {
        match self.next_record()? {
            Some(Record { report, fd, sender }) => match (report.kind, fd) {
                (Kind::Failed, _) => Err(program::failure(self.plan, &report)),
                (Kind::Executing, _) => {
                    self.executing = true;
                    self.next_event()
                }
                // Wherever it has forked: `take_listener` looks what it is.
                (Kind::Listener, _) if sender.is_none_or(|pid| pid == self.pid()) => {
                    take_listener(self.pidfd(), report.detail).map(Event::Listener)
                }
                _ if !sender.is_none_or(|pid| self.believes(pid)) => Err(garbled()),
                (Kind::Barrier, _) => {
                    Barrier::from_number(report.call).map(Event::Barrier).ok_or_else(garbled)
                }
                (Kind::Terminal, Some(master)) => Ok(Event::Terminal(master, report.detail)),
                (Kind::Ready, _) => Ok(Event::Ready),
                (Kind::Trees, _) => {
                    self.send_trees(report.detail as usize, usize::from(report.call))?;
                    Ok(Event::Trees)
                }
                (Kind::Mounted, _) => Ok(Event::Mounted(report.step, report.detail)),
                (Kind::Forked, _) => {
                    self.forked(report.detail)?;
                    Ok(Event::Forked)
                }
                (Kind::Terminal, None) | (Kind::Listener, _) => Err(garbled()),
            },
            // A fork that was not told of: whatever runs, it is no newborn of ours.
            None if self.executing && self.plan.forks() == self.forker.is_some() => Ok(Event::Running),
            None => Err(died(self.pidfd())),
        }
    }

    /// The sibling runs as soon as it is made, and may speak before the forker has told of it: its words are held until then.
    fn next_record(&mut self) -> Result<Option<Record>> {
        if self.forker.is_some() && !self.held.is_empty() {
            return Ok(self.held.pop_front());
        }
        loop {
            match read_report(self.socket.as_fd())? {
                Some(record)
                    if self.forker.is_none() && record.sender.is_some_and(|pid| pid != self.pid()) =>
                {
                    if self.held.len() == MOST_HELD {
                        return Err(garbled());
                    }
                    self.held.push_back(record);
                }
                None => return Ok(self.held.pop_front()),
                record => return Ok(record),
            }
        }
    }

    /// What joins a container can be traced by it once it has forked inside: from there only a failure is believed.
    fn believes(&self, sender: i32) -> bool {
        sender == self.pid() && (self.forker.is_none() || self.plan.asks_inside())
    }

    /// The newborn has forked a child of ours, which goes on in its place.
    fn forked(&mut self, pid: u64) -> Result<()> {
        let sibling = Newborn::child(pid as i32).call(format!("pidfd_open {pid}"))?;
        self.forker = Some(std::mem::replace(&mut self.newborn, sibling));
        Ok(())
    }

    /// Answers a barrier; `home` goes with the answer to Ready.
    pub fn go_on(&self, home: Option<&str>) -> Result<()> {
        let mut answer = vec![GO_ON];
        answer.extend_from_slice(home.unwrap_or_default().as_bytes());
        match rustix::net::send(&self.socket, &answer, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.last_words()),
        }
    }

    /// Why nobody listens any more: the failure that init reported before it exited, if it could.
    fn last_words(&self) -> Error {
        let failed = |record: &Record| record.report.kind == Kind::Failed;
        if let Some(record) = self.held.iter().find(|record| failed(record)) {
            return program::failure(self.plan, &record.report);
        }
        loop {
            match read_report(self.socket.as_fd()) {
                Ok(Some(record)) if failed(&record) => return program::failure(self.plan, &record.report),
                Ok(Some(_)) => {}
                Ok(None) => return died(self.pidfd()),
                Err(error) => return error,
            }
        }
    }

    /// From now on trees are cloned in init's own mount namespace: `wanted` by slot.
    pub fn clone_inside(&mut self, wanted: &[Option<Wanted>]) -> Result<()> {
        let joins_user = self.plan.first_joins.iter().any(|slot| {
            let source = self.plan.slots.get(usize::from(slot.0));
            source.and_then(Source::namespace_kind) == Some(libc::CLONE_NEWUSER)
        });
        // The own one cannot be entered once more (EINVAL).
        let user = match joins_user || self.plan.namespaces & libc::CLONE_NEWUSER as u64 != 0 {
            true => libc::CLONE_NEWUSER,
            false => 0,
        };
        self.trees = Some(fork_trees(self.pidfd(), libc::CLONE_NEWNS | user, wanted)?);
        Ok(())
    }

    /// From now on trees are cloned in a copy of this process's mount namespace, for the user namespace of `container`, a
    /// process that runs: its own mounts no longer have what the machine has.
    pub fn clone_for(&mut self, container: BorrowedFd<'_>, wanted: &[Option<Wanted>]) -> Result<()> {
        self.trees = Some(fork_trees(container, libc::CLONE_NEWUSER, wanted)?);
        Ok(())
    }

    /// Ends what clones them: the payload is about to run.
    pub fn no_more_trees(&mut self) {
        self.trees = None;
    }

    fn send_trees(&self, first: usize, count: usize) -> Result<()> {
        for i in first..first.saturating_add(count) {
            let (Some(source), Some(opened)) = (self.plan.slots.get(i), self.slots.get(i)) else {
                return Err(garbled());
            };
            let tree = match &self.trees {
                Some(trees) => clone_inside(trees, i, source)?,
                None => clone_late(source, opened.as_fd())?,
            };
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds = [tree.as_fd()];
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            let byte = [IoSlice::new(&[GO_ON])];
            if rustix::net::sendmsg(&self.socket, &byte, &mut ancillary, SendFlags::NOSIGNAL).is_err() {
                return Err(self.last_words());
            }
        }
        Ok(())
    }

    /// Lets go of what has only mounted, and waits for its end: it exits when nobody answers.
    pub fn dismiss(self) -> Result<()> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Init { newborn, socket, trees, .. } = self;
        drop((socket, trees));
        match rustix::io::retry_on_intr(|| {
            waitid(WaitId::PidFd(newborn.pidfd.as_fd()), WaitIdOptions::EXITED)
        }) {
            // ECHILD: whoever embeds us ignores SIGCHLD, or has waited for it.
            Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
            Err(error) => Err(error).call("waitid"),
        }
    }

    /// Lets go of the socket: the pidfd and pid remain.
    pub fn into_newborn(self) -> Newborn {
        self.reap_forker();
        self.newborn
    }

    /// Waits for the process that has forked, which exits at once: nobody else would.
    pub fn reap_forker(&self) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        if let Some(forker) = &self.forker {
            // ECHILD: whoever embeds us ignores SIGCHLD, or has waited for it.
            let wait = || waitid(WaitId::PidFd(forker.pidfd.as_fd()), WaitIdOptions::EXITED);
            while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
        }
    }
}

fn fork_trees(process: BorrowedFd<'_>, kinds: i32, wanted: &[Option<Wanted>]) -> Result<Trees> {
    Trees::fork(process, kinds, wanted)
        .map_err(|failed| Error::call(format!("clone mounts: {}", failed.call), failed.error))
}

fn clone_inside(trees: &Trees, slot: usize, source: &Source) -> Result<OwnedFd> {
    trees.get(slot as u16).map_err(|failed| {
        let errno = failed.error.raw_os_error().unwrap_or_default();
        let source_name = words::source(Some(source));
        if let Source::FileSystem { options, origin, .. } = source {
            let option = match (failed.call, options.get(failed.option)) {
                ("fsconfig", Some((key, Some(value)))) => format!(" {key}={value}"),
                ("fsconfig", Some((key, None))) => format!(" {key}"),
                _ => String::new(),
            };
            let what = format!("{origin}: {source_name}: {}{option}", failed.call);
            let error = Error::call(what, failed.error);
            return match failed.call {
                SET_ID_MAP => idmap::explain(error, false, origin),
                _ => error.at(origin.clone()),
            };
        }
        let hint = match (failed.call, errno) {
            ("open_tree", libc::EINVAL) => Some(
                "without root a folder with mounts below it is bound together with them: use rbind, not bind",
            ),
            ("open", libc::ENOENT) => {
                Some("the path must be there in the mount namespace that the container joins")
            }
            ("open", libc::EACCES) => Some("the path must be one that this user may search"),
            _ => None,
        };
        let what = format!("{source_name}: {}", failed.call);
        Error::call(what, failed.error).hint(hint)
    })
}

fn garbled() -> Error {
    Error::new(Code::System, "init sent a record that this rcrun does not know")
}

/// The listener of a filter, which is fd `number` of the process: nothing else of it is taken.
pub(crate) fn take_listener(process: BorrowedFd<'_>, number: u64) -> Result<OwnedFd> {
    use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
    let number = i32::try_from(number).map_err(|_| garbled())?;
    let taken = pidfd_getfd(process, number, PidfdGetfdFlags::empty())
        .call("pidfd_getfd of the seccomp filter's listener")?;
    let link = format!("/proc/self/fd/{}", taken.as_raw_fd());
    let name = rustix::fs::readlink(link.as_str(), Vec::new()).call(format!("readlink {link}"))?;
    if name.as_bytes() == b"anon_inode:seccomp notify" { Ok(taken) } else { Err(garbled()) }
}

/// Says how init ended: its exit status tells more than the end of file on its socket.
fn died(pidfd: BorrowedFd<'_>) -> Error {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    // It has closed its socket, so it is exiting: the wait is short.
    let how = match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => format!("init was killed by signal {signal}"),
            (Some(code), _) => format!("init exited with status {code}"),
            _ => "init died".to_string(),
        },
        _ => "init died".to_string(),
    };
    Error::new(
        Code::System,
        format!("{how} before the container was set up (memory.events of its cgroup may say why)"),
    )
}

/// A report as it came.
pub(crate) struct Record {
    /// The report.
    pub report: Report,
    /// The fd that came with it.
    pub fd: Option<OwnedFd>,
    /// Who sent it, as the kernel says; only on a socket with SO_PASSCRED.
    pub sender: Option<i32>,
}

/// Reads one record; None at end of file.
pub(crate) fn read_report(socket: BorrowedFd<'_>) -> Result<Option<Record>> {
    let mut bytes = [0; REPORT_SIZE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            // CONNRESET: its end was closed while it had not read all that we sent. That is told once, ahead of what it had
            // said before: the report of its failure is still to be read.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            other => break other.call("recvmsg from init")?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let report = Report::decode(&bytes[..received.bytes]).ok_or_else(garbled)?;
    let mut record = Record { report, fd: None, sender: None };
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(mut fds) => record.fd = fds.next(),
            RecvAncillaryMessage::ScmCredentials(of) => record.sender = Some(of.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    Ok(Some(record))
}
