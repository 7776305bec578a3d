//! `-v` and `-info`: what this shim is.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::{Code, Error, Result};
use std::io::{Read, Write};

/// The runtime's name for containerd.
pub const RUNTIME: &str = "io.containerd.rcrun.v2";

/// What containerd calls the type of features: a type of Go's, which goes as JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints the version for a person.
pub fn version() -> Result<()> {
    let text = format!("containerd-shim-rcrun-v2:\n  Version: {}\n", env!("CARGO_PKG_VERSION"));
    std::io::stdout().write_all(text.as_bytes()).call("write of the version")
}

/// Prints what this shim is for containerd, which gives options on stdin.
pub fn info() -> Result<()> {
    let mut given = Vec::new();
    if !rustix::termios::isatty(std::io::stdin()) {
        std::io::stdin().take(crate::start::INPUT_MAX).read_to_end(&mut given).call("read of stdin")?;
    }
    let options = crate::start::any(&given)?;
    // Wrong ones are refused here as they would be by a start.
    crate::options::read(options.as_ref())?;
    let mut info = RuntimeInfo::new();
    info.name = RUNTIME.to_string();
    info.version = MessageField::some(RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").to_string(),
        ..RuntimeVersion::default()
    });
    info.options = options.into();
    let features = serde_json::to_vec(&rcrun_runtime::features::document(None))
        .map_err(|e| Error::new(Code::System, format!("the features cannot be written: {e}")))?;
    info.features =
        MessageField::some(Any { type_url: FEATURES.to_string(), value: features, ..Any::default() });
    let bytes = info
        .write_to_bytes()
        .map_err(|e| Error::new(Code::System, format!("the answer cannot be written: {e}")))?;
    std::io::stdout().write_all(&bytes).call("write of the answer")
}
