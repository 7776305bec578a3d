//! Real engines with the runtime under test in runc's place: Docker with the classic builder and BuildKit, containerd's
//! ctr, podman, buildah and docker-compose. What they are asked, and what must come of it, stands in tables that read
//! like the tutorials of those who use them.
//!
//! usage: real_engines [--list] [PART-OF-A-NAME]...
//!
//! `RCRUN` is the runtime; `RUNTIME=/usr/sbin/runc` in its place tells what another one makes of the same. `ENGINES_IMAGE`
//! is what `runtime-tests/engines/make-image` printed. `make engines` sets all of it up.

mod build;
mod compose;
mod containerd;
mod database;
mod docker;
mod images;
mod namespaces;
mod network;
mod podman;
mod swarm;
mod tutorial;
mod volumes;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;
use tutorial::Tutorial;
use world::World;

const TABLES: [(&str, &[Tutorial]); 10] = [
    ("docker", docker::TUTORIALS),
    ("volumes", volumes::TUTORIALS),
    ("network", network::TUTORIALS),
    ("build", build::TUTORIALS),
    ("images", images::TUTORIALS),
    ("database", database::TUTORIALS),
    ("swarm", swarm::TUTORIALS),
    ("compose", compose::TUTORIALS),
    ("containerd", containerd::TUTORIALS),
    ("podman", podman::TUTORIALS),
];

/// Of a container's start most is waiting: for the engine, the shim, the disk.
const AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let list = words.iter().any(|word| word == "--list");
    let parts: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let all = TABLES
        .iter()
        .flat_map(|(table, rows)| rows.iter().map(move |row| (format!("{table}::{}", row.name), row)));
    let chosen: Vec<(String, &Tutorial)> =
        all.filter(|(name, _)| parts.is_empty() || parts.iter().any(|part| name.contains(*part))).collect();
    if list {
        chosen.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        eprintln!("no test has a name with {parts:?} in it");
        return ExitCode::FAILURE;
    }
    let folder = match namespaces::enter() {
        Ok(folder) => folder,
        Err(status) => return status,
    };
    match run(&folder, chosen) {
        Ok(status) => status,
        Err(sentence) => {
            eprintln!("engines: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &std::path::Path, chosen: Vec<(String, &'static Tutorial)>) -> Result<ExitCode, String> {
    let other = std::env::var_os("RUNTIME").filter(|path| !path.is_empty());
    let own = other.is_none();
    let named = other.or_else(|| std::env::var_os("RCRUN"));
    let runtime = PathBuf::from(named.ok_or("RCRUN is not set: run the tests by `make engines`")?);
    let (mut chosen, left_out): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|(_, t)| own || !t.calls_rcrun);
    for (name, _) in left_out {
        println!("test {name} ... left out: it calls rcrun, and RUNTIME is another");
    }
    let began = Instant::now();
    let mut world = World::start(folder, &runtime)?;
    println!("engines are up ({:.1} s), {} tests", began.elapsed().as_secs_f32(), chosen.len());
    // The queue is taken from its end.
    chosen.reverse();
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(_, t)| t.alone);
    let failed = Mutex::new(Vec::new());
    for (queue, workers) in [(together, AT_ONCE), (alone, 1)] {
        let queue = Mutex::new(queue);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| work(&world, &queue, &failed));
            }
        });
    }
    world.end();
    let failed = failed.into_inner().expect("no worker panics");
    let calls = world.stub_calls();
    if !calls.is_empty() {
        println!("a runtime that no step names was called:\n{calls}");
    }
    let took = began.elapsed().as_secs();
    match failed.is_empty() && calls.is_empty() {
        true => println!("all is well ({took} s)"),
        false => println!("{} failed ({took} s): {}", failed.len(), failed.join(" ")),
    }
    Ok(ExitCode::from(u8::from(!failed.is_empty() || !calls.is_empty())))
}

fn work(world: &World, queue: &Mutex<Vec<(String, &'static Tutorial)>>, failed: &Mutex<Vec<String>>) {
    loop {
        let Some((name, tutorial)) = queue.lock().expect("no worker panics").pop() else { return };
        let began = Instant::now();
        let folder = world.steps(tutorial.name);
        // A limit for each command: one that hangs is a failure of its own.
        let shell = || {
            let mut command = world.command("timeout");
            command.args(["--kill-after=5", "--foreground", "240"]);
            command
        };
        let wrong = tutorial.steps.iter().find_map(|step| step.go(&shell, &folder).err());
        let took = began.elapsed().as_secs_f32();
        match wrong {
            None => println!("test {name} ... ok ({took:.1} s)"),
            Some(wrong) => {
                println!(
                    "test {name} ... FAILED ({took:.1} s)\n{wrong}\n  --- dockerd\n{}",
                    world.log("dockerd", 3)
                );
                failed.lock().expect("no worker panics").push(name);
            }
        }
    }
}
