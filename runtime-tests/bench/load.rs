//! `make bench-load`: what a verb costs on a machine that has much of something already, as a ratio to the floor there,
//! against the same ratio without. Blocks of rounds alone and under a load take turns, so that what the machine does
//! meanwhile falls on both.

mod page;
mod put;

use crate::Result;
use crate::rounds::{Bench, Pace, Row, Series, Work};
use crate::stats::{Quartiles, quartiles};
pub use page::{gate, page};

/// What a machine can have many of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Running containers of rcrun's, below the state root that is measured.
    Containers,
    /// Cgroups, in one folder.
    Cgroups,
    /// Shared mounts in the mount namespace that the runtimes run in.
    Mounts,
    /// All of these at once.
    All,
}

/// How many of each.
const CONTAINERS: usize = 300;
const CGROUPS: usize = 3000;
const MOUNTS: usize = 2000;

impl Load {
    /// As in the table.
    fn name(self) -> String {
        match self {
            Load::Containers => format!("{CONTAINERS} containers running"),
            Load::Cgroups => format!("{CGROUPS} cgroups"),
            Load::Mounts => format!("{MOUNTS} mounts"),
            Load::All => "all three at once".into(),
        }
    }

    /// It is put, or a part of what is put.
    fn has(self, part: Load) -> bool {
        self == part || self == Load::All
    }
}

/// Rounds of one block, alone and under the load.
const ROUNDS: usize = 15;

/// What was measured alone and under one load.
pub struct Growth {
    load: Load,
    alone: Vec<Series>,
    under: Vec<Series>,
}

impl Growth {
    /// Measures that many blocks.
    fn measure(bench: &Bench, load: Load, blocks: usize) -> Result<Self> {
        let mut growth = Self { load, alone: Vec::new(), under: Vec::new() };
        for block in 0..blocks {
            eprintln!("bench: {}, block {} of {blocks}", load.name(), block + 1);
            let alone = bench.measure(Work::Life, Pace::BackToBack, ROUNDS)?;
            let put = put::put(bench, load)?;
            let under = bench.measure(Work::Life, Pace::BackToBack, ROUNDS)?;
            put.lift(bench)?;
            growth.append(alone, under);
        }
        Ok(growth)
    }

    fn append(&mut self, alone: Vec<Series>, under: Vec<Series>) {
        for (all, more) in [(&mut self.alone, alone), (&mut self.under, under)] {
            if all.is_empty() {
                *all = more;
                continue;
            }
            for (all, more) in all.iter_mut().zip(more) {
                all.seconds.iter_mut().zip(more.seconds).for_each(|(all, more)| all.extend(more));
            }
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        self.alone.iter().map(|series| series.row)
    }

    /// The series of a row: alone, and under the load.
    fn of(&self, row: Row) -> Option<(&Series, &Series)> {
        let find = |all: &'_ [Series]| all.iter().position(|series| series.row == row);
        Some((&self.alone[find(&self.alone)?], &self.under[find(&self.under)?]))
    }

    /// By how much a runtime's ratio to the floor grows under the load: of each block the median there over the median
    /// alone.
    fn of_runtime(&self, row: Row, runtime: usize) -> Option<Quartiles> {
        let (alone, under) = self.of(row)?;
        Some(growth(
            [&alone.seconds[runtime], &alone.seconds[0]],
            [&under.seconds[runtime], &under.seconds[0]],
        ))
    }
}

/// Of a runtime's and the floor's seconds alone, and under the load; a block is [`ROUNDS`] of them.
fn growth(alone: [&[f64]; 2], under: [&[f64]; 2]) -> Quartiles {
    let medians = |[runtime, floor]: [&[f64]; 2]| {
        let blocks = runtime.chunks(ROUNDS).zip(floor.chunks(ROUNDS));
        blocks
            .map(|(runtime, floor)| quartiles(runtime.iter().zip(floor).map(|(a, b)| a / b)).median)
            .collect::<Vec<f64>>()
    };
    quartiles(medians(alone).iter().zip(medians(under)).map(|(alone, under)| under / alone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_ratio_and_not_of_the_time() {
        let floor = [1.0; ROUNDS];
        let twice = [2.0; ROUNDS];
        let thrice = [3.0; ROUNDS];
        assert_eq!(growth([&twice, &floor], [&twice, &floor]).median, 1.0);
        assert_eq!(growth([&floor, &floor], [&thrice, &thrice]).median, 1.0);
        assert_eq!(growth([&floor, &floor], [&thrice, &twice]).median, 1.5);
    }

    #[test]
    fn a_block_that_was_disturbed_moves_no_median() {
        let floor = [1.0; 3 * ROUNDS];
        let mut disturbed = floor;
        disturbed[..ROUNDS].fill(9.0);
        assert_eq!(growth([&floor, &floor], [&disturbed, &floor]).median, 1.0);
    }
}
