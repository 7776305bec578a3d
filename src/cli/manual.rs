//! Man pages and completions for shells, made from the table that rcrun's parser is made from. Not linked into rcrun.
//! usage: manual DIR      writes DIR/man/man8/*.8 and DIR/completions/{rcrun.bash,_rcrun,rcrun.fish}
//! Uses: args, which is rcrun's own; clap_mangen, clap_complete.

// Of the parser only the table is wanted here.
#[allow(dead_code, unused_imports)]
mod args;
#[path = "manual/completions.rs"]
mod completions;
#[path = "manual/pages.rs"]
mod pages;
#[path = "manual/tree.rs"]
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    completions::write(&folder.join("completions"))
}
