//! start: the word to a created container's init, and what becomes of its execve.

use super::process::{Process, Status};
use super::start_socket;
use super::state::{Container, START_SOCKET, State};
use super::{delete, hooks};
use crate::compile::{self, Request};
use crate::error::CallContext;
use crate::host::Host;
use crate::launch::{Record, read_report, take_listener};
use crate::notify_socket::NotifySocket;
use crate::spec::Spec;
use crate::{Code, Error, Result, program, timings};
use rcrun_plan::record::{GO_ON, Kind, Report};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd};

/// Starts a created container; `notify_socket` is NOTIFY_SOCKET of the environment. Returns warnings.
pub fn start(container: &Container, notify_socket: Option<&str>) -> Result<Vec<String>> {
    // The second of two waits, and then finds what the first has made of the container.
    let turn = container.lock_start()?;
    let state = container.state()?;
    let status = container.status(state.as_ref());
    let refuse = |why: &str| Err(Error::new(Code::Status, why));
    let state = match (status, state) {
        (Status::Created, Some(state)) if turn.is_some() => state,
        (Status::Stopped, _) => return refuse("cannot start a container that has stopped"),
        (Status::Creating | Status::Created, _) => {
            return refuse("cannot start a container that is being created");
        }
        (Status::Paused, _) => return refuse("cannot start a container in the paused state"),
        _ => return refuse(RUNNING),
    };
    let Some(process) = state.process.clone() else {
        return refuse("cannot start a container that has stopped");
    };
    if !state.startable {
        return Err(
            Error::config("/process", "is missing: there is nothing to start").with_code(Code::Config)
        );
    }
    let pidfd = process.pidfd()?;
    timings::mark("find the container");
    let spec = if state.hooks { Some(container.spec()?) } else { None };
    if let Some(spec) = &spec {
        hooks::start_container(spec, &state, (process.pid, pidfd.as_fd())).map_err(|e| stop(&state, e))?;
        timings::mark("startContainer hooks");
    }
    let notify = match notify_socket.filter(|_| state.notify) {
        Some(host) => Some(NotifySocket::bind(container.folder(), host)?),
        None => None,
    };
    say_go_on(container, &state, (&process, pidfd.as_fd()))?;
    timings::mark("tell init, until the process is executed");
    // The socket goes first or last, it makes no difference: status asks for init's file too.
    let socket = container.folder().join(START_SOCKET);
    match std::fs::remove_file(&socket) {
        // The container has been deleted meanwhile.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        other => other.call(format!("unlink {}", socket.display()))?,
    }
    drop(turn);
    if let Some(spec) = &spec {
        hooks::poststart(spec, &state, process.pid).map_err(|e| stop(&state, e))?;
        timings::mark("poststart hooks");
    }
    if let (Some(notify), Some(pid)) = (notify, Pid::from_raw(process.pid)) {
        notify.wait(pidfd.as_fd(), pid)?;
        timings::mark("wait until the container says that it is ready");
    }
    Ok(Vec::new())
}

const RUNNING: &str = "cannot start an already running container";

/// A failing startContainer or poststart hook stops the container (runtime.md, "Lifecycle", steps 8 and 10).
fn stop(state: &State, error: Error) -> Error {
    let ended = state.open_cgroup().and_then(|cgroup| match (cgroup, &state.process) {
        (Some(cgroup), _) => delete::end_all(&cgroup),
        (None, Some(process)) => process.pidfd().and_then(|pidfd| delete::end(&pidfd, process.pid)),
        (None, None) => Ok(()),
    });
    match ended {
        Ok(()) => error,
        Err(e) => error.attach(&e),
    }
}

fn say_go_on(
    container: &Container,
    state: &State,
    (process, pidfd): (&Process, BorrowedFd<'_>),
) -> Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .call("socket for start")?;
    let (_folder, address) = start_socket::address(container.folder())?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        // Another start was quicker, or init has died meanwhile.
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => {
            return Err(Error::new(Code::Status, RUNNING));
        }
        Err(e) => return Err(e).call("connect to the start socket"),
    }
    match rustix::net::send(&socket, &[GO_ON], SendFlags::NOSIGNAL) {
        // As below: it has been closed unheard.
        Ok(_) | Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => {}
        Err(e) => return Err(e).call("send to init"),
    }
    let mut executing = false;
    loop {
        match read_report(socket.as_fd())? {
            Some(Record { report, .. }) if report.kind == Kind::Executing => executing = true,
            Some(Record { report, .. }) if report.kind == Kind::Listener => {
                let spec = container.spec()?;
                let listener = take_listener(pidfd, report.detail)?;
                let told = state.for_hooks("creating", process.pid);
                hooks::tell_agent(&spec, &told, process.pid, listener.as_fd())?;
                match rustix::net::send(&socket, &[GO_ON], SendFlags::NOSIGNAL) {
                    // It has been killed meanwhile: the next look says so.
                    Ok(_) | Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => {}
                    Err(e) => return Err(e).call("send to init"),
                }
            }
            Some(Record { report, .. }) => return Err(failure(container, state, &report)),
            None if executing => return Ok(()),
            // Another start was quicker, and the connection was closed with the listening socket. A process that dies has
            // its flag before its files are closed.
            None if !process.is_ending() => {
                return Err(Error::new(Code::Status, RUNNING));
            }
            None => {
                return Err(Error::new(
                    Code::System,
                    "init died before it could execute the container's process",
                ));
            }
        }
    }
}

/// Words for a report need the plan: it is compiled once more, from the same config.
fn failure(container: &Container, state: &State, report: &Report) -> Error {
    let again = |spec: Spec| {
        let host = Host::read()?;
        let request = Request {
            id: &state.id,
            bundle: &state.bundle,
            await_start: true,
            no_pivot: state.no_pivot,
            left_behind: &state.left_behind,
            keyring: state.keyring,
            passed_fds: 0,
            variables: &state.variables,
            cgroup: state.cgroup.is_some(),
            notify: state.notify,
        };
        compile::start(&spec, &host, &request)
    };
    match container.spec().and_then(again) {
        Ok(plan) => program::failure(&plan, report),
        Err(e) => e,
    }
}
