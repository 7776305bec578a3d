//! Endurance: containers are created, entered, read, paused, killed and deleted under containerd in random order, while the
//! shim and containerd are killed at random. After each round nothing may be left of it, and every end was told.
//!
//! usage: endurance [--minutes N] [--seed N]
//!
//! `RCRUN` is the runtime, with the shim beside it. `make endurance` sets all of it up. The same seed throws the same dice;
//! what meets what is decided by the machine.

mod dice;
mod ear;
mod killer;
mod left;
mod place;
mod relay;
mod worker;

use ear::Ear;
use left::Left;
use place::Place;
use runtime_tests::namespaces;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many act at once.
const WORKERS: u64 = 4;

/// The load rests that often: what is left over is then looked for. The first round warms up.
const ROUNDS: u32 = 5;

/// In this one only shims are killed: what containerd tells, and what it holds, is that of one containerd.
const SPARING: u64 = 2;

/// What the memory of the pod's shim may grow by, from the end of the first round to that of the last: pages that the
/// allocator has touched by then, not more with more containers.
const GROWTH_KIB: u64 = 256;

struct Asked {
    minutes: f64,
    seed: u64,
}

impl Asked {
    fn parse() -> Result<Asked, String> {
        let mut words = std::env::args().skip(1);
        // The seed is for people to write down: short.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut asked = Asked { minutes: 3.0, seed: now.map_or(1, |d| d.as_millis() as u64 % 1_000_000) };
        while let Some(name) = words.next() {
            let value = words.next().ok_or(format!("{name} needs a value"))?;
            let wrong = || format!("{name} {value}: not a number");
            match name.as_str() {
                "--minutes" => asked.minutes = value.parse().map_err(|_| wrong())?,
                "--seed" => asked.seed = value.parse().map_err(|_| wrong())?,
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(asked)
    }
}

fn main() -> ExitCode {
    let asked = match Asked::parse() {
        Ok(asked) => asked,
        Err(sentence) => {
            eprintln!("endurance: {sentence}");
            return ExitCode::FAILURE;
        }
    };
    let folder = match namespaces::enter() {
        Ok(folder) => folder,
        Err(status) => return status,
    };
    match run(&folder, &asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("endurance: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path, asked: &Asked) -> Result<(), String> {
    println!("endurance: {} minutes, seed {}", asked.minutes, asked.seed);
    let place = Place::start(folder)?;
    place.restart_containerd()?;
    // The connection on which events go is made with the first one: a shim that is still about to tell its start has none.
    place.warm_up()?;
    let before = Left::look(&place)?;
    let length = Duration::from_secs_f64(asked.minutes * 60.0) / ROUNDS;
    let mut memory = Vec::new();
    for round in 0..ROUNDS {
        let wrong = match round_of(&place, &before, length, asked.seed, u64::from(round)) {
            Ok(()) => place.failures().join("\n"),
            Err(sentence) => place.failures().join("\n") + &sentence,
        };
        if !wrong.is_empty() {
            return Err(format!("seed {}:\n{wrong}\n{}", asked.seed, place.about(&wrong)));
        }
        let now = left::memory(place.pod_shim)?;
        println!("round {}: {}; the pod's shim has {now}", round + 1, place.counts());
        memory.push(now);
    }
    let (first, last) = (&memory[0], &memory[memory.len() - 1]);
    if last.own_kib > first.own_kib + GROWTH_KIB {
        return Err(format!("the pod's shim has grown from {first} to {last}: seed {}", asked.seed));
    }
    println!("endurance: nothing is left, every end was told");
    Ok(())
}

fn round_of(place: &Place, before: &Left, length: Duration, seed: u64, round: u64) -> Result<(), String> {
    if round == SPARING {
        // What containerd opens but once is open after some of it.
        load(place, length / 5, seed, ROUNDS.into(), true)?;
        let (warm, ear) = (before.with_containerd(place)?, Ear::new(place)?);
        place.forget_orphans();
        load(place, length, seed, round, true)?;
        ear.has_heard_ends_of(place, &place.forget_orphans())?;
        drop(ear);
        warm.is_all(place)?;
    } else {
        load(place, length, seed, round, false)?;
    }
    // What a containerd that was killed has left, it removes when it starts.
    place.restart_containerd()?;
    before.is_all(place)?;
    place.heard.is_whole(place)?;
    place.no_runtime_was_executed()
}

/// One round: all act until its time is over, and remove what they have.
fn load(place: &Place, length: Duration, seed: u64, round: u64, spares: bool) -> Result<(), String> {
    let end = Instant::now() + length;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| killer::kill(place, &over, spares, dice::Dice::new(seed, round * 100)));
        let workers: Vec<_> = (1..=WORKERS)
            .map(|number| {
                let dice = dice::Dice::new(seed, round * 100 + number);
                scope.spawn(move || worker::Worker::new(place, format!("r{round}w{number}"), dice).work(end))
            })
            .collect();
        let panicked = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        over.store(true, Ordering::Relaxed);
        place.wake();
        killer.thread().unpark();
        let killed = killer.join().map_err(|_| "the killer has panicked".to_string())?;
        if panicked > 0 { Err("a worker has panicked".into()) } else { killed }
    })
}
