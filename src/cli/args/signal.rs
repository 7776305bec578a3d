//! Names of signals, as kill(1), runc and Docker write them. Uses: nothing.

use std::str::FromStr;

use nix::sys::signal;
use rcrun_runtime::{Code, Error, Result};

/// SIGRTMIN and SIGRTMAX as glibc counts them, and with it Docker and systemd: `RTMIN+3` is 37 in
/// every table, whatever C library rcrun is linked with.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `9`, `KILL`, `SIGKILL`, `kill`, `RTMIN+3`, `RTMAX-1` as a number.
pub fn parse(word: &str) -> Result<i32> {
    number(word).ok_or_else(|| Error::new(Code::Usage, format!("unknown signal {word:?}")))
}

fn number(word: &str) -> Option<i32> {
    if word.bytes().all(|b| b.is_ascii_digit()) {
        return word.parse().ok().filter(|n| (0..=RTMAX).contains(n));
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(after) = name.strip_prefix("RTMIN") {
        return offset(after, '+').map(|n| RTMIN + n);
    }
    if let Some(after) = name.strip_prefix("RTMAX") {
        return offset(after, '-').map(|n| RTMAX - n);
    }
    // The other names that the kernel's headers have for a number.
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        name => name,
    };
    signal::Signal::from_str(&format!("SIG{name}")).ok().map(|s| s as i32)
}

fn offset(after: &str, sign: char) -> Option<i32> {
    if after.is_empty() {
        return Some(0);
    }
    let digits = after.strip_prefix(sign)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|n| *n <= RTMAX - RTMIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_number_and_by_every_spelling_of_their_name() {
        for (word, expected) in [
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("kill", 9),
            ("SigTerm", 15),
            ("WINCH", 28),
            ("CLD", 17),
            ("SIGIOT", 6),
            ("poll", 29),
            ("STKFLT", 16),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("SIGRTMAX-14", 50),
        ] {
            assert_eq!(parse(word).unwrap(), expected, "{word}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_in_words() {
        for word in [
            "",
            "65",
            "-9",
            "99999999999",
            "NOPE",
            "SIG",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN++1",
            "RTMAX+1",
            "SIGSIGKILL",
        ] {
            assert_eq!(parse(word).unwrap_err().to_string(), format!("unknown signal {word:?}"));
        }
    }
}
