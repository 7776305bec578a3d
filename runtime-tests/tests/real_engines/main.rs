//! Real engines with the runtime under test in runc's place: Docker with the classic builder and BuildKit, containerd's
//! ctr, podman, buildah and docker-compose. What they are asked, and what must come of it, stands in tables that read
//! like the tutorials of those who use them.
//!
//! usage: real_engines [--list] [--machine] [--setup NAME]... [PART-OF-A-NAME]...
//!
//! `RCRUN` is the runtime, containerd's shim of the same build lies beside it; `RUNTIME=/usr/sbin/runc` in its place tells
//! what another one makes of the same. `ENGINES_IMAGE` is what `runtime-tests/engines/make-image` printed, `ENGINES_DISK`
//! what `runtime-tests/machines/build engines` did: with it the engines are trixie's. `make engines` sets all of it up.
//!
//! `--machine` is for a machine of our own with systemd: the engines are its units. Without names those tutorials run that
//! need it. Each setup runs all that it can; without one it is cgroupfs, in a machine systemd.

mod build;
mod compose;
mod containerd;
mod daemons;
mod database;
mod docker;
mod images;
mod limits;
mod network;
mod podman;
mod rootless;
mod setup;
mod swarm;
mod tutorial;
mod user;
mod volumes;
mod world;

use runtime_tests::namespaces;
use setup::{Machine, Need, SETUPS, Setup, Shim};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;
use tutorial::Tutorial;
use world::World;

/// Tables, and if Docker is in them: for others its shim makes no difference.
const TABLES: [(&str, bool, &[Tutorial]); 12] = [
    ("docker", true, docker::TUTORIALS),
    ("volumes", true, volumes::TUTORIALS),
    ("network", true, network::TUTORIALS),
    ("build", true, build::TUTORIALS),
    ("images", true, images::TUTORIALS),
    ("database", true, database::TUTORIALS),
    ("swarm", true, swarm::TUTORIALS),
    ("compose", true, compose::TUTORIALS),
    ("containerd", false, containerd::TUTORIALS),
    ("podman", false, podman::TUTORIALS),
    ("limits", true, limits::TUTORIALS),
    ("rootless", false, rootless::TUTORIALS),
];

/// How many tutorials run at once, and the seconds that a step may take. Of a container's start most is waiting: for the
/// engine, the shim, the disk. Not so in a machine that is emulated: there one is quicker than four.
fn pace(emulated: bool) -> (usize, &'static str) {
    if emulated { (1, "400") } else { (4, "240") }
}

/// One of a table.
#[derive(Clone)]
struct Row {
    name: String,
    of_docker: bool,
    tutorial: &'static Tutorial,
}

/// The command line.
struct Request {
    list: bool,
    machine: bool,
    setups: Vec<&'static Setup>,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    let request = match request() {
        Ok(request) => request,
        Err(sentence) => return fails(&sentence),
    };
    if request.list {
        request.rows.iter().for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    let folder = match request.machine {
        true => PathBuf::from("/srv/engines"),
        false => match namespaces::enter() {
            Ok(folder) => folder,
            Err(status) => return status,
        },
    };
    run(&folder, &request).unwrap_or_else(|sentence| fails(&sentence))
}

fn fails(sentence: &str) -> ExitCode {
    eprintln!("engines: {sentence}");
    ExitCode::FAILURE
}

fn request() -> Result<Request, String> {
    let (mut list, mut machine, mut setups, mut parts) = (false, false, Vec::new(), Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => list = true,
            "--machine" => machine = true,
            "--setup" => {
                let name = words.next().unwrap_or_default();
                let known = || SETUPS.map(|setup| setup.name).join(", ");
                let setup = SETUPS.iter().find(|setup| setup.name == name);
                setups.push(setup.ok_or_else(|| format!("--setup {name}: is one of {}", known()))?);
            }
            // Cargo's own.
            option if option.starts_with('-') => {}
            _ => parts.push(word),
        }
    }
    if setups.is_empty() {
        let usual = if machine { "systemd" } else { "cgroupfs" };
        setups.extend(SETUPS.iter().find(|setup| setup.name == usual));
    }
    let named = |row: &Row| match parts.is_empty() {
        true => {
            !machine || row.tutorial.needs.iter().any(|n| matches!(n, Need::Controller(_) | Need::Systemd))
        }
        false => parts.iter().any(|part| row.name.contains(part)),
    };
    let rows = TABLES.iter().flat_map(|(table, of_docker, tutorials)| {
        tutorials.iter().map(move |tutorial| Row {
            name: format!("{table}::{}", tutorial.name),
            of_docker: *of_docker,
            tutorial,
        })
    });
    let rows: Vec<Row> = rows.filter(named).collect();
    match rows.is_empty() {
        true => Err(format!("no test has a name with {parts:?} in it")),
        false => Ok(Request { list, machine, setups, rows }),
    }
}

fn run(folder: &Path, request: &Request) -> Result<ExitCode, String> {
    let other = std::env::var_os("RUNTIME").filter(|path| !path.is_empty());
    let own = other.is_none();
    let named = other.or_else(|| std::env::var_os("RCRUN"));
    let runtime = PathBuf::from(named.ok_or("RCRUN is not set: run the tests by `make engines`")?);
    let version = std::process::Command::new("/usr/sbin/dockerd").arg("--version").output();
    let version = version.map_err(|e| format!("dockerd: {e}"))?;
    let machine = Machine::look(own, &String::from_utf8_lossy(&version.stdout));
    if !request.machine && !machine.image {
        return Err("ENGINES_IMAGE is not set: run the tests by `make engines`".into());
    }
    let (mut failed, mut drivers) = (Vec::new(), Vec::new());
    let (mut ran, began) = (0, Instant::now());
    for setup in &request.setups {
        if setup.shim == Shim::Own && !own {
            return Err(format!("{}: containerd-shim-rcrun-v2 takes no other runtime", setup.name));
        }
        // podman and others run once with each driver.
        let again = drivers.contains(&setup.driver);
        drivers.push(setup.driver);
        let mut chosen = Vec::new();
        for row in request.rows.iter().filter(|row| row.of_docker || !again) {
            match row.tutorial.all_needs().find(|need| !machine.has(*need, setup)) {
                Some(need) => println!("test {} ... left out: it needs {need}", row.name),
                None => chosen.push(row.clone()),
            }
        }
        if chosen.is_empty() {
            continue;
        }
        ran += chosen.len();
        failed.extend(under(setup, folder, &runtime, &machine, chosen)?);
    }
    let took = began.elapsed().as_secs();
    match failed.is_empty() {
        true => println!("all is well ({took} s)"),
        false => println!("failed ({took} s): {}", failed.join(" ")),
    }
    println!("\n{} passed, {} failed", ran - failed.len().min(ran), failed.len());
    Ok(ExitCode::from(u8::from(!failed.is_empty() || ran == 0)))
}

/// Runs these tutorials under one setup; tells which failed.
fn under(
    setup: &'static Setup,
    folder: &Path,
    runtime: &Path,
    machine: &Machine,
    chosen: Vec<Row>,
) -> Result<Vec<String>, String> {
    let began = Instant::now();
    let user = chosen.iter().any(|row| row.tutorial.user);
    let mut world = World::start(folder, runtime, setup, machine, user)?;
    println!(
        "engines are up: Docker {} {} ({:.1} s), {} tests",
        machine.docker,
        setup.name,
        began.elapsed().as_secs_f32(),
        chosen.len()
    );
    // The queue is taken from its end.
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().rev().partition(|row| row.tutorial.alone);
    let failed = Mutex::new(Vec::new());
    let (at_once, limit) = pace(machine.systemd);
    for (queue, workers) in [(together, at_once), (alone, 1)] {
        let queue = Mutex::new(queue);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| work(&world, &queue, limit, &failed));
            }
        });
    }
    world.end();
    let mut failed = failed.into_inner().expect("no worker panics");
    let calls = world.stub_calls();
    if !calls.is_empty() {
        println!("a runtime that no step names was called:\n{calls}");
        failed.push("stubs".into());
    }
    Ok(failed)
}

fn work(world: &World, queue: &Mutex<Vec<Row>>, limit: &str, failed: &Mutex<Vec<String>>) {
    loop {
        let Some(Row { name, tutorial, .. }) = queue.lock().expect("no worker panics").pop() else { return };
        let began = Instant::now();
        let folder = world.steps(tutorial);
        // A limit for each command: one that hangs is a failure of its own.
        let shell = || {
            let mut command = if tutorial.user { world.users("timeout") } else { world.command("timeout") };
            command.args(["--kill-after=5", "--foreground", limit]);
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
