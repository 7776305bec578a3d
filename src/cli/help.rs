//! `rcrun help`: what rcrun is, its verbs, and the help of one verb. Uses: args::flags, output.

use crate::ExitCode;

use rcrun_runtime::Result;

use crate::args::flags::{VERBS, Verb};
use crate::args::image;
use crate::output;

/// Prints the help of `verb`, or of rcrun.
#[inline(never)]
pub fn run(verb: Option<&Verb>) -> Result<ExitCode> {
    output::print(match verb {
        None => general(),
        Some(verb) if verb.name == "image" => of(verb) + &image(),
        Some(verb) => of(verb),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn general() -> String {
    let verbs: String = VERBS.iter().map(|v| format!("  {:<10} {}\n", v.name, v.about)).collect();
    format!(
        "\
rcrun runs containers: an OCI bundle (a folder with a config.json) or an image becomes a running container.

Usage: rcrun [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]

Commands:
{verbs}
Global options, before the command:
  -r, --root DIR           Keep the state of containers in DIR (default: {root}, of a user $XDG_RUNTIME_DIR/rcrun)
  -l, --log PLACE          Append errors and warnings to a file too; or to journald:ID or syslog:ID
      --systemd-log        The same as --log journald:rcrun
      --log-format FORMAT  text or json
      --log-level LEVEL    error, warning (default, the same as info), debug or trace (the same)
      --debug              Tell more in the log
      --rootless WHEN      true, false or auto: do without what only root may do with cgroups
  -s, --systemd-cgroup     Let systemd make the cgroups, as scopes
      --cgroup-manager WHO cgroupfs (default), systemd, or disabled: containers have no cgroup of their own
      --criu FILE          Execute FILE for checkpoint and restore (default: the criu of PATH)
  -v, --version            Print the version
  -h, --help               Print this, or the help of a command

Examples:
  rcrun run bundles/hello    run a bundle
  rcrun run app.tar          run an image that `docker save` wrote
  rcrun list                 see which containers there are
  rcrun exec -t web sh       a shell in the container `web`
  rcrun help run             more about `run`
  rcrun help image           the commands for images
",
        root = crate::args::global::DEFAULT_ROOT,
    )
}

fn image() -> String {
    let verbs: String = image::VERBS
        .iter()
        .map(|v| format!("  {:<10} {}\n", v.name.trim_start_matches("image "), v.about))
        .collect();
    format!("\nCommands:\n{verbs}")
}

fn of(verb: &Verb) -> String {
    let mut command = verb.command();
    let mut text = command.render_help().to_string();
    if command.get_arguments().all(|arg| arg.is_hide_set()) {
        text = text.replace("Options:\n\n", "").replace(" [OPTIONS]", "");
    }
    // clap leaves blanks at the ends of lines that an option without help would fill.
    let mut text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_help_with_an_example_that_fits_a_terminal() {
        for verb in VERBS.iter().chain(image::VERBS) {
            let text = of(verb);
            assert!(text.starts_with(verb.about), "{text}");
            assert!(text.contains(&format!("\n  rcrun {}", verb.name)) || verb.name == "spec", "{text}");
            assert!(text.contains("\nExample"), "{text}");
            for line in text.lines() {
                assert!(line.len() <= 100 && line == line.trim_end(), "{line:?}");
            }
            assert!(!text.contains("\n\n\n"), "{text}");
            let listed = general() + &super::image();
            assert!(listed.contains(&format!("\n  {} ", verb.name.trim_start_matches("image "))));
        }
    }

    #[test]
    fn the_help_of_run_says_how_its_argument_is_read() {
        let run = VERBS.iter().find(|v| v.name == "run").unwrap();
        let text = of(run);
        for word in [
            "--bundle it is the id",
            "config.json is the bundle",
            "the name of an\nimage in the store",
            "--pid-file",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
