//! exec: its process from a file or from the command line, and the way it is attended.

use crate::ExitCode;
use crate::Global;
use crate::args::{Command, Exec, Process as Wanted};
use crate::containers::parse;
use crate::images;
use crate::start::listen_variables;
use crate::timings::tell;
use oci_spec::runtime::{Capability, LinuxCapabilities};
use rcrun_runtime::console::Console;
use rcrun_runtime::container::{self, ExecOptions, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::foreground::{Signals, attend};
use rcrun_runtime::spec::{self, Process, Spec};
use rcrun_runtime::{Code, Error, Result, timings};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;

/// `rcrun exec`
#[inline(never)]
pub fn exec(global: &Global, args: &Exec) -> Result<ExitCode> {
    if args.timings {
        timings::begin();
    }
    let id = parse(&args.id)?;
    let root = StateRoot::new(&global.root);
    images::container::enter(&root, &id).context(format!("exec {id}"))?;
    let container = root.open(&id).context(format!("exec {id}"))?;
    let signals = Signals::block()?;
    let options = ExecOptions {
        pid_file: args.pid_file.clone(),
        console_socket: args.console_socket.clone(),
        pidfd_socket: args.pidfd_socket.clone(),
        preserve_fds: args.preserve_fds,
        listen: listen_variables(),
        cgroup: args.cgroup.as_ref().map(|c| c.to_string_lossy().into_owned()),
        ignore_paused: args.ignore_paused,
        keep_terminal: !args.detach,
        stdio: None,
    };
    if !args.detach {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .call("prctl PR_SET_CHILD_SUBREAPER")?;
    }
    let process = |spec: &Spec| match &args.process {
        Wanted::File(path) => spec::load_process(path),
        Wanted::Command(command) => from_command(command, spec),
    };
    let started = container::exec(&container, &options, process).context(format!("exec {id}"))?;
    tell(global);
    started.warnings.iter().for_each(|w| global.log.warn(w.clone()));
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    global.log.succeeded();
    let console = started.terminal.map(Console::new).transpose().context(format!("exec {id}"))?;
    let Some(pid) = rustix::process::Pid::from_raw(started.process.pid) else {
        return Err(Error::new(Code::System, "the process has no pid"));
    };
    let attended = attend(started.process.pidfd.as_fd(), pid, &signals, console, None, None);
    let attended = attended.context(format!("exec {id}"))?;
    attended.warnings.iter().for_each(|w| global.log.warn(w.to_string()));
    Ok(ExitCode::from(attended.exit.status() as u8))
}

/// The container's own process with what the command line changes of it.
fn from_command(command: &Command, spec: &Spec) -> Result<Process> {
    let Some(base) = spec.process() else {
        return Err(Error::config("/process", "is missing: exec needs --process FILE for this container"));
    };
    let mut process = base.clone();
    let args: Result<Vec<String>> = command.args.iter().map(|a| text(a, "argument")).collect();
    process.set_args(Some(args?)).set_terminal(Some(command.tty)).set_console_size(None);
    if let Some(cwd) = &command.cwd {
        process.set_cwd(cwd.clone());
    }
    if !command.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        for entry in &command.env {
            let entry = text(entry, "--env")?;
            if entry.contains('=') || entry.is_empty() {
                env.push(entry);
            } else if let Some(value) = std::env::var_os(&entry) {
                // The caller's, as docker has it; where he has none the container's stays.
                env.push(format!("{entry}={}", text(&value, "--env")?));
            }
        }
        process.set_env(Some(env));
    }
    let mut user = process.user().clone();
    if let Some(wanted) = command.user {
        user.set_uid(wanted.uid);
        if let Some(gid) = wanted.gid {
            user.set_gid(gid);
        }
    }
    if !command.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&command.additional_gids);
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    if command.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !command.caps.is_empty() {
        process.set_capabilities(Some(with_capabilities(process.capabilities().as_ref(), &command.caps)?));
    }
    if let Some(profile) = &command.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &command.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    Process::checked(process)
}

fn text(word: &OsStr, what: &str) -> Result<String> {
    word.to_str()
        .map(str::to_string)
        .ok_or_else(|| Error::new(Code::Usage, format!("{what} {}: is not UTF-8", word.to_string_lossy())))
}

/// --cap adds to bounding, effective and permitted; to ambient only what is inheritable already: an inheritable set that
/// grows by exec is CVE-2022-29162.
fn with_capabilities(base: Option<&LinuxCapabilities>, added: &[String]) -> Result<LinuxCapabilities> {
    let mut caps = base.cloned().unwrap_or_default();
    let added: HashSet<Capability> = added
        .iter()
        .map(|name| {
            let bare = name.to_ascii_uppercase();
            let bare = bare.strip_prefix("CAP_").unwrap_or(&bare);
            bare.parse().map_err(|_| Error::new(Code::Usage, format!("--cap {name}: unknown capability")))
        })
        .collect::<Result<_>>()?;
    let grow = |set: &Option<HashSet<Capability>>| {
        Some(set.iter().flatten().chain(&added).copied().collect::<HashSet<Capability>>())
    };
    let inheritable = caps.inheritable().clone().unwrap_or_default();
    let ambient: HashSet<Capability> = caps
        .ambient()
        .iter()
        .flatten()
        .chain(added.iter().filter(|cap| inheritable.contains(*cap)))
        .copied()
        .collect();
    let (bounding, effective, permitted) =
        (grow(caps.bounding()), grow(caps.effective()), grow(caps.permitted()));
    caps.set_bounding(bounding).set_effective(effective).set_permitted(permitted).set_ambient(Some(ambient));
    Ok(caps)
}
