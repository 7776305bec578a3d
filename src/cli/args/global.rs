//! The options before the verb, read by hand: a parser for all verbs is never built.
//! Uses: words.

use std::ffi::OsString;
use std::path::PathBuf;

use rcrun_runtime::{Code, Error, Result};

use super::words::{self, Flag, Given, Options, Words};

/// Where the state of containers lies when `--root` does not say.
pub const DEFAULT_ROOT: &str = "/run/rcrun";

/// What the options before the verb say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// `--root`: the directory that holds the state of containers, where it is given.
    pub root: Option<PathBuf>,
    /// `--log`: where errors and warnings go.
    pub log: Option<LogPlace>,
    /// `--log-format`
    pub log_format: LogFormat,
    /// `--debug`, `--log-level`: how much is told.
    pub log_level: LogLevel,
    /// `--systemd-cgroup`, `--cgroup-manager`: who makes cgroups.
    pub cgroups: Cgroups,
    /// `--rootless`: `Some(true)` asks for it, `None` is `auto`.
    pub rootless: Option<bool>,
    /// `--criu`: what is executed for checkpoint and restore, where it is given.
    pub criu: Option<PathBuf>,
}

/// Who makes the cgroups of containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// rcrun.
    #[default]
    Rcrun,
    /// systemd, as scopes.
    Systemd,
    /// Nobody: containers have none of their own.
    Nobody,
}

/// Where a log goes; crun's spellings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// `PATH`, `file:PATH`
    File(PathBuf),
    /// `journald:ID`: systemd's journal, with this identifier.
    Journal(String),
    /// `syslog:ID`: the machine's system log, with this identifier.
    Syslog(String),
}

impl From<&str> for LogPlace {
    fn from(path: &str) -> LogPlace {
        LogPlace::File(path.into())
    }
}

impl LogPlace {
    fn parse(value: OsString) -> std::result::Result<LogPlace, String> {
        let Some(text) = value.to_str() else { return Ok(LogPlace::File(value.into())) };
        let identifier = |id: &str, place: fn(String) -> LogPlace| match id {
            "" => Err(format!("--log: {text:?} names no identifier: write {text}NAME")),
            id if id.chars().any(|c| c.is_control()) => {
                Err(format!("--log: {text:?}: an identifier has no control characters"))
            }
            id => Ok(place(id.to_string())),
        };
        match text.split_once(':') {
            Some(("file", "")) => Err("--log: \"file:\" names no file".into()),
            Some(("file", path)) => Ok(LogPlace::File(path.into())),
            Some(("journald", id)) => identifier(id, LogPlace::Journal),
            Some(("syslog", id)) => identifier(id, LogPlace::Syslog),
            _ => Ok(LogPlace::File(value.into())),
        }
    }
}

/// How much a log is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What a person should know, too.
    #[default]
    Warning,
    /// All.
    Debug,
}

/// The form of a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time=... level=error msg=...`
    #[default]
    Text,
    /// An object a line.
    Json,
}

impl Default for Globals {
    fn default() -> Self {
        Globals {
            root: None,
            log: None,
            log_format: LogFormat::Text,
            log_level: LogLevel::default(),
            cgroups: Cgroups::default(),
            rootless: None,
            criu: None,
        }
    }
}

/// What follows the global options.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    /// A verb and its words.
    Verb(String, Vec<OsString>),
    /// `--version`
    Version,
    /// `--help`, or nothing at all.
    Help,
}

/// All of them.
pub const FLAGS: &[Flag<'static>] = &[
    // The letters are youki's.
    Flag { long: "root", short: Some('r'), valued: true },
    Flag { long: "log", short: Some('l'), valued: true },
    Flag { long: "log-format", short: None, valued: true },
    Flag { long: "rootless", short: None, valued: true },
    Flag { long: "log-level", short: None, valued: true },
    Flag { long: "cgroup-manager", short: None, valued: true },
    Flag { long: "criu", short: None, valued: true },
    Flag { long: "debug", short: None, valued: false },
    // youki's word for its journal.
    Flag { long: "systemd-log", short: None, valued: false },
    Flag { long: "systemd-cgroup", short: Some('s'), valued: false },
    Flag { long: "version", short: Some('v'), valued: false },
    Flag { long: "version", short: Some('V'), valued: false },
];

/// `word` names a global option: it is told where it belongs when it stands elsewhere.
pub fn is_global(word: &str) -> bool {
    FLAGS.iter().any(|f| f.long == word.trim_start_matches('-') && f.long != "version")
}

/// Reads the global options. They are told also when what follows is wrong: `--log` says where to.
pub fn scan(words: Vec<OsString>) -> (Globals, Result<Rest>) {
    let mut globals = Globals::default();
    let mut read = Words::default();
    let result = words::read(FLAGS, Options::BeforeFirstWord, words, &mut read);
    let rest = resolve(&mut globals, read, result);
    (globals, rest)
}

fn resolve(globals: &mut Globals, read: Words, result: Result<()>) -> Result<Rest> {
    let (mut version, mut journal) = (false, false);
    let mut wrong = None;
    for given in read.given {
        match given {
            Given::Value(name, value) => match name.as_str() {
                "root" if !value.is_empty() => globals.root = Some(value.into()),
                "log" if !value.is_empty() => match LogPlace::parse(value) {
                    Ok(place) => globals.log = Some(place),
                    Err(text) => wrong = Some(text),
                },
                "criu" if !value.is_empty() => globals.criu = Some(value.into()),
                // As in Go, an empty value is none.
                "root" | "log" | "criu" => {}
                "log-level" => match value.to_str().map(str::to_ascii_lowercase).as_deref() {
                    Some("error") => globals.log_level = LogLevel::Error,
                    // crun has one word for it, youki another, and one between it and `debug`.
                    Some("warning" | "warn" | "info") => globals.log_level = LogLevel::Warning,
                    Some("debug" | "trace") => globals.log_level = LogLevel::Debug,
                    _ => {
                        let text = "is none of error, warning, info, debug, trace";
                        wrong = Some(format!("--log-level: {value:?} {text}"));
                    }
                },
                "cgroup-manager" => match value.to_str() {
                    Some("cgroupfs") => globals.cgroups = Cgroups::Rcrun,
                    Some("systemd") => globals.cgroups = Cgroups::Systemd,
                    Some("disabled") => globals.cgroups = Cgroups::Nobody,
                    _ => {
                        let text = "is none of cgroupfs, systemd, disabled";
                        wrong = Some(format!("--cgroup-manager: {value:?} {text}"));
                    }
                },
                "log-format" => match value.to_str() {
                    Some("text") | Some("") => globals.log_format = LogFormat::Text,
                    Some("json") => globals.log_format = LogFormat::Json,
                    _ => wrong = Some(format!("--log-format: {value:?} is neither text nor json")),
                },
                _ => match (value.to_str(), words::boolean(&value)) {
                    (Some("auto" | ""), _) => globals.rootless = None,
                    (_, Some(on)) => globals.rootless = Some(on),
                    _ => wrong = Some(format!("--rootless: {value:?} is not true, false or auto")),
                },
            },
            Given::Switch(name, on) => match name.as_str() {
                "debug" => globals.log_level = if on { LogLevel::Debug } else { LogLevel::default() },
                "systemd-log" => journal = on,
                "systemd-cgroup" => globals.cgroups = if on { Cgroups::Systemd } else { Cgroups::Rcrun },
                _ => version = on,
            },
        }
    }
    if journal && globals.log.is_none() {
        globals.log = Some(LogPlace::Journal("rcrun".into()));
    } else if journal {
        let text = "--systemd-log, --log: a log goes to one place; `--log journald:rcrun` is what --systemd-log means";
        wrong = wrong.or(Some(text.into()));
    }
    result?;
    if let Some(wrong) = wrong {
        return Err(Error::new(Code::Usage, wrong));
    }
    if read.help {
        return Ok(Rest::Help);
    }
    if version {
        return Ok(Rest::Version);
    }
    let mut plain = read.plain;
    let Some(verb) = plain.pop_front() else { return Ok(Rest::Help) };
    let verb = verb.into_string().map_err(|verb| super::flags::unknown(&verb.to_string_lossy()))?;
    Ok(Rest::Verb(verb, plain.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: &str) -> (Globals, Result<Rest>) {
        scan(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn global_options_are_read_in_every_spelling() {
        let root = |root: &str| Globals { root: Some(root.into()), ..Globals::default() };
        let debug = Globals { log_level: LogLevel::Debug, ..Globals::default() };
        let log = Globals { log: Some("L".into()), log_format: LogFormat::Json, ..Globals::default() };
        let systemd = Globals { cgroups: Cgroups::Systemd, ..Globals::default() };
        let nobody = Globals { cgroups: Cgroups::Nobody, ..Globals::default() };
        let log_to = |place| Globals { log: Some(place), ..Globals::default() };
        let only_errors = Globals { log_level: LogLevel::Error, ..Globals::default() };
        let criu = |file: &str| Globals { criu: Some(file.into()), ..Globals::default() };
        let rootless = |rootless| Globals { rootless, ..Globals::default() };
        for (text, expected) in [
            ("", Globals::default()),
            ("--root R", root("R")),
            ("--root=R", root("R")),
            ("-root R", root("R")),
            ("-root=R", root("R")),
            ("--root A --root B", root("B")),
            ("--root=", Globals::default()),
            ("--debug", debug.clone()),
            ("-debug", debug.clone()),
            ("--debug=false", Globals::default()),
            ("--log-level=debug", debug.clone()),
            ("--log-level warning", Globals::default()),
            ("--log-level info", Globals::default()),
            ("--log-level WARN", Globals::default()),
            ("--log-level=trace", debug.clone()),
            ("-r R", root("R")),
            ("-rR", root("R")),
            ("-l L --log-format json", log.clone()),
            ("-s", systemd.clone()),
            ("-sr R", Globals { root: Some("R".into()), ..systemd.clone() }),
            ("--log-level error", only_errors),
            ("--log file:/l", log_to("/l".into())),
            ("--log journald:web", log_to(LogPlace::Journal("web".into()))),
            ("--systemd-log", log_to(LogPlace::Journal("rcrun".into()))),
            ("--systemd-log=false --log L --log-format json", log.clone()),
            ("--log=syslog:a:b", log_to(LogPlace::Syslog("a:b".into()))),
            ("--log other:l", log_to("other:l".into())),
            ("--cgroup-manager systemd", systemd.clone()),
            ("--systemd-cgroup --cgroup-manager=cgroupfs", Globals::default()),
            ("--cgroup-manager=disabled", nobody),
            ("--cgroup-manager=disabled --systemd-cgroup", systemd.clone()),
            ("--criu /usr/sbin/criu", criu("/usr/sbin/criu")),
            ("-criu=criu-4", criu("criu-4")),
            ("--criu=", Globals::default()),
            ("--log L --log-format json", log.clone()),
            ("--log-format=json --log=L", log),
            ("--log-format text", Globals::default()),
            ("--systemd-cgroup", systemd.clone()),
            ("--systemd-cgroup=true", systemd),
            ("--systemd-cgroup=false", Globals::default()),
            ("--rootless true", rootless(Some(true))),
            ("--rootless=false", rootless(Some(false))),
            ("--rootless=auto", rootless(None)),
        ] {
            let (globals, rest) = line(&format!("{text} state --root x"));
            assert_eq!(globals, expected, "{text}");
            assert_eq!(
                rest.unwrap(),
                Rest::Verb("state".into(), vec!["--root".into(), "x".into()]),
                "{text}"
            );
        }
    }

    #[test]
    fn no_verb_is_help_and_version_wins_over_the_verb() {
        for (text, expected) in [
            ("", Rest::Help),
            ("--debug", Rest::Help),
            ("--help", Rest::Help),
            ("-h run", Rest::Help),
            ("--version", Rest::Version),
            ("-v", Rest::Version),
            ("-V", Rest::Version),
            ("-?", Rest::Help),
            ("--usage", Rest::Help),
            ("--root R -v", Rest::Version),
            ("-- state", Rest::Verb("state".into(), vec![])),
        ] {
            assert_eq!(line(text).1.unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_global_option_is_one_sentence_and_the_log_is_known_all_the_same() {
        for (text, expected) in [
            ("--log L --foo state", "flag provided but not defined: --foo"),
            ("--log L --root", "flag needs an argument: --root"),
            ("--log-format xml --log L state", "--log-format: \"xml\" is neither text nor json"),
            ("--log L --rootless maybe state", "--rootless: \"maybe\" is not true, false or auto"),
            ("--log L --debug=2 state", "--debug: \"2\" is neither true nor false"),
            (
                "--log L --log journald: state",
                "--log: \"journald:\" names no identifier: write journald:NAME",
            ),
            (
                "--systemd-log --log L state",
                "--systemd-log, --log: a log goes to one place; `--log journald:rcrun` is what --systemd-log means",
            ),
            ("--log L --log file: state", "--log: \"file:\" names no file"),
            (
                "--log L --log-level all state",
                "--log-level: \"all\" is none of error, warning, info, debug, trace",
            ),
            (
                "--log L --cgroup-manager v1 state",
                "--cgroup-manager: \"v1\" is none of cgroupfs, systemd, disabled",
            ),
        ] {
            let (globals, rest) = line(text);
            assert_eq!(rest.unwrap_err().to_string(), expected, "{text}");
            assert_eq!(globals.log, Some("L".into()), "{text}");
        }
    }
}
