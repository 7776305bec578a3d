//! `check`: every problem of a config.json at once, against the spec and against this machine. What `create` and `start`
//! would refuse is found by the code that refuses it there: the first fault is taken out of the config, and what is left is
//! tried again (docs/adr/0020). What only shows when init works is looked at here. Nothing on the machine is changed.
//! Uses: cgroup, compile, container (what is decided), host, plan, prepare, spec, sys, systemd.

mod config;
mod machine;
mod nearest;
mod program;
mod remedy;
mod root;
mod view;

use crate::container::{self, Decision, Options};
use crate::error::CallContext;
use crate::host::{Caller, Host};
use crate::plan::Plan;
use crate::spec::id::ContainerId;
use crate::spec::{self, Spec, fields};
use crate::{Code, Error, Result, cgroup, compile, sys, systemd};
use config::Config;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// More than these are not told: who has mended them asks again.
const MOST: usize = 500;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// `create` or `start` would refuse it, or fail.
    Error,
    /// It works, and is probably not what was meant.
    Warning,
    /// What will be left out or done here without being asked for, and what could not be looked at.
    Note,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The place in config.json; empty where it is the whole, or none.
    pub pointer: String,
    /// The stable word for its class, as in the JSON log.
    pub code: &'static str,
    /// What it is.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How many are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many are notes.
    pub notes: usize,
    /// The worst first, and those of one level in the order of the checks.
    pub findings: Vec<Finding>,
}

/// What there is to be started, as far as it could be decided.
struct Start {
    spec: Spec,
    plan: Plan,
    limits: Vec<cgroup::Write>,
    cgroup: Option<(cgroup::Hierarchy, cgroup::CgroupPath)>,
    warnings: Vec<String>,
}

/// What the checks look at.
struct Site<'a> {
    start: &'a Start,
    host: &'a Host,
    bundle: &'a Path,
    /// This process may not do what it looks after: what it is denied says nothing of who may.
    for_root: bool,
}

/// Checks the bundle that `options` name, as `create` and `run` with them would take it.
pub fn check(options: &Options) -> Report {
    let mut found = Found::default();
    if let Err(error) = bundle(options, &mut found) {
        found.refused(&error);
    }
    found.report()
}

fn bundle(options: &Options, found: &mut Found) -> Result<()> {
    let bundle = sys::path::real(&options.bundle).call(format!("bundle {}", options.bundle.display()))?;
    let text = spec::read(&bundle.join("config.json"))?;
    found.text = text;
    found.config = Config::parse(&found.text);
    // First the spec, whatever the machine is.
    let Some(spec) = found.until_accepted(spec::parse) else { return Ok(()) };
    if spec.process().is_none() {
        found.refused(&Error::config("/process", "is missing: there is nothing to start"));
    }
    let mut host = Host::read()?;
    let unprivileged = !host.caller.privileged;
    let mut for_root = false;
    let id = id(&bundle)?;
    let mut options = Options { bundle: bundle.clone(), keep_terminal: true, ..options.clone() };
    let start = loop {
        let needs_root = |error: &Error| {
            unprivileged && error.code() == Code::Host && error.pointer() == Some("/linux/namespaces")
        };
        let mut stopped = false;
        let start = found.until_accepted(|text| {
            let started = start(text, &host, &bundle, &id, &options);
            stopped = !for_root && started.as_ref().is_err_and(needs_root);
            if stopped { Ok(None) } else { started.map(Some) }
        });
        match start {
            Some(Some(start)) => break start,
            // The rest is looked at as for root, whose config it is.
            Some(None) if stopped => {
                if let Err(error) = start_plan(&found.text_now(), &host, &bundle, &id) {
                    found.refused(&error);
                }
                for_root = true;
                host.caller = Caller::ROOT;
                options.rootless = Some(false);
            }
            // What the machine lacks for any config: the plan tells the rest.
            _ => break start_plan(&found.text_now(), &host, &bundle, &id)?,
        }
    };
    found.told(&start.warnings);
    found.names();
    if options.systemd
        && let Err(error) = systemd::answers()
    {
        found.refused(&error);
    }
    let site = Site { start: &start, host: &host, bundle: &bundle, for_root };
    machine::look(&site, found);
    root::look(&site, found);
    Ok(())
}

/// What a container of the bundle might be called: the id names its cgroup.
fn id(bundle: &Path) -> Result<ContainerId> {
    let name = bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.parse().or_else(|_| "check".parse())
}

/// What `create` decides.
fn start(text: &[u8], host: &Host, bundle: &Path, id: &ContainerId, options: &Options) -> Result<Start> {
    let spec = spec::parse(text)?;
    let decided = container::decide(&spec, host.clone(), bundle, id, options, true)?;
    let Decision { limits, place, plan, warnings, .. } = decided;
    Ok(Start { plan, limits: limits.writes, cgroup: place.cgroup, warnings, spec })
}

/// The plan alone, where the machine lacks what every container needs.
fn start_plan(text: &[u8], host: &Host, bundle: &Path, id: &ContainerId) -> Result<Start> {
    let spec = spec::parse(text)?;
    let plan = compile::start(&spec, host, &compile::Request::create(id.as_str(), bundle))?;
    let warnings = spec.warnings().to_vec();
    Ok(Start { plan, limits: Vec::new(), cgroup: None, warnings, spec })
}

/// What was found by now, and what is left of the config.
#[derive(Default)]
struct Found {
    text: Vec<u8>,
    config: Option<Config>,
    findings: Vec<Finding>,
}

impl Found {
    fn text_now(&self) -> Vec<u8> {
        self.text.clone()
    }

    /// Tries until nothing is refused any more: each refusal is told, and its cause taken out. None where a cause cannot be.
    fn until_accepted<T>(&mut self, mut attempt: impl FnMut(&[u8]) -> Result<T>) -> Option<T> {
        for _ in 0..MOST {
            let error = match attempt(&self.text) {
                Ok(done) => return Some(done),
                Err(error) => error,
            };
            self.refused(&error);
            let (Some(config), Some(pointer)) = (&mut self.config, error.pointer()) else { return None };
            if !config.mend(pointer) {
                self.note("", "what follows could not be checked: it hangs on what is told above", None);
                return None;
            }
            self.text = config.text().into_bytes();
        }
        self.note("", &format!("more than {MOST} problems: the rest is told when these are mended"), None);
        None
    }

    /// What `create` says.
    fn refused(&mut self, error: &Error) {
        let at = error.pointer().unwrap_or_default();
        let sentence = error.sentence();
        let sentence = sentence.strip_prefix("config.json: ").unwrap_or(sentence);
        let sentence = sentence.strip_prefix(at).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(sentence);
        // What was taken out may be missed now: that is no second fault.
        let config = self.config.as_ref();
        let pointer = config.map_or_else(|| at.to_string(), |config| config.original(at));
        let empty = config.is_some_and(|config| config.is_empty(at));
        let caused = |finding: &Finding| {
            finding.level == Level::Error
                && !pointer.is_empty()
                && (finding.pointer == pointer
                    || empty && finding.pointer.starts_with(&format!("{pointer}/")))
        };
        if self.findings.iter().any(caused) {
            return;
        }
        let remedy = error.remedy().map(str::to_string).or_else(|| remedy::of(&pointer, sentence));
        // The text is no more the one that was read; and of the words that could stand there the nearest is told.
        let end = if pointer.is_empty() { None } else { sentence.rfind(" at line ") };
        let sentence = &sentence[..end.unwrap_or(sentence.len())];
        let meant = remedy.as_deref().is_some_and(|remedy| remedy.starts_with("did you mean"));
        let end = if meant { sentence.find(", expected ") } else { None };
        let sentence = &sentence[..end.unwrap_or(sentence.len())];
        self.findings.push(Finding {
            level: Level::Error,
            pointer,
            code: error.code().as_str(),
            message: sentence.to_string(),
            remedy,
        });
    }

    /// The sentences that `create` warns with.
    fn told(&mut self, warnings: &[String]) {
        for warning in warnings {
            let warning = warning.strip_prefix("config.json: ").unwrap_or(warning);
            let (pointer, message) = match warning.split_once(": ") {
                Some((pointer, message)) if pointer.starts_with('/') => (pointer, message),
                _ => ("", warning),
            };
            match pointer.starts_with("/linux/resources") {
                true => {
                    self.note(pointer, message, Some("take it out, or leave it for machines with cgroup v1"))
                }
                false => {
                    let remedy = remedy::of(pointer, message);
                    self.warning(pointer, message, remedy.as_deref());
                }
            }
        }
    }

    /// Names that the spec has not, or has no more.
    fn names(&mut self) {
        let Some(config) = &self.config else { return };
        let (unknown, old) = (fields::unknown(config.tree()), fields::deprecated(config.tree()));
        for unknown in unknown.iter().take(MOST) {
            let shown: String = unknown.name.chars().take(64).collect();
            let remedy = match nearest::nearest(&unknown.name, &unknown.known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "take it out, or put what it says into /annotations".to_string(),
            };
            let message = format!("the spec has no field `{shown}` here: it has no effect");
            self.warning(&unknown.pointer, &message, Some(&remedy));
        }
        for field in old {
            // What has no effect here has been told.
            if self.findings.iter().any(|finding| finding.pointer == field.pointer) {
                continue;
            }
            self.note(field.pointer, "the field is deprecated", Some(field.instead));
        }
    }

    fn push(&mut self, level: Level, pointer: &str, message: &str, remedy: Option<&str>) {
        let pointer = self.config.as_ref().map_or_else(|| pointer.to_string(), |c| c.original(pointer));
        let code = if level == Level::Error { Code::Host } else { Code::Config };
        let finding = Finding {
            level,
            pointer,
            code: code.as_str(),
            message: message.to_string(),
            remedy: remedy.map(str::to_string),
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn error(&mut self, pointer: &str, message: &str, remedy: &str) {
        self.push(Level::Error, pointer, message, Some(remedy));
    }

    fn warning(&mut self, pointer: &str, message: &str, remedy: Option<&str>) {
        self.push(Level::Warning, pointer, message, remedy);
    }

    fn note(&mut self, pointer: &str, message: &str, remedy: Option<&str>) {
        self.push(Level::Note, pointer, message, remedy);
    }

    /// What this user may not look at.
    fn unseen(&mut self, pointer: &str, what: &str) {
        self.note(
            pointer,
            &format!("{what} could not be looked at: permission denied"),
            Some("run the check as the user who will create the container"),
        );
    }

    fn report(mut self) -> Report {
        self.findings.sort_by_key(|finding| finding.level);
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let [errors, warnings, notes] = [Level::Error, Level::Warning, Level::Note].map(count);
        Report { errors, warnings, notes, findings: self.findings }
    }
}

impl Site<'_> {
    /// A path of config.json that may begin at the bundle.
    fn on_machine(&self, path: &Path) -> PathBuf {
        self.bundle.join(path)
    }
}

#[cfg(test)]
mod tests;
