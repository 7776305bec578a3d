//! Raw arguments to resolved arguments: what each verb was asked to do, in types. Nothing here looks
//! at the machine. Uses: clap (through `flags`), the errors of rcrun-runtime.

pub mod checkpoint;
pub mod flags;
pub mod global;
pub mod image;
pub mod resolve;
pub mod signal;
pub mod update;
pub mod words;

#[cfg(test)]
mod engines;
#[cfg(test)]
mod others;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rcrun_runtime::{Code, Error, Result};

pub use global::{Cgroups, Globals, LogFormat, LogLevel, LogPlace};
pub use image::{Commit, Image, ImageVerb, OfContainer};

/// What rcrun was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `rcrun run`
    Run(Run),
    /// `rcrun create`
    Create(Create),
    /// `rcrun start`
    Start(StartCreated),
    /// `rcrun state`
    State(Id),
    /// `rcrun kill`
    Kill(Kill),
    /// `rcrun delete`
    Delete(Delete),
    /// `rcrun exec`
    Exec(Exec),
    /// `rcrun list`
    List(List),
    /// `rcrun ps`
    Ps(Ps),
    /// `rcrun pause`
    Pause(Id),
    /// `rcrun resume`
    Resume(Id),
    /// `rcrun update`
    Update(update::Update),
    /// `rcrun mounts`
    Mounts(Mounts),
    /// `rcrun events`
    Events(Events),
    /// `rcrun spec`
    Spec(Spec),
    /// `rcrun features`
    Features,
    /// `rcrun doctor`
    Doctor(Table),
    /// `rcrun info`
    Info,
    /// `rcrun completion`
    Completion(Shell),
    /// `rcrun checkpoint`
    Checkpoint(Box<checkpoint::Checkpoint>),
    /// `rcrun restore`
    Restore(Box<checkpoint::Restore>),
    /// `rcrun plan`
    Plan(Plan),
    /// `rcrun check`
    Check(Check),
    /// `rcrun image`
    Image(Image),
    /// `rcrun image diff`, `rcrun image commit`
    OfContainer(OfContainer),
    /// `rcrun help`, or the help of a verb.
    Help(Option<&'static flags::Verb>),
    /// `rcrun --version`
    Version,
}

impl Invocation {
    /// It concerns containers, whose state lies below `--root`.
    pub fn has_state(&self) -> bool {
        use Invocation::*;
        !matches!(
            self,
            Spec(_)
                | Features
                | Doctor(_)
                | Info
                | Completion(_)
                | Plan(_)
                | Check(_)
                | Image(_)
                | Help(_)
                | Version
        )
    }
}

/// `rcrun completion`: what asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// elvish
    Elvish,
    /// PowerShell
    Powershell,
}

impl Shell {
    /// All of them, as `--shell` names them.
    pub const ALL: [(&str, Shell); 5] = [
        ("bash", Shell::Bash),
        ("zsh", Shell::Zsh),
        ("fish", Shell::Fish),
        ("elvish", Shell::Elvish),
        ("powershell", Shell::Powershell),
    ];
}

/// A verb that only takes a container. The id is checked by the runtime, which owns its rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Id {
    /// The container.
    pub id: String,
}

/// `rcrun start`
#[derive(Debug, PartialEq, Eq)]
pub struct StartCreated {
    /// The container.
    pub id: String,
    /// `--timings`
    pub timings: bool,
}

/// What `create` and `run` have in common. Paths are as given: relative to the working directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// `--config`: the file in the place of the bundle's config.json.
    pub config: Option<PathBuf>,
    /// `--console-socket`: where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket`: where a pidfd of the container's first process is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// `--pid-file`: where the pid of the container's first process is written.
    pub pid_file: Option<PathBuf>,
    /// `--no-pivot`: chroot into the root file system where pivot_root is refused (a ramdisk).
    pub no_pivot: bool,
    /// `--no-new-keyring`: the container keeps the caller's session keyring.
    pub no_new_keyring: bool,
    /// `--preserve-fds`: how many descriptors after those of LISTEN_FDS the container inherits.
    pub preserve_fds: u32,
    /// `--timings`: tell where the start spent its time.
    pub timings: bool,
}

/// `rcrun create`
#[derive(Debug, PartialEq, Eq)]
pub struct Create {
    /// The container.
    pub id: String,
    /// `--bundle`: the folder with config.json.
    pub bundle: PathBuf,
    /// The rest.
    pub start: Start,
}

/// `rcrun run`. What its argument names is found out by `crate::target`.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// The argument: an id, a bundle, an image.
    pub what: OsString,
    /// What follows it: a command for an image, wrong for anything else.
    pub command: Vec<OsString>,
    /// `--bundle`: the folder with config.json; the argument is then the id.
    pub bundle: Option<PathBuf>,
    /// `--detach`: return when the container runs.
    pub detach: bool,
    /// `--keep`: do not delete the container when it has ended.
    pub keep: bool,
    /// `--rm`: delete it when it has ended; so it is without `--detach` and `--keep`.
    pub rm: bool,
    /// `--name`: the id.
    pub name: Option<String>,
    /// What is for images only.
    pub image: Box<RunImage>,
    /// What the line says if options may also follow the argument, as they may where that is no image.
    pub anywhere: Option<Box<Run>>,
    /// `--no-subreaper`: do not adopt the orphans of the container's processes.
    pub no_subreaper: bool,
    /// The rest.
    pub start: Start,
}

/// What `run` says to an image. The words are read by rcrun-image, which owns their rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunImage {
    /// `--store`
    pub store: PathBuf,
    /// `--pull`
    pub pull: Pull,
    /// `--platform`
    pub platform: Option<String>,
    /// `--interactive`
    pub interactive: bool,
    /// `--tty`
    pub tty: bool,
    /// `--env`, in their order.
    pub env: Vec<String>,
    /// `--env-file`
    pub env_files: Vec<PathBuf>,
    /// `--volume`
    pub volumes: Vec<String>,
    /// `--tmpfs`
    pub tmpfs: Vec<String>,
    /// `--user`
    pub user: Option<String>,
    /// `--workdir`
    pub workdir: Option<String>,
    /// `--read-only`
    pub read_only: bool,
    /// `--hostname`
    pub hostname: Option<String>,
    /// `--entrypoint`; an empty one is not none.
    pub entrypoint: Option<String>,
    /// `--memory`
    pub memory: Option<String>,
    /// `--cpus`
    pub cpus: Option<String>,
    /// `--pids-limit`
    pub pids_limit: Option<String>,
    /// `--security-opt`
    pub security: Vec<String>,
    /// `--net`, `--network`
    pub net: Option<String>,
}

/// When `run` asks the registry for its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Never.
    Never,
    /// When the store has none of that name.
    Missing,
    /// Each time, for what the name means now.
    Always,
}

impl Default for RunImage {
    fn default() -> Self {
        RunImage {
            store: image::default_store(),
            pull: Pull::Never,
            platform: None,
            interactive: false,
            tty: false,
            env: Vec::new(),
            env_files: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            user: None,
            workdir: None,
            read_only: false,
            hostname: None,
            entrypoint: None,
            memory: None,
            cpus: None,
            pids_limit: None,
            security: Vec::new(),
            net: None,
        }
    }
}

/// `rcrun kill`
#[derive(Debug, PartialEq, Eq)]
pub struct Kill {
    /// The container.
    pub id: String,
    /// The signal's number.
    pub signal: i32,
    /// `--all`: every process of the container; that it runs no more is no failure then.
    pub all: bool,
    /// `--regex`: the id is a pattern, and every container whose id it matches is meant.
    pub regex: bool,
}

/// `rcrun delete`
#[derive(Debug, PartialEq, Eq)]
pub struct Delete {
    /// The container.
    pub id: String,
    /// `--force`: kill it first; that it is not there is no failure.
    pub force: bool,
    /// `--regex`: the id is a pattern, and every container whose id it matches is meant.
    pub regex: bool,
    /// `--store`: where it may have left something if it was an image's.
    pub store: PathBuf,
}

/// `rcrun exec`
#[derive(Debug, PartialEq, Eq)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// What is executed.
    pub process: Process,
    /// `--detach`: return when the process runs.
    pub detach: bool,
    /// `--console-socket`: where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket`: where a pidfd of the process is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// `--pid-file`: where the pid of the process is written.
    pub pid_file: Option<PathBuf>,
    /// `--preserve-fds`: how many descriptors after those of LISTEN_FDS the process inherits.
    pub preserve_fds: u32,
    /// `--cgroup`: a cgroup below the container's.
    pub cgroup: Option<PathBuf>,
    /// `--ignore-paused`: also in a paused container.
    pub ignore_paused: bool,
    /// `--timings`: tell where the start spent its time.
    pub timings: bool,
}

/// The process of an `exec`.
#[derive(Debug, PartialEq, Eq)]
pub enum Process {
    /// `--process`: a file with the spec's `process` object, which says everything.
    File(PathBuf),
    /// A command, with changes to what the container's config.json says.
    Command(Box<Command>),
}

/// A command for `exec`; what is not given is as in the container's config.json.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The command and its arguments, at least one.
    pub args: Vec<OsString>,
    /// `--cwd`
    pub cwd: Option<PathBuf>,
    /// `--env`, in their order.
    pub env: Vec<OsString>,
    /// `--tty`
    pub tty: bool,
    /// `--user`
    pub user: Option<User>,
    /// `--additional-gids`
    pub additional_gids: Vec<u32>,
    /// `--cap`: capabilities added to the container's.
    pub caps: Vec<String>,
    /// `--no-new-privs`
    pub no_new_privs: bool,
    /// `--apparmor`
    pub apparmor: Option<String>,
    /// `--process-label`
    pub process_label: Option<String>,
}

/// `--user UID[:GID]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group, where given.
    pub gid: Option<u32>,
}

/// How `list` and `ps` print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Columns for people.
    #[default]
    Table,
    /// For tools.
    Json,
}

/// `rcrun list`
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// `--format`
    pub format: Table,
    /// `--quiet`: ids only.
    pub quiet: bool,
}

/// `rcrun ps`
#[derive(Debug, PartialEq, Eq)]
pub struct Ps {
    /// The container.
    pub id: String,
    /// `--format`
    pub format: Table,
    /// Arguments for ps(1).
    pub args: Vec<OsString>,
}

/// `rcrun events`
#[derive(Debug, PartialEq, Eq)]
pub struct Events {
    /// The container.
    pub id: String,
    /// `--interval`: the time between two statistics.
    pub interval: Duration,
    /// `--stats`: statistics once, and no more.
    pub stats: bool,
}

/// `rcrun mounts`
#[derive(Debug, PartialEq, Eq)]
pub struct Mounts {
    /// What is done with them.
    pub change: MountsChange,
    /// The container.
    pub id: String,
    /// A list of mounts as in config.json; `-` is standard input.
    pub file: PathBuf,
}

/// `rcrun mounts add`, `rcrun mounts remove`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountsChange {
    /// Mount them.
    Add,
    /// Take them away.
    Remove,
}

/// `rcrun spec`
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// `--bundle`: the folder where config.json is written.
    pub bundle: PathBuf,
    /// `--file`: its name there.
    pub file: PathBuf,
    /// `--rootless`: for a user other than root.
    pub rootless: bool,
}

/// `rcrun plan`
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The folder with config.json.
    pub bundle: PathBuf,
    /// `--process`: a file with a `process` object: the plan of an `exec` of it.
    pub process: Option<PathBuf>,
    /// `--format`
    pub format: PlanFormat,
    /// `--seccomp-out`: write the filter to this file, and print no plan.
    pub seccomp_out: Option<PathBuf>,
}

/// `rcrun check`
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// The folder with config.json.
    pub bundle: PathBuf,
    /// `--format`
    pub format: PlanFormat,
}

/// How `plan` and `check` print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanFormat {
    /// For people.
    #[default]
    Text,
    /// For tools.
    Json,
}

/// Reads a command line without its first word. The global options are told also when the rest is
/// wrong: they say where the error goes.
pub fn parse(words: Vec<OsString>) -> (Globals, Result<Invocation>) {
    let (globals, rest) = global::scan(words);
    let invocation = rest.and_then(|rest| match rest {
        global::Rest::Help => Ok(Invocation::Help(None)),
        global::Rest::Version => Ok(Invocation::Version),
        global::Rest::Verb(name, words) => verb(&name, words),
    });
    (globals, invocation)
}

fn verb(name: &str, words: Vec<OsString>) -> Result<Invocation> {
    if name == "help" {
        let Some(word) = words.first() else { return Ok(Invocation::Help(None)) };
        if let (true, Some(word)) = (word == "image", words.get(1)) {
            return image::find(&word.to_string_lossy()).map(|verb| Invocation::Help(Some(verb)));
        }
        return flags::find(&word.to_string_lossy()).map(|verb| Invocation::Help(Some(verb)));
    }
    if name == "image" {
        return image::verb(words);
    }
    resolve::resolve(flags::find(name)?, words)
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Code::Usage, message)
}
