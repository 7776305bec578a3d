//! Where errors, warnings and debug lines go: the file of `--log`, and standard error. An error is
//! written once to each. Warnings wait until the command has succeeded: podman reads the log of a
//! failing command as one JSON object. Uses: args, output.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcrun_runtime::{Error, Result};
use serde::Serialize;

use crate::args::{Globals, LogFormat, LogLevel, LogPlace};
use crate::output;
use crate::system_log::{Message, SystemLog};

/// The log of one command.
#[derive(Debug)]
pub struct Log {
    place: Option<Place>,
    format: LogFormat,
    level: LogLevel,
    warnings: RefCell<Vec<String>>,
}

/// Where lines go that do not go to standard error.
#[derive(Debug)]
enum Place {
    File(File),
    System(SystemLog),
}

/// A line. The first three keys are those that engines read.
#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
}

impl Log {
    /// The log that the global options ask for.
    pub fn open(globals: &Globals) -> Result<Log> {
        let place = match &globals.log {
            None => None,
            Some(LogPlace::Journal(id)) => Some(Place::System(SystemLog::journal(id)?)),
            Some(LogPlace::Syslog(id)) => Some(Place::System(SystemLog::syslog(id)?)),
            // Appended to, for containerd gives all commands of a container the same file.
            Some(LogPlace::File(path)) => Some(Place::File(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .custom_flags(libc::O_NOCTTY)
                    .open(path)
                    .map_err(|error| Error::call(format!("open the log {}", path.display()), error))?,
            )),
        };
        Ok(Log { place, ..Log::stderr(globals) })
    }

    /// A log without a file: standard error is told.
    pub fn stderr(globals: &Globals) -> Log {
        Log {
            place: None,
            format: globals.log_format,
            level: globals.log_level,
            warnings: RefCell::new(Vec::new()),
        }
    }

    /// Lines are JSON.
    pub fn is_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// Tells the one error of a command: to the file, and to standard error in any case.
    pub fn error(&self, error: &Error) {
        let msg = error.to_string();
        let line = Line {
            code: Some(error.code().as_str()),
            pointer: error.pointer(),
            errno: error.errno(),
            ..Line::new("error", &msg)
        };
        match (&self.place, self.format) {
            // As runc does: who calls with a log gets the bare sentence on standard error.
            (Some(_), _) => {
                self.write(&line);
                tell(&format!("{}\n", output::shown(&msg)));
            }
            (None, LogFormat::Json) => self.write(&line),
            (None, LogFormat::Text) => tell(&format!("rcrun: {}\n", output::shown(&msg))),
        }
    }

    /// Notes a warning for [`Log::succeeded`].
    pub fn warn(&self, message: impl Into<String>) {
        if self.level >= LogLevel::Warning {
            self.warnings.borrow_mut().push(message.into());
        }
    }

    /// The command has succeeded, or its container is running: writes the warnings. With a file they
    /// go there and nowhere else, for engines show what stands on standard error.
    pub fn succeeded(&self) {
        for msg in self.warnings.take() {
            if self.place.is_none() && self.format == LogFormat::Text {
                tell(&format!("rcrun: warning: {}\n", output::shown(&msg)));
                continue;
            }
            self.write(&Line::new("warning", &msg));
        }
    }

    /// With `--debug`, writes a line at once.
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.level >= LogLevel::Debug {
            let msg = message();
            self.write(&Line::new("debug", &msg));
        }
    }

    /// Writes a line in the log's format to the file, or else to standard error; to a log of the machine as that has it.
    fn write(&self, line: &Line) {
        if let Some(Place::System(log)) = &self.place {
            return line.send(log);
        }
        let text = match self.format {
            LogFormat::Text => line.text(),
            // A struct of strings and numbers cannot fail to be written as JSON.
            LogFormat::Json => serde_json::to_string(line).unwrap_or_default(),
        };
        // One write(2) a line, so that lines of commands that share a file do not mix.
        let text = format!("{text}\n");
        let written = match &self.place {
            Some(Place::File(file)) => { file }.write_all(text.as_bytes()),
            _ => io::stderr().write_all(text.as_bytes()),
        };
        // A full disk must not swallow the sentence, nor fail a command that has succeeded.
        if written.is_err() && self.place.is_some() {
            tell(&text);
        }
    }
}

impl<'a> Line<'a> {
    fn new(level: &'a str, msg: &'a str) -> Line<'a> {
        Line { level, msg, time: rfc3339(SystemTime::now()), code: None, pointer: None, errno: None }
    }

    fn send(&self, log: &SystemLog) {
        let mut more = Vec::new();
        more.extend(self.code.map(|code| ("code", code.to_string())));
        more.extend(self.pointer.map(|pointer| ("pointer", pointer.to_string())));
        more.extend(self.errno.map(|errno| ("errno", errno.to_string())));
        // A logger that has gone meanwhile: as with a full disk.
        if log.send(&Message { level: self.level, text: self.msg, more: &more }).is_err() {
            tell(&format!("{}\n", self.text()));
        }
    }

    /// As logrus writes it, for those who have tools for runc's logs.
    fn text(&self) -> String {
        let mut text = format!("time={:?} level={} msg={}", self.time, self.level, quoted(self.msg));
        if let Some(code) = self.code {
            let _ = write!(text, " code={code}");
        }
        if let Some(pointer) = self.pointer {
            let _ = write!(text, " pointer={}", quoted(pointer));
        }
        if let Some(errno) = self.errno {
            let _ = write!(text, " errno={errno}");
        }
        text
    }
}

/// Writes to standard error. That it is closed is nobody's business.
fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if output::is_order(c) || c == '"' || c == '\\' {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
    }
    out.push('"');
    out
}

/// A moment as RFC 3339 in UTC, to the second.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, of_day) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The Gregorian date, `days` after 1970-01-01.
fn date(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    // 400 years always have the same number of days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_to(name: &str, format: LogFormat, debug: bool) -> (Log, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("rcrun-log-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let log_level = if debug { LogLevel::Debug } else { LogLevel::default() };
        let log = Some(LogPlace::File(path.clone()));
        let globals = Globals { log, log_format: format, log_level, ..Globals::default() };
        (Log::open(&globals).unwrap(), path)
    }

    fn read(path: &std::path::Path) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::remove_file(path).unwrap();
        text
    }

    #[test]
    fn a_failing_command_leaves_one_json_object_that_engines_can_read() {
        let (log, path) = log_to("json", LogFormat::Json, false);
        log.warn("something minor");
        log.debug(|| "not asked for".into());
        log.error(&Error::config("/mounts/3", "a \"bad\"\nmount").with_errno(13));
        let object: serde_json::Value = serde_json::from_str(&read(&path)).unwrap();
        assert_eq!(object["level"], "error");
        assert_eq!(object["msg"], "config.json: /mounts/3: a \"bad\"\nmount");
        assert_eq!(object["code"], "config");
        assert_eq!(object["pointer"], "/mounts/3");
        assert_eq!(object["errno"], 13);
        assert_eq!(object["time"].as_str().unwrap().len(), "2026-11-21T04:02:39Z".len());
    }

    #[test]
    fn warnings_are_written_once_the_command_has_succeeded() {
        let (log, path) = log_to("warnings", LogFormat::Json, true);
        log.warn("one");
        log.debug(|| "now".into());
        log.warn("two");
        log.succeeded();
        log.succeeded();
        let lines: Vec<serde_json::Value> =
            read(&path).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> =
            lines.iter().map(|l| (l["level"].as_str().unwrap(), l["msg"].as_str().unwrap())).collect();
        assert_eq!(told, [("debug", "now"), ("warning", "one"), ("warning", "two")]);
        assert!(lines[0].get("code").is_none());
    }

    #[test]
    fn a_log_of_errors_only_has_no_warnings() {
        let globals = Globals { log_level: LogLevel::Error, ..Globals::default() };
        let log = Log::stderr(&globals);
        log.warn("minor");
        assert!(log.warnings.take().is_empty());
    }

    #[test]
    fn the_log_is_appended_to() {
        let (log, path) = log_to("append", LogFormat::Text, false);
        log.error(&Error::new(rcrun_runtime::Code::Usage, "first"));
        let again =
            Log::open(&Globals { log: Some(LogPlace::File(path.clone())), ..Globals::default() }).unwrap();
        again.error(&Error::new(rcrun_runtime::Code::Usage, "second \u{1b}[31m"));
        let text = read(&path);
        let ends: Vec<_> = text.lines().map(|l| l.split_once(" level=").unwrap().1).collect();
        assert_eq!(ends, ["error msg=\"first\" code=usage", "error msg=\"second \\u{1b}[31m\" code=usage"]);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error_that_names_it() {
        let globals = Globals { log: Some("/nowhere/log".into()), ..Globals::default() };
        let error = Log::open(&globals).unwrap_err();
        assert_eq!(error.to_string(), "open the log /nowhere/log: no such file or directory");
    }

    #[test]
    fn moments_are_written_as_date_does() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (68_256_000, "1972-03-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_233_759, "2026-11-21T04:02:39Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (13_574_649_600, "2400-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
