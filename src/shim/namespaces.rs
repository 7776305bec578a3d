//! A pod's namespaces, without a process that holds them: a thread of this one is in them, and does nothing else. Whoever joins
//! them finds them in /proc/TID/ns as if it were a process, and they end with this process, however that ends. Uses: pod_config.

use crate::pod_config::{From, PodConfig};
use nix::sched::{CloneFlags, setns, unshare};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result, sys};
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// The namespaces; they go when this is dropped, if no container is in them.
#[derive(Debug)]
pub struct Held {
    tid: i32,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    /// Makes and joins them.
    pub fn new(config: &PodConfig) -> Result<Held> {
        let (end, ended) = channel();
        let (said, hear) = channel();
        let config = config.clone();
        let thread = std::thread::Builder::new()
            .name("pod".into())
            .spawn(move || hold(&config, &said, &ended))
            .call("thread for the pod's namespaces")?;
        let gone = |_| Error::new(Code::System, "the thread for the pod's namespaces has ended");
        let tid = hear.recv().map_err(gone)??;
        Ok(Held { tid, end: Some(end), thread: Some(thread) })
    }

    /// The thread, which is a process to whoever opens /proc/TID/ns.
    pub fn tid(&self) -> i32 {
        self.tid
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn hold(config: &PodConfig, said: &Sender<Result<i32>>, ended: &Receiver<()>) {
    let entered = enter(config).map(|()| rustix::thread::gettid().as_raw_nonzero().get());
    let holds = entered.is_ok();
    let _ = said.send(entered);
    if holds {
        // Nothing is ever sent: the other end goes.
        let _ = ended.recv();
    }
}

/// This thread alone: each has namespaces of its own (but for those of mounts, users and pids).
fn enter(config: &PodConfig) -> Result<()> {
    let mut new = CloneFlags::empty();
    for (from, flag) in [
        (&config.network, CloneFlags::CLONE_NEWNET),
        (&config.ipc, CloneFlags::CLONE_NEWIPC),
        (&config.uts, CloneFlags::CLONE_NEWUTS),
    ] {
        match from {
            From::Machine => {}
            From::New => new |= flag,
            From::Path(path) => join(path, flag)?,
        }
    }
    unshare(new).map_err(std::io::Error::from).call("unshare of the pod's namespaces")?;
    if config.network == From::New {
        sys::loopback::bring_up().call("bring up lo")?;
    }
    if config.uts != From::Machine {
        if !config.hostname.is_empty() {
            rustix::system::sethostname(config.hostname.as_bytes()).call("sethostname")?;
        }
        if !config.domainname.is_empty() {
            rustix::system::setdomainname(config.domainname.as_bytes()).call("setdomainname")?;
        }
    }
    for (file, value) in &config.sysctls {
        let path = format!("/proc/sys/{file}");
        std::fs::write(&path, value).call(format!("write {path}"))?;
    }
    Ok(())
}

fn join(path: &Path, flag: CloneFlags) -> Result<()> {
    let what = format!("{}", path.display());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).call(format!("open {what}"))?;
    match sys::namespace::kind(file.as_fd()) {
        Ok(kind) if kind == flag.bits() => {}
        _ => return Err(Error::new(Code::Config, format!("{what} is no namespace of the wanted kind"))),
    }
    setns(&file, flag).map_err(std::io::Error::from).call(format!("setns to {what}"))
}
