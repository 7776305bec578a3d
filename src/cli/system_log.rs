//! Logs of the machine: systemd's journal, and what listens for syslog(3). A line is one datagram to a socket of a known
//! name; the journal's own protocol takes fields (systemd's JOURNAL_NATIVE_PROTOCOL).

use std::os::fd::OwnedFd;

use rcrun_runtime::{Error, Result, unix_socket};
use rustix::net::{SendFlags, send};

use crate::output;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// The longest message: a datagram has to fit into what a socket holds by default.
const LONGEST: usize = 32 << 10;

/// An open one, and the name that lines get there.
#[derive(Debug)]
pub struct SystemLog {
    socket: OwnedFd,
    identifier: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Journal,
    Syslog,
}

/// A line as all of these take it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `error`, `warning` or `debug`.
    pub level: &'a str,
    /// The sentence.
    pub text: &'a str,
    /// More, by name: `code`, `pointer`, `errno`.
    pub more: &'a [(&'a str, String)],
}

impl SystemLog {
    /// systemd's journal.
    pub fn journal(identifier: &str) -> Result<SystemLog> {
        let hint = "is systemd-journald running? `--log FILE` does without";
        SystemLog::open(JOURNAL, identifier, Kind::Journal).map_err(|error| refused("journald", error, hint))
    }

    /// What listens for syslog(3).
    pub fn syslog(identifier: &str) -> Result<SystemLog> {
        let hint = "does a system logger run? `--log FILE` does without";
        SystemLog::open(SYSLOG, identifier, Kind::Syslog).map_err(|error| refused("syslog", error, hint))
    }

    fn open(path: &str, identifier: &str, kind: Kind) -> Result<SystemLog> {
        Ok(SystemLog { socket: unix_socket::datagram_to(path)?, identifier: identifier.into(), kind })
    }

    /// Sends a line.
    pub fn send(&self, message: &Message<'_>) -> rustix::io::Result<()> {
        let bytes = match self.kind {
            Kind::Journal => fields(&self.identifier, message),
            Kind::Syslog => line(&self.identifier, std::process::id(), message),
        };
        send(&self.socket, &bytes, SendFlags::NOSIGNAL).map(drop)
    }
}

fn refused(kind: &str, error: Error, hint: &str) -> Error {
    error.context(format!("--log {kind}")).hint(Some(hint))
}

/// syslog(3)'s number of a level.
fn severity(level: &str) -> u8 {
    match level {
        "error" => 3,
        "warning" => 4,
        _ => 7,
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(LONGEST)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// An entry of the journal. crun calls the identifier ID; who looks for a program's lines by SYSLOG_IDENTIFIER finds it too.
fn fields(identifier: &str, message: &Message<'_>) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut field = |name: &str, value: &str| {
        entry.extend_from_slice(name.as_bytes());
        // A value with a line break has its length before it.
        match value.contains('\n') {
            true => {
                entry.push(b'\n');
                entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
            }
            false => entry.push(b'='),
        }
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    };
    field("PRIORITY", &severity(message.level).to_string());
    field("SYSLOG_IDENTIFIER", identifier);
    field("ID", identifier);
    field("MESSAGE", cut(message.text));
    for (name, value) in message.more {
        let name = if *name == "errno" { "ERRNO".into() } else { format!("RCRUN_{}", name.to_uppercase()) };
        field(&name, cut(value));
    }
    entry
}

/// A line for a system logger, which puts the time to it.
fn line(identifier: &str, pid: u32, message: &Message<'_>) -> Vec<u8> {
    const USER: u8 = 1 << 3;
    let priority = USER | severity(message.level);
    format!("<{priority}>{identifier}[{pid}]: {}", output::shown(cut(message.text))).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_gets_fields_and_a_value_of_several_lines_with_its_length() {
        let more = [("code", "usage".to_string()), ("errno", "2".to_string())];
        let message = Message { level: "error", text: "one\ntwo", more: &more };
        let mut expected = b"PRIORITY=3\nSYSLOG_IDENTIFIER=web\nID=web\nMESSAGE\n".to_vec();
        expected.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(b"one\ntwo\nRCRUN_CODE=usage\nERRNO=2\n");
        assert_eq!(fields("web", &message), expected);
    }

    #[test]
    fn a_system_logger_gets_a_line_with_facility_and_level() {
        for (level, expected) in [("error", "<11>"), ("warning", "<12>"), ("debug", "<15>")] {
            let message = Message { level, text: "one\u{1b}[31m", more: &[] };
            let line = String::from_utf8(line("web", 7, &message)).unwrap();
            assert!(
                line.starts_with(&format!("{expected}web[7]: one")) && !line.contains('\u{1b}'),
                "{line}"
            );
        }
    }

    #[test]
    fn a_message_that_no_datagram_holds_is_cut_between_characters() {
        let long = "\u{e9}".repeat(LONGEST);
        let entry = fields("web", &Message { level: "error", text: &long, more: &[] });
        assert!(entry.len() < LONGEST + 100 && String::from_utf8(entry).is_ok());
    }
}
