//! `delete`: what is left of a container whose shim was killed. Uses: client, group, rootfs.

use crate::args::Flags;
use crate::client::Client;
use crate::group;
use crate::rootfs;
use containerd_shim_protos::api::{DeleteResponse, ShutdownRequest};
use containerd_shim_protos::protobuf::{Message, MessageField};
use rcrun_runtime::container::{self, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::{Code, Error, Result};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file of a bundle that says where the container's state lies.
const NOTE: &str = "rcrun-root";

/// The file of a bundle that says where its shim listens.
pub const ADDRESS: &str = "address";

/// What containerd takes for the end of a container that nobody has waited for.
const KILLED: u32 = 137;

/// Notes in the bundle where the state lies.
pub fn note(bundle: &Path, root: &Path) -> Result<()> {
    let path = bundle.join(NOTE);
    std::fs::write(&path, root.as_os_str().as_encoded_bytes()).call(format!("write {}", path.display()))
}

/// Ends and removes what is left, and says so to containerd.
pub fn delete(flags: &Flags) -> Result<()> {
    let bundle = match flags.bundle.is_empty() {
        true => std::env::current_dir().call("getcwd")?,
        false => PathBuf::from(&flags.bundle),
    };
    // First: containerd may remove the bundle while this goes on.
    let served = forget_socket(&bundle);
    // A create may have come to nothing before it noted anything.
    let root = match std::fs::read_to_string(bundle.join(NOTE)) {
        Ok(root) => Some(StateRoot::new(root)),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(Error::call(format!("read {}", bundle.join(NOTE).display()), e)),
    };
    let id = flags.id.parse()?;
    let mut pid = 0;
    if let Some(root) = root {
        if let Ok(container) = root.open(&id) {
            let state = container.state().ok().flatten();
            pid = state.and_then(|state| state.process).map_or(0, |process| process.pid);
        }
        container::delete(&root, &id, true).context(format!("delete {id}"))?;
    }
    rootfs::unmount_all(&rootfs::of(&bundle))?;
    if let Some(path) = served {
        release(&path, &flags.id);
    }
    let mut response = DeleteResponse::new();
    response.pid = pid as u32;
    response.exit_status = KILLED;
    response.exited_at = MessageField::some(SystemTime::now().into());
    let bytes = response
        .write_to_bytes()
        .map_err(|e| Error::new(Code::System, format!("the answer cannot be written: {e}")))?;
    std::io::stdout().write_all(&bytes).call("write of the answer")
}

/// Removes the socket of a shim that is no more; where one serves there, tells where that is.
fn forget_socket(bundle: &Path) -> Option<PathBuf> {
    let address = std::fs::read_to_string(bundle.join(ADDRESS)).ok()?;
    let path = PathBuf::from(address.trim().strip_prefix("unix://")?);
    match group::forget(&path) {
        Ok(is_served) => is_served.then_some(path),
        Err(error) => {
            // The container is what counts; the next shim of that name takes the socket.
            eprintln!("containerd-shim-rcrun-v2: {error}");
            None
        }
    }
}

/// Ends the shim that serves there, unless it has containers: one that was started for a containerd that was killed before it
/// could ask for anything. containerd does not know it, and nobody else would end it.
pub fn release(path: &Path, id: &str) {
    let request = ShutdownRequest { id: id.to_string(), ..ShutdownRequest::default() };
    // Of one that has ended meanwhile nothing is left to be done.
    if let Ok(mut shim) = Client::connect(&path.to_string_lossy()) {
        let _ = shim.call("containerd.task.v2.Task", "Shutdown", &request);
    }
}
