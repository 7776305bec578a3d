//! plan: the compiled plan, for a person or for tools. Nothing but config.json is read, and nothing is done.

use crate::args::{Plan as Args, PlanFormat};
use crate::{Global, output};
use rcrun_runtime::compile::{self, ExecRequest, Request};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::host::Host;
use rcrun_runtime::plan::Plan;
use rcrun_runtime::{Result, spec, words};
use std::fmt::Write;
use std::process::ExitCode;

/// `rcrun plan`
#[inline(never)]
pub fn plan(_global: &Global, args: &Args) -> Result<ExitCode> {
    let bundle = std::path::absolute(&args.bundle).call(format!("bundle {}", args.bundle.display()))?;
    let spec = spec::load(&bundle.join("config.json"))?;
    let host = Host::read()?;
    let name = bundle.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let compiled = match &args.process {
        Some(path) => {
            let process = spec::load_process(path)?;
            let request =
                ExecRequest { id: &name, process: &process, keyring: true, passed_fds: 0, variables: &[] };
            compile::exec(&spec, &host, &request)?
        }
        None => {
            let request = Request {
                id: &name,
                bundle: &bundle,
                await_start: true,
                no_pivot: false,
                keyring: true,
                passed_fds: 0,
                variables: &[],
                notify: false,
            };
            compile::start(&spec, &host, &request)?
        }
    };
    match args.format {
        PlanFormat::Text => output::print(text(&compiled))?,
        PlanFormat::Json => output::pretty(&compiled)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One line a step: number, place in config.json, what is done.
fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let kinds: Vec<&str> = rcrun_runtime::plan::NAMESPACES
        .iter()
        .filter(|(_, kind)| plan.namespaces & *kind as u64 != 0)
        .map(|(name, _)| *name)
        .collect();
    let _ = writeln!(
        out,
        "namespaces made by clone3: {}",
        if kinds.is_empty() { "none".into() } else { kinds.join(", ") }
    );
    if !plan.slots.is_empty() {
        let _ = writeln!(out, "\nopened by rcrun before anything of the container runs:");
        for (i, source) in plan.slots.iter().enumerate() {
            let _ = writeln!(out, "  slot {i:<3} {}", words::source(Some(source)));
        }
    }
    let _ = writeln!(out, "\ndone by rcrun-init in the container:");
    let wide = plan.steps.iter().map(|p| p.origin.len()).max().unwrap_or_default();
    for (i, planned) in plan.steps.iter().enumerate() {
        let _ = writeln!(out, "  {:>3}  {:<wide$}  {}", i + 1, planned.origin, words::tell(plan, i));
    }
    out
}
