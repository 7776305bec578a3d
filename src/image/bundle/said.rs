//! What a person says to `run`, as Docker's options have it, and what the caller knows. Pure. Uses: error, amount,
//! volume.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Cpus, Volume};
use crate::error::{Code, Error, Result};

/// What a person says. The default is to say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The words after the image: they replace its Cmd.
    pub command: Vec<String>,
    /// `--entrypoint`: replaces the image's Entrypoint and drops its Cmd. Empty: no entrypoint at all.
    pub entrypoint: Option<String>,
    /// `-t`.
    pub terminal: bool,
    /// `-e`, in order: `NAME=value`, or `NAME` for that of the caller's environment.
    pub env: Vec<String>,
    /// `-v`.
    pub volumes: Vec<Volume>,
    /// `-u`.
    pub user: Option<String>,
    /// `-w`.
    pub working_dir: Option<String>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--memory` in bytes ([`super::memory`]); zero is no limit.
    pub memory: u64,
    /// `--cpus`.
    pub cpus: Option<Cpus>,
    /// `--pids-limit`; zero and -1 are no limit.
    pub pids_limit: i64,
    /// `--net`.
    pub network: Network,
    /// `--security-opt seccomp=`.
    pub seccomp: Seccomp,
}

/// What filters the container's system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// [`super::seccomp::profile`].
    #[default]
    Default,
    /// Nothing.
    Unconfined,
    /// linux.seccomp, as it is.
    Profile(Value),
}

/// `--net`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A network namespace with a loopback device.
    #[default]
    None,
    /// The caller's.
    Host,
}

impl Network {
    /// `host` or `none`.
    pub fn parse(text: &str) -> Result<Network> {
        match text {
            "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            _ => {
                let message = format!("--net {text:?}: rcrun makes no networks; there are host and none");
                Err(Error::new(Code::Usage, message))
            }
        }
    }
}

/// What the caller knows and the image does not. Paths are those of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// root.path of the config.
    pub root_path: String,
    /// The caller's environment.
    pub environment: BTreeMap<String, String>,
    /// The name of the container's host where none is said: for Docker a short id, and the host's own with `--net host`.
    pub hostname: Option<String>,
    /// A file to be mounted on /etc/hosts: [`super::hosts`], or a copy of the host's with `--net host`.
    pub hosts: Option<String>,
    /// A file to be mounted on /etc/resolv.conf.
    pub resolv_conf: Option<String>,
    /// A file to be mounted on /etc/hostname.
    pub hostname_file: Option<String>,
    /// The folder in which the caller makes the container's own folders that lie below a mount of `-v`, by their numbers in
    /// [`super::Converted::nested`].
    pub nested: String,
    /// The last group that the container's user namespace has, where it has not all.
    pub groups: Option<u32>,
    /// Whether SELinux is on: `-v`'s `z` asks for labels then.
    pub selinux: bool,
}

/// A name for sethostname(2) that is one word in /etc/hosts too.
pub(super) fn check_hostname(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['-', '.']) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    let message = format!("--hostname {shown:?}: not 1 to 64 letters, digits, dots and dashes");
    Err(Error::new(Code::Usage, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_is_one_word() {
        for name in ["a", "web-1.example_x", &"x".repeat(64)] {
            check_hostname(name).unwrap();
        }
        for name in ["", " ", "a b", "a\n10.0.0.1 bank", "-a", ".", "ä", &"x".repeat(65)] {
            let error = check_hostname(name).unwrap_err().to_string();
            assert!(error.ends_with("not 1 to 64 letters, digits, dots and dashes"), "{error}");
        }
    }

    #[test]
    fn a_network_is_the_hosts_or_none() {
        assert_eq!(Network::parse("host").unwrap(), Network::Host);
        assert_eq!(Network::parse("none").unwrap(), Network::None);
        assert_eq!(
            Network::parse("bridge").unwrap_err().to_string(),
            "--net \"bridge\": rcrun makes no networks; there are host and none"
        );
    }
}
