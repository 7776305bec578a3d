//! `make bench`, `make bench-gate` and `make bench-steps`: times container runtimes against the floor; `make bench-load` and
//! `make bench-load-gate`: the same on a full machine; `make bench-image` and `make bench-image-gate`: tools that unpack
//! images; `make bench-engines` and `make bench-engines-gate`: containers through containerd and Docker; `make layout`: where
//! rcrun's functions lie. Started by bench.mk, which says what each option is.

mod bundles;
mod engines;
mod facts;
mod gate;
mod host;
mod image;
mod layout;
mod load;
mod plot;
mod report;
mod rounds;
mod runtimes;
mod stats;
mod steps;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bundles::Bundles;
use report::Report;
use rounds::{Bench, Pace, Work};
use runtimes::Runtime;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(message.into().into())
}

struct Options {
    verb: String,
    rounds: usize,
    /// How often rounds alone and rounds under a load take turns.
    blocks: usize,
    /// A promise counts as kept up to this multiple of its limit.
    slack: f64,
    runtimes: Vec<String>,
    rcrun: PathBuf,
    seccomp_command: String,
    profile: PathBuf,
    repo: PathBuf,
    steps_of: String,
    /// Where images are unpacked; else each time on a tmpfs of its own.
    unpack_in: Option<PathBuf>,
}

impl Options {
    fn parse() -> Result<Self> {
        let mut args = std::env::args().skip(1);
        let repo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut options = Self {
            verb: args.next().unwrap_or_default(),
            rounds: 60,
            blocks: 8,
            slack: 1.0,
            runtimes: ["rcrun", "runc", "crun", "youki", "bare"].map(String::from).to_vec(),
            rcrun: repo.join("target/release/rcrun"),
            seccomp_command: String::new(),
            profile: repo.join("runtime-tests/samples/seccomp/docker-default.json"),
            repo,
            steps_of: "rcrun".into(),
            unpack_in: None,
        };
        while let Some(name) = args.next() {
            let Some(value) = args.next() else { return fail(format!("{name} needs a value")) };
            match name.as_str() {
                "--rounds" => options.rounds = value.parse()?,
                "--blocks" => options.blocks = value.parse()?,
                "--slack" => options.slack = value.parse()?,
                "--runtimes" => options.runtimes = value.split_whitespace().map(String::from).collect(),
                "--rcrun" => options.rcrun = value.into(),
                "--seccomp-command" => options.seccomp_command = value,
                "--profile" => options.profile = value.into(),
                "--of" => options.steps_of = value,
                "--unpack-in" => options.unpack_in = Some(value).filter(|v| !v.is_empty()).map(PathBuf::from),
                _ => return fail(format!("unknown option {name}")),
            }
        }
        Ok(options)
    }

    fn built(&self, name: &str) -> PathBuf {
        self.repo.join("build/bench").join(name)
    }

    fn bench(&self, prefix: String) -> Result<(Bench, bool)> {
        let bundles = Bundles::write(&self.profile, &self.built("nothing"))?;
        let filter = self.filter(&bundles)?;
        let mut all = vec![Runtime::new("floor", &self.built("floor"))?.with_filter(filter.as_deref())];
        for name in &self.runtimes {
            all.push(match name.as_str() {
                "rcrun" => Runtime::new("rcrun", &self.rcrun)?,
                "runc" => Runtime::new("runc", Path::new("/usr/sbin/runc"))?,
                "bare" => Runtime::new("bare", &self.built("bare"))?.with_filter(filter.as_deref()),
                "crun" => Runtime::new("crun", &self.built("crun/crun"))?,
                "youki" => self.youki()?,
                _ => return fail(format!("no runtime is called {name}")),
            });
        }
        Ok((Bench::new(all, bundles, prefix)?, filter.is_some()))
    }

    /// Says in its version when setup.sh had to build it without the device program.
    fn youki(&self) -> Result<Runtime> {
        let mut youki = Runtime::new("youki", &self.built("youki/bin/youki"))?;
        if !fs::read_to_string(self.built("youki/features"))?.contains("cgroupsv2_devices") {
            youki.version +=
                ", built without its device program, which needs CAP_SYS_RESOURCE: it does less here";
        }
        Ok(youki)
    }

    /// The floor compiles nothing: a command writes its filter, as struct sock_filter, to $OUT, from the bundle $BUNDLE.
    fn filter(&self, bundles: &Bundles) -> Result<Option<PathBuf>> {
        if self.seccomp_command.is_empty() {
            return Ok(None);
        }
        let file = Path::new(host::WORK).join("floor.seccomp");
        let made = Command::new("sh")
            .args(["-c", &self.seccomp_command])
            .env("OUT", &file)
            .env("BUNDLE", &bundles.seccomp)
            .status()?;
        let size = fs::metadata(&file).map(|m| m.len()).unwrap_or_default();
        if !made.success() || size == 0 || !size.is_multiple_of(8) {
            return fail(format!(
                "{:?} wrote no filter for the floor ({made}, {size} bytes)",
                self.seccomp_command
            ));
        }
        Ok(Some(file))
    }
}

fn main() -> ExitCode {
    let verb = std::env::args().nth(1).unwrap_or_default();
    let done = match host::Role::own() {
        // Engines need more namespaces than this private machine has.
        _ if ["engines", "engines-gate"].contains(&&verb[..]) => engines::run(),
        host::Role::Supervisor => host::supervise(),
        host::Role::Worker(prefix) => measure(prefix),
        host::Role::Sweeper(prefix) => host::sweep(&prefix),
    };
    done.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        ExitCode::FAILURE
    })
}

fn measure(prefix: String) -> Result<ExitCode> {
    host::begin_work()?;
    let options = Options::parse()?;
    if let "image" | "image-gate" = &options.verb[..] {
        return images(&options, &prefix);
    }
    let (bench, floor_filtered) = options.bench(prefix)?;
    match options.verb.as_str() {
        "table" => table(&options, &bench, floor_filtered),
        "gate" => {
            if !floor_filtered {
                return fail("the gate needs the floor's filter: give --seccomp-command");
            }
            let mut verdicts = gate::run(&bench, options.rounds, options.slack)?;
            let touched = |runtime| facts::touched(&bench, runtime, &options.built("peak"));
            let faults: Vec<u64> = bench.runtimes.iter().map(|r| Ok(touched(r)?.1)).collect::<Result<_>>()?;
            verdicts.push(gate::judge_faults(&bench, &faults)?);
            judged(&verdicts)
        }
        "load-gate" => judged(&load::gate(&bench, options.blocks, options.slack)?),
        "load" => {
            let page = load::page(&bench, options.blocks)?;
            println!("{page}");
            fs::write(options.repo.join("docs/benchmarks-load.md"), page)?;
            Ok(ExitCode::SUCCESS)
        }
        "steps" => {
            print!("{}", steps::table(&bench, &options.steps_of)?);
            Ok(ExitCode::SUCCESS)
        }
        "layout" => {
            fs::write(options.repo.join("src/cli/layout.ld"), layout::script(&bench)?)?;
            Ok(ExitCode::SUCCESS)
        }
        verb => fail(format!(
            "bench table, gate, steps, layout, load, load-gate, image, image-gate, engines or engines-gate, not {verb:?}"
        )),
    }
}

fn judged(verdicts: &[gate::Verdict]) -> Result<ExitCode> {
    print!("{}", gate::table(verdicts)?);
    let missed = verdicts.iter().filter(|v| !v.kept).count();
    println!("{} passed, {missed} failed", verdicts.len() - missed);
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn images(options: &Options, prefix: &str) -> Result<ExitCode> {
    let bench = image::Bench::new(
        &options.rcrun,
        &options.built("image"),
        options.unpack_in.clone(),
        prefix.to_owned(),
    )?;
    let done = match &options.verb[..] {
        "image" => image::table(&bench, options.rounds).and_then(|page| {
            println!("{page}");
            fs::write(options.repo.join("docs/benchmarks-image.md"), page)?;
            Ok(ExitCode::SUCCESS)
        }),
        _ => image::gate(&bench, options.rounds, options.slack),
    };
    bench.remove()?;
    done
}

fn table(options: &Options, bench: &Bench, floor_filtered: bool) -> Result<ExitCode> {
    let mut series = Vec::new();
    for pace in [Pace::BackToBack, Pace::Pauses] {
        for work in
            [Work::Run, Work::RunSeccomp, Work::Life, Work::Parallel(1), Work::Parallel(2), Work::Parallel(4)]
        {
            eprintln!("bench: {work:?}, {pace:?}");
            series.extend(bench.measure(work, pace, gate::rounds_of(work, options.rounds))?);
        }
    }
    let facts = facts::count(bench, &options.built("peak"))?;
    let mut verdicts = gate::judge_all(bench, &series);
    if !verdicts.is_empty() {
        let faults: Vec<u64> = facts.iter().map(|f| f.faults).collect();
        verdicts.push(gate::judge_faults(bench, &faults)?);
    }
    let steps = gate::rcrun(bench).map(|_| steps::table(bench, "rcrun")).transpose()?;
    let report = Report {
        runtimes: &bench.runtimes,
        series: &series,
        facts: &facts,
        verdicts: &verdicts,
        steps,
        floor_filtered,
    };
    println!("{}", report.tables()?);
    if !verdicts.is_empty() {
        println!("{}", gate::table(&verdicts)?);
    }
    fs::create_dir_all(options.repo.join("docs"))?;
    fs::write(options.repo.join("docs/benchmarks.md"), report.page()?)?;
    fs::write(options.repo.join("docs/benchmarks.svg"), report.plot())?;
    Ok(ExitCode::SUCCESS)
}
