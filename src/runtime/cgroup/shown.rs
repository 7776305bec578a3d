//! The few figures that tell how a cgroup's processes have ended and what they have used: read in one go from files that are
//! open already, since somebody else may be about to remove the cgroup.

use rustix::fs::OFlags;
use rustix::io::{Errno, pread};
use std::os::fd::OwnedFd;

use super::Cgroup;
use super::file::open_control;
use super::notices::oom_kills;
use super::stats::{CpuUsage, io, keyed};

/// What a cgroup shows of those who are or were in it. What cannot be read is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// How many of them the OOM killer has killed.
    pub oom_kills: Option<u64>,
    /// The time that they have used.
    pub cpu: Option<CpuUsage>,
    /// The most memory that they had, in bytes.
    pub memory_peak: Option<u64>,
    /// Bytes read from block devices.
    pub io_read: Option<u64>,
    /// Bytes written to block devices.
    pub io_written: Option<u64>,
}

impl Shown {
    /// This, and of `earlier` what this lacks.
    pub fn or(self, earlier: Shown) -> Shown {
        Shown {
            oom_kills: self.oom_kills.or(earlier.oom_kills),
            cpu: self.cpu.or(earlier.cpu),
            memory_peak: self.memory_peak.or(earlier.memory_peak),
            io_read: self.io_read.or(earlier.io_read),
            io_written: self.io_written.or(earlier.io_written),
        }
    }
}

/// Their files, those that are there.
#[derive(Debug)]
pub(super) struct Figures {
    kills: Option<OwnedFd>,
    cpu: Option<OwnedFd>,
    peak: Option<OwnedFd>,
    io: Option<OwnedFd>,
}

impl Figures {
    pub(super) fn open(cgroup: &Cgroup) -> Figures {
        let file = |name| open_control(cgroup, name, OFlags::RDONLY).ok();
        Figures {
            kills: file("memory.events"),
            cpu: file("cpu.stat"),
            peak: file("memory.peak"),
            io: file("io.stat"),
        }
    }

    /// What they say now.
    pub(super) fn read(&self) -> Shown {
        let text = |file: &Option<OwnedFd>| whole(file.as_ref()?).ok();
        // The OOM killer first: it is asked for most.
        let kills = text(&self.kills).and_then(|text| oom_kills(&text));
        let peak = text(&self.peak).and_then(|text| text.trim_end().parse().ok());
        let (cpu, blocks) = (text(&self.cpu), text(&self.io));
        let (bytes, _) = io(&blocks.unwrap_or_default());
        let sum = |op: &str| {
            bytes.iter().filter(|entry| entry.op == op).map(|entry| entry.value).reduce(u64::saturating_add)
        };
        Shown {
            oom_kills: kills,
            cpu: cpu.map(|text| CpuUsage::of(&keyed(&text))),
            memory_peak: peak,
            io_read: sum("Read"),
            io_written: sum("Write"),
        }
    }
}

/// All of a file from its beginning. The kernel gives these files in one go, if the buffer has room: no second read that
/// might find the cgroup gone (ENODEV).
fn whole(file: &OwnedFd) -> Result<String, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        match pread(file, &mut buffer, text.len() as u64) {
            Ok(length) => {
                text.extend_from_slice(&buffer[..length]);
                if length < buffer.len() {
                    return Ok(String::from_utf8_lossy(&text).into_owned());
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

impl Cgroup {
    /// What it shows now.
    pub fn shown(&self) -> Shown {
        Figures::open(self).read()
    }
}
