//! Carries out a plan between clone and execve: maps it, does its steps in order, reports, and becomes the payload.
//! No allocator, no libc, no formatting; a failure is a step, a system call and an errno. Uses rcrun-plan and core.
#![cfg_attr(not(test), no_std)]

pub mod copy_up;
pub mod in_root;
pub mod landlock;
pub mod mount;
pub mod parent;
pub mod process;
pub mod sys;
pub mod terminal;

use core::ffi::CStr;
use in_root::{Root, Text, split};
use parent::{Answer, Parent};
use rcrun_plan::{
    Barrier, MOST_KEPT, MOST_NODES, Slot, Step, Within,
    record::{Kind, Report},
    text::Z,
};
use sys::{
    Failure, Fd, Result,
    errno::{EBADF, EINVAL, ELOOP},
    plan::{Plan, Stamps},
    process as own, text,
};

const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 1 << 3;

/// Does all that the plan in `plan_fd` says. The exit status is for whoever reaps; the report says why.
pub fn run(plan_fd: i32) -> ! {
    // The parent blocks all signals around the clone.
    let _ = own::reset_signals();
    let _ = die_with_parent();
    let Ok(plan) = Plan::map(Fd::own(plan_fd)) else { own::exit(1) };
    let mut init = Init {
        umask: own::umask(0),
        stamps: Stamps::map(&plan),
        parent: Some(Parent::new(Fd::own(plan.parent()))),
        plan,
        step: 0,
        namespace: None,
        in_chroot: false,
        root: None,
        fs: None,
        mount: Mount::None,
        proc: None,
        kept: [const { None }; MOST_KEPT as usize],
        masks: mount::Masks::default(),
        ruleset: None,
        nodes: [0; MOST_NODES / 64],
        place: None,
        in_directory: false,
        executable: None,
        home: None,
        committed: false,
        executing: false,
    };
    if let Err(Failure { call, errno, detail }) = init.go_through()
        && let Some(parent) = &init.parent
    {
        let _ = parent.tell(Report { kind: Kind::Failed, call, step: init.step, errno, detail });
    }
    own::exit(1)
}

/// Beside end of file on the socket, which only a waiting init sees. A change of credentials clears it.
fn die_with_parent() -> Result<()> {
    const SIGKILL: usize = 9;
    own::signal_when_parent_dies(SIGKILL)
}

/// The mount that is being made or changed.
enum Mount {
    None,
    /// Made by a step, or taken over from a slot.
    Own(Fd),
    /// The one that the root is.
    Root,
}

/// The registers that steps work on.
struct Init {
    plan: Plan,
    /// None while a created container waits.
    parent: Option<Parent>,
    step: u32,
    /// Only where somebody asked how long each step takes.
    stamps: Option<Stamps>,
    umask: u32,
    /// The mount namespace, open to be joined.
    namespace: Option<Fd>,
    /// `/` is not its root.
    in_chroot: bool,
    root: Option<Root>,
    fs: Option<Fd>,
    mount: Mount,
    proc: Option<Fd>,
    kept: [Option<Root>; MOST_KEPT as usize],
    masks: mount::Masks,
    ruleset: Option<Fd>,
    nodes: [u64; MOST_NODES / 64],
    /// What the last step opened below the root, and its path: what is mounted there and the nodes that lie there come next.
    place: Option<(&'static [u8], Fd)>,
    in_directory: bool,
    executable: Option<usize>,
    home: Option<Text>,
    committed: bool,
    executing: bool,
}

impl Init {
    fn go_through(&mut self) -> Result<()> {
        sys::file::close_on_exec_from(self.plan.first_own_fd())?;
        let broken = Failure::found(EINVAL);
        let waits_for_maps = self
            .plan
            .steps()
            .ok_or(broken)?
            .any(|step| matches!(step, Ok(Step::Wait { barrier: Barrier::Maps })));
        // A parent without privilege can write the maps of a dumpable process only.
        if !waits_for_maps {
            own::not_dumpable()?;
        }
        for (number, step) in self.plan.steps().ok_or(broken)?.enumerate() {
            self.step = number as u32;
            if let Some(stamps) = &self.stamps {
                stamps.note(self.step);
            }
            self.carry_out(step.map_err(|_| broken)?)?;
        }
        // A plan ends with Execute.
        Err(broken)
    }

    fn carry_out(&mut self, step: Step<Z<'static>>) -> Result<()> {
        let place = self.place.take();
        match step {
            Step::Join { slot, kinds } => sys::mount::setns(self.take(slot)?.raw(), kinds),
            Step::Unshare { kinds } => sys::mount::unshare(kinds),
            Step::Wait { barrier } => self.wait_at(barrier),
            Step::BecomeRoot => process::become_root().and_then(|()| self.watch_parent()),
            Step::CheckMountNamespace { host } => {
                self.namespace = Some(mount::own_namespace(&self.take(host)?)?);
                Ok(())
            }
            Step::SetPropagation { propagation } => {
                self.in_chroot = mount::set_propagation(self.namespace.as_ref(), propagation)?;
                Ok(())
            }
            Step::AttachRoot { slot, path } => {
                self.root = Some(mount::attach_root(self.take(slot)?, text(path))?);
                Ok(())
            }
            Step::UseRoot { slot } => {
                self.root = Some(Root::new(self.take(slot)?));
                Ok(())
            }
            Step::JoinedRoot => {
                self.root = Some(mount::slash()?);
                Ok(())
            }
            Step::Receive { first, count } => self.receive(first, count),
            Step::Directory { path, mode } => self.at(path.0, self.root()?.directory(text(path.0), mode)?),
            Step::MountPoint { path, like } => {
                let there = mount::mount_point(self.root()?, text(path.0), self.plan.slot(like)?)?;
                self.at(path.0, there)
            }
            Step::File { path } => self.at(path.0, self.root()?.file(text(path.0))?),
            Step::FsOpen { kind } => {
                self.fs = Some(sys::mount::fsopen(text(kind))?);
                Ok(())
            }
            Step::FsString { key, value } => sys::mount::fs_string(self.fs()?, text(key), text(value)),
            Step::FsFlag { key } => sys::mount::fs_flag(self.fs()?, text(key)),
            Step::FsMount { attributes } => {
                self.mount = Mount::Own(sys::mount::fsmount(self.fs()?, attributes)?);
                self.fs = None;
                Ok(())
            }
            Step::Tree { slot } => {
                self.mount = Mount::Own(self.take(slot)?);
                Ok(())
            }
            Step::Clone { path, recursive } => {
                self.mount = Mount::Own(mount::clone(self.root()?, text(path.0), recursive)?);
                Ok(())
            }
            Step::Root => {
                self.mount = Mount::Root;
                Ok(())
            }
            Step::MountedAt { path } => {
                let there = self.root()?.open(text(path.0), sys::numbers::O_PATH, false)?;
                self.mount = Mount::Own(there);
                Ok(())
            }
            Step::Attributes { set, clear, propagation, recursive } => {
                let to = sys::mount::Attributes { set, clear, propagation };
                sys::mount::set_attributes(self.mount()?, to, recursive)
            }
            Step::CopyUp { path } => match mount::existing_directory(self.root()?, text(path.0))? {
                Some(from) => copy_up::copy(&from, self.mount()?),
                None => Ok(()),
            },
            Step::InheritMode { path } => mount::inherit_mode(self.root()?, self.mount()?, text(path.0)),
            Step::Attach { path, plain } => {
                let path = text(path.0);
                let target = match place {
                    Some((opened, there)) if !plain && opened == path.to_bytes() => there,
                    _ => self.root()?.open(path, sys::numbers::O_PATH, plain)?,
                };
                mount::attach(self.mount()?, target.raw())
            }
            Step::Keep { number } => {
                let Mount::Own(mount) = core::mem::replace(&mut self.mount, Mount::None) else {
                    return Err(Failure::found(EBADF));
                };
                *self.kept.get_mut(usize::from(number)).ok_or(Failure::found(EINVAL))? =
                    Some(Root::new(mount));
                Ok(())
            }
            Step::Mask { path, within, null } => {
                let Some(target) = self.target(text(path.0), within)? else { return Ok(()) };
                self.masks.hide(target, || self.plan.take(null))
            }
            Step::ReadOnly { path, within } => match self.target(text(path.0), within)? {
                Some(target) => mount::read_only(target),
                None => Ok(()),
            },
            Step::Node { path, mode, major, minor, uid, gid } => {
                self.in_parent(place, path.0, |parent, name| {
                    mount::node(parent, name, &mount::Node { mode, major, minor, uid, gid })
                })
            }
            Step::Symlink { target, path, replace } => self
                .in_parent(place, path.0, |parent, name| mount::symlink(parent, name, text(target), replace)),
            Step::Pivot => {
                if let Some(namespace) = self.namespace.take().filter(|_| self.in_chroot) {
                    mount::leave_chroot(&namespace)?;
                }
                mount::pivot(self.root()?)
            }
            Step::Chroot => mount::chroot(self.root()?),
            Step::Detach { path } => mount::detach(text(path)),
            Step::MoveRoot => mount::move_root(self.root()?),
            Step::Loopback => process::bring_up_loopback(),
            Step::Hostname { name } => own::set_hostname(name.bytes()),
            Step::Domainname { name } => own::set_domainname(name.bytes()),
            Step::PrivateProc => {
                self.proc = Some(mount::private_proc()?);
                Ok(())
            }
            Step::Sysctl { path, value } => {
                let proc = self.proc.as_ref().ok_or(Failure::found(EBADF))?;
                mount::sysctl(proc, text(path), value.bytes())
            }
            Step::Terminal { ptmx, console, columns, rows, uid } => {
                let to = terminal::Terminal { ptmx: text(ptmx.0), console, columns, rows, uid };
                terminal::set_up(self.root()?, self.parent()?, &to, self.step)
            }
            Step::Session { controlling } => terminal::start_session(controlling),
            Step::Fork => self.fork(),
            Step::AwaitScheduler => match self.parent()?.wait(&mut Answer::new())? {
                Some(_) => Ok(()),
                None => own::exit(1),
            },
            Step::Keyring { name } => process::join_keyring(text(name)),
            Step::Umask { mask } => {
                // Set when all is made: files and nodes of the steps have the modes that the plan says.
                self.umask = mask;
                Ok(())
            }
            Step::Rlimit { resource, soft, hard } => own::set_limit(resource, soft, hard),
            Step::Personality { domain } => own::set_personality(domain),
            Step::Scheduler(to) => own::set_scheduler(&to),
            Step::IoPriority { value, group } => own::set_io_priority(value, group),
            Step::MemoryNodes { word, bits } => {
                *self.nodes.get_mut(usize::from(word)).ok_or(Failure::found(EINVAL))? = bits;
                Ok(())
            }
            Step::MemoryPolicy { mode } => process::set_memory_policy(mode, &self.nodes),
            Step::Label { proc, name, value } => {
                // Closed after its step: what has forked into the container can be traced there.
                mount::label(self.take(proc)?.raw(), text(name), value.bytes())
            }
            Step::LandlockRules { files, ports, scopes } => {
                self.ruleset = Some(sys::landlock::create(files, ports, scopes)?);
                Ok(())
            }
            Step::LandlockPath { path, access } => {
                landlock::allow(self.ruleset()?, self.root()?, text(path.0), access)
            }
            Step::LandlockPort { port, access } => sys::landlock::add_port(self.ruleset()?, port, access),
            Step::LandlockRestrict => {
                sys::landlock::restrict(self.ruleset()?)?;
                self.ruleset = None;
                Ok(())
            }
            Step::OwnStdio { uid } => process::own_stdio(uid),
            Step::NoNewPrivileges => own::no_new_privileges(),
            Step::ChangeDirectory { path, early } => {
                if early || !self.in_directory {
                    self.in_directory = process::change_directory(self.root()?, text(path.0), early)?;
                }
                Ok(())
            }
            Step::BoundingSet { keep, last } => process::set_bounding(keep, last),
            Step::Ids { uid, gid, groups } => {
                process::set_ids(uid, gid, groups.then(|| self.plan.groups()))?;
                self.watch_parent()
            }
            Step::Capabilities { effective, permitted, inheritable } => {
                process::set_capabilities(own::Capabilities { effective, permitted, inheritable })?;
                self.watch_parent()
            }
            Step::Ambient { set } => process::set_ambient(set),
            Step::FindExecutable => {
                self.executable = Some(process::find_executable(self.plan.candidates())?);
                Ok(())
            }
            Step::Ready => self.ready(),
            Step::AwaitStart { listen } => self.await_start(listen),
            Step::Filter { flags } => {
                // The filter may forbid to say it later, or to ask for the time.
                self.stamps = None;
                self.say_executing();
                let listener = own::set_filter(flags, self.plan.filter())?;
                if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 { self.hand_over(listener) } else { Ok(()) }
            }
            Step::Execute => self.execute(),
            Step::CheckJoinedMounts { host, proc } => {
                mount::check_joined_namespace(&self.take(host)?, self.plan.slot(proc)?)
            }
            Step::TellMount => {
                let id = sys::file::mount_of(self.mount()?)?.id;
                self.parent()?.tell(Report { detail: id, ..self.report(Kind::Mounted, 0) })
            }
            Step::Unmount { path, id, proc } => {
                mount::unmount(self.root()?, text(path.0), id, self.plan.slot(proc)?)
            }
        }
    }

    /// Keeps what was opened at `path` for the next step.
    fn at(&mut self, path: Z<'static>, there: Fd) -> Result<()> {
        self.place = Some((text(path).to_bytes(), there));
        Ok(())
    }

    /// Does something in the directory that `path` lies in, the one of the last step if that is the same.
    fn in_parent(
        &mut self,
        place: Option<(&'static [u8], Fd)>,
        path: Z<'static>,
        act: impl FnOnce(&Fd, &CStr) -> Result<()>,
    ) -> Result<()> {
        let (above, name) = split(text(path))?;
        let parent = match place {
            Some((opened, there)) if opened == above => there,
            _ => self.root()?.above(above)?,
        };
        act(&parent, name)?;
        self.place = Some((above, parent));
        Ok(())
    }

    /// Takes over the fd in a slot, which is closed after its step.
    fn take(&mut self, slot: Slot) -> Result<Fd> {
        self.plan.take(slot)
    }

    fn parent(&self) -> Result<&Parent> {
        self.parent.as_ref().ok_or(Failure::found(EBADF))
    }

    fn root(&self) -> Result<&Root> {
        self.root.as_ref().ok_or(Failure::found(EBADF))
    }

    /// What a path leads to, or None where there is nothing.
    fn target(&self, path: &CStr, within: Option<Within>) -> Result<Option<Fd>> {
        if let Some(Within { mount, from }) = within {
            let broken = Failure::found(EINVAL);
            let kept = self.kept.get(usize::from(mount)).and_then(Option::as_ref).ok_or(broken)?;
            let below = path.to_bytes_with_nul().get(usize::from(from)..).ok_or(broken)?;
            let below = CStr::from_bytes_with_nul(below).map_err(|_| broken)?;
            match mount::existing(kept, below, sys::numbers::O_PATH, true) {
                // A link may lead out of the mount.
                Err(Failure { errno: ELOOP, .. }) => {}
                outcome => return outcome,
            }
        }
        mount::existing(self.root()?, path, sys::numbers::O_PATH, false)
    }

    fn ruleset(&self) -> Result<i32> {
        self.ruleset.as_ref().map(Fd::raw).ok_or(Failure::found(EBADF))
    }

    fn fs(&self) -> Result<i32> {
        self.fs.as_ref().map(Fd::raw).ok_or(Failure::found(EBADF))
    }

    fn mount(&self) -> Result<i32> {
        match &self.mount {
            Mount::None => Err(Failure::found(EBADF)),
            Mount::Own(fd) => Ok(fd.raw()),
            Mount::Root => self.root().map(Root::raw),
        }
    }

    fn watch_parent(&self) -> Result<()> {
        if self.committed { Ok(()) } else { die_with_parent() }
    }

    fn report(&self, kind: Kind, call: u16) -> Report {
        Report { kind, call, step: self.step, errno: 0, detail: 0 }
    }

    fn wait_at(&mut self, barrier: Barrier) -> Result<()> {
        self.parent()?.tell(self.report(Kind::Barrier, barrier as u16))?;
        if self.parent()?.wait(&mut Answer::new())?.is_none() {
            own::exit(1);
        }
        own::not_dumpable()
    }

    fn receive(&mut self, first: Slot, count: u16) -> Result<()> {
        let report = Report { detail: u64::from(first.0), ..self.report(Kind::Trees, count) };
        self.parent()?.tell(report)?;
        for number in first.0..first.0.saturating_add(count) {
            match self.parent()?.wait_for_fd()? {
                Some(tree) => self.plan.fill(Slot(number), tree)?,
                None => own::exit(1),
            }
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<()> {
        own::umask(self.umask);
        // From here on end of file tells of the parent's death, and a create that has committed exits at once: the signal
        // of its death must not meet the container.
        self.committed = true;
        own::signal_when_parent_dies(0)?;
        self.parent()?.tell(self.report(Kind::Ready, 0))?;
        let mut answer = Answer::new();
        let Some(home) = self.parent()?.wait(&mut answer)? else { own::exit(1) };
        if !home.is_empty() {
            let mut entry = Text::of(b"HOME=")?;
            entry.append(home)?;
            self.home = Some(entry);
        }
        Ok(())
    }

    /// The creator is gone for good; whoever starts the container connects and is the parent from then on.
    fn await_start(&mut self, listen: Slot) -> Result<()> {
        let listen = self.take(listen)?;
        self.close_what_is_done();
        loop {
            let starter = Parent::new(sys::socket::accept(listen.raw())?);
            // A starter that dies before its word leaves the container created.
            if let Ok(Some(_)) = starter.wait(&mut Answer::new()) {
                self.parent = Some(starter);
                return Ok(());
            }
        }
    }

    /// Nothing of the machine or of the tree's making is held while a created container waits, perhaps for days.
    fn close_what_is_done(&mut self) {
        self.stamps = None;
        (self.parent, self.root, self.fs, self.proc) = (None, None, None, None);
        self.mount = Mount::None;
        self.kept = [const { None }; MOST_KEPT as usize];
        self.masks = mount::Masks::default();
        for slot in 0..=u16::MAX {
            match self.plan.slot(Slot(slot)) {
                Ok(_) => drop(self.plan.take(Slot(slot))),
                Err(Failure { errno: EBADF, .. }) => {}
                Err(_) => break,
            }
        }
    }

    /// The sibling goes on with the next step, in the pid namespace that was joined.
    fn fork(&self) -> Result<()> {
        let Some(pid) = own::fork_sibling()? else { return self.watch_parent() };
        // Whoever does not hear it any more is gone.
        let _ = self.parent()?.tell(Report { detail: pid as u64, ..self.report(Kind::Forked, 0) });
        own::exit(0)
    }

    /// Lets the parent take the filter's listener, which execve closes: from here on a call may wait for the agent.
    fn hand_over(&self, listener: usize) -> Result<()> {
        let parent = self.parent()?;
        parent.write(Report { detail: listener as u64, ..self.report(Kind::Listener, 0) })?;
        if parent.read()? { Ok(()) } else { own::exit(1) }
    }

    /// From here on an end of file means that the payload runs, and a failure is still told as one. A starter that is gone
    /// keeps nothing from starting.
    fn say_executing(&mut self) {
        if let (false, Some(parent)) = (self.executing, &self.parent) {
            let _ = parent.tell(self.report(Kind::Executing, 0));
            self.executing = true;
        }
    }

    fn execute(&mut self) -> Result<()> {
        let candidate = self.executable.ok_or(Failure::found(EINVAL))?;
        self.say_executing();
        let home = self.home.as_ref().map_or(c"HOME=/", Text::c);
        Err(self.plan.execute(candidate, home).with(candidate as u64))
    }
}
