//! Known escapes, each mounted for real: against rcrun, which has to hold, and against Debian's runc, which shows that the
//! attack is one. docs/escapes.md has a row for each. Nothing here aims at the machine's own /proc, /dev or programs: what
//! an attacker wants to reach are canaries, in a mount namespace of the test's own.

mod capabilities;
mod descriptors;
mod devices;
mod input;
mod own_file;
mod paths;
mod procfs;
mod traced;
mod victim;
