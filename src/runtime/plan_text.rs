//! A plan as it is printed: text for a person, JSON for tools, both with one step a line, so that a diff of two plans
//! reads as a list of what changed. Pure. Uses: plan, words, error.

use crate::plan::{IdMap, Plan, Source};
use crate::words::{self, kinds_text, propagation_text};
use crate::{Code, Error, Result};
use serde_json::Value;
use std::fmt::Write;

/// For a person: what is done, by whom, in which order; each step with its number and its place in config.json.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let slot = |slot: &rcrun_plan::Slot| words::source(plan.slots.get(usize::from(slot.0)));
    for joined in &plan.first_joins {
        let kind = plan.slots.get(usize::from(joined.0)).and_then(Source::namespace_kind);
        let kind = kinds_text(kind.unwrap_or_default() as u32);
        let _ =
            writeln!(out, "joined by a first child, which makes the container's: {kind} of {}", slot(joined));
    }
    let made = match plan.namespaces {
        0 => "none".to_string(),
        kinds => kinds_text(kinds as u32),
    };
    let _ = writeln!(out, "made by clone3: {made}");
    if let Some(offsets) = &plan.time_offsets {
        let _ = writeln!(out, "time offsets: {}", one_line(offsets));
    }
    if let Some(maps) = &plan.maps {
        let _ = writeln!(out, "uid_map: {}", one_line(&maps.uid));
        let _ = writeln!(out, "gid_map: {}", one_line(&maps.gid));
    }
    if let Some(adjustment) = plan.oom_score_adj {
        let _ = writeln!(out, "oom_score_adj: {adjustment}");
    }
    for device in &plan.net_devices {
        let _ = writeln!(out, "network device {} goes inside as {}", device.name, device.renamed);
    }
    if let Some(cpus) = &plan.initial_cpus {
        let _ = writeln!(out, "begins on CPUs: {cpus}");
    }
    if let Some(cpus) = &plan.final_cpus {
        let _ = writeln!(out, "in its cgroup on CPUs: {cpus}");
    }
    if let Some(to) = &plan.after_fork {
        let _ = writeln!(out, "after its fork: {}", words::scheduler_text(to));
    }
    if !plan.slots.is_empty() {
        let _ = writeln!(out, "\nopened by rcrun before anything of the container runs:");
        for (i, source) in plan.slots.iter().enumerate() {
            let _ = writeln!(out, "  slot {i:<3} {}", opened(source));
        }
    }
    let _ = writeln!(out, "\ndone by rcrun-init in the container:");
    let wide = plan.steps.iter().map(|p| p.origin.len()).max().unwrap_or_default();
    for (i, planned) in plan.steps.iter().enumerate() {
        let _ = writeln!(out, "  {:>3}  {:<wide$}  {}", i + 1, planned.origin, words::tell(plan, i));
    }
    if !plan.args.is_empty() {
        let _ = writeln!(out, "\nthe payload:");
    }
    for (i, word) in plan.args.iter().enumerate() {
        let _ = writeln!(out, "  argument {i:<3} {}", word.escape_debug());
    }
    for variable in &plan.env {
        let _ = writeln!(out, "  variable     {}", variable.escape_debug());
    }
    if let Some(uid) = plan.home_of {
        let _ = writeln!(out, "  variable     HOME= of uid {uid} in the container's /etc/passwd");
    }
    if !plan.groups.is_empty() {
        let groups: Vec<String> = plan.groups.iter().map(u32::to_string).collect();
        let _ = writeln!(out, "  groups       {}", groups.join(", "));
    }
    if plan.passed_fds > 0 {
        let _ = writeln!(out, "  fds          3 to {}", 2 + plan.passed_fds);
    }
    out
}

/// For tools: an object; its lists stand with one element a line.
pub fn json(plan: &Plan) -> Result<String> {
    let failed = |e: serde_json::Error| Error::new(Code::System, format!("write JSON: {e}"));
    let Value::Object(fields) = serde_json::to_value(plan).map_err(failed)? else {
        return Err(Error::new(Code::System, "write JSON: a plan is an object"));
    };
    let mut out = String::from("{");
    for (i, (name, value)) in fields.iter().enumerate() {
        let _ = write!(out, "{}\n  {}: ", if i == 0 { "" } else { "," }, Value::from(name.as_str()));
        match value {
            Value::Array(list) if !list.is_empty() => {
                out.push('[');
                for (i, element) in list.iter().enumerate() {
                    let _ = write!(out, "{}\n    {element}", if i == 0 { "" } else { "," });
                }
                out.push_str("\n  ]");
            }
            value => {
                let _ = write!(out, "{value}");
            }
        }
    }
    out.push_str("\n}\n");
    Ok(out)
}

/// The lines of a file of procfs as one.
fn one_line(lines: &str) -> String {
    lines.lines().collect::<Vec<_>>().join(", ")
}

/// Whose owners a mount shows.
fn mapped(by: Option<&IdMap>) -> String {
    let below = |recursive: &bool| if *recursive { ", and below it" } else { "" };
    match by {
        None => String::new(),
        Some(IdMap::Own { maps, recursive }) => {
            let (uid, gid) = (one_line(&maps.uid), one_line(&maps.gid));
            format!(", owners mapped by uid {uid}, gid {gid}{}", below(recursive))
        }
        Some(IdMap::Joined { path, recursive }) => {
            format!(", owners mapped by {}{}", path.display(), below(recursive))
        }
    }
}

/// A slot, and how it is opened.
fn opened(source: &Source) -> String {
    let name = words::source(Some(source));
    match source {
        Source::Root { clone: true, propagation, .. } => {
            format!("a clone of {name} with all below, {}", propagation_text(*propagation))
        }
        Source::Bind { recursive, propagation, idmap, .. } => {
            let all = if *recursive { " with all below" } else { "" };
            let propagation = match propagation {
                0 => "propagation as it is",
                kind => propagation_text(*kind),
            };
            format!("a clone of {name}{all}, {propagation}{}", mapped(idmap.as_ref()))
        }
        Source::FileSystem { idmap, .. } => format!("a {name}{}", mapped(idmap.as_ref())),
        Source::Device { major, minor, block, .. } => {
            let kind = if *block { "block" } else { "character" };
            format!("a clone of {name}, private, checked to be the {kind} device {major}:{minor}")
        }
        Source::Namespace { kind, .. } => format!("the {} {name}", kinds_text(*kind as u32)),
        Source::Cgroup { .. } | Source::NotifyFolder => format!("a clone of {name}, private"),
        Source::Init => format!("the pidfd of {name}"),
        Source::Root { .. }
        | Source::InitRoot
        | Source::HostMountNamespace
        | Source::Procfs
        | Source::Listen => name,
    }
}
