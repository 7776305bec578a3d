//! Man pages and completions for shells, made from the table that rcrun's parser is made from. Not linked into rcrun.
//! usage: manual DIR      writes DIR/man/man8/*.8 and DIR/completions/{rcrun.bash,_rcrun,rcrun.fish}
//! Uses: args, which is rcrun's own; clap_mangen, clap_complete.

// Of the parser only the table is wanted here.
#[allow(dead_code, unused_imports)]
mod args;
mod completion;
#[path = "manual/pages.rs"]
mod pages;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use args::Shell;

/// Each shell, and the name of the file in which it looks for them.
const COMPLETIONS: [(Shell, &str); 3] =
    [(Shell::Bash, "rcrun.bash"), (Shell::Zsh, "_rcrun"), (Shell::Fish, "rcrun.fish")];

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(folder), None) = (words.next().map(PathBuf::from), words.next()) else {
        eprintln!("usage: manual DIR");
        return ExitCode::FAILURE;
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let man = folder.join("man/man8");
    std::fs::create_dir_all(&man)?;
    for (name, text) in pages::all()? {
        std::fs::write(man.join(name), text)?;
    }
    let completions = folder.join("completions");
    std::fs::create_dir_all(&completions)?;
    COMPLETIONS
        .into_iter()
        .try_for_each(|(shell, name)| std::fs::write(completions.join(name), completion::script(shell)))
}
