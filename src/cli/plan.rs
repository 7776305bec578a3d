//! plan: the compiled plan, for a person or for tools, or its seccomp filter alone. Nothing but config.json is read, and
//! nothing is done.

use crate::ExitCode;
use crate::args::{Plan as Args, PlanFormat};
use crate::images::load;
use crate::{Global, output};
use rcrun_runtime::compile::{self, ExecRequest, Request};
use rcrun_runtime::error::CallContext;
use rcrun_runtime::host::Host;
use rcrun_runtime::{Error, Result, plan_text, spec};
use std::path::Path;

/// `rcrun plan`
#[inline(never)]
pub fn plan(global: &Global, args: &Args) -> Result<ExitCode> {
    load::refuse("plan", &args.bundle)?;
    let bundle = std::path::absolute(&args.bundle).call(format!("bundle {}", args.bundle.display()))?;
    let spec = spec::load(&bundle.join("config.json"))?;
    let host = Host::read()?;
    let mut warnings = spec.warnings().to_vec();
    let name = bundle.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let compiled = match &args.process {
        Some(path) => {
            let process = spec::load_process(path)?;
            warnings.extend(process.warnings().iter().cloned());
            compile::exec(&spec, &host, &ExecRequest::new(&name, &process))?
        }
        None => {
            warnings.extend(compile::warnings(&spec, &host));
            compile::start(&spec, &host, &Request::create(&name, &bundle))?
        }
    };
    warnings.extend(compiled.warnings.iter().cloned());
    warnings.into_iter().for_each(|warning| global.log.warn(warning));
    if let Some(file) = &args.seccomp_out {
        seccomp_out(file, &compiled.filter)?;
        return Ok(ExitCode::SUCCESS);
    }
    match args.format {
        PlanFormat::Text => output::print(plan_text::text(&compiled))?,
        PlanFormat::Json => output::print(plan_text::json(&compiled)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The filter as seccomp(2) takes it, struct sock_filter after struct sock_filter: for other tools to load or to read.
fn seccomp_out(file: &Path, filter: &[u8]) -> Result<()> {
    if filter.is_empty() {
        return Err(Error::config("/linux/seccomp", "is missing: there is no filter for --seccomp-out"));
    }
    std::fs::write(file, filter).call(format!("write {}", file.display()))
}
