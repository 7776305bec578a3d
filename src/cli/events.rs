//! events: what happens to a container, a line of JSON each, in runc's shape.

use rcrun_runtime::Result;
use rcrun_runtime::cgroup::stats::Stats;
use rcrun_runtime::container::{self, Happening, StateRoot};
use rcrun_runtime::error::Context;
use serde::Serialize;

use crate::args::Events;
use crate::{ExitCode, Global, containers, output};

/// A line.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

/// `rcrun events`
#[inline(never)]
pub fn events(global: &Global, args: &Events) -> Result<ExitCode> {
    let id = containers::parse(&args.id)?;
    let container = StateRoot::new(&global.root).open(&id).context(format!("events {id}"))?;
    let print = |kind, data: Option<&Stats>| output::line(&Event { kind, id: id.as_str(), data });
    if args.stats {
        print("stats", Some(&container::stats(&container).context(format!("events {id}"))?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let told = container::events(&container, args.interval, |happening| match happening {
        Happening::Stats(stats) => print("stats", Some(stats)),
        Happening::OomKill => print("oom", None),
    });
    for warning in told.context(format!("events {id}"))? {
        global.log.warn(warning);
    }
    Ok(ExitCode::SUCCESS)
}
