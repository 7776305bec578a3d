//! The verbs and their options: the table that the parser and the help are made from. A verb's parser
//! is built when the verb was given, and no other. Uses: clap.

use clap::builder::{OsStringValueParser, PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, Command, value_parser};
use rcrun_runtime::{Code, Error, Result};

use super::words::Options;
use super::{Shell, checkpoint, update};

/// A verb.
#[derive(Debug)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it takes besides options.
    pub takes: &'static str,
    /// Where its options end.
    pub options: Options,
    /// What its help adds: how to use it, with examples.
    pub more: &'static str,
    /// Its options.
    pub(super) flags: fn() -> Vec<Arg>,
}

impl PartialEq for Verb {
    fn eq(&self, other: &Verb) -> bool {
        self.name == other.name
    }
}

impl Eq for Verb {}

impl Verb {
    /// The parser of this verb.
    pub fn command(&self) -> Command {
        Command::new(self.name)
            .about(self.about)
            .override_usage(format!("rcrun {} [OPTIONS] {}", self.name, self.takes))
            .no_binary_name(true)
            .disable_help_flag(true)
            .disable_version_flag(true)
            .args_override_self(true)
            .args((self.flags)())
            .after_help(self.more)
            .help_template("{about}\n\nUsage: {usage}\n\nOptions:\n{options}\n\n{after-help}")
    }
}

/// Finds a verb.
pub fn find(name: &str) -> Result<&'static Verb> {
    VERBS.iter().find(|v| v.name == name).ok_or_else(|| unknown(name))
}

/// What is no verb, in runc's words.
pub fn unknown(name: &str) -> Error {
    let advice = match name {
        "stop" => "`rcrun kill` ends a container, with TERM where no other signal is named",
        "rm" => "`rcrun delete` deletes a container",
        "top" => "`rcrun ps` prints a container's processes",
        "stats" => "`rcrun events --stats` prints what a container uses",
        "logs" => "what a container says goes to who has started it",
        "images" => "`rcrun image list` lists the images",
        "rmi" => "`rcrun image remove` removes an image",
        "pull" | "push" | "load" | "save" | "tag" | "history" | "commit" | "diff" | "prune" => {
            "`rcrun image` has the commands for images"
        }
        "build" => "rcrun builds no images: Docker, podman and buildah do, and take rcrun as their runtime",
        _ => "`rcrun help` lists the commands",
    };
    Error::new(Code::Usage, format!("No help topic for '{}': {advice}", name.escape_debug()))
}

/// The verbs in the order in which people meet them.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "run",
        about: "Create a container, start it, wait for its end and delete it",
        takes: "IMAGE|BUNDLE|ID [COMMAND [ARG...]]",
        options: Options::BeforeFirstWord,
        more: "\
How the argument is read: with --bundle it is the id of the new container. Else a folder that holds
a config.json is the bundle, and the id is made from its name (hello gives hello-3f2a). Else a
layout folder or an archive file is an image, with `:NAME` behind it if it has several. Else, in a
folder that holds a config.json, a word without `/` and `:` is the id. Else it is the name of an
image in the store: see `rcrun help image`. What follows an image is the command.
--pull missing brings an image that is not in the store from the registry that its name begins with.

The exit status is the container's, or 128 and the number of the signal that ended it. That of an
image is 127 if its command was not found, 126 if it could not be executed.

Examples:
  rcrun run app.tar                 what docker save wrote, with the command of the image
  rcrun run -it -e A=1 app:1 sh     an image of the store, with a terminal and a command
  rcrun run bundles/hello           a bundle, in the foreground
  rcrun run --bundle /srv/web web   the same with an id of your own
  rcrun run -d bundles/web          in the background: see `rcrun list`",
        flags: || {
            let mut flags = vec![bundle()];
            flags.extend([
                switch("detach", "Return when the container runs").short('d'),
                switch("keep", "Keep the container when it has ended, for `rcrun delete`"),
                switch("rm", "Delete the container when it has ended (default without -d)"),
                text("name", "ID", "The id of the container, instead of one that is made"),
                switch("no-subreaper", "Do not adopt the orphans of the container's processes"),
                switch("interactive", "Image: let the container read standard input").short('i'),
                switch("tty", "Image: give the container a terminal").short('t'),
                list("env", "NAME[=VALUE]", "Image: set an environment variable (repeatable)").short('e'),
                list("volume", "DIR:PATH[:ro]", "Image: mount a folder or file (repeatable)").short('v'),
                list("tmpfs", "PATH[:OPTION,...]", "Image: mount a tmpfs (repeatable)"),
                text("user", "USER[:GROUP]", "Image: run as this user and group").short('u'),
                text("workdir", "PATH", "Image: working directory").short('w'),
                switch("read-only", "Image: nothing can be written to the root"),
                text("hostname", "NAME", "Image: the name of the container's host"),
                text("entrypoint", "PROGRAM", "Image: execute this instead of the entrypoint"),
                list("env-file", "FILE", "Image: set the variables of FILE, one a line (repeatable)")
                    .value_parser(OsStringValueParser::new()),
                text("memory", "BYTES", "Image: memory at most, such as 512m").short('m'),
                text("cpus", "N", "Image: processors at most, such as 1.5"),
                text("pids-limit", "N", "Image: processes at most"),
                list(
                    "security-opt",
                    "seccomp=FILE",
                    "Image: filter system calls by FILE, or `unconfined`: not at all",
                ),
                text("net", "host|none", "Image: the network: the machine's, or none (default)"),
                text("network", "host|none", "The same as --net").hide(true),
                valued("pull", "WHEN", PossibleValuesParser::new(["never", "missing", "always"]))
                    .hide_possible_values(true)
                    .help("Image: ask its registry: never (default), missing, or always"),
                text("platform", "OS/ARCH", "Image: of one for several platforms, take this one"),
                store(),
            ]);
            flags.extend(start());
            flags
        },
    },
    Verb {
        name: "image",
        about: "Load, pull, list, unpack and remove images",
        takes: "COMMAND [OPTIONS] [ARGUMENTS]",
        options: Options::BeforeFirstWord,
        more: "\
Examples:
  rcrun image load app.tar                what docker save and others write, into the store
  rcrun image pull localhost:5000/app:1   from a registry into the store
  rcrun image list                        see which images there are
  rcrun help image load                   more about a command",
        flags: Vec::new,
    },
    Verb {
        name: "create",
        about: "Create a container; its process waits for `rcrun start`",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun create --bundle bundles/hello web   create it
  rcrun start web                           let its process run
  rcrun delete web                          remove what is left of it",
        flags: || {
            let mut flags = vec![bundle()];
            flags.extend(start());
            // crun's create takes it, and ends before there could be orphans.
            flags.push(switch("no-subreaper", "Has no effect: create adopts nobody").hide(true));
            flags
        },
    },
    Verb {
        name: "start",
        about: "Start the process of a created container",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun start web
  rcrun start --timings web   and where the time went",
        flags: || vec![timings()],
    },
    Verb {
        name: "exec",
        about: "Execute another process in a running container",
        takes: "ID COMMAND [ARG...]",
        options: Options::BeforeFirstWord,
        more: "\
Options stand before the id: what follows it belongs to the command.
The exit status is the command's, or 128 and its signal's number; 255 if it could not be executed.

Examples:
  rcrun exec web ls -l /            a command
  rcrun exec -t web sh              a shell on a terminal
  rcrun exec -u 1000:1000 web id    as another user
  rcrun exec --process p.json web   a process object as in config.json",
        flags: || {
            vec![
                path("process", "FILE", "Read the process object from FILE instead of a command").short('p'),
                switch("tty", "Give the process a terminal").short('t'),
                switch("interactive", "Let the process read standard input, as it does in any case").short('i'),
                switch("detach", "Return when the process runs").short('d'),
                text("user", "UID[:GID]", "Run as this user and group").short('u'),
                list("additional-gids", "GID", "Add a supplementary group (repeatable)")
                    .short('g')
                    .value_parser(value_parser!(u32)),
                path("cwd", "DIR", "Working directory in the container"),
                list("env", "NAME[=VALUE]", "Set an environment variable (repeatable)")
                    .short('e')
                    .value_parser(OsStringValueParser::new()),
                list("cap", "CAP", "Add a capability (repeatable)").short('c'),
                switch("no-new-privs", "Forbid the process to gain privileges"),
                text("apparmor", "PROFILE", "AppArmor profile of the process"),
                text("process-label", "LABEL", "SELinux label of the process"),
                list("cgroup", "PATH", "Run in this cgroup below the container's"),
                switch("ignore-paused", "Also in a paused container"),
                path("pid-file", "FILE", "Write the pid of the process to FILE"),
                path("console-socket", "SOCKET", "Send the master of the terminal to this socket"),
                path("pidfd-socket", "SOCKET", "Send a pidfd of the process to this socket"),
                preserve_fds(),
                timings(),
            ]
        },
    },
    Verb {
        name: "kill",
        about: "Send a signal to the container's first process (TERM if not said)",
        takes: "ID [SIGNAL]",
        options: Options::Anywhere,
        more: "\
A signal is a number or a name in any case: 9, KILL, SIGKILL, RTMIN+3.

Examples:
  rcrun kill web
  rcrun kill web KILL
  rcrun kill --all web HUP
  rcrun kill --regex '^web-[0-9]+$' TERM",
        flags: || vec![switch("all", "Send it to all processes of the container").short('a'), regex()],
    },
    Verb {
        name: "delete",
        about: "Delete a stopped container and all that it holds",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun delete web
  rcrun delete --force web   running or not, there or not",
        flags: || {
            vec![
                switch("force", "Kill it first if it runs; no failure if it is not there").short('f'),
                regex(),
                store(),
            ]
        },
    },
    Verb {
        name: "state",
        about: "Print the state of a container as JSON",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun state web",
        flags: Vec::new,
    },
    Verb {
        name: "list",
        about: "List the containers of this root directory",
        takes: "",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun list
  rcrun list -q              ids only
  rcrun list --format json   for tools",
        flags: || vec![table(), switch("quiet", "Print ids only").short('q')],
    },
    Verb {
        name: "ps",
        about: "Print the processes of a container",
        takes: "ID [PS-ARGUMENT...]",
        options: Options::BeforeFirstWord,
        more: "\
Options stand before the id: what follows it goes to ps(1), which gets -ef otherwise.

Examples:
  rcrun ps web
  rcrun ps web -eo pid,rss,args
  rcrun ps --format json web   pids only",
        flags: || vec![table()],
    },
    Verb {
        name: "pause",
        about: "Suspend all processes of a container",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun pause web",
        flags: Vec::new,
    },
    Verb {
        name: "resume",
        about: "Let the processes of a paused container run again",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun resume web",
        flags: Vec::new,
    },
    Verb {
        name: "update",
        about: "Change the limits of a container that runs: all that are given, or none",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
What cannot be set changes nothing: values that were written before are put back.
The file of --resources may also have new device rules, as in config.json.

Examples:
  rcrun update web --memory 512m --pids-limit 100
  rcrun update web --dry-run --cpu-quota 50000
  rcrun update web --io-max '8:0 wbps=10m'
  rcrun update -r limits.json web",
        flags: update::flags,
    },
    Verb {
        name: "mounts",
        about: "Mount something in a container that runs, or take it away",
        takes: "add|remove ID FILE",
        options: Options::Anywhere,
        more: "\
FILE holds a list of mounts as in config.json (-: standard input). All of them are added, or none.
To remove one, its destination is enough; the last of the list goes first.

Examples:
  rcrun mounts add web mounts.json
  rcrun mounts remove web mounts.json
  echo '[{\"destination\":\"/data\",\"source\":\"/srv\",\"options\":[\"rbind\",\"ro\"]}]' | rcrun mounts add web -",
        flags: Vec::new,
    },
    Verb {
        name: "events",
        about: "Print statistics of a container, and what the OOM killer does, as JSON",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
A line for each; it ends with the container.

Examples:
  rcrun events web
  rcrun events --stats web   once, and no more",
        flags: || {
            vec![
                text("interval", "TIME", "Time between two statistics, such as 500ms (default: 5s)"),
                switch("stats", "Print statistics once"),
            ]
        },
    },
    Verb {
        name: "checkpoint",
        about: "Write a running container to images, by CRIU; it is deleted then",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
Needs root and the program criu. A container that cannot be written runs on.

Examples:
  rcrun checkpoint --image-path /srv/web.images web
  rcrun checkpoint --leave-running --image-path /srv/web.images web
  rcrun checkpoint --pre-dump --image-path /srv/web.1 web   its memory, while it runs; and then
  rcrun checkpoint --parent-path ../web.1 --image-path /srv/web.2 web   what has changed since",
        flags: checkpoint::checkpoint,
    },
    Verb {
        name: "restore",
        about: "Make a container of images that checkpoint wrote, by CRIU",
        takes: "ID",
        options: Options::Anywhere,
        more: "\
What config.json of the bundle says of privileges, limits, devices and mounts holds: images that
give their processes more are refused.

Examples:
  rcrun restore --detach --image-path /srv/web.images --bundle /srv/web web",
        flags: checkpoint::restore,
    },
    Verb {
        name: "spec",
        about: "Write a config.json to start from",
        takes: "",
        options: Options::Anywhere,
        more: "\
Example:
  mkdir -p web/rootfs && rcrun spec --bundle web",
        flags: || {
            vec![
                path("bundle", "DIR", "Folder to write to (default: here)").short('b'),
                path("file", "FILE", "Its name in that folder (default: config.json)").short('f'),
                switch("rootless", "For a user other than root"),
            ]
        },
    },
    Verb {
        name: "plan",
        about: "Print what a start of the bundle would do, step by step; nothing is done",
        takes: "[BUNDLE]",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun plan bundles/hello
  rcrun plan --format json bundles/hello         for tools
  rcrun plan --process p.json bundles/hello      the plan of an exec into it
  rcrun plan --seccomp-out f.bpf bundles/hello   its seccomp filter, 8 bytes an instruction",
        flags: || {
            vec![
                path("bundle", "DIR", "The bundle (default: here)").short('b'),
                path("process", "FILE", "Plan an exec of the process object in FILE").short('p'),
                choice("format", ["text", "json"]).short('f'),
                path(
                    "seccomp-out",
                    "FILE",
                    "Write the seccomp filter to FILE as seccomp(2) takes it; print no plan",
                ),
            ]
        },
    },
    Verb {
        name: "check",
        about: "Tell every problem of a bundle at once, and what to do about it",
        takes: "[BUNDLE]",
        options: Options::Anywhere,
        more: "\
An error is what `create` or `start` would refuse here. A warning works, and is probably not what
was meant. A note tells what will be left out or done here unasked, and what could not be looked at.
Exit status 0: no errors. 1: there are some.

Examples:
  rcrun check                               the bundle in this folder
  rcrun check bundles/hello
  rcrun --systemd-cgroup check web          as `rcrun --systemd-cgroup create` would take it
  rcrun check --format json bundles/hello   for tools",
        flags: || {
            vec![
                path("bundle", "DIR", "The bundle (default: here)").short('b'),
                choice("format", ["text", "json"]).short('f'),
            ]
        },
    },
    Verb {
        name: "doctor",
        about: "Try what rcrun needs of this machine, and tell what to do about what lacks",
        takes: "",
        options: Options::Anywhere,
        more: "\
Exit status 0: all that the caller needs (root, or a user) is there. 1: something is missing.

Examples:
  rcrun doctor
  rcrun doctor --format json   for tools",
        flags: || vec![table()],
    },
    Verb {
        name: "info",
        about: "Tell what this machine offers: kernel, cgroups, namespaces, capabilities, seccomp",
        takes: "",
        options: Options::Anywhere,
        more: "\
For a person to read. `rcrun doctor` tries what rcrun needs of it, and `rcrun features` tells tools
what rcrun supports.

Example:
  rcrun info",
        flags: Vec::new,
    },
    Verb {
        name: "completion",
        about: "Print what makes a shell complete the commands and options of rcrun",
        takes: "",
        options: Options::Anywhere,
        more: "\
Examples:
  rcrun completion --shell bash > /etc/bash_completion.d/rcrun
  rcrun completion --shell zsh > /usr/local/share/zsh/site-functions/_rcrun
  rcrun completion --shell fish > ~/.config/fish/completions/rcrun.fish",
        flags: || {
            vec![
                valued("shell", "SHELL", PossibleValuesParser::new(Shell::ALL.map(|(name, _)| name)))
                    .short('s')
                    .help("The shell"),
            ]
        },
    },
    Verb {
        name: "features",
        about: "Print what this rcrun supports, as the runtime spec's features JSON",
        takes: "",
        options: Options::Anywhere,
        more: "\
Example:
  rcrun features",
        flags: Vec::new,
    },
];

pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

pub(super) fn valued(name: &'static str, value: &'static str, parser: impl Into<ValueParser>) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(parser.into()).action(ArgAction::Set)
}

pub(super) fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    valued(name, value, value_parser!(String)).help(help)
}

pub(super) fn path(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    valued(name, value, OsStringValueParser::new()).help(help)
}

pub(super) fn list(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    text(name, value, help).action(ArgAction::Append)
}

fn choice(name: &'static str, words: [&'static str; 2]) -> Arg {
    valued(name, "FORMAT", PossibleValuesParser::new(words)).help("Output format")
}

pub(super) fn table() -> Arg {
    choice("format", ["table", "json"]).short('f')
}

pub(super) fn store() -> Arg {
    path("store", "DIR", "The store of images (/var/lib/rcrun, or ~/.local/share/rcrun)")
}

fn regex() -> Arg {
    switch("regex", "The id is an extended regular expression: each container that it matches").short('r')
}

pub(super) fn bundle() -> Arg {
    path("bundle", "DIR", "The bundle: the folder that holds config.json (default: here)").short('b')
}

/// More descriptors than a process may have (the kernel's default of fs.nr_open) cannot be passed.
const DESCRIPTORS: i64 = 1 << 20;

fn preserve_fds() -> Arg {
    valued("preserve-fds", "N", value_parser!(u32).range(0..=DESCRIPTORS))
        .help("Pass N more descriptors, after 0 to 2 and those of LISTEN_FDS")
}

fn timings() -> Arg {
    switch("timings", "Tell on standard error where the time went")
}

/// The options that `create` and `run` share.
fn start() -> [Arg; 8] {
    [
        timings(),
        path("config", "FILE", "Read FILE instead of the bundle's config.json").short('f'),
        path("pid-file", "FILE", "Write the pid of the container's first process to FILE"),
        path("console-socket", "SOCKET", "Send the master of the terminal to this socket"),
        path("pidfd-socket", "SOCKET", "Send a pidfd of the first process to this socket"),
        switch("no-pivot", "Do not use pivot_root: for a root on a ramdisk"),
        switch("no-new-keyring", "Keep the caller's session keyring"),
        preserve_fds(),
    ]
}
