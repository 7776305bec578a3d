//! `rcrun`, the command. Each verb has a file; this one finds the verb.

mod args;
mod help;
mod log;
mod output;
mod version;

fn main() {
    let _ = args::parse(std::env::args_os().skip(1).collect());
}
