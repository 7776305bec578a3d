//! Hooks of a container's life: which run where, and with what state on stdin. Uses: hooks, compile, launch.

use super::State;
use super::process::ended;
use crate::compile::{HookPlace, HookRequest, hook};
use crate::error::CallContext;
use crate::hooks::{Files, HookProcess, attend, named, run, run_all};
use crate::host::Host;
use crate::launch::{Event, Init, launch};
use crate::prepare::{Means, prepare};
use crate::spec::Spec;
use crate::{Code, Error, Result, seccomp_agent};
use oci_spec::runtime::Hook;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, BorrowedFd};

/// prestart, then createRuntime: in the runtime's namespaces.
pub(super) fn create_runtime(spec: &Spec, state: &State, pid: i32) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let text = state.for_hooks("created", pid);
    #[allow(deprecated)]
    let prestart = list(hooks.prestart());
    let create_runtime = list(hooks.create_runtime());
    let files = files(spec, &[prestart, create_runtime])?;
    run(prestart, "prestart", &state.bundle, &text, &files)?;
    run(create_runtime, "createRuntime", &state.bundle, &text, &files)
}

/// createContainer: in the container's namespaces, before pivot_root, so that paths are still the machine's.
pub(super) fn create_container(spec: &Spec, state: &State, init: (i32, BorrowedFd<'_>)) -> Result<()> {
    let hooks = spec.hooks().as_ref().map_or(&[][..], |h| list(h.create_container()));
    inside(
        spec,
        (hooks, "createContainer"),
        HookPlace::Machine { root: &state.rootfs },
        &state.for_hooks("created", init.0),
        init,
    )
}

/// startContainer: in the container's namespaces, with the container's paths.
pub(super) fn start_container(spec: &Spec, state: &State, init: (i32, BorrowedFd<'_>)) -> Result<()> {
    let hooks = spec.hooks().as_ref().map_or(&[][..], |h| list(h.start_container()));
    inside(spec, (hooks, "startContainer"), HookPlace::Container, &state.for_hooks("created", init.0), init)
}

/// poststart: in the runtime's namespaces, after the payload has started.
pub(super) fn poststart(spec: &Spec, state: &State, pid: i32) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let hooks = list(hooks.poststart());
    let files = files(spec, &[hooks])?;
    run(hooks, "poststart", &state.bundle, &state.for_hooks("running", pid), &files)
}

/// poststop: all of them; what fails is a warning (runtime.md, "Lifecycle", step 13).
pub(super) fn poststop(spec: &Spec, state: &State) -> Vec<Error> {
    let Some(hooks) = spec.hooks() else { return Vec::new() };
    let hooks = list(hooks.poststop());
    // They clean up: a file that cannot be had keeps none of them from running.
    let (files, unopened) = match files(spec, &[hooks]) {
        Ok(files) => (files, None),
        Err(error) => (Files::default(), Some(error)),
    };
    let failed = run_all(hooks, "poststop", &state.bundle, &state.for_hooks("stopped", 0), &files);
    unopened.into_iter().chain(failed).collect()
}

/// The files of crun's annotations; without a hook none is made.
fn files(spec: &Spec, hooks: &[&[Hook]]) -> Result<Files> {
    match hooks.iter().all(|list| list.is_empty()) {
        true => Ok(Files::default()),
        false => Files::open(spec.hooks_files()),
    }
}

fn list(hooks: &Option<Vec<Hook>>) -> &[Hook] {
    hooks.as_deref().unwrap_or_default()
}

fn inside(
    spec: &Spec,
    (hooks, kind): (&[Hook], &str),
    place: HookPlace<'_>,
    state: &[u8],
    init: (i32, BorrowedFd<'_>),
) -> Result<()> {
    let files = files(spec, &[hooks])?;
    for (i, entry) in hooks.iter().enumerate() {
        let origin = format!("/hooks/{kind}/{i}");
        let request = HookRequest { hook: entry, origin: &origin, place };
        let ran = run_inside(spec, &request, state, init, &files);
        named(ran, entry, kind, i)?;
    }
    Ok(())
}

fn run_inside(
    spec: &Spec,
    request: &HookRequest<'_>,
    state: &[u8],
    init: (i32, BorrowedFd<'_>),
    files: &Files,
) -> Result<()> {
    let plan = hook(spec, &Host::read()?, request)?;
    let fds = prepare(&plan, &mut Means { init: Some(init), ..Means::default() })?;
    let (reader, stdin) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
    let (output, writer) = pipe_with(PipeFlags::CLOEXEC).call("pipe")?;
    let [stdout, stderr] = files.or(writer.as_fd());
    let mut process = launch(&plan, fds, None, Some([reader.as_fd(), stdout, stderr]), None)?;
    drop((reader, writer));
    if let Err(error) = until_it_runs(spec, state, &mut process) {
        return Err(ended(&process, error));
    }
    let newborn = process.into_newborn();
    // It leads a session of its own, and so a process group.
    let group = rustix::process::Pid::from_raw(newborn.pid);
    let process = HookProcess { pidfd: newborn.pidfd, group, stdin, output };
    attend(process, state, request.hook.timeout()).map_err(|error| files.named_in(error))
}

/// Gives the agent of the config's seccomp profile the listener of `pid`'s filter.
pub(super) fn tell_agent(spec: &Spec, state: &[u8], pid: i32, listener: BorrowedFd<'_>) -> Result<()> {
    match spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) {
        Some(profile) => seccomp_agent::hand_over(profile, state, pid, listener),
        None => Err(Error::new(Code::System, "a process without a filter has sent a listener")),
    }
}

fn until_it_runs(spec: &Spec, state: &[u8], process: &mut Init<'_>) -> Result<()> {
    loop {
        match process.next_event()? {
            Event::Ready => process.go_on(None)?,
            Event::Forked => {}
            Event::Listener(listener) => {
                tell_agent(spec, state, process.pid(), listener.as_fd())?;
                process.go_on(None)?;
            }
            Event::Running => return Ok(()),
            Event::Barrier(_) | Event::Terminal(..) | Event::Trees | Event::Mounted(..) => {
                return Err(Error::new(Code::System, "init stopped for something that no hook has"));
            }
        }
    }
}
