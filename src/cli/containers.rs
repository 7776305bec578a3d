//! The verbs that only look a container up and call the runtime: start, state, kill, delete, list, ps, pause, resume.

use crate::ExitCode;
use crate::args::{Delete, Id, Kill, List, Ps, StartCreated, Table};
use crate::record::{self, Record};
use crate::timings::tell;
use crate::{Global, images, output, processes};
use rcrun_runtime::container::{self, Container, Listed, StateRoot};
use rcrun_runtime::error::Context;
use rcrun_runtime::spec::id::ContainerId;
use rcrun_runtime::sys::pattern::Pattern;
use rcrun_runtime::{Code, Error, Result, timings};

/// The id, or an error that says what an id is.
pub fn parse(id: &str) -> Result<ContainerId> {
    id.parse()
}

fn open(global: &Global, verb: &str, id: &str) -> Result<(ContainerId, Container)> {
    let id = parse(id)?;
    let container = StateRoot::new(&global.root).open(&id).context(format!("{verb} {id}"))?;
    Ok((id, container))
}

/// `rcrun start`
#[inline(never)]
pub fn start(global: &Global, args: &StartCreated) -> Result<ExitCode> {
    if args.timings {
        timings::begin();
    }
    let (id, container) = open(global, "start", &args.id)?;
    let notify = std::env::var("NOTIFY_SOCKET").ok();
    for warning in container::start(&container, notify.as_deref()).context(format!("start {id}"))? {
        global.log.warn(warning);
    }
    tell(global);
    Ok(ExitCode::SUCCESS)
}

/// `rcrun state`
#[inline(never)]
pub fn state(global: &Global, args: &Id) -> Result<ExitCode> {
    let (id, container) = open(global, "state", &args.id)?;
    let listed = Listed::read(&container, id.clone()).context(format!("state {id}"))?;
    // `owner` is empty in runc's state: only list looks it up.
    output::pretty(&Record { end: listed.end(), ..record(&listed, String::new()) })?;
    Ok(ExitCode::SUCCESS)
}

/// `rcrun kill`
#[inline(never)]
pub fn kill(global: &Global, args: &Kill) -> Result<ExitCode> {
    if args.regex {
        return each(global, "kill", &args.id, |id| kill(global, &Kill { id, regex: false, ..*args }));
    }
    let (id, container) = open(global, "kill", &args.id)?;
    match container::kill(&container, args.signal, args.all) {
        // runc's rule: with --all a container that has ended is what was wanted.
        Err(e) if args.all && e.code() == Code::Status => {}
        other => other.context(format!("kill {id}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `rcrun delete`
#[inline(never)]
pub fn delete(global: &Global, args: &Delete) -> Result<ExitCode> {
    if args.regex {
        let store = &args.store;
        return each(global, "delete", &args.id, |id| {
            delete(global, &Delete { id, regex: false, store: store.clone(), ..*args })
        });
    }
    let id = parse(&args.id)?;
    let root = StateRoot::new(&global.root);
    images::container::enter(&root, &id).context(format!("delete {id}"))?;
    // Of an image it has a folder in a store: which one stands in its state, and after a crash nowhere.
    let state = root.open(&id).and_then(|container| container.state()).ok().flatten();
    let stateless = args.force && state.is_none();
    let store = state.and_then(|state| images::container::store_of(&state.bundle, id.as_str()));
    let warnings = container::delete(&root, &id, args.force);
    for warning in warnings.context(format!("delete {id}"))? {
        global.log.warn(warning);
    }
    let left = args.store.join("containers").join(id.as_str());
    let dead = || left.exists() && !images::container::is_alive(&args.store, id.as_str());
    if let Some(store) = store.or_else(|| (stateless && dead()).then(|| args.store.clone())) {
        images::container::forget(&images::open(&store)?, &store, id.as_str())
            .context(format!("delete {id}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something to each container whose id a pattern matches, also where it fails for one.
fn each(
    global: &Global,
    verb: &str,
    pattern: &str,
    act: impl Fn(String) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let pattern = Pattern::new(pattern)
        .map_err(|why| Error::new(Code::Usage, format!("{verb}: --regex {pattern:?}: {why}")))?;
    let mut failed = Vec::new();
    for listed in container::list(&StateRoot::new(&global.root))? {
        if pattern.matches(listed.id.as_str()) {
            failed.extend(act(listed.id.to_string()).err());
        }
    }
    match failed.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(failed.remove(0)),
        _ => {
            let texts: Vec<String> = failed.iter().map(Error::to_string).collect();
            Err(Error::new(failed[0].code(), texts.join("; ")))
        }
    }
}

/// `rcrun list`
#[inline(never)]
pub fn list(global: &Global, args: &List) -> Result<ExitCode> {
    let all = container::list(&StateRoot::new(&global.root))?;
    if args.quiet {
        output::print(all.iter().map(|l| format!("{}\n", l.id)).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let owner = |l: &Listed| l.state.as_ref().map(|s| record::owner(s.owner, &passwd)).unwrap_or_default();
    let records: Vec<Record> = all.iter().map(|l| record(l, owner(l))).collect();
    match args.format {
        Table::Table => output::print(record::table(&records))?,
        // runc prints null for no containers; tools expect a list.
        Table::Json => output::line(&records)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `rcrun ps`
#[inline(never)]
pub fn ps(global: &Global, args: &Ps) -> Result<ExitCode> {
    let (id, container) = open(global, "ps", &args.id)?;
    let pids: Vec<i32> =
        container::processes(&container).context(format!("ps {id}"))?.into_iter().map(|p| p as i32).collect();
    match args.format {
        Table::Json => output::line(&pids)?,
        Table::Table => output::print(processes::table(&pids, &args.args)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `rcrun pause`
#[inline(never)]
pub fn pause(global: &Global, args: &Id) -> Result<ExitCode> {
    let (id, container) = open(global, "pause", &args.id)?;
    container::pause(&container).context(format!("pause {id}"))?;
    Ok(ExitCode::SUCCESS)
}

/// `rcrun resume`
#[inline(never)]
pub fn resume(global: &Global, args: &Id) -> Result<ExitCode> {
    let (id, container) = open(global, "resume", &args.id)?;
    container::resume(&container).context(format!("resume {id}"))?;
    Ok(ExitCode::SUCCESS)
}

fn record(listed: &Listed, owner: String) -> Record {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let state = listed.state.as_ref();
    Record {
        oci_version: state.map(|s| s.oci_version.clone()).unwrap_or_default(),
        id: listed.id.to_string(),
        pid: listed.pid(),
        status: listed.status.as_str().to_string(),
        bundle: state.map(|s| text(&s.bundle)).unwrap_or_default(),
        rootfs: state.map(|s| text(&s.rootfs)).unwrap_or_default(),
        created: state.map(|s| s.created.clone()).unwrap_or_default(),
        annotations: state.map(|s| s.annotations.clone()).unwrap_or_default(),
        owner,
        end: None,
    }
}
