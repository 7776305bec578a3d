//! The processes of one container, from their creation to the end that is told. Pure: what has happened goes in, what is to
//! be told comes out, in the order that containerd's documentation demands.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// The name of a container's first process, where execs have theirs.
pub const INIT: &str = "";

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its status, or 128 and the signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Somebody is at it: what it does meanwhile is told after that.
    Busy,
    /// Not yet started.
    Created,
    /// Started.
    Running,
    /// It runs and is written to images, which may end it: that is told when it is written.
    Written,
}

/// One process.
#[derive(Debug)]
pub struct Process<T> {
    /// How far it is.
    pub phase: Phase,
    /// Its pid; 0 where it has none yet.
    pub pid: i32,
    /// How it has ended.
    pub ended: Option<Ended>,
    /// Its end has been told: for containerd it has ended only now.
    pub told: bool,
    /// What else belongs to it.
    pub with: T,
}

/// All of them.
#[derive(Debug)]
pub struct Life<T> {
    all: BTreeMap<String, Process<T>>,
}

/// An end that may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose: the exec's id, or INIT.
    pub name: String,
    /// Its pid.
    pub pid: i32,
    /// How.
    pub ended: Ended,
}

impl<T> Life<T> {
    /// A container with its first process, which somebody is about to make.
    pub fn new(init: T) -> Life<T> {
        let mut life = Life { all: BTreeMap::new() };
        life.add(INIT, Phase::Busy, init);
        life
    }

    /// One more; false where there is one of that name.
    pub fn add(&mut self, name: &str, phase: Phase, with: T) -> bool {
        if self.all.contains_key(name) {
            return false;
        }
        self.all.insert(name.to_string(), Process { phase, pid: 0, ended: None, told: false, with });
        true
    }

    /// The process with that name.
    pub fn get(&self, name: &str) -> Option<&Process<T>> {
        self.all.get(name)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Process<T>> {
        self.all.get_mut(name)
    }

    /// Forgets one.
    pub fn remove(&mut self, name: &str) -> Option<Process<T>> {
        self.all.remove(name)
    }

    /// Forgets all that are left.
    pub fn take_all(&mut self) -> impl Iterator<Item = Process<T>> + use<T> {
        std::mem::take(&mut self.all).into_values()
    }

    /// The name of the process that has `pid`, or had it last.
    pub fn by_pid(&self, pid: i32) -> Option<&str> {
        let alive = self.all.iter().find(|(_, process)| process.pid == pid && process.ended.is_none());
        alive.map(|(name, _)| name.as_str())
    }

    /// Those that are to be told of a pid of theirs in `pids`.
    pub fn execs(&self) -> impl Iterator<Item = (&str, &Process<T>)> {
        self.all.iter().filter(|(name, _)| *name != INIT).map(|(name, process)| (name.as_str(), process))
    }

    /// The first process has ended: nothing can be started any more.
    pub fn is_over(&self) -> bool {
        self.get(INIT).is_none_or(|init| init.ended.is_some())
    }

    /// The ends that may be told now, in order: those of execs, and after the last one that of the first process. Nobody
    /// hears of an end while somebody still is at the process, who has a start to tell.
    pub fn tell(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        let mut left = false;
        for (name, process) in self.all.iter_mut().filter(|(name, _)| *name != INIT) {
            match (process.phase, process.ended) {
                (Phase::Busy, _) | (Phase::Running, None) => left = true,
                (_, Some(ended)) if !process.told => {
                    process.told = true;
                    told.push(Told { name: name.clone(), pid: process.pid, ended });
                }
                _ => {}
            }
        }
        if let Some(init) = self.all.get_mut(INIT)
            && let (false, false, Some(ended), Phase::Created | Phase::Running) =
                (left, init.told, init.ended, init.phase)
        {
            init.told = true;
            told.push(Told { name: INIT.to_string(), pid: init.pid, ended });
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: u32) -> Option<Ended> {
        Some(Ended { status, at: SystemTime::UNIX_EPOCH })
    }

    fn names(told: &[Told]) -> Vec<(&str, u32)> {
        told.iter().map(|told| (told.name.as_str(), told.ended.status)).collect()
    }

    fn running() -> Life<()> {
        let mut life = Life::new(());
        let init = life.get_mut(INIT).unwrap();
        (init.phase, init.pid) = (Phase::Running, 10);
        life
    }

    #[test]
    fn ends_of_execs_are_told_before_that_of_init() {
        let mut life = running();
        life.add("a", Phase::Running, ());
        life.add("never-started", Phase::Created, ());
        life.get_mut(INIT).unwrap().ended = ended(0);
        assert!(life.tell().is_empty() && life.is_over());
        life.get_mut("a").unwrap().ended = ended(137);
        assert_eq!(names(&life.tell()), [("a", 137), (INIT, 0)]);
        assert!(life.tell().is_empty(), "nothing is told twice");
    }

    #[test]
    fn an_end_that_comes_before_start_has_returned_is_told_after_it() {
        let mut life = running();
        life.add("a", Phase::Busy, ());
        life.get_mut("a").unwrap().ended = ended(1);
        life.get_mut(INIT).unwrap().phase = Phase::Busy;
        life.get_mut(INIT).unwrap().ended = ended(2);
        assert!(life.tell().is_empty());
        life.get_mut(INIT).unwrap().phase = Phase::Running;
        assert!(life.tell().is_empty(), "the exec may still have started");
        life.get_mut("a").unwrap().phase = Phase::Running;
        assert_eq!(names(&life.tell()), [("a", 1), (INIT, 2)]);
    }

    #[test]
    fn a_container_that_was_never_started_ends_too() {
        let mut life = running();
        life.get_mut(INIT).unwrap().phase = Phase::Created;
        life.get_mut(INIT).unwrap().ended = ended(137);
        assert_eq!(names(&life.tell()), [(INIT, 137)]);
    }

    #[test]
    fn processes_have_names_of_their_own() {
        let mut life = running();
        assert!(life.add("a", Phase::Created, ()) && !life.add("a", Phase::Created, ()));
        life.get_mut("a").unwrap().pid = 11;
        assert_eq!((life.by_pid(10), life.by_pid(11), life.by_pid(12)), (Some(INIT), Some("a"), None));
        life.get_mut("a").unwrap().ended = ended(0);
        assert_eq!(life.by_pid(11), None, "the number may be another's by now");
        assert_eq!(life.execs().count(), 1);
        assert!(life.remove("a").is_some() && life.get("a").is_none());
    }
}
