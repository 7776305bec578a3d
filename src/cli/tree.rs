//! The verbs as one tree of clap's, which the parser never builds: it builds the verb that was given. Uses: args.

use clap::{Arg, ArgAction, Command, ValueHint};

use crate::args::flags::{VERBS, Verb};
use crate::args::global::FLAGS;
use crate::args::image;

/// The options before the verb, which are read without clap, with their values.
const GLOBAL: [(&str, &str, &str); 11] = [
    ("root", "DIR", "Keep the state of containers in DIR"),
    ("log", "FILE", "Append errors and warnings to FILE too, or to journald:ID or syslog:ID"),
    ("systemd-log", "", "The same as --log journald:rcrun"),
    ("log-format", "text|json", "The form of the log"),
    ("log-level", "error|warning|info|debug|trace", "How much the log is told"),
    ("debug", "", "Tell more in the log"),
    ("rootless", "true|false|auto", "Do without what only root may do with cgroups"),
    ("systemd-cgroup", "", "Let systemd make the cgroups, as scopes"),
    ("cgroup-manager", "cgroupfs|systemd|disabled", "Who makes the cgroups, if anybody"),
    ("criu", "FILE", "Execute FILE for checkpoint and restore, not the criu of PATH"),
    ("version", "", "Print the version"),
];

/// `--help`, which the parser reads without clap.
pub fn help() -> Arg {
    Arg::new("help").long("help").short('h').action(ArgAction::SetTrue).help("Print the help")
}

/// rcrun with its options and verbs.
pub fn rcrun() -> Command {
    let letter = |name: &str| FLAGS.iter().find(|flag| flag.long == name).and_then(|flag| flag.short);
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).short(letter(name)).help(help).action(ArgAction::SetTrue)
    };
    let options = GLOBAL.map(|(name, value, help)| match value {
        "" => switch(name, help),
        _ if value.contains('|') => hinted(switch(name, help).action(ArgAction::Set))
            .value_parser(value.split('|').collect::<Vec<_>>()),
        _ => hinted(switch(name, help).action(ArgAction::Set).value_name(value)),
    });
    let images = image::VERBS.iter().map(|verb| leaf(verb, verb.name.trim_start_matches("image ")));
    let verbs = VERBS.iter().map(|verb| match verb.name {
        "image" => Command::new("image").about(verb.about).arg(help()).subcommands(images.clone()),
        name => leaf(verb, name),
    });
    Command::new("rcrun")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(options)
        .arg(help())
        .subcommands(verbs)
        .subcommand(Command::new("help").about("Print the help of a command").disable_help_flag(true))
}

// What a verb takes besides options is told to shells as far as they can complete it: paths.
fn leaf(verb: &Verb, name: &'static str) -> Command {
    let command = verb.command().name(name).mut_args(hinted).arg(help());
    let first = verb.takes.split(' ').next().unwrap_or_default();
    let path = ["FILE", "DIR", "BUNDLE"].iter().any(|kind| first.contains(kind));
    match path {
        true => command.arg(Arg::new("path").value_name("PATH").value_hint(ValueHint::AnyPath)),
        false => command,
    }
}

fn hinted(arg: Arg) -> Arg {
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_string());
    match value.as_deref() {
        Some("FILE" | "SOCKET" | "seccomp=FILE") => arg.value_hint(ValueHint::FilePath),
        Some("DIR") => arg.value_hint(ValueHint::DirPath),
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_before_the_verb_are_those_that_are_read() {
        let mut told = GLOBAL.map(|(name, value, _)| (name, !value.is_empty()));
        let mut read: Vec<_> = FLAGS.iter().map(|flag| (flag.long, flag.valued)).collect();
        told.sort();
        read.sort();
        // The version has two letters.
        read.dedup();
        assert_eq!(told.as_slice(), read);
    }

    #[test]
    fn the_tree_holds_together() {
        rcrun().debug_assert();
    }
}
