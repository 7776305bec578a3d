//! Runs tests in machines of our own: user-mode Linux and QEMU, with systemd, pure cgroup v2 and all capabilities.
//!
//! usage: machines DISK-FOLDER RCRUN uml|qemu... [--test NAME]... [--command SHELL [--program TARGET] [--carry PATH]...] [--minutes NUMBER]
//!
//! DISK-FOLDER is what `build` printed. NAME is the beginning of a test's full name (`vm::limits`, `lifecycle::kill`);
//! without one, all tests run that `../tiers` has for the machine. SHELL runs in place of tests, with the same files, and
//! with the program of a test target as `tests/TARGET`, and with what is at each PATH.
//! Fails when a test failed, when one that was asked for did not run, and when a cgroup is left.

mod boot;
mod outcome;
mod payload;
mod tiers;

use outcome::Outcome;
use payload::Chosen;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tiers::{Tier, Tiers};

/// The command line.
struct Request {
    disk: PathBuf,
    rcrun: PathBuf,
    machines: Vec<Tier>,
    only: Vec<String>,
    command: Option<String>,
    program: Option<String>,
    carry: Vec<PathBuf>,
    minutes: Option<u64>,
}

/// What one machine did.
struct Row {
    machine: Tier,
    booted: Option<Duration>,
    took: Duration,
    status: Option<i32>,
    again: bool,
    outcomes: Vec<Outcome>,
}

fn main() -> ExitCode {
    match request().and_then(run) {
        Ok(status) => ExitCode::from(status),
        Err(sentence) => {
            eprintln!("machines: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn request() -> Result<Request, String> {
    let usage = "usage: machines DISK-FOLDER RCRUN uml|qemu... [--test NAME]... [--command SHELL [--program TARGET] [--carry PATH]...] [--minutes NUMBER]";
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().filter(|word| !word.is_empty());
    let (Some(disk), Some(rcrun)) = (next(), next()) else { return Err(usage.into()) };
    let mut request = Request {
        disk: disk.into(),
        rcrun: rcrun.into(),
        machines: Vec::new(),
        only: Vec::new(),
        command: None,
        program: None,
        carry: Vec::new(),
        minutes: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--test" => request.only.push(words.next().ok_or(usage)?),
            "--command" => request.command = Some(words.next().ok_or(usage)?),
            "--program" => request.program = Some(words.next().ok_or(usage)?),
            "--carry" => request.carry.push(words.next().ok_or(usage)?.into()),
            "--minutes" => {
                let number = words.next().and_then(|word| word.parse().ok());
                request.minutes = Some(number.ok_or(usage)?);
            }
            name => match Tier::named(name).filter(|tier| *tier != Tier::Native) {
                Some(tier) => request.machines.push(tier),
                None => return Err(format!("{name} is no machine; {usage}")),
            },
        }
    }
    if request.machines.is_empty() { Err(usage.into()) } else { Ok(request) }
}

fn run(request: Request) -> Result<u8, String> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(home.join("tiers")).map_err(|e| format!("tiers: {e}"))?;
    let tiers = Tiers::parse(&text)?;
    // A folder beside the disks, for a tmpfs that only we see.
    let work = request.disk.parent().ok_or("the disk's folder is /")?.join("work");
    if let Some(command) = &request.command {
        let targets: Vec<&str> = request.program.iter().map(String::as_str).collect();
        let programs = payload::build(&targets)?;
        let chosen =
            programs.into_iter().map(|(target, program)| Chosen { target, program, tests: Vec::new() });
        let chosen: Vec<Chosen> = chosen.collect();
        boot::own_tmpfs(&work)?;
        let tar = payload::pack(&work, &request.rcrun, &chosen, &request.carry, command)?;
        let run =
            boot::run(request.machines[0], &request.disk, &tar, &work, limit(request.machines[0], &request))?;
        return Ok(run.status.map_or(1, |status| status as u8));
    }
    let mut targets: Vec<&str> = request.machines.iter().flat_map(|tier| tiers.targets(*tier)).collect();
    let asked = |target: &&str, name: &str| match name.split_once("::") {
        Some((whole, _)) => whole == *target,
        None => target.starts_with(name),
    };
    targets.retain(|target| request.only.is_empty() || request.only.iter().any(|name| asked(target, name)));
    targets.sort_unstable();
    targets.dedup();
    if targets.is_empty() {
        return Err(format!("no test target of `tiers` fits {}", request.only.join(" ")));
    }
    let programs = payload::build(&targets)?;
    let lists = payload::list(&programs)?;
    if let Some(name) = tiers.idle(&lists) {
        return Err(format!("tiers: {name}: there is no such test"));
    }
    let choose = |tier: &Tier| payload::choose(&tiers, *tier, &programs, &lists, &request.only);
    let chosen: Vec<_> = request.machines.iter().map(choose).collect();
    for name in &request.only {
        if !chosen.iter().flatten().any(|one| one.has(name)) {
            return Err(format!("{name}: no test for {} begins so", names(&request.machines)));
        }
    }
    boot::own_tmpfs(&work)?;
    let mut rows = Vec::new();
    for (&machine, chosen) in request.machines.iter().zip(&chosen).filter(|(_, chosen)| !chosen.is_empty()) {
        println!("machines: {}", machine.name());
        let began = Instant::now();
        let tar = payload::pack(&work, &request.rcrun, chosen, &[], &payload::script(machine, chosen))?;
        let run = boot::run(machine, &request.disk, &tar, &work, limit(machine, &request))?;
        let outcomes = outcome::outcomes(chosen, &run.output);
        let (booted, status, again) = (run.booted, run.status, run.again);
        rows.push(Row { machine, booted, took: began.elapsed(), status, again, outcomes });
    }
    show(&rows);
    // The status tells of more than the tests count: of what they left.
    let good = rows.iter().all(|row| row.status == Some(0) && row.outcomes.iter().all(Outcome::is_good));
    Ok(u8::from(!good))
}

fn names(machines: &[Tier]) -> String {
    machines.iter().map(|tier| tier.name()).collect::<Vec<_>>().join(", ")
}

/// How long all tests of a machine may take after it has booted: three times what they take on a busy host.
fn limit(machine: Tier, request: &Request) -> Duration {
    let minutes = request.minutes.unwrap_or(if machine == Tier::Qemu { 40 } else { 25 });
    Duration::from_secs(minutes * 60)
}

fn show(rows: &[Row]) {
    let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
    println!(
        "\n{:<8} {:>6} {:>6}  {:<18} {:>5} {:>6} {:>6}",
        "machine", "boot", "all", "tests", "asked", "passed", "failed"
    );
    for row in rows {
        let mut columns =
            [row.machine.name().to_string(), row.booted.map_or("never".into(), seconds), seconds(row.took)];
        for one in &row.outcomes {
            let mark = if one.is_good() { "" } else { "  <--" };
            let [machine, boot, all] = &columns;
            println!(
                "{machine:<8} {boot:>6} {all:>6}  {:<18} {:>5} {:>6} {:>6}{mark}",
                one.target, one.asked, one.passed, one.failed
            );
            columns = Default::default();
        }
        if row.again {
            println!("{:<8} stood still the first time: these are the second's", row.machine.name());
        }
        // Tests that pass and a script that does not: something was left.
        if row.status == Some(1) && row.outcomes.iter().all(Outcome::is_good) {
            println!("{:<8} something was left, see above  <--", row.machine.name());
        }
    }
    let sum = |of: fn(&Outcome) -> usize| rows.iter().flat_map(|row| &row.outcomes).map(of).sum::<usize>();
    println!(
        "{:<22}  {:<18} {:>5} {:>6} {:>6}",
        "",
        "all",
        sum(|o| o.asked),
        sum(|o| o.passed),
        sum(|o| o.failed)
    );
}
