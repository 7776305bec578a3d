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
    /// `--log`: the file that errors and warnings are appended to.
    pub log: Option<PathBuf>,
    /// `--log-format`
    pub log_format: LogFormat,
    /// `--debug`: tell more in the log.
    pub debug: bool,
    /// `--systemd-cgroup`: cgroups are made by systemd.
    pub systemd_cgroup: bool,
    /// `--rootless`: `Some(true)` asks for it, `None` is `auto`.
    pub rootless: Option<bool>,
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
            debug: false,
            systemd_cgroup: false,
            rootless: None,
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
    Flag { long: "root", short: None, valued: true },
    Flag { long: "log", short: None, valued: true },
    Flag { long: "log-format", short: None, valued: true },
    Flag { long: "rootless", short: None, valued: true },
    Flag { long: "debug", short: None, valued: false },
    Flag { long: "systemd-cgroup", short: None, valued: false },
    Flag { long: "version", short: Some('v'), valued: false },
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
    let mut version = false;
    let mut wrong = None;
    for given in read.given {
        match given {
            Given::Value(name, value) => match name.as_str() {
                "root" if !value.is_empty() => globals.root = Some(value.into()),
                "log" if !value.is_empty() => globals.log = Some(value.into()),
                // As in Go, an empty value is none.
                "root" | "log" => {}
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
                "debug" => globals.debug = on,
                "systemd-cgroup" => globals.systemd_cgroup = on,
                _ => version = on,
            },
        }
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
        let debug = Globals { debug: true, ..Globals::default() };
        let log = Globals { log: Some("L".into()), log_format: LogFormat::Json, ..Globals::default() };
        let systemd = Globals { systemd_cgroup: true, ..Globals::default() };
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
            ("-debug", debug),
            ("--debug=false", Globals::default()),
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
        ] {
            let (globals, rest) = line(text);
            assert_eq!(rest.unwrap_err().to_string(), expected, "{text}");
            assert_eq!(globals.log, Some("L".into()), "{text}");
        }
    }
}
