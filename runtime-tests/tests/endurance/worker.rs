//! One of those who act: it has a few containers, and does at random what may be done with them. Uses place.

use crate::dice::Dice;
use crate::place::{Container, Done, Fate, Place};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// As many containers at a time.
const AT_ONCE: usize = 3;

/// How often a command is repeated that containerd's death has disturbed.
const ATTEMPTS: usize = 30;

/// How many lines a container writes.
const LINES: usize = 200;

/// What runs in a container.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A shell that waits, and ends with 7 when it is told to.
    Waits,
    /// A shell with children.
    Family,
    /// It writes, and has ended soon, with this status.
    Ends(u64),
}

impl Kind {
    fn script(self) -> String {
        match self {
            Kind::Waits => "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done".into(),
            Kind::Family => "sleep 1000 & sleep 1000 & (sleep 1000 & wait) & echo up; wait".into(),
            Kind::Ends(status) => {
                format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit {status}")
            }
        }
    }
}

struct Own {
    container: Arc<Container>,
    kind: Kind,
    paused: bool,
    /// `ctr run` has said that it runs.
    ran: bool,
    execs: u64,
    log: PathBuf,
}

/// The worker.
pub struct Worker<'a> {
    place: &'a Place,
    name: String,
    dice: Dice,
    made: u64,
    own: Vec<Own>,
}

impl<'a> Worker<'a> {
    /// One without containers.
    pub fn new(place: &'a Place, name: String, dice: Dice) -> Worker<'a> {
        Worker { place, name, dice, made: 0, own: Vec::new() }
    }

    /// Acts until `end`, then removes what it has.
    pub fn work(mut self, end: Instant) {
        while Instant::now() < end && self.place.failures().len() < 5 {
            let full = self.own.len() == AT_ONCE;
            if self.own.is_empty() || (!full && self.dice.percent(35)) {
                if self.dice.percent(25) {
                    self.run_to_its_end()
                } else {
                    self.create()
                }
                continue;
            }
            let at = self.dice.below(self.own.len() as u64) as usize;
            match self.dice.below(10) {
                0..3 => self.exec(at),
                3..4 => self.pause_or_resume(at),
                4..5 => self.ask(at),
                5..7 => self.kill(at),
                _ => self.delete(at),
            }
        }
        while !self.own.is_empty() {
            self.delete(0);
        }
    }

    fn container(&mut self) -> Arc<Container> {
        self.made += 1;
        let id = format!("{}c{}", self.name, self.made);
        let (pod, hit, fate) = (self.dice.percent(35), AtomicBool::new(false), Mutex::default());
        let container = Arc::new(Container { id, pod, hit, fate });
        self.place.announce(&container);
        container
    }

    fn kind(&mut self) -> Kind {
        match self.dice.below(4) {
            0..2 => Kind::Waits,
            2 => Kind::Family,
            _ => Kind::Ends(self.status()),
        }
    }

    /// One that is no status of ctr's or of a signal.
    fn status(&mut self) -> u64 {
        3 + self.dice.below(60)
    }

    /// A container in the foreground, which tells its status.
    fn run_to_its_end(&mut self) {
        let status = self.status();
        let container = self.container();
        // ctr removes it as soon as it has ended.
        *container.fate.lock().expect("lock") = Fate::Removed;
        let done = self.place.run(&["--rm"], container.pod, &container.id, &Kind::Ends(status).script());
        let ran = self.expect(&container, "run --rm", &done, status as i32);
        if ran {
            self.place.has_ended(&container.id, "", status as u32);
            self.has_said(&container, "run --rm", &done, LINES);
        }
        let log = PathBuf::new();
        self.own.push(Own { container, kind: Kind::Ends(status), paused: false, ran, execs: 0, log });
        let hit = self.own[self.own.len() - 1].container.hit.load(Ordering::SeqCst);
        // ctr tells the container's status also where it could not remove it.
        if ran && !done.disturbed && !hit {
            let own = self.own.swap_remove(self.own.len() - 1);
            self.place.forget(&own.container, true);
        } else {
            self.delete(self.own.len() - 1);
        }
    }

    fn create(&mut self) {
        let (container, kind) = (self.container(), self.kind());
        let log = self.place.logs.join(&container.id);
        let uri = format!("file://{}", log.display());
        let done = self.place.run(&["-d", "--log-uri", &uri], container.pod, &container.id, &kind.script());
        let ran = self.expect(&container, "run -d", &done, 0);
        self.own.push(Own { container, kind, paused: false, ran, execs: 0, log });
        if !ran {
            self.delete(self.own.len() - 1);
        }
    }

    fn exec(&mut self, at: usize) {
        let status = self.status();
        let own = &mut self.own[at];
        own.execs += 1;
        let (name, script) = (format!("e{}", own.execs), format!("echo in exec; exit {status}"));
        let container = Arc::clone(&own.container);
        // In one that has ended or sleeps nothing can be started.
        if own.paused || matches!(own.kind, Kind::Ends(_)) {
            return;
        }
        self.place.counted(|counts| counts.execs += 1);
        let done = self.place.ctr(&["task", "exec", "--exec-id", &name, &container.id, "sh", "-c", &script]);
        if self.expect(&container, "exec", &done, status as i32) {
            self.place.has_ended(&container.id, &name, status as u32);
            self.has_said(&container, "exec", &done, 1);
        }
    }

    fn pause_or_resume(&mut self, at: usize) {
        let own = &mut self.own[at];
        if matches!(own.kind, Kind::Ends(_)) {
            return;
        }
        let word = if own.paused { "resume" } else { "pause" };
        let container = Arc::clone(&own.container);
        let done = self.place.ctr(&["task", word, &container.id]);
        let went = self.expect(&container, word, &done, 0);
        if went {
            self.own[at].paused = !self.own[at].paused;
        } else {
            // Nobody knows how it is.
            self.delete(at);
        }
    }

    fn ask(&mut self, at: usize) {
        let own = &self.own[at];
        if matches!(own.kind, Kind::Ends(_)) {
            return;
        }
        let container = Arc::clone(&own.container);
        for words in [["task", "metrics", &container.id], ["task", "ps", &container.id]] {
            let done = self.place.ctr(&words);
            self.expect(&container, words[1], &done, 0);
        }
    }

    fn kill(&mut self, at: usize) {
        let signal = if self.dice.percent(50) { "TERM" } else { "KILL" };
        let own = &self.own[at];
        if !matches!(own.kind, Kind::Ends(_)) && !own.paused {
            let done = self.place.ctr(&["task", "kill", "-s", signal, &own.container.id]);
            let container = Arc::clone(&own.container);
            self.expect(&container, "kill", &done, 0);
        }
        self.delete(at);
    }

    /// Removes a container, whatever has happened to it. Nobody else may make it fail but who is killed.
    fn delete(&mut self, at: usize) {
        let own = self.own.swap_remove(at);
        let id = &own.container.id;
        let fate = std::mem::replace(&mut *own.container.fate.lock().expect("lock"), Fate::Removed);
        if own.ran && fate == Fate::Orphaned {
            self.place.is_orphaned(id);
        }
        // What ran in the foreground has no log.
        if own.ran && own.log.exists() && matches!(own.kind, Kind::Ends(_)) {
            self.has_written_all(&own);
        }
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            // Its status is that of the container.
            let task = self.place.ctr(&["task", "rm", "-f", id]);
            let removed = self.place.ctr(&["container", "rm", id]);
            // Its task or its snapshot may be what is not found.
            let gone = format!("container \"{id}\" in namespace");
            if removed.said.status == 0 || removed.said.err.contains(&gone) {
                self.place.forget(&own.container, own.ran);
                let _ = std::fs::remove_file(&own.log);
                return;
            }
            last = format!("task rm: {}container rm: {}", task.said.err, removed.said.err);
            let disturbed = task.disturbed || removed.disturbed || own.container.hit.load(Ordering::SeqCst);
            if !disturbed {
                break;
            }
        }
        self.place.forget(&own.container, own.ran);
        self.place.fails(format!("{id} ({:?}) cannot be removed: {last}", own.kind));
    }

    /// Waits until it has ended; then its log is whole.
    fn has_written_all(&self, own: &Own) {
        let id = &own.container.id;
        for _ in 0..ATTEMPTS {
            let list = self.place.ctr(&["task", "ls"]);
            let of = |line: &&str| line.split_whitespace().next() == Some(id);
            match list.said.out.lines().find(of) {
                Some(line) if line.contains("STOPPED") => break,
                Some(_) => {}
                None if list.disturbed || list.said.status != 0 => {}
                None => break,
            }
        }
        let text = std::fs::read_to_string(&own.log).unwrap_or_default();
        let lines = text.lines().count();
        if lines != LINES && !own.container.hit.load(Ordering::SeqCst) {
            self.place.fails(format!("{id} wrote {LINES} lines, and its log has {lines}"));
        }
    }

    /// All that was written has come through the FIFOs.
    fn has_said(&self, container: &Container, what: &str, done: &Done, lines: usize) {
        let came = done.said.out.lines().count();
        if came != lines && !done.disturbed && !container.hit.load(Ordering::SeqCst) {
            self.place.fails(format!("{}: {what} wrote {lines} lines, and {came} came", container.id));
        }
    }

    /// Whether it went as it should; where nobody was killed, nothing else may happen.
    fn expect(&self, container: &Container, what: &str, done: &Done, status: i32) -> bool {
        if done.said.status == status {
            return true;
        }
        // containerd was killed after it had made a snapshot's folder and before it had written the number down: the number is
        // given again, and the folder is in its way.
        let number_was_given =
            done.said.err.contains("/snapshots/new-") && done.said.err.contains(": file exists");
        if !done.disturbed && !container.hit.load(Ordering::SeqCst) && !number_was_given {
            let (id, said) = (&container.id, &done.said);
            self.place.fails(format!("{id}: {what} ended with {}, not {status}: {}", said.status, said.err));
        }
        false
    }
}
