//! Changes the limits of a cgroup in use: all of them or none.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use rustix::io::Errno;

use super::control::replaced_by;
use super::file::{read_list, read_value, write_control};
use super::{Cgroup, Write};
use crate::{Error, Result};

/// What becomes of one value of a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The control file.
    pub file: String,
    /// What it says, or of its lines the one that is replaced; None where it cannot be read.
    pub old: Option<String>,
    /// What is written.
    pub new: String,
}

impl Cgroup {
    /// Adds to `resources` what of a pair it leaves out, from what is in force: quota and period are one file, and `swap`
    /// counts memory too. (runc takes the other half from the container's last config.)
    pub fn complete(&self, resources: &mut LinuxResources) -> Result<()> {
        if let Some(cpu) = resources.cpu_mut() {
            self.complete_cpu(cpu)?;
        }
        if let Some(memory) = resources.memory_mut() {
            self.complete_memory(memory)?;
        }
        Ok(())
    }

    fn complete_cpu(&self, cpu: &mut LinuxCpu) -> Result<()> {
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        if (quota == 0) == (period == 0) {
            return Ok(());
        }
        // Without the controller compile or apply says so.
        let Some(text) = self.read("cpu.max")? else { return Ok(()) };
        let mut words = text.split_whitespace();
        let (old_quota, old_period) = (words.next().unwrap_or("max"), words.next().unwrap_or_default());
        if quota == 0 {
            cpu.set_quota(Some(old_quota.parse().unwrap_or(-1)));
        } else if let Ok(period) = old_period.parse() {
            cpu.set_period(Some(period));
        }
        Ok(())
    }

    fn complete_memory(&self, memory: &mut LinuxMemory) -> Result<()> {
        let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
        if swap != 0 && limit == 0 {
            if let Some(old) = self.read("memory.max")? {
                memory.set_limit(Some(number_or_max(&old)));
            }
        } else if limit > 0 && swap == 0 {
            // memory+swap stays what it is, as with runc. No swap at all stays no swap, and no limit none.
            let (Some(old), Some(old_swap)) = (self.read("memory.max")?, self.read("memory.swap.max")?)
            else {
                return Ok(());
            };
            let (old, old_swap) = (number_or_max(&old), number_or_max(&old_swap));
            if old > 0 && old_swap > 0 {
                memory.set_swap(Some(old.saturating_add(old_swap)));
            }
        }
        Ok(())
    }

    /// What `writes` will change. A file that is missing and needed is an error.
    pub fn changes(&self, writes: &[Write]) -> Result<Vec<Change>> {
        let resolved = writes.iter().map(|write| self.resolve(write));
        resolved.filter_map(|change| change.transpose()).collect()
    }

    /// Makes the writes, in order. After a failure the old values are written back, and the error says so.
    pub fn change(&self, writes: &[Write]) -> Result<()> {
        let changes = self.changes(writes)?;
        // Taking idle away sets the weight to its default.
        let idles = writes.iter().any(|write| write.file == "cpu.idle");
        let weight = if idles && self.read("cpu.idle")?.as_deref() == Some("0") {
            self.read("cpu.weight")?
        } else {
            None
        };
        let Err(error) = self.apply(writes) else { return Ok(()) };
        let mut undo: Vec<(&str, &str)> = changes
            .iter()
            .rev()
            .filter_map(|change| Some((change.file.as_str(), change.old.as_deref()?)))
            .collect();
        undo.extend(weight.iter().map(|weight| ("cpu.weight", weight.as_str())));
        Err(match self.restore(undo) {
            Ok(()) => error.hint(Some("all limits are as they were")),
            Err(failed) => error.attach(&failed),
        })
    }

    /// Takes back `changes` that were made, for a caller in whose hands something after them failed.
    pub fn put_back(&self, changes: &[Change]) -> Result<()> {
        let undo = changes.iter().rev().filter_map(|c| Some((c.file.as_str(), c.old.as_deref()?)));
        self.restore(undo.filter(|(file, _)| file.contains('.')).collect())
    }

    /// Writes back what was read. What the kernel refuses because of another value (a burst above the quota, a weight of an
    /// idle cgroup) is tried again after the others.
    fn restore(&self, mut undo: Vec<(&str, &str)>) -> Result<()> {
        loop {
            let mut refused = Vec::new();
            let mut first = None;
            let before = undo.len();
            for (file, old) in undo {
                // An empty write(2) never reaches the kernel's file.
                let value = if old.is_empty() { "\n" } else { old };
                if self.still_says(file, old) {
                    continue;
                }
                if let Err(errno) = write_control(self, file, value) {
                    first.get_or_insert((file, old, errno));
                    refused.push((file, old));
                }
            }
            match first {
                None => return Ok(()),
                Some((file, old, errno)) if refused.len() == before => {
                    let what = format!("write the old {old:?} back to {file} of cgroup {}", self.path());
                    return Err(Error::call(what, errno));
                }
                Some(_) => undo = refused,
            }
        }
    }

    fn still_says(&self, file: &str, old: &str) -> bool {
        read_list(self, file).is_ok_and(|content| replaced_by(file, old, &content) == old)
    }

    /// The file that a write goes to, what it says, and what it gets. None where nothing is written.
    fn resolve(&self, write: &Write) -> Result<Option<Change>> {
        let second = write.or_else.as_ref().map(|(file, value)| (*file, value.as_str()));
        for (file, new) in [Some((&*write.file, write.value.as_str())), second].into_iter().flatten() {
            let old = match read_list(self, file) {
                Ok(content) => Some(replaced_by(file, new, &content)),
                Err(Errno::NOENT) => continue,
                Err(Errno::NODEV) => return Err(self.gone()),
                // It can only be written, as memory.reclaim.
                Err(Errno::INVAL | Errno::ACCESS | Errno::OPNOTSUPP) => None,
                Err(errno) => {
                    return Err(Error::call(format!("read {file} of cgroup {}", self.path()), errno));
                }
            };
            return Ok(Some(Change { file: file.to_string(), old, new: new.trim_end().to_string() }));
        }
        if self.is_gone() {
            return Err(self.gone());
        }
        if write.missing_ok { Ok(None) } else { Err(self.explain(write, Errno::NOENT)) }
    }

    /// A control file of one line; None where the cgroup has none of that name.
    pub(super) fn read(&self, file: &str) -> Result<Option<String>> {
        match read_value(self, file) {
            Ok(text) => Ok(Some(text.trim_end().to_string())),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NODEV) => Err(self.gone()),
            Err(errno) => Err(Error::call(format!("read {file} of cgroup {}", self.path()), errno)),
        }
    }
}

/// The kernel's `max` as the spec's -1.
fn number_or_max(text: &str) -> i64 {
    text.parse().unwrap_or(-1)
}
