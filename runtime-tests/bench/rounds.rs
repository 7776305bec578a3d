//! The alternating timer: each round gives every runtime the same work once, in an order that rotates, so that a busy
//! moment of the machine falls on all of them. Only ratios within a round are compared.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::bundles::Bundles;
use crate::host::WORK;
use crate::runtimes::{Quiet, Runtime};
use crate::stats::{Quartiles, quartiles};
use crate::{Result, fail};

/// How long the machine rests before each operation when there are pauses. A write to cgroup.procs costs milliseconds
/// after 10 ms without one, which a benchmark without pauses never sees.
const PAUSE: Duration = Duration::from_millis(20);
/// Containers in one measurement of the parallel rate.
const PARALLEL_STARTS: usize = 200;
/// With pauses: bursts in one measurement, each as wide as there are threads.
const BURSTS: usize = 20;

/// One line of the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row {
    /// `run` of /bin/true.
    Run,
    /// The same under Docker's default seccomp profile.
    RunSeccomp,
    /// `create` of a sleeping container.
    Create,
    /// Its `start`.
    Start,
    /// Its `state`.
    State,
    /// `exec` of /bin/true in it.
    Exec,
    /// `kill ID KILL`.
    Kill,
    /// `delete`, when init is gone.
    Delete,
    /// 200 runs, this many at a time.
    Parallel(usize),
}

impl Row {
    /// As in the tables.
    pub fn name(self) -> String {
        match self {
            Self::Run => "run".into(),
            Self::RunSeccomp => "run, Docker's seccomp profile".into(),
            Self::Create => "create".into(),
            Self::Start => "start".into(),
            Self::State => "state".into(),
            Self::Exec => "exec".into(),
            Self::Kill => "kill".into(),
            Self::Delete => "delete".into(),
            Self::Parallel(n) => format!("{PARALLEL_STARTS} runs, {n} at a time"),
        }
    }

    /// Whether the table shows containers per second, where more is better.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::Parallel(_))
    }

    /// The piece of work that yields this row.
    pub fn work(self) -> Work {
        match self {
            Self::Run => Work::Run,
            Self::RunSeccomp => Work::RunSeccomp,
            Self::Parallel(n) => Work::Parallel(n),
            _ => Work::Life,
        }
    }
}

/// With or without pauses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// One operation after the other.
    BackToBack,
    /// 20 ms of rest before each.
    Pauses,
}

impl Pace {
    fn rest(self) {
        if self == Self::Pauses {
            std::thread::sleep(PAUSE);
        }
    }
}

/// What one runtime does in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Yields [`Row::Run`].
    Run,
    /// Yields [`Row::RunSeccomp`].
    RunSeccomp,
    /// create, start, state, exec, kill, delete of one container: yields a row each.
    Life,
    /// Yields [`Row::Parallel`].
    Parallel(usize),
}

impl Work {
    /// Rows in the order of [`Bench::once`]'s results.
    pub fn rows(self) -> Vec<Row> {
        match self {
            Self::Run => vec![Row::Run],
            Self::RunSeccomp => vec![Row::RunSeccomp],
            Self::Life => vec![Row::Create, Row::Start, Row::State, Row::Exec, Row::Kill, Row::Delete],
            Self::Parallel(n) => vec![Row::Parallel(n)],
        }
    }
}

/// The seconds of one row: one for each round and runtime (the floor is the first runtime). A rate's are those of one
/// container.
pub struct Series {
    /// What was timed.
    pub row: Row,
    /// At which pace.
    pub pace: Pace,
    /// By runtime, then by round.
    pub seconds: Vec<Vec<f64>>,
}

impl Series {
    /// A runtime's own seconds.
    pub fn time(&self, runtime: usize) -> Quartiles {
        quartiles(self.seconds[runtime].iter().copied())
    }

    /// Time of one runtime against another's in the same round; below 1 is faster, for rates too.
    pub fn ratio(&self, runtime: usize, to: usize) -> Quartiles {
        quartiles(self.seconds[runtime].iter().zip(&self.seconds[to]).map(|(a, b)| a / b))
    }
}

/// Everything the timer needs.
pub struct Bench {
    /// The floor first.
    pub runtimes: Vec<Runtime>,
    /// What they run.
    pub bundles: Bundles,
    prefix: String,
    ids: AtomicUsize,
    quiet: Quiet,
}

impl Bench {
    /// `prefix` begins every id: the supervisor cleans by it.
    pub fn new(runtimes: Vec<Runtime>, bundles: Bundles, prefix: String) -> Result<Self> {
        Ok(Self { runtimes, bundles, prefix, ids: AtomicUsize::new(0), quiet: Quiet::new("main")? })
    }

    /// A container id that was not used before.
    pub fn id(&self) -> String {
        format!("{}{}", self.prefix, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Times one piece of work in alternating rounds, after two rounds that are not counted.
    pub fn measure(&self, work: Work, pace: Pace, rounds: usize) -> Result<Vec<Series>> {
        let count = self.runtimes.len();
        let mut series: Vec<Series> = work
            .rows()
            .into_iter()
            .map(|row| Series { row, pace, seconds: vec![Vec::new(); count] })
            .collect();
        let warm = if matches!(work, Work::Parallel(_)) { 0 } else { 2 };
        for round in 0..warm + rounds {
            for place in 0..count {
                let runtime = (round + place) % count;
                let times = self.once(&self.runtimes[runtime], work, pace)?;
                if round >= warm {
                    for (series, time) in series.iter_mut().zip(times) {
                        series.seconds[runtime].push(time.as_secs_f64());
                    }
                }
            }
        }
        Ok(series)
    }

    fn once(&self, runtime: &Runtime, work: Work, pace: Pace) -> Result<Vec<Duration>> {
        match work {
            Work::Run => Ok(vec![self.run(runtime, &self.bundles.quick, &self.quiet, pace)?]),
            Work::RunSeccomp => Ok(vec![self.run(runtime, &self.bundles.seccomp, &self.quiet, pace)?]),
            Work::Life => self.life(runtime, pace),
            Work::Parallel(threads) => Ok(vec![self.parallel(runtime, threads, pace)?]),
        }
    }

    fn run(&self, runtime: &Runtime, bundle: &Path, quiet: &Quiet, pace: Pace) -> Result<Duration> {
        let id = self.id();
        pace.rest();
        let args = ["run".as_ref(), "-b".as_ref(), bundle.as_os_str(), id.as_ref()];
        runtime.time(quiet, &args, bundle == self.bundles.seccomp)
    }

    fn life(&self, runtime: &Runtime, pace: Pace) -> Result<Vec<Duration>> {
        let id = self.id();
        let pid_file = Path::new(WORK).join("pid");
        let time = |args: &[&OsStr]| {
            pace.rest();
            runtime.time(&self.quiet, args, false)
        };
        let id: &OsStr = id.as_ref();
        let create =
            ["create".as_ref(), "-b".as_ref(), self.bundles.sleep.as_os_str(), "--pid-file".as_ref()];
        let mut times = vec![time(&[&create[..], &[pid_file.as_os_str(), id]].concat())?];
        times.push(time(&["start".as_ref(), id])?);
        times.push(time(&["state".as_ref(), id])?);
        times.push(time(&["exec".as_ref(), id, "/bin/true".as_ref()])?);
        times.push(time(&["kill".as_ref(), id, "KILL".as_ref()])?);
        // Init is this process's child since its creator has gone. Its end is not charged to delete.
        let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
        waitpid(Pid::from_raw(pid), None)?;
        times.push(time(&["delete".as_ref(), id])?);
        Ok(times)
    }

    /// Seconds for one container, of 200. With pauses, they are started in bursts, and the pauses between the bursts are
    /// not counted.
    fn parallel(&self, runtime: &Runtime, threads: usize, pace: Pace) -> Result<Duration> {
        let (batches, starts) = match pace {
            Pace::BackToBack => (1, PARALLEL_STARTS),
            Pace::Pauses => (BURSTS, threads),
        };
        let quiet: Vec<Quiet> = (0..threads).map(|n| Quiet::new(&n.to_string())).collect::<Result<_>>()?;
        let mut total = Duration::ZERO;
        for _ in 0..batches {
            pace.rest();
            let left = AtomicUsize::new(starts);
            let begin = Instant::now();
            let failed = std::thread::scope(|scope| {
                let workers: Vec<_> = quiet
                    .iter()
                    .map(|quiet| {
                        let left = &left;
                        scope.spawn(move || {
                            let take = |n: usize| n.checked_sub(1);
                            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                                self.run(runtime, &self.bundles.quick, quiet, Pace::BackToBack)
                                    .map_err(|e| e.to_string())?;
                            }
                            Ok::<(), String>(())
                        })
                    })
                    .collect();
                workers
                    .into_iter()
                    .filter_map(|w| w.join().map_or(Some("panicked".into()), |r| r.err()))
                    .next()
            });
            total += begin.elapsed();
            if let Some(error) = failed {
                return fail(error);
            }
        }
        Ok(total / u32::try_from(batches * starts)?)
    }
}
