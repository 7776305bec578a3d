//! spec: writes a config.json to begin with.

use crate::ExitCode;
use crate::args::Spec;
use rcrun_runtime::error::CallContext;
use rcrun_runtime::spec::default::{For, text};
use rcrun_runtime::{Code, Error, Result};
use rustix::process::{getegid, geteuid};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;

/// `rcrun spec`
#[inline(never)]
pub fn run(args: &Spec) -> Result<ExitCode> {
    let path = args.bundle.join(&args.file);
    // Never over a config that somebody may have worked on.
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            let text = format!("file {} exists: remove it first", path.display());
            return Err(Error::new(Code::Exists, text));
        }
        other => other.call(format!("create {}", path.display())),
    };
    let whose = if args.rootless {
        For::Rootless { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    } else {
        For::Root
    };
    file?.write_all(text(whose).as_bytes()).call(format!("write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
