//! checkpoint and restore: a container to images, and images to a container. Uses: start, for the foreground.

use crate::ExitCode;
use crate::args::Cgroups;
use crate::args::checkpoint::{Checkpoint, Restore};
use crate::containers::parse;
use crate::{Global, images, start};
use rcrun_runtime::container::{self, CheckpointOptions, Images, RestoreOptions, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::foreground::Signals;
use rcrun_runtime::sys::inherited;
use rcrun_runtime::{Code, Error, Result};
use std::sync::Arc;

/// `rcrun checkpoint`
#[inline(never)]
pub fn checkpoint(global: &Global, args: &Checkpoint) -> Result<ExitCode> {
    let id = parse(&args.id)?;
    let root = StateRoot::new(&global.root);
    let context = || format!("checkpoint {id}");
    let state = root.open(&id).and_then(|container| container.state()).context(context())?;
    if state.is_some_and(|state| images::container::store_of(&state.bundle, id.as_str()).is_some()) {
        return Err(Error::new(
            Code::Unsupported,
            format!(
                "{}: its root is an image's, which is deleted with it: `rcrun image unpack` makes a bundle whose \
                 containers can be checkpointed",
                context()
            ),
        ));
    }
    let status = args.status_fd.map(|number| {
        let duplicate = inherited::duplicate(number as i32);
        duplicate.call(format!("invalid --status-fd argument {number}")).map(Arc::new)
    });
    let options = CheckpointOptions {
        images: Images { criu: global.criu.clone(), ..args.images.clone() },
        parent: args.parent.clone(),
        pre_dump: args.pre_dump,
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        page_server: args.page_server.clone(),
        status: status.transpose().context(context())?,
        rootless: global.rootless,
    };
    for warning in container::checkpoint(&root, &id, &options).context(context())? {
        global.log.warn(warning);
    }
    Ok(ExitCode::SUCCESS)
}

/// `rcrun restore`
#[inline(never)]
pub fn restore(global: &Global, args: &Restore) -> Result<ExitCode> {
    let id = parse(&args.id)?;
    if global.cgroups == Cgroups::Nobody {
        // CRIU is told where the cgroups of the images are to be.
        let text = "restore: --cgroup-manager disabled: a restored container needs a cgroup of its own";
        return Err(Error::new(Code::Unsupported, text));
    }
    let root = StateRoot::new(&global.root);
    // Blocked before there is a container: a ^C that comes early must not be lost, nor kill us half-way.
    let signals = Signals::block()?;
    let options = RestoreOptions {
        images: Images { criu: global.criu.clone(), ..args.images.clone() },
        parent: args.parent.clone(),
        bundle: args.bundle.clone(),
        pid_file: args.pid_file.clone(),
        console_socket: args.console_socket.clone(),
        keep_terminal: !args.detach,
        stdio: None,
        tcp_close: args.tcp_close,
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
        systemd: global.cgroups == Cgroups::Systemd,
        rootless: global.rootless,
        stop: Some(Arc::new(signals.ending()?)),
    };
    if !args.no_subreaper && !args.detach {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .call("prctl PR_SET_CHILD_SUBREAPER")?;
    }
    let restored = container::restore(&root, &id, &options).context(format!("restore {id}"))?;
    for warning in &restored.warnings {
        global.log.warn(warning.clone());
    }
    if args.no_pivot {
        global.log.warn("--no-pivot: CRIU changes the root as it does, and takes no word of it".to_string());
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    global.log.succeeded();
    start::to_the_end(global, &root, ("restore", &id), restored, &signals, args.keep, || Ok(()))
}
