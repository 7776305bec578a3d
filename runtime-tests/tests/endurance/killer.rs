//! Kills a shim, containerd, or both, again and again. Uses place.

use crate::dice::Dice;
use crate::place::{Container, Fate, Place};
use runtime_tests::containerd::SHIM;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What containerd is given the time for, from one kill to the next: some commands of each worker.
const ANSWERS: u64 = 8;

/// Until it is over. Fails where containerd does not come up again. With `spares` containerd lives.
pub fn kill(place: &Place, over: &AtomicBool, spares: bool, mut dice: Dice) -> Result<(), String> {
    loop {
        // Who ends the round wakes us.
        std::thread::park_timeout(Duration::from_millis(300 + dice.below(2500)));
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (shim, containerd) = match dice.below(10) {
            _ if spares => (true, false),
            0..5 => (true, false),
            5..8 => (false, true),
            _ => (true, true),
        };
        if shim {
            let all = place.victims();
            if let Some(victim) = dice.of(&all) {
                kill_shim(place, victim);
            }
        }
        if containerd {
            // On a slow machine each command would meet a kill, and nothing would ever come to its end.
            place.answers(ANSWERS, over);
            place.kill_containerd()?;
        }
    }
}

/// The shim of a container of its own, or the command that is about to start it.
fn kill_shim(place: &Place, victim: &Container) {
    victim.hit.store(true, Ordering::SeqCst);
    let mut fate = victim.fate.lock().expect("lock");
    for (pid, words) in shims() {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // The pid may have been another's when the pidfd was opened.
        if of_container(&words, &victim.id) && command_line(pid.as_raw_nonzero().get()) == words {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            if *fate == Fate::Open {
                *fate = Fate::Orphaned;
            }
            place.tell(format!("shim of {} is killed", victim.id));
            place.counted(|counts| counts.shims_killed += 1);
        }
    }
}

/// The shims that serve or start, with their command lines.
pub fn shims() -> Vec<(i32, Vec<String>)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = pids.map(|pid| (pid, command_line(pid)));
    found
        .filter(|(_, words)| {
            words.iter().take(2).any(|word| word.ends_with(SHIM.1))
                && words.iter().any(|word| word == "start")
        })
        .collect()
}

/// Whether a shim was started for that container.
pub fn of_container(words: &[String], id: &str) -> bool {
    words.windows(2).any(|pair| pair[0] == "-id" && pair[1] == id)
}

fn command_line(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
