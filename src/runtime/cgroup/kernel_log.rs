//! Kills by the OOM killer as the kernel's log tells them, which outlives the cgroup: for a scope that systemd has removed,
//! with its count, before anybody could read it. The kernel writes before it kills.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, fstat, makedev, open, seek, statat};
use rustix::io::{Errno, read};
use std::os::fd::{AsFd, OwnedFd};

use super::Cgroup;

/// /dev/kmsg: what a container was given in its place (a console, /dev/null) would tell of no kill.
const KMSG: (u32, u32) = (1, 11);

/// Of the hierarchy's root. A mount of a part of it, or in a cgroup namespace, shows other paths than the log has.
const ROOT_INODE: u64 = 1;

/// What the log tells of one cgroup, from when this was opened.
#[derive(Debug)]
pub(super) struct KernelLog {
    file: OwnedFd,
    /// The scope's path, as the log writes it.
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
    pub(super) fn from_now(cgroup: &Cgroup) -> Option<KernelLog> {
        let path = cgroup.path();
        if !path.as_str().ends_with(".scope") {
            return None;
        }
        let root = vec![".."; path.names().count()].join("/");
        if statat(cgroup.as_fd(), root.as_str(), AtFlags::empty()).ok()?.st_ino != ROOT_INODE {
            return None;
        }
        // What lies there in place of the log may be a FIFO, which nobody writes.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = open("/dev/kmsg", flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if !device || stat.st_rdev != makedev(KMSG.0, KMSG.1) {
            return None;
        }
        seek(&file, SeekFrom::End(0)).ok()?;
        Some(KernelLog { file, scope: escaped(path.as_str()), told: Told::default() })
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
            let Some(place) = place(facts) else { return };
            self.placed += 1;
            let below = place.strip_prefix(scope);
            self.in_scope += u64::from(below.is_some_and(|below| below.is_empty() || below.starts_with('/')));
        } else if text.contains("ut of memory") && text.contains(": Killed process ") {
            self.kills += 1;
        }
    }

    fn kills(&self) -> Option<u64> {
        let all_told = !self.lost && self.kills <= self.placed;
        (all_told || self.in_scope > 0).then_some(self.in_scope)
    }
}

/// The cgroup that a victim was in. A container may have named a cgroup below its own, or a process, so that the mark of it
/// stands there twice: no scope's name has it, and which of them the kernel wrote, nobody can tell. What follows the path's
/// first names, which are the kernel's, may be anything.
fn place(facts: &str) -> Option<&str> {
    let (_, rest) = facts.split_once(",task_memcg=")?;
    let (path, rest) = rest.split_once(",task=")?;
    (!rest.contains(",task_memcg=") && !path.contains(",task_memcg=")).then_some(path)
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

    const SCOPE: &str = "/system.slice/a.scope";
    const OTHER: &str = "/system.slice/b.scope";
    const PLACED: &str = "6,1310,84210,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a.scope,mems_allowed=0,\
        oom_memcg=/system.slice/a.scope,task_memcg=/system.slice/a.scope,task=tail,pid=77,uid=0\n SUBSYSTEM=x\n";
    const KILLED: &str =
        "3,1311,84211,-;Memory cgroup out of memory: Killed process 77 (tail) total-vm:1kB, anon-rss:1kB\n";

    #[test]
    fn a_kill_is_the_scopes_whose_process_it_was() {
        for (records, scope, kills) in [
            (&[PLACED, KILLED][..], SCOPE, Some(1)),
            (&[PLACED, KILLED, PLACED, KILLED], SCOPE, Some(2)),
            (&[PLACED, KILLED], OTHER, Some(0)),
            (&[], SCOPE, Some(0)),
            // One of which the log does not say where.
            (&[PLACED, KILLED, KILLED], OTHER, None),
            (&[PLACED, KILLED, KILLED], SCOPE, Some(1)),
        ] {
            assert_eq!(told(records, scope).kills(), kills, "{records:?} {scope}");
        }
        let below = PLACED.replace("task_memcg=/system.slice/a.scope", "task_memcg=/system.slice/a.scope/b");
        assert_eq!(told(&[&below], SCOPE).kills(), Some(1));
        let lost = Told { lost: true, ..told(&[PLACED, KILLED], OTHER) };
        assert_eq!(lost.kills(), None);
    }

    #[test]
    fn nobody_else_writes_a_kill_into_the_log() {
        // Who may write to the log has facility 1 (user) or above there.
        let forged = PLACED.replacen("6,", "14,", 1);
        for record in [forged.as_str(), "6,1,2,-;words of oom-kill: in between", "6,1", ""] {
            assert_eq!(told(&[record], SCOPE), Told::default(), "{record}");
        }
    }

    #[test]
    fn a_container_that_names_cgroups_and_processes_as_it_likes_places_no_kill_in_anothers_scope() {
        let in_other = |below: &str, comm: &str| {
            let facts =
                format!("oom_memcg={OTHER}{below},task_memcg={OTHER}{below},task={comm},pid=77,uid=0");
            format!(
                "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=b.scope,mems_allowed=0,{facts}\n"
            )
        };
        assert_eq!(told(&[&in_other("", "tail")], OTHER).in_scope, 1);
        for (below, comm) in [
            ("/a.scope", "tail"),
            ("/system.slice/a.scope", "tail"),
            ("/,task=", "/a.scope"),
            ("/,task_memcg=/system.slice/a.scope", "tail"),
            ("/,task_memcg=/system.slice/a.scope/,task=", "tail"),
            ("", ",task_memcg=/"),
            ("", ",task=tail"),
        ] {
            let told = told(&[&in_other(below, comm), KILLED], SCOPE);
            assert_eq!(told.in_scope, 0, "{below} {comm}");
            // Where the kill was may be uncertain then, and is never told to have been here.
            assert_ne!(told.kills(), Some(1), "{below} {comm}");
        }
        // The name goes on: that is another scope's.
        let longer = PLACED.replace("/a.scope,task=", "/a.scopes,task=");
        assert_eq!(told(&[&longer], SCOPE).in_scope, 0);
    }

    #[test]
    fn names_are_sought_as_the_log_writes_them() {
        assert_eq!(escaped("docker-a.scope"), "docker-a.scope");
        assert_eq!(escaped("a\\x2db é.scope"), "a\\x5cx2db \\xc3\\xa9.scope");
    }
}
