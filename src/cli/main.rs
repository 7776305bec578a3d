//! `rcrun`, the command. Each verb has a file; this one finds the verb, and tells an error once.

mod args;
mod features;
mod help;
mod log;
mod output;
mod processes;
mod record;
mod target;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use args::Invocation;
use log::Log;
use rcrun_runtime::{Code, Error, Result};

/// What the options before the verb give to every verb.
pub struct Global {
    /// The directory that holds the state of containers.
    pub root: PathBuf,
    /// Where warnings and debug lines go.
    pub log: Log,
}

fn main() -> ExitCode {
    let (globals, invocation) = args::parse(std::env::args_os().skip(1).collect());
    let log = match Log::open(&globals) {
        Ok(log) => log,
        Err(error) => {
            Log::stderr(&globals).error(&error);
            return ExitCode::FAILURE;
        }
    };
    let global = Global { root: globals.root, log };
    let invocation = match invocation {
        Ok(invocation) => invocation,
        Err(error) => {
            global.log.error(&error);
            return ExitCode::FAILURE;
        }
    };
    let failure = failure(&invocation);
    match dispatch(&global, invocation) {
        Ok(status) => {
            global.log.succeeded();
            status
        }
        Err(error) => {
            global.log.error(&error);
            failure
        }
    }
}

/// The exit status when rcrun itself fails. That of `exec` is not one a command is likely to have.
fn failure(invocation: &Invocation) -> ExitCode {
    match invocation {
        Invocation::Exec(_) => ExitCode::from(255),
        _ => ExitCode::FAILURE,
    }
}

fn dispatch(global: &Global, invocation: Invocation) -> Result<ExitCode> {
    match invocation {
        Invocation::Help(verb) => help::run(verb),
        Invocation::Version => version::run(),
        _ => {
            global.log.debug(|| format!("the root directory is {}", global.root.display()));
            Err(Error::new(Code::Unsupported, "this command is not supported yet"))
        }
    }
}
