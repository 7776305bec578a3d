//! The words of one verb to its resolved arguments. Uses: flags, words, signal.

use std::any::TypeId;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue};
use rcrun_runtime::{Error, Result};

use super::flags::Verb;
use super::words::{self, Flag, Given, Words};
use super::{
    Check, Command, Create, Delete, Events, Exec, Id, Invocation, Kill, List, Mounts, MountsChange, Plan,
    PlanFormat, Process, Ps, Pull, Run, RunImage, Shell, Spec, Start, StartCreated, Table, User, checkpoint,
    global, image, signal, update, usage,
};

/// Reads the words after `verb`.
pub fn resolve(verb: &'static Verb, words: Vec<OsString>) -> Result<Invocation> {
    let command = verb.command();
    let flags: Vec<Flag> = command
        .get_arguments()
        .filter_map(|arg| {
            let valued = arg.get_action().takes_values();
            arg.get_long().map(|long| Flag { long, short: arg.get_short(), valued })
        })
        .collect();
    let mut read = Words::default();
    let again = words.clone();
    words::read(&flags, verb.options, words, &mut read).map_err(|e| advise(verb, e).context(verb.name))?;
    if read.help {
        return Ok(Invocation::Help(Some(verb)));
    }
    let option_follows = read.plain.get(1).is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"));
    if verb.name == "run" && option_follows {
        let Invocation::Run(run) = resolved(verb, verb.command(), read)? else {
            return Err(usage("run: is read as something else"));
        };
        let mut read = Words::default();
        let anywhere = match words::read(&flags, words::Options::Anywhere, again, &mut read) {
            Ok(()) if !read.help => match resolved(verb, verb.command(), read) {
                Ok(Invocation::Run(anywhere)) => Some(Box::new(anywhere)),
                _ => None,
            },
            _ => None,
        };
        return Ok(Invocation::Run(Run { anywhere, ..run }));
    }
    resolved(verb, command, read)
}

fn resolved(verb: &'static Verb, command: clap::Command, read: Words) -> Result<Invocation> {
    utf8(&command, &read.given).map_err(|e| e.context(verb.name))?;
    let options = canonical(&read.given);
    let matches = command.try_get_matches_from(options).map_err(|e| sentence(&e).context(verb.name))?;
    invocation(verb, Matches(matches), Plain { verb, words: read.plain }).map_err(|e| e.context(verb.name))
}

/// The options in the one spelling that clap reads. Of a switch the last word counts.
fn canonical(given: &[Given]) -> Vec<OsString> {
    let mut words = Vec::with_capacity(given.len());
    for (i, given_here) in given.iter().enumerate() {
        match given_here {
            Given::Value(name, value) => {
                let mut word = OsString::from(format!("--{name}="));
                word.push(value);
                words.push(word);
            }
            Given::Switch(name, on) => {
                let again = given[i + 1..].iter().any(|g| matches!(g, Given::Switch(n, _) if n == name));
                if *on && !again {
                    words.push(format!("--{name}").into());
                }
            }
        }
    }
    words
}

/// Says of an option that the verb does not have what to do in its place.
fn advise(verb: &Verb, error: Error) -> Error {
    let text = error.to_string();
    if !text.starts_with("flag provided") {
        return error;
    }
    let verb = verb.name;
    usage(match text.rsplit(' ').next().unwrap_or_default() {
        word if global::is_global(word) => {
            format!("{text} (a global option stands before the command: rcrun {word} ... {verb})")
        }
        "-p" | "--publish" if verb == "run" => {
            format!("{text} (rcrun makes no networks: --net host has the machine's)")
        }
        _ => format!("{text} (`rcrun help {verb}` lists the options)"),
    })
}

/// clap's error, which is several lines for a person, as one sentence for a log.
fn sentence(error: &clap::Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let Some(option) = text(ContextKind::InvalidArg) else {
        return usage(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
    };
    let option = option.split(' ').next().unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    if let Some(choices) = text(ContextKind::ValidValue) {
        return usage(format!("{option}: {value:?} is not one of {choices}"));
    }
    let why = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
    usage(format!("{option}: {value:?}{why}"))
}

/// Names the option whose value is not UTF-8 and has to be: clap's error does not.
fn utf8(command: &clap::Command, given: &[Given]) -> Result<()> {
    for option in given {
        let Given::Value(name, value) = option else { continue };
        let takes_bytes = command.get_arguments().any(|arg| {
            arg.get_long() == Some(name) && arg.get_value_parser().type_id() == TypeId::of::<OsString>()
        });
        if value.to_str().is_none() && !takes_bytes {
            return Err(usage(format!("--{name}: {value:?} is not UTF-8")));
        }
    }
    Ok(())
}

fn invocation(verb: &Verb, options: Matches, mut plain: Plain) -> Result<Invocation> {
    let invocation = match verb.name {
        "run" => Invocation::Run(Run {
            what: plain.word("an image, a bundle or a container id")?,
            command: plain.all(),
            // With a config of one's own the argument is the id, as with a bundle's folder.
            bundle: options.path("bundle").or_else(|| options.path("config").map(|_| here())),
            detach: options.on("detach"),
            keep: options.on("keep"),
            rm: options.on("rm"),
            name: options.word("name"),
            image: Box::new(run_image(&options)),
            anywhere: None,
            no_subreaper: options.on("no-subreaper"),
            start: options.start(),
        }),
        "create" => Invocation::Create(Create {
            id: plain.id()?,
            bundle: options.path("bundle").unwrap_or_else(here),
            start: options.start(),
        }),
        "start" => Invocation::Start(StartCreated { id: plain.id()?, timings: options.on("timings") }),
        "state" => Invocation::State(Id { id: plain.id()? }),
        "pause" => Invocation::Pause(Id { id: plain.id()? }),
        "resume" => Invocation::Resume(Id { id: plain.id()? }),
        "kill" => Invocation::Kill(Kill {
            id: plain.id()?,
            signal: match plain.words.pop_front() {
                Some(word) => signal::parse(&word.to_string_lossy())?,
                None => libc::SIGTERM,
            },
            all: options.on("all"),
            regex: options.on("regex"),
        }),
        "delete" => Invocation::Delete(Delete {
            id: plain.id()?,
            force: options.on("force"),
            regex: options.on("regex"),
            store: options.path("store").unwrap_or_else(image::default_store),
        }),
        "exec" => Invocation::Exec(exec(&options, &mut plain)?),
        "list" => Invocation::List(List { format: options.table(), quiet: options.on("quiet") }),
        "ps" => Invocation::Ps(Ps { id: plain.id()?, format: options.table(), args: plain.command() }),
        "update" => Invocation::Update(update::resolved(plain.id()?, &options)?),
        "mounts" => Invocation::Mounts(mounts(&mut plain)?),
        "events" => Invocation::Events(Events {
            id: plain.id()?,
            interval: match options.word("interval") {
                Some(word) => duration(&word)?,
                None => Duration::from_secs(5),
            },
            stats: options.on("stats"),
        }),
        "spec" => Invocation::Spec(Spec {
            bundle: options.path("bundle").unwrap_or_else(here),
            file: options.path("file").unwrap_or_else(|| PathBuf::from("config.json")),
            rootless: options.on("rootless"),
        }),
        "checkpoint" => {
            Invocation::Checkpoint(Box::new(checkpoint::checkpoint_resolved(plain.id()?, &options)?))
        }
        "restore" => Invocation::Restore(Box::new(checkpoint::restore_resolved(plain.id()?, &options)?)),
        "features" => Invocation::Features,
        "doctor" => Invocation::Doctor(options.table()),
        "info" => Invocation::Info,
        "completion" => {
            let word = options.word("shell");
            let named = Shell::ALL.iter().find(|(name, _)| word.as_deref() == Some(name));
            let (_, shell) =
                named.ok_or_else(|| plain.missing("--shell bash, zsh, fish, elvish or powershell"))?;
            Invocation::Completion(*shell)
        }
        "check" => Invocation::Check(Check {
            bundle: one_bundle(&options, &mut plain)?,
            format: options.plan_format(),
        }),
        name if name.starts_with("image ") => return image::resolved(verb, &options, &mut plain),
        _ => Invocation::Plan(plan(&options, &mut plain)?),
    };
    plain.end()?;
    Ok(invocation)
}

fn mounts(plain: &mut Plain) -> Result<Mounts> {
    let word = plain.word("add or remove")?;
    let change = match word.to_str() {
        Some("add") => MountsChange::Add,
        Some("remove") => MountsChange::Remove,
        _ => return Err(usage(format!("{word:?} is neither add nor remove"))),
    };
    Ok(Mounts {
        change,
        id: plain.id()?,
        file: plain.word("a file with a list of mounts (-: standard input)")?.into(),
    })
}

fn run_image(options: &Matches) -> RunImage {
    RunImage {
        store: options.path("store").unwrap_or_else(image::default_store),
        pull: match options.word("pull").as_deref() {
            Some("always") => Pull::Always,
            Some("missing") => Pull::Missing,
            _ => Pull::Never,
        },
        platform: options.word("platform"),
        interactive: options.on("interactive"),
        tty: options.on("tty"),
        env: options.all("env"),
        env_files: options.all::<OsString>("env-file").into_iter().map(PathBuf::from).collect(),
        volumes: options.all("volume"),
        tmpfs: options.all("tmpfs"),
        user: options.word("user"),
        workdir: options.word("workdir"),
        read_only: options.on("read-only"),
        hostname: options.word("hostname"),
        entrypoint: options.0.get_one::<String>("entrypoint").cloned(),
        memory: options.word("memory"),
        cpus: options.word("cpus"),
        pids_limit: options.word("pids-limit"),
        security: options.all("security-opt"),
        net: options.word("network").or_else(|| options.word("net")),
    }
}

fn plan(options: &Matches, plain: &mut Plain) -> Result<Plan> {
    let bundle = one_bundle(options, plain)?;
    let format = options.plan_format();
    Ok(Plan { bundle, process: options.path("process"), format, seccomp_out: options.path("seccomp-out") })
}

/// The argument, or `--bundle`, or else this folder.
fn one_bundle(options: &Matches, plain: &mut Plain) -> Result<PathBuf> {
    match (options.path("bundle"), plain.words.pop_front()) {
        (Some(_), Some(word)) => Err(usage(format!("--bundle names the bundle already: what is {word:?}?"))),
        (bundle, word) => Ok(bundle.or(word.map(PathBuf::from)).unwrap_or_else(here)),
    }
}

fn exec(options: &Matches, plain: &mut Plain) -> Result<Exec> {
    let id = plain.id()?;
    let args = plain.command();
    let command = Command {
        cwd: options.path("cwd"),
        env: options.all("env"),
        tty: options.on("tty"),
        user: options.word("user").map(|user| self::user(&user)).transpose()?,
        additional_gids: options.all("additional-gids"),
        caps: options.all("cap"),
        no_new_privs: options.on("no-new-privs"),
        apparmor: options.word("apparmor"),
        process_label: options.word("process-label"),
        ..Command::default()
    };
    let process = match options.path("process") {
        Some(file) => {
            // conmon says --tty beside a file with `"terminal": true`. The file decides, as with runc.
            if !args.is_empty() || (Command { tty: false, ..command }) != Command::default() {
                return Err(usage(
                    "--process says all about the process: no command and no option that describes one may stand beside it",
                ));
            }
            Process::File(file)
        }
        None if args.is_empty() => return Err(plain.missing("a command (or --process FILE)")),
        None => Process::Command(Box::new(Command { args, ..command })),
    };
    Ok(Exec {
        id,
        process,
        detach: options.on("detach"),
        console_socket: options.path("console-socket"),
        pidfd_socket: options.path("pidfd-socket"),
        pid_file: options.path("pid-file"),
        preserve_fds: options.number("preserve-fds"),
        cgroup: cgroup(options.all("cgroup"))?,
        ignore_paused: options.on("ignore-paused"),
        timings: options.on("timings"),
    })
}

/// runc's `[CONTROLLER:]PATH`, repeated, is of cgroup v1; v2 has one hierarchy, and one path.
fn cgroup(paths: Vec<String>) -> Result<Option<PathBuf>> {
    match paths.as_slice() {
        [] => Ok(None),
        [path] if path.contains(':') => Err(usage(format!(
            "--cgroup: {path:?}: cgroup v2 has no controllers with paths of their own: give the path alone"
        ))),
        [path] => Ok(Some(path.into())),
        _ => Err(usage("--cgroup: cgroup v2 has one path for all controllers: give the option once")),
    }
}

fn user(word: &str) -> Result<User> {
    let (uid, gid) = match word.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (word, None),
    };
    let number = |text: &str, what: &str| {
        // 2^32-1 is the kernel's "no id".
        text.parse::<u32>().ok().filter(|id| *id != u32::MAX && !text.starts_with('+')).ok_or_else(|| {
            usage(format!("--user: {text:?} is no {what} number (UID[:GID]; names are not looked up)"))
        })
    };
    Ok(User { uid: number(uid, "user")?, gid: gid.map(|gid| number(gid, "group")).transpose()? })
}

/// Go's durations: `5s`, `1m30s`, `1.5h`.
fn duration(word: &str) -> Result<Duration> {
    let wrong = || usage(format!("--interval: {word:?} is no time such as 5s or 500ms"));
    let mut nanoseconds = 0.0;
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = &rest[end..];
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len())];
        nanoseconds += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(wrong()),
            };
        rest = &rest[end + unit.len()..];
    }
    match Duration::try_from_secs_f64(nanoseconds / 1e9) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(usage("--interval: duration interval must be greater than 0")),
    }
}

pub(super) fn here() -> PathBuf {
    PathBuf::from(".")
}

/// The options of a verb, by name.
pub(super) struct Matches(ArgMatches);

impl Matches {
    pub(super) fn on(&self, name: &str) -> bool {
        self.0.get_flag(name)
    }

    /// As in Go, an empty path is none.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get_one::<OsString>(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    pub(super) fn word(&self, name: &str) -> Option<String> {
        self.0.get_one::<String>(name).filter(|value| !value.is_empty()).cloned()
    }

    pub(super) fn number(&self, name: &str) -> u32 {
        self.0.get_one::<u32>(name).copied().unwrap_or_default()
    }

    pub(super) fn all<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Vec<T> {
        self.0.get_many::<T>(name).unwrap_or_default().cloned().collect()
    }

    pub(super) fn table(&self) -> Table {
        match self.word("format").as_deref() {
            Some("json") => Table::Json,
            _ => Table::Table,
        }
    }

    fn plan_format(&self) -> PlanFormat {
        match self.word("format").as_deref() {
            Some("json") => PlanFormat::Json,
            _ => PlanFormat::Text,
        }
    }

    pub(super) fn start(&self) -> Start {
        Start {
            config: self.path("config"),
            console_socket: self.path("console-socket"),
            pidfd_socket: self.path("pidfd-socket"),
            pid_file: self.path("pid-file"),
            no_pivot: self.on("no-pivot"),
            no_new_keyring: self.on("no-new-keyring"),
            preserve_fds: self.number("preserve-fds"),
            timings: self.on("timings"),
        }
    }
}

/// The words of a verb that are no options.
pub(super) struct Plain<'a> {
    verb: &'a Verb,
    words: VecDeque<OsString>,
}

impl Plain<'_> {
    pub(super) fn word(&mut self, what: &str) -> Result<OsString> {
        self.words.pop_front().ok_or_else(|| self.missing(what))
    }

    pub(super) fn optional(&mut self) -> Option<OsString> {
        self.words.pop_front()
    }

    pub(super) fn id(&mut self) -> Result<String> {
        let word = self.word("a container id")?;
        word.into_string().map_err(|word| usage(format!("the container id {word:?} is not UTF-8")))
    }

    pub(super) fn all(&mut self) -> Vec<OsString> {
        self.words.drain(..).collect()
    }

    /// What follows the id, without the `--` that people put between a container and its command.
    pub(super) fn command(&mut self) -> Vec<OsString> {
        if self.words.front().is_some_and(|word| word == "--") {
            self.words.pop_front();
        }
        self.all()
    }

    pub(super) fn missing(&self, what: &str) -> Error {
        let called = format!("rcrun {} {}", self.verb.name, self.verb.takes);
        usage(format!("an argument is missing: {what} (usage: {})", called.trim_end()))
    }

    pub(super) fn end(&self) -> Result<()> {
        match self.words.front() {
            Some(word) => Err(usage(
                format!(
                    "one argument too many: {word:?} (usage: rcrun {} {})",
                    self.verb.name, self.verb.takes
                )
                .replace(" )", ")"),
            )),
            None => Ok(()),
        }
    }
}
