//! `make bench-engines`: what one container costs through containerd and through Docker, by rcrun's shim and by runc's with
//! several runtimes. In namespaces of its own, in alternating rounds; only times of one round are compared.

mod counts;
mod page;
mod place;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::stats::{Quartiles, quartiles};
use crate::{Options, Result, fail};
pub use page::{gate, page};
use place::Place;

/// Containers in one measurement of the rate, and how many at a time.
const MANY: usize = 200;
const AT_ONCE: usize = 4;

/// By whom a container is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Nobody: all that the client and containerd do but the task, for a runtime that is not there.
    Client,
    /// rcrun's shim.
    Rcrun,
    /// runc's shim, which executes crun, runc or rcrun.
    StockCrun,
    StockRunc,
    StockRcrun,
}

impl Way {
    /// As in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Way::Client => "client alone",
            Way::Rcrun => "rcrun",
            Way::StockCrun => "runc's shim, crun",
            Way::StockRunc => "runc's shim, runc",
            Way::StockRcrun => "runc's shim, rcrun",
        }
    }
}

/// All that make containers.
pub const WAYS: [Way; 4] = [Way::Rcrun, Way::StockCrun, Way::StockRunc, Way::StockRcrun];

/// All that Debian 12's Docker has: it takes no other shim than runc's.
const WAYS_OF_DOCKER: [Way; 3] = [Way::StockCrun, Way::StockRunc, Way::StockRcrun];

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row {
    /// `ctr run --rm` of true.
    Ctr,
    /// So many of them, some at a time; seconds of one.
    Many,
    /// `docker run --rm` of true, without a network.
    Docker,
}

impl Row {
    /// As in the tables.
    pub fn name(self) -> String {
        match self {
            Row::Ctr => "ctr run --rm".into(),
            Row::Many => format!("{MANY} × ctr run --rm, {AT_ONCE} at a time"),
            Row::Docker => "docker run --rm".into(),
        }
    }
}

/// Seconds: of each way, one for each round.
pub struct Series {
    /// What was timed.
    pub row: Row,
    ways: Vec<Way>,
    seconds: Vec<Vec<f64>>,
}

impl Series {
    fn of(&self, way: Way) -> Result<&[f64]> {
        match self.ways.iter().position(|w| *w == way) {
            Some(at) => Ok(&self.seconds[at]),
            None => fail(format!("{} was not measured by {}", self.row.name(), way.name())),
        }
    }

    /// How many rounds there were.
    pub fn rounds(&self) -> usize {
        self.seconds[0].len()
    }

    /// A way's own seconds.
    pub fn time(&self, way: Way) -> Result<Quartiles> {
        Ok(quartiles(self.of(way)?.iter().copied()))
    }

    /// Time of one against another's in the same round.
    pub fn ratio(&self, way: Way, to: Way) -> Result<Quartiles> {
        Ok(quartiles(self.of(way)?.iter().zip(self.of(to)?).map(|(a, b)| a / b)))
    }

    /// The same when the client's own time, in the same round, is taken off both.
    pub fn ratio_after_client(&self, way: Way, to: Way) -> Result<Quartiles> {
        after_client(self.of(way)?, self.of(to)?, self.of(Way::Client)?)
    }

    fn append(&mut self, more: Series) {
        self.seconds.iter_mut().zip(more.seconds).for_each(|(all, more)| all.extend(more));
    }
}

fn after_client(way: &[f64], to: &[f64], client: &[f64]) -> Result<Quartiles> {
    let rounds = way.iter().zip(to).zip(client);
    // A round in which the client alone took longer than with a task says nothing.
    let ratios: Vec<f64> = rounds
        .filter(|((_, to), client)| to > client)
        .map(|((way, to), client)| (way - client) / (to - client))
        .collect();
    match ratios.len() * 2 > way.len() {
        true => Ok(quartiles(ratios)),
        false => {
            fail("the client alone takes as long as with a task: this machine is too busy to measure on")
        }
    }
}

/// Times all ways in alternating rounds, after one that is not counted.
fn measure(place: &Place, row: Row, ways: &[Way], rounds: usize) -> Result<Series> {
    let mut series = Series { row, ways: ways.to_vec(), seconds: vec![Vec::new(); ways.len()] };
    let warm = usize::from(row != Row::Many);
    for round in 0..warm + rounds {
        for at in 0..ways.len() {
            let way = (round + at) % ways.len();
            let time = once(place, row, ways[way])?;
            if round >= warm {
                series.seconds[way].push(time.as_secs_f64());
            }
        }
    }
    Ok(series)
}

fn once(place: &Place, row: Row, way: Way) -> Result<Duration> {
    match row {
        Row::Ctr => place.ctr_run(way),
        Row::Docker => place.docker_run(way),
        Row::Many => {
            let left = AtomicUsize::new(MANY);
            let begin = Instant::now();
            let failed = std::thread::scope(|scope| {
                let work = || {
                    let take = |n: usize| n.checked_sub(1);
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                        place.ctr_run(way).map_err(|e| e.to_string())?;
                    }
                    Ok::<(), String>(())
                };
                let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
                let ended = workers.into_iter().map(|w| w.join().unwrap_or(Err("panicked".into())));
                ended.filter_map(std::result::Result::err).next()
            });
            match failed {
                Some(error) => fail(error),
                None => Ok(begin.elapsed() / MANY as u32),
            }
        }
    }
}

/// `engines` and `engines-gate`, in namespaces of their own.
pub fn run() -> Result<ExitCode> {
    let options = Options::parse()?;
    let folder = match runtime_tests::namespaces::enter() {
        Ok(folder) => folder,
        Err(status) => return Ok(status),
    };
    let place = Place::start(&folder, &options)?;
    match options.verb.as_str() {
        "engines" => page(&place, &options),
        _ => gate(&place, &options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_time_is_taken_off_both_sides_of_a_ratio() {
        let ratio = after_client(&[2.0, 3.0], &[3.0, 5.0], &[1.0, 1.0]).unwrap();
        assert_eq!(ratio.median, 0.5);
    }

    #[test]
    fn rounds_in_which_the_client_was_slowest_do_not_count_and_must_be_few() {
        let ratio = after_client(&[2.0, 2.0, 2.0], &[3.0, 3.0, 3.0], &[1.0, 9.0, 1.0]).unwrap();
        assert_eq!(ratio.median, 0.5);
        assert!(after_client(&[2.0, 2.0], &[3.0, 3.0], &[1.0, 9.0]).is_err());
    }
}
