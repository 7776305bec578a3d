//! `rcrun`, the command. Each verb has a file; this one finds the verb.
fn main() {}
