//! Kills by the OOM killer as the kernel's log tells them, which outlives the cgroup: for a scope that systemd has removed,
//! with its count, before anybody could read it. The kernel writes before it kills.

use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::{Errno, read};
use std::os::fd::OwnedFd;

use super::CgroupPath;

/// What the log tells of one cgroup, from when this was opened.
#[derive(Debug)]
pub(super) struct KernelLog {
    file: OwnedFd,
    /// The scope's name, as the log writes it.
    scope: String,
    told: Told,
}

/// What has been read so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// Kills in the scope.
    in_scope: u64,
    /// Kills that the log says more of than that they were: where, above all. Of more than ten in five seconds it does not.
    placed: u64,
    kills: u64,
    /// Records that were overwritten before they were read.
    lost: bool,
}

impl KernelLog {
    /// What is written from now on of a scope of systemd's; others remove no cgroup without a word. None for any other cgroup,
    /// and where the log may not be read (CAP_SYSLOG).
    pub(super) fn from_now(cgroup: &CgroupPath) -> Option<KernelLog> {
        let scope = cgroup.split().1;
        if !scope.ends_with(".scope") {
            return None;
        }
        let file =
            open("/dev/kmsg", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
        seek(&file, SeekFrom::End(0)).ok()?;
        Some(KernelLog { file, scope: escaped(scope), told: Told::default() })
    }

    /// How many kills there were. None where there may have been some that the log does not tell.
    pub(super) fn oom_kills(&mut self) -> Option<u64> {
        // More than a record ever has.
        let mut record = [0_u8; 8192];
        loop {
            match read(&self.file, &mut record) {
                Ok(0) | Err(Errno::AGAIN) => return self.told.kills(),
                Ok(length) => self.told.take(&String::from_utf8_lossy(&record[..length]), &self.scope),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => self.told.lost = true,
                Err(_) => return None,
            }
        }
    }
}

impl Told {
    /// A record: `6,1234,5678,-;text`, of which the first number has the facility, 0 for what the kernel itself has written.
    fn take(&mut self, record: &str, scope: &str) {
        let Some((head, text)) = record.split_once(';') else { return };
        let text = text.lines().next().unwrap_or_default();
        let number = head.split(',').next().and_then(|number| number.parse::<u32>().ok());
        if number.is_none_or(|number| number >> 3 != 0) {
            return;
        }
        if let Some(facts) = text.strip_prefix("oom-kill:") {
            self.placed += 1;
            // The name of the command may have anything in it, and comes last.
            let place = facts.split_once(",task_memcg=").and_then(|(_, rest)| rest.split_once(",task="));
            if place.is_some_and(|(path, _)| path.split('/').any(|part| part == scope)) {
                self.in_scope += 1;
            }
        } else if text.contains("ut of memory") && text.contains(": Killed process ") {
            self.kills += 1;
        }
    }

    fn kills(&self) -> Option<u64> {
        let all_told = !self.lost && self.kills <= self.placed;
        (all_told || self.in_scope > 0).then_some(self.in_scope)
    }
}

/// A text as the log shows it: other bytes than printable ASCII, and backslashes, in hexadecimal.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b' '..=b'~' if byte != b'\\' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(records: &[&str], scope: &str) -> Told {
        let mut told = Told::default();
        records.iter().for_each(|record| told.take(record, scope));
        told
    }

    const PLACED: &str = "6,1310,84210,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a.scope,mems_allowed=0,\
        oom_memcg=/system.slice/a.scope,task_memcg=/system.slice/a.scope,task=tail,pid=77,uid=0\n SUBSYSTEM=x\n";
    const KILLED: &str =
        "3,1311,84211,-;Memory cgroup out of memory: Killed process 77 (tail) total-vm:1kB, anon-rss:1kB\n";

    #[test]
    fn a_kill_is_the_scopes_whose_process_it_was() {
        for (records, scope, kills) in [
            (&[PLACED, KILLED][..], "a.scope", Some(1)),
            (&[PLACED, KILLED, PLACED, KILLED], "a.scope", Some(2)),
            (&[PLACED, KILLED], "b.scope", Some(0)),
            (&[], "a.scope", Some(0)),
            // One of which the log does not say where.
            (&[PLACED, KILLED, KILLED], "b.scope", None),
            (&[PLACED, KILLED, KILLED], "a.scope", Some(1)),
        ] {
            assert_eq!(told(records, scope).kills(), kills, "{records:?} {scope}");
        }
        let below = PLACED.replace("task_memcg=/system.slice/a.scope", "task_memcg=/system.slice/a.scope/b");
        assert_eq!(told(&[&below], "a.scope").kills(), Some(1));
        let lost = Told { lost: true, ..told(&[PLACED, KILLED], "b.scope") };
        assert_eq!(lost.kills(), None);
    }

    #[test]
    fn nobody_else_writes_a_kill_into_the_log() {
        // Who may write to the log has facility 1 (user) or above there.
        let forged = PLACED.replacen("6,", "14,", 1);
        // A process calls itself what it likes.
        let named = PLACED.replace("/a.scope,task=tail", "/b.scope,task=,task_memcg=/a.scope,task=");
        for record in [forged.as_str(), named.as_str(), "6,1,2,-;words of oom-kill: in between", "6,1", ""] {
            assert_eq!(told(&[record], "a.scope").in_scope, 0, "{record}");
        }
    }

    #[test]
    fn names_are_sought_as_the_log_writes_them() {
        assert_eq!(escaped("docker-a.scope"), "docker-a.scope");
        assert_eq!(escaped("a\\x2db é.scope"), "a\\x5cx2db \\xc3\\xa9.scope");
    }
}
