//! Completions for shells, of the table that the parser is made from: `rcrun completion`, and `make man`.
//! Uses: args, tree, clap_complete.

use clap_complete::generate;
use clap_complete::shells::{Bash, Elvish, Fish, PowerShell, Zsh};

use crate::args::Shell;
use crate::tree;

/// What `shell` is to read.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut rcrun = tree::rcrun();
    match shell {
        Shell::Bash => generate(Bash, &mut rcrun, "rcrun", &mut script),
        Shell::Zsh => generate(Zsh, &mut rcrun, "rcrun", &mut script),
        Shell::Fish => generate(Fish, &mut rcrun, "rcrun", &mut script),
        Shell::Elvish => generate(Elvish, &mut rcrun, "rcrun", &mut script),
        Shell::Powershell => generate(PowerShell, &mut rcrun, "rcrun", &mut script),
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    // What bash offers for the last word of a line.
    fn offered(words: &[&str]) -> Vec<String> {
        let mut bash = Command::new("bash")
            .args(["--norc", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let mut input = bash.stdin.take().expect("a pipe");
        input.write_all(&script(Shell::Bash)).expect("write");
        let last = words.len() - 1;
        let before = words[last.saturating_sub(1)];
        let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        write!(
            input,
            "\nCOMP_WORDS=({line}); COMP_CWORD={last}\n_rcrun rcrun '{}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            words[last]
        )
        .expect("write");
        drop(input);
        let output = bash.wait_with_output().expect("wait");
        String::from_utf8(output.stdout).expect("words").split_whitespace().map(String::from).collect()
    }

    #[test]
    fn bash_offers_verbs_options_and_their_values() {
        assert_eq!(offered(&["rcrun", "del"]), ["delete"]);
        assert_eq!(offered(&["rcrun", "image", "pu"]), ["pull", "push"]);
        assert_eq!(offered(&["rcrun", "run", "--no-"]), ["--no-subreaper", "--no-pivot", "--no-new-keyring"]);
        assert_eq!(offered(&["rcrun", "list", "--format", ""]), ["table", "json"]);
        assert_eq!(offered(&["rcrun", "--log-format", ""]), ["text", "json"]);
        assert_eq!(
            offered(&["rcrun", "completion", "-s", ""]),
            ["bash", "zsh", "fish", "elvish", "powershell"]
        );
        assert_eq!(offered(&["rcrun", "image", "commit", "--pa"]), ["--pause"]);
    }

    #[test]
    fn each_shell_is_told_every_verb_and_option() {
        for (_, shell) in Shell::ALL {
            let script = String::from_utf8(script(shell)).expect("UTF-8");
            let mut left = vec![tree::rcrun()];
            while let Some(command) = left.pop() {
                assert!(script.contains(command.get_name()), "{shell:?}: {}", command.get_name());
                for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                    let Some(long) = arg.get_long() else { continue };
                    assert!(script.contains(long), "{shell:?}: {}: {long}", command.get_name());
                }
                left.extend(command.get_subcommands().cloned());
            }
        }
    }
}
